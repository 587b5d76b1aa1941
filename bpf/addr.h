/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses and ports, alike for both families, as packets and maps have them. */
#ifndef __ADDR_H
#define __ADDR_H

#include <stdbool.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>

/* IPv6, or IPv4 as ::ffff:a.b.c.d */
struct ip_addr {
	__be32 word[4];
};

struct endpoint {
	struct ip_addr addr;
	__be16 port;
	__u16 pad;		/* zero: map keys are compared byte by byte */
};

static __always_inline void map_ipv4(struct ip_addr *to, __be32 addr)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = bpf_htonl(0xffff);
	to->word[3] = addr;
}

static __always_inline bool is_mapped_ipv4(const struct ip_addr *addr)
{
	return !addr->word[0] && !addr->word[1] && addr->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool same_addr(const struct ip_addr *a, const struct ip_addr *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

#endif /* __ADDR_H */
