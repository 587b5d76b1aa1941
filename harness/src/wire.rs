// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Frames sent from a device as a driver would receive them, without a copy of each, and counted
//! where they end (`bpf/wire.bpf.c`).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::OpenObject;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use nix::net::if_::if_nametoindex;

use crate::error::{BpfDoing, Doing, Error, Result};
use crate::netns::Namespace;
use crate::skel::wire;
use crate::tcx::{self, Point};

/// The most frames at a time: fewer than a poll of a device takes (`NAPI_POLL_WEIGHT`), so that
/// all have arrived when they have been sent.
pub const MAX_FRAMES: u32 = 32;

/// The longest frame: one page has it, its headroom and what the kernel puts behind it.
pub const MAX_FRAME_LEN: usize = 3000;

/// A wire's two ends.
pub struct Wire<'obj> {
    skel: wire::WireSkel<'obj>,
}

impl std::fmt::Debug for Wire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl<'obj> Wire<'obj> {
    /// Loads its programs into `storage`, which must outlive them.
    ///
    /// # Errors
    /// If the kernel refuses them.
    pub fn load(storage: &'obj mut MaybeUninit<OpenObject>) -> Result<Self> {
        let open = wire::WireSkelBuilder::default()
            .open(storage)
            .bpf(|| "open the wire".into())?;
        let skel = open.load().bpf(|| "load the wire".into())?;
        Ok(Self { skel })
    }

    /// Lets all IPv4 packets that arrive at the device end there, until the link is dropped.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn end_at(&self, ns: &Namespace, device: &str) -> Result<OwnedFd> {
        let sink = self.skel.progs.sink.as_fd();
        ns.run(|| tcx::attach(sink, device, Point::TcxIngress))?
    }

    /// How many have ended so far.
    pub fn arrived(&self) -> u64 {
        self.skel
            .maps
            .bss_data
            .as_deref()
            .map_or(0, |bss| bss.arrived)
    }

    /// Sends `count` copies of the frame from the device, whose peer must be a veth with NAPI
    /// (XDP, or GRO). Returns how long it took for one, with all that the peer and those behind
    /// it did meanwhile.
    ///
    /// # Errors
    /// If there are too many of them or they are too long, or if they did not all arrive.
    pub fn send(
        &mut self,
        ns: &Namespace,
        device: &str,
        frame: &[u8],
        count: u32,
    ) -> Result<Duration> {
        if count > MAX_FRAMES || frame.len() > MAX_FRAME_LEN {
            return Err(Error::Packet(format!(
                "{count} frames of {} bytes: more than {MAX_FRAMES} of {MAX_FRAME_LEN}",
                frame.len()
            )));
        }
        let before = self.arrived();
        let index = ns
            .run(|| if_nametoindex(device))?
            .doing(|| format!("no device {device}"))?;
        if let Some(bss) = self.skel.maps.bss_data.as_deref_mut() {
            bss.device = index;
        }
        let source = self.skel.progs.source.as_fd();
        let took = ns.run(|| run_live(source.as_raw_fd(), frame, count))?;
        let took = took.doing(|| format!("send {count} frames from {device}"))?;
        let arrived = self.arrived() - before;
        if arrived != u64::from(count) {
            return Err(Error::Packet(format!(
                "{count} frames were sent from {device}, {arrived} arrived"
            )));
        }
        Ok(took)
    }
}

/// Runs an XDP program on frames of this namespace's loopback, and does what it says.
fn run_live(program: i32, frame: &[u8], count: u32) -> io::Result<Duration> {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: count as i32,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        ..Default::default()
    };
    // SAFETY: the program's descriptor and the frame live; the kernel only reads the frame.
    let err = unsafe { libbpf_sys::bpf_prog_test_run_opts(program, &raw mut opts) };
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    Ok(Duration::from_nanos(opts.duration.into()))
}
