// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The load balancer in tc (tcx). */
#include "ctx_skb.h"
#include "lb.h"

SEC("tcx/ingress")
int sctp_lb(struct __sk_buff *skb)
{
	return balance(skb);
}

/* Most packets that go out are none of an ICMP's: that is seen by a byte of the IP header. */
static __always_inline bool is_surely_sctp(struct __sk_buff *skb)
{
	__u8 proto;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return !ctx_load_header(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &proto,
					sizeof(proto)) && proto == IPPROTO_SCTP;
	return skb->protocol == bpf_htons(ETH_P_IPV6) &&
	       !ctx_load_header(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &proto,
				sizeof(proto)) && proto == IPPROTO_SCTP;
}

/*
 * This node's own ICMP errors, which no ingress has seen: its route to a backend
 * may have a smaller MTU than the client's path to this node.
 */
SEC("tcx/egress")
int sctp_lb_egress(struct __sk_buff *skb)
{
	struct packet pkt = {};

	if (is_surely_sctp(skb) || parse_packet(skb, &pkt) != PARSE_ICMP)
		return CTX_PASS;
	return translate_icmp(skb, &pkt);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
