/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Walk the chunks of an SCTP packet (RFC 9260 section 3.2). Include ctx_skb.h or ctx_xdp.h first. */
#ifndef __CHUNKS_H
#define __CHUNKS_H

#include "loop.h"
#include "parse.h"

enum chunk_type {
	CHUNK_DATA,
	CHUNK_INIT,
	CHUNK_INIT_ACK,
	CHUNK_SACK,
	CHUNK_HEARTBEAT,
	CHUNK_HEARTBEAT_ACK,
	CHUNK_ABORT,
	CHUNK_SHUTDOWN,
	CHUNK_SHUTDOWN_ACK,
	CHUNK_ERROR,
	CHUNK_COOKIE_ECHO,
	CHUNK_COOKIE_ACK,
	CHUNK_ECNE,
	CHUNK_CWR,
	CHUNK_SHUTDOWN_COMPLETE,
	CHUNK_AUTH,
	CHUNK_OTHER = 31,	/* all that are not tracked */
	CHUNK_ASCONF = 193,
};

struct chunk_header {
	__u8 type;
	__u8 flags;
	__be16 length;		/* with this header, without the padding behind the chunk */
};

#define CHUNK_T_BIT 1
#define INIT_CHUNK_LEN 20

/* The most that a packet holds. */
#define MAX_CHUNKS (0xffff / sizeof(struct chunk_header))

struct chunks {
	__u32 seen;		/* a bit for each type */
	__u32 nr;
	__be32 init_tag;	/* of INIT or INIT ACK */
	__u32 asconf;		/* where the ASCONF is in the packet; 0: there is none */
	bool unproven;		/* what ends the association may be a guess: not of the walk */
	bool t_bit;		/* of ABORT or SHUTDOWN COMPLETE */
};

static __always_inline bool saw(const struct chunks *chunks, enum chunk_type type)
{
	return chunks->seen & 1U << type;
}

/* What is to be known of a chunk's contents. @offset and @len: of the chunk. */
static __always_inline int look_into_chunk(ctx_t *ctx, const struct chunk_header *header,
					   __u32 offset, __u32 len, struct chunks *chunks)
{
	switch (header->type) {
	case CHUNK_INIT:
	case CHUNK_INIT_ACK:
		if (len < INIT_CHUNK_LEN ||
		    ctx_load(ctx, offset + sizeof(*header), &chunks->init_tag,
			     sizeof(chunks->init_tag)) ||
		    !chunks->init_tag)
			return -1;
		break;
	case CHUNK_ABORT:
	case CHUNK_SHUTDOWN_COMPLETE:
		chunks->t_bit = header->flags & CHUNK_T_BIT;
		break;
	case CHUNK_ASCONF:
		/* No more than one, as the next must wait for its answer (RFC 5061 section 5.1). */
		if (chunks->asconf)
			return -1;
		chunks->asconf = offset;
		break;
	}
	return 0;
}

#define ALONE (1U << CHUNK_INIT | 1U << CHUNK_INIT_ACK | 1U << CHUNK_SHUTDOWN_COMPLETE)

/* Bundling rules of section 6.10, and the tag of INIT (section 8.5.1). */
static __always_inline bool is_well_bundled(const struct packet *pkt, const struct chunks *chunks)
{
	if (!chunks->nr || (chunks->seen & ALONE && chunks->nr > 1))
		return false;
	/* Only who knows of no association sends this, and nothing beside it (section 8.4). */
	if (chunks->t_bit && chunks->nr > 1)
		return false;
	return saw(chunks, CHUNK_INIT) == !pkt->sctp.vtag;
}

/* Returns 0, or -1 if the chunks are not as they should be. */
static __noinline int walk_chunks(ctx_t *ctx, struct packet *pkt, struct chunks *chunks)
{
	__u32 offset = sizeof(pkt->sctp), len;
	struct chunk_header header;
	int i;

	bpf_for(i, 0, MAX_CHUNKS) {
		/* The padding of the last chunk may be missing. */
		if (offset >= pkt->l4_len)
			break;
		if (ctx_load(ctx, pkt->l4_offset + offset, &header, sizeof(header)))
			return -1;
		len = bpf_ntohs(header.length);
		if (len < sizeof(header) || len > pkt->l4_len - offset ||
		    look_into_chunk(ctx, &header, pkt->l4_offset + offset, len, chunks))
			return -1;
		chunks->seen |= 1U << (header.type <= CHUNK_AUTH ? header.type : CHUNK_OTHER);
		chunks->nr++;
		offset += (len + 3) & ~3U;
	}
	return is_well_bundled(pkt, chunks) ? 0 : -1;
}

#endif /* __CHUNKS_H */
