/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tuples of packets, and what is done with them. */
#ifndef __TUPLE_H
#define __TUPLE_H

#include "lb_types.h"
#include "parse.h"

static __always_inline bool is_zero_addr(const struct ip_addr *addr)
{
	return !(addr->word[0] | addr->word[1] | addr->word[2] | addr->word[3]);
}

static __always_inline bool same_tuple(const struct tuple *a, const struct tuple *b)
{
	return same_addr(&a->saddr, &b->saddr) && same_addr(&a->daddr, &b->daddr) &&
	       a->sport == b->sport && a->dport == b->dport;
}

static __always_inline void tuple_of(struct tuple *tuple, const struct packet *pkt)
{
	tuple->saddr = pkt->saddr;
	tuple->daddr = pkt->daddr;
	tuple->sport = pkt->sctp.source;
	tuple->dport = pkt->sctp.dest;
}

static __always_inline void reverse_tuple(struct tuple *reverse, const struct tuple *tuple)
{
	reverse->saddr = tuple->daddr;
	reverse->daddr = tuple->saddr;
	reverse->sport = tuple->dport;
	reverse->dport = tuple->sport;
}

#endif /* __TUPLE_H */
