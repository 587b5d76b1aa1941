/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What bpf_for() takes that older headers lack. Since Linux 6.4. */
#ifndef __LOOP_H
#define __LOOP_H

#include <linux/version.h>
#include <bpf/bpf_helpers.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
struct bpf_iter_num {
	__u64 __opaque[1];
} __attribute__((aligned(8)));
#endif

#endif /* __LOOP_H */
