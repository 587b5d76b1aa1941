// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Attachment to a device: to tcx, which libbpf-rs 0.27 does not have, and to XDP.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::Link;
use nix::net::if_::if_nametoindex;

use crate::error::{Doing, Result};

/// Where packets meet the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// tc, on the way in.
    TcxIngress,
    /// tc, on the way out.
    TcxEgress,
    /// XDP.
    Xdp,
}

impl Point {
    fn attach_type(self) -> libbpf_sys::bpf_attach_type {
        match self {
            Point::TcxIngress => libbpf_sys::BPF_TCX_INGRESS,
            Point::TcxEgress => libbpf_sys::BPF_TCX_EGRESS,
            Point::Xdp => libbpf_sys::BPF_XDP,
        }
    }
}

/// The device, by its number, that a pinned link is attached to; `None` if it is gone.
pub(crate) fn device_of(link: &Path) -> io::Result<Option<u32>> {
    let link = Link::open(link).map_err(|e| io::Error::other(e.to_string()))?;
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: a plain system call on a descriptor that lives; `info` is as long as `len` says.
    let err = unsafe {
        libbpf_sys::bpf_link_get_info_by_fd(link.as_fd().as_raw_fd(), &mut info, &mut len)
    };
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    // SAFETY: the kernel has filled in the part that is for this type.
    let index = unsafe {
        match info.type_ {
            libbpf_sys::BPF_LINK_TYPE_XDP => info.__bindgen_anon_1.xdp.ifindex,
            _ => info.__bindgen_anon_1.tcx.ifindex,
        }
    };
    Ok(Some(index).filter(|index| *index != 0))
}

/// Attaches the program `prog` to `device`, in the namespace of the calling thread. It is detached
/// when the returned link is dropped, unless that is pinned.
///
/// # Errors
/// If there is no such device, or the kernel has no tcx (before 6.6), or another program has XDP.
pub fn attach(prog: BorrowedFd<'_>, device: &str, point: Point) -> Result<OwnedFd> {
    let index = if_nametoindex(device).doing(|| format!("no device {device}"))?;
    // SAFETY: a plain system call on a descriptor that lives; null options are allowed.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(
            prog.as_raw_fd(),
            index as i32,
            point.attach_type(),
            std::ptr::null(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd)).doing(|| match point {
            Point::Xdp => {
                format!("attach to the XDP of {device} (see what has it: ip link show {device})")
            }
            _ => format!("attach to the tcx of {device} (since Linux 6.6)"),
        });
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
