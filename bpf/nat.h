/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Make a packet one of another tuple. Include ctx_skb.h or ctx_xdp.h first. */
#ifndef __NAT_H
#define __NAT_H

#include "events.h"
#include "rewrite.h"
#include "sctp_csum.h"

/* Do without the kfunc also where there is one: for comparison. */
const volatile bool csum_in_bpf = false;

static __always_inline bool csum_by_kfunc(void)
{
	return !csum_in_bpf && sctp_csum_have_kfunc();
}

/* The checksum of a packet in which the word at @offset has changed. */
static __always_inline int update_csum(ctx_t *ctx, struct packet *pkt, __u32 offset, __be32 from,
				       __be32 to)
{
	__u32 len = pkt->l4_offset + pkt->l4_len - offset;

	if (csum_by_kfunc())
		return ctx_sctp_csum_update(ctx, pkt->l4_offset, len, from, to);
	return sctp_csum_update_bpf(ctx, pkt->l4_offset, len, from, to);
}

/* Change a word of the SCTP packet. Returns 0, or the reason why it could not be done. */
static __noinline int change_word(ctx_t *ctx, struct packet *pkt, __u32 offset, __be32 from,
				  __be32 to)
{
	if (from == to)
		return 0;
	if (ctx_store(ctx, offset, &to, sizeof(to)))
		return STAT_DROP_REWRITE_FAILED;
	return update_csum(ctx, pkt, offset, from, to) ? STAT_DROP_CSUM_FAILED : 0;
}

static __noinline int translate_packet(ctx_t *ctx, struct packet *pkt, struct tuple *to)
{
	__be32 from_ports = ports_word(pkt->sctp.source, pkt->sctp.dest);
	__be32 to_ports = ports_word(to->sport, to->dport);

	if (rewrite_packet(ctx, pkt, &to->saddr, &to->daddr, to_ports))
		return drop(ctx, pkt, STAT_DROP_REWRITE_FAILED);
	if (from_ports == to_ports) {
		count(STAT_ADDRESS_ONLY);
		return CTX_PASS;
	}
	count(csum_by_kfunc() ? STAT_CSUM_KFUNC : STAT_CSUM_BPF);
	if (update_csum(ctx, pkt, pkt->l4_offset, from_ports, to_ports))
		return drop(ctx, pkt, STAT_DROP_CSUM_FAILED);
	return CTX_PASS;
}

#endif /* __NAT_H */
