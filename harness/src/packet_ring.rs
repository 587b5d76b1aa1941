// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! A packet socket with a receive ring (`TPACKET_V3`, Documentation/networking/packet_mmap.rst).
//!
//! The ring matters: the kernel copies a packet into it before the packet goes on. A packet that
//! is read from the socket instead is shared with whoever handles it meanwhile, and
//! `sctp_compute_cksum()` zeroes the checksum field while it verifies.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::{Doing, Result};

const BLOCK_SIZE: usize = 1 << 20;
const NR_BLOCKS: usize = 64;
const RING_SIZE: usize = BLOCK_SIZE * NR_BLOCKS;
/// A block that has a packet is handed over after this time, full or not.
pub const BLOCK_TIMEOUT: Duration = Duration::from_millis(20);

/// A packet in the ring.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The frame, from the Ethernet header on.
    pub frame: &'a [u8],
    /// Whether the device sends it, rather than receives it.
    pub outgoing: bool,
    /// Whether its checksum is yet to be filled in (`CHECKSUM_PARTIAL`).
    pub csum_not_ready: bool,
}

/// The socket and its ring.
#[derive(Debug)]
pub struct PacketRing {
    fd: OwnedFd,
    ring: NonNull<c_void>,
    next_block: usize,
}

// SAFETY: the ring is a mapping that belongs to this value alone; any thread may read it.
unsafe impl Send for PacketRing {}

fn set_option<T>(fd: &OwnedFd, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is alive and its size is given; the kernel checks the size.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn socket() -> io::Result<OwnedFd> {
    // Protocol 0 receives nothing until bind() says what.
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    addr.sll_ifindex = index as i32;
    // SAFETY: the address is a sockaddr_ll, and its size is given.
    let rc = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const addr).cast(),
            size_of_val(&addr) as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl PacketRing {
    /// Captures on `device` of the calling thread's namespace from now on.
    ///
    /// # Errors
    /// If there is no such device, or the user may not (CAP_NET_RAW).
    pub fn open(device: &str) -> Result<Self> {
        let index = if_nametoindex(device).doing(|| format!("no device {device}"))?;
        let fd = socket().doing(|| "open a packet socket".into())?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set_option(&fd, libc::PACKET_VERSION, &version).doing(|| "choose TPACKET_V3".into())?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_SIZE as u32,
            tp_block_nr: NR_BLOCKS as u32,
            tp_frame_size: BLOCK_SIZE as u32,
            tp_frame_nr: NR_BLOCKS as u32,
            tp_retire_blk_tov: BLOCK_TIMEOUT.as_millis() as u32,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_option(&fd, libc::PACKET_RX_RING, &request)
            .doing(|| format!("make a capture ring of {} MiB", RING_SIZE >> 20))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let len = NonZeroUsize::MIN.saturating_add(RING_SIZE - 1);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let ring = unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, &fd, 0) }
            .doing(|| "map the capture ring".into())?;
        let this = Self {
            fd,
            ring,
            next_block: 0,
        };
        bind(&this.fd, index).doing(|| format!("capture on {device}"))?;
        Ok(this)
    }

    /// Hands the packets of the next block to `each`. Returns false if there was none within
    /// `timeout`.
    ///
    /// # Errors
    /// If the wait fails.
    pub fn next_block(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(Packet<'_>),
    ) -> Result<bool> {
        // SAFETY: next_block < NR_BLOCKS, so the block lies within the mapping.
        let block = unsafe { self.ring.byte_add(self.next_block * BLOCK_SIZE) };
        let desc = block.cast::<libc::tpacket_block_desc>().as_ptr();
        // SAFETY: every block starts with a descriptor; its status is aligned, and is shared
        // with the kernel as an atomic word.
        let status = unsafe { AtomicU32::from_ptr(&raw mut (*desc).hdr.bh1.block_status) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, timeout).doing(|| "wait for packets".into())?;
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return Ok(false);
            }
        }
        // SAFETY: TP_STATUS_USER says that the block is ours, and that the kernel has filled in
        // its header and as many packets as that says, each within the block.
        unsafe {
            let header = (*desc).hdr.bh1;
            let mut packet = block.byte_add(header.offset_to_first_pkt as usize);
            for _ in 0..header.num_pkts {
                each(packet_at(packet));
                let next = (*packet.cast::<libc::tpacket3_hdr>().as_ptr()).tp_next_offset;
                packet = packet.byte_add(next as usize);
            }
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next_block = (self.next_block + 1) % NR_BLOCKS;
        Ok(true)
    }

    /// Packets that found no room in the ring since this was asked last.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn lost(&self) -> Result<u32> {
        // SAFETY: all-zero is a valid tpacket_stats_v3.
        let mut stats: libc::tpacket_stats_v3 = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the option's value is a tpacket_stats_v3, and its size is given.
        let rc = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if rc == 0 {
            Ok(stats.tp_drops)
        } else {
            Err(io::Error::last_os_error())
        }
        .doing(|| "ask for lost packets".into())
    }
}

/// The packet whose header is at `at`.
///
/// # Safety
/// `at` is a packet header in a block that user space owns for as long as the result lives.
unsafe fn packet_at<'a>(at: NonNull<c_void>) -> Packet<'a> {
    // SAFETY: by the caller's promise the kernel has written the header, the address behind it,
    // and tp_snaplen bytes at tp_mac.
    unsafe {
        let header = at.cast::<libc::tpacket3_hdr>().as_ref();
        let offset = libc::TPACKET_ALIGN(size_of::<libc::tpacket3_hdr>());
        let addr = at.byte_add(offset).cast::<libc::sockaddr_ll>().as_ref();
        let start = at.byte_add(header.tp_mac.into()).cast::<u8>().as_ptr();
        Packet {
            frame: std::slice::from_raw_parts(start, header.tp_snaplen as usize),
            outgoing: addr.sll_pkttype == libc::PACKET_OUTGOING,
            csum_not_ready: header.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0,
        }
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nobody has a reference into it.
        if let Err(errno) = unsafe { munmap(self.ring, RING_SIZE) } {
            debug_assert!(false, "munmap: {errno}");
        }
    }
}
