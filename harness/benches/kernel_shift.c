// SPDX-License-Identifier: GPL-2.0-only
/*
 * crc32c_shift() of the kernel series for user space, as build.rs takes it from the
 * patch, and the kernel's crc32c() of packets that are too short for its vectors:
 * one CRC instruction after the other.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define crc_u64(crc, word) _mm_crc32_u64(crc, word)
#define crc_u32(crc, word) _mm_crc32_u32(crc, word)
#define crc_u8(crc, byte) _mm_crc32_u8(crc, byte)
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define crc_u64(crc, word) __crc32cd(crc, word)
#define crc_u32(crc, word) __crc32cw(crc, word)
#define crc_u8(crc, byte) __crc32cb(crc, byte)
#else
#error "no CRC instructions"
#endif

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64, __le64;

#define CONFIG_CRC32C_SHIFT
#define CRC32C_POLY_LE 0x82f63b78
#define CRC32C_SHIFT_STEP 32
#define U16_MAX 0xffff
#define EXPORT_SYMBOL(name)
#define cpu_to_le64(word) (word)
#define noinline __attribute__((noinline))
#define unlikely(condition) __builtin_expect(condition, 0)

static u32 crc32c_shift_table[0x10000 / CRC32C_SHIFT_STEP];

static inline __attribute__((always_inline)) u32 crc32c_arch(u32 crc, const u8 *p, size_t len)
{
	u64 word;
	u32 half;

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		crc = crc_u64(crc, word);
	}
	if (len & sizeof(half)) {
		memcpy(&half, p, sizeof(half));
		crc = crc_u32(crc, half);
		p += sizeof(half);
	}
	for (len %= sizeof(half); len; len--)
		crc = crc_u8(crc, *p++);
	return crc;
}

#define crc32c_shift bench_kernel_shift
u32 crc32c_shift(u32 crc, size_t len);
#include "kernel_shift.inc"

void bench_kernel_init(void);
u32 bench_kernel_crc32c(u32 crc, const u8 *p, size_t len);

void bench_kernel_init(void)
{
	crc32cinit_shift();
}

u32 bench_kernel_crc32c(u32 crc, const u8 *p, size_t len)
{
	return crc32c_arch(crc, p, len);
}
