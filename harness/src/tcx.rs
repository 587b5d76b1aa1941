// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! tcx attachment, which libbpf-rs 0.27 does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;

use crate::error::{Doing, Result};

/// Attaches the program `prog` to the ingress of `device`, in the namespace of the calling
/// thread. It is detached when the returned link is dropped.
///
/// # Errors
/// If there is no such device, or the kernel has no tcx (before 6.6).
pub fn attach_ingress(prog: BorrowedFd<'_>, device: &str) -> Result<OwnedFd> {
    let index = if_nametoindex(device).doing(|| format!("no device {device}"))?;
    // SAFETY: a plain system call on a descriptor that lives; null options are allowed.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(
            prog.as_raw_fd(),
            index as i32,
            libbpf_sys::BPF_TCX_INGRESS,
            std::ptr::null(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd))
            .doing(|| format!("attach to the tcx ingress of {device} (since Linux 6.6)"));
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
