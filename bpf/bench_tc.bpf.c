// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The ways to fix a checksum in tc, for the benchmark. */
#include "ctx_skb.h"
#include "csum_bench.h"

SEC("tc")
int bench(struct __sk_buff *skb)
{
	return change_ports(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
