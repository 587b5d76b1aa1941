// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What a translation of ports costs with each way to fix the checksum, through
//! `BPF_PROG_TEST_RUN` (`bpf/csum_bench.h`).

use std::mem::MaybeUninit;
use std::time::Duration;

use libbpf_rs::ProgramInput;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::checksum;
use crate::chunk;
use crate::csum_prog::Hook;
use crate::error::{BpfDoing, Error, Result};
use crate::feature::Feature;
use crate::packet::{Frame, Spec};
use crate::skel::{bench_tc, bench_xdp};

/// A way to fix the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Not at all.
    None,
    /// By the kernel, incrementally.
    Kfunc,
    /// In BPF, incrementally.
    Bpf,
    /// In BPF, over the whole packet, byte by byte with a table.
    Recompute,
    /// In the kernel, over the whole packet, as nf_nat does.
    Kernel,
    /// The same before and after the change, as Open vSwitch does.
    TwoPasses,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 6] = [
        Way::None,
        Way::Kfunc,
        Way::Bpf,
        Way::Kernel,
        Way::TwoPasses,
        Way::Recompute,
    ];

    /// What a table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Way::None => "no update",
            Way::Kfunc => "kfunc",
            Way::Bpf => "pure BPF",
            Way::Recompute => "recompute in BPF",
            Way::Kernel => "recompute in the kernel",
            Way::TwoPasses => "two passes in the kernel",
        }
    }

    /// What the kernel must have for it.
    fn feature(self) -> Option<Feature> {
        match self {
            Way::None | Way::Bpf | Way::Recompute => None,
            Way::Kfunc => Some(Feature::Kfunc),
            Way::Kernel | Way::TwoPasses => Some(Feature::BenchKfuncs),
        }
    }
}

/// Lengths of SCTP packets, in bytes: up to the most that IPv6 carries.
pub const LENGTHS: [usize; 6] = [64, 256, 576, 1500, 9000, 65_532];

/// Whether the way works on a frame of this length: XDP can read no more than 64 KiB, and the
/// kernel does to skbs only what it does for others.
pub fn works(hook: Hook, way: Way, frame: &Frame) -> bool {
    let in_xdp = match way {
        Way::Recompute => frame.bytes.len() <= 0xffff,
        Way::Kernel | Way::TwoPasses => false,
        Way::None | Way::Kfunc | Way::Bpf => true,
    };
    (hook == Hook::Tc || in_xdp) && way.feature().is_none_or(Feature::available)
}

/// The packet of this length, with a right checksum.
///
/// # Errors
/// If it is shorter than its headers, or longer than IPv6 carries.
pub fn packet(len: usize) -> Result<Frame> {
    let payload = len
        .checked_sub(checksum::COMMON_HEADER_LEN + 16)
        .ok_or_else(|| Error::Packet(format!("{len} bytes are too few for SCTP")))?;
    let (source, dest) = (
        "[2001:db8:1::1]:5000".parse(),
        "[2001:db8:2::1]:3868".parse(),
    );
    let (Ok(source), Ok(dest)) = (source, dest) else {
        return Err(Error::Packet("no address".into()));
    };
    let payload: Vec<u8> = (0..payload).map(|i| (i * 7 + i / 251) as u8).collect();
    Spec::new(source, dest, chunk::data(&payload)).build()
}

macro_rules! measure {
    ($builder:expr, $types:ident, $way:expr, $frame:expr, $repeat:expr) => {{
        let mut storage = MaybeUninit::uninit();
        let mut open = $builder
            .open(&mut storage)
            .bpf(|| "open the benchmark".into())?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.way = $types::types::way($way as u32);
            rodata.sctp_offset = $frame.sctp.start as u32;
            rodata.port_words = [$frame.word(0).to_be(), ($frame.word(0) ^ 0x2a).to_be()];
        }
        let mut skel = open.load().bpf(|| "load the benchmark".into())?;
        if let Some(bss) = skel.maps.bss_data.as_deref_mut() {
            bss.sctp_len = $frame.sctp.len() as u32;
        }
        let mut out = vec![0; $frame.bytes.len()];
        let input = ProgramInput {
            data_in: Some(&$frame.bytes),
            data_out: Some(&mut out),
            repeat: $repeat,
            ..Default::default()
        };
        let duration = skel
            .progs
            .bench
            .test_run(input)
            .bpf(|| format!("BPF_PROG_TEST_RUN on {} bytes", $frame.bytes.len()))?
            .duration;
        let failed = skel.maps.bss_data.as_deref().map_or(1, |bss| bss.failed);
        (duration, out, failed)
    }};
}

/// The time of a run, averaged over `repeat` runs on the packet, by the clock of this kernel.
///
/// # Errors
/// If the kernel lacks a kfunc, refuses the frame, or the checksum is wrong afterwards.
pub fn measure(hook: Hook, way: Way, frame: &Frame, repeat: u32) -> Result<Duration> {
    if let Some(feature) = way.feature() {
        feature.require()?;
    }
    let (duration, out, failed) = match hook {
        Hook::Tc => measure!(
            bench_tc::BenchTcSkelBuilder::default(),
            bench_tc,
            way,
            frame,
            repeat
        ),
        Hook::Xdp => measure!(
            bench_xdp::BenchXdpSkelBuilder::default(),
            bench_xdp,
            way,
            frame,
            repeat
        ),
    };
    let right = checksum::error(&out[frame.sctp.clone()]) == 0;
    let even = repeat % 2 == 0;
    if failed > 0 || (!right && (way != Way::None || even)) {
        return Err(Error::Packet(format!(
            "{} on {} bytes: {failed} updates failed, the checksum is {}",
            way.title(),
            frame.bytes.len(),
            if right { "right" } else { "wrong" }
        )));
    }
    Ok(duration)
}
