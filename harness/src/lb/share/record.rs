// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What a node says of an association that it opened.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use libbpf_rs::MapFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lb::conntrack::{DIR_ORIGINAL, DIR_REPLY, State, Tuple, now};
use crate::lb::maps::{MAX_ADDRS, Maps, addr_key, addr_list, assoc, assoc_addrs, ip_addr};
use crate::map_bytes::addr;

/// A node, as the others know it: a random number that its maps keep.
pub type NodeId = NonZeroU32;

/// The addresses of an association, as `struct assoc_addrs` of `bpf/lb_types.h` has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addrs {
    /// The client's.
    pub client: Vec<IpAddr>,
    /// The service's.
    pub vip: Vec<IpAddr>,
    /// The backend's.
    pub backend: Vec<IpAddr>,
    /// A bit for each of the backend's that it uses.
    pub available: u32,
    /// What backends see instead of the client's, if they do: IPv4 and IPv6.
    pub source: Option<[Option<IpAddr>; 2]>,
}

fn canonical(addrs: &[IpAddr]) -> bool {
    addrs.iter().all(|addr| addr.to_canonical() == *addr)
}

impl Addrs {
    /// The addresses of an association that has one on each side.
    pub(super) fn single(original: &Tuple, translated: &Tuple) -> Self {
        let mut source = [None; 2];
        let seen = translated.source.ip();
        source[usize::from(seen.is_ipv6())] = Some(seen);
        Self {
            client: vec![original.source.ip()],
            vip: vec![original.dest.ip()],
            backend: vec![translated.dest.ip()],
            available: u32::MAX,
            source: (original.source.ip() != seen).then_some(source),
        }
    }

    fn check(&self) -> bool {
        let lists = [&self.client, &self.vip, &self.backend];
        let source = self.source.iter().flatten();
        let ordered = source.zip([true, false]).all(|(addr, ipv4)| {
            addr.is_none_or(|addr| addr.is_ipv4() == ipv4 && canonical(&[addr]))
        });
        ordered
            && lists
                .iter()
                .all(|list| (1..=MAX_ADDRS).contains(&list.len()) && canonical(list))
    }
}

impl From<&assoc_addrs> for Addrs {
    fn from(from: &assoc_addrs) -> Self {
        let source = |of: &ip_addr| (of.word != [0; 4]).then(|| addr(of.word));
        let sources = [source(&from.source[0]), source(&from.source[1])];
        Self {
            client: from.client.addrs().collect(),
            vip: from.vip.addrs().collect(),
            backend: from.backend.addrs().collect(),
            available: from.available,
            source: (from.source_translated != 0).then_some(sources),
        }
    }
}

impl TryFrom<&Addrs> for assoc_addrs {
    type Error = Error;

    fn try_from(from: &Addrs) -> Result<Self> {
        let list = |addrs: &[IpAddr]| addr_list::new(addrs, || "an association".into());
        let source = |of: Option<IpAddr>| of.map(addr_key).unwrap_or_default();
        Ok(Self {
            client: list(&from.client)?,
            vip: list(&from.vip)?,
            backend: list(&from.backend)?,
            available: from.available,
            offered: [0; 3],
            offered_tag: [0; 3],
            leaving: 0,
            leaver: 0,
            pad: [0; 2],
            source_translated: from.source.is_some().into(),
            source: from.source.unwrap_or_default().map(source),
        })
    }
}

/// What a handshake leaves behind, and the next one, of a restart, replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// Verification tags, as numbers: in packets to the backend, and to the client.
    pub tags: [u32; 2],
    /// Whether the backend has begun it: policies judge by who has.
    pub by_backend: bool,
}

impl Handshake {
    pub(super) fn of(assoc: &assoc) -> Self {
        Self {
            tags: assoc.tags.tag.map(u32::from_be),
            by_backend: assoc.opened_by == DIR_REPLY,
        }
    }

    /// The direction of its INIT.
    pub(super) fn opener(&self) -> u8 {
        if self.by_backend {
            DIR_REPLY
        } else {
            DIR_ORIGINAL
        }
    }

    /// Whether both sides know the other's tag.
    pub(super) fn is_done(&self) -> bool {
        !self.tags.contains(&0)
    }
}

/// An association, for nodes that number services and backends otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, the same on every node.
    pub id: u64,
    /// The service's port, as `namespace/name:port`.
    pub service: String,
    /// Packets from who opened it: client to service.
    pub original: Tuple,
    /// What they become. Their destination is the backend's primary address.
    pub translated: Tuple,
    /// Its state.
    pub state: State,
    /// Its last handshake.
    pub handshake: Handshake,
    /// The tag by which packets to the backend are known from addresses that nobody has named; 0:
    /// none.
    pub indexed: u32,
    /// Its addresses, if some side has several.
    pub addrs: Option<Addrs>,
    /// How many milliseconds it lasts if nothing more comes.
    pub ttl_ms: u64,
}

impl Record {
    pub(super) fn new(
        id: u64,
        assoc: &assoc,
        service: String,
        addrs: Option<Addrs>,
        now: Duration,
    ) -> Self {
        Self {
            id,
            service,
            original: (&assoc.original).into(),
            translated: (&assoc.translated).into(),
            state: State::of(assoc.state),
            handshake: Handshake::of(assoc),
            indexed: u32::from_be(assoc.indexed[usize::from(DIR_ORIGINAL)]),
            addrs,
            ttl_ms: ttl_ms(assoc, now),
        }
    }

    /// Whether the other says the same, but for how long it lasts.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let timeless = |record: &Self| Self {
            ttl_ms: 0,
            ..record.clone()
        };
        timeless(self) == timeless(other)
    }

    /// Whether a node may have sent it.
    pub(super) fn check(&self) -> Result<()> {
        let ends = [&self.original, &self.translated];
        let tuples = ends.into_iter().all(|tuple| {
            let ips = [tuple.source.ip(), tuple.dest.ip()];
            canonical(&ips) && ips[0].is_ipv4() == ips[1].is_ipv4()
        });
        if tuples
            && self.original.source.is_ipv4() == self.translated.source.is_ipv4()
            && self.handshake.is_done()
            && self.addrs.as_ref().is_none_or(Addrs::check)
        {
            return Ok(());
        }
        let id = self.id;
        Err(Error::Protocol(format!("no association is like {id:#x}")))
    }
}

/// How long the association lasts if nothing more comes.
pub(super) fn ttl_ms(assoc: &assoc, now: Duration) -> u64 {
    let left = Duration::from_nanos(assoc.expires).saturating_sub(now);
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// Whether both sides know the other's tag.
fn is_known(assoc: &assoc) -> bool {
    State::of(assoc.state) >= State::CookieEchoed && Handshake::of(assoc).is_done()
}

/// An adopted association that packets have come of here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) packets: [u64; 2],
    pub(super) handshake: Handshake,
    /// The one that the node told that opened it.
    pub(super) told: Handshake,
    pub(super) ttl_ms: u64,
}

/// What is to be told to other nodes.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) records: HashMap<u64, Record>,
    pub(super) carried: HashMap<u64, Carried>,
}

impl Snapshot {
    /// Reads the maps. `names` are those of services, and stay: a service that is removed has
    /// associations yet. `told` is what others have told.
    pub(super) fn read(
        maps: &Maps,
        names: &mut HashMap<u32, String>,
        told: &HashMap<u64, Handshake>,
    ) -> Result<Self> {
        names.extend(maps.names()?);
        let now = now()?;
        let mut snapshot = Self::default();
        let assocs = maps.assocs.entries_with(MapFlags::LOCK)?;
        // Behind them: who is found there has its addresses.
        let multihomed: HashMap<_, _> = maps.multihomed.entries()?.into_iter().collect();
        for (id, assoc) in assocs {
            if assoc.opener != 0 {
                let handshake = Handshake::of(&assoc);
                let carried = Carried {
                    packets: assoc.packets,
                    handshake,
                    told: told.get(&id).copied().unwrap_or(handshake),
                    ttl_ms: ttl_ms(&assoc, now),
                };
                snapshot.carried.insert(id, carried);
            } else if let Some(name) = names.get(&assoc.service).filter(|_| is_known(&assoc)) {
                let addrs = multihomed.get(&id).map(Addrs::from);
                let record = Record::new(id, &assoc, name.clone(), addrs, now);
                snapshot.records.insert(id, record);
            }
        }
        Ok(snapshot)
    }
}

impl Maps {
    /// This node, as it says who it is.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn node(&self) -> Result<NodeId> {
        let node = NodeId::new(self.settings()?.node);
        node.ok_or_else(|| Error::Protocol("this node has no number: attach sctp-lb anew".into()))
    }

    /// The associations with services that this node has opened, and whose tags both sides know.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn own_associations(&self) -> Result<Vec<Record>> {
        let snapshot = Snapshot::read(self, &mut HashMap::new(), &HashMap::new())?;
        Ok(snapshot.records.into_values().collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn record() -> Record {
        let tuple = |source: &str, dest: &str| Tuple {
            source: source.parse().expect("an address"),
            dest: dest.parse().expect("an address"),
        };
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            let texts = texts.iter();
            texts.map(|t| t.parse().expect("an address")).collect()
        };
        Record {
            id: u64::MAX - 1,
            service: "default/amf:sctp".into(),
            original: tuple("192.0.2.1:5000", "203.0.113.1:3868"),
            translated: tuple("198.51.100.254:5000", "198.51.100.1:13868"),
            state: State::CookieEchoed,
            handshake: Handshake {
                tags: [0xffff_ffff, 1],
                by_backend: false,
            },
            indexed: 0xffff_ffff,
            addrs: Some(Addrs {
                client: ips(&["192.0.2.1", "2001:db8::1"]),
                vip: ips(&["203.0.113.1", "2001:db8:ff::1"]),
                backend: ips(&["198.51.100.1", "2001:db8:2::1"]),
                available: 0x3,
                source: Some([Some([198, 51, 100, 254].into()), None]),
            }),
            ttl_ms: 210_000,
        }
    }

    #[test]
    fn addresses_are_what_they_were_when_they_come_back_from_a_map() {
        let addrs = record().addrs.expect("several");
        let kept = assoc_addrs::try_from(&addrs).expect("few");
        assert_eq!(Addrs::from(&kept), addrs);
        let plain = Addrs {
            source: None,
            ..addrs
        };
        let kept = assoc_addrs::try_from(&plain).expect("few");
        assert_eq!(Addrs::from(&kept), plain);
    }

    #[test]
    fn time_that_is_left_is_no_difference() {
        let [one, mut other] = [record(), record()];
        other.ttl_ms = 1;
        assert!(one.is_same(&other));
        other.handshake.tags[0] = 2;
        assert!(!one.is_same(&other));
    }

    #[test]
    fn what_no_node_says_is_refused() {
        assert!(record().check().is_ok());
        let wrong: [fn(&mut Record); 6] = [
            |r| r.handshake.tags[1] = 0,
            |r| r.original.source.set_ip("::1".parse().expect("an address")),
            |r| r.addrs.as_mut().expect("several").client.clear(),
            |r| r.addrs.as_mut().expect("several").vip = vec![[192, 0, 2, 1].into(); 9],
            |r| {
                let mapped = "::ffff:192.0.2.1".parse().expect("an address");
                r.addrs.as_mut().expect("several").backend = vec![mapped];
            },
            |r| r.addrs.as_mut().expect("several").source = Some([None, Some([1; 4].into())]),
        ];
        for (nr, change) in wrong.iter().enumerate() {
            let mut record = record();
            change(&mut record);
            assert!(record.check().is_err(), "{nr}");
        }
    }
}
