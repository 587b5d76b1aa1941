/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What happened to packets, counted by name: those of an enum stat, which ends
 * with STAT_MAX, and comes first. User space reads the names by BTF.
 */
#ifndef __COUNTERS_H
#define __COUNTERS_H

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

#endif /* __COUNTERS_H */
