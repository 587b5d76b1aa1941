// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What the datapath's maps say: services, backends and policies.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::maps::{Maps, TypedMap, endpoint_addr};
use crate::error::Result;
use crate::map_bytes::{MapBytes, addr};

/// Stands for a service that has associations still.
pub(super) const REMOVED: &str = "(removed)";

/// A frontend of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceEntry {
    /// The service's port, as `namespace/name:port`.
    pub service: String,
    /// Where clients reach it.
    pub frontend: SocketAddr,
    /// All addresses of the frontends that are one group with it: paths of one association.
    pub paths: Vec<IpAddr>,
    /// Backends that take new associations from there.
    pub backends: usize,
    /// Whether backends see this node's address.
    pub masquerade: bool,
    /// For how many seconds a client keeps its backend; 0: no affinity.
    pub affinity: u32,
}

/// A backend of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendEntry {
    /// The service's port.
    pub service: String,
    /// The backend, by its primary address.
    pub backend: SocketAddr,
    /// All its addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Whether it gets no new associations.
    pub draining: bool,
    /// Associations that it has.
    pub associations: usize,
}

/// What an endpoint may do in one direction, with one prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyEntry {
    /// The endpoint.
    pub endpoint: IpAddr,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Its peers, of its own family. `None`: there is no rule, and it may do nothing.
    pub peers: Option<IpNet>,
    /// Ports that are allowed where this is the longest prefix that matches, as first and last.
    pub ports: Vec<(u16, u16)>,
}

/// How full a map is whose size is `attach`'s to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// What there is room for.
    #[serde(skip)]
    pub of: &'static str,
    /// How many there are.
    pub used: usize,
    /// How many there can be.
    pub size: usize,
}

impl<K: MapBytes, V: MapBytes> TypedMap<K, V> {
    fn room(&self, of: &'static str) -> Result<Room> {
        Ok(Room {
            of,
            used: self.entries()?.len(),
            size: self.max_entries(),
        })
    }
}

impl Maps {
    /// How full the maps are.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn rooms(&self) -> Result<Vec<Room>> {
        let services = self.services.entries()?;
        let tables: HashMap<_, _> = services
            .iter()
            .map(|(_, s)| (s.table, s.table_size))
            .collect();
        let slots: u32 = tables.values().sum();
        Ok(vec![
            self.assocs.room("associations")?,
            self.paths.room("paths")?,
            Room {
                of: "services",
                used: services.len(),
                size: self.services.max_entries(),
            },
            self.backends.room("backends")?,
            Room {
                of: "table slots",
                used: slots as usize,
                size: self.tables.max_entries(),
            },
            self.policy_prefixes.room("policy prefixes")?,
        ])
    }
}

/// A prefix as the user wrote it: one within `::ffff:0:0/96` is IPv4.
fn prefix(words: [u32; 4], len: u32) -> Option<IpNet> {
    let len = u8::try_from(len).ok()?;
    match addr(words) {
        IpAddr::V4(addr) => Ipv4Net::new(addr, len.checked_sub(96)?).ok().map(IpNet::V4),
        IpAddr::V6(addr) => Ipv6Net::new(addr, len).ok().map(IpNet::V6),
    }
}

type Ranges = Vec<(u16, u16)>;

/// The rules for peers of the endpoint's own family: all that it can meet.
fn of_family(rules: &[(IpNet, Ranges)], endpoint: IpAddr) -> Vec<(Option<IpNet>, Ranges)> {
    let same = rules
        .iter()
        .filter(|(net, _)| net.addr().is_ipv4() == endpoint.is_ipv4());
    let mut same: Vec<_> = same
        .cloned()
        .map(|(net, ports)| (Some(net), ports))
        .collect();
    let all = IpNet::V4(Ipv4Net::default());
    if endpoint.is_ipv4() && !same.iter().any(|(net, _)| *net == Some(all)) {
        // A prefix that is shorter than where IPv4 is in IPv6 is about all of it.
        let mapped = IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
        let around = rules.iter().filter(|(net, _)| net.contains(&mapped));
        let around = around.max_by_key(|(net, _)| net.prefix_len());
        same.extend(around.map(|(_, ports)| (Some(all), ports.clone())));
    }
    same
}

impl Maps {
    /// Names of services by their numbers.
    pub(crate) fn names(&self) -> Result<HashMap<u32, String>> {
        let names = self.service_names.entries()?;
        Ok(names
            .into_iter()
            .map(|(id, name)| (id, name.text()))
            .collect())
    }

    /// Numbers of backends by their services' numbers and primary addresses.
    pub(crate) fn backend_numbers(&self) -> Result<HashMap<(u32, SocketAddr), u32>> {
        let backends = self.backends.entries()?.into_iter();
        Ok(backends
            .map(|(id, backend)| ((backend.service, endpoint_addr(&backend.addr)), id))
            .collect())
    }

    /// All frontends, by service.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn service_list(&self) -> Result<Vec<ServiceEntry>> {
        let names = self.names()?;
        let mut usable: HashMap<(u32, bool), usize> = HashMap::new();
        for (_, backend) in self.backends.entries()? {
            if backend.draining == 0 {
                let ipv4 = endpoint_addr(&backend.addr).is_ipv4();
                *usable.entry((backend.service, ipv4)).or_default() += 1;
            }
        }
        let vips: HashMap<_, _> = self.vips.entries()?.into_iter().collect();
        let mut list: Vec<_> = self
            .services
            .entries()?
            .iter()
            .map(|(key, service)| {
                let frontend = endpoint_addr(key);
                let backends = usable.get(&(service.id, frontend.is_ipv4()));
                ServiceEntry {
                    service: names.get(&service.id).cloned().unwrap_or_default(),
                    frontend,
                    paths: vips
                        .get(&service.group)
                        .map_or_else(Vec::new, |list| list.addrs().collect()),
                    backends: backends.copied().unwrap_or_default(),
                    masquerade: service.masquerade != 0,
                    affinity: service.affinity,
                }
            })
            .collect();
        list.sort_by(|a, b| (&a.service, a.frontend).cmp(&(&b.service, b.frontend)));
        Ok(list)
    }

    /// All backends, by service.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn backend_list(&self) -> Result<Vec<BackendEntry>> {
        let names = self.names()?;
        let mut associations: HashMap<u32, usize> = HashMap::new();
        for (_, assoc) in self.assocs.entries()? {
            *associations.entry(assoc.backend).or_default() += 1;
        }
        let mut list: Vec<_> = self
            .backends
            .entries()?
            .iter()
            .map(|(id, backend)| BackendEntry {
                service: names
                    .get(&backend.service)
                    .cloned()
                    .unwrap_or_else(|| REMOVED.into()),
                backend: endpoint_addr(&backend.addr),
                addresses: backend.addrs.addrs().collect(),
                draining: backend.draining != 0,
                associations: associations.get(id).copied().unwrap_or_default(),
            })
            .collect();
        list.sort_by(|a, b| (&a.service, a.backend).cmp(&(&b.service, b.backend)));
        Ok(list)
    }

    /// All policies, by endpoint.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn policy_list(&self) -> Result<Vec<PolicyEntry>> {
        let mut rules: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (key, ports) in self.policy_prefixes.entries()? {
            let peers = prefix(key.peer.word, key.prefix_len.saturating_sub(32));
            let Some(peers) = peers else {
                continue;
            };
            let ranges = ports.range.iter().take(ports.nr as usize);
            let ranges: Vec<_> = ranges.map(|range| (range.first, range.last)).collect();
            let number = u32::from_be(key.endpoint);
            rules.entry(number).or_default().push((peers, ranges));
        }
        let mut list = Vec::new();
        for (key, endpoint) in self.policy_endpoints.entries()? {
            for (direction, name) in [(0, "ingress"), (1, "egress")] {
                if endpoint.selected[direction] == 0 {
                    continue;
                }
                let number = endpoint.id * 2 + direction as u32;
                let endpoint = addr(key.word);
                let mut peers = of_family(&rules.remove(&number).unwrap_or_default(), endpoint);
                if peers.is_empty() {
                    peers.push((None, Vec::new()));
                }
                list.extend(peers.into_iter().map(|(peers, ports)| PolicyEntry {
                    endpoint,
                    direction: name.to_string(),
                    peers,
                    ports,
                }));
            }
        }
        list.sort();
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_the_rules_of_its_family() {
        let rules = |nets: &[(&str, u16)]| -> Vec<(IpNet, Ranges)> {
            let rules = nets.iter();
            let rules =
                rules.map(|(net, port)| (net.parse().expect("a prefix"), vec![(*port, *port)]));
            rules.collect()
        };
        let shown = |nets, endpoint: &str| -> Vec<_> {
            let shown = of_family(&rules(nets), endpoint.parse().expect("an address"));
            let shown = shown.into_iter();
            shown
                .map(|(net, ports)| (net.expect("a prefix").to_string(), ports[0].0))
                .collect()
        };
        let pair = |net: &str, port| (net.to_string(), port);
        let everybody = [("::/0", 1)];
        assert_eq!(shown(&everybody, "192.0.2.1"), [pair("0.0.0.0/0", 1)]);
        assert_eq!(shown(&everybody, "2001:db8::1"), [pair("::/0", 1)]);
        let both = [("::/0", 1), ("0.0.0.0/0", 2), ("10.0.0.0/8", 3)];
        let ipv4 = [pair("0.0.0.0/0", 2), pair("10.0.0.0/8", 3)];
        assert_eq!(shown(&both, "192.0.2.1"), ipv4);
        assert_eq!(shown(&both, "2001:db8::1"), [pair("::/0", 1)]);
        assert_eq!(shown(&[("2001:db8::/32", 1)], "192.0.2.1"), []);
        let nearer = [("::/0", 1), ("::/64", 2)];
        assert_eq!(shown(&nearer, "192.0.2.1"), [pair("0.0.0.0/0", 2)]);
    }
}
