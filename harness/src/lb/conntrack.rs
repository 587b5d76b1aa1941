// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The associations that the datapath knows.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize, Serializer};

use super::inventory::REMOVED;
use super::maps::{Maps, addr_key, assoc, endpoint_addr, path, tuple};
use crate::error::{Doing, Result};
use crate::map_bytes::addr;

/// State of an association as seen from between its two sides (RFC 9260 section 4;
/// `enum assoc_state` of `bpf/lb_types.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

impl From<&Tuple> for tuple {
    fn from(from: &Tuple) -> Self {
        Self {
            saddr: addr_key(from.source.ip()),
            daddr: addr_key(from.dest.ip()),
            sport: from.source.port().to_be(),
            dport: from.dest.port().to_be(),
        }
    }
}

/// A pair of addresses that an association uses, and what the service's becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PathEntry {
    /// The client's.
    pub client: IpAddr,
    /// The service's.
    pub vip: IpAddr,
    /// The backend's.
    pub backend: IpAddr,
    /// Whether it was opened by an INIT, or has carried the right tag.
    pub confirmed: bool,
    /// How long ago the last packet came from the client; `None` if none has come yet. In documents
    /// all times are in whole seconds.
    #[serde(serialize_with = "maybe_seconds")]
    pub idle: Option<Duration>,
}

impl PathEntry {
    fn new(from: &tuple, path: &path, now: Duration) -> Self {
        let seen = Some(path.seen).filter(|seen| *seen != 0);
        Self {
            client: addr(from.saddr.word),
            vip: addr(from.daddr.word),
            backend: addr(path.to.daddr.word),
            confirmed: path.confirmed != 0,
            idle: seen.map(|seen| now.saturating_sub(Duration::from_nanos(seen))),
        }
    }
}

/// An association.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Association {
    /// The datapath's name for it. In documents it is text, as many read numbers as `f64`.
    #[serde(serialize_with = "text")]
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
    #[serde(serialize_with = "seconds")]
    pub age: Duration,
    /// When it ends if nothing more comes.
    #[serde(serialize_with = "seconds")]
    pub expires_in: Duration,
    /// The service's port, as `namespace/name:port`, or `(removed)`. `None`: it is tracked for a
    /// policy only.
    pub service: Option<String>,
    /// The backend, by its primary address, while there is one.
    pub backend: Option<SocketAddr>,
    /// Whether another node opened it, and told this one.
    pub adopted: bool,
    /// The pairs of addresses that it uses, sorted.
    pub paths: Vec<PathEntry>,
}

/// `DIR_ORIGINAL` of `bpf/lb_types.h`.
pub(super) const DIR_ORIGINAL: u8 = 0;
/// `DIR_REPLY` of `bpf/lb_types.h`.
pub(super) const DIR_REPLY: u8 = 1;

/// `CLOCK_MONOTONIC`, which the programs' clock is.
pub(crate) fn now() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).doing(|| "read the clock".into())?;
    Ok(now.into())
}

fn text<S: Serializer>(number: &u64, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(number)
}

fn seconds<S: Serializer>(time: &Duration, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_u64(time.as_secs())
}

fn maybe_seconds<S: Serializer>(
    time: &Option<Duration>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(to)
}

/// What services and backends are called, by their numbers.
struct Names {
    services: HashMap<u32, String>,
    backends: HashMap<u32, SocketAddr>,
}

impl Association {
    fn new(id: u64, assoc: &assoc, paths: Vec<PathEntry>, names: &Names, now: Duration) -> Self {
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
            service: (assoc.service != 0).then(|| {
                let name = names.services.get(&assoc.service);
                name.cloned().unwrap_or_else(|| REMOVED.into())
            }),
            backend: names.backends.get(&assoc.backend).copied(),
            adopted: assoc.opener != 0,
            paths,
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
        let mut paths = self.paths_by_association(now)?;
        let backends = self.backends.entries()?.into_iter();
        let names = Names {
            services: self.names()?,
            backends: backends
                .map(|(id, backend)| (id, endpoint_addr(&backend.addr)))
                .collect(),
        };
        let mut found: Vec<_> = entries
            .iter()
            .map(|(id, assoc)| {
                let paths = paths.remove(id).unwrap_or_default();
                Association::new(*id, assoc, paths, &names, now)
            })
            .collect();
        found.sort_by_key(|assoc| assoc.original);
        Ok(found)
    }

    /// Reads all paths of packets to backends: each has one back as well.
    fn paths_by_association(&self, now: Duration) -> Result<HashMap<u64, Vec<PathEntry>>> {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for (from, path) in self.paths.entries()? {
            if path.dir == DIR_ORIGINAL {
                let paths = found.entry(path.assoc).or_default();
                paths.push(PathEntry::new(&from, &path, now));
            }
        }
        for paths in found.values_mut() {
            paths.sort_unstable();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_idle_since_its_last_packet() {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let [client, vip, backend] = ["192.0.2.1", "203.0.113.10", "198.51.100.1"].map(ip);
        let mut from = tuple::default();
        (from.saddr, from.daddr) = (addr_key(client), addr_key(vip));
        let mut value = path::default();
        value.to.daddr = addr_key(backend);
        let now = Duration::from_secs(100);
        let wanted = |confirmed, idle| PathEntry {
            client,
            vip,
            backend,
            confirmed,
            idle,
        };
        assert_eq!(PathEntry::new(&from, &value, now), wanted(false, None));
        (value.seen, value.confirmed) = (93_000_000_000, 1);
        let idle = Some(Duration::from_secs(7));
        assert_eq!(PathEntry::new(&from, &value, now), wanted(true, idle));
    }
}
