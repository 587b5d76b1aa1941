/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The paths of an association: one for each pair of addresses of a family, and
 * for each way. A client's addresses stay what they are, unless backends are to
 * see others; a service's lead to a backend's in their order: the second IPv6
 * address of the service to the second of the backend. If the backend uses
 * fewer, several lead to one, and replies go where the last packet came from.
 */
#ifndef __PATHS_H
#define __PATHS_H

#include "assoc_state.h"
#include "lb_maps.h"
#include "lb_stats.h"
#include "loop.h"
#include "policy.h"
#include "tuple.h"

#define ALL_ADDRS ((1U << MAX_ADDRS) - 1)

#define FAMILY_IPV4 1U
#define FAMILY_IPV6 2U
#define ALL_FAMILIES (FAMILY_IPV4 | FAMILY_IPV6)

/* An association while it is opened, or its paths are added. Not on the stack, which is small. */
struct opening {
	struct tuple from;		/* original and translated, of the first path */
	struct tuple to;
	struct tuple key;		/* of the path that is being added */
	struct path path;
	struct assoc_addrs addrs;
	struct addr_list named;		/* addresses in an INIT or INIT ACK, its source first */
	struct addr_list latest;	/* the client's, after its paths were set */
	__be32 init_tag;
	struct tags before;		/* see struct assoc */
	__u32 service;
	__u32 backend;
	__u32 generation;
	__u32 opener;			/* the direction that the policies judge it by */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct opening);
} openings SEC(".maps");

static __always_inline struct opening *get_opening(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&openings, &key);
}

static __always_inline struct ip_addr *addr_at(struct addr_list *list, __u32 index)
{
	barrier_var(index);
	return &list->addr[index & (MAX_ADDRS - 1)];
}

/* Into what there is for either family, with bounds that the verifier sees. */
static __always_inline __u32 family_index(bool ipv6)
{
	__u32 index = ipv6;

	barrier_var(index);
	return index & 1;
}

/* Returns -1 if there is no room. */
static __always_inline int put_addr(struct addr_list *list, const struct ip_addr *addr)
{
	__u32 i;

	for (i = 0; i < MAX_ADDRS; i++) {
		if (i >= list->nr) {
			list->addr[i] = *addr;
			list->nr = i + 1;
			return 0;
		}
		if (same_addr(&list->addr[i], addr))
			return 0;
	}
	return -1;
}

static __noinline int add_addr(struct addr_list *list, const struct ip_addr *addr)
{
	return list && addr ? put_addr(list, addr) : -1;
}

static __always_inline void take_addr(struct addr_list *list, const struct ip_addr *addr)
{
	__u32 i, last = list->nr - 1;

	if (last >= MAX_ADDRS)
		return;
	for (i = 0; i < MAX_ADDRS; i++) {
		if (!same_addr(&list->addr[i], addr))
			continue;
		barrier_var(last);
		list->addr[i] = list->addr[last & (MAX_ADDRS - 1)];
		list->nr = last;
		return;
	}
}

static __always_inline void one_addr(struct addr_list *list, const struct ip_addr *addr)
{
	list->nr = 1;
	list->addr[0] = *addr;
}

/*
 * Conditions as numbers: with a branch for each, the verifier would follow all
 * combinations of those for the addresses of a list.
 */
static __always_inline __u32 is_zero(__u64 word)
{
	barrier_var(word);
	return (word - 1) >> 63;
}

static __always_inline __u32 is_less(__u64 a, __u64 b)
{
	barrier_var(a);
	return (a - b) >> 63;
}

static __always_inline __u32 is_set(__u32 mask, __u32 index)
{
	barrier_var(mask);
	return mask >> index & 1;
}

static __always_inline __u32 addr_difference(const struct ip_addr *a, const struct ip_addr *b)
{
	return (a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) |
	       (a->word[2] ^ b->word[2]) | (a->word[3] ^ b->word[3]);
}

/* A bit for the address, or 0 if the list does not have it. */
static __noinline __u32 addr_bit(const struct addr_list *list, const struct ip_addr *addr)
{
	__u32 mask = 0, i;

	if (!list || !addr)
		return 0;
	for (i = 0; i < MAX_ADDRS; i++)
		mask |= (is_zero(addr_difference(&list->addr[i], addr)) & is_less(i, list->nr)) << i;
	return mask;
}

/* A bit for each address of a family. */
static __noinline __u32 family_mask(const struct addr_list *list, bool ipv4)
{
	const struct ip_addr *addr;
	__u32 mask = 0, i, mapped;

	if (!list)
		return 0;
	for (i = 0; i < MAX_ADDRS; i++) {
		addr = &list->addr[i];
		mapped = is_zero(addr->word[0] | addr->word[1] |
				 (addr->word[2] ^ bpf_htonl(0xffff)));
		mask |= (is_zero(mapped ^ ipv4) & is_less(i, list->nr)) << i;
	}
	return mask;
}

/* The index of the @nth bit of @mask that is set, counted round again if there are fewer; MAX_ADDRS if none is. */
static __noinline __u32 nth_of(__u32 mask, __u32 nth)
{
	__u32 bits = __builtin_popcount(mask & ALL_ADDRS), index = 0, i;

	if (!bits)
		return MAX_ADDRS;
	nth %= bits;
	for (i = 0; i < MAX_ADDRS; i++) {
		index += i * (is_set(mask, i) & is_zero(nth));
		nth -= is_set(mask, i);
	}
	return index;
}

static __always_inline __u32 rank_of(__u32 mask, __u32 index)
{
	return __builtin_popcount(mask & ((1U << (index & (MAX_ADDRS - 1))) - 1));
}

/* The path, if it is of this association. */
static __always_inline struct path *own_path(const struct tuple *tuple, __u64 id)
{
	struct path *path = bpf_map_lookup_elem(&paths, tuple);

	return path && path->assoc == id ? path : NULL;
}

/* Delete a path, unless it has become another association's. */
static __always_inline void delete_path(const struct tuple *tuple, __u64 id)
{
	if (own_path(tuple, id))
		bpf_map_delete_elem(&paths, tuple);
}

/* Delete a path that nobody has used. */
static __always_inline void delete_unused_path(const struct tuple *tuple)
{
	struct path *path = bpf_map_lookup_elem(&paths, tuple);

	if (path && !path->confirmed)
		bpf_map_delete_elem(&paths, tuple);
}

/* Whether a packet has come by a path of the association that has the right tag, or opened it. */
static __always_inline bool is_used(const struct tuple *tuple, __u64 id)
{
	struct path *path = own_path(tuple, id);

	return path && path->confirmed;
}

/* Whether any path between a client's address, which is in @key, and the other side is used, in this direction. */
static __noinline int is_any_used(struct tuple *key, __u64 id, __u32 dir)
{
	struct assoc_addrs *kept;
	__u32 i;

	if (!key)
		return false;
	if (is_used(key, id))
		return true;
	kept = bpf_map_lookup_elem(&multihomed, &id);
	if (!kept)
		return false;
	bpf_for(i, 0, MAX_ADDRS) {
		if (dir == DIR_ORIGINAL)
			key->daddr = *addr_at(&kept->vip, i);
		else
			key->saddr = *addr_at(&kept->backend, i);
		if (is_used(key, id))
			return true;
	}
	return false;
}

/* Whether its sender has been heard between this client's address and any of the other side's. */
static __noinline int is_heard(const struct tuple *tuple, struct path *path)
{
	struct tuple key;

	if (!tuple || !path)
		return false;
	key = *tuple;
	return is_any_used(&key, path->assoc, path->dir);
}

/*
 * Whether the other side has been: to an address of a client that it does not know,
 * a backend sends nothing. Where an INIT opens an association that is taken for granted.
 */
__noinline int is_answered(struct path *path)
{
	struct tuple key;

	if (!path)
		return false;
	reverse_tuple(&key, &path->to);
	return is_any_used(&key, path->assoc, !path->dir);
}

/* Who forges one side's packets, or guesses a tag, has the right tag, but no answer. */
static __always_inline bool is_proven(const struct tuple *tuple, struct path *path)
{
	return is_heard(tuple, path) && is_answered(path);
}

/* Whether all that is known of the client is an INIT, which anybody may send, or that it is over. */
static __always_inline bool is_only_init(const struct assoc *assoc)
{
	return assoc->state == ASSOC_COOKIE_WAIT || assoc->state == ASSOC_CLOSED;
}

/*
 * Where only one side has been, or nobody but who sent an INIT, a packet may be
 * another association's, or of one that is not known here: where nothing is
 * translated, the client's as well.
 */
static __always_inline bool is_uncertain(const struct assoc *assoc, const struct tuple *tuple,
					 struct path *path)
{
	return ((path->dir == DIR_REPLY || !assoc->service) && is_only_init(assoc)) ||
	       !is_proven(tuple, path);
}

/* Who has to give way to an association on whose behalf an address is spoken for: always who has only named it. */
enum evict {
	EVICT_UNPROVEN = 1,	/* who has no answer there */
	EVICT_INIT = 2,		/* who has only sent an INIT from there */
};

static __noinline int evict_path(const struct tuple *tuple, __u64 id, enum evict whom)
{
	struct path *path = bpf_map_lookup_elem(&paths, tuple);
	struct assoc *assoc;

	if (!path || path->assoc == id)
		return 0;
	assoc = bpf_map_lookup_elem(&assocs, &path->assoc);
	if (!assoc || (whom & EVICT_INIT && is_only_init(assoc)) || !is_heard(tuple, path) ||
	    (whom & EVICT_UNPROVEN && !is_answered(path)))
		bpf_map_delete_elem(&paths, tuple);
	return 0;
}

/* Whether the path is that of another association, which has used it or may yet. */
static __always_inline bool is_taken(const struct path *path, __u64 id)
{
	return path->assoc != id && bpf_map_lookup_elem(&assocs, &path->assoc);
}

/* Whether nobody has yet shown that he is the client. */
static __always_inline bool is_opening(__u64 id)
{
	struct assoc *assoc = bpf_map_lookup_elem(&assocs, &id);

	return assoc && assoc->state == ASSOC_COOKIE_WAIT;
}

/*
 * Whether an address and port are a service's: what is not translated neither goes
 * there nor comes from there, whoever says that it is his.
 */
static __always_inline bool is_frontend(const struct ip_addr *addr, __be16 port)
{
	struct endpoint key = { .addr = *addr, .port = port };

	return bpf_map_lookup_elem(&services, &key);
}

/* Whether a path would lead from or to a service's address that is not the association's own service. */
static __always_inline bool takes_frontend(struct opening *opening)
{
	const struct tuple *key = &opening->key, *to = &opening->path.to;
	bool there = opening->path.dir == DIR_ORIGINAL;

	if (!opening->service)
		return is_frontend(&key->saddr, key->sport) || is_frontend(&key->daddr, key->dport);
	return there ? is_frontend(&key->saddr, key->sport) : is_frontend(&to->daddr, to->dport);
}

/* Set the path of opening->key to opening->path. What is known of it stays. */
__noinline int set_path(struct opening *opening)
{
	struct path *found, *path;

	if (!opening)
		return 0;
	path = &opening->path;
	path->seen = 0;
	path->confirmed = 0;
	path->mtu = 0;
	path->allowed = 0;
	found = bpf_map_lookup_elem(&paths, &opening->key);
	if ((found && is_taken(found, path->assoc)) || takes_frontend(opening)) {
		count(STAT_PATHS_REFUSED);
		return 0;
	}
	if (found && found->assoc == path->assoc) {
		if (same_tuple(&found->to, &path->to) && found->shared == path->shared)
			return 0;
		/*
		 * It leads where the last packet came from; an INIT is answered from where it
		 * went, and goes to the same address of the backend if it is sent again.
		 */
		if (path->dir == DIR_REPLY ? path->shared || is_opening(path->assoc) :
					     found->confirmed && is_opening(path->assoc)) {
			if (found->shared)
				return 0;
			path->to = found->to;
		}
		path->seen = found->seen;
		path->confirmed = found->confirmed;
	}
	if (bpf_map_update_elem(&paths, &opening->key, path, found ? BPF_EXIST : BPF_NOEXIST))
		count(STAT_PATHS_REFUSED);
	else if (!found)
		count(STAT_PATHS);
	return 0;
}

/*
 * The peers as the policies know them: at the address that the path is for, who opened
 * the association, in the direction @opener, and who serves it at @port.
 */
__noinline int judge_path(struct tuple *tuple, struct path *path, __u32 opener, __be16 port)
{
	if (!tuple || !path)
		return true;
	return path->dir == opener ? policy_allows(&tuple->saddr, &path->to.daddr, port) :
				     policy_allows(&path->to.daddr, &tuple->saddr, port);
}

static __always_inline bool opening_allows(struct opening *opening)
{
	__be16 port = opening->opener == DIR_ORIGINAL ? opening->to.dport : opening->from.sport;

	return judge_path(&opening->key, &opening->path, opening->opener, port);
}

/* What backends see for a client's address; NULL: it has no path in this family. */
static __always_inline struct ip_addr *source_of(struct assoc_addrs *addrs, __u32 client)
{
	struct ip_addr *own, *addr = addr_at(&addrs->client, client);

	if (!addrs->source_translated)
		return addr;
	own = &addrs->source[family_index(!is_mapped_ipv4(addr))];
	return is_zero_addr(own) ? NULL : own;
}

/* Whether packets between several pairs of addresses come back as between one. */
static __always_inline bool is_shared(struct assoc_addrs *addrs, __u32 vips, __u32 backends, bool ipv4)
{
	__u32 clients = family_mask(&addrs->client, ipv4);

	return __builtin_popcount(vips) > __builtin_popcount(backends) ||
	       (addrs->source_translated && __builtin_popcount(clients) > 1);
}

/*
 * The path from a client's address to a service's, of one family. Returns whether there
 * may be one: opening->path, whether or not it is in the map.
 */
__noinline int set_path_there(struct opening *opening, __u32 client, __u32 vip)
{
	struct assoc_addrs *addrs;
	struct ip_addr *source;
	__u32 vips, backends;
	bool ipv4;

	if (!opening)
		return 0;
	addrs = &opening->addrs;
	ipv4 = is_mapped_ipv4(addr_at(&addrs->vip, vip));
	source = source_of(addrs, client);
	vips = family_mask(&addrs->vip, ipv4);
	backends = family_mask(&addrs->backend, ipv4) & addrs->available;
	if (!source || !backends || is_mapped_ipv4(addr_at(&addrs->client, client)) != ipv4)
		return 0;
	opening->key = opening->from;
	opening->key.saddr = *addr_at(&addrs->client, client);
	opening->key.daddr = *addr_at(&addrs->vip, vip);
	opening->path.to = opening->to;
	opening->path.to.saddr = *source;
	opening->path.to.daddr = *addr_at(&addrs->backend, nth_of(backends, rank_of(vips, vip)));
	opening->path.dir = DIR_ORIGINAL;
	opening->path.shared = is_shared(addrs, vips, backends, ipv4);
	if (!opening_allows(opening))
		return 0;
	set_path(opening);
	return 1;
}

/* The path from a backend's address to a client's, also if it is not one that clients are told of. */
__noinline int set_path_back(struct opening *opening, __u32 client, __u32 backend)
{
	struct assoc_addrs *addrs;
	struct ip_addr *source;
	__u32 vips, backends;
	bool ipv4;

	if (!opening)
		return 0;
	addrs = &opening->addrs;
	ipv4 = is_mapped_ipv4(addr_at(&addrs->backend, backend));
	source = source_of(addrs, client);
	vips = family_mask(&addrs->vip, ipv4);
	backends = family_mask(&addrs->backend, ipv4) & addrs->available;
	if (!source || !vips || is_mapped_ipv4(addr_at(&addrs->client, client)) != ipv4)
		return 0;
	reverse_tuple(&opening->key, &opening->to);
	opening->key.saddr = *addr_at(&addrs->backend, backend);
	opening->key.daddr = *source;
	reverse_tuple(&opening->path.to, &opening->from);
	opening->path.to.saddr = *addr_at(&addrs->vip, nth_of(vips, rank_of(backends, backend)));
	opening->path.to.daddr = *addr_at(&addrs->client, client);
	opening->path.dir = DIR_REPLY;
	opening->path.shared = is_shared(addrs, vips, backends, ipv4);
	if (!opening_allows(opening))
		return 0;
	return set_path(opening);
}

/*
 * The paths of those of the client's addresses that are in @clients, a bit for each. The
 * paths back first: who finds one there finds its replies' as well.
 */
__noinline int set_paths(struct opening *opening, __u32 clients)
{
	struct assoc_addrs *addrs;
	__u32 pair;

	if (!opening)
		return 0;
	addrs = &opening->addrs;
	clients &= (1U << (addrs->client.nr & 15)) - 1;
	bpf_for(pair, 0, MAX_ADDRS * MAX_ADDRS)
		if (is_set(clients, pair / MAX_ADDRS) && pair % MAX_ADDRS < addrs->backend.nr)
			set_path_back(opening, pair / MAX_ADDRS, pair % MAX_ADDRS);
	bpf_for(pair, 0, MAX_ADDRS * MAX_ADDRS)
		if (is_set(clients, pair / MAX_ADDRS) && pair % MAX_ADDRS < addrs->vip.nr)
			set_path_there(opening, pair / MAX_ADDRS, pair % MAX_ADDRS);
	return 0;
}

/* Delete all paths of a client's address. */
static __noinline int delete_paths_of(struct opening *opening, const struct ip_addr *client)
{
	struct assoc_addrs *addrs;
	struct ip_addr *source;
	__u32 bit, i;
	__u64 id;

	if (!opening || !client)
		return 0;
	addrs = &opening->addrs;
	id = opening->path.assoc;
	bit = nth_of(addr_bit(&addrs->client, client), 0);
	/* What backends see instead of several addresses leads back to any of them. */
	source = bit < MAX_ADDRS && !addrs->source_translated ? source_of(addrs, bit) : NULL;
	bpf_for(i, 0, MAX_ADDRS) {
		opening->key = opening->from;
		opening->key.saddr = *client;
		opening->key.daddr = *addr_at(&addrs->vip, i);
		delete_path(&opening->key, id);
		if (!source)
			continue;
		reverse_tuple(&opening->key, &opening->to);
		opening->key.saddr = *addr_at(&addrs->backend, i);
		opening->key.daddr = *source;
		delete_path(&opening->key, id);
	}
	return 0;
}

/* Delete all paths. */
__noinline int delete_paths(struct opening *opening, __u64 id)
{
	struct assoc_addrs *addrs;
	struct ip_addr *source;
	__u32 pair;

	if (!opening)
		return 0;
	addrs = &opening->addrs;
	bpf_for(pair, 0, MAX_ADDRS * MAX_ADDRS) {
		source = source_of(addrs, pair / MAX_ADDRS);
		opening->key = opening->from;
		opening->key.saddr = *addr_at(&addrs->client, pair / MAX_ADDRS);
		opening->key.daddr = *addr_at(&addrs->vip, pair % MAX_ADDRS);
		delete_path(&opening->key, id);
		if (!source)
			continue;
		reverse_tuple(&opening->key, &opening->to);
		opening->key.saddr = *addr_at(&addrs->backend, pair % MAX_ADDRS);
		opening->key.daddr = *source;
		delete_path(&opening->key, id);
	}
	return 0;
}

/* Have replies go where a packet came from, whose path shares its way back with others. */
static __noinline int lead_back(struct tuple *tuple, struct path *path)
{
	struct opening *opening = get_opening();
	struct path *back;

	if (!opening || !tuple || !path)
		return 0;
	reverse_tuple(&opening->key, &path->to);
	reverse_tuple(&opening->from, tuple);
	back = bpf_map_lookup_elem(&paths, &opening->key);
	if (!back || back->assoc != path->assoc || same_tuple(&back->to, &opening->from))
		return 0;
	opening->path = *back;
	opening->path.to = opening->from;
	return bpf_map_update_elem(&paths, &opening->key, &opening->path, BPF_EXIST);
}

/* Anybody may send an INIT: it leads nobody away, but its answer goes where it came from. */
static __noinline int note_asker(struct tuple *tuple, struct path *path, __be32 init_tag)
{
	struct opening *opening = get_opening();
	struct asked_key key = { .tag = init_tag };

	if (!opening || !tuple || !path)
		return 0;
	key.assoc = path->assoc;
	reverse_tuple(&opening->from, tuple);
	return bpf_map_update_elem(&asked, &key, &opening->from, BPF_ANY);
}

/* @path: the one back, of @tuple, which is allowed now; so has to be the one there. */
static __noinline int lead_to_asker(struct tuple *tuple, struct path *path, __be32 vtag)
{
	struct asked_key key = { .tag = vtag };
	struct tuple *to, there, answer;
	struct path *found;

	if (!tuple || !path)
		return 0;
	key.assoc = path->assoc;
	to = bpf_map_lookup_elem(&asked, &key);
	if (!to)
		return 0;
	reverse_tuple(&there, to);
	found = own_path(&there, path->assoc);
	if (!found || found->allowed != path->allowed)
		return 0;
	reverse_tuple(&answer, &found->to);
	if (same_tuple(&answer, tuple))
		reverse_tuple(&path->to, &there);
	return 0;
}

#endif /* __PATHS_H */
