/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Static translation rules. User space writes them, through types that are
 * generated from this header's BTF.
 */
#ifndef __RULES_H
#define __RULES_H

#include "addr.h"

#define MAX_RULES 1024

/* VIP:port to backend:port, by the packet's destination. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RULES);
	__type(key, struct endpoint);
	__type(value, struct endpoint);
} to_backend SEC(".maps");

/* Backend:port to VIP:port, by the packet's source. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RULES);
	__type(key, struct endpoint);
	__type(value, struct endpoint);
} to_client SEC(".maps");

/* The addresses in the keys above: SCTP from or to them can't pass in fragments. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * MAX_RULES);
	__type(key, struct ip_addr);
	__type(value, __u8);
} translated_addrs SEC(".maps");

#endif /* __RULES_H */
