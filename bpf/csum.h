/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The Internet checksum (RFC 1071) of headers that change. Include ctx_skb.h or ctx_xdp.h first. */
#ifndef __CSUM_H
#define __CSUM_H

/* Add the change of some words, at even offsets, to a sum. @len is a multiple of four. */
static __always_inline __u32 csum_change(__u32 sum, const void *from, const void *to, __u32 len)
{
	return bpf_csum_diff((__be32 *)from, len, (__be32 *)to, len, sum);
}

static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/*
 * Make the checksum at @offset good for a change of what it covers. The packet
 * as a whole then adds up to what it did: skb->csum stays right.
 */
static __always_inline int csum_apply(ctx_t *ctx, __u32 offset, __u32 change)
{
	__u16 check;
	__u64 sum;

	if (ctx_load(ctx, offset, &check, sizeof(check)))
		return -1;
	sum = (__u64)change + (__u16)~check;
	sum = (sum & 0xffffffff) + (sum >> 32);
	check = csum_fold(sum);
	return ctx_store(ctx, offset, &check, sizeof(check));
}

#endif /* __CSUM_H */
