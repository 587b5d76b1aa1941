/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about packets that were translated (RFC 5508 section 4): they go to
 * the host that sent the packet, and quote it as that host sent it. Only what is
 * quoted is changed: often no more than eight bytes of the SCTP header.
 */
#ifndef __ICMP_H
#define __ICMP_H

#include "conntrack.h"
#include "nat.h"

/* RFC 792 */
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
/* RFC 4443: errors are below. */
#define ICMPV6_INFOMSG 128

#define ICMP_HEADER_LEN 8
#define ICMP_CSUM_OFFSET 2
/* The part of the SCTP header that is always quoted: ports and verification tag. */
#define QUOTED_LEN 8

static __always_inline bool is_icmp_error(const struct packet *pkt, __u8 type)
{
	if (pkt->ipv6)
		return type && type < ICMPV6_INFOMSG;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETERPROB;
}

static __always_inline int parse_quoted_ipv4(ctx_t *ctx, struct packet *quoted)
{
	struct iphdr ip;

	if (ctx_load(ctx, quoted->ip_offset, &ip, sizeof(ip)) || ip.version != 4 ||
	    ip.ihl < 5 || ip.protocol != IPPROTO_SCTP || ip.frag_off & bpf_htons(IP_OFFSET))
		return -1;
	map_ipv4(&quoted->saddr, ip.saddr);
	map_ipv4(&quoted->daddr, ip.daddr);
	quoted->l4_offset = quoted->ip_offset + ip.ihl * 4;
	quoted->l4_len = bpf_ntohs(ip.tot_len) - ip.ihl * 4;
	return 0;
}

static __always_inline int parse_quoted_ipv6(ctx_t *ctx, struct packet *quoted)
{
	struct ipv6hdr ip;

	if (ctx_load(ctx, quoted->ip_offset, &ip, sizeof(ip)) || ip.version != 6)
		return -1;
	quoted->ipv6 = true;
	__builtin_memcpy(&quoted->saddr, &ip.saddr, sizeof(quoted->saddr));
	__builtin_memcpy(&quoted->daddr, &ip.daddr, sizeof(quoted->daddr));
	quoted->l4_offset = quoted->ip_offset + sizeof(ip);
	if (is_mapped_ipv4(&quoted->saddr) || is_mapped_ipv4(&quoted->daddr) ||
	    parse_ipv6_ext(ctx, ip.nexthdr, &quoted->l4_offset) != PARSE_SCTP)
		return -1;
	quoted->l4_len = quoted->ip_offset + sizeof(ip) + bpf_ntohs(ip.payload_len) -
			 quoted->l4_offset;
	return 0;
}

/* The quoted packet: its length is what it was, not what is quoted. */
static __always_inline int parse_quoted(ctx_t *ctx, const struct packet *pkt, struct packet *quoted)
{
	__u8 type;

	if (pkt->l4_len < ICMP_HEADER_LEN || ctx_load(ctx, pkt->l4_offset, &type, sizeof(type)) ||
	    !is_icmp_error(pkt, type))
		return -1;
	quoted->ip_offset = pkt->l4_offset + ICMP_HEADER_LEN;
	if (pkt->ipv6 ? parse_quoted_ipv6(ctx, quoted) : parse_quoted_ipv4(ctx, quoted))
		return -1;
	if (!same_addr(&pkt->daddr, &quoted->saddr) ||
	    quoted->l4_offset + QUOTED_LEN > pkt->l4_offset + pkt->l4_len)
		return -1;
	return ctx_load(ctx, quoted->l4_offset, &quoted->sctp, QUOTED_LEN);
}

/* The checksum of the quoted packet: it tells whoever has all of the quote that it is as he sent it. */
static __always_inline int set_quoted_csum(ctx_t *ctx, const struct packet *pkt,
					   struct packet *quoted, __be32 from, __be32 to,
					   __u32 *change)
{
	__u32 offset = quoted->l4_offset + SCTP_CSUM_OFFSET, old, new;

	if (from == to || quoted->l4_len > SCTP_MAX_LEN ||
	    offset + sizeof(old) > pkt->l4_offset + pkt->l4_len)
		return 0;
	if (ctx_load(ctx, offset, &old, sizeof(old)))
		return -1;
	/* None, or not filled in when it was quoted. */
	if (!old)
		return 0;
	new = sctp_csum_replace(old, quoted->l4_len, from, to);
	*change = csum_change(*change, &old, &new, sizeof(new));
	return ctx_store(ctx, offset, &new, sizeof(new));
}

static __always_inline int set_quoted_sctp(ctx_t *ctx, const struct packet *pkt,
					   struct packet *quoted, const struct tuple *to,
					   __u32 *change)
{
	__be32 from_word = ports_word(quoted->sctp.source, quoted->sctp.dest);
	__be32 to_word = ports_word(to->sport, to->dport);

	*change = csum_change(*change, &from_word, &to_word, sizeof(to_word));
	return ctx_store(ctx, quoted->l4_offset, &to_word, sizeof(to_word)) ?:
	       set_quoted_csum(ctx, pkt, quoted, from_word, to_word, change);
}

/* In IPv4 a header's checksum makes up for its addresses; in IPv6 only that of ICMP does. */
static __always_inline int set_addr(ctx_t *ctx, struct packet *pkt, bool source,
				    const struct ip_addr *to, __u32 *change)
{
	struct ip_addr *from = source ? &pkt->saddr : &pkt->daddr;
	__u32 field;

	if (same_addr(from, to))
		return 0;
	if (!pkt->ipv6) {
		field = source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
		return rewrite_ipv4_word(ctx, pkt->ip_offset, field, from->word[3], to->word[3]);
	}
	field = source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
	*change = csum_change(*change, from, to, sizeof(*to));
	return ctx_store(ctx, pkt->ip_offset + field, to, sizeof(*to));
}

static __noinline int rewrite_icmp(ctx_t *ctx, struct packet *pkt, struct packet *quoted,
				   struct tuple *to)
{
	bool from_peer = same_addr(&pkt->saddr, &quoted->daddr);
	__u32 change = 0;

	if (set_addr(ctx, quoted, true, &to->saddr, &change) ||
	    set_addr(ctx, quoted, false, &to->daddr, &change) ||
	    set_quoted_sctp(ctx, pkt, quoted, to, &change))
		return -1;
	/* Routers on the way stay who they are, but a translated peer is not to be seen. */
	if (from_peer && set_addr(ctx, pkt, true, &to->daddr, &change))
		return -1;
	if (set_addr(ctx, pkt, false, &to->saddr, &change))
		return -1;
	return csum_apply(ctx, pkt->l4_offset + ICMP_CSUM_OFFSET, change);
}

/* A host believes an error only if it quotes a tag in use, or an INIT (RFC 9260 section 10). */
static __always_inline bool quotes_assoc(const struct assoc *assoc, __be32 vtag)
{
	return !vtag || has_tag(assoc, vtag);
}

static __always_inline bool is_seen(const struct tuple *tuple, __u64 id)
{
	struct path *path = own_path(tuple, id);

	return path && path->seen;
}

static __noinline int translate_icmp(ctx_t *ctx, struct packet *pkt)
{
	struct packet quoted = {};
	struct tuple key, to;
	struct assoc *assoc;
	struct path *path;

	if (parse_quoted(ctx, pkt, &quoted))
		return CTX_PASS;
	/* The quoted packet was translated: its replies have a path, which says what they become. */
	tuple_of(&to, &quoted);
	reverse_tuple(&key, &to);
	path = bpf_map_lookup_elem(&paths, &key);
	if (!path || same_tuple(&path->to, &key))
		return CTX_PASS;
	assoc = bpf_map_lookup_elem(&assocs, &path->assoc);
	if (!assoc || !quotes_assoc(assoc, quoted.sctp.vtag))
		return assoc && is_uncertain(assoc, &key, path) ? CTX_PASS :
		       drop(ctx, &quoted, STAT_DROP_ICMP_TAG);
	reverse_tuple(&to, &path->to);
	/* An INIT, where the association has sent none. */
	if (!quoted.sctp.vtag && !is_proven(&key, path) && !is_seen(&to, path->assoc))
		return CTX_PASS;
	if (rewrite_icmp(ctx, pkt, &quoted, &to))
		return drop(ctx, &quoted, STAT_DROP_REWRITE_FAILED);
	count(STAT_ICMP);
	return CTX_PASS;
}

#endif /* __ICMP_H */
