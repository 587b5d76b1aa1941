// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The ways to fix a checksum in XDP, for the benchmark. */
#include "ctx_xdp.h"

/* What the kernel does for packets of its own, it does not for XDP's. */
#define ctx_bench_recompute(ctx, offset) (-EINVAL)
#define ctx_bench_two_passes(ctx, offset, from, to) (-EINVAL)

#include "csum_bench.h"

SEC("xdp.frags")
int bench(struct xdp_md *xdp)
{
	return change_ports(xdp);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
