/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses that are added and deleted while an association lasts (RFC 5061). What
 * a client says of its own is followed, and passes as it is. What a backend says of
 * its own has to name the service's instead, which an AUTH forbids: it covers all
 * that follows, and the key is nobody's but the peers'. Such a packet is dropped.
 *
 * Nor can it be checked: what a client deletes from an address that the backend has
 * not answered goes when it does.
 *
 * It is walked twice: nothing changes until all of it is known to be good.
 */
#ifndef __ASCONF_H
#define __ASCONF_H

#include "multihome.h"

#define ASCONF_HEADER_LEN 8
/* Type, length and correlation id, in front of the address. */
#define ASCONF_PARAM_HEADER_LEN 8
#define MAX_ASCONF_PARAMS 16

enum asconf_param_type {
	ASCONF_ADD = 0xc001,
	ASCONF_DELETE = 0xc002,
	ASCONF_SET_PRIMARY = 0xc004,
};

/* What is said of an address. Not on the stack, which is small. */
struct asconf_param {
	bool try;		/* only say whether it is good */
	bool proven;		/* the backend has answered who says this */
	__u32 type;		/* 0: the association is found by it */
	__u32 offset;		/* of the address parameter */
	struct params params;
	struct param param;
	struct ip_addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct asconf_param);
} asconf_params SEC(".maps");

static __always_inline struct asconf_param *get_asconf_param(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&asconf_params, &key);
}

static __always_inline int add_client_addr(struct assoc *assoc, struct opening *opening,
					   const struct ip_addr *addr, bool try)
{
	/* The backend would reach it past the service. */
	if (opening->service &&
	    !(families(&opening->addrs) & (is_mapped_ipv4(addr) ? FAMILY_IPV4 : FAMILY_IPV6)))
		return STAT_DROP_ASCONF;
	if (try)
		return add_addr(&opening->addrs.client, addr) ? STAT_DROP_MANY_ADDRS : 0;
	one_addr(&opening->named, addr);
	if (room_for_paths() <= 0) {
		count(STAT_PATHS_REFUSED);
		return 0;
	}
	if (add_client(assoc, opening->path.assoc, opening))
		return STAT_DROP_MANY_ADDRS;
	return keep_paths(opening, addr_bit(&opening->addrs.client, addr)) ? 0 : STAT_DROP_NO_ASSOC;
}

static __always_inline int delete_client_addr(struct assoc *assoc, struct opening *opening,
					      const struct ip_addr *addr, bool try)
{
	__u64 id = opening->path.assoc;
	struct assoc_addrs *kept = bpf_map_lookup_elem(&multihomed, &id);

	if (!kept)
		return 0;
	if (try) {
		take_addr(&opening->addrs.client, addr);
		return 0;
	}
	drop_client(assoc, kept, opening, addr);
	return 0;
}

/* All but the one that the packet comes from. */
static __always_inline int delete_other_addrs(struct assoc *assoc, struct opening *opening,
					      const struct packet *pkt, bool try)
{
	int i;

	/* Each that goes makes room for another. */
	bpf_for(i, 0, MAX_ADDRS) {
		one_addr(&opening->named, addr_at(&opening->addrs.client, 0));
		if (same_addr(&opening->named.addr[0], &pkt->saddr))
			one_addr(&opening->named, addr_at(&opening->addrs.client, 1));
		if (opening->addrs.client.nr < 2)
			break;
		delete_client_addr(assoc, opening, &opening->named.addr[0], try);
	}
	return 0;
}

/* Note what is to go when the backend has answered, and not before. @addr: NULL for all others */
static __always_inline int note_leaving(struct assoc *assoc, struct opening *opening,
					const struct packet *pkt, const struct ip_addr *addr, bool try)
{
	__u64 id = opening->path.assoc;
	struct assoc_addrs *kept = bpf_map_lookup_elem(&multihomed, &id);
	__u32 leaving = addr ? addr_bit(&opening->addrs.client, addr) :
			((1U << (opening->addrs.client.nr & 15)) - 1) & ALL_ADDRS;
	__u32 leaver = addr_bit(&opening->addrs.client, &pkt->saddr);

	if (!kept || try)
		return 0;
	bpf_spin_lock(&assoc->lock);
	if (kept->leaver != leaver)
		kept->leaving = 0;
	kept->leaving |= leaving & ~leaver;
	kept->leaver = leaver;
	bpf_spin_unlock(&assoc->lock);
	return 0;
}

/* The backend's first packet by a path: what the client has deleted from there goes. */
__noinline int let_leave(struct path *path)
{
	struct opening *opening = get_opening();
	struct assoc *assoc;
	__u32 i, index, leaving;
	__u64 id;

	if (!path || !opening)
		return 0;
	id = path->assoc;
	assoc = bpf_map_lookup_elem(&assocs, &id);
	if (!assoc || load_addrs(opening, id))
		return 0;
	leaving = opening->addrs.leaving;
	if (!leaving || addr_bit(&opening->addrs.client, &path->to.daddr) != opening->addrs.leaver)
		return 0;
	/* The last first: it takes the place of each that goes. */
	bpf_for(i, 0, MAX_ADDRS) {
		index = MAX_ADDRS - 1 - i;
		one_addr(&opening->named, addr_at(&opening->addrs.client, index));
		if (is_set(leaving, index) && index < opening->addrs.client.nr)
			delete_client_addr(assoc, opening, &opening->named.addr[0], false);
	}
	return 0;
}

static __always_inline bool is_wildcard(const struct ip_addr *addr)
{
	return is_zero_addr(addr) || (is_mapped_ipv4(addr) && !addr->word[3]);
}

/* What a client does with an address of its own. Returns 0, or the reason to drop the packet. */
static __always_inline int follow_client(struct assoc *assoc, struct opening *opening,
					 const struct packet *pkt, const struct asconf_param *asconf)
{
	const struct ip_addr *addr = &asconf->addr;

	if (opening->addrs.source_translated && !is_wildcard(addr))
		return STAT_DROP_ASCONF;
	if (asconf->type == ASCONF_DELETE && !asconf->proven)
		return note_leaving(assoc, opening, pkt, is_wildcard(addr) ? NULL : addr,
				    asconf->try);
	if (is_wildcard(addr))
		return asconf->type == ASCONF_DELETE ?
		       delete_other_addrs(assoc, opening, pkt, asconf->try) : 0;
	if (asconf->type == ASCONF_ADD)
		return add_client_addr(assoc, opening, addr, asconf->try);
	if (asconf->type == ASCONF_DELETE && !same_addr(addr, &pkt->saddr))
		return delete_client_addr(assoc, opening, addr, asconf->try);
	return 0;
}

/* The service's address that stands for the backend's, which is used from now on, or not any more. */
static __always_inline struct ip_addr *follow_backend(struct opening *opening,
						      const struct asconf_param *asconf)
{
	struct assoc_addrs *kept, *addrs = &opening->addrs;
	__u32 bit = addr_bit(&addrs->backend, &asconf->addr), vips, backends;
	bool ipv4 = is_mapped_ipv4(&asconf->addr);
	__u64 id = opening->path.assoc;

	if (asconf->type == ASCONF_ADD)
		addrs->available |= bit;
	vips = family_mask(&addrs->vip, ipv4);
	backends = family_mask(&addrs->backend, ipv4) & addrs->available;
	if (!bit || !vips)
		return NULL;
	/* The service's address stays, of which another of the backend's makes use. */
	if (asconf->type == ASCONF_DELETE && __builtin_popcount(backends) > __builtin_popcount(vips))
		return NULL;
	vips = nth_of(vips, rank_of(backends, nth_of(bit, 0)));
	if (asconf->type == ASCONF_DELETE)
		addrs->available &= ~bit;
	kept = bpf_map_lookup_elem(&multihomed, &id);
	if (!asconf->try && kept && kept->available != addrs->available) {
		kept->available = addrs->available;
		keep_paths(opening, ALL_ADDRS);
	}
	return addr_at(&addrs->vip, vips);
}

__noinline int handle_asconf_param(ctx_t *ctx, struct packet *pkt, struct path *path,
				   struct chunks *chunks)
{
	struct asconf_param *asconf = get_asconf_param();
	struct opening *opening = get_opening();
	struct assoc *assoc;
	struct ip_addr *vip;
	__u64 id;

	if (!pkt || !path || !chunks || !opening || !asconf)
		return STAT_DROP_NO_ASSOC;
	id = path->assoc;
	assoc = bpf_map_lookup_elem(&assocs, &id);
	if (!assoc)
		return STAT_DROP_NO_ASSOC;
	if (next_param(ctx, &asconf->params, &asconf->param) <= 0 ||
	    !addr_param_len(asconf->param.type))
		return STAT_DROP_CHUNKS;
	param_addr(&asconf->addr, &asconf->param);
	if (path->dir == DIR_ORIGINAL)
		return follow_client(assoc, opening, pkt, asconf);
	if (!opening->service || is_wildcard(&asconf->addr))
		return 0;
	if (saw(chunks, CHUNK_AUTH))
		return STAT_DROP_ASCONF;
	vip = follow_backend(opening, asconf);
	if (!vip)
		return STAT_DROP_ASCONF;
	return asconf->try ? 0 : replace_addr(ctx, pkt, asconf->offset, &asconf->param, vip);
}

static __always_inline bool names_addr(__u32 type)
{
	return type == ASCONF_ADD || type == ASCONF_DELETE || type == ASCONF_SET_PRIMARY;
}

/* Returns 0, or the reason to drop the packet. */
__noinline int walk_asconf(ctx_t *ctx, struct packet *pkt, struct path *path,
			   struct chunks *chunks, bool try)
{
	struct asconf_param *asconf = get_asconf_param();
	struct chunk_header header;
	struct params params;
	struct param param;
	int i, found, reason;
	__u32 offset;

	if (!asconf || !pkt || !path || !chunks || load_addrs(get_opening(), path->assoc))
		return STAT_DROP_NO_ASSOC;
	asconf->try = try;
	asconf->proven = is_answered(path);
	if (ctx_load(ctx, chunks->asconf, &header, sizeof(header)))
		return STAT_DROP_CHUNKS;
	params.offset = chunks->asconf + ASCONF_HEADER_LEN;
	params.end = chunks->asconf + bpf_ntohs(header.length);
	/* The address before them, and once more to see the end. */
	bpf_for(i, 0, MAX_ASCONF_PARAMS + 2) {
		offset = params.offset;
		found = next_head(ctx, &params, &param);
		if (found <= 0)
			return !found && i ? 0 : STAT_DROP_CHUNKS;
		asconf->type = i ? bpf_ntohs(param.type) : 0;
		asconf->offset = offset + (i ? ASCONF_PARAM_HEADER_LEN : 0);
		asconf->params.offset = asconf->offset;
		asconf->params.end = offset + bpf_ntohs(param.length);
		reason = !i || names_addr(asconf->type) ?
			 handle_asconf_param(ctx, pkt, path, chunks) : 0;
		if (reason)
			return reason;
	}
	return STAT_DROP_CHUNKS;
}

static __always_inline int handle_asconf(ctx_t *ctx, struct packet *pkt, struct path *path,
					 struct chunks *chunks)
{
	return walk_asconf(ctx, pkt, path, chunks, true) ?:
	       walk_asconf(ctx, pkt, path, chunks, false);
}

#endif /* __ASCONF_H */
