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

/* What a translation changes in an IPv4 header, and the ports, if no options lie between them. */
struct ipv4_end {
	__u16 check;
	__be32 saddr;
	__be32 daddr;
	__be32 ports;
} __attribute__((packed));

static __always_inline int rewrite_ipv4(ctx_t *ctx, struct packet *pkt, __be32 saddr, __be32 daddr,
					__be32 ports)
{
	__u32 offset = pkt->ip_offset + offsetof(struct iphdr, check);
	__be32 from[2] = { pkt->saddr.word[3], pkt->daddr.word[3] };
	__be32 to[2] = { saddr, daddr };
	struct ipv4_end end;

	if (ctx_load_header(ctx, offset, &end.check, sizeof(end.check)))
		return -1;
	end.check = csum_replace(end.check, csum_change(0, from, to, sizeof(to)));
	end.saddr = saddr;
	end.daddr = daddr;
	end.ports = ports;
	/* A call for all of it. */
	if (pkt->l4_offset == pkt->ip_offset + sizeof(struct iphdr))
		return ctx_store_header(ctx, offset, &end, sizeof(end));
	return ctx_store_header(ctx, offset, &end, offsetof(struct ipv4_end, ports)) ?:
	       ctx_store_header(ctx, pkt->l4_offset, &ports, sizeof(ports));
}

static __always_inline int rewrite_ipv6(ctx_t *ctx, struct packet *pkt, const struct ip_addr *saddr,
					const struct ip_addr *daddr, __be32 ports)
{
	__u32 offset = pkt->ip_offset;

	if (!same_addr(&pkt->saddr, saddr) &&
	    ctx_store_rcsum(ctx, offset + offsetof(struct ipv6hdr, saddr), saddr, sizeof(*saddr)))
		return -1;
	if (!same_addr(&pkt->daddr, daddr) &&
	    ctx_store_rcsum(ctx, offset + offsetof(struct ipv6hdr, daddr), daddr, sizeof(*daddr)))
		return -1;
	if (ports == ports_word(pkt->sctp.source, pkt->sctp.dest))
		return 0;
	return ctx_store_header(ctx, pkt->l4_offset, &ports, sizeof(ports));
}

/* Other addresses and ports. The IP header is right afterwards, the SCTP checksum is not. */
static __always_inline int rewrite_packet(ctx_t *ctx, struct packet *pkt,
					  const struct ip_addr *saddr, const struct ip_addr *daddr,
					  __be32 ports)
{
	if (pkt->ipv6)
		return rewrite_ipv6(ctx, pkt, saddr, daddr, ports);
	return rewrite_ipv4(ctx, pkt, saddr->word[3], daddr->word[3], ports);
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
