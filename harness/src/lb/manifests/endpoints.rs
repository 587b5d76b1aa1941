// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Who serves a service: its `EndpointSlice`s.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as Listed, EndpointPort, EndpointSlice};

use super::networks::Networks;
use super::reading::{Object, Objects};
use super::targets::Target;
use super::values;
use crate::error::Result;
use crate::lb::model::Backend;

/// Names the service that a slice is of.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An endpoint that serves, or still does.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    addr: SocketAddr,
    secondary: Vec<IpAddr>,
    pod: Option<Target>,
    /// It takes new associations. If not, it terminates.
    ready: bool,
    node: Option<String>,
}

impl Endpoint {
    fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.addr.ip()).chain(self.secondary.iter().copied())
    }

    /// Adds those of `addrs` that it does not have yet.
    fn add(&mut self, addrs: impl IntoIterator<Item = IpAddr>) {
        for addr in addrs {
            if !self.addrs().any(|known| known == addr) {
                self.secondary.push(addr);
            }
        }
    }

    fn is_same_pod(&self, other: &Self) -> bool {
        let pods = self.pod.as_ref().zip(other.pod.as_ref());
        pods.is_some_and(|(pod, other)| pod.is_same(other))
    }

    /// Whether both are one backend, listed for each of its families.
    fn is_other_family_of(&self, other: &Self) -> bool {
        self.is_same_pod(other)
            && self.addr.port() == other.addr.port()
            && self.addr.is_ipv4() != other.addr.is_ipv4()
    }
}

/// All slices, and the pods that are in them.
pub(super) struct Slices<'a> {
    /// By the namespace and name of their services.
    by_service: BTreeMap<(&'a str, &'a str), Vec<&'a Object<EndpointSlice>>>,
    networks: Networks<'a>,
}

impl<'a> Slices<'a> {
    /// Sorts the slices by their services.
    pub fn new(objects: &'a Objects, notes: &mut Vec<String>) -> Self {
        let services = objects.services.iter();
        let mut by_service: BTreeMap<_, Vec<_>> = services
            .map(|object| {
                (
                    (object.namespace.as_str(), object.name.as_str()),
                    Vec::new(),
                )
            })
            .collect();
        for object in &objects.slices {
            let labels = object.it.metadata.labels.as_ref();
            let service = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL));
            let service = service.map_or("", String::as_str);
            match by_service.get_mut(&(object.namespace.as_str(), service)) {
                Some(slices) => slices.push(object),
                None if has_sctp(&object.it) => notes.push(of_no_service(object, service)),
                None => {}
            }
        }
        Self {
            by_service,
            networks: Networks::new(objects),
        }
    }

    /// The endpoints of a port of `service`, by their primary addresses.
    pub fn endpoints(
        &self,
        service: &Object<Service>,
        port: &ServicePort,
    ) -> Result<Vec<Endpoint>> {
        let key = (service.namespace.as_str(), service.name.as_str());
        let spec = service.it.spec.as_ref();
        let mut found = Found {
            name: port.name.as_deref().unwrap_or_default(),
            not_ready_too: spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true),
            endpoints: BTreeMap::new(),
            owners: BTreeMap::new(),
        };
        for slice in self.by_service.get(&key).into_iter().flatten() {
            found.add(slice)?;
        }
        found.join_families();
        found.add_networks(&self.networks)?;
        Ok(found.endpoints.into_values().collect())
    }

    /// Says which ports in its slices go nowhere: those of SCTP that are none of the service's, which
    /// have these names, and those of another protocol that only have the name of one.
    pub fn unnamed_ports(&self, service: &Object<Service>, names: &[&str]) -> Vec<String> {
        let key = (service.namespace.as_str(), service.name.as_str());
        let slices = self.by_service.get(&key).into_iter().flatten();
        let ports = slices.flat_map(|slice| {
            let ports = slice.it.ports.iter().flatten().enumerate();
            ports.map(move |(index, port)| (slice, index, port))
        });
        let unnamed = ports.filter_map(|(slice, index, port)| {
            let name = port.name.as_deref().unwrap_or_default();
            let is_sctp = values::is_sctp(port.protocol.as_deref()) == Ok(true);
            let title = slice.title();
            let service = service.title();
            let problem = match (is_sctp, names.contains(&name)) {
                (true, false) => format!("{service} has no port of SCTP named {name:?}"),
                (false, true) => {
                    format!("{name:?} is SCTP in {service}, and not here: not used")
                }
                _ => return None,
            };
            Some(format!("{title}: ports[{index}]: {problem}"))
        });
        unnamed.collect()
    }
}

/// Says that several of a service's addresses lead to one of an endpoint that has fewer, if so.
pub(super) fn several_lead_to_one(endpoints: &[Endpoint], addrs: &[IpAddr]) -> Option<String> {
    let of_family = |ipv4| move |addr: &IpAddr| addr.is_ipv4() == ipv4;
    let addrs: BTreeSet<_> = addrs.iter().copied().collect();
    [("IPv4", true), ("IPv6", false)].into_iter().find_map(|(family, ipv4)| {
        let several = addrs.iter().copied().filter(of_family(ipv4)).count();
        let fewer = endpoints.iter().filter(|endpoint| {
            let has = endpoint.addrs().filter(of_family(ipv4)).count();
            (1..several).contains(&has)
        });
        let fewer = fewer.count();
        (fewer > 0).then(|| {
            format!("{several} {family} addresses, but {fewer} of its endpoints have fewer: several lead to one")
        })
    })
}

/// Whether there are endpoints, and none is on the node of this name.
pub(super) fn are_elsewhere(slices: &[Object<EndpointSlice>], node: &str) -> bool {
    let endpoints = || {
        slices
            .iter()
            .flat_map(|slice| slice.it.endpoints.iter().flatten())
    };
    endpoints().next().is_some() && endpoints().all(|e| e.node_name.as_deref() != Some(node))
}

fn has_sctp(slice: &EndpointSlice) -> bool {
    let mut ports = slice.ports.iter().flatten();
    ports.any(|port| values::is_sctp(port.protocol.as_deref()) == Ok(true))
}

fn of_no_service(slice: &Object<EndpointSlice>, service: &str) -> String {
    let title = slice.title();
    match service {
        "" => format!("{title}: no label {SERVICE_NAME_LABEL}: serves no service"),
        service => format!(
            "{title}: Service {}/{service} is not there",
            slice.namespace
        ),
    }
}

/// The endpoints of one port of a service, as they are found.
struct Found<'a> {
    name: &'a str,
    not_ready_too: bool,
    endpoints: BTreeMap<SocketAddr, Endpoint>,
    /// Whose an address is, by the primary address.
    owners: BTreeMap<SocketAddr, SocketAddr>,
}

impl Found<'_> {
    fn add(&mut self, slice: &Object<EndpointSlice>) -> Result<()> {
        for (index, port) in slice.it.ports.iter().flatten().enumerate() {
            let name = port.name.as_deref().unwrap_or_default();
            let is_sctp = values::is_sctp(port.protocol.as_deref());
            if !slice.check(format!("ports[{index}].protocol"), is_sctp)? || name != self.name {
                continue;
            }
            let port = port_number(slice, index, port)?;
            for (index, listed) in slice.it.endpoints.iter().flatten().enumerate() {
                self.add_endpoint(slice, index, listed, port)?;
            }
        }
        Ok(())
    }

    fn add_endpoint(
        &mut self,
        slice: &Object<EndpointSlice>,
        index: usize,
        listed: &Listed,
        port: u16,
    ) -> Result<()> {
        let addrs = addresses(slice, index, listed)?;
        let Some(ready) = self.serves(listed) else {
            return Ok(());
        };
        let addr = SocketAddr::new(addrs[0], port);
        for (place, path) in addrs.iter().enumerate() {
            let owner = self.owners.entry(SocketAddr::new(*path, port));
            let owner = *owner.or_insert(addr);
            if owner != addr {
                let field = format!("endpoints[{index}].addresses[{place}]");
                let problem = format!("{path} is an address of the endpoint {owner} too");
                return Err(slice.error(field, problem));
            }
        }
        // While slices are rearranged an endpoint may be in two of them.
        if self.endpoints.get(&addr).is_some_and(|other| other.ready) {
            return Ok(());
        }
        let endpoint = Endpoint {
            addr,
            secondary: addrs[1..].to_vec(),
            pod: Target::of(slice, listed),
            ready,
            node: listed.node_name.clone(),
        };
        self.endpoints.insert(addr, endpoint);
        Ok(())
    }

    /// Gives each endpoint the addresses that its pod has in the other family.
    fn join_families(&mut self) {
        let mut by_pod: HashMap<_, Vec<_>> = HashMap::new();
        let listed = self.endpoints.clone();
        for endpoint in listed.values() {
            if let Some(pod) = &endpoint.pod {
                by_pod.entry(pod.id()).or_default().push(endpoint);
            }
        }
        for endpoint in self.endpoints.values_mut() {
            let pod = endpoint.pod.as_ref();
            let same = pod.and_then(|pod| by_pod.get(&pod.id()));
            let same = same.into_iter().flatten();
            let others = same.filter(|other| other.is_other_family_of(endpoint));
            let addrs: Vec<_> = others.flat_map(|other| other.addrs()).collect();
            endpoint.add(addrs);
        }
    }

    /// Gives each endpoint the addresses that its pod has in other networks.
    fn add_networks(&mut self, networks: &Networks<'_>) -> Result<()> {
        let mut all = Vec::new();
        for (addr, endpoint) in &self.endpoints {
            let further = endpoint.pod.as_ref().map(|pod| networks.further(pod));
            let Some(further) = further.transpose()?.flatten() else {
                continue;
            };
            for path in &further.addrs {
                let owner = self.owners.entry(SocketAddr::new(*path, addr.port()));
                let owner = *owner.or_insert(*addr);
                let of_same_pod = |owner: &Endpoint| owner.is_same_pod(endpoint);
                if !self.endpoints.get(&owner).is_some_and(of_same_pod) {
                    let problem = format!("{path} is an address of the endpoint {owner} too");
                    return Err(further.pod.error(further.field, problem));
                }
            }
            all.push((*addr, further.addrs));
        }
        for (addr, further) in all {
            if let Some(endpoint) = self.endpoints.get_mut(&addr) {
                endpoint.add(further);
            }
        }
        Ok(())
    }

    /// Whether an endpoint serves new associations, or at least (`Some(false)`) those it has.
    fn serves(&self, listed: &Listed) -> Option<bool> {
        let conditions = listed.conditions.clone().unwrap_or_default();
        if self.not_ready_too || conditions.ready.unwrap_or(true) {
            return Some(true);
        }
        let serves = conditions.serving.unwrap_or(true);
        (serves && conditions.terminating == Some(true)).then_some(false)
    }
}

fn port_number(slice: &Object<EndpointSlice>, index: usize, port: &EndpointPort) -> Result<u16> {
    let field = format!("ports[{index}].port");
    let Some(number) = port.port else {
        return Err(slice.error(field, "is missing: a service's port needs a number"));
    };
    slice.check(field, values::port(number))
}

/// The addresses of an endpoint, of the family that the slice is of: at least one, each once.
fn addresses(slice: &Object<EndpointSlice>, index: usize, listed: &Listed) -> Result<Vec<IpAddr>> {
    let family = slice.it.address_type.as_str();
    if !matches!(family, "IPv4" | "IPv6") {
        let problem = format!("\"{family}\" is neither IPv4 nor IPv6");
        return Err(slice.error("addressType", problem));
    }
    let mut addrs = Vec::new();
    for (place, text) in listed.addresses.iter().enumerate() {
        let field = format!("endpoints[{index}].addresses[{place}]");
        let addr = slice.check(&field, values::address(text))?;
        if addr.is_ipv4() != (family == "IPv4") {
            return Err(slice.error(
                field,
                format!("{addr} is not {family}, as addressType says"),
            ));
        }
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() {
        return Err(slice.error(format!("endpoints[{index}].addresses"), "is empty"));
    }
    Ok(addrs)
}

/// The endpoints, or those on `node` only, as backends. Those that terminate get no new
/// associations unless their family has no others.
pub(super) fn backends(endpoints: &[Endpoint], node: Option<&str>) -> Vec<Backend> {
    let here = |endpoint: &&Endpoint| node.is_none() || endpoint.node.as_deref() == node;
    let here: Vec<_> = endpoints.iter().filter(here).collect();
    let is_served = |ipv4| {
        let mut ready = here.iter().filter(|endpoint| endpoint.ready);
        ready.any(|endpoint| endpoint.addr.is_ipv4() == ipv4)
    };
    let served = [is_served(false), is_served(true)];
    let backend = |endpoint: &&Endpoint| Backend {
        addr: endpoint.addr,
        secondary: endpoint.secondary.clone(),
        draining: !endpoint.ready && served[usize::from(endpoint.addr.is_ipv4())],
    };
    here.iter().map(backend).collect()
}
