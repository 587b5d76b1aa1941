// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The load balancer in XDP. */
#include "ctx_xdp.h"
#include "lb.h"

SEC("xdp.frags")
int sctp_lb(struct xdp_md *xdp)
{
	return balance(xdp);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
