/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One translation of ports, with each way to fix the checksum: what a benchmark
 * runs again and again on the same packet. Include ctx_skb.h or ctx_xdp.h first,
 * and say what ctx_bench_recompute() and ctx_bench_two_passes() are.
 */
#ifndef __CSUM_BENCH_H
#define __CSUM_BENCH_H

#include "loop.h"
#include "sctp_csum.h"

enum way {
	WAY_NONE,		/* not at all: what the rest costs */
	WAY_KFUNC,
	WAY_BPF,		/* incremental, as the kfunc, but in BPF */
	WAY_RECOMPUTE,		/* in BPF over the whole packet, byte by byte with a table */
	WAY_KERNEL,		/* in the kernel over the whole packet, as nf_nat does */
	WAY_TWO_PASSES,		/* the same before and after, as Open vSwitch does */
};

const volatile enum way way = WAY_NONE;
const volatile __u32 sctp_offset = 0;
const volatile __be32 port_words[2] = {};

/* No constant: the verifier would follow each turn of the loop below. */
__u32 sctp_len;
__u32 turn;
__u32 failed;

#define BLOCK_LEN 64

static __always_inline __u32 crc32c_byte(__u32 crc, __u8 byte)
{
	return crc >> 8 ^ crc32c_table[(crc ^ byte) & 0xff];
}

static __always_inline int crc32c_packet(ctx_t *ctx, __u32 offset, __u32 len, __u32 *crc)
{
	__u8 block[BLOCK_LEN];
	__u32 i, j;

	bpf_for(i, 0, len / BLOCK_LEN) {
		if (ctx_load(ctx, offset, block, BLOCK_LEN))
			return -EINVAL;
		for (j = 0; j < BLOCK_LEN; j++)
			*crc = crc32c_byte(*crc, block[j]);
		offset += BLOCK_LEN;
	}
	bpf_for(i, 0, len % BLOCK_LEN) {
		if (ctx_load(ctx, offset + i, block, 1))
			return -EINVAL;
		*crc = crc32c_byte(*crc, block[0]);
	}
	return 0;
}

static __noinline int recompute(ctx_t *ctx, __u32 offset, __u32 len)
{
	__u32 crc = ~0U, csum = 0;

	if (ctx_store(ctx, offset + SCTP_CSUM_OFFSET, &csum, sizeof(csum)) ||
	    crc32c_packet(ctx, offset, len, &crc))
		return -EINVAL;
	csum = wire_le32(~crc);
	return ctx_store(ctx, offset + SCTP_CSUM_OFFSET, &csum, sizeof(csum));
}

static __always_inline int update_by_way(ctx_t *ctx, __be32 from, __be32 to)
{
	switch (way) {
	case WAY_KFUNC:
		return sctp_csum_have_kfunc() ?
		       ctx_sctp_csum_update(ctx, sctp_offset, sctp_len, from, to) : -EINVAL;
	case WAY_BPF:
		return sctp_csum_update_bpf(ctx, sctp_offset, sctp_len, from, to);
	case WAY_RECOMPUTE:
		return recompute(ctx, sctp_offset, sctp_len);
	case WAY_KERNEL:
		return ctx_bench_recompute(ctx, sctp_offset);
	case WAY_TWO_PASSES:
		return ctx_bench_two_passes(ctx, sctp_offset, from, to);
	default:
		return 0;
	}
}

static __always_inline int change_ports(ctx_t *ctx)
{
	__be32 from = turn & 1 ? port_words[1] : port_words[0];
	__be32 to = turn & 1 ? port_words[0] : port_words[1];

	turn++;
	if (ctx_store(ctx, sctp_offset, &to, sizeof(to)) || update_by_way(ctx, from, to))
		failed++;
	return CTX_PASS;
}

#endif /* __CSUM_BENCH_H */
