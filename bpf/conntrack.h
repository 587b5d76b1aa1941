/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of an association in the maps: opened by an INIT, found by the tuple
 * of each packet, ended by a timer.
 */
#ifndef __CONNTRACK_H
#define __CONNTRACK_H

#include <linux/errno.h>

#include "assoc_state.h"
#include "events.h"
#include "paths.h"

#define CLOCK_MONOTONIC 1
#define NSEC_PER_MSEC 1000000ULL
#define MAX_PORT_TRIES 32
#define MAX_TIMER_TRIES 8
#define MIN_PICKED_PORT 1024

/*
 * In milliseconds. An idle path is probed every 30 s and some, and what has to be
 * answered is sent again after 60 s at most (RFC 9260 section 16: HB.interval, RTO.Max).
 */
const volatile __u32 timeouts[ASSOC_STATE_MAX] = {
	[ASSOC_CLOSED] = 10000,
	[ASSOC_COOKIE_WAIT] = 10000,
	[ASSOC_COOKIE_ECHOED] = 90000,
	[ASSOC_ESTABLISHED] = 210000,
	[ASSOC_SHUTDOWN_SENT] = 90000,
	[ASSOC_SHUTDOWN_ACK_SENT] = 90000,
};

/* In milliseconds: who is not heard for so long is not there, or has nothing to say. */
const volatile __u32 silence = 70000;

/* What a path notes that these policies allow, judged by the direction that opened its association. */
static __always_inline __u32 allowed_by(__u32 generation, __u32 opener)
{
	return generation << 1 | dir_index(opener);
}

/* An association that is all zero, to begin with. */
static const char new_assoc[sizeof(struct assoc)] = {};

static __always_inline __u64 timeout_of(__u32 state)
{
	return state < ASSOC_STATE_MAX ? timeouts[state] * NSEC_PER_MSEC : 0;
}

static __always_inline struct tag_key tag_key_of(const struct assoc *assoc, __u32 dir, __be32 tag)
{
	return dir == DIR_ORIGINAL ?
	       (struct tag_key){ tag, assoc->original.sport, assoc->original.dport } :
	       (struct tag_key){ tag, assoc->translated.dport, assoc->translated.sport };
}

/*
 * Note the tag by which packets of a direction are known to be the association's,
 * whatever their addresses. To the backend, until it has offered one, that of the INIT.
 */
static __noinline int index_tag(struct assoc *assoc, __u64 id, __u32 dir, __be32 tag)
{
	struct tag_key key;

	if (!assoc)
		return 0;
	key = tag_key_of(assoc, dir, tag);
	dir = dir_index(dir);
	if (!tag || assoc->indexed[dir] == tag || bpf_map_update_elem(&by_tag, &key, &id, BPF_NOEXIST))
		return 0;
	bpf_spin_lock(&assoc->lock);
	/* If it ends meanwhile, on another CPU, nobody else deletes this. */
	if (assoc->id == id) {
		key.tag = assoc->indexed[dir];
		assoc->indexed[dir] = tag;
	}
	bpf_spin_unlock(&assoc->lock);
	/* User space, which writes it as a whole, may have brought the id back. */
	if (!bpf_map_lookup_elem(&assocs, &id))
		key.tag = tag;
	if (key.tag)
		bpf_map_delete_elem(&by_tag, &key);
	return 0;
}

static __noinline int forget_tag(const struct assoc *assoc, __u64 id, __u32 dir)
{
	struct tag_key key;
	__u64 *found;

	if (!assoc)
		return 0;
	key = tag_key_of(assoc, dir, assoc->indexed[dir_index(dir)]);
	found = key.tag ? bpf_map_lookup_elem(&by_tag, &key) : NULL;
	return found && *found == id ? bpf_map_delete_elem(&by_tag, &key) : 0;
}

/* Whether the association is the caller's to delete: of several CPUs, only one's. */
static __always_inline bool claim_assoc(struct assoc *assoc, __u64 id)
{
	bool claimed;

	bpf_spin_lock(&assoc->lock);
	claimed = assoc->id == id;
	if (claimed)
		assoc->id = 0;
	bpf_spin_unlock(&assoc->lock);
	return claimed;
}

/*
 * Who deletes the association deletes all that leads to it, and nobody else. Returns
 * whether that was the caller.
 */
static __noinline bool forget_assoc(struct assoc *assoc, __u64 id)
{
	struct opening *opening = get_opening();
	struct assoc_addrs *addrs;

	if (!assoc || !opening || !claim_assoc(assoc, id))
		return false;
	opening->from = assoc->original;
	opening->to = assoc->translated;
	forget_tag(assoc, id, DIR_ORIGINAL);
	forget_tag(assoc, id, DIR_REPLY);
	bpf_map_delete_elem(&assocs, &id);
	delete_path(&opening->from, id);
	reverse_tuple(&opening->key, &opening->to);
	delete_path(&opening->key, id);
	addrs = bpf_map_lookup_elem(&multihomed, &id);
	if (addrs) {
		opening->addrs = *addrs;
		bpf_map_delete_elem(&multihomed, &id);
		delete_paths(opening, id);
	}
	return true;
}

/*
 * Packets only note when the association would expire, because to set a timer
 * costs more. It is looked at when the timer fires, which is then set again.
 */
static int expire_assoc(void *map, __u64 *key, struct assoc *assoc)
{
	__u64 now = bpf_ktime_get_coarse_ns(), expires = assoc->expires, id = *key;
	bool closed;

	if (now < expires) {
		bpf_timer_start(&assoc->timer, expires - now, 0);
		return 0;
	}
	closed = assoc->state == ASSOC_CLOSED;
	if (forget_assoc(assoc, id) && !closed)
		count(STAT_EXPIRED);
	return 0;
}

/* @before: the tags of what was closed where this begins, or none */
static __always_inline struct opening *begin_opening(const struct packet *pkt,
						     const struct chunks *chunks, __u32 generation,
						     const struct tags *before)
{
	struct opening *opening = get_opening();

	if (!opening)
		return NULL;
	tuple_of(&opening->from, pkt);
	opening->to = opening->from;
	opening->init_tag = chunks->init_tag;
	opening->before = *before;
	opening->service = 0;
	opening->backend = 0;
	opening->generation = generation;
	opening->opener = DIR_ORIGINAL;
	return opening;
}

/* The kernel takes memory for a timer only where it need not wait: what is busy now may be free at once. */
static __always_inline int init_timer(struct assoc *assoc)
{
	int err = 0, i;

	bpf_for(i, 0, MAX_TIMER_TRIES) {
		err = bpf_timer_init(&assoc->timer, &assocs, CLOCK_MONOTONIC);
		if (err != -ENOMEM)
			break;
	}
	return err;
}

static __always_inline int start_timer(struct assoc *assoc)
{
	return init_timer(assoc) ?:
	       bpf_timer_set_callback(&assoc->timer, expire_assoc) ?:
	       bpf_timer_start(&assoc->timer, timeout_of(ASSOC_COOKIE_WAIT), 0);
}

static __always_inline void fill_assoc(struct assoc *assoc, __u64 id, const struct opening *opening)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	assoc->id = id;
	assoc->state = ASSOC_COOKIE_WAIT;
	assoc->tags.tag[DIR_REPLY] = opening->init_tag;
	assoc->before = opening->before;
	assoc->created = now;
	assoc->heard = now;
	assoc->expires = now + timeout_of(ASSOC_COOKIE_WAIT);
	assoc->packets[DIR_ORIGINAL] = 1;
	assoc->original = opening->from;
	assoc->translated = opening->to;
	assoc->service = opening->service;
	assoc->backend = opening->backend;
}

/* Whether the first path shares its way back with others of the association. */
static __noinline int is_first_shared(struct opening *opening)
{
	struct assoc_addrs *addrs;
	bool ipv4;

	if (!opening)
		return false;
	addrs = &opening->addrs;
	ipv4 = is_mapped_ipv4(&opening->from.saddr);
	return is_shared(addrs, family_mask(&addrs->vip, ipv4), family_mask(&addrs->backend, ipv4),
			 ipv4);
}

/* Add the path of opening->key. One that another association only expects must give way. */
static __always_inline long add_path(struct opening *opening, __u64 id, enum direction dir)
{
	delete_unused_path(&opening->key);
	opening->path.assoc = id;
	opening->path.seen = dir == DIR_ORIGINAL ? bpf_ktime_get_coarse_ns() : 0;
	opening->path.dir = dir;
	opening->path.confirmed = 1;
	opening->path.shared = is_first_shared(opening);
	opening->path.mtu = 0;
	opening->path.allowed = allowed_by(opening->generation, DIR_ORIGINAL);
	return bpf_map_update_elem(&paths, &opening->key, &opening->path, BPF_NOEXIST);
}

/*
 * Whether the port that backends are to see is another association's, at any address
 * that the backend has for the client, used or not.
 */
static __noinline int is_port_taken(struct opening *opening)
{
	struct assoc_addrs *addrs;
	struct ip_addr *addr;
	__u32 i;

	if (!opening || !opening->addrs.source_translated)
		return false;
	addrs = &opening->addrs;
	bpf_for(i, 0, MAX_ADDRS) {
		addr = addr_at(&addrs->backend, i);
		reverse_tuple(&opening->key, &opening->to);
		opening->key.saddr = *addr;
		opening->key.daddr = addrs->source[family_index(!is_mapped_ipv4(addr))];
		if (i < addrs->backend.nr && bpf_map_lookup_elem(&paths, &opening->key))
			return true;
	}
	return false;
}

/*
 * Add the path for replies. If another association has its tuple already, pick
 * another source port for packets to the backend, if they are translated at all.
 */
static __always_inline long add_reply_path(struct opening *opening, __u64 id)
{
	long err = 0;
	int i;

	reverse_tuple(&opening->path.to, &opening->from);
	bpf_for(i, 0, MAX_PORT_TRIES) {
		err = is_port_taken(opening) ? -EEXIST : 0;
		reverse_tuple(&opening->key, &opening->to);
		/* To a service the backend's replies would be requests. */
		if (is_frontend(&opening->key.daddr, opening->key.dport))
			err = -EEXIST;
		err = err ?: add_path(opening, id, DIR_REPLY);
		if (err != -EEXIST || !opening->service)
			break;
		opening->to.sport = bpf_htons(MIN_PICKED_PORT + bpf_get_prandom_u32() %
					      (0x10000 - MIN_PICKED_PORT));
	}
	return err;
}

/* The path of the original direction last: who finds it finds all of the association. */
static __always_inline long add_paths(struct opening *opening, struct assoc *assoc, __u64 id)
{
	long err = add_reply_path(opening, id);

	if (err)
		return err;
	assoc->translated = opening->to;
	err = start_timer(assoc);
	if (err)
		return err;
	opening->key = opening->from;
	opening->path.to = opening->to;
	err = add_path(opening, id, DIR_ORIGINAL);
	return err == -EEXIST ? -EAGAIN : err;
}

/*
 * Open an association. Returns 0, -EEXIST if there is no free port, -EAGAIN if another
 * CPU has just opened it, -ENOMEM if the kernel has no memory for its timer, or another
 * error if there is no room.
 */
static __noinline long open_assoc(ctx_t *ctx, struct opening *opening)
{
	__u64 id = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
	struct assoc *assoc;
	long err;

	if (bpf_map_update_elem(&assocs, &id, new_assoc, BPF_NOEXIST))
		return -E2BIG;
	assoc = bpf_map_lookup_elem(&assocs, &id);
	if (!assoc)
		return -E2BIG;
	fill_assoc(assoc, id, opening);
	err = add_paths(opening, assoc, id);
	if (err) {
		forget_assoc(assoc, id);
		return err;
	}
	count(STAT_NEW);
	event_assoc(ctx, assoc, EVENT_NEW);
	return 0;
}

/* Let the association follow a packet, which may pass unless this is FOLLOW_NOT. */
static __noinline enum follow follow_assoc(ctx_t *ctx, struct assoc *assoc, struct packet *pkt,
				    struct chunks *chunks, const struct path *path)
{
	__u32 before, after, dir = path->dir;
	enum follow follow = FOLLOW_NOT;
	__be32 tag;

	if (!assoc)
		return FOLLOW_NOT;
	bpf_spin_lock(&assoc->lock);
	before = assoc->state;
	tag = assoc->tags.tag[DIR_ORIGINAL];
	/* Its memory may be another's by now. */
	if (assoc->id == path->assoc)
		follow = assoc_follow(assoc, chunks, dir, pkt->sctp.vtag, pkt->now);
	after = assoc->state;
	if (tag == assoc->tags.tag[DIR_ORIGINAL])
		tag = 0;
	if (follow)
		assoc->packets[dir_index(dir)]++;
	if (follow == FOLLOW_OURS || (follow && after == ASSOC_COOKIE_WAIT))
		assoc->expires = pkt->now + timeout_of(after);
	if (!follow && are_last_words(assoc, chunks, dir, pkt->sctp.vtag))
		follow = FOLLOW_PASS;
	bpf_spin_unlock(&assoc->lock);

	if (tag)
		count(STAT_RESTARTED);
	if (before != after) {
		bpf_timer_start(&assoc->timer, timeout_of(after), 0);
		event_assoc(ctx, assoc, EVENT_STATE);
	}
	return follow;
}

#endif /* __CONNTRACK_H */
