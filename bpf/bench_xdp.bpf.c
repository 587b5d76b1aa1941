// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The ways to fix a checksum in XDP, for the benchmark. */
#include "ctx_xdp.h"
#include "csum_bench.h"

SEC("xdp.frags")
int bench(struct xdp_md *xdp)
{
	return change_ports(xdp);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
