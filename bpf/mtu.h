/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Replies that are too big for the way to their client. The stack's ICMP error
 * goes to the source of the packet, which would be the service's address, and
 * never reach the backend: such a packet is left as it is, for the stack to refuse.
 *
 * It must not be left if the stack would forward it. Anybody may tell this host a
 * path's MTU in an ICMP error: IPv6 refuses what is bigger, but IPv4 forwards it.
 */
#ifndef __MTU_H
#define __MTU_H

#include "lb_stats.h"
#include "tuple.h"

#define AF_INET 2
#define AF_INET6 10
/* Since 6.3, which is later than some headers. */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)

/* What is known of a route is good for about a second, of which this is the number. */
static __always_inline __u16 mtu_time(const struct packet *pkt)
{
	return pkt->now >> 30;
}

/* The MTU by which the stack forwards to @pkt's destination; or one that nothing exceeds. */
static __noinline __u16 forward_mtu(ctx_t *ctx, struct packet *pkt, __u32 len)
{
	struct bpf_fib_lookup fib = {};
	__u32 mtu = 0;
	long err;

	if (!pkt)
		return 0xffff;
	fib.l4_protocol = IPPROTO_SCTP;
	fib.sport = pkt->sctp.source;
	fib.dport = pkt->sctp.dest;
	fib.ifindex = ctx->ingress_ifindex;
	if (pkt->ipv6) {
		fib.tot_len = len;
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, &pkt->saddr, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &pkt->daddr, sizeof(fib.ipv6_dst));
	} else {
		fib.family = AF_INET;
		fib.ipv4_src = pkt->saddr.word[3];
		fib.ipv4_dst = pkt->daddr.word[3];
	}
	err = bpf_fib_lookup(ctx, &fib, sizeof(fib), FIB_LOOKUP_SKIP_NEIGH);
	if (err != BPF_FIB_LKUP_RET_SUCCESS && err != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return 0xffff;
	if (pkt->ipv6)
		return fib.mtu_result;
	bpf_check_mtu(ctx, fib.ifindex, &mtu, 0, 0);
	return mtu && mtu < 0xffff ? mtu : 0xffff;
}

/*
 * Whether the stack would refuse the packet for its length. One that may be
 * fragmented, or is several in one, never is.
 * @path: keeps what the route said
 */
static __always_inline bool is_too_big(ctx_t *ctx, struct packet *pkt, struct path *path)
{
	__u32 len = pkt->l4_offset + pkt->l4_len - pkt->ip_offset;

	if (path->mtu_time == mtu_time(pkt) && len <= path->mtu)
		return false;
	if (pkt->may_fragment || ctx_is_gso(ctx) || !same_addr(&path->to.daddr, &pkt->daddr))
		return false;
	path->mtu = forward_mtu(ctx, pkt, len);
	path->mtu_time = mtu_time(pkt);
	return len > path->mtu;
}

#endif /* __MTU_H */
