// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What the load balancer is to do, whoever says so: manifests today, an API server later.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// All that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Services by their names.
    pub services: BTreeMap<ServiceName, Service>,
    /// Policies by the address of the endpoint that they select. An endpoint with several
    /// addresses is here once for each.
    pub policies: BTreeMap<IpAddr, EndpointPolicy>,
}

/// A port of a service: each is balanced on its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The port's name, or its number where it has none.
    pub port: String,
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// A service's port: where clients reach it, and who serves them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Where clients reach it, by address and port. Those that are alike, but for their order,
    /// are the addresses (VIPs) of one multihomed service: the n-th of a family leads to the n-th
    /// address of that family of a backend.
    pub frontends: BTreeMap<SocketAddr, Frontend>,
    /// Who serves them.
    pub backends: Vec<Backend>,
    /// A client's associations go to one backend if the next comes within this time.
    pub affinity: Option<Duration>,
}

/// How a frontend treats its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frontend {
    /// Backends see this node's address, not the client's, so that they answer to this node.
    pub masquerade: bool,
    /// Whose clients come here.
    pub reach: Reach,
    /// Its place among the service's addresses of this reach, as they are written.
    pub order: usize,
}

/// Who is to reach a frontend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Clients in the cluster.
    #[default]
    Cluster,
    /// Clients outside, at an address of the service.
    External,
    /// Clients outside, at an address of this node.
    Node,
}

/// Who serves a service. It is listed once for each family that it has an address of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its primary address, and port.
    pub addr: SocketAddr,
    /// Its other addresses, of either family and in their order, for multihoming.
    pub secondary: Vec<IpAddr>,
    /// It keeps the associations that it has, and gets no new ones.
    pub draining: bool,
}

/// What an endpoint may do. A direction without rules (`None`) is not restricted; one with an
/// empty list denies all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Who may associate with it.
    pub ingress: Option<Vec<PolicyRule>>,
    /// With whom it may associate.
    pub egress: Option<Vec<PolicyRule>>,
}

/// Allows some peers at some ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Any of these; a rule for everybody names `0.0.0.0/0` and `::/0`.
    pub peers: Vec<Block>,
    /// Any of these ports of the destination; a rule for all ports names 0 to 65535.
    pub ports: Vec<PortRange>,
}

/// Addresses, but for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Of these,
    pub net: IpNet,
    /// but for those.
    pub except: Vec<IpNet>,
}

/// Ports from the first to the last, which is one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// Where the wanted comes from.
pub trait Source {
    /// Reads all of it, or says what is wrong with it.
    ///
    /// # Errors
    /// If any part of it is not understood: nothing is to be changed then.
    fn read(&self) -> crate::Result<Desired>;
}
