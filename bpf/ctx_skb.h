/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet as a tc (tcx) program sees it. Include this or ctx_xdp.h first:
 * the headers that parse, rewrite and checksum packets are written against
 * the names that both define.
 */
#ifndef __CTX_SKB_H
#define __CTX_SKB_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

typedef struct __sk_buff ctx_t;

#include "direct.h"

/* TC_ACT_UNSPEC is TCX_NEXT for tcx: programs behind this one still run. */
#define CTX_PASS	TC_ACT_UNSPEC
#define CTX_DROP	TC_ACT_SHOT

/* Why a header within bounds can't be read: it lies in memory of the device. */
#define CTX_LOAD_ERROR	(-ENOMEM)

/* Since 7.x with the series in kernel-patches/. */
extern int bpf_sctp_csum_update(struct __sk_buff *skb, __u32 offset, __u32 len,
				__be32 from, __be32 to) __ksym __weak;
#define ctx_sctp_csum_update bpf_sctp_csum_update

/* Since 6.2. */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;

#define CHECKSUM_COMPLETE 2
#define CHECKSUM_PARTIAL 3

/* The few fields of the kernel's struct that are read, found by CO-RE. */
struct sk_buff___csum {
	__u8 ip_summed : 2;
	__u8 csum_not_inet : 1;
	__u16 csum_start;
	unsigned char *head;
	unsigned char *data;
} __attribute__((preserve_access_index));

static __always_inline __u32 ctx_len(ctx_t *ctx)
{
	return ctx->len;
}

/* Several packets in one. */
static __always_inline bool ctx_is_gso(ctx_t *ctx)
{
	return ctx->gso_size;
}

static __always_inline int ctx_load(ctx_t *ctx, __u32 offset, void *to, __u32 len)
{
	return bpf_skb_load_bytes(ctx, offset, to, len);
}

/*
 * The same, and much faster, for a header whose length is a constant. Not for
 * loops: the verifier follows @offset from turn to turn.
 */
static __always_inline int ctx_load_header(ctx_t *ctx, __u32 offset, void *to, __u32 len)
{
	return load_direct(ctx, offset, to, len) ? 0 : ctx_load(ctx, offset, to, len);
}

/* For words whose change an IP or SCTP checksum update makes good. */
static __always_inline int ctx_store(ctx_t *ctx, __u32 offset, const void *from, __u32 len)
{
	return bpf_skb_store_bytes(ctx, offset, from, len, BPF_F_INVALIDATE_HASH);
}

/* As fast as it gets: a write in place would unshare also packets that nobody changes. */
#define ctx_store_header ctx_store

/* For bytes that only skb->csum (CHECKSUM_COMPLETE) covers. */
static __always_inline int ctx_store_rcsum(ctx_t *ctx, __u32 offset, const void *from, __u32 len)
{
	return bpf_skb_store_bytes(ctx, offset, from, len,
				   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

/* Add room at the end of the packet, or take it away. skb->csum is kept right, or given up. */
static __always_inline int ctx_resize(ctx_t *ctx, __u32 len)
{
	return bpf_skb_change_tail(ctx, len, 0);
}

/* Make skb->csum right for a word that ctx_store() wrote. */
static __always_inline void ctx_rcsum_word(ctx_t *ctx, __u32 offset, __be32 from, __be32 to)
{
	__u32 diff = bpf_csum_diff(&from, sizeof(from), &to, sizeof(to), 0);

	/* In a sum of 16-bit words, a word at an odd offset counts swapped. */
	if (offset & 1)
		diff = diff >> 8 | diff << 24;
	bpf_csum_update(ctx, diff);
}

/* Is there a sum over the packet? If that can't be known, there may be. */
static __always_inline bool ctx_has_sum(ctx_t *ctx)
{
	struct sk_buff___csum *skb;

	if (!bpf_ksym_exists(bpf_cast_to_kern_ctx))
		return true;
	skb = bpf_cast_to_kern_ctx(ctx);
	return BPF_CORE_READ_BITFIELD(skb, ip_summed) == CHECKSUM_COMPLETE;
}

/* Is the SCTP checksum of the header at @offset filled in later, by the stack or the device? */
static __always_inline bool ctx_sctp_csum_offloaded(ctx_t *ctx, __u32 offset)
{
	struct sk_buff___csum *skb;
	long data_offset;

	/* Without CONFIG_IP_SCTP there is no such field, and no such packet. */
	if (!bpf_ksym_exists(bpf_cast_to_kern_ctx) ||
	    !bpf_core_field_exists(struct sk_buff___csum, csum_not_inet))
		return false;

	skb = bpf_cast_to_kern_ctx(ctx);
	/* The verifier lets pointers be subtracted, but the compiler would add them up. */
	data_offset = skb->data - skb->head;
	barrier_var(data_offset);
	return BPF_CORE_READ_BITFIELD(skb, ip_summed) == CHECKSUM_PARTIAL &&
	       BPF_CORE_READ_BITFIELD(skb, csum_not_inet) &&
	       skb->csum_start - data_offset == offset;
}

#endif /* __CTX_SKB_H */
