// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Where the frames of a benchmark come from, and where they end: a wire's two ends. */
#include "ctx_skb.h"

#include <linux/if_ether.h>

__u32 device;
__u64 arrived;

/* Run on frames that the kernel makes (BPF_F_TEST_XDP_LIVE_FRAMES), it sends them from a device. */
SEC("xdp")
int source(struct xdp_md *xdp)
{
	return bpf_redirect(device, 0);
}

SEC("tcx/ingress")
int sink(struct __sk_buff *skb)
{
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return CTX_PASS;
	arrived++;
	return CTX_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
