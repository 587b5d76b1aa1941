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
#include "asconf.h"
#include "icmp.h"
#include "mtu.h"
#include "service.h"

/* No verdict yet: look for the packet's path again. */
#define AGAIN (-2)

static __always_inline struct lb_settings *get_settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

static __always_inline bool path_is_allowed(struct tuple *tuple, struct path *path,
					    const struct assoc *assoc)
{
	__u32 allowed, opener = assoc->opened_by;
	struct lb_settings *settings = get_settings();
	__be16 port;

	if (!settings)
		return true;
	allowed = allowed_by(settings->generation, opener);
	if (path->allowed == allowed)
		return true;
	/* Judge after that: what is judged by older policies must not pass for the newer. */
	barrier();
	port = opener == DIR_ORIGINAL ? assoc->translated.dport : assoc->original.sport;
	if (!judge_path(tuple, path, opener, port))
		return false;
	path->allowed = allowed;
	return true;
}

static __always_inline int open_and_translate(ctx_t *ctx, struct packet *pkt, struct opening *opening)
{
	long err;
	int reason;

	if (!opening)
		return CTX_DROP;
	err = open_assoc(ctx, opening);
	if (err == -EAGAIN)
		return AGAIN;
	if (err == -EEXIST)
		return drop(ctx, pkt, STAT_DROP_NO_PORT);
	if (err == -ENOMEM)
		return drop(ctx, pkt, STAT_DROP_NO_TIMER);
	if (err)
		return drop(ctx, pkt, STAT_DROP_FULL);
	keep_addrs(opening);
	reason = hide_client(ctx, pkt, opening);
	if (reason)
		return drop(ctx, pkt, reason);
	count(STAT_TO_BACKEND);
	return translate_packet(ctx, pkt, &opening->to);
}

/* Other source addresses, if replies would not come back through this node. */
static __always_inline int set_source(struct opening *opening, const struct service *service,
				      const struct packet *pkt, const struct lb_settings *settings)
{
	struct assoc_addrs *addrs = &opening->addrs;
	__u32 own = family_index(pkt->ipv6);

	if (service->masquerade) {
		addrs->source_translated = 1;
		addrs->source[0] = settings->masquerade[0];
		addrs->source[1] = settings->masquerade[1];
	} else if (addr_bit(&addrs->backend, &opening->from.saddr)) {
		/* A backend reaches itself: to it, the peer is the service. */
		addrs->source_translated = 1;
		addrs->source[own] = pkt->daddr;
	}
	if (!addrs->source_translated)
		return 0;
	opening->to.saddr = addrs->source[own];
	return is_zero_addr(&opening->to.saddr) ? -1 : 0;
}

/*
 * Whether what comes from this address and port is, or will be, another's: a service's
 * packets, and those of an association that are translated, have a path the other way.
 */
static __noinline bool stands_for_another(const struct tuple *tuple)
{
	struct tuple reply;
	struct path *path;

	if (!tuple)
		return true;
	if (is_frontend(&tuple->saddr, tuple->sport))
		return true;
	reverse_tuple(&reply, tuple);
	path = bpf_map_lookup_elem(&paths, &reply);
	return path && !same_addr(&path->to.daddr, &tuple->saddr);
}

static __noinline int open_to_service(ctx_t *ctx, struct packet *pkt, struct chunks *chunks,
				      struct service *service, const struct tags *before)
{
	struct lb_settings *settings = get_settings();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct backend *backend;
	struct opening *opening;
	int reason;

	opening = begin_opening(pkt, chunks, settings ? settings->generation : 0, before);
	if (!settings || !service || !opening)
		return CTX_DROP;
	if (stands_for_another(&opening->from))
		return drop(ctx, pkt, STAT_DROP_NO_ASSOC);
	reason = read_addrs(ctx, pkt, &opening->named);
	if (reason)
		return drop(ctx, pkt, reason);
	backend = choose_backend(service, &opening->from, now, &opening->backend);
	if (!backend)
		return drop(ctx, pkt, STAT_DROP_NO_BACKEND);
	opening->service = service->id;
	opening->to.daddr = backend->addr.addr;
	opening->to.dport = backend->addr.port;
	if (!policy_allows(&opening->from.saddr, &opening->to.daddr, opening->to.dport))
		return drop(ctx, pkt, STAT_DROP_POLICY);
	keep_affinity(service, &opening->from, now, opening->backend);
	begin_addrs(opening, service, backend);
	if (set_source(opening, service, pkt, settings))
		return drop(ctx, pkt, STAT_DROP_NO_MASQUERADE);
	return open_and_translate(ctx, pkt, opening);
}

/*
 * Whether the packet has been here before, by another device or hook: what goes the
 * other way has a path, and it carries, or offers, a tag of their association.
 */
static __noinline bool is_translated(const struct packet *pkt, const struct chunks *chunks)
{
	struct tuple tuple, reply;
	struct assoc *assoc;
	struct path *path;

	if (!pkt || !chunks)
		return false;
	tuple_of(&tuple, pkt);
	reverse_tuple(&reply, &tuple);
	path = bpf_map_lookup_elem(&paths, &reply);
	if (!path)
		return false;
	assoc = bpf_map_lookup_elem(&assocs, &path->assoc);
	if (!assoc || !path_is_allowed(&reply, path, assoc))
		return false;
	/* Its sender and its receiver are at the ends of the path: who has the tag may be the sender himself. */
	if (saw(chunks, CHUNK_INIT))
		return policy_allows(&path->to.daddr, &reply.saddr, reply.sport) &&
		       (has_tag(assoc, chunks->init_tag) ||
			assoc->inits & 1U << dir_index(!path->dir));
	return has_tag(assoc, pkt->sctp.vtag);
}

/* Not to a service, but some policy has a say: track it, so that replies are known. */
static __noinline int open_directly(ctx_t *ctx, struct packet *pkt, struct chunks *chunks,
				    const struct tags *before)
{
	struct lb_settings *settings = get_settings();
	__u32 generation = settings ? settings->generation : 0;
	struct opening *opening;
	int reason;

	/* As in path_is_allowed(). */
	barrier();
	if (is_translated(pkt, chunks))
		return CTX_PASS;
	if (!policy_allows(&pkt->saddr, &pkt->daddr, pkt->sctp.dest))
		return drop(ctx, pkt, STAT_DROP_POLICY);
	/* One that is older than the policies: it is judged by them, packet by packet. */
	if (!saw(chunks, CHUNK_INIT))
		return CTX_PASS;
	opening = begin_opening(pkt, chunks, generation, before);
	if (!opening)
		return CTX_DROP;
	if (stands_for_another(&opening->from))
		return drop(ctx, pkt, STAT_DROP_NO_ASSOC);
	reason = read_addrs(ctx, pkt, &opening->named);
	if (reason)
		return drop(ctx, pkt, reason);
	begin_addrs(opening, NULL, NULL);
	return open_and_translate(ctx, pkt, opening);
}

/*
 * A backend's packet without a path: as it is, it would tell the client the backend's
 * address, and end its association. That may be unknown here, if there are other nodes.
 */
static __noinline enum learned find_way_back(struct packet *pkt, struct tuple *tuple)
{
	struct lb_settings *settings = get_settings();
	enum learned learned;
	struct endpoint key;

	if (!settings || !tuple)
		return LEARNED_NOTHING;
	key = (struct endpoint){ .addr = tuple->saddr, .port = tuple->sport };
	if (!bpf_map_lookup_elem(&backend_endpoints, &key))
		return LEARNED_NOTHING;
	learned = learn_way_back(pkt, tuple);
	return learned == LEARNED_NOTHING && settings->service_only ? LEARNED_NO_PATH : learned;
}

/* What a client may send first from an address that has no path: nothing goes with a HEARTBEAT. */
static __always_inline bool is_probe(const struct chunks *chunks)
{
	__u32 probe = 1U << CHUNK_HEARTBEAT, auth = 1U << CHUNK_AUTH;

	return chunks->asconf ? saw(chunks, CHUNK_AUTH) : (chunks->seen & ~auth) == probe;
}

/* A packet's tuple and its path. Not on the stack, which is small. */
struct way {
	struct tuple tuple;
	struct path path;
	struct tags before;	/* of what was closed there, if the packet opens an association */
};

/* A packet without a path. */
static __noinline int handle_new(ctx_t *ctx, struct packet *pkt, struct way *way)
{
	struct tuple *tuple = &way->tuple;
	struct service *service = find_service(tuple);
	struct opening *opening = get_opening();
	enum learned learned = LEARNED_NOTHING;
	struct chunks chunks = {};

	if (!service)
		learned = find_way_back(pkt, tuple);
	if (learned)
		return learned == LEARNED_PATH ? AGAIN : drop(ctx, pkt, STAT_DROP_NO_ASSOC);
	/* An INIT may be of an endpoint with a policy though its addresses are not. */
	if (!service && !has_policy(tuple) && (pkt->sctp.vtag || !stands_for_another(tuple)))
		return CTX_PASS;
	if (walk_chunks(ctx, pkt, &chunks))
		return drop(ctx, pkt, STAT_DROP_CHUNKS);
	if (!service)
		return open_directly(ctx, pkt, &chunks, &way->before);
	if (saw(&chunks, CHUNK_INIT))
		return learn_init(pkt, tuple, chunks.init_tag, service->id) ? AGAIN :
		       open_to_service(ctx, pkt, &chunks, service, &way->before);
	if (is_probe(&chunks))
		learned = learn_path(pkt, tuple, service->id);
	if (learned == LEARNED_PATH)
		return AGAIN;
	if (learned == LEARNED_ONCE && !chunks.asconf && opening) {
		count(STAT_TO_BACKEND);
		return translate_packet(ctx, pkt, &opening->path.to);
	}
	return drop(ctx, pkt, STAT_DROP_NO_ASSOC);
}

/* Whether an INIT is to find a new backend: the old association is over, or its backend is gone. */
static __always_inline bool is_over(const struct assoc *assoc, __u32 dir)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct backend *backend;

	if (assoc->state == ASSOC_CLOSED)
		return true;
	if (dir != DIR_ORIGINAL || assoc->unanswered < MAX_UNANSWERED || !assoc->service ||
	    !has_passed(now, assoc->asked, UNANSWERED_INTERVAL) ||
	    (assoc->state != ASSOC_COOKIE_WAIT &&
	     !has_passed(now, assoc->heard, silence * NSEC_PER_MSEC)))
		return false;
	backend = bpf_map_lookup_elem(&backends, &assoc->backend);
	return !backend || backend->draining;
}

/* Whether what opens an association by this path, in its own direction, is allowed to. */
static __always_inline bool opens_allowed(struct tuple *tuple, struct path *path)
{
	return policy_allows(&tuple->saddr, &path->to.daddr, path->to.dport);
}

/*
 * To whom a client has named, but who has not been heard: what he serves, and his
 * policies, are not the client's to say.
 */
__noinline int is_others(struct tuple *tuple, struct path *path, __u32 service)
{
	return tuple && path && !is_answered(path) &&
	       (!service || find_service(tuple) ||
		!opens_allowed(tuple, path));
}

/* Whether an INIT comes where its association only expects packets, and is not of it. */
static __always_inline bool is_other_init(const struct assoc *assoc, struct tuple *tuple,
					  struct path *path, const struct chunks *chunks)
{
	if (!saw(chunks, CHUNK_INIT))
		return false;
	/* To what has become a service's since. */
	if (!assoc->service && is_only_init(assoc) && find_service(tuple))
		return true;
	if (path->dir == DIR_ORIGINAL)
		return chunks->init_tag != assoc->tags.tag[DIR_REPLY] && !is_proven(tuple, path);
	return is_others(tuple, path, assoc->service);
}

#define INIT_CHUNKS (1U << CHUNK_INIT | 1U << CHUNK_INIT_ACK)
/* What does more than its association follows: open paths, or be translated inside. */
#define PATH_CHUNKS (INIT_CHUNKS | 1U << CHUNK_COOKIE_ECHO | 1U << CHUNK_COOKIE_ACK)

/*
 * An INIT or INIT ACK with a path. Returns AGAIN if it does not belong there, and 0
 * or the reason to drop it otherwise; translate_addrs() has what it takes then,
 * before anything has changed.
 */
static __noinline int receive_init(ctx_t *ctx, struct packet *pkt, struct way *way,
				   struct assoc *assoc, struct chunks *chunks)
{
	struct opening *opening = get_opening();
	struct path *path;
	__u32 dir;

	if (!pkt || !way || !assoc || !chunks || !opening)
		return STAT_DROP_CHUNKS;
	path = &way->path;
	dir = path->dir;
	if (saw(chunks, CHUNK_INIT) && is_over(assoc, dir)) {
		way->before.tag[0] = assoc->tags.tag[dir_index(dir)];
		way->before.tag[1] = assoc->tags.tag[dir_index(!dir)];
		forget_assoc(assoc, path->assoc);
		return AGAIN;
	}
	if (is_other_init(assoc, &way->tuple, path, chunks)) {
		delete_path(&way->tuple, path->assoc);
		/* What was sent to there is no proof that anybody of the association is. */
		reverse_tuple(&opening->key, &path->to);
		if (!path->shared)
			delete_path(&opening->key, path->assoc);
		return AGAIN;
	}
	/* Who may answer in an association may not open one by that: the other's INIT may be his own forgery. */
	if (saw(chunks, CHUNK_INIT) && !opens_allowed(&way->tuple, path))
		return STAT_DROP_POLICY;
	return read_addrs(ctx, pkt, &opening->named);
}

#define NO_PROOF (1U << CHUNK_ABORT | 1U << CHUNK_INIT_ACK)

/* A shared path back leads where the right tag came from last; the answer to an INIT, where that came from. */
static __always_inline void lead_shared(struct way *way, const struct assoc *assoc,
					const struct chunks *chunks, __be32 vtag,
					enum follow follow)
{
	struct path *path = &way->path;

	if (path->dir == DIR_ORIGINAL && follow == FOLLOW_OURS)
		lead_back(&way->tuple, path);
	else if (path->dir == DIR_ORIGINAL && saw(chunks, CHUNK_INIT))
		note_asker(&way->tuple, path, chunks->init_tag);
	else if (path->dir == DIR_REPLY && chunks->seen & NO_PROOF &&
		 (assoc->state == ASSOC_COOKIE_WAIT || assoc->tags.tag[DIR_REPLY] != vtag))
		lead_to_asker(&way->tuple, path, vtag);
}

/* What else a packet does that its association has followed. Returns 0, or the reason to drop it. */
static __always_inline int follow_path(ctx_t *ctx, struct packet *pkt, struct way *way,
				       struct assoc *assoc, struct chunks *chunks,
				       enum follow follow)
{
	struct path *path = &way->path;

	if (saw(chunks, CHUNK_COOKIE_ECHO) && assoc->state == ASSOC_COOKIE_ECHOED)
		open_paths(&way->tuple, path, pkt->sctp.vtag);
	if (saw(chunks, CHUNK_COOKIE_ECHO) || saw(chunks, CHUNK_COOKIE_ACK)) {
		index_tag(assoc, path->assoc, DIR_ORIGINAL, assoc->tags.tag[DIR_ORIGINAL]);
		if (assoc->service)
			index_tag(assoc, path->assoc, DIR_REPLY, assoc->tags.tag[DIR_REPLY]);
	}
	if (path->shared)
		lead_shared(way, assoc, chunks, pkt->sctp.vtag, follow);
	if (chunks->seen & INIT_CHUNKS)
		return translate_addrs(ctx, pkt, path, chunks);
	return chunks->asconf ? handle_asconf(ctx, pkt, path, chunks) : 0;
}

/*
 * What a packet, and the route for it, say of its path. @found: the entry in the map;
 * @ours: it has the right tag, and is not only what anybody may send
 */
static __always_inline void note_packet(struct path *found, const struct path *path,
					const struct packet *pkt, bool ours, bool proven)
{
	const __u32 noted = offsetof(struct path, mtu);

	if (found->assoc != path->assoc)
		return;
	if (ours || !found->seen)
		found->seen = pkt->now;
	if (!(proven && !path->confirmed) &&
	    !__builtin_memcmp(&found->mtu, &path->mtu, sizeof(*path) - noted))
		return;
	/* It may have become another path of the same association. */
	if (found->dir != path->dir || !same_tuple(&found->to, &path->to))
		return;
	__builtin_memcpy(&found->mtu, &path->mtu, sizeof(*path) - noted);
	if (proven)
		found->confirmed = 1;
}

/*
 * Whether a packet may be another association's: not what a backend says with a tag
 * that was this one's; but a client's probe, while somebody opens this one.
 */
static __always_inline bool may_be_others(const struct assoc *assoc, struct way *way,
					  const struct chunks *chunks, __be32 vtag)
{
	struct path *path = &way->path;

	if (path->dir == DIR_REPLY && has_tag(assoc, vtag))
		return false;
	return (is_only_init(assoc) && is_probe(chunks) && path->dir == DIR_ORIGINAL &&
		assoc->service) || is_uncertain(assoc, &way->tuple, path);
}

/*
 * Whether what ends an association may be a guess, or refuse one: the client's from
 * where it has no answer, and the backend's with a tag that it was only sent.
 */
static __always_inline bool is_doubtful(struct way *way, const struct chunks *chunks)
{
	return chunks->seen & END_CHUNKS && (way->path.dir == DIR_ORIGINAL || chunks->t_bit) &&
	       !is_proven(&way->tuple, &way->path);
}

/* @found: the entry that the path was copied from, which may become another's meanwhile */
static __noinline int handle_known(ctx_t *ctx, struct packet *pkt, struct way *way,
				   struct path *found)
{
	struct path *path = &way->path;
	struct chunks chunks = {};
	enum follow follow;
	struct assoc *assoc;
	bool too_big, proven;
	int reason = 0;

	if (!found || !pkt)
		return CTX_DROP;
	assoc = bpf_map_lookup_elem(&assocs, &path->assoc);
	/* It has just ended, on another CPU. */
	if (!assoc) {
		delete_path(&way->tuple, path->assoc);
		return AGAIN;
	}
	pkt->now = bpf_ktime_get_coarse_ns();
	/* Who ends it may have ended himself. */
	if (assoc->opener && pkt->now > assoc->expires) {
		forget_assoc(assoc, path->assoc);
		return AGAIN;
	}
	if (walk_chunks(ctx, pkt, &chunks))
		return drop(ctx, pkt, STAT_DROP_CHUNKS);
	if (chunks.seen & INIT_CHUNKS)
		reason = receive_init(ctx, pkt, way, assoc, &chunks);
	if (reason)
		return reason == AGAIN ? AGAIN : drop(ctx, pkt, reason);
	if (!path_is_allowed(&way->tuple, path, assoc))
		return drop(ctx, pkt, STAT_DROP_POLICY);
	chunks.unproven = is_doubtful(way, &chunks);
	follow = follow_assoc(ctx, assoc, pkt, &chunks, path);
	if (!follow)
		return may_be_others(assoc, way, &chunks, pkt->sctp.vtag) ? AGAIN :
		       drop(ctx, pkt, STAT_DROP_TAG);
	too_big = path->dir == DIR_REPLY && is_too_big(ctx, pkt, path);
	/*
	 * An ABORT may refuse what was none of the association's, and who has the T bit knows of
	 * none. An INIT ACK has the tag that whoever sent the INIT has chosen.
	 */
	proven = follow == FOLLOW_OURS && !(chunks.seen & NO_PROOF) && !chunks.t_bit;
	note_packet(found, path, pkt, follow == FOLLOW_OURS, proven);
	if (proven && !path->confirmed && path->dir == DIR_REPLY) {
		claim_way_there(path);
		let_leave(path);
	}
	if (too_big) {
		count(STAT_TOO_BIG);
		return CTX_PASS;
	}
	if (chunks.seen & PATH_CHUNKS || chunks.asconf || path->shared) {
		reason = follow_path(ctx, pkt, way, assoc, &chunks, follow);
		if (reason)
			return drop(ctx, pkt, reason);
	}
	count(path->dir == DIR_ORIGINAL ? STAT_TO_BACKEND : STAT_TO_CLIENT);
	return translate_packet(ctx, pkt, &path->to);
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct way);
} ways SEC(".maps");

/*
 * Copy the entry of the packet's path. Returns whether it was one association's at
 * either end of that: what has become another's before, or on a CPU that orders
 * this differently, the tags find out.
 */
static __always_inline bool copy_path(struct way *way, struct path *found)
{
	__u64 assoc = *(volatile __u64 *)&found->assoc;

	barrier();
	way->path = *found;
	barrier();
	return way->path.assoc == assoc && *(volatile __u64 *)&found->assoc == assoc;
}

/* Follow the packet's path, if it has one. */
static __always_inline int try_path(ctx_t *ctx, struct packet *pkt, struct way *way)
{
	struct path *found = bpf_map_lookup_elem(&paths, &way->tuple);

	if (!found)
		return AGAIN;
	if (!copy_path(way, found))
		return drop(ctx, pkt, STAT_DROP_NO_ASSOC);
	return handle_known(ctx, pkt, way, found);
}

static __always_inline int handle_sctp(ctx_t *ctx, struct packet *pkt)
{
	struct way *way;
	__u32 key = 0;
	int verdict;

	way = bpf_map_lookup_elem(&ways, &key);
	if (!way)
		return CTX_DROP;
	tuple_of(&way->tuple, pkt);
	way->before = (struct tags){};
	verdict = try_path(ctx, pkt, way);
	if (verdict == AGAIN)
		verdict = handle_new(ctx, pkt, way);
	/* It has been learned. */
	if (verdict == AGAIN)
		verdict = try_path(ctx, pkt, way);
	return verdict != AGAIN ? verdict : drop(ctx, pkt, STAT_DROP_NO_ASSOC);
}

/* SCTP without its ports passes by, unless an address of it is ours. */
static __always_inline int refuse_if_ours(ctx_t *ctx, struct packet *pkt, enum stat reason)
{
	if (bpf_map_lookup_elem(&our_addrs, &pkt->daddr) ||
	    bpf_map_lookup_elem(&our_addrs, &pkt->saddr))
		return drop(ctx, pkt, reason);
	return CTX_PASS;
}

/* What it takes of the stack is free afterwards. */
static __noinline enum parse_result parse(ctx_t *ctx, struct packet *pkt)
{
	return parse_packet(ctx, pkt);
}

static __always_inline int balance(ctx_t *ctx)
{
	struct packet pkt = {};

	switch (parse(ctx, &pkt)) {
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
