// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What a change of one word costs the checksum, by bytes of the SCTP packet: the shift of
//! `bpf/crc32c_shift.h`, built for this machine, beside what the `crc32c` crate offers, with the
//! processor's CRC instruction where it has one: to compute all anew, and to combine. And the shift
//! of the kernel series beside the kernel's own CRC over packets of less than 512 bytes, each call
//! with the result of the one before.

use divan::{Bencher, black_box};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("build.rs knows the CRC instructions of x86_64 and aarch64 only");

const SIZES: [usize; 6] = [64, 256, 576, 1500, 9000, 65532];

// SAFETY: it has these types, and takes every value of them.
unsafe extern "C" {
    /// `bpf/crc32c_shift.h`; `len` is below 64 KiB.
    safe fn bench_crc32c_shift(crc: u32, len: u32) -> u32;
    /// Makes the table of the next.
    safe fn bench_kernel_init();
    /// `crc32c_shift()` of `kernel-patches/v7.3`.
    safe fn bench_kernel_shift(crc: u32, len: usize) -> u32;
    /// `crc32c()` of `lib/crc/x86/crc32.h`, below its `CRC32C_PCLMUL_BREAKEVEN`.
    fn bench_kernel_crc32c(crc: u32, bytes: *const u8, len: usize) -> u32;
}

const SHORT: [usize; 7] = [12, 32, 64, 100, 128, 256, 500];

fn kernel_crc32c(crc: u32, bytes: &[u8]) -> u32 {
    // SAFETY: it reads that many bytes from there, and they live.
    unsafe { bench_kernel_crc32c(crc, bytes.as_ptr(), bytes.len()) }
}

fn main() {
    bench_kernel_init();
    for len in SIZES {
        let crc = crc32c::crc32c(b"SCTP");
        let shifted = bench_crc32c_shift(crc, len as u32);
        assert_eq!(shifted, crc32c::crc32c_combine(crc, 0, len), "{len} bytes");
        assert_eq!(shifted, bench_kernel_shift(crc, len), "{len} bytes");
    }
    assert_eq!(!kernel_crc32c(!0, b"SCTP"), crc32c::crc32c(b"SCTP"));
    divan::main();
}

#[divan::bench(args = SIZES)]
fn shift(len: usize) -> u32 {
    bench_crc32c_shift(black_box(0x1234_5678), black_box(len as u32))
}

#[divan::bench(args = SIZES)]
fn combine(len: usize) -> u32 {
    crc32c::crc32c_combine(black_box(0x1234_5678), 0, black_box(len))
}

#[divan::bench(args = SIZES)]
fn recompute(bencher: Bencher<'_, '_>, len: usize) {
    let packet = vec![0x5a; len];
    bencher.bench(|| crc32c::crc32c(black_box(&packet)));
}

#[divan::bench(args = SHORT)]
fn kernel_shift(bencher: Bencher<'_, '_>, len: usize) {
    let mut crc = 1;
    bencher.bench_local(|| {
        crc = bench_kernel_shift(crc, black_box(len));
    });
}

#[divan::bench(args = SHORT)]
fn kernel_recompute(bencher: Bencher<'_, '_>, len: usize) {
    let packet = vec![0x5a; len];
    let mut crc = 1;
    bencher.bench_local(|| {
        crc = kernel_crc32c(crc, black_box(&packet));
    });
}
