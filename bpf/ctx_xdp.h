/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The packet as an XDP program sees it; see ctx_skb.h. */
#ifndef __CTX_XDP_H
#define __CTX_XDP_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

typedef struct xdp_md ctx_t;

#include "direct.h"

#define CTX_PASS	XDP_PASS
#define CTX_DROP	XDP_DROP

/* Why a header within bounds can't be read: it is beyond the 64 KiB that XDP can address. */
#define CTX_LOAD_ERROR	(-EINVAL)

/* Since 7.x with the series in kernel-patches/. */
extern int bpf_xdp_sctp_csum_update(struct xdp_md *xdp, __u32 offset, __u32 len,
				    __be32 from, __be32 to) __ksym __weak;
#define ctx_sctp_csum_update bpf_xdp_sctp_csum_update

static __always_inline __u32 ctx_len(ctx_t *ctx)
{
	return bpf_xdp_get_buff_len(ctx);
}

static __always_inline bool ctx_is_gso(ctx_t *ctx)
{
	return false;
}

static __always_inline int ctx_load(ctx_t *ctx, __u32 offset, void *to, __u32 len)
{
	return bpf_xdp_load_bytes(ctx, offset, to, len);
}

/*
 * The same, and much faster, for a header whose length is a constant. Not for
 * loops: the verifier follows @offset from turn to turn.
 */
static __always_inline int ctx_load_header(ctx_t *ctx, __u32 offset, void *to, __u32 len)
{
	return load_direct(ctx, offset, to, len) ? 0 : ctx_load(ctx, offset, to, len);
}

static __always_inline int ctx_store(ctx_t *ctx, __u32 offset, const void *from, __u32 len)
{
	return bpf_xdp_store_bytes(ctx, offset, (void *)from, len);
}

static __always_inline int ctx_store_header(ctx_t *ctx, __u32 offset, const void *from, __u32 len)
{
	return store_direct(ctx, offset, from, len) ? 0 : ctx_store(ctx, offset, from, len);
}

/* Add room at the end of the packet, or take it away. */
static __always_inline int ctx_resize(ctx_t *ctx, __u32 len)
{
	return bpf_xdp_adjust_tail(ctx, (int)(len - ctx_len(ctx)));
}

/* XDP knows no sum over the packet. */
static __always_inline int ctx_store_rcsum(ctx_t *ctx, __u32 offset, const void *from, __u32 len)
{
	return ctx_store(ctx, offset, from, len);
}

static __always_inline bool ctx_has_sum(ctx_t *ctx)
{
	return false;
}

static __always_inline void ctx_rcsum_word(ctx_t *ctx, __u32 offset, __be32 from, __be32 to)
{
}

/* A checksum that veth has not filled in is zero, which is left alone anyway. */
static __always_inline bool ctx_sctp_csum_offloaded(ctx_t *ctx, __u32 offset)
{
	return false;
}

#endif /* __CTX_XDP_H */
