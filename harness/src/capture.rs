// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Captures what passes a device and judges the checksum of every SCTP packet.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::checksum::{Verdict, verdict};
use crate::error::Result;
use crate::netns::Namespace;
use crate::packet::{Found, find};
use crate::packet_ring::{BLOCK_TIMEOUT, Packet, PacketRing};
use crate::pcap;

/// Frames kept for a file, besides all bad ones.
const KEPT_FRAMES: usize = 4000;

/// How many SCTP packets were seen, by what their checksum said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub packets: u64,
    /// Verified by the reference.
    pub good: u64,
    /// Refuted by the reference.
    pub bad: u64,
    /// Left to the device, as the kernel says (`CHECKSUM_PARTIAL`), and zero in the packet.
    pub offloaded: u64,
    /// Zero though nobody will fill it in.
    pub absent: u64,
}

impl Counts {
    fn add(&mut self, sctp: &[u8], not_ready: bool) -> bool {
        self.packets += 1;
        let verdict = verdict(sctp);
        match verdict {
            Verdict::Absent if not_ready => self.offloaded += 1,
            Verdict::Absent => self.absent += 1,
            // A checksum that is not zero before it is filled in comes out wrong.
            _ if not_ready => self.bad += 1,
            Verdict::Good => self.good += 1,
            Verdict::Bad => self.bad += 1,
        }
        verdict == Verdict::Bad
    }
}

/// What a capture saw.
#[derive(Default)]
pub struct Report {
    /// Packets that the device sent.
    pub sent: Counts,
    /// Packets that the device received.
    pub received: Counts,
    /// Packets that the kernel dropped because the capture was too slow.
    pub lost: u32,
    frames: Vec<Vec<u8>>,
}

impl Report {
    /// The SCTP packets that were kept: the first few thousand, and all that were bad.
    pub fn packets(&self) -> impl Iterator<Item = Found<'_>> {
        self.frames.iter().filter_map(|frame| find(frame))
    }

    /// Writes the frames that were kept to a file for tshark.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_pcap(&self, path: &Path) -> Result<()> {
        pcap::write(path, self.frames.iter().map(Vec::as_slice))
    }

    fn add(&mut self, packet: Packet<'_>) {
        let Some(found) = find(packet.frame) else {
            return;
        };
        let counts = if packet.outgoing {
            &mut self.sent
        } else {
            &mut self.received
        };
        if counts.add(found.sctp, packet.csum_not_ready) || self.frames.len() < KEPT_FRAMES {
            self.frames.push(packet.frame.to_vec());
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            lost,
            frames,
        } = self;
        f.debug_struct("Report")
            .field("sent", sent)
            .field("received", received)
            .field("lost", lost)
            .field("nr_frames", &frames.len())
            .finish()
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Report>>,
}

/// Receives until told to stop, and then until nothing is left.
fn capture(mut ring: PacketRing, stop: &AtomicBool) -> Result<Report> {
    let mut report = Report::default();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let more = ring.next_block(2 * BLOCK_TIMEOUT, |packet| report.add(packet))?;
        if stopping && !more {
            break;
        }
    }
    report.lost = ring.lost()?;
    Ok(report)
}

impl Capture {
    /// Starts to capture on a device of the namespace.
    ///
    /// # Errors
    /// If there is no such device, or the user may not (CAP_NET_RAW).
    pub fn start(ns: &Namespace, device: &str) -> Result<Self> {
        let ring = ns.run(|| PacketRing::open(device))??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || capture(ring, &stopped));
        Ok(Self { stop, thread })
    }

    /// Stops, after a moment in which the last packets arrive, and reports.
    ///
    /// # Errors
    /// If the capture failed on the way.
    pub fn finish(self) -> Result<Report> {
        std::thread::sleep(4 * BLOCK_TIMEOUT);
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
