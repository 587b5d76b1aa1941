// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! One-to-one style sockets of the kernel's SCTP (RFC 6458 section 4), and its counters.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Doing, Error, Result};
use crate::netns::Namespace;

const IPPROTO_SCTP: i32 = 132;
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
        listener.listen(8).doing(|| format!("listen on {addr}"))?;
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
    ns.run(|| {
        let stream = socket(addr, timeout)?;
        let source = SocketAddr::new(source, 0);
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
