// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Where clients reach a service: `Service`s, as kube-proxy understands them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::endpoints::{self, Endpoint, Slices};
use super::reach::{self, Reach};
use super::reading::{Object, Objects};
use super::{Manifests, left_to_others, values};
use crate::error::Result;
use crate::lb::model::{self, Frontend, ServiceName};

/// Marks the part of a service that only endpoints of this node serve.
const LOCAL_SUFFIX: &str = " (local)";

/// Makes the services.
pub(super) fn build(
    objects: &Objects,
    options: &Manifests,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<ServiceName, model::Service>> {
    let mut builder = Builder {
        slices: Slices::new(objects, notes),
        options,
        notes,
        services: BTreeMap::new(),
        names: BTreeSet::new(),
        claims: BTreeMap::new(),
        local: false,
    };
    for object in &objects.services {
        builder.add(object)?;
    }
    let Builder {
        services, local, ..
    } = builder;
    if let Some(node) = &options.node_name
        && local
        && endpoints::are_elsewhere(&objects.slices, node)
    {
        notes.push(format!("node name {node}: no endpoint is on that node"));
    }
    Ok(services)
}

type Frontends = BTreeMap<SocketAddr, Frontend>;

/// Where clients of one kind, in the cluster or outside, reach a port.
struct Side {
    frontends: Frontends,
    /// Only endpoints of this node serve it.
    local: bool,
}

struct Builder<'a> {
    slices: Slices<'a>,
    options: &'a Manifests,
    notes: &'a mut Vec<String>,
    services: BTreeMap<ServiceName, model::Service>,
    names: BTreeSet<ServiceName>,
    /// Whose each frontend is.
    claims: BTreeMap<SocketAddr, ServiceName>,
    /// Some service is for endpoints of this node only.
    local: bool,
}

impl Builder<'_> {
    fn add(&mut self, object: &Object<Service>) -> Result<()> {
        let spec = object.it.spec.clone().unwrap_or_default();
        let ports = self.our_ports(object, &spec)?;
        let names = ports.iter().map(|(_, port)| port.name.as_deref());
        let names: Vec<_> = names.map(Option::unwrap_or_default).collect();
        self.notes.extend(self.slices.unnamed_ports(object, &names));
        if ports.is_empty() {
            return Ok(());
        }
        reach::check_words(object, &spec)?;
        if let Some(why) = reach::has_no_frontend(&spec) {
            self.notes.push(format!("{}: {why}", object.title()));
            return Ok(());
        }
        let reach = Reach::of(object, &spec, self.options, self.notes)?;
        for (index, port) in ports {
            self.add_port(object, &reach, &format!("spec.ports[{index}]"), port)?;
        }
        Ok(())
    }

    fn our_ports<'s>(
        &mut self,
        object: &Object<Service>,
        spec: &'s ServiceSpec,
    ) -> Result<Vec<(usize, &'s ServicePort)>> {
        let mut ours = Vec::new();
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref();
            let field = format!("spec.ports[{index}].protocol");
            if object.check(field, values::is_sctp(protocol))? {
                ours.push((index, port));
            } else {
                let what = format!("{} port {}", object.id(), port.port);
                self.notes.push(left_to_others(&what, protocol));
            }
        }
        Ok(ours)
    }

    fn add_port(
        &mut self,
        object: &Object<Service>,
        reach: &Reach,
        field: &str,
        port: &ServicePort,
    ) -> Result<()> {
        let name = self.name(object, field, port)?;
        let endpoints = self.slices.endpoints(object, port)?;
        let [internal, external] = self.sides(object, reach, field, port)?;
        for addr in internal.frontends.keys().chain(external.frontends.keys()) {
            if let Some(other) = self.claims.insert(*addr, name.clone()) {
                let problem = format!("{addr} of {name} is a frontend of {other} already");
                return Err(object.error(field, problem));
            }
        }
        if internal.frontends.is_empty() && external.frontends.is_empty() {
            self.notes
                .push(format!("{name}: no address that clients could reach it at"));
        } else if endpoints.is_empty() {
            self.notes.push(format!("{name}: no endpoints"));
        }
        let note = endpoints::several_lead_to_one(&endpoints, &reach.internal);
        self.notes
            .extend(note.map(|note| format!("{name}: {note}")));
        self.insert(name, [internal, external], &endpoints, reach);
        Ok(())
    }

    fn name(
        &mut self,
        object: &Object<Service>,
        field: &str,
        port: &ServicePort,
    ) -> Result<ServiceName> {
        let named = port.name.clone().filter(|name| !name.is_empty());
        let name = ServiceName {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            port: named.unwrap_or_else(|| port.port.to_string()),
        };
        if !self.names.insert(name.clone()) {
            let problem = format!("another port is {name} already: name them apart");
            return Err(object.error(format!("{field}.name"), problem));
        }
        Ok(name)
    }

    /// Where clients in the cluster reach a port, and where those outside do.
    fn sides(
        &mut self,
        object: &Object<Service>,
        reach: &Reach,
        field: &str,
        port: &ServicePort,
    ) -> Result<[Side; 2]> {
        let number = object.check(format!("{field}.port"), values::port(port.port))?;
        let mut internal = Frontends::new();
        let in_cluster = Frontend::default();
        add_frontends(&mut internal, &reach.internal, number, in_cluster);
        let outside = Frontend {
            // Backends of other nodes would answer past this one.
            masquerade: !reach.external_local,
            reach: model::Reach::External,
            ..Default::default()
        };
        let mut external = Frontends::new();
        add_frontends(&mut external, &reach.external, number, outside);
        if let Some(node_port) = port.node_port.filter(|number| *number != 0) {
            let field = format!("{field}.nodePort");
            let node_port = object.check(field, values::port(node_port))?;
            let at_node = Frontend {
                reach: model::Reach::Node,
                ..outside
            };
            add_frontends(&mut external, &reach.node, node_port, at_node);
            if reach.node.is_empty() {
                self.notes.push(format!(
                    "{} node port {node_port}: this node has no address of the service's family",
                    object.id()
                ));
            }
        }
        external.retain(|addr, _| !internal.contains_key(addr));
        let side = |frontends, local| Side { frontends, local };
        Ok([
            side(internal, reach.internal_local),
            side(external, reach.external_local),
        ])
    }

    /// A service has one list of backends: where the sides' differ, they are two services.
    fn insert(
        &mut self,
        name: ServiceName,
        sides: [Side; 2],
        endpoints: &[Endpoint],
        reach: &Reach,
    ) {
        let node = self.options.node_name.as_deref();
        let used = sides.into_iter().filter(|side| !side.frontends.is_empty());
        let services = used.map(|Side { frontends, local }| {
            let service = model::Service {
                frontends,
                backends: endpoints::backends(endpoints, node.filter(|_| local)),
                affinity: reach.affinity,
            };
            (service, local)
        });
        let mut services: Vec<_> = services.collect();
        if let [(one, _), (other, _)] = services.as_mut_slice() {
            if one.backends == other.backends {
                one.frontends.append(&mut other.frontends);
                services.truncate(1);
            }
        }
        let several = services.len() > 1;
        for (service, local) in services {
            self.local |= local;
            let mut name = name.clone();
            if several && local {
                name.port += LOCAL_SUFFIX;
            }
            self.services.insert(name, service);
        }
    }
}

/// Adds frontends at `addrs`, in their order. One that is there stays as it is.
fn add_frontends(frontends: &mut Frontends, addrs: &[IpAddr], port: u16, like: Frontend) {
    for (order, addr) in addrs.iter().enumerate() {
        let frontend = frontends.entry(SocketAddr::new(*addr, port));
        frontend.or_insert(Frontend { order, ..like });
    }
}
