// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The checksum update of an XDP buffer, for packet tests and benchmarks. */
#include "ctx_xdp.h"
#include "csum_case.h"

SEC("xdp.frags")
int csum_xdp(struct xdp_md *xdp)
{
	return apply_changes(xdp);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
