/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What happened to packets, counted by name. User space reads the names by BTF. */
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

/* A variable of this type, so that its names come to user space. */
const volatile enum stat nr_stats = STAT_MAX;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STAT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

static __always_inline void count(enum stat stat)
{
	__u32 key = stat;
	__u64 *counter = bpf_map_lookup_elem(&stats, &key);

	if (counter)
		(*counter)++;
}

#endif /* __STATS_H */
