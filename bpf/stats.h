/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the static translator counts. */
#ifndef __STATS_H
#define __STATS_H

enum stat {
	STAT_TO_BACKEND,		/* translated, VIP to backend */
	STAT_TO_CLIENT,			/* translated, backend to VIP */
	STAT_CSUM_KFUNC,		/* checksum updated by the kernel */
	STAT_CSUM_BPF,			/* checksum updated in BPF */
	STAT_CSUM_SKIPPED,		/* ports changed, checksum step switched off */
	STAT_DROP_FRAGMENT,		/* an IP fragment has no whole SCTP packet */
	STAT_DROP_TRUNCATED,		/* shorter than its headers say */
	STAT_DROP_EXT_HEADERS,		/* more IPv6 extension headers than are walked */
	STAT_DROP_REWRITE_FAILED,	/* the header could not be written */
	STAT_DROP_CSUM_FAILED,		/* the checksum could not be updated */
	STAT_MAX,
};

#include "counters.h"

#endif /* __STATS_H */
