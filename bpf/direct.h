/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bytes of the packet in place, where they lie in its first piece of memory: a
 * helper would take many times as long for a header. For ctx_skb.h and ctx_xdp.h,
 * which say what ctx_t is.
 */
#ifndef __DIRECT_H
#define __DIRECT_H

/* The most that the verifier lets be added to a pointer into the packet. */
#define MAX_DIRECT_OFFSET 0x7fff

/* Packets lie at any address, which all processors with a fast BPF JIT bear. */
typedef __u32 __attribute__((may_alias)) direct_word;
typedef __u16 __attribute__((may_alias)) direct_half;

/* @len: a constant */
static __always_inline void copy_direct(void *to, const void *from, __u32 len)
{
	__u32 i;

	if (len % sizeof(direct_half)) {
		__builtin_memcpy(to, from, len);
		return;
	}
	for (i = 0; i + sizeof(direct_word) <= len; i += sizeof(direct_word))
		*(direct_word *)(to + i) = *(const direct_word *)(from + i);
	if (i < len)
		*(direct_half *)(to + i) = *(const direct_half *)(from + i);
}

/* Read @len bytes at @offset, a constant number. False if they are not in place. */
static __always_inline bool load_direct(ctx_t *ctx, __u32 offset, void *to, __u32 len)
{
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;

	if (offset > MAX_DIRECT_OFFSET || data + offset + len > end)
		return false;
	copy_direct(to, data + offset, len);
	return true;
}

/* The same for a write. */
static __always_inline bool store_direct(ctx_t *ctx, __u32 offset, const void *from, __u32 len)
{
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;

	if (offset > MAX_DIRECT_OFFSET || data + offset + len > end)
		return false;
	copy_direct(data + offset, from, len);
	return true;
}

#endif /* __DIRECT_H */
