/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the load balancer counts, and why it drops a packet. */
#ifndef __LB_STATS_H
#define __LB_STATS_H

enum stat {
	STAT_TO_BACKEND,		/* passed in an association's original direction */
	STAT_TO_CLIENT,			/* passed in its reply direction */
	STAT_NEW,			/* associations opened, that is an INIT was passed */
	STAT_RESTARTED,			/* associations that got other tags: a restart, or more INITs than one were answered */
	STAT_EXPIRED,			/* associations that ended by a timeout, and not by their peers */
	STAT_PATHS,			/* further paths of associations */
	STAT_PATHS_REFUSED,		/* paths for which there was no room, or that are another's */
	STAT_ADDRS,			/* INITs and INIT ACKs whose address parameters were translated */
	STAT_ADDRS_NOT_ADDED,		/* those in which there was no room for all of the service's */
	STAT_ICMP,			/* ICMP errors translated */
	STAT_TOO_BIG,			/* replies left to the stack, to tell the backend of the route's MTU */
	STAT_ADDRESS_ONLY,		/* translated without a change in the SCTP packet */
	STAT_CSUM_KFUNC,		/* checksum updated by the kernel */
	STAT_CSUM_BPF,			/* checksum updated in BPF */
	STAT_DROP_FRAGMENT,		/* an IP fragment has no whole SCTP packet */
	STAT_DROP_TRUNCATED,		/* shorter than its headers say */
	STAT_DROP_EXT_HEADERS,		/* more IPv6 extension headers than are walked */
	STAT_DROP_CHUNKS,		/* its chunks are not as RFC 9260 has them */
	STAT_DROP_HOST_NAME,		/* an INIT or INIT ACK with a host name: it can't be translated */
	STAT_DROP_MANY_ADDRS,		/* more addresses than are kept */
	STAT_DROP_ASCONF,		/* an ASCONF whose addresses can't be translated, or not under its AUTH */
	STAT_DROP_NO_ASSOC,		/* to a service, but of no association and no INIT */
	STAT_DROP_NO_BACKEND,		/* the service has none */
	STAT_DROP_TAG,			/* a verification tag that is not the association's */
	STAT_DROP_FULL,			/* no room for a new association */
	STAT_DROP_NO_TIMER,		/* the kernel had no memory for the timer of a new association */
	STAT_DROP_NO_PORT,		/* no free source port for a new association */
	STAT_DROP_NO_MASQUERADE,	/* no address of this node in the packet's family */
	STAT_DROP_POLICY,		/* no policy allows it */
	STAT_DROP_ICMP_TAG,		/* an ICMP error whose quoted tag is not the association's */
	STAT_DROP_REWRITE_FAILED,	/* the header could not be written */
	STAT_DROP_CSUM_FAILED,		/* the checksum could not be updated */
	STAT_MAX,
};

#include "counters.h"

#endif /* __LB_STATS_H */
