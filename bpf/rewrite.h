/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Give a packet another source or destination. Include ctx_skb.h or ctx_xdp.h first. */
#ifndef __REWRITE_H
#define __REWRITE_H

#include <stddef.h>

#include "csum.h"
#include "parse.h"

/* Both ports are one word, so one update does for either or both. */
static __always_inline __be32 ports_word(__be16 source, __be16 dest)
{
	return bpf_htonl((__u32)bpf_ntohs(source) << 16 | bpf_ntohs(dest));
}

/* @field: where the word is in the header */
static __always_inline int rewrite_ipv4_word(ctx_t *ctx, __u32 ip_offset, __u32 field,
					     __be32 from, __be32 to)
{
	__u32 change = csum_change(0, &from, &to, sizeof(to));

	return csum_apply(ctx, ip_offset + offsetof(struct iphdr, check), change) ?:
	       ctx_store(ctx, ip_offset + field, &to, sizeof(to));
}

static __always_inline int rewrite_saddr(ctx_t *ctx, struct packet *pkt, struct ip_addr *to)
{
	if (!pkt->ipv6)
		return rewrite_ipv4_word(ctx, pkt->ip_offset, offsetof(struct iphdr, saddr),
					 pkt->saddr.word[3], to->word[3]);
	return ctx_store_rcsum(ctx, pkt->ip_offset + offsetof(struct ipv6hdr, saddr),
			       to, sizeof(*to));
}

static __always_inline int rewrite_daddr(ctx_t *ctx, struct packet *pkt, struct ip_addr *to)
{
	if (!pkt->ipv6)
		return rewrite_ipv4_word(ctx, pkt->ip_offset, offsetof(struct iphdr, daddr),
					 pkt->daddr.word[3], to->word[3]);
	return ctx_store_rcsum(ctx, pkt->ip_offset + offsetof(struct ipv6hdr, daddr),
			       to, sizeof(*to));
}

/* The packet has become longer, or shorter, by this many bytes of SCTP. */
static __always_inline int rewrite_ip_len(ctx_t *ctx, struct packet *pkt, int more)
{
	__be32 from, to;

	if (!pkt->ipv6) {
		/* The word that ends with the length. */
		if (ctx_load(ctx, pkt->ip_offset, &from, sizeof(from)))
			return -1;
		to = bpf_htonl(bpf_ntohl(from) + more);
		return rewrite_ipv4_word(ctx, pkt->ip_offset, 0, from, to);
	}
	/* The word that starts with it. */
	if (ctx_load(ctx, pkt->ip_offset + sizeof(from), &from, sizeof(from)))
		return -1;
	to = bpf_htonl(bpf_ntohl(from) + (more << 16));
	return ctx_store_rcsum(ctx, pkt->ip_offset + sizeof(to), &to, sizeof(to));
}

#endif /* __REWRITE_H */
