/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One checksum update, or many in a row, as user space asks for them. Shared by
 * the tc and XDP programs that packet tests and benchmarks run.
 */
#ifndef __CSUM_CASE_H
#define __CSUM_CASE_H

#include "sctp_csum.h"

#define MAX_CHANGES 64

struct change {
	__u32 word_offset;	/* where to write the word, or NO_WRITE */
	__u32 offset;		/* the arguments of the update */
	__u32 len;
	__be32 from;
	__be32 to;
};

#define NO_WRITE 0xffffffff

const volatile bool use_kfunc = false;

__u32 nr_changes;
struct change changes[MAX_CHANGES];
int results[MAX_CHANGES];

static __always_inline int apply_change(ctx_t *ctx, struct change *change)
{
	__be32 to = change->to;

	if (change->word_offset != NO_WRITE &&
	    ctx_store(ctx, change->word_offset, &to, sizeof(to)))
		return -EINVAL;
	if (use_kfunc && sctp_csum_have_kfunc())
		return ctx_sctp_csum_update(ctx, change->offset, change->len, change->from, to);
	return sctp_csum_update_bpf(ctx, change->offset, change->len, change->from, to);
}

static __always_inline int apply_changes(ctx_t *ctx)
{
	__u32 i;

	for (i = 0; i < MAX_CHANGES && i < nr_changes; i++)
		results[i] = apply_change(ctx, &changes[i]);
	return CTX_PASS;
}

#endif /* __CSUM_CASE_H */
