// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Makes the datapath's maps say what is wanted, and changes only what differs.
//!
//! The maps are all there is: names and numbers of services are read back from them, so that
//! nothing is lost when the process ends. What associations still need stays: a backend that is
//! not wanted any more drains.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv6Net;
use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::groups::GroupPlan;
use super::maps::{
    Maps, TypedMap, addr_key, addr_list, backend, endpoint, endpoint_addr, endpoint_key,
    endpoint_policy, ip_addr, lb_settings, policy_key, policy_ports, port_range, service,
    service_name,
};
use super::model::{Backend, Desired, EndpointPolicy, PolicyRule, PortRange, Service};
use super::tables::{Allocator, Slots};
use super::{maglev, policy};
use crate::error::{Error, Result};
use crate::map_bytes::{MapBytes, addr};

/// How many entries of each kind were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Frontends added, or given another backend table or option, and groups of frontends whose
    /// list of addresses is another now.
    pub frontends_set: usize,
    /// Frontends removed.
    pub frontends_removed: usize,
    /// Backends added, given other addresses, or taken back from draining.
    pub backends_added: usize,
    /// Backends that drain from now on.
    pub backends_drained: usize,
    /// Backends that have drained, and are gone.
    pub backends_removed: usize,
    /// Endpoints whose policies were set.
    pub policies_set: usize,
    /// Endpoints that have no policy any more.
    pub policies_removed: usize,
}

impl Changes {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A number that no one has yet.
pub(super) struct Numbers {
    used: HashSet<u32>,
    next: u32,
}

impl Numbers {
    pub(super) fn new(used: impl IntoIterator<Item = u32>) -> Self {
        Self {
            used: used.into_iter().collect(),
            next: 1,
        }
    }

    pub(super) fn take(&mut self) -> u32 {
        while !self.used.insert(self.next) {
            self.next += 1;
        }
        self.next
    }
}

fn too_many(what: &str, wanted: usize, room: usize) -> Error {
    Error::Full {
        what: what.to_string(),
        wanted,
        room,
    }
}

fn check_room(what: &str, wanted: usize, room: usize) -> Result<()> {
    if wanted > room {
        return Err(too_many(what, wanted, room));
    }
    Ok(())
}

/// The seed of the hash of a service's clients, the same on every node.
fn seed(service: &str) -> u32 {
    SipHasher13::new_with_keys(0, 0).hash(service.as_bytes()) as u32
}

/// Entries of a map that differ from what is wanted.
struct Difference<K, V> {
    set: Vec<(K, V)>,
    /// How many of them are there, with another value.
    replaced: usize,
    remove: Vec<K>,
}

fn difference<K: MapBytes, V: MapBytes>(
    map: &TypedMap<K, V>,
    wanted: &[(K, V)],
) -> Result<Difference<K, V>> {
    let mut current: HashMap<Vec<u8>, (K, V)> = map
        .entries()?
        .into_iter()
        .map(|(key, value)| (key.bytes().to_vec(), (key, value)))
        .collect();
    let mut set = Vec::new();
    let mut replaced = 0;
    for (key, value) in wanted {
        let old = current.remove(key.bytes());
        if !matches!(&old, Some((_, old)) if old.bytes() == value.bytes()) {
            replaced += usize::from(old.is_some());
            set.push((*key, *value));
        }
    }
    let remove = current.into_values().map(|(key, _)| key).collect();
    Ok(Difference {
        set,
        replaced,
        remove,
    })
}

impl<K: MapBytes, V: MapBytes> TypedMap<K, V> {
    fn set_all(&self, entries: &[(K, V)]) -> Result<usize> {
        for (key, value) in entries {
            self.insert(key, value)?;
        }
        Ok(entries.len())
    }

    fn remove_all(&self, keys: &[K]) -> Result<usize> {
        for key in keys {
            self.remove(key)?;
        }
        Ok(keys.len())
    }
}

/// The numbers of services and backends: those that they have, and new ones for new ones.
struct Numbering {
    services: BTreeMap<String, u32>,
    backends: HashMap<(u32, SocketAddr), u32>,
    groups: GroupPlan,
    free_service: Numbers,
    free_backend: Numbers,
    /// Backends that have associations.
    backends_in_use: HashSet<u32>,
}

impl Numbering {
    fn read(maps: &Maps) -> Result<Self> {
        let names = maps.names()?;
        let backends = maps.backend_numbers()?;
        // A service whose name is gone may have associations yet, which must not become another's.
        let ids = maps.assocs.entries()?.into_iter();
        let (services_in_use, backends_in_use): (HashSet<_>, HashSet<_>) =
            ids.map(|(_, assoc)| (assoc.service, assoc.backend)).unzip();
        Ok(Self {
            free_service: Numbers::new(names.keys().copied().chain(services_in_use)),
            free_backend: Numbers::new(
                backends
                    .values()
                    .copied()
                    .chain(backends_in_use.iter().copied()),
            ),
            backends_in_use,
            groups: GroupPlan::read(maps)?,
            services: names.into_iter().map(|(id, name)| (name, id)).collect(),
            backends,
        })
    }

    fn service(&mut self, name: &str) -> u32 {
        if let Some(id) = self.services.get(name) {
            return *id;
        }
        let id = self.free_service.take();
        self.services.insert(name.to_string(), id);
        id
    }

    fn backend(&mut self, service: u32, addr: SocketAddr) -> u32 {
        if let Some(id) = self.backends.get(&(service, addr)) {
            return *id;
        }
        let id = self.free_backend.take();
        self.backends.insert((service, addr), id);
        id
    }
}

/// All that is to be in the maps of services.
#[derive(Default)]
struct Wanted {
    names: Vec<(u32, service_name)>,
    frontends: Vec<(endpoint, service)>,
    /// The VIPs of each group of frontends.
    groups: Vec<(u32, addr_list)>,
    backends: Vec<(u32, backend)>,
    /// Tables to be written, by their first slot.
    tables: Vec<(usize, Vec<u32>)>,
}

/// Finds slots for tables, and keeps tables that are as they should be.
struct TablePlan<'a> {
    slots: &'a Slots,
    free: Allocator,
    /// By service and family, of which each has a table: true is IPv4.
    current: HashMap<(u32, bool), service>,
}

impl<'a> TablePlan<'a> {
    fn read(maps: &Maps, slots: &'a Slots) -> Result<Self> {
        let services = maps.services.entries()?;
        let used = services
            .iter()
            .map(|(_, service)| (service.table as usize, service.table_size as usize));
        Ok(Self {
            slots,
            free: Allocator::new(slots.len(), used),
            current: services
                .iter()
                .map(|(key, service)| ((service.id, endpoint_addr(key).is_ipv4()), *service))
                .collect(),
        })
    }

    /// The first slot of the table, and whether it is to be written.
    fn place(&mut self, service: u32, ipv4: bool, table: &[u32]) -> Result<(usize, bool)> {
        if let Some(current) = self.current.get(&(service, ipv4))
            && self.slots.of(current) == table
        {
            return Ok((current.table as usize, false));
        }
        let start = self.free.take(table.len()).ok_or_else(|| {
            let what = "further slots of backend tables, in a row";
            too_many(what, table.len(), self.free.most())
        })?;
        Ok((start, true))
    }
}

/// The backends' table: ids, in slots by Maglev's hash of their addresses.
fn table_of(backends: &[(u32, SocketAddr)]) -> Vec<u32> {
    let names: Vec<String> = backends.iter().map(|(_, addr)| addr.to_string()).collect();
    maglev::table(&names, maglev::table_size(names.len()))
        .into_iter()
        .map(|index| backends[index as usize].0)
        .collect()
}

/// A service that is wanted, and the numbers that it has.
struct Numbered<'a> {
    id: u32,
    name: &'a str,
    wanted: &'a Service,
    /// By frontend.
    groups: HashMap<SocketAddr, u32>,
}

impl Numbered<'_> {
    fn backend(&self, wanted: &Backend) -> Result<backend> {
        let mut addrs = vec![wanted.addr.ip()];
        addrs.extend(&wanted.secondary);
        let whose = || format!("the backend {} of the service {}", wanted.addr, self.name);
        Ok(backend {
            addr: endpoint_key(wanted.addr),
            service: self.id,
            draining: wanted.draining.into(),
            pad: [0; 3],
            addrs: addr_list::new(&addrs, whose)?,
        })
    }
}

impl Wanted {
    fn add(
        &mut self,
        name: &str,
        wanted: &Service,
        numbers: &mut Numbering,
        plan: &mut TablePlan<'_>,
    ) -> Result<()> {
        let id = numbers.service(name);
        self.names.push((id, service_name::new(name)));
        let service = Numbered {
            id,
            name,
            wanted,
            groups: numbers.groups.add(name, &wanted.frontends)?,
        };
        let mut usable = BTreeMap::new();
        for backend in &wanted.backends {
            let backend_id = numbers.backend(id, backend.addr);
            self.backends.push((backend_id, service.backend(backend)?));
            if !backend.draining {
                usable.insert(backend.addr, backend_id);
            }
        }
        // A client gets a backend of its own family.
        for ipv4 in [true, false] {
            self.add_family(&service, ipv4, &usable, plan)?;
        }
        Ok(())
    }

    fn add_family(
        &mut self,
        numbered: &Numbered<'_>,
        ipv4: bool,
        usable: &BTreeMap<SocketAddr, u32>,
        plan: &mut TablePlan<'_>,
    ) -> Result<()> {
        let Numbered { id, wanted, .. } = *numbered;
        let frontends = || wanted.frontends.iter().filter(|(f, _)| f.is_ipv4() == ipv4);
        if frontends().next().is_none() {
            return Ok(());
        }
        let backends: Vec<(u32, SocketAddr)> = usable
            .iter()
            .filter(|(addr, _)| addr.is_ipv4() == ipv4)
            .map(|(addr, id)| (*id, *addr))
            .collect();
        let table = table_of(&backends);
        let (start, new) = plan.place(id, ipv4, &table)?;
        for (frontend, options) in frontends() {
            let value = service {
                id,
                seed: seed(numbered.name),
                table: start as u32,
                table_size: table.len() as u32,
                affinity: wanted
                    .affinity
                    .map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)),
                group: numbered.groups.get(frontend).copied().unwrap_or_default(),
                masquerade: options.masquerade.into(),
                pad: [0; 3],
            };
            self.frontends.push((endpoint_key(*frontend), value));
        }
        if new {
            self.tables.push((start, table));
        }
        Ok(())
    }

    /// Backends that nobody wants: they drain while an association has them, and go then.
    fn keep_draining(&mut self, maps: &Maps, in_use: &HashSet<u32>) -> Result<()> {
        let wanted: HashSet<u32> = self.backends.iter().map(|(id, _)| *id).collect();
        for (id, mut backend) in maps.backends.entries()? {
            if !wanted.contains(&id) && in_use.contains(&id) {
                backend.draining = 1;
                self.backends.push((id, backend));
            }
        }
        Ok(())
    }

    /// All addresses of backends, with their ports.
    fn backend_endpoints(&self) -> Vec<(endpoint, u8)> {
        let endpoints = self.backends.iter().flat_map(|(_, backend)| {
            let port = endpoint_addr(&backend.addr).port();
            let addrs = backend.addrs.addrs();
            addrs.map(move |addr| SocketAddr::new(addr, port))
        });
        // Several services may have one backend.
        let unique: BTreeSet<_> = endpoints.collect();
        unique.into_iter().map(|e| (endpoint_key(e), 1)).collect()
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        let frontends = self.frontends.iter().map(|(key, _)| addr(key.addr.word));
        let backends = self.backends.iter().flat_map(|(_, b)| b.addrs.addrs());
        frontends.chain(backends).collect()
    }
}

/// Policies of the endpoints, as the maps have them.
#[derive(Default)]
struct WantedPolicies {
    endpoints: Vec<(IpAddr, [Option<Prefixes>; 2])>,
}

type Prefixes = BTreeMap<Ipv6Net, Vec<PortRange>>;

/// The most ranges of ports for a prefix (`MAX_PORT_RANGES` of `bpf/lb_types.h`).
const MAX_PORT_RANGES: usize = 16;

impl WantedPolicies {
    fn new(policies: &BTreeMap<IpAddr, EndpointPolicy>) -> Result<Self> {
        let mut wanted = Self::default();
        for (endpoint, policy) in policies {
            let compile = |rules: &Option<Vec<PolicyRule>>| rules.as_deref().map(policy::compile);
            // In the order of enum policy_dir.
            let directions = [compile(&policy.ingress), compile(&policy.egress)];
            for ports in directions.iter().flatten().flat_map(BTreeMap::values) {
                if ports.len() > MAX_PORT_RANGES {
                    return Err(Error::Limit {
                        what: format!("separate port ranges in the policies of {endpoint}"),
                        wanted: ports.len(),
                        most: MAX_PORT_RANGES,
                    });
                }
            }
            wanted.endpoints.push((*endpoint, directions));
        }
        Ok(wanted)
    }
}

/// What is to be written, and removed, for the policies.
#[derive(Default)]
struct PolicyPlan {
    prefixes: Vec<(policy_key, policy_ports)>,
    endpoints: Vec<(ip_addr, endpoint_policy)>,
    removed: Vec<ip_addr>,
    /// Prefixes of the endpoints as they were.
    stale: Vec<policy_key>,
    /// Prefixes of no endpoint, which a process left that did not come to its end.
    orphans: Vec<policy_key>,
    /// Prefixes that are there while the new ones are written, other than orphans.
    nr_kept: usize,
    /// Endpoints before any is removed.
    nr_endpoints: usize,
}

impl PolicyPlan {
    /// The most prefixes that there are at a time.
    fn nr_prefixes(&self) -> usize {
        self.nr_kept + self.prefixes.len()
    }
}

fn map_ports(ports: &[PortRange]) -> policy_ports {
    let mut value = policy_ports {
        nr: ports.len() as u32,
        ..Default::default()
    };
    for (to, from) in value.range.iter_mut().zip(ports) {
        *to = port_range {
            first: from.first,
            last: from.last,
        };
    }
    value
}

/// The entries of an endpoint's directions, under a number of its own.
fn prefix_entries(id: u32, directions: &[Option<Prefixes>; 2]) -> Vec<(policy_key, policy_ports)> {
    let entries = (0u32..).zip(directions).flat_map(|(direction, prefixes)| {
        prefixes.iter().flatten().map(move |(prefix, ports)| {
            let key = policy_key {
                prefix_len: 32 + u32::from(prefix.prefix_len()),
                endpoint: (id * 2 + direction).to_be(),
                peer: addr_key(prefix.network().into()),
            };
            (key, map_ports(ports))
        })
    });
    entries.collect()
}

/// The prefixes of each endpoint that are in the map, by its number.
fn prefixes_by_endpoint(maps: &Maps) -> Result<HashMap<u32, Vec<(policy_key, policy_ports)>>> {
    let mut by_endpoint: HashMap<u32, Vec<_>> = HashMap::new();
    for (key, value) in maps.policy_prefixes.entries()? {
        let id = u32::from_be(key.endpoint) / 2;
        by_endpoint.entry(id).or_default().push((key, value));
    }
    Ok(by_endpoint)
}

fn same_entries(one: &[(policy_key, policy_ports)], other: &[(policy_key, policy_ports)]) -> bool {
    let sorted = |entries: &[(policy_key, policy_ports)]| {
        let bytes = entries
            .iter()
            .map(|(key, value)| [key.bytes(), value.bytes()].concat());
        bytes.collect::<BTreeSet<_>>()
    };
    sorted(one) == sorted(other)
}

impl Maps {
    /// Makes the maps say what is wanted.
    ///
    /// # Errors
    /// If there is no room for it: nothing is changed then.
    pub fn apply(&self, desired: &Desired) -> Result<Changes> {
        let mut slots = Slots::open(&self.tables)?;
        let wanted = self.plan(desired, &slots)?;
        let policies = self.plan_policies(&WantedPolicies::new(&desired.policies)?)?;
        let backends = difference(&self.backends, &wanted.backends)?;
        let groups = difference(&self.vips, &wanted.groups)?;
        self.check_room(&wanted, &backends, &groups, &policies)?;
        let endpoints = difference(&self.backend_endpoints, &wanted.backend_endpoints())?;

        let mut changes = Changes::default();
        self.apply_addresses(&wanted, desired)?;
        self.apply_policies(&policies, &mut changes)?;
        self.backend_endpoints.set_all(&endpoints.set)?;
        self.apply_services(&wanted, backends, groups, &mut slots, &mut changes)?;
        self.backend_endpoints.remove_all(&endpoints.remove)?;
        Ok(changes)
    }

    /// Sets the addresses of this node that packets get as their source, where a service
    /// masquerades.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_masquerade(&self, addrs: &[IpAddr]) -> Result<()> {
        let mut settings = self.settings()?;
        for addr in addrs {
            settings.masquerade[usize::from(addr.is_ipv6())] = addr_key(*addr);
        }
        self.settings.insert(&0, &settings)
    }

    /// This node's addresses that packets get as their source, IPv4 and IPv6, as far as it has any.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn masquerade(&self) -> Result<Vec<IpAddr>> {
        let known = self.settings()?.masquerade;
        let known = known.iter().filter(|known| known.word != [0; 4]);
        Ok(known.map(|known| addr(known.word)).collect())
    }

    /// Sets whether backends are reached by their services only: their packets without an
    /// association that is known are dropped.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_service_only(&self, service_only: bool) -> Result<()> {
        let mut settings = self.settings()?;
        settings.service_only = service_only.into();
        self.settings.insert(&0, &settings)
    }

    /// Notes which network namespace the devices are in.
    pub(super) fn set_netns(&self, cookie: u64) -> Result<()> {
        let mut settings = self.settings()?;
        settings.netns = cookie;
        self.settings.insert(&0, &settings)
    }

    pub(super) fn settings(&self) -> Result<lb_settings> {
        Ok(self.settings.get(&0)?.unwrap_or_default())
    }

    fn plan(&self, desired: &Desired, slots: &Slots) -> Result<Wanted> {
        let mut numbers = Numbering::read(self)?;
        let mut plan = TablePlan::read(self, slots)?;
        let mut wanted = Wanted::default();
        for (name, service) in &desired.services {
            wanted.add(&name.to_string(), service, &mut numbers, &mut plan)?;
        }
        wanted.groups = numbers.groups.into_lists();
        wanted.keep_draining(self, &numbers.backends_in_use)?;
        Ok(wanted)
    }

    fn check_room(
        &self,
        wanted: &Wanted,
        backends: &Difference<u32, backend>,
        groups: &Difference<u32, addr_list>,
        policies: &PolicyPlan,
    ) -> Result<()> {
        // What goes is there until what comes has been added.
        let rooms = [
            (
                "frontends of services",
                wanted.frontends.len(),
                self.services.max_entries(),
            ),
            (
                "groups of frontends, with those that go",
                wanted.groups.len() + groups.remove.len(),
                self.vips.max_entries(),
            ),
            (
                "services",
                wanted.names.len(),
                self.service_names.max_entries(),
            ),
            (
                "backends, with those that go",
                wanted.backends.len() + backends.remove.len(),
                self.backends.max_entries(),
            ),
            (
                "endpoints with a policy",
                policies.nr_endpoints,
                self.policy_endpoints.max_entries(),
            ),
            (
                "prefixes of policies, with those that go",
                policies.nr_prefixes(),
                self.policy_prefixes.max_entries(),
            ),
        ];
        for (what, wanted, room) in rooms {
            check_room(what, wanted, room)?;
        }
        Ok(())
    }

    fn apply_addresses(&self, wanted: &Wanted, desired: &Desired) -> Result<()> {
        let addrs = wanted.addresses();
        let addrs = addrs.iter().chain(desired.policies.keys());
        let entries: Vec<_> = addrs.map(|addr| (addr_key(*addr), 1)).collect();
        let difference = difference(&self.our_addrs, &entries)?;
        self.our_addrs.remove_all(&difference.remove)?;
        self.our_addrs.set_all(&difference.set)?;
        Ok(())
    }

    /// What a packet meets is complete at any time: a table, and a group's VIPs, are written before
    /// a service has them, a backend is there before a table has it, and drains when no table has
    /// it any more.
    fn apply_services(
        &self,
        wanted: &Wanted,
        backends: Difference<u32, backend>,
        groups: Difference<u32, addr_list>,
        slots: &mut Slots,
        changes: &mut Changes,
    ) -> Result<()> {
        for (_, backend) in &backends.set {
            if backend.draining == 0 {
                changes.backends_added += 1;
            } else {
                changes.backends_drained += 1;
            }
        }
        let (draining, usable): (Vec<_>, Vec<_>) = backends
            .set
            .into_iter()
            .partition(|(_, backend)| backend.draining != 0);
        self.backends.set_all(&usable)?;
        for (start, table) in &wanted.tables {
            slots.write(*start, table);
        }
        self.vips.set_all(&groups.set)?;
        let frontends = difference(&self.services, &wanted.frontends)?;
        changes.frontends_removed = self.services.remove_all(&frontends.remove)?;
        changes.frontends_set = self.services.set_all(&frontends.set)? + groups.replaced;
        self.vips.remove_all(&groups.remove)?;
        self.backends.set_all(&draining)?;
        changes.backends_removed = self.backends.remove_all(&backends.remove)?;
        let names = difference(&self.service_names, &wanted.names)?;
        self.service_names.remove_all(&names.remove)?;
        self.service_names.set_all(&names.set)?;
        Ok(())
    }

    fn plan_policies(&self, wanted: &WantedPolicies) -> Result<PolicyPlan> {
        let mut current: BTreeMap<IpAddr, endpoint_policy> = self
            .policy_endpoints
            .entries()?
            .into_iter()
            .map(|(key, value)| (addr(key.word), value))
            .collect();
        let mut prefixes = prefixes_by_endpoint(self)?;
        let used = prefixes.keys().copied();
        let mut numbers = Numbers::new(used.chain(current.values().map(|value| value.id)));
        let known: HashSet<u32> = current.values().map(|value| value.id).collect();
        let mut plan = PolicyPlan {
            nr_endpoints: current.len(),
            ..Default::default()
        };

        for (endpoint, directions) in &wanted.endpoints {
            let selected = [0, 1].map(|dir| u8::from(directions[dir].is_some()));
            match current.remove(endpoint) {
                Some(old) => {
                    let entries = prefixes.remove(&old.id).unwrap_or_default();
                    let same = same_entries(&entries, &prefix_entries(old.id, directions));
                    plan.nr_kept += entries.len();
                    if old.selected == selected && same {
                        continue;
                    }
                    plan.stale.extend(entries.into_iter().map(|(key, _)| key));
                }
                None => plan.nr_endpoints += 1,
            }
            let id = numbers.take();
            let pad = [0; 2];
            let value = endpoint_policy { id, selected, pad };
            plan.prefixes.extend(prefix_entries(id, directions));
            plan.endpoints.push((addr_key(*endpoint), value));
        }
        plan.removed = current.keys().map(|addr| addr_key(*addr)).collect();
        for (id, entries) in prefixes {
            let keys = entries.into_iter().map(|(key, _)| key);
            if known.contains(&id) {
                plan.nr_kept += keys.len();
                plan.stale.extend(keys);
            } else {
                plan.orphans.extend(keys);
            }
        }
        Ok(plan)
    }

    /// An endpoint whose policy changes gets another number, under which the new prefixes are,
    /// so that it is judged by the old ones or by the new ones, and not by some of each.
    fn write_policies(&self, plan: &PolicyPlan, changes: &mut Changes) -> Result<()> {
        self.policy_prefixes.remove_all(&plan.orphans)?;
        self.policy_prefixes.set_all(&plan.prefixes)?;
        changes.policies_set = self.policy_endpoints.set_all(&plan.endpoints)?;
        changes.policies_removed = self.policy_endpoints.remove_all(&plan.removed)?;
        self.policy_prefixes.remove_all(&plan.stale)?;
        Ok(())
    }

    /// Has all associations judged again: also where there is no change, as the last process may
    /// have ended between its change and this.
    fn apply_policies(&self, plan: &PolicyPlan, changes: &mut Changes) -> Result<()> {
        let written = self.write_policies(plan, changes);
        let mut settings = self.settings()?;
        settings.generation = settings.generation.wrapping_add(1);
        self.settings.insert(&0, &settings)?;
        written
    }
}
