// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Translate VIP:port to backend:port and back, by static rules. Attached with
 * tcx at the ingress of every device on the way.
 *
 * The way of a packet: parse, look up, rewrite, fix the checksum, verdict.
 */
#include "ctx_skb.h"
#include "parse.h"
#include "rewrite.h"
#include "rules.h"
#include "sctp_csum.h"
#include "stats.h"

/* How to fix the checksum; BPF and SKIP are for comparison and control. */
enum csum_mode {
	CSUM_AUTO,	/* kfunc where the kernel has it, else BPF */
	CSUM_BPF,
	CSUM_SKIP,	/* not at all: packets that change a port go bad */
};

const volatile enum csum_mode csum_mode = CSUM_AUTO;

static __always_inline int drop(enum stat reason)
{
	count(reason);
	return CTX_DROP;
}

static __always_inline int update_csum(ctx_t *ctx, struct packet *pkt, __be32 from, __be32 to)
{
	if (csum_mode == CSUM_SKIP) {
		count(STAT_CSUM_SKIPPED);
		return 0;
	}
	if (csum_mode == CSUM_AUTO && sctp_csum_have_kfunc()) {
		count(STAT_CSUM_KFUNC);
		return sctp_csum_update(ctx, pkt->l4_offset, pkt->l4_len, from, to);
	}
	count(STAT_CSUM_BPF);
	return sctp_csum_update_bpf(ctx, pkt->l4_offset, pkt->l4_len, from, to);
}

static __always_inline int rewrite(ctx_t *ctx, struct packet *pkt, const struct ip_addr *saddr,
				   const struct ip_addr *daddr, __be32 ports)
{
	__be32 from = ports_word(pkt->sctp.source, pkt->sctp.dest);

	if (rewrite_packet(ctx, pkt, saddr, daddr, ports))
		return drop(STAT_DROP_REWRITE_FAILED);
	if (from != ports && update_csum(ctx, pkt, from, ports))
		return drop(STAT_DROP_CSUM_FAILED);
	return CTX_PASS;
}

static __always_inline int translate_to_backend(ctx_t *ctx, struct packet *pkt,
						struct endpoint *backend)
{
	count(STAT_TO_BACKEND);
	return rewrite(ctx, pkt, &pkt->saddr, &backend->addr,
		       ports_word(pkt->sctp.source, backend->port));
}

static __always_inline int translate_to_client(ctx_t *ctx, struct packet *pkt,
					       struct endpoint *vip)
{
	count(STAT_TO_CLIENT);
	return rewrite(ctx, pkt, &vip->addr, &pkt->daddr, ports_word(vip->port, pkt->sctp.dest));
}

/* SCTP without its ports passes by, unless its addresses are ours to translate. */
static __always_inline int refuse_if_ours(struct packet *pkt, enum stat reason)
{
	if (bpf_map_lookup_elem(&translated_addrs, &pkt->daddr) ||
	    bpf_map_lookup_elem(&translated_addrs, &pkt->saddr))
		return drop(reason);
	return CTX_PASS;
}

static __always_inline int translate(ctx_t *ctx, struct packet *pkt)
{
	struct endpoint key = { .addr = pkt->daddr, .port = pkt->sctp.dest };
	struct endpoint *rule;

	rule = bpf_map_lookup_elem(&to_backend, &key);
	if (rule)
		return translate_to_backend(ctx, pkt, rule);

	key.addr = pkt->saddr;
	key.port = pkt->sctp.source;
	rule = bpf_map_lookup_elem(&to_client, &key);
	if (rule)
		return translate_to_client(ctx, pkt, rule);
	return CTX_PASS;
}

SEC("tcx/ingress")
int sctp_translate(struct __sk_buff *skb)
{
	struct packet pkt = {};

	switch (parse_packet(skb, &pkt)) {
	case PARSE_SCTP:
		return translate(skb, &pkt);
	case PARSE_FRAGMENT:
		return refuse_if_ours(&pkt, STAT_DROP_FRAGMENT);
	case PARSE_TRUNCATED:
		return refuse_if_ours(&pkt, STAT_DROP_TRUNCATED);
	case PARSE_EXT_HEADERS:
		return refuse_if_ours(&pkt, STAT_DROP_EXT_HEADERS);
	default:
		return CTX_PASS;
	}
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
