/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a packet does to the state of its association, and whether its
 * verification tag belongs there (RFC 9260 sections 4, 5.2 and 8.5).
 *
 * Tags that nobody has confirmed are kept apart, as pending: those of an INIT in
 * an association that exists, whether its peer restarted, both sides sent one, or
 * somebody else forged it; and those of further INIT ACKs. The COOKIE ECHO that
 * uses them confirms them. Until then the association is what it was.
 *
 * An association that begins where another was closed leaves the other's last words
 * to its ends: a SHUTDOWN COMPLETE that was lost behind us has to be asked for again.
 *
 * All of this runs under the association's lock.
 */
#ifndef __ASSOC_STATE_H
#define __ASSOC_STATE_H

#include "chunks.h"
#include "lb_types.h"

/* INITs without an answer, after which a backend that is leaving, and silent, counts as gone. */
#define MAX_UNANSWERED 2
#define UNANSWERED_INTERVAL 1000000000ULL

/* A direction as an index whose bounds the verifier sees, which the compiler would reason away. */
static __always_inline __u32 dir_index(__u32 dir)
{
	barrier_var(dir);
	return dir & 1;
}

/* With the T bit, a packet has the tag of the other direction. */
static __always_inline bool tag_matches(const struct tags *tags, const struct chunks *chunks,
					__u32 dir, __be32 vtag)
{
	__be32 tag = tags->tag[dir_index(dir ^ chunks->t_bit)];

	return tag && tag == vtag;
}

/* Whether it is a tag of either side, confirmed or not. */
static __always_inline bool has_tag(const struct assoc *assoc, __be32 tag)
{
	return tag && (tag == assoc->tags.tag[0] || tag == assoc->tags.tag[1] ||
		       tag == assoc->pending.tag[0] || tag == assoc->pending.tag[1] ||
		       tag == assoc->earlier.tag[0] || tag == assoc->earlier.tag[1] ||
		       tag == assoc->before.tag[0] || tag == assoc->before.tag[1]);
}

/* Another CPU may have set @since later than @now. */
static __always_inline bool has_passed(__u64 now, __u64 since, __u64 interval)
{
	return (__s64)(now - since) >= (__s64)interval;
}

static __always_inline void follow_init(struct assoc *assoc, const struct chunks *chunks, __u32 dir,
					__u64 now)
{
	__u32 own = dir_index(dir), peer = dir_index(!dir);

	/* One a second: there must be time for an answer. */
	if (dir == DIR_ORIGINAL && assoc->unanswered < MAX_UNANSWERED &&
	    has_passed(now, assoc->asked, UNANSWERED_INTERVAL)) {
		assoc->asked = now;
		assoc->unanswered++;
	}
	/* Sent again: nothing new, unless the other side's was: then this is one of its own. */
	if (assoc->tags.tag[peer] == chunks->init_tag && own == assoc->opened_by)
		return;
	assoc->inits |= 1U << own;
	if (assoc->tags.tag[peer] == chunks->init_tag)
		return;
	/* What has been answered waits for its COOKIE ECHO: only an answer may take its place. */
	if (!assoc->pending.tag[own])
		assoc->pending.tag[peer] = chunks->init_tag;
}

/*
 * An INIT has been answered, with the tag that its COOKIE ECHO will have if its sender
 * takes this answer, and not the one before, to an INIT that was sent twice or forged.
 */
static __always_inline void note_answer(struct assoc *assoc, __u32 asker, __be32 vtag, __be32 init_tag)
{
	__u32 own = dir_index(!asker), peer = dir_index(asker);

	if (assoc->asker != asker)
		assoc->earlier = (struct tags){};
	else if (assoc->pending.tag[own] != vtag || assoc->pending.tag[peer] != init_tag)
		assoc->earlier = assoc->pending;
	assoc->pending.tag[own] = vtag;
	assoc->pending.tag[peer] = init_tag;
	assoc->asker = asker;
}

static __always_inline void follow_init_ack(struct assoc *assoc, const struct chunks *chunks,
					    __u32 dir)
{
	__u32 own = dir_index(dir), peer = dir_index(!dir);

	if (!assoc->tags.tag[peer]) {
		assoc->tags.tag[peer] = chunks->init_tag;
	} else if ((assoc->state == ASSOC_COOKIE_WAIT || assoc->state == ASSOC_COOKIE_ECHOED) &&
		   (assoc->opened_by == peer || assoc->inits & 1U << peer) &&
		   assoc->tags.tag[peer] != chunks->init_tag) {
		/*
		 * To an INIT that was sent again, also for a stale cookie (section 5.2.6):
		 * either may be the one that the peer takes. Who has sent none is not answered.
		 */
		note_answer(assoc, peer, assoc->tags.tag[own], chunks->init_tag);
	}
}

/* What ends an association. */
#define END_CHUNKS (1U << CHUNK_SHUTDOWN | 1U << CHUNK_SHUTDOWN_ACK |	\
		    1U << CHUNK_SHUTDOWN_COMPLETE | 1U << CHUNK_ABORT)
/* What changes the state, or the tags. */
#define STATE_CHUNKS (1U << CHUNK_INIT_ACK | 1U << CHUNK_COOKIE_ECHO | 1U << CHUNK_COOKIE_ACK | END_CHUNKS)

static __always_inline void follow_state(struct assoc *assoc, const struct chunks *chunks)
{
	if (saw(chunks, CHUNK_COOKIE_ECHO) && assoc->state == ASSOC_COOKIE_WAIT &&
	    assoc->tags.tag[DIR_ORIGINAL] && assoc->tags.tag[DIR_REPLY])
		assoc->state = ASSOC_COOKIE_ECHOED;
	if (saw(chunks, CHUNK_COOKIE_ACK) && assoc->state == ASSOC_COOKIE_ECHOED) {
		assoc->state = ASSOC_ESTABLISHED;
		assoc->before = (struct tags){};
	}
	/* From where nobody was answered, the tag may be guessed; to there, it refuses a guess. */
	if (chunks->unproven)
		return;
	if (saw(chunks, CHUNK_SHUTDOWN) && assoc->state == ASSOC_ESTABLISHED)
		assoc->state = ASSOC_SHUTDOWN_SENT;
	if (saw(chunks, CHUNK_SHUTDOWN_ACK) &&
	    (assoc->state == ASSOC_ESTABLISHED || assoc->state == ASSOC_SHUTDOWN_SENT))
		assoc->state = ASSOC_SHUTDOWN_ACK_SENT;
	/* Who sends it for a SHUTDOWN of his own has seen the SHUTDOWN ACK, which may have been in doubt here. */
	if (saw(chunks, CHUNK_SHUTDOWN_COMPLETE) &&
	    (assoc->state == ASSOC_SHUTDOWN_ACK_SENT ||
	     (assoc->state == ASSOC_SHUTDOWN_SENT && !chunks->t_bit)))
		assoc->state = ASSOC_CLOSED;
	if (saw(chunks, CHUNK_ABORT))
		assoc->state = ASSOC_CLOSED;
}

/*
 * A COOKIE ECHO for tags that both sides have offered: it goes before what was there.
 * It comes from the side that was answered, or who forges one side could do both.
 */
static __always_inline bool confirms(const struct tags *tags, const struct assoc *assoc,
				     const struct chunks *chunks, __u32 dir, __be32 vtag)
{
	return saw(chunks, CHUNK_COOKIE_ECHO) && assoc->asker == dir &&
	       tags->tag[dir_index(!dir)] && tag_matches(tags, chunks, dir, vtag);
}

/* What a packet is to its association. */
enum follow {
	FOLLOW_NOT,		/* not its: nothing has changed */
	FOLLOW_PASS,		/* an INIT, an answer to one, or last words: no proof of anything */
	FOLLOW_OURS,		/* it has the right tag */
};

/*
 * Without a tag of the association, a packet may only answer an INIT of the other
 * side, with INIT ACK, or refuse one with ABORT.
 */
static __always_inline enum follow follow_answer(struct assoc *assoc, const struct chunks *chunks,
						 __u32 dir, __be32 vtag)
{
	__u32 peer = dir_index(!dir);
	bool asked = assoc->inits & 1U << peer;

	if (saw(chunks, CHUNK_INIT_ACK) && asked) {
		note_answer(assoc, peer, vtag, chunks->init_tag);
		return FOLLOW_PASS;
	}
	if (chunks->seen != 1U << CHUNK_ABORT)
		return FOLLOW_NOT;
	return asked || tag_matches(&assoc->pending, chunks, dir, vtag) ? FOLLOW_PASS : FOLLOW_NOT;
}

static __always_inline enum follow follow_tagged(struct assoc *assoc, const struct chunks *chunks,
						 __u32 dir, __be32 vtag)
{
	bool ours = tag_matches(&assoc->tags, chunks, dir, vtag);

	if (!(chunks->seen & STATE_CHUNKS) && ours)
		return FOLLOW_OURS;
	if (confirms(&assoc->earlier, assoc, chunks, dir, vtag))
		assoc->pending = assoc->earlier;
	if (confirms(&assoc->pending, assoc, chunks, dir, vtag)) {
		assoc->before = assoc->tags;
		assoc->tags = assoc->pending;
		assoc->pending = (struct tags){};
		assoc->earlier = (struct tags){};
		assoc->inits = 0;
		assoc->opened_by = dir;
		assoc->state = ASSOC_COOKIE_ECHOED;
	} else if (!ours) {
		return follow_answer(assoc, chunks, dir, vtag);
	}
	if (saw(chunks, CHUNK_INIT_ACK))
		follow_init_ack(assoc, chunks, dir);
	follow_state(assoc, chunks);
	return FOLLOW_OURS;
}

#define LAST_WORDS (1U << CHUNK_SHUTDOWN_ACK | 1U << CHUNK_SHUTDOWN_COMPLETE)

/* Of the association that was here before: they change nothing. */
static __always_inline bool are_last_words(const struct assoc *assoc, const struct chunks *chunks,
					   __u32 dir, __be32 vtag)
{
	return !(chunks->seen & ~LAST_WORDS) && tag_matches(&assoc->before, chunks, dir, vtag);
}

static __always_inline enum follow assoc_follow(struct assoc *assoc, const struct chunks *chunks,
						__u32 dir, __be32 vtag, __u64 now)
{
	enum follow follow;

	if (saw(chunks, CHUNK_INIT)) {
		follow_init(assoc, chunks, dir, now);
		return FOLLOW_PASS;
	}
	follow = follow_tagged(assoc, chunks, dir, vtag);
	if (follow && dir == DIR_REPLY) {
		if (assoc->unanswered)
			assoc->unanswered = 0;
		assoc->heard = now;
	}
	return follow;
}

#endif /* __ASSOC_STATE_H */
