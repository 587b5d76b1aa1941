// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What a load balancer has to keep besides what is measured: services, backends, policies and
//! associations by the thousand.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::chunk;
use crate::csum_prog::Hook;
use crate::error::{Error, Result};
use crate::lb::conntrack::State;
use crate::lb::datapath::{Datapath, Options, Verdict};
use crate::lb::maps::Sizes;
use crate::lb::model::{
    Backend, Block, Desired, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};
use crate::packet::Spec;

/// How many there are of each; 0 are none but those of the packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Population {
    /// Services of one backend each.
    pub services: u32,
    /// Backends of the packet's service.
    pub backends: u32,
    /// Endpoints with a policy, and the packet's backend is one of them.
    pub policies: u32,
    /// Associations with the packet's service.
    pub associations: u32,
}

/// No association is to expire before it is measured.
const LONG: Duration = Duration::from_secs(3600);
/// Slots of the smallest Maglev table, and of the largest (`lb::maglev`).
const TABLE_SLOTS: [u32; 2] = [251, 131_071];

/// The address of this number in 10.`net`.0.0/14.
fn addr(net: u8, number: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, net, 0, 0]) + number).into()
}

impl Population {
    /// Sizes of maps in which they have room, and programs that keep them.
    pub fn options(&self, options: Options) -> Options {
        let room = |number: u32, least: u32| number.saturating_add(16).max(least);
        let default = Sizes::default();
        let slots = TABLE_SLOTS[0] * self.services + 2 * TABLE_SLOTS[1];
        Options {
            timeouts: vec![(State::CookieWait, LONG)],
            sizes: Sizes {
                assocs: room(self.associations, default.assocs),
                services: room(self.services, default.services),
                backends: room(
                    self.services + self.backends + self.policies,
                    default.backends,
                ),
                table_slots: room(slots, default.table_slots),
                policy_prefixes: room(2 * self.policies, default.policy_prefixes),
            },
            ..options
        }
    }

    /// What is wanted of the load balancer: the service of the packet, and the others.
    pub fn desired(&self, service: SocketAddr, backend: SocketAddr) -> Desired {
        let mut backends = vec![backend];
        let port = backend.port();
        backends.extend((0..self.backends).map(|nr| SocketAddr::new(addr(16, nr), port)));
        let mut desired = Desired::default();
        desired
            .services
            .insert(name("bench"), one_service(service, backends));
        for nr in 0..self.services {
            let vip = SocketAddr::new(addr(32, nr), service.port());
            let own = SocketAddr::new(addr(48, nr), port);
            desired
                .services
                .insert(name(&format!("other-{nr}")), one_service(vip, vec![own]));
        }
        if self.policies > 0 {
            let everybody = (0..self.policies).map(|nr| addr(64, nr));
            desired.policies = everybody
                .chain([backend.ip()])
                .map(|endpoint| (endpoint, policy()))
                .collect();
        }
        desired
    }

    /// Opens the associations, on programs with the maps that are pinned there.
    ///
    /// # Errors
    /// If the program refuses one.
    pub fn associate(&self, hook: Hook, pins: &Path, service: SocketAddr) -> Result<()> {
        let options = Options {
            pins: Some(pins.to_path_buf()),
            timeouts: vec![(State::CookieWait, LONG)],
            ..Options::default()
        };
        let mut storage = MaybeUninit::uninit();
        let datapath = Datapath::load(hook, &options, &mut storage)?;
        for nr in 0..self.associations {
            let client = SocketAddr::new(addr(80, nr), 5000);
            let mut init = Spec::new(client, service, chunk::init(1, nr + 1, &[]));
            init.vtag = 0;
            if datapath.run(&init.build()?.bytes)? == Verdict::Drop {
                return Err(Error::Packet(format!("association {nr} was refused")));
            }
        }
        Ok(())
    }
}

fn name(name: &str) -> ServiceName {
    ServiceName {
        namespace: "default".into(),
        name: name.into(),
        port: "sctp".into(),
    }
}

fn one_service(frontend: SocketAddr, backends: Vec<SocketAddr>) -> Service {
    let backends = backends.into_iter().map(|addr| Backend {
        addr,
        secondary: vec![],
        draining: false,
    });
    Service {
        frontends: [(frontend, Frontend::default())].into(),
        backends: backends.collect(),
        affinity: None,
    }
}

/// Clients from anywhere, but for some, at all ports.
fn policy() -> EndpointPolicy {
    let net = |addr, len| IpNet::new_assert(addr, len);
    EndpointPolicy {
        ingress: Some(vec![PolicyRule {
            peers: vec![Block {
                net: net(Ipv4Addr::UNSPECIFIED.into(), 0),
                except: vec![net(addr(96, 0), 16)],
            }],
            ports: vec![PortRange {
                first: 0,
                last: u16::MAX,
            }],
        }]),
        egress: None,
    }
}
