/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parameters of an INIT or INIT ACK (RFC 9260 section 3.3.2): addresses are
 * read, and replaced by those that the other side is to see. Surplus ones become
 * padding (RFC 4820), which keeps the packet's length; missing ones are added.
 */
#ifndef __PARAMS_H
#define __PARAMS_H

#include "chunks.h"
#include "nat.h"
#include "paths.h"

/* More than any known stack sends. */
#define MAX_PARAMS 64

enum param_type {
	PARAM_IPV4 = 5,
	PARAM_IPV6 = 6,
	PARAM_HOST_NAME = 11,
	PARAM_PAD = 0x8005,
	PARAM_SET_PRIMARY = 0xc004,	/* RFC 5061 section 4.2.4 */
};

/* An address parameter, or the head of another, as it is on the wire. */
struct param {
	__be16 type;
	__be16 length;		/* with this header, without the padding behind the parameter */
	__be32 value[4];
};

#define PARAM_HEADER_LEN 4
#define PARAM_IPV4_LEN 8
#define PARAM_IPV6_LEN 20

struct params {
	__u32 offset;		/* of the next one */
	__u32 end;		/* of the chunk */
};

/* The packet's only chunk is an INIT or INIT ACK, as walk_chunks() has seen. */
static __always_inline int begin_params(ctx_t *ctx, struct packet *pkt, struct params *params)
{
	__u32 chunk = pkt->l4_offset + sizeof(pkt->sctp);
	struct chunk_header header;

	if (ctx_load(ctx, chunk, &header, sizeof(header)))
		return -1;
	params->offset = chunk + INIT_CHUNK_LEN;
	params->end = chunk + bpf_ntohs(header.length);
	return 0;
}

static __always_inline __u32 addr_param_len(__be16 type)
{
	switch (bpf_ntohs(type)) {
	case PARAM_IPV4:
		return PARAM_IPV4_LEN;
	case PARAM_IPV6:
		return PARAM_IPV6_LEN;
	default:
		return 0;
	}
}

/* Load the head of the next parameter. Returns 1, 0 at the end, or -1 if it is not as it should be. */
static __always_inline int next_head(ctx_t *ctx, struct params *params, struct param *param)
{
	__u32 offset = params->offset, len;

	if (offset >= params->end)
		return 0;
	if (params->end - offset < PARAM_HEADER_LEN)
		return -1;
	if (ctx_load(ctx, offset, param, PARAM_HEADER_LEN))
		return -1;
	len = bpf_ntohs(param->length);
	if (len < PARAM_HEADER_LEN || len > params->end - offset)
		return -1;
	params->offset = offset + ((len + 3) & ~3U);
	return 1;
}

/* The same, with the address if it has one. */
static __noinline int next_param(ctx_t *ctx, struct params *params, struct param *param)
{
	__u32 offset, len;
	int found;

	if (!params || !param)
		return -1;
	offset = params->offset;
	found = next_head(ctx, params, param);
	if (found <= 0)
		return found;
	len = bpf_ntohs(param->length);
	switch (addr_param_len(param->type)) {
	case 0:
		return 1;
	case PARAM_IPV4_LEN:
		return len == PARAM_IPV4_LEN && !ctx_load(ctx, offset, param, PARAM_IPV4_LEN) ? 1 : -1;
	default:
		return len == PARAM_IPV6_LEN && !ctx_load(ctx, offset, param, PARAM_IPV6_LEN) ? 1 : -1;
	}
}

static __always_inline void param_addr(struct ip_addr *addr, const struct param *param)
{
	if (param->type == bpf_htons(PARAM_IPV4))
		map_ipv4(addr, param->value[0]);
	else
		__builtin_memcpy(addr, param->value, sizeof(*addr));
}

/* Read the packet's addresses, its source first. Returns 0, or the reason to refuse it. */
__noinline int read_addrs(ctx_t *ctx, struct packet *pkt, struct addr_list *list)
{
	struct params params;
	struct ip_addr addr;
	struct param param;
	int i, found;

	if (!pkt || !list || begin_params(ctx, pkt, &params))
		return STAT_DROP_CHUNKS;
	one_addr(list, &pkt->saddr);
	/* Once more, to see the end. */
	bpf_for(i, 0, MAX_PARAMS + 1) {
		found = next_param(ctx, &params, &param);
		if (found < 0)
			return STAT_DROP_CHUNKS;
		if (!found)
			return 0;
		if (param.type == bpf_htons(PARAM_HOST_NAME))
			return STAT_DROP_HOST_NAME;
		if (!addr_param_len(param.type))
			continue;
		param_addr(&addr, &param);
		if (add_addr(list, &addr))
			return STAT_DROP_MANY_ADDRS;
	}
	return STAT_DROP_CHUNKS;
}

/* The first word of a parameter. */
static __always_inline __be32 param_head(__u32 type, __u32 len)
{
	return bpf_htonl(type << 16 | len);
}

/* Replace the address parameter at @offset by @addr of its family, or by padding. */
static __noinline int replace_addr(ctx_t *ctx, struct packet *pkt, __u32 offset, struct param *param,
				   const struct ip_addr *addr)
{
	__u32 i, type, nr;
	int reason;

	if (!param)
		return STAT_DROP_CHUNKS;
	type = bpf_ntohs(param->type);
	nr = type == PARAM_IPV4 ? 1 : 4;
	for (i = 0; i < 4; i++) {
		if (i >= nr)
			break;
		reason = change_word(ctx, pkt, offset + PARAM_HEADER_LEN + i * sizeof(__be32),
				     param->value[i], !addr ? 0 : addr->word[nr == 1 ? 3 : i]);
		if (reason)
			return reason;
	}
	if (addr)
		return 0;
	return change_word(ctx, pkt, offset, param_head(type, bpf_ntohs(param->length)),
			   param_head(PARAM_PAD, bpf_ntohs(param->length)));
}

/* With an id, and an address parameter of either family */
#define PARAM_SET_PRIMARY_IPV4_LEN (PARAM_HEADER_LEN + 4 + PARAM_IPV4_LEN)
#define PARAM_SET_PRIMARY_MAX_LEN (PARAM_HEADER_LEN + 4 + PARAM_IPV6_LEN)

/* An address that is to be preferred, where addresses are replaced: it becomes padding. */
static __noinline int hide_primary(ctx_t *ctx, struct packet *pkt, __u32 offset, __u32 len, __u32 keep)
{
	__be32 word;
	int reason;
	__u32 i;

	if (keep & (len == PARAM_SET_PRIMARY_IPV4_LEN ? FAMILY_IPV4 : FAMILY_IPV6))
		return 0;
	if (len > PARAM_SET_PRIMARY_MAX_LEN || len % sizeof(word))
		return STAT_DROP_CHUNKS;
	bpf_for(i, 1, PARAM_SET_PRIMARY_MAX_LEN / sizeof(word)) {
		if (i >= len / sizeof(word))
			break;
		if (ctx_load(ctx, offset + i * sizeof(word), &word, sizeof(word)))
			return STAT_DROP_CHUNKS;
		reason = change_word(ctx, pkt, offset + i * sizeof(word), word, 0);
		if (reason)
			return reason;
	}
	return change_word(ctx, pkt, offset, param_head(PARAM_SET_PRIMARY, len), param_head(PARAM_PAD, len));
}

static __always_inline __u32 family_of(const struct param *param)
{
	return param->type == bpf_htons(PARAM_IPV4) ? FAMILY_IPV4 : FAMILY_IPV6;
}

/*
 * Let the packet name those addresses of opening->named that *@left has a bit for,
 * and no others. What there was no parameter for stays in *@left.
 * @keep: families whose addresses stay what they are
 */
__noinline int replace_addrs(ctx_t *ctx, struct packet *pkt, struct opening *opening, __u32 *left,
			     __u32 keep)
{
	struct ip_addr *addr;
	struct params params;
	struct param param;
	__u32 offset, bit;
	int i, reason;

	if (!pkt || !opening || !left || begin_params(ctx, pkt, &params))
		return STAT_DROP_CHUNKS;
	bpf_for(i, 0, MAX_PARAMS) {
		offset = params.offset;
		if (next_param(ctx, &params, &param) <= 0)
			break;
		if (param.type == bpf_htons(PARAM_SET_PRIMARY)) {
			reason = hide_primary(ctx, pkt, offset, bpf_ntohs(param.length), keep);
			if (reason)
				return reason;
		}
		if (!addr_param_len(param.type) || keep & family_of(&param))
			continue;
		bit = nth_of(family_mask(&opening->named, param.type == bpf_htons(PARAM_IPV4)) & *left, 0);
		addr = bit < MAX_ADDRS ? addr_at(&opening->named, bit) : NULL;
		reason = replace_addr(ctx, pkt, offset, &param, addr);
		if (reason)
			return reason;
		if (addr)
			*left &= ~(1U << (bit & (MAX_ADDRS - 1)));
	}
	return 0;
}

#define MAX_ADDED_WORDS (MAX_ADDRS * PARAM_IPV6_LEN / 4)

struct added_params {
	__u32 nr;
	__be32 word[MAX_ADDED_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct added_params);
} added_params SEC(".maps");

static __always_inline void add_word(struct added_params *added, __be32 word)
{
	__u32 nr = added->nr;

	barrier_var(nr);
	if (nr >= MAX_ADDED_WORDS)
		return;
	added->word[nr] = word;
	added->nr = nr + 1;
}

static __noinline int add_addr_param(struct added_params *added, const struct ip_addr *addr)
{
	int i;

	if (!added || !addr)
		return 0;
	if (is_mapped_ipv4(addr)) {
		add_word(added, param_head(PARAM_IPV4, PARAM_IPV4_LEN));
		add_word(added, addr->word[3]);
		return 0;
	}
	add_word(added, param_head(PARAM_IPV6, PARAM_IPV6_LEN));
	for (i = 0; i < 4; i++)
		add_word(added, addr->word[i]);
	return 0;
}

/* Room behind the chunk, where padding of the frame may be now. Returns -1 if there is none. */
static __always_inline int make_room(ctx_t *ctx, struct packet *pkt, __u32 more)
{
	__u32 end = pkt->l4_offset + pkt->l4_len;

	/* Its own padding may be missing, and the length is a 16-bit field. */
	if (pkt->l4_len % 4 || end - pkt->ip_offset + more > 0xffff)
		return -1;
	return ctx_resize(ctx, end + more);
}

static __always_inline int write_added(ctx_t *ctx, struct packet *pkt, struct added_params *added)
{
	__u32 end = pkt->l4_offset + pkt->l4_len, i, word;

	bpf_for(i, 0, MAX_ADDED_WORDS) {
		word = i;
		/* The verifier of 6.12 knows of no bound but this. */
		barrier_var(word);
		if (word >= added->nr || word >= MAX_ADDED_WORDS)
			break;
		if (ctx_store_rcsum(ctx, end + word * sizeof(__be32), &added->word[word],
				    sizeof(__be32)))
			return -1;
	}
	return 0;
}

/* The chunk is now as long as the packet. */
static __always_inline int set_chunk_len(ctx_t *ctx, struct packet *pkt)
{
	__u32 offset = pkt->l4_offset + sizeof(pkt->sctp);
	__be32 head, new;

	if (ctx_load(ctx, offset, &head, sizeof(head)))
		return STAT_DROP_REWRITE_FAILED;
	new = bpf_htonl((bpf_ntohl(head) & 0xffff0000) | (pkt->l4_len - sizeof(pkt->sctp)));
	return change_word(ctx, pkt, offset, head, new);
}

/* Add the addresses of opening->named that @left has a bit for. */
__noinline int append_addrs(ctx_t *ctx, struct packet *pkt, struct opening *opening, __u32 left)
{
	struct added_params *added;
	__u32 key = 0, i;

	added = bpf_map_lookup_elem(&added_params, &key);
	if (!added || !pkt || !opening)
		return STAT_DROP_REWRITE_FAILED;
	added->nr = 0;
	for (i = 0; i < MAX_ADDRS; i++)
		if (is_set(left, i))
			add_addr_param(added, &opening->named.addr[i]);
	if (make_room(ctx, pkt, added->nr * sizeof(__be32))) {
		count(STAT_ADDRS_NOT_ADDED);
		return 0;
	}
	if (write_added(ctx, pkt, added) ||
	    rewrite_ip_len(ctx, pkt, added->nr * sizeof(__be32)))
		return STAT_DROP_REWRITE_FAILED;
	if (sctp_csum_append(ctx, pkt->l4_offset, added->word, added->nr, MAX_ADDED_WORDS))
		return STAT_DROP_CSUM_FAILED;
	pkt->l4_len += added->nr * sizeof(__be32);
	return set_chunk_len(ctx, pkt);
}

#endif /* __PARAMS_H */
