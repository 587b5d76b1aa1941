// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The load balancer in tc (tcx). */
#include "ctx_skb.h"
#include "lb.h"

SEC("tcx/ingress")
int sctp_lb(struct __sk_buff *skb)
{
	return balance(skb);
}

/*
 * This node's own ICMP errors, which no ingress has seen: its route to a backend
 * may have a smaller MTU than the client's path to this node.
 */
SEC("tcx/egress")
int sctp_lb_egress(struct __sk_buff *skb)
{
	struct packet pkt = {};

	if (parse_packet(skb, &pkt) != PARSE_ICMP)
		return CTX_PASS;
	return translate_icmp(skb, &pkt);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
