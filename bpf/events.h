/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tell who watches. If nobody does the buffer is full, and nothing is told. */
#ifndef __EVENTS_H
#define __EVENTS_H

#include "lb_maps.h"
#include "lb_stats.h"
#include "tuple.h"

#define EVENTS_MARGIN 1024

static __always_inline struct event *event_begin(ctx_t *ctx, enum event_kind kind, __u32 detail)
{
	struct event *event;

	/* To reserve takes a lock that all CPUs share, also if there is no room. */
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > EVENTS_LEN - EVENTS_MARGIN)
		return NULL;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return NULL;
	event->time = bpf_ktime_get_ns();
	event->kind = kind;
	event->detail = detail;
	event->ifindex = ctx->ingress_ifindex;
	return event;
}

static __noinline int event_assoc(ctx_t *ctx, struct assoc *assoc, enum event_kind kind)
{
	struct event *event;

	if (!assoc)
		return 0;
	event = event_begin(ctx, kind, assoc->state);
	if (!event)
		return 0;
	event->tuple = assoc->original;
	event->translated = assoc->translated;
	event->vtag = assoc->tags.tag[DIR_ORIGINAL];
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Drop a packet: the reason is counted and told. */
static __noinline int drop(ctx_t *ctx, const struct packet *pkt, enum stat reason)
{
	struct event *event = event_begin(ctx, EVENT_DROP, reason);

	count(reason);
	if (event) {
		tuple_of(&event->tuple, pkt);
		event->translated = (struct tuple){};
		event->vtag = pkt->sctp.vtag;
		bpf_ringbuf_submit(event, 0);
	}
	return CTX_DROP;
}

#endif /* __EVENTS_H */
