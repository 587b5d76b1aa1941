// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The ways to fix a checksum in tc, for the benchmark. */
#include "ctx_skb.h"

/* Of the kernel for scripts/bench: kernel-patches/v7.3-bench. */
extern int bpf_bench_sctp_recompute(struct __sk_buff *skb, __u32 offset) __ksym __weak;
extern int bpf_bench_sctp_two_passes(struct __sk_buff *skb, __u32 offset, __be32 from,
				     __be32 to) __ksym __weak;
#define ctx_bench_recompute bpf_bench_sctp_recompute
#define ctx_bench_two_passes bpf_bench_sctp_two_passes

#include "csum_bench.h"

SEC("tc")
int bench(struct __sk_buff *skb)
{
	return change_ports(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
