/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fix the checksum of an SCTP packet in which one word has changed, such as the
 * ports, without reading the rest of the packet. Include ctx_skb.h or ctx_xdp.h
 * first.
 *
 * int sctp_csum_update(ctx, offset, len, from, to)
 *
 * @offset: where the SCTP common header starts in the packet
 * @len: bytes from the start of the changed word to the end of the SCTP packet,
 *	 by the IP header: what pads a short frame does not count
 * @from, @to: the word before and now
 *
 * The program has written the word with ctx_store(); it lies at a multiple of
 * four bytes from the common header, outside of the checksum. A checksum that
 * was wrong stays as wrong as it was. It is left alone where it is filled in
 * later (CHECKSUM_PARTIAL), and where it is zero: there is none (RFC 9653).
 *
 * Returns 0; -EINVAL if @len is less than a word or more than an IP packet can
 * hold, or if it or the common header reaches beyond the packet; -ENOMEM if the
 * header can't be made writable.
 * Pointers to packet data must be checked again afterwards.
 *
 * On kernels that have it, this is a kfunc; on others the same in BPF.
 */
#ifndef __SCTP_CSUM_H
#define __SCTP_CSUM_H

#include <linux/errno.h>

#include "crc32c_shift.h"
#include "loop.h"

#define SCTP_COMMON_HEADER_LEN 12
#define SCTP_CSUM_OFFSET 8
/* The length of an IP packet is a 16-bit field. */
#define SCTP_MAX_LEN 0xffff

/* A CRC register holds the first byte of the wire lowest, and so does the field. */
static __always_inline __u32 wire_le32(__u32 word)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return word;
#else
	return __builtin_bswap32(word);
#endif
}

/* The checksum field of a packet that had @csum, before a word changed that @len bytes end with. */
static __always_inline __u32 sctp_csum_replace(__u32 csum, __u32 len, __be32 from, __be32 to)
{
	return csum ^ wire_le32(crc32c_shift(wire_le32(from ^ to), len));
}

static __noinline int sctp_csum_update_bpf(ctx_t *ctx, __u32 offset, __u32 len,
					   __be32 from, __be32 to)
{
	__u32 room = len > SCTP_COMMON_HEADER_LEN ? len : SCTP_COMMON_HEADER_LEN;
	__u32 old, new;

	if (len < sizeof(to) || len > SCTP_MAX_LEN || offset > ctx_len(ctx) ||
	    ctx_len(ctx) - offset < room)
		return -EINVAL;
	if (ctx_sctp_csum_offloaded(ctx, offset))
		return 0;
	if (ctx_load(ctx, offset + SCTP_CSUM_OFFSET, &old, sizeof(old)))
		return CTX_LOAD_ERROR;

	if (old) {
		new = sctp_csum_replace(old, len, from, to);
		if (ctx_store_rcsum(ctx, offset + SCTP_CSUM_OFFSET, &new, sizeof(new)))
			return -ENOMEM;
	}
	if (ctx_has_sum(ctx))
		ctx_rcsum_word(ctx, offset, from, to);
	return 0;
}

/*
 * Fix the checksum of a packet to whose end @nr words have been added, at most
 * @max. What was there before is not read: a checksum that was wrong stays wrong.
 */
static __always_inline int sctp_csum_append(ctx_t *ctx, __u32 offset, const __be32 *words, __u32 nr,
					    __u32 max)
{
	__u32 old, new, crc, i, word;

	if (ctx_sctp_csum_offloaded(ctx, offset))
		return 0;
	if (ctx_load(ctx, offset + SCTP_CSUM_OFFSET, &old, sizeof(old)))
		return CTX_LOAD_ERROR;
	if (!old)
		return 0;
	crc = ~wire_le32(old);
	bpf_for(i, 0, max) {
		word = i;
		/* The verifier of 6.12 knows of no bound but this. */
		barrier_var(word);
		if (word >= nr || word >= max)
			break;
		crc = crc32c_word(crc, wire_le32(words[word]));
	}
	new = wire_le32(~crc);
	return ctx_store_rcsum(ctx, offset + SCTP_CSUM_OFFSET, &new, sizeof(new)) ? -ENOMEM : 0;
}

static __always_inline bool sctp_csum_have_kfunc(void)
{
	return bpf_ksym_exists(ctx_sctp_csum_update);
}

static __always_inline int sctp_csum_update(ctx_t *ctx, __u32 offset, __u32 len,
					    __be32 from, __be32 to)
{
	if (sctp_csum_have_kfunc())
		return ctx_sctp_csum_update(ctx, offset, len, from, to);
	return sctp_csum_update_bpf(ctx, offset, len, from, to);
}

#endif /* __SCTP_CSUM_H */
