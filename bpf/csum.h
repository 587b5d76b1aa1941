/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The Internet checksum (RFC 1071) of headers that change. Include ctx_skb.h or ctx_xdp.h first. */
#ifndef __CSUM_H
#define __CSUM_H

/* Add the change of some words, at even offsets, to a sum. @len is a constant, a multiple of four. */
static __always_inline __u32 csum_change(__u32 sum, const void *from, const void *to, __u32 len)
{
	const __be32 *from_word = from, *to_word = to;
	__u64 wide = sum;
	__u32 i;

	for (i = 0; i < len / sizeof(__be32); i++)
		wide += (__u64)(__u32)~from_word[i] + to_word[i];
	wide = (wide & 0xffffffff) + (wide >> 32);
	return wide + (wide >> 32);
}

static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The checksum @check of a header that changes. */
static __always_inline __u16 csum_replace(__u16 check, __u32 change)
{
	__u64 sum = (__u64)change + (__u16)~check;

	return csum_fold((sum & 0xffffffff) + (sum >> 32));
}

/*
 * Make the checksum at @offset good for a change of what it covers. The packet
 * as a whole then adds up to what it did: skb->csum stays right.
 */
static __always_inline int csum_apply(ctx_t *ctx, __u32 offset, __u32 change)
{
	__u16 check;

	if (ctx_load(ctx, offset, &check, sizeof(check)))
		return -1;
	check = csum_replace(check, change);
	return ctx_store(ctx, offset, &check, sizeof(check));
}

#endif /* __CSUM_H */
