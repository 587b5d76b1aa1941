// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! One-to-one style sockets of the kernel's SCTP (RFC 6458 section 4), and its counters.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::{Doing, Error, Result};
use crate::netns::Namespace;

const IPPROTO_SCTP: i32 = 132;
/// `SCTP_PRIMARY_ADDR` and `SCTP_SOCKOPT_BINDX_ADD` of `linux/sctp.h`.
const SCTP_PRIMARY_ADDR: i32 = 6;
const SCTP_SOCKOPT_BINDX_ADD: i32 = 100;
const SCTP_SOCKOPT_BINDX_REM: i32 = 101;
/// Room in a socket, in bytes. With the default, packets are dropped and waited for when a receiver
/// is slow to be scheduled.
const BUFFER: usize = 4 << 20;

fn socket(addr: SocketAddr, timeout: Duration) -> Result<Socket> {
    let domain = Domain::for_address(addr);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::from(IPPROTO_SCTP)))
        .doing(|| "make an SCTP socket".into())?;
    socket
        .set_read_timeout(Some(timeout))
        .doing(|| "set a timeout".into())?;
    socket
        .set_write_timeout(Some(timeout))
        .doing(|| "set a timeout".into())?;
    setsockopt(&socket, RcvBufForce, &BUFFER).doing(|| "enlarge a receive buffer".into())?;
    setsockopt(&socket, SndBufForce, &BUFFER).doing(|| "enlarge a send buffer".into())?;
    Ok(socket)
}

fn set_option(socket: &Socket, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the value's bytes are read, as many as it has, and nothing is kept.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            IPPROTO_SCTP,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn address_bytes(addr: &SockAddr) -> &[u8] {
    // SAFETY: these bytes are the address's own, and live as long as it does.
    unsafe { std::slice::from_raw_parts(addr.as_ptr().cast(), addr.len() as usize) }
}

/// Bytes of socket addresses, one behind the other, as `sctp_bindx()` takes them.
fn packed(addrs: &[IpAddr], port: u16) -> Vec<u8> {
    let addrs = addrs
        .iter()
        .map(|addr| SockAddr::from(SocketAddr::new(*addr, port)));
    addrs
        .flat_map(|addr| address_bytes(&addr).to_vec())
        .collect()
}

/// A socket that is bound to all of `addrs` (`sctp_bindx()`), at `port` or, if that is 0, any.
fn bound(addrs: &[IpAddr], port: u16, timeout: Duration) -> Result<Socket> {
    let Some(first) = addrs.iter().find(|addr| addr.is_ipv6()).or(addrs.first()) else {
        return Err(Error::Association("no address to bind to".into()));
    };
    let socket = socket(SocketAddr::new(*first, port), timeout)?;
    let doing = || format!("bind to {addrs:?}");
    socket
        .bind(&SocketAddr::new(*first, port).into())
        .doing(doing)?;
    let port = socket
        .local_addr()
        .doing(doing)?
        .as_socket()
        .map_or(port, |addr| addr.port());
    let others: Vec<_> = addrs.iter().copied().filter(|addr| addr != first).collect();
    if !others.is_empty() {
        set_option(&socket, SCTP_SOCKOPT_BINDX_ADD, &packed(&others, port)).doing(doing)?;
    }
    Ok(socket)
}

/// Associations that nobody has accepted yet.
const BACKLOG: i32 = 32;

/// Listens as [`listen`] does, on several addresses.
///
/// # Errors
/// As there.
pub fn listen_on_all(
    ns: &Namespace,
    addrs: &[IpAddr],
    port: u16,
    timeout: Duration,
) -> Result<Socket> {
    ns.run(|| {
        let listener = bound(addrs, port, timeout)?;
        listener
            .listen(BACKLOG)
            .doing(|| format!("listen on port {port}"))?;
        Ok(listener)
    })?
}

/// Associates as [`connect`] does, from several addresses.
///
/// # Errors
/// As there.
pub fn connect_from_all(
    ns: &Namespace,
    sources: &[IpAddr],
    addr: SocketAddr,
    timeout: Duration,
) -> Result<Socket> {
    ns.run(|| {
        let stream = bound(sources, 0, timeout)?;
        stream
            .connect(&addr.into())
            .map_err(|e| Error::Association(format!("no association with {addr}: {e}")))?;
        Ok(stream)
    })?
}

/// Sends over the path to `peer` from now on, while that works.
///
/// # Errors
/// If the peer has no such address.
pub fn set_primary(socket: &Socket, peer: SocketAddr) -> Result<()> {
    // struct sctp_prim, which is packed: association (of this socket), address, in its storage.
    let mut value = 0i32.to_ne_bytes().to_vec();
    value.extend(address_bytes(&peer.into()));
    value.resize(4 + size_of::<libc::sockaddr_storage>(), 0);
    set_option(socket, SCTP_PRIMARY_ADDR, &value).doing(|| format!("make {peer} the primary path"))
}

/// Adds addresses to an association, or takes them away, which the peer is told (ASCONF).
///
/// # Errors
/// If it is none of this host's, or the kernel may not (`net.sctp.addip_enable`).
pub fn change_addresses(socket: &Socket, addrs: &[IpAddr], port: u16, add: bool) -> Result<()> {
    let option = if add {
        SCTP_SOCKOPT_BINDX_ADD
    } else {
        SCTP_SOCKOPT_BINDX_REM
    };
    set_option(socket, option, &packed(addrs, port)).doing(|| format!("add or remove {addrs:?}"))
}

/// Listens on `addr` in the namespace. No wait on the socket, for an association or on it, takes
/// longer than `timeout`.
///
/// # Errors
/// If the address is not there or the port is taken.
pub fn listen(ns: &Namespace, addr: SocketAddr, timeout: Duration) -> Result<Socket> {
    ns.run(|| {
        let listener = socket(addr, timeout)?;
        listener
            .bind(&addr.into())
            .doing(|| format!("bind to {addr}"))?;
        listener
            .listen(BACKLOG)
            .doing(|| format!("listen on {addr}"))?;
        Ok(listener)
    })?
}

/// Associates with `addr` from the namespace, from the address `source` only: unbound, a socket
/// would offer the peer all addresses of the host. No wait takes longer than `timeout`.
///
/// # Errors
/// [`Error::Association`] if there is no answer in time, or it is refused.
pub fn connect(
    ns: &Namespace,
    source: IpAddr,
    addr: SocketAddr,
    timeout: Duration,
) -> Result<Socket> {
    connect_from(ns, SocketAddr::new(source, 0), addr, timeout)
}

/// Associates as [`connect`] does, from this port; 0 is any.
///
/// # Errors
/// As there.
pub fn connect_from(
    ns: &Namespace,
    source: SocketAddr,
    addr: SocketAddr,
    timeout: Duration,
) -> Result<Socket> {
    ns.run(|| {
        let stream = socket(addr, timeout)?;
        stream
            .bind(&source.into())
            .doing(|| format!("bind to {source}"))?;
        stream
            .connect(&addr.into())
            .map_err(|e| Error::Association(format!("no association with {addr}: {e}")))?;
        Ok(stream)
    })?
}

/// A counter of `/proc/net/sctp/snmp` in the namespace, for example `SctpChecksumErrors`.
///
/// # Errors
/// If the kernel's SCTP has no such counter.
pub fn counter(ns: &Namespace, name: &str) -> Result<u64> {
    let text = ns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/sctp/snmp"))?
        .doing(|| "read the counters of SCTP".into())?;
    text.lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| Error::Association(format!("no counter {name} in /proc/net/sctp/snmp")))
}
