/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * CRC-32C arithmetic without reading the message. Polynomials over GF(2) are
 * bit-reflected: bit 31 of a word is the coefficient of x^0.
 */
#ifndef __CRC32C_SHIFT_H
#define __CRC32C_SHIFT_H

#include <linux/types.h>
#include "crc32c_tables.h"

#define EVERY_4TH_BIT 0x1111111111111111ULL

/*
 * Carry-less multiplication by plain multiplications of factors that keep only
 * every fourth bit: at most eight ones are added up in a bit position, so no
 * carry reaches the next position that is kept.
 */
static __always_inline __u64 clmul32(__u32 a, __u32 b)
{
	const __u64 m0 = EVERY_4TH_BIT, m1 = m0 << 1, m2 = m0 << 2, m3 = m0 << 3;
	const __u64 a0 = a & (__u32)m0, a1 = a & (__u32)m1, a2 = a & (__u32)m2, a3 = a & (__u32)m3;
	const __u64 b0 = b & (__u32)m0, b1 = b & (__u32)m1, b2 = b & (__u32)m2, b3 = b & (__u32)m3;

	return (((a0 * b0) ^ (a1 * b3) ^ (a2 * b2) ^ (a3 * b1)) & m0) |
	       (((a0 * b1) ^ (a1 * b0) ^ (a2 * b3) ^ (a3 * b2)) & m1) |
	       (((a0 * b2) ^ (a1 * b1) ^ (a2 * b0) ^ (a3 * b3)) & m2) |
	       (((a0 * b3) ^ (a1 * b2) ^ (a2 * b1) ^ (a3 * b0)) & m3);
}

/* The CRC register @crc after the four bytes that @word holds, the first of them lowest. */
static __always_inline __u32 crc32c_word(__u32 crc, __u32 word)
{
	crc ^= word;
	crc = crc >> 8 ^ crc32c_table[crc & 0xff];
	crc = crc >> 8 ^ crc32c_table[crc & 0xff];
	crc = crc >> 8 ^ crc32c_table[crc & 0xff];
	return crc >> 8 ^ crc32c_table[crc & 0xff];
}

/* Return a * b * x modulo the CRC-32C polynomial. */
static __always_inline __u32 crc32c_mulx(__u32 a, __u32 b)
{
	__u64 product = clmul32(a, b);

	/* The low half holds the powers from x^32 up: reduce it byte by byte. */
	return crc32c_word(0, product) ^ (__u32)(product >> 32);
}

/* Return what the CRC register @crc becomes after @len zero bytes, @len < 64 KiB. */
static __noinline __u32 crc32c_shift(__u32 crc, __u32 len)
{
	__u32 high = len >> 8;

	/* The compiler may know that the mask below changes nothing; the verifier of 6.12 does not. */
	asm volatile("" : "+r"(high));
	crc = crc32c_mulx(crc, crc32c_shift_lo[len & 0xff]);
	return crc32c_mulx(crc, crc32c_shift_hi[high & 0xff]);
}

#endif /* __CRC32C_SHIFT_H */
