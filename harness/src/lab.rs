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
use crate::link::{End, connect};
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

fn end<'a>(
    ns: &'a Namespace,
    device: &'a str,
    mac: &'a str,
    addr: fn(&Addrs) -> IpAddr,
) -> End<'a> {
    End {
        ns,
        device,
        mac,
        addrs: [Family::V4, Family::V6].map(|f| addr(&f.addrs())).to_vec(),
        prefix_len: [24, 64],
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
        lab.translator.forward()?;
        Ok(lab)
    }

    fn connect_all(&self) -> Result<()> {
        let [to_client, to_backend] = TRANSLATOR_DEVS;
        connect(
            &end(&self.client, CLIENT_DEV, "02:00:00:00:01:01", |a| a.client),
            &end(&self.translator, to_client, "02:00:00:00:01:fe", |a| {
                a.client_gateway
            }),
        )?;
        connect(
            &end(&self.translator, to_backend, "02:00:00:00:02:fe", |a| {
                a.backend_gateway
            }),
            &end(&self.backend, BACKEND_DEV, "02:00:00:00:02:01", |a| {
                a.backend
            }),
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
}
