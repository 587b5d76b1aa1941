// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Two hosts that are on several networks of their own, called planes, as in a mobile core: each
//! plane leads from the client through a node to the backend, and has a VIP.
//!
//! ```text
//!             plane 0: c0 ------ to-c0  node  to-b0 ------ b0
//!   client                                                     backend
//!             plane 1: c1 ------ to-c1  node  to-b1 ------ b1
//! ```
//!
//! One node may serve all planes, or each its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Result;
use crate::lab::Family;
use crate::link::{End, connect};
use crate::netns::Namespace;

/// How many planes there are.
pub const PLANES: usize = 2;

/// The network. It is gone when this is dropped.
#[derive(Debug)]
pub struct Planes {
    /// Where associations come from.
    pub client: Namespace,
    /// One for all planes, or one for each.
    pub nodes: Vec<Namespace>,
    /// Where associations go to.
    pub backend: Namespace,
}

/// Whose address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client's.
    Client,
    /// The node's, as the client sees it.
    ClientGateway,
    /// The service's.
    Vip,
    /// The node's, as the backend sees it.
    BackendGateway,
    /// The backend's.
    Backend,
}

/// An address in a plane, of the ranges for documentation (RFC 5737, RFC 3849).
pub fn addr(role: Role, plane: usize, family: Family) -> IpAddr {
    let plane = plane as u8;
    let (v4, v6, host) = match role {
        Role::Client => ([192, 0, 2], 0x10, 1),
        Role::ClientGateway => ([192, 0, 2], 0x10, 62),
        Role::Vip => ([203, 0, 113], 0xf0, 10),
        Role::BackendGateway => ([198, 51, 100], 0x20, 62),
        Role::Backend => ([198, 51, 100], 0x20, 1),
    };
    match family {
        Family::V4 => Ipv4Addr::new(v4[0], v4[1], v4[2], 64 * plane + host).into(),
        Family::V6 => {
            let net = v6 + u16::from(plane);
            Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into()).into()
        }
    }
}

/// The addresses of a host in all planes, plane by plane.
pub fn addrs(role: Role, families: &[Family]) -> Vec<IpAddr> {
    let planes = (0..PLANES).flat_map(|plane| families.iter().map(move |f| (plane, *f)));
    planes
        .map(|(plane, family)| addr(role, plane, family))
        .collect()
}

const BOTH: [Family; 2] = [Family::V4, Family::V6];

impl Planes {
    /// Builds the network with one node, or with one for each plane.
    ///
    /// # Errors
    /// If the user may not, or the kernel lacks veth or IPv6.
    pub fn new(nr_nodes: usize) -> Result<Self> {
        let nodes: Result<Vec<_>> = (0..nr_nodes.clamp(1, PLANES))
            .map(|_| Namespace::new())
            .collect();
        let planes = Self {
            client: Namespace::new()?,
            nodes: nodes?,
            backend: Namespace::new()?,
        };
        for node in &planes.nodes {
            node.forward()?;
        }
        for plane in 0..PLANES {
            planes.build(plane)?;
        }
        Ok(planes)
    }

    /// The node of a plane.
    pub fn node(&self, plane: usize) -> &Namespace {
        &self.nodes[plane % self.nodes.len()]
    }

    /// Devices of a node, to clients and to backends.
    pub fn node_devices(&self, node: usize) -> Vec<String> {
        let planes = (0..PLANES).filter(|plane| plane % self.nodes.len() == node);
        planes
            .flat_map(|plane| [format!("to-c{plane}"), format!("to-b{plane}")])
            .collect()
    }

    fn build(&self, plane: usize) -> Result<()> {
        let end = |ns, device, mac, role| End {
            ns,
            device,
            mac,
            addrs: BOTH.map(|family| addr(role, plane, family)).to_vec(),
            prefix_len: [26, 64],
        };
        let node = self.node(plane);
        let names = ["c", "to-c", "to-b", "b"].map(|name| format!("{name}{plane}"));
        let macs = [1, 2, 3, 4].map(|nr| format!("02:00:00:00:0{plane}:0{nr}"));
        connect(
            &end(&self.client, &names[0], &macs[0], Role::Client),
            &end(node, &names[1], &macs[1], Role::ClientGateway),
        )?;
        connect(
            &end(node, &names[2], &macs[2], Role::BackendGateway),
            &end(&self.backend, &names[3], &macs[3], Role::Backend),
        )?;
        for (ns, device) in [(node, &names[1]), (node, &names[2])] {
            ns.sctp_offload(device, false)?;
        }
        self.client.routes(plane, Role::Vip, Role::ClientGateway)?;
        self.backend
            .routes(plane, Role::Client, Role::BackendGateway)
    }

    /// Has the hosts find out soon that a path is dead, and probe an idle one often.
    ///
    /// # Errors
    /// If the kernel has no SCTP.
    pub fn hurry(&self) -> Result<()> {
        const SETTINGS: [(&str, &str); 6] = [
            ("rto_min", "100"),
            ("rto_initial", "400"),
            ("rto_max", "800"),
            ("hb_interval", "300"),
            ("path_max_retrans", "2"),
            ("association_max_retrans", "30"),
        ];
        for ns in [&self.client, &self.backend] {
            for (name, value) in SETTINGS {
                ns.sysctl(&format!("net/sctp/{name}"), value)?;
            }
        }
        Ok(())
    }

    /// Lets nothing more through a plane, as if its cable had been cut.
    ///
    /// # Errors
    /// If `nft` is missing, or the kernel has no nftables.
    pub fn cut(&self, plane: usize) -> Result<()> {
        let rules = format!(
            "add table inet cut{plane} {{ chain forward {{ type filter hook forward priority 0; \
             iifname \"to-c{plane}\" drop; oifname \"to-c{plane}\" drop; }}; }}"
        );
        self.node(plane).command("nft", &[&rules])?;
        Ok(())
    }

    /// Undoes [`Planes::cut`].
    ///
    /// # Errors
    /// If the plane is not cut.
    pub fn restore(&self, plane: usize) -> Result<()> {
        let rules = format!("delete table inet cut{plane}");
        self.node(plane).command("nft", &[&rules])?;
        Ok(())
    }
}

impl Namespace {
    fn routes(&self, plane: usize, to: Role, gateway: Role) -> Result<()> {
        let route = |family| {
            let (to, gateway) = (addr(to, plane, family), addr(gateway, plane, family));
            format!("route add {to} via {gateway}")
        };
        self.ip_batch(&BOTH.map(route))
    }
}
