// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* bpf/crc32c_shift.h for user space. */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#include "crc32c_shift.h"

__u32 bench_crc32c_shift(__u32 crc, __u32 len);

__u32 bench_crc32c_shift(__u32 crc, __u32 len)
{
	return crc32c_shift(crc, len);
}
