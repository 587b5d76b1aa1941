/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Find the SCTP packet in a frame: Ethernet with VLAN tags, IPv4 with options,
 * IPv6 with extension headers. Include ctx_skb.h or ctx_xdp.h first.
 *
 * Nothing in the frame is trusted: every header is loaded with its bounds
 * checked, and lengths come from the IP header, because a short frame is padded.
 */
#ifndef __PARSE_H
#define __PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "addr.h"

#define MAX_VLAN_TAGS 2
#define MAX_IPV6_EXT_HEADERS 8
#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP6_MF_OFFSET 0xfff9

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

struct ipv6_frag_hdr {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 id;
};

/* RFC 9260 section 3.1 */
struct sctp_common_header {
	__be16 source;
	__be16 dest;
	__be32 vtag;
	__le32 checksum;
};

struct packet {
	struct ip_addr saddr;
	struct ip_addr daddr;
	__u32 ip_offset;
	__u32 l4_offset;
	__u32 l4_len;		/* by the IP header, without padding */
	__u64 now;		/* when it came: not of the parser */
	struct sctp_common_header sctp;
	bool ipv6;
	bool may_fragment;	/* routers may fragment it */
};

/* What came out: SCTP or ICMP in full, neither, or SCTP that can't be had whole. */
enum parse_result {
	PARSE_SCTP,
	PARSE_ICMP,		/* of the family of the packet: all but the SCTP header is known */
	PARSE_OTHER,
	PARSE_FRAGMENT,		/* addresses are known */
	PARSE_TRUNCATED,	/* addresses are known */
	PARSE_EXT_HEADERS,	/* too many: addresses are known, but not what follows */
};

static __always_inline int parse_ethernet(ctx_t *ctx, __be16 *proto, __u32 *offset)
{
	struct vlan_tag tag;
	struct ethhdr eth;
	int i;

	if (ctx_load_header(ctx, 0, &eth, sizeof(eth)))
		return -1;
	*proto = eth.h_proto;
	*offset = sizeof(eth);

	for (i = 0; i < MAX_VLAN_TAGS; i++) {
		if (*proto != bpf_htons(ETH_P_8021Q) && *proto != bpf_htons(ETH_P_8021AD))
			break;
		if (ctx_load(ctx, *offset, &tag, sizeof(tag)))
			return -1;
		*proto = tag.proto;
		*offset += sizeof(tag);
	}
	return 0;
}

static __always_inline enum parse_result parse_ipv4(ctx_t *ctx, struct packet *pkt)
{
	__u32 header_len, len;
	struct iphdr ip;

	if (ctx_load_header(ctx, pkt->ip_offset, &ip, sizeof(ip)) || ip.version != 4 ||
	    (ip.protocol != IPPROTO_SCTP && ip.protocol != IPPROTO_ICMP))
		return PARSE_OTHER;
	map_ipv4(&pkt->saddr, ip.saddr);
	map_ipv4(&pkt->daddr, ip.daddr);
	if (ip.frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return ip.protocol == IPPROTO_SCTP ? PARSE_FRAGMENT : PARSE_OTHER;

	header_len = ip.ihl * 4;
	len = bpf_ntohs(ip.tot_len);
	if (header_len < sizeof(ip) || len < header_len ||
	    pkt->ip_offset + len > ctx_len(ctx))
		return ip.protocol == IPPROTO_SCTP ? PARSE_TRUNCATED : PARSE_OTHER;
	pkt->l4_offset = pkt->ip_offset + header_len;
	pkt->l4_len = len - header_len;
	pkt->may_fragment = !(ip.frag_off & bpf_htons(IP_DF));
	return ip.protocol == IPPROTO_SCTP ? PARSE_SCTP : PARSE_ICMP;
}

/* Length in bytes of the extension header @nexthdr, or 0 if it is none to skip. */
static __always_inline __u32 ipv6_ext_len(__u8 nexthdr, __u8 hdrlen)
{
	switch (nexthdr) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return (hdrlen + 1) * 8;
	case IPPROTO_FRAGMENT:
		return sizeof(struct ipv6_frag_hdr);
	default:
		return 0;
	}
}

static __always_inline bool may_lead_to_sctp(__u8 nexthdr)
{
	return nexthdr == IPPROTO_SCTP || ipv6_ext_len(nexthdr, 0);
}

/* Walk the extension headers up to SCTP or ICMP, which starts at *offset then. */
static __always_inline enum parse_result parse_ipv6_ext(ctx_t *ctx, __u8 nexthdr, __u32 *offset)
{
	struct ipv6_frag_hdr ext;
	__u32 len;
	int i;

	for (i = 0; i <= MAX_IPV6_EXT_HEADERS; i++) {
		if (nexthdr == IPPROTO_SCTP)
			return PARSE_SCTP;
		if (nexthdr == IPPROTO_ICMPV6)
			return PARSE_ICMP;
		/* Each of them is at least as long as the fragment header. */
		len = ipv6_ext_len(nexthdr, 0);
		if (!len)
			return PARSE_OTHER;
		if (ctx_load(ctx, *offset, &ext, sizeof(ext)))
			return PARSE_TRUNCATED;
		len = ipv6_ext_len(nexthdr, ext.reserved);
		if (nexthdr == IPPROTO_FRAGMENT && ext.frag_off & bpf_htons(IP6_MF_OFFSET))
			return may_lead_to_sctp(ext.nexthdr) ? PARSE_FRAGMENT : PARSE_OTHER;
		nexthdr = ext.nexthdr;
		*offset += len;
	}
	return PARSE_EXT_HEADERS;
}

static __always_inline enum parse_result parse_ipv6(ctx_t *ctx, struct packet *pkt)
{
	enum parse_result result;
	struct ipv6hdr ip;
	__u32 end;

	if (ctx_load_header(ctx, pkt->ip_offset, &ip, sizeof(ip)) || ip.version != 6)
		return PARSE_OTHER;
	pkt->ipv6 = true;
	__builtin_memcpy(&pkt->saddr, &ip.saddr, sizeof(pkt->saddr));
	__builtin_memcpy(&pkt->daddr, &ip.daddr, sizeof(pkt->daddr));
	pkt->l4_offset = pkt->ip_offset + sizeof(ip);
	/* On the wire these are nobody's addresses, and here they would pass for IPv4. */
	if (is_mapped_ipv4(&pkt->saddr) || is_mapped_ipv4(&pkt->daddr))
		return PARSE_OTHER;

	result = parse_ipv6_ext(ctx, ip.nexthdr, &pkt->l4_offset);
	if (result != PARSE_SCTP && result != PARSE_ICMP)
		return result;

	end = pkt->ip_offset + sizeof(ip) + bpf_ntohs(ip.payload_len);
	if (pkt->l4_offset > end || end > ctx_len(ctx))
		return result == PARSE_SCTP ? PARSE_TRUNCATED : PARSE_OTHER;
	pkt->l4_len = end - pkt->l4_offset;
	return result;
}

static __always_inline enum parse_result parse_packet(ctx_t *ctx, struct packet *pkt)
{
	enum parse_result result = PARSE_OTHER;
	__be16 proto;

	if (parse_ethernet(ctx, &proto, &pkt->ip_offset))
		return PARSE_OTHER;
	if (proto == bpf_htons(ETH_P_IP))
		result = parse_ipv4(ctx, pkt);
	else if (proto == bpf_htons(ETH_P_IPV6))
		result = parse_ipv6(ctx, pkt);
	if (result != PARSE_SCTP)
		return result;

	if (pkt->l4_len < sizeof(pkt->sctp) ||
	    ctx_load_header(ctx, pkt->l4_offset, &pkt->sctp, sizeof(pkt->sctp)))
		return PARSE_TRUNCATED;
	return PARSE_SCTP;
}

#endif /* __PARSE_H */
