// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Attachment to a device: to tcx, which libbpf-rs 0.27 does not have, and to XDP.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::Link;
use nix::libc;
use nix::net::if_::{if_indextoname, if_nametoindex};

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

/// The device that a link is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// That of this number, in the namespace of the calling thread.
    Here(u32),
    /// In another namespace.
    Elsewhere,
    /// None: it is gone.
    Gone,
}

fn result(err: i32) -> io::Result<()> {
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    Ok(())
}

/// The links, and their programs, at a point of tcx of the device of this number, in their order.
/// None if there is no such device in the namespace of the calling thread.
pub(crate) fn links_at(index: u32, point: Point) -> io::Result<Vec<(u32, u32)>> {
    // BPF_MPROG_MAX of the kernel.
    let (mut links, mut progs) = ([0_u32; 64], [0_u32; 64]);
    let mut opts = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: progs.as_mut_ptr(),
        link_ids: links.as_mut_ptr(),
        ..Default::default()
    };
    opts.__bindgen_anon_1.count = links.len() as u32;
    // SAFETY: a plain system call; `opts` has its size, and both lists as much room as `count` says.
    let err = unsafe {
        libbpf_sys::bpf_prog_query_opts(index as i32, point.attach_type(), &raw mut opts)
    };
    match err {
        _ if err == -libc::ENODEV => return Ok(vec![]),
        err => result(err)?,
    }
    // SAFETY: the kernel has set it.
    let count = unsafe { opts.__bindgen_anon_1.count } as usize;
    Ok(links.into_iter().zip(progs).take(count).collect())
}

/// The program, by its number, that the device of this number has in XDP; 0: none.
pub(crate) fn xdp_program(index: u32) -> u32 {
    let mut prog = 0;
    // SAFETY: a plain call that fills in a number.
    let err = unsafe { libbpf_sys::bpf_xdp_query_id(index as i32, 0, &raw mut prog) };
    if err < 0 { 0 } else { prog }
}

/// The device that a pinned link at this point is attached to. Numbers of devices are those of
/// their namespaces, so that another may have it here: what is attached to that tells them apart.
pub(crate) fn device_of(link: &Path, point: Point) -> io::Result<Device> {
    let link = Link::open(link).map_err(|e| io::Error::other(e.to_string()))?;
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: a plain system call on a descriptor that lives; `info` is as long as `len` says.
    let err = unsafe {
        libbpf_sys::bpf_link_get_info_by_fd(link.as_fd().as_raw_fd(), &mut info, &mut len)
    };
    result(err)?;
    // SAFETY: the kernel has filled in the part that is for this type.
    let index = unsafe {
        match point {
            Point::Xdp => info.__bindgen_anon_1.xdp.ifindex,
            _ => info.__bindgen_anon_1.tcx.ifindex,
        }
    };
    let is_here = || -> io::Result<bool> {
        Ok(match point {
            Point::Xdp => xdp_program(index) == info.prog_id,
            _ => links_at(index, point)?.iter().any(|(id, _)| *id == info.id),
        })
    };
    Ok(match index {
        0 => Device::Gone,
        index if is_here()? => Device::Here(index),
        _ => Device::Elsewhere,
    })
}

/// The name of the device of this number, in the namespace of the calling thread.
pub fn device_name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?;
    // As nix takes the null of if_indextoname(3).
    Some(name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
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
