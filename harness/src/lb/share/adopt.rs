// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Associations of other nodes, in this node's maps.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libbpf_rs::MapFlags;

use super::record::{Addrs, Handshake, NodeId, Record};
use super::routes::{Route, Shape, reverse};
use crate::error::{Error, Result};
use crate::lb::conntrack::{DIR_ORIGINAL, DIR_REPLY, State, Tuple, now};
use crate::lb::maps::{Maps, addr_key, assoc, assoc_addrs, path, policy_key, tag_key, tuple};

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// Its association is known here now, or was and is up to date.
    Done,
    /// It is not adopted.
    Refused(Refusal),
}

/// Why a record is not adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node does not have the service.
    #[error("there is no service {0} here")]
    Service(String),
    /// This node does not have the backend.
    #[error("the service {0} has no backend {1} here")]
    Backend(String, SocketAddr),
    /// This node has opened an association for the same packets.
    #[error("this node has opened an association from {0} to {1} itself")]
    Own(SocketAddr, SocketAddr),
    /// One of another node has them.
    #[error("another association from {0} to {1} is adopted already")]
    Taken(SocketAddr, SocketAddr),
    /// A policy of this node does not allow it.
    #[error("a policy does not allow {0} to associate with {1}")]
    Policy(IpAddr, SocketAddr),
}

/// This node's numbers of services and backends.
#[derive(Debug)]
pub(super) struct Directory {
    services: HashMap<String, u32>,
    backends: HashMap<(u32, SocketAddr), u32>,
}

impl Directory {
    pub(super) fn read(maps: &Maps) -> Result<Self> {
        let services = maps.names()?.into_iter();
        Ok(Self {
            services: services.map(|(id, name)| (name, id)).collect(),
            backends: maps.backend_numbers()?,
        })
    }

    fn numbers(&self, record: &Record) -> std::result::Result<(u32, u32), Refusal> {
        let name = || record.service.clone();
        let service = self.services.get(&record.service);
        let service = *service.ok_or_else(|| Refusal::Service(name()))?;
        let addr = record.translated.dest;
        let backend = self.backends.get(&(service, addr));
        let backend = *backend.ok_or_else(|| Refusal::Backend(name(), addr))?;
        Ok((service, backend))
    }
}

/// Who has opened the association, and the other side with the port that it serves, at these
/// addresses of both: as `judge_path()` of `bpf/paths.h` has it.
fn opener_first(record: &Record, client: IpAddr, backend: IpAddr) -> (IpAddr, SocketAddr) {
    if record.handshake.by_backend {
        let port = record.original.source.port();
        return (backend, SocketAddr::new(client, port));
    }
    let port = record.translated.dest.port();
    (client, SocketAddr::new(backend, port))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// When something ends that lasts so long from now on.
fn expiry(ttl_ms: u64) -> Result<u64> {
    Ok(nanos(now()?.saturating_add(Duration::from_millis(ttl_ms))))
}

/// The tags by which the association is to be known, by direction.
fn tags_of(record: &Record) -> [u32; 2] {
    [
        record.indexed,
        record.handshake.tags[usize::from(DIR_REPLY)],
    ]
    .map(u32::to_be)
}

/// As its namesake of `bpf/conntrack.h`.
fn tag_key_of(assoc: &assoc, dir: u8, tag: u32) -> tag_key {
    let (sport, dport) = match dir {
        DIR_ORIGINAL => (assoc.original.sport, assoc.original.dport),
        _ => (assoc.translated.dport, assoc.translated.sport),
    };
    tag_key { tag, sport, dport }
}

/// The association as it is to be: what packets have changed here stays, as far as it goes with
/// the record.
fn updated(known: Option<&assoc>, opener: NodeId, record: &Record, now: u64) -> assoc {
    let fresh = assoc {
        original: (&record.original).into(),
        translated: (&record.translated).into(),
        created: now,
        opener: opener.get(),
        ..Default::default()
    };
    let mut assoc = known.copied().unwrap_or(fresh);
    assoc.id = record.id;
    set_handshake(&mut assoc, record.handshake);
    assoc.state = record.state as u32;
    assoc.heard = now;
    assoc
}

fn set_handshake(assoc: &mut assoc, handshake: Handshake) {
    assoc.opened_by = handshake.opener();
    let tags = handshake.tags.map(u32::to_be);
    if assoc.tags.tag != tags {
        assoc.tags.tag = tags;
        assoc.pending = Default::default();
        assoc.earlier = Default::default();
        assoc.inits = 0;
    }
}

impl Maps {
    /// Lets packets of the association that `opener` has opened pass here: adopts it, or updates
    /// it if it is adopted already.
    ///
    /// # Errors
    /// If a map cannot be written, for lack of room: nothing is left then of an association that
    /// was not adopted before.
    pub fn adopt(&self, opener: NodeId, record: &Record) -> Result<Adoption> {
        self.adopt_by(opener, record, None, &Directory::read(self)?)
    }

    /// As [`Self::adopt`], of an association of which this handshake was told before.
    pub(super) fn adopt_by(
        &self,
        opener: NodeId,
        record: &Record,
        told: Option<Handshake>,
        directory: &Directory,
    ) -> Result<Adoption> {
        let known = self.assoc(record.id)?;
        let record = &match known {
            // Tags of a restart that only this node has seen yet are newer.
            Some(known) if told == Some(record.handshake) => Record {
                handshake: Handshake::of(&known),
                indexed: u32::from_be(known.indexed[usize::from(DIR_ORIGINAL)]),
                ..record.clone()
            },
            _ => record.clone(),
        };
        if let Some(refusal) = self.refusal(opener, record, known.as_ref())? {
            return Ok(Adoption::Refused(refusal));
        }
        let mut assoc = updated(known.as_ref(), opener, record, expiry(0)?);
        assoc.expires = assoc.expires.max(expiry(record.ttl_ms)?);
        if known.is_none() {
            match directory.numbers(record) {
                Ok(numbers) => (assoc.service, assoc.backend) = numbers,
                Err(refusal) => return Ok(Adoption::Refused(refusal)),
            }
        }
        match self.write(record, assoc, known.as_ref()) {
            Ok(()) => Ok(Adoption::Done),
            // An older state of it is better than none: it is told again.
            Err(error) if known.is_some() => Err(error),
            Err(error) => {
                self.release(record.id)?;
                Err(error)
            }
        }
    }

    fn assoc(&self, id: u64) -> Result<Option<assoc>> {
        self.assocs.get_with(&id, MapFlags::LOCK)
    }

    fn refusal(
        &self,
        opener: NodeId,
        record: &Record,
        known: Option<&assoc>,
    ) -> Result<Option<Refusal>> {
        let Tuple { source, dest } = record.original;
        let taken = |by: u32| match by {
            0 => Refusal::Own(source, dest),
            _ => Refusal::Taken(source, dest),
        };
        if let Some(known) = known.filter(|known| known.opener != opener.get()) {
            return Ok(Some(taken(known.opener)));
        }
        let original = tuple::from(&record.original);
        if let Some(path) = self.paths.get(&original)?
            && path.assoc != record.id
            && let Some(other) = self.assoc(path.assoc)?
            && Tuple::from(&other.original) == record.original
        {
            return Ok(Some(taken(other.opener)));
        }
        let (from, to) = opener_first(record, source.ip(), record.translated.dest.ip());
        let allowed = self.policy_allows(from, to.ip(), to.port())?;
        Ok((!allowed).then_some(Refusal::Policy(from, to)))
    }

    /// Writes what the record says, in an order in which packets find all of it or nothing.
    fn write(&self, record: &Record, mut assoc: assoc, known: Option<&assoc>) -> Result<()> {
        let id = record.id;
        let shape = Shape::new(record.original, record.translated, record.addrs.clone());
        let before = match known {
            Some(known) => self.shape(id, known)?.tuples(),
            None => Default::default(),
        };
        assoc.indexed = self.free_tags(id, &assoc, tags_of(record))?;
        // In place, if it is there: who follows a packet has it locked.
        self.assocs.insert_with(&id, &assoc, MapFlags::LOCK)?;
        match &record.addrs {
            Some(addrs) => self
                .multihomed
                .insert(&id, &assoc_addrs::try_from(addrs)?)?,
            None => self.multihomed.remove(&id)?,
        }
        for route in shape.routes() {
            self.set_path(record, &route)?;
        }
        for gone in before.difference(&shape.tuples()) {
            self.delete_path(gone, id)?;
        }
        let before = known.map_or([0; 2], |known| known.indexed);
        self.index_tags(id, &assoc, before)
    }

    /// Those of the tags that no other association is known by; 0 for the others.
    fn free_tags(&self, id: u64, assoc: &assoc, tags: [u32; 2]) -> Result<[u32; 2]> {
        let mut free = [0; 2];
        for dir in [DIR_ORIGINAL, DIR_REPLY] {
            let key = tag_key_of(assoc, dir, tags[usize::from(dir)]);
            if key.tag != 0 && self.tag_is_free(&key, id)? {
                free[usize::from(dir)] = key.tag;
            }
        }
        Ok(free)
    }

    /// Lets the association be found by its tags, and no longer by those that it had.
    fn index_tags(&self, id: u64, assoc: &assoc, before: [u32; 2]) -> Result<()> {
        for dir in [DIR_ORIGINAL, DIR_REPLY] {
            let (old, new) = (before[usize::from(dir)], assoc.indexed[usize::from(dir)]);
            if new != 0 {
                self.by_tag.insert(&tag_key_of(assoc, dir, new), &id)?;
            }
            if old != new {
                self.delete_tag(&tag_key_of(assoc, dir, old), id)?;
            }
        }
        Ok(())
    }

    fn shape(&self, id: u64, assoc: &assoc) -> Result<Shape> {
        let addrs = self.multihomed.get(&id)?;
        Ok(Shape::new(
            (&assoc.original).into(),
            (&assoc.translated).into(),
            addrs.as_ref().map(Addrs::from),
        ))
    }

    fn tag_is_free(&self, key: &tag_key, id: u64) -> Result<bool> {
        Ok(match self.by_tag.get(key)? {
            Some(other) if other != id => self.assocs.get(&other)?.is_none(),
            _ => true,
        })
    }

    fn delete_tag(&self, key: &tag_key, id: u64) -> Result<()> {
        if key.tag != 0 && self.by_tag.get(key)? == Some(id) {
            self.by_tag.remove(key)?;
        }
        Ok(())
    }

    /// Whether the path is another association's, and stays so: one that it only expects gives way
    /// to the first pair of addresses of this one.
    fn is_taken(&self, found: &path, record: &Record, first: bool) -> Result<bool> {
        if found.assoc == record.id || (first && found.confirmed == 0) {
            return Ok(false);
        }
        Ok(self.assocs.get(&found.assoc)?.is_some())
    }

    fn set_path(&self, record: &Record, route: &Route) -> Result<()> {
        let (client, backend) = route.peers();
        let (from, to) = opener_first(record, client, backend);
        if !self.policy_allows(from, to.ip(), to.port())? {
            return Ok(());
        }
        // The others are only claimed, until a packet with a tag takes them.
        let first = route.from == record.original || route.from == reverse(&record.translated);
        let mut path = path {
            assoc: record.id,
            to: (&route.to).into(),
            dir: route.dir,
            confirmed: first.into(),
            shared: route.shared.into(),
            ..Default::default()
        };
        let key = tuple::from(&route.from);
        if let Some(found) = self.paths.get(&key)? {
            if self.is_taken(&found, record, first)? {
                return Ok(());
            }
            if found.assoc == record.id {
                let same = Tuple::from(&found.to) == route.to && found.shared == path.shared;
                // It leads where the last packet came from.
                let led = path.dir == DIR_REPLY && route.shared && found.shared != 0;
                path.confirmed |= found.confirmed;
                if path.confirmed == found.confirmed && (same || led) {
                    return Ok(());
                }
                path.seen = found.seen;
                if led {
                    path.to = found.to;
                }
            }
        }
        self.paths.insert(&key, &path)
    }

    fn delete_path(&self, from: &Tuple, id: u64) -> Result<()> {
        let key = tuple::from(from);
        if self.paths.get(&key)?.is_some_and(|path| path.assoc == id) {
            self.paths.remove(&key)?;
        }
        Ok(())
    }

    /// Whether this node's policies let `from` associate with `to`, as `bpf/policy.h` has it.
    fn policy_allows(&self, from: IpAddr, to: IpAddr, port: u16) -> Result<bool> {
        const INGRESS: usize = 0;
        const EGRESS: usize = 1;
        Ok(self.endpoint_allows(from, EGRESS, to, port)?
            && self.endpoint_allows(to, INGRESS, from, port)?)
    }

    fn endpoint_allows(&self, addr: IpAddr, dir: usize, peer: IpAddr, port: u16) -> Result<bool> {
        let policy = self.policy_endpoints.get(&addr_key(addr))?;
        let Some(policy) = policy.filter(|policy| policy.selected[dir] != 0) else {
            return Ok(true);
        };
        let key = policy_key {
            prefix_len: (size_of::<policy_key>() * 8 - 32) as u32,
            endpoint: (policy.id * 2 + dir as u32).to_be(),
            peer: addr_key(peer),
        };
        Ok(self.policy_prefixes.get(&key)?.is_some_and(|ports| {
            let mut ranges = ports.range.iter().take(ports.nr as usize);
            ranges.any(|range| (range.first..=range.last).contains(&port))
        }))
    }

    /// Lets an association last at least so long from now on. Returns whether it is there, and
    /// this node's (`None`) or another's, as is said.
    pub(super) fn renew(&self, id: u64, ttl_ms: u64, opener: Option<NodeId>) -> Result<bool> {
        let opener = opener.map_or(0, NodeId::get);
        let Some(mut assoc) = self.assoc(id)?.filter(|a| a.opener == opener) else {
            return Ok(false);
        };
        let expires = expiry(ttl_ms)?;
        if expires <= assoc.expires {
            return Ok(true);
        }
        assoc.expires = expires;
        assoc.heard = nanos(now()?);
        self.replace(id, &assoc)
    }

    /// Takes the handshake of a restart that another node has carried, unless this node has another by
    /// now than that it began with. Returns whether it has taken them.
    pub(super) fn restart(&self, id: u64, from: Handshake, to: Handshake) -> Result<bool> {
        let known = self
            .assoc(id)?
            .filter(|assoc| assoc.opener == 0 && Handshake::of(assoc) == from && to.is_done());
        let Some(known) = known else {
            return Ok(false);
        };
        let mut assoc = known;
        set_handshake(&mut assoc, to);
        // The peers go on where it was carried, whatever has come here of the last one.
        assoc.state = State::Established as u32;
        assoc.indexed = self.free_tags(id, &assoc, assoc.tags.tag)?;
        self.index_tags(id, &assoc, known.indexed)?;
        self.replace(id, &assoc)
    }

    /// Writes all of it, also what packets may have changed since it was read: microseconds, after
    /// which the next record, or the client's next COOKIE ECHO, sets it right. Returns whether it
    /// is still there.
    fn replace(&self, id: u64, assoc: &assoc) -> Result<bool> {
        let flags = MapFlags::EXIST | MapFlags::LOCK;
        match self.assocs.insert_with(&id, assoc, flags) {
            Err(Error::Bpf { source, .. }) if source.kind() == libbpf_rs::ErrorKind::NotFound => {
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    /// Removes an adopted association with all that leads to it. Returns whether there was one.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub fn release(&self, id: u64) -> Result<bool> {
        let Some(assoc) = self.assoc(id)?.filter(|assoc| assoc.opener != 0) else {
            return Ok(false);
        };
        let shape = self.shape(id, &assoc)?;
        // As claim_assoc() of bpf/conntrack.h: from now on a packet does not index it.
        let gone = assoc {
            id: 0,
            indexed: [0; 2],
            ..assoc
        };
        self.replace(id, &gone)?;
        self.assocs.remove(&id)?;
        self.index_tags(id, &gone, assoc.indexed)?;
        for from in shape.tuples() {
            self.delete_path(&from, id)?;
        }
        self.multihomed.remove(&id)?;
        Ok(true)
    }

    /// Releases the adopted associations whose time is over. Returns how many.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub fn release_expired(&self) -> Result<usize> {
        let now = nanos(now()?);
        self.release_those(|_, assoc| assoc.expires < now)
    }

    /// Releases what is adopted of `opener` but for these. Returns how many.
    pub(super) fn release_others(
        &self,
        opener: NodeId,
        keep: impl Fn(u64) -> bool,
    ) -> Result<usize> {
        self.release_those(|id, assoc| assoc.opener == opener.get() && !keep(id))
    }

    fn release_those(&self, are: impl Fn(u64, &assoc) -> bool) -> Result<usize> {
        let mut released = 0;
        for (id, assoc) in self.assocs.entries()? {
            if assoc.opener != 0 && are(id, &assoc) {
                released += usize::from(self.release(id)?);
            }
        }
        Ok(released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::share::record::tests::record;

    #[test]
    fn an_update_keeps_what_packets_have_changed() {
        let record = record();
        let opener = NodeId::MIN;
        let fresh = updated(None, opener, &record, 7);
        assert_eq!((fresh.created, fresh.opener), (7, 1));
        assert_eq!(Handshake::of(&fresh), record.handshake);
        assert_eq!(State::of(fresh.state), record.state);
        let known = assoc {
            packets: [3, 4],
            unanswered: 1,
            pending: fresh.tags,
            ..fresh
        };
        let same = updated(Some(&known), opener, &record, 9);
        assert_eq!((same.created, same.packets), (7, [3, 4]));
        assert_eq!(same.pending.tag, known.pending.tag);
        let mut restarted = record;
        restarted.handshake.tags = [8, 9];
        let updated = updated(Some(&known), opener, &restarted, 9);
        assert_eq!(updated.pending.tag, [0, 0]);
        assert_eq!((updated.created, updated.packets), (7, [3, 4]));
    }

    #[test]
    fn directions_are_those_of_the_tuples() {
        let shape = Shape::new(record().original, record().translated, record().addrs);
        for route in shape.routes() {
            let (client, backend) = route.peers();
            let is = |list: &[IpAddr], addr| list.contains(&addr);
            assert!(is(&shape.addrs.client, client) && is(&shape.addrs.backend, backend));
            assert!(route.dir == DIR_ORIGINAL || route.dir == DIR_REPLY);
        }
    }
}
