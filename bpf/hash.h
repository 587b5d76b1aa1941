/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A hash that every node computes alike: MurmurHash3 of 32-bit words, by Austin Appleby (public domain). */
#ifndef __HASH_H
#define __HASH_H

#include "addr.h"

static __always_inline __u32 rotate_left(__u32 word, int bits)
{
	return word << bits | word >> (32 - bits);
}

static __always_inline __u32 hash_word(__u32 hash, __u32 word)
{
	hash ^= rotate_left(word * 0xcc9e2d51, 15) * 0x1b873593;
	return rotate_left(hash, 13) * 5 + 0xe6546b64;
}

/* Hash an address and a port. */
static __always_inline __u32 hash_client(__u32 seed, const struct ip_addr *addr, __be16 port)
{
	__u32 hash = seed;

	hash = hash_word(hash, bpf_ntohl(addr->word[0]));
	hash = hash_word(hash, bpf_ntohl(addr->word[1]));
	hash = hash_word(hash, bpf_ntohl(addr->word[2]));
	hash = hash_word(hash, bpf_ntohl(addr->word[3]));
	hash = hash_word(hash, bpf_ntohs(port));
	hash ^= 20;
	hash = (hash ^ hash >> 16) * 0x85ebca6b;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35;
	return hash ^ hash >> 16;
}

#endif /* __HASH_H */
