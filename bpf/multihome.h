/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Associations with several addresses (RFC 9260 section 6.4): their addresses are
 * learned from INIT and INIT ACK, which name a service's to clients and not its
 * backends' own; and from a HEARTBEAT whose tag is known.
 */
#ifndef __MULTIHOME_H
#define __MULTIHOME_H

#include "conntrack.h"
#include "params.h"

/* Those of the first path, and no other source. */
static __always_inline void first_addrs(struct opening *opening)
{
	struct assoc_addrs *addrs = &opening->addrs;

	one_addr(&addrs->client, &opening->from.saddr);
	one_addr(&addrs->vip, &opening->from.daddr);
	one_addr(&addrs->backend, &opening->to.daddr);
	addrs->available = ALL_ADDRS;
	addrs->leaving = 0;
	__builtin_memset(addrs->offered_tag, 0, sizeof(addrs->offered_tag));
	addrs->source_translated = 0;
	__builtin_memset(addrs->source, 0, sizeof(addrs->source));
}

/* A new association's addresses, but for what it is translated to. */
static __noinline int begin_addrs(struct opening *opening, const struct service *service,
				  const struct backend *backend)
{
	struct assoc_addrs *addrs;
	struct addr_list *list;
	__u32 group;

	if (!opening)
		return 0;
	first_addrs(opening);
	addrs = &opening->addrs;
	addrs->client = opening->named;
	if (!service || !backend)
		return 0;
	group = service->group;
	list = bpf_map_lookup_elem(&vips, &group);
	if (list && addr_bit(list, &opening->from.daddr))
		addrs->vip = *list;
	if (backend->addrs.nr)
		addrs->backend = backend->addrs;
	return 0;
}

/* The addresses of an association that there is. Returns -1 if it has just ended. */
static __noinline int load_addrs(struct opening *opening, __u64 id)
{
	struct assoc *assoc = bpf_map_lookup_elem(&assocs, &id);
	struct assoc_addrs *kept, *addrs;

	if (!opening || !assoc)
		return -1;
	opening->from = assoc->original;
	opening->to = assoc->translated;
	opening->service = assoc->service;
	opening->opener = assoc->opened_by;
	opening->path.assoc = id;
	addrs = &opening->addrs;
	kept = bpf_map_lookup_elem(&multihomed, &id);
	if (kept) {
		*addrs = *kept;
		return 0;
	}
	first_addrs(opening);
	if (!same_addr(&opening->from.saddr, &opening->to.saddr)) {
		addrs->source_translated = 1;
		addrs->source[family_index(!is_mapped_ipv4(&opening->to.saddr))] = opening->to.saddr;
	}
	return 0;
}

/* Another CPU may have dropped an address of the client meanwhile, and knew nothing of its new paths. */
__noinline int delete_dropped(struct opening *opening, __u64 id)
{
	struct assoc_addrs *kept = bpf_map_lookup_elem(&multihomed, &id);
	struct assoc *assoc = bpf_map_lookup_elem(&assocs, &id);
	struct ip_addr addr;
	__u32 i;

	if (!kept || !assoc || !opening)
		return 0;
	bpf_spin_lock(&assoc->lock);
	opening->latest = kept->client;
	bpf_spin_unlock(&assoc->lock);
	bpf_for(i, 0, MAX_ADDRS) {
		addr = *addr_at(&opening->addrs.client, i);
		if (i < opening->addrs.client.nr && !addr_bit(&opening->latest, &addr))
			delete_paths_of(opening, &addr);
	}
	return 0;
}

/* Who adds to @id looks afterwards: who ended it meanwhile, on another CPU, did not know of that. */
static __always_inline bool is_there(__u64 id)
{
	if (bpf_map_lookup_elem(&assocs, &id))
		return true;
	bpf_map_delete_elem(&multihomed, &id);
	return false;
}

/* Add the paths of those of the client's addresses. Returns whether the association is still there. */
static __always_inline bool keep_paths(struct opening *opening, __u32 clients)
{
	__u64 id = opening->path.assoc;

	set_paths(opening, clients);
	if (is_there(id)) {
		delete_dropped(opening, id);
		return true;
	}
	delete_paths(opening, id);
	return false;
}

/* The only field of the kernel's struct that is read, found by CO-RE. */
struct bpf_map {
	__u32 max_entries;
} __attribute__((preserve_access_index));

/* Since 6.6. */
extern __s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym __weak;

/* Room for paths that is not kept for the first ones of associations that may yet be opened. */
static __noinline __s64 room_for_paths(void)
{
	const struct bpf_map *all = (const struct bpf_map *)&assocs;
	const struct bpf_map *map = (const struct bpf_map *)&paths;

	if (!bpf_ksym_exists(bpf_map_sum_elem_count))
		return map->max_entries;
	return (__s64)map->max_entries - bpf_map_sum_elem_count(map) -
	       2 * ((__s64)all->max_entries - bpf_map_sum_elem_count(all));
}

/*
 * Whether there is room for what a client only claims. It leaves some for what those
 * say who are there: nobody has been heard from these addresses.
 */
static __always_inline bool may_claim(void)
{
	const struct bpf_map *map = (const struct bpf_map *)&paths;

	return room_for_paths() > map->max_entries / 4;
}

/*
 * Keep the addresses of an association, if they are several, and let it have their
 * paths: at once, or when a COOKIE ECHO shows that the client is where it says.
 */
static __noinline int keep_addrs(struct opening *opening)
{
	struct assoc_addrs *addrs;
	struct assoc *assoc;
	__u64 id;

	if (!opening)
		return 0;
	addrs = &opening->addrs;
	id = opening->path.assoc;
	if (addrs->client.nr == 1 && addrs->vip.nr == 1 && addrs->backend.nr == 1)
		return 0;
	if (bpf_map_update_elem(&multihomed, &id, addrs, BPF_ANY)) {
		count(STAT_PATHS_REFUSED);
		return 0;
	}
	assoc = bpf_map_lookup_elem(&assocs, &id);
	if (!assoc)
		return bpf_map_delete_elem(&multihomed, &id);
	/* By it, an INIT that is sent again between others of them is known, and its answer. */
	index_tag(assoc, id, DIR_ORIGINAL, assoc->tags.tag[DIR_REPLY]);
	if (assoc->service)
		index_tag(assoc, id, DIR_REPLY, assoc->tags.tag[DIR_REPLY]);
	if (may_claim())
		keep_paths(opening, ALL_ADDRS);
	return 0;
}

static __always_inline void take_offer(struct assoc_addrs *kept, __u32 which, __be32 vtag)
{
	if (kept->offered_tag[which] != vtag)
		return;
	kept->available = kept->offered[which];
	kept->offered_tag[which] = 0;
}

/*
 * A COOKIE ECHO: let the association have the paths of its addresses, of which the
 * backend uses those that it has offered. @path: a copy of the one at @tuple, which
 * may change
 */
static __noinline int open_paths(struct tuple *tuple, struct path *path, __be32 vtag)
{
	struct opening *opening = get_opening();
	__u64 id = path->assoc;
	struct assoc_addrs *kept = bpf_map_lookup_elem(&multihomed, &id);
	struct path *found;

	if (!kept || !opening)
		return 0;
	take_offer(kept, 0, vtag);
	take_offer(kept, 1, vtag);
	take_offer(kept, 2, vtag);
	if (!may_claim()) {
		count(STAT_PATHS_REFUSED);
		return 0;
	}
	if (load_addrs(opening, id) || !keep_paths(opening, ALL_ADDRS))
		return 0;
	found = own_path(tuple, id);
	if (found)
		*path = *found;
	return 0;
}

/* A bit for each family whose addresses have paths, between the client and the service. */
static __always_inline __u32 families(struct assoc_addrs *addrs)
{
	__u32 mask = 0;

	if (family_mask(&addrs->vip, true) && family_mask(&addrs->backend, true))
		mask |= FAMILY_IPV4;
	if (family_mask(&addrs->vip, false) && family_mask(&addrs->backend, false))
		mask |= FAMILY_IPV6;
	return mask;
}

/*
 * Backends are to see this node's addresses instead of the client's, of families that
 * have paths: to another the node itself would answer, with an ABORT.
 */
static __always_inline int name_source(ctx_t *ctx, struct packet *pkt, struct opening *opening,
				       __u32 usable)
{
	struct addr_list *named = &opening->named;
	__u32 left = 0;

	named->nr = 2;
	named->addr[0] = opening->addrs.source[0];
	named->addr[1] = opening->addrs.source[1];
	/* The packet's own family has its source. */
	if (pkt->ipv6 && usable & FAMILY_IPV4 && !is_zero_addr(&named->addr[0]))
		left = 1;
	if (!pkt->ipv6 && usable & FAMILY_IPV6 && !is_zero_addr(&named->addr[1]))
		left = 2;
	return replace_addrs(ctx, pkt, opening, &left, 0);
}

/*
 * What backends are not to see in a client's INIT: its own addresses, if it is
 * translated; or those that only packets past the service would reach, which the
 * client answers with an ABORT.
 */
static __always_inline int hide_client(ctx_t *ctx, struct packet *pkt, struct opening *opening)
{
	__u32 left = 0, usable;
	bool several;

	if (!opening || !opening->service)
		return 0;
	several = opening->named.nr > 1;
	usable = families(&opening->addrs);
	if (!opening->addrs.source_translated && (!several || usable == ALL_FAMILIES))
		return 0;
	if (several)
		count(STAT_ADDRS);
	return opening->addrs.source_translated ? name_source(ctx, pkt, opening, usable) :
	       replace_addrs(ctx, pkt, opening, &left, usable);
}

/* The addresses that the backend says it uses. */
static __always_inline __u32 used_addrs(struct opening *opening)
{
	__u32 used = 0, i;

	for (i = 0; i < MAX_ADDRS; i++)
		used |= addr_bit(&opening->addrs.backend, &opening->named.addr[i]) *
			is_less(i, opening->named.nr);
	return used;
}

/* The service's addresses that lead to one that the backend uses. */
static __always_inline __u32 offered_vips(struct assoc_addrs *addrs, __u32 used)
{
	__u32 offered = 0;

	if (family_mask(&addrs->backend, true) & used)
		offered |= family_mask(&addrs->vip, true);
	if (family_mask(&addrs->backend, false) & used)
		offered |= family_mask(&addrs->vip, false);
	return offered;
}

/* To the client, a backend's addresses are the service's. */
static __always_inline int name_vips(ctx_t *ctx, struct packet *pkt, struct opening *opening,
				const struct ip_addr *source)
{
	__u32 left;
	int reason;

	if (!opening || !source)
		return 0;
	left = offered_vips(&opening->addrs, used_addrs(opening)) &
	       ~addr_bit(&opening->addrs.vip, source);
	if (opening->named.nr > 1 || left)
		count(STAT_ADDRS);
	opening->named = opening->addrs.vip;
	reason = replace_addrs(ctx, pkt, opening, &left, 0);
	if (reason || !left)
		return reason;
	return append_addrs(ctx, pkt, opening, left);
}

/*
 * Nobody is translated: the other side's addresses are known by what it says. That
 * counts once, while the client waits for it: later the client would not listen.
 */
static __always_inline int learn_peer(struct opening *opening)
{
	struct assoc *assoc = bpf_map_lookup_elem(&assocs, &opening->path.assoc);

	if (!assoc || assoc->state != ASSOC_COOKIE_WAIT || opening->addrs.backend.nr > 1)
		return 0;
	opening->addrs.vip = opening->named;
	opening->addrs.backend = opening->named;
	return keep_addrs(opening);
}

/*
 * Another INIT of a client that nobody has answered yet: that one may be forged, so the
 * addresses of all count. Behind masquerade no HEARTBEAT says of any later.
 */
static __always_inline void add_named(struct opening *opening, __u64 id)
{
	struct assoc *assoc = bpf_map_lookup_elem(&assocs, &id);
	__u32 i, client, vip, before = opening->addrs.client.nr;
	struct assoc_addrs *kept;

	if (!assoc || assoc->state != ASSOC_COOKIE_WAIT || !opening->addrs.source_translated)
		return;
	bpf_for(i, 0, MAX_ADDRS)
		if (i < opening->named.nr)
			add_addr(&opening->addrs.client, addr_at(&opening->named, i));
	if (opening->addrs.client.nr == before)
		return;
	bpf_map_update_elem(&multihomed, &id, &opening->addrs, BPF_NOEXIST);
	kept = bpf_map_lookup_elem(&multihomed, &id);
	if (!kept)
		return;
	bpf_spin_lock(&assoc->lock);
	if (kept->client.nr == before)
		kept->client = opening->addrs.client;
	bpf_spin_unlock(&assoc->lock);
	if (!is_there(id))
		return;
	/* The path that is there may share its way back now. */
	client = addr_bit(&opening->addrs.client, &opening->from.saddr);
	vip = addr_bit(&opening->addrs.vip, &opening->from.daddr);
	if (client && vip)
		set_path_there(opening, nth_of(client, 0), nth_of(vip, 0));
}

/*
 * The addresses in an INIT or INIT ACK of an association that there is, which
 * read_addrs() has read into opening->named. Returns 0, or the reason to drop it.
 */
__noinline int translate_addrs(ctx_t *ctx, struct packet *pkt, struct path *path,
				      struct chunks *chunks)
{
	struct opening *opening = get_opening();
	struct assoc_addrs *kept;
	struct assoc *assoc;
	__u32 which;
	__u64 id;

	if (!opening || !pkt || !path || !chunks)
		return 0;
	id = path->assoc;
	if (load_addrs(opening, id))
		return STAT_DROP_NO_ASSOC;
	if (path->dir == DIR_ORIGINAL) {
		if (saw(chunks, CHUNK_INIT))
			add_named(opening, id);
		return hide_client(ctx, pkt, opening);
	}
	if (!opening->service)
		return saw(chunks, CHUNK_INIT_ACK) ? learn_peer(opening) : 0;
	kept = bpf_map_lookup_elem(&multihomed, &id);
	assoc = bpf_map_lookup_elem(&assocs, &id);
	if (kept && assoc && saw(chunks, CHUNK_INIT_ACK)) {
		which = dir_index(chunks->init_tag != assoc->tags.tag[DIR_ORIGINAL]);
		if (which && kept->offered_tag[1] != chunks->init_tag) {
			kept->offered[2] = kept->offered[1];
			kept->offered_tag[2] = kept->offered_tag[1];
		}
		kept->offered[which] = used_addrs(opening);
		kept->offered_tag[which] = chunks->init_tag;
	}
	return name_vips(ctx, pkt, opening, &path->to.saddr);
}

/* Add an address to those of the client, whose other addresses may change at the same time. */
static __always_inline int add_client(struct assoc *assoc, __u64 id, struct opening *opening)
{
	struct assoc_addrs *kept;
	int err;

	bpf_map_update_elem(&multihomed, &id, &opening->addrs, BPF_NOEXIST);
	kept = bpf_map_lookup_elem(&multihomed, &id);
	if (!kept || !is_there(id))
		return -1;
	bpf_spin_lock(&assoc->lock);
	err = put_addr(&kept->client, &opening->named.addr[0]);
	bpf_spin_unlock(&assoc->lock);
	opening->addrs = *kept;
	return err;
}

/* Give up an address of the client, and its paths. */
static __always_inline void drop_client(struct assoc *assoc, struct assoc_addrs *kept,
					struct opening *opening, const struct ip_addr *addr)
{
	bpf_spin_lock(&assoc->lock);
	take_addr(&kept->client, addr);
	/* The bits are others' now. */
	kept->leaving = 0;
	bpf_spin_unlock(&assoc->lock);
	/* Now: who adds some meanwhile looks at the list afterwards. */
	delete_paths_of(opening, addr);
	opening->addrs = *kept;
}

/*
 * Add the address in opening->named, from where the client is heard. If there are as
 * many as are kept, it takes the place of one that was only named.
 */
static __noinline int add_heard(struct assoc *assoc, struct opening *opening)
{
	struct assoc_addrs *kept;
	struct ip_addr addr;
	struct tuple key;
	__u64 id;
	__u32 i;

	if (!assoc || !opening)
		return -1;
	id = opening->path.assoc;
	if (!add_client(assoc, id, opening))
		return 0;
	kept = bpf_map_lookup_elem(&multihomed, &id);
	if (!kept)
		return -1;
	bpf_for(i, 0, MAX_ADDRS) {
		addr = *addr_at(&opening->addrs.client, i);
		key = opening->from;
		key.saddr = addr;
		if (is_any_used(&key, id, DIR_ORIGINAL))
			continue;
		drop_client(assoc, kept, opening, &addr);
		return add_client(assoc, id, opening);
	}
	return -1;
}

/* Load the addresses of the association that is indexed by @tag. Returns it, or NULL. */
static __always_inline struct assoc *load_by_tag(struct opening *opening, const struct packet *pkt,
						 __be32 tag)
{
	struct tag_key key = { tag, pkt->sctp.source, pkt->sctp.dest };
	__u64 *found = bpf_map_lookup_elem(&by_tag, &key), id;

	if (!found)
		return NULL;
	id = *found;
	return load_addrs(opening, id) ? NULL : bpf_map_lookup_elem(&assocs, &id);
}

/* Others' paths of a client's address, there and back, give way to those of opening. */
static __noinline int evict_paths(struct opening *opening, const struct ip_addr *client,
				  enum evict whom)
{
	struct assoc_addrs *addrs;
	__u32 i;

	if (!opening || !client)
		return 0;
	addrs = &opening->addrs;
	bpf_for(i, 0, MAX_ADDRS) {
		opening->key = opening->from;
		opening->key.saddr = *client;
		opening->key.daddr = *addr_at(&addrs->vip, i);
		if (i < addrs->vip.nr)
			evict_path(&opening->key, opening->path.assoc, whom);
		reverse_tuple(&opening->key, &opening->to);
		opening->key.saddr = *addr_at(&addrs->backend, i);
		opening->key.daddr = *client;
		if (i < addrs->backend.nr && !addrs->source_translated)
			evict_path(&opening->key, opening->path.assoc, whom);
	}
	return 0;
}

/* What may be said of a packet that has no path, by its tag. */
enum learned {
	LEARNED_NOTHING,	/* it is of no association that is known */
	LEARNED_PATH,		/* it has a path now */
	LEARNED_ONCE,		/* it may go by opening->path, which is not in the map */
	LEARNED_NO_PATH,	/* it must not pass as it is */
};

/* Of packets that the backend sends to where this one is from, as it knows that. */
static __always_inline void set_back_key(struct opening *opening, const struct tuple *tuple)
{
	__u32 family = family_index(!is_mapped_ipv4(&tuple->saddr));

	reverse_tuple(&opening->key, &opening->to);
	opening->key.daddr = opening->addrs.source_translated ? opening->addrs.source[family] :
			     tuple->saddr;
}

/*
 * A HEARTBEAT or ASCONF, to a service, that has no path: its tag says whose it is. Behind
 * masquerade the client must have named the address, or its backend would take a guess
 * for the client's. Where somebody else has sent an INIT, the backend says who is there:
 * it sends nothing to an address that it does not know.
 */
static __noinline enum learned learn_path(struct packet *pkt, struct tuple *tuple, __u32 service)
{
	struct opening *opening = get_opening();
	__u32 client, vip;
	struct assoc *assoc;

	if (!opening || !pkt || !tuple)
		return LEARNED_NOTHING;
	assoc = load_by_tag(opening, pkt, pkt->sctp.vtag);
	if (!assoc || assoc->service != service || assoc->tags.tag[DIR_ORIGINAL] != pkt->sctp.vtag)
		return LEARNED_NOTHING;
	vip = addr_bit(&opening->addrs.vip, &tuple->daddr);
	client = addr_bit(&opening->addrs.client, &tuple->saddr);
	if (!vip || (opening->addrs.source_translated && !client))
		return LEARNED_NOTHING;
	one_addr(&opening->named, &tuple->saddr);
	if (room_for_paths() <= 0 || add_heard(assoc, opening))
		return LEARNED_NOTHING;
	client = addr_bit(&opening->addrs.client, &tuple->saddr);
	set_back_key(opening, tuple);
	evict_paths(opening, &tuple->saddr,
		    is_any_used(&opening->key, opening->path.assoc, DIR_REPLY) ?
		    EVICT_UNPROVEN | EVICT_INIT : EVICT_UNPROVEN);
	if (!keep_paths(opening, client))
		return LEARNED_NOTHING;
	if (own_path(tuple, opening->path.assoc))
		return LEARNED_PATH;
	return !opening->addrs.source_translated &&
	       set_path_there(opening, nth_of(client, 0), nth_of(vip, 0)) ?
	       LEARNED_ONCE : LEARNED_NOTHING;
}

/*
 * An INIT that has been sent before, between others of the addresses that it named.
 * Returns whether there is a path for it now.
 */
static __noinline bool learn_init(struct packet *pkt, struct tuple *tuple, __be32 init_tag,
				  __u32 service)
{
	struct opening *opening = get_opening();
	__u32 client, vip, backend;
	struct assoc *assoc;
	__u64 id;

	if (!opening || !pkt || !tuple)
		return false;
	assoc = load_by_tag(opening, pkt, init_tag);
	if (!assoc || assoc->service != service || assoc->tags.tag[DIR_REPLY] != init_tag)
		return false;
	client = nth_of(addr_bit(&opening->addrs.client, &tuple->saddr), 0);
	vip = nth_of(addr_bit(&opening->addrs.vip, &tuple->daddr), 0);
	if (client >= MAX_ADDRS || vip >= MAX_ADDRS || room_for_paths() <= 0)
		return false;
	id = opening->path.assoc;
	evict_paths(opening, &tuple->saddr, EVICT_UNPROVEN);
	set_path_there(opening, client, vip);
	if (!bpf_map_lookup_elem(&paths, tuple))
		return false;
	backend = nth_of(addr_bit(&opening->addrs.backend, &opening->path.to.daddr), 0);
	if (backend < MAX_ADDRS)
		set_path_back(opening, client, backend);
	if (bpf_map_lookup_elem(&assocs, &id)) {
		delete_dropped(opening, id);
		return true;
	}
	delete_paths(opening, id);
	return false;
}

/*
 * A backend's packet without a path, whose tag is an association's: had there been
 * no room for a path, or an address that the backend has learned and this node not,
 * it would tell the client the backend's own address. It goes before an INIT.
 */
static __noinline enum learned learn_way_back(struct packet *pkt, struct tuple *tuple)
{
	struct opening *opening = get_opening();
	struct assoc *assoc;
	__u32 client;

	if (!opening || !pkt || !tuple || !pkt->sctp.vtag)
		return LEARNED_NOTHING;
	assoc = load_by_tag(opening, pkt, pkt->sctp.vtag);
	if (!assoc || !assoc->service || assoc->tags.tag[DIR_REPLY] != pkt->sctp.vtag)
		return LEARNED_NOTHING;
	client = addr_bit(&opening->addrs.client, &tuple->daddr);
	if (!client || !addr_bit(&opening->addrs.backend, &tuple->saddr) ||
	    opening->addrs.source_translated || room_for_paths() <= 0)
		return LEARNED_NO_PATH;
	evict_paths(opening, &tuple->daddr, EVICT_INIT);
	if (!keep_paths(opening, client) || !own_path(tuple, opening->path.assoc))
		return LEARNED_NO_PATH;
	return LEARNED_PATH;
}

/* The backend's first packet by a path: it knows the address, and goes before an INIT from there. */
static __noinline int claim_way_there(struct path *path)
{
	struct opening *opening = get_opening();
	__u32 client;

	if (!opening || !path)
		return 0;
	reverse_tuple(&opening->key, &path->to);
	if (own_path(&opening->key, path->assoc) || load_addrs(opening, path->assoc) ||
	    opening->addrs.source_translated)
		return 0;
	client = addr_bit(&opening->addrs.client, &path->to.daddr);
	evict_paths(opening, &path->to.daddr, EVICT_INIT);
	return client ? keep_paths(opening, client) : 0;
}

#endif /* __MULTIHOME_H */
