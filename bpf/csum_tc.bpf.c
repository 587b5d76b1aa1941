// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The checksum update of an skb, for packet tests and benchmarks. */
#include "ctx_skb.h"
#include "csum_case.h"

SEC("tc")
int csum_tc(struct __sk_buff *skb)
{
	return apply_changes(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
