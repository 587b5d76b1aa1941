/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The load balancer. Include ctx_skb.h or ctx_xdp.h first.
 *
 * The way of a packet: parse, find its path, or open one if it is an INIT to a
 * service or from or to an endpoint with a policy; check it against its
 * association; rewrite; verdict. The stack, or who comes next, forwards it.
 */
#ifndef __LB_H
#define __LB_H

#include "conntrack.h"
#include "icmp.h"
#include "nat.h"
#include "policy.h"
#include "service.h"

static __always_inline struct lb_settings *get_settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

/* The peers as the policies know them: who opened the association, and who serves it. */
static __always_inline bool assoc_is_allowed(struct assoc *assoc)
{
	struct lb_settings *settings = get_settings();
	__u32 generation;

	if (!settings)
		return true;
	generation = settings->generation;
	if (assoc->generation == generation)
		return true;
	/* Judge after that: what is judged by older policies must not pass for the newer. */
	barrier();
	if (!policy_allows(&assoc->original.saddr, &assoc->translated.daddr,
			   assoc->translated.dport))
		return false;
	assoc->generation = generation;
	return true;
}

static __always_inline int open_and_translate(ctx_t *ctx, struct packet *pkt,
					      struct opening *opening)
{
	long err = open_assoc(ctx, opening);

	if (err == -EEXIST)
		return drop(ctx, pkt, STAT_DROP_NO_PORT);
	if (err)
		return drop(ctx, pkt, STAT_DROP_FULL);
	count(STAT_TO_BACKEND);
	return translate_packet(ctx, pkt, &opening->to);
}

/* Another source address, if replies would not come back through this node. */
static __always_inline int set_source(struct opening *opening, const struct service *service,
				      const struct packet *pkt, const struct lb_settings *settings)
{
	const struct ip_addr *own = &settings->masquerade[pkt->ipv6 ? 1 : 0];

	if (service->masquerade) {
		if (is_zero_addr(own))
			return -1;
		opening->to.saddr = *own;
	} else if (same_addr(&opening->to.saddr, &opening->to.daddr)) {
		/* A backend reaches itself: to it, the peer is the service. */
		opening->to.saddr = pkt->daddr;
	}
	return 0;
}

static __noinline int open_to_service(ctx_t *ctx, struct packet *pkt, struct chunks *chunks,
				      struct service *service)
{
	struct lb_settings *settings = get_settings();
	struct backend *backend;
	struct opening *opening;

	opening = begin_opening(pkt, chunks, settings ? settings->generation : 0);
	if (!settings || !service || !opening)
		return CTX_DROP;
	backend = choose_backend(service, &opening->from, bpf_ktime_get_coarse_ns(),
				 &opening->backend);
	if (!backend)
		return drop(ctx, pkt, STAT_DROP_NO_BACKEND);
	opening->service = service->id;
	opening->to.daddr = backend->addr.addr;
	opening->to.dport = backend->addr.port;
	if (!policy_allows(&opening->from.saddr, &opening->to.daddr, opening->to.dport))
		return drop(ctx, pkt, STAT_DROP_POLICY);
	if (set_source(opening, service, pkt, settings))
		return drop(ctx, pkt, STAT_DROP_NO_MASQUERADE);
	return open_and_translate(ctx, pkt, opening);
}

/* Whether the packet has been here before, by another device or hook: its replies have a path. */
static __always_inline bool is_translated(const struct packet *pkt)
{
	struct tuple tuple, reply;
	struct path *path;

	tuple_of(&tuple, pkt);
	reverse_tuple(&reply, &tuple);
	path = bpf_map_lookup_elem(&paths, &reply);
	return path && path->dir == DIR_REPLY;
}

/* Not to a service, but some policy has a say: track it, so that replies are known. */
static __noinline int open_directly(ctx_t *ctx, struct packet *pkt, struct chunks *chunks)
{
	struct lb_settings *settings = get_settings();
	struct opening *opening;

	if (is_translated(pkt))
		return CTX_PASS;
	if (!policy_allows(&pkt->saddr, &pkt->daddr, pkt->sctp.dest))
		return drop(ctx, pkt, STAT_DROP_POLICY);
	/* One that is older than the policies: it is judged by them, packet by packet. */
	if (!saw(chunks, CHUNK_INIT))
		return CTX_PASS;
	opening = begin_opening(pkt, chunks, settings ? settings->generation : 0);
	if (!opening)
		return CTX_DROP;
	return open_and_translate(ctx, pkt, opening);
}

/* A packet without a path. */
static __noinline int handle_new(ctx_t *ctx, struct packet *pkt, struct tuple *tuple)
{
	struct service *service = find_service(tuple);
	struct chunks chunks = {};

	if (!service && !has_policy(tuple))
		return CTX_PASS;
	if (walk_chunks(ctx, pkt, &chunks))
		return drop(ctx, pkt, STAT_DROP_CHUNKS);
	if (!service)
		return open_directly(ctx, pkt, &chunks);
	if (!saw(&chunks, CHUNK_INIT))
		return drop(ctx, pkt, STAT_DROP_NO_ASSOC);
	return open_to_service(ctx, pkt, &chunks, service);
}

/* Whether an INIT is to find a new backend: the old association is over, or its backend is gone. */
static __always_inline bool is_over(const struct assoc *assoc, const struct chunks *chunks,
				    __u32 dir)
{
	struct backend *backend;

	if (!saw(chunks, CHUNK_INIT))
		return false;
	if (assoc->state == ASSOC_CLOSED)
		return true;
	if (dir != DIR_ORIGINAL || assoc->unanswered < MAX_UNANSWERED || !assoc->service ||
	    bpf_ktime_get_coarse_ns() - assoc->asked < UNANSWERED_INTERVAL)
		return false;
	backend = bpf_map_lookup_elem(&backends, &assoc->backend);
	return !backend || backend->draining;
}

static __always_inline int handle_known(ctx_t *ctx, struct packet *pkt, struct tuple *tuple,
					const struct path *found)
{
	/* A copy: the entry may become another's meanwhile. */
	struct path path = *found;
	struct assoc *assoc = bpf_map_lookup_elem(&assocs, &path.assoc);
	struct chunks chunks = {};
	__u32 dir = path.dir & 1;

	/* It has just ended, on another CPU. */
	if (!assoc) {
		delete_path(tuple, path.assoc);
		return handle_new(ctx, pkt, tuple);
	}
	if (walk_chunks(ctx, pkt, &chunks))
		return drop(ctx, pkt, STAT_DROP_CHUNKS);
	if (is_over(assoc, &chunks, dir)) {
		forget_assoc(assoc, path.assoc);
		return handle_new(ctx, pkt, tuple);
	}
	if (!assoc_is_allowed(assoc))
		return drop(ctx, pkt, STAT_DROP_POLICY);
	if (!follow_assoc(ctx, assoc, pkt, &chunks, dir))
		return drop(ctx, pkt, STAT_DROP_TAG);
	if (saw(&chunks, CHUNK_INIT))
		count(STAT_RESTARTED);
	count(dir == DIR_ORIGINAL ? STAT_TO_BACKEND : STAT_TO_CLIENT);
	return translate_packet(ctx, pkt, &path.to);
}

static __always_inline int handle_sctp(ctx_t *ctx, struct packet *pkt)
{
	struct tuple tuple;
	struct path *path;

	tuple_of(&tuple, pkt);
	path = bpf_map_lookup_elem(&paths, &tuple);
	return path ? handle_known(ctx, pkt, &tuple, path) : handle_new(ctx, pkt, &tuple);
}

/* SCTP without its ports passes by, unless an address of it is ours. */
static __always_inline int refuse_if_ours(ctx_t *ctx, struct packet *pkt, enum stat reason)
{
	if (bpf_map_lookup_elem(&our_addrs, &pkt->daddr) ||
	    bpf_map_lookup_elem(&our_addrs, &pkt->saddr))
		return drop(ctx, pkt, reason);
	return CTX_PASS;
}

static __always_inline int balance(ctx_t *ctx)
{
	struct packet pkt = {};

	switch (parse_packet(ctx, &pkt)) {
	case PARSE_SCTP:
		return handle_sctp(ctx, &pkt);
	case PARSE_ICMP:
		return translate_icmp(ctx, &pkt);
	case PARSE_FRAGMENT:
		return refuse_if_ours(ctx, &pkt, STAT_DROP_FRAGMENT);
	case PARSE_TRUNCATED:
		return refuse_if_ours(ctx, &pkt, STAT_DROP_TRUNCATED);
	case PARSE_EXT_HEADERS:
		return refuse_if_ours(ctx, &pkt, STAT_DROP_EXT_HEADERS);
	default:
		return CTX_PASS;
	}
}

#endif /* __LB_H */
