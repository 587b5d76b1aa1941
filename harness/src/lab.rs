// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! A network of three namespaces: client, translator, backend.
//!
//! ```text
//!   client             translator             backend
//!   c0 ------------- to-c      to-b ------------- b0
//!   192.0.2.1         .254      .254      198.51.100.1
//!   2001:db8:1::1     ::fe      ::fe     2001:db8:2::1
//! ```
//!
//! The client reaches everything through the translator, and so does the backend. The VIP is on
//! no device: packets to it come as far as the translator.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Result;
use crate::netns::Namespace;

/// Device of the client.
pub const CLIENT_DEV: &str = "c0";
/// Device of the backend.
pub const BACKEND_DEV: &str = "b0";
/// Devices of the translator, to the client and to the backend.
pub const TRANSLATOR_DEVS: [&str; 2] = ["to-c", "to-b"];

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// The client.
    pub client: IpAddr,
    /// The translator, as the client sees it.
    pub client_gateway: IpAddr,
    /// The backend.
    pub backend: IpAddr,
    /// The translator, as the backend sees it.
    pub backend_gateway: IpAddr,
    /// The virtual address of the service.
    pub vip: IpAddr,
}

impl Family {
    /// The addresses of this family, from the ranges for documentation (RFC 5737, RFC 3849).
    pub fn addrs(self) -> Addrs {
        let v4 = |a, b, c, d| IpAddr::from(Ipv4Addr::new(a, b, c, d));
        let v6 = |net, host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host));
        match self {
            Family::V4 => Addrs {
                client: v4(192, 0, 2, 1),
                client_gateway: v4(192, 0, 2, 254),
                backend: v4(198, 51, 100, 1),
                backend_gateway: v4(198, 51, 100, 254),
                vip: v4(203, 0, 113, 10),
            },
            Family::V6 => Addrs {
                client: v6(1, 1),
                client_gateway: v6(1, 0xfe),
                backend: v6(2, 1),
                backend_gateway: v6(2, 0xfe),
                vip: v6(0xff, 0x10),
            },
        }
    }

    fn prefix_len(self) -> u8 {
        match self {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// The network. It is gone when this is dropped.
#[derive(Debug)]
pub struct Lab {
    /// Where associations come from.
    pub client: Namespace,
    /// What forwards between the two, and runs the BPF program.
    pub translator: Namespace,
    /// Where associations go to.
    pub backend: Namespace,
}

/// An end of a veth pair.
struct End<'a> {
    ns: &'a Namespace,
    device: &'static str,
    mac: &'static str,
    /// The address of this end by family.
    addr: fn(&Addrs) -> IpAddr,
}

/// Makes a veth pair between two namespaces.
fn connect(left: &End<'_>, right: &End<'_>) -> Result<()> {
    let veth = format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        left.device,
        left.mac,
        right.device,
        right.mac,
        right.ns.path().display()
    );
    left.ns
        .ip_batch(&[&[veth], left.setup(right).as_slice()].concat())?;
    right.ns.ip_batch(&right.setup(left))
}

impl End<'_> {
    /// What `ip` has to do at this end. It is told the peer's MAC address, so that no packet
    /// waits for a neighbour to answer.
    fn setup(&self, peer: &End<'_>) -> Vec<String> {
        let device = self.device;
        let mut commands = vec!["link set lo up".into(), format!("link set {device} up")];
        for family in [Family::V4, Family::V6] {
            let addrs = family.addrs();
            let (own, len) = ((self.addr)(&addrs), family.prefix_len());
            let nodad = if family == Family::V6 { "nodad" } else { "" };
            commands.push(format!("addr add {own}/{len} dev {device} {nodad}"));
            let peer_addr = (peer.addr)(&addrs);
            commands.push(format!(
                "neigh add {peer_addr} lladdr {} dev {device}",
                peer.mac
            ));
        }
        commands
    }
}

impl Lab {
    /// Builds the network.
    ///
    /// # Errors
    /// If the user may not, or the kernel lacks veth or IPv6.
    pub fn new() -> Result<Self> {
        let lab = Self {
            client: Namespace::new()?,
            translator: Namespace::new()?,
            backend: Namespace::new()?,
        };
        lab.connect_all()?;
        lab.client.default_routes(|addrs| addrs.client_gateway)?;
        lab.backend.default_routes(|addrs| addrs.backend_gateway)?;
        lab.translator.sysctl("net/ipv4/ip_forward", "1")?;
        lab.translator.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(lab)
    }

    fn connect_all(&self) -> Result<()> {
        let [to_client, to_backend] = TRANSLATOR_DEVS;
        connect(
            &End {
                ns: &self.client,
                device: CLIENT_DEV,
                mac: "02:00:00:00:01:01",
                addr: |addrs| addrs.client,
            },
            &End {
                ns: &self.translator,
                device: to_client,
                mac: "02:00:00:00:01:fe",
                addr: |addrs| addrs.client_gateway,
            },
        )?;
        connect(
            &End {
                ns: &self.translator,
                device: to_backend,
                mac: "02:00:00:00:02:fe",
                addr: |addrs| addrs.backend_gateway,
            },
            &End {
                ns: &self.backend,
                device: BACKEND_DEV,
                mac: "02:00:00:00:02:01",
                addr: |addrs| addrs.backend,
            },
        )
    }

    /// Says who fills in the SCTP checksums of client and backend. When they leave it to the
    /// device (`CHECKSUM_PARTIAL`), the translator's stack fills it in on the way out, where the
    /// program has been already, so that what arrives can be checked.
    ///
    /// # Errors
    /// If `ethtool` is missing or the device has no such feature.
    pub fn offload_checksums(&self, hosts: bool) -> Result<()> {
        self.client.sctp_offload(CLIENT_DEV, hosts)?;
        self.backend.sctp_offload(BACKEND_DEV, hosts)?;
        for device in TRANSLATOR_DEVS {
            self.translator.sctp_offload(device, false)?;
        }
        Ok(())
    }
}

impl Namespace {
    fn default_routes(&self, gateway: impl Fn(&Addrs) -> IpAddr) -> Result<()> {
        let route = |family: Family| format!("route add default via {}", gateway(&family.addrs()));
        self.ip_batch(&[route(Family::V4), route(Family::V6)])
    }

    /// Switches the checksum and segmentation offload of SCTP on a device.
    fn sctp_offload(&self, device: &str, on: bool) -> Result<()> {
        let value = if on { "on" } else { "off" };
        self.command(
            "ethtool",
            &[
                "-K",
                device,
                "tx-checksum-sctp",
                value,
                "tx-sctp-segmentation",
                value,
            ],
        )?;
        Ok(())
    }
}
