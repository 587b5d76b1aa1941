// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The associations that the datapath knows.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::maps::{Maps, assoc, tuple};
use crate::error::{Doing, Result};
use crate::map_bytes::addr;

/// State of an association as seen from between its two sides (RFC 9260 section 4;
/// `enum assoc_state` of `bpf/lb_types.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
#[allow(missing_docs, reason = "the standard's names")]
pub enum State {
    Closed,
    CookieWait,
    CookieEchoed,
    Established,
    ShutdownSent,
    ShutdownAckSent,
}

impl State {
    /// All of them, in the order of their values.
    pub const ALL: [State; 6] = [
        State::Closed,
        State::CookieWait,
        State::CookieEchoed,
        State::Established,
        State::ShutdownSent,
        State::ShutdownAckSent,
    ];

    pub(crate) fn of(value: u32) -> Self {
        *Self::ALL.get(value as usize).unwrap_or(&State::Closed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The source and destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tuple {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub dest: SocketAddr,
}

impl From<&tuple> for Tuple {
    fn from(tuple: &tuple) -> Self {
        Self {
            source: SocketAddr::new(addr(tuple.saddr.word), u16::from_be(tuple.sport)),
            dest: SocketAddr::new(addr(tuple.daddr.word), u16::from_be(tuple.dport)),
        }
    }
}

/// An association.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Association {
    /// The datapath's name for it.
    pub id: u64,
    /// Its state.
    pub state: State,
    /// Packets from who opened it: client to service.
    pub original: Tuple,
    /// What they become: client, or this node, to backend.
    pub translated: Tuple,
    /// Verification tags, as numbers: in packets to the backend, and to the client. 0 is one that
    /// is not known yet.
    pub tags: [u32; 2],
    /// Packets to the backend, and to the client.
    pub packets: [u64; 2],
    /// How long it has been there.
    pub age: Duration,
    /// When it ends if nothing more comes.
    pub expires_in: Duration,
    /// The service, by the datapath's number; 0 for one that is tracked for a policy only.
    pub service: u32,
    /// The backend, by the datapath's number.
    pub backend: u32,
}

/// `CLOCK_MONOTONIC`, which the programs' clock is.
pub(crate) fn now() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).doing(|| "read the clock".into())?;
    Ok(now.into())
}

impl Association {
    fn new(id: u64, assoc: &assoc, now: Duration) -> Self {
        let created = Duration::from_nanos(assoc.created);
        let expires = Duration::from_nanos(assoc.expires);
        Self {
            id,
            state: State::of(assoc.state),
            original: (&assoc.original).into(),
            translated: (&assoc.translated).into(),
            tags: assoc.tags.tag.map(u32::from_be),
            packets: assoc.packets,
            age: now.saturating_sub(created),
            expires_in: expires.saturating_sub(now),
            service: assoc.service,
            backend: assoc.backend,
        }
    }
}

impl Maps {
    /// Reads all associations, sorted by their tuples.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn associations(&self) -> Result<Vec<Association>> {
        let now = now()?;
        let entries = self.assocs.entries()?;
        let mut found: Vec<_> = entries
            .iter()
            .map(|(id, assoc)| Association::new(*id, assoc, now))
            .collect();
        found.sort_by_key(|assoc| assoc.original);
        Ok(found)
    }
}
