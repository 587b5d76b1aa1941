// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What a change of one word costs the checksum, by bytes of the SCTP packet: the shift of
//! `bpf/crc32c_shift.h`, built for this machine, beside what the `crc32c` crate offers, with the
//! processor's CRC instruction where it has one: to compute all anew, and to combine.

use divan::{Bencher, black_box};

const SIZES: [usize; 6] = [64, 256, 576, 1500, 9000, 65532];

// SAFETY: it has these types, and takes every value of them.
unsafe extern "C" {
    /// `bpf/crc32c_shift.h`; `len` is below 64 KiB.
    safe fn bench_crc32c_shift(crc: u32, len: u32) -> u32;
}

fn main() {
    for len in SIZES {
        let crc = crc32c::crc32c(b"SCTP");
        let shifted = bench_crc32c_shift(crc, len as u32);
        assert_eq!(shifted, crc32c::crc32c_combine(crc, 0, len), "{len} bytes");
    }
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
