// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Random packets of random associations, each judged by rules that hold for all.

mod generate;
mod policy;
mod rules;
mod seeds;

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::time::Instant;

use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::conntrack::State;
use bpf_sctp::lb::datapath::{Datapath, Options, Verdict};
use bpf_sctp::lb::maps::Sizes;
use bpf_sctp::lb::model::{
    Backend, Block, Desired, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};
use bpf_sctp::packet::find;
use rstest::rstest;

use crate::support::{feature_of, require, resend};
use generate::{Case, Ends, SETUPS, Who, node};
use seeds::Seeds;

/// Room for all associations that are younger than the timeout.
const SIZES: Sizes = Sizes {
    assocs: 1 << 15,
    services: 64,
    backends: 64,
    table_slots: 1 << 14,
    policy_prefixes: 256,
};
/// What must have happened at least once, or the packets are not what they should be.
const USUAL: [&str; 12] = [
    "drop_asconf",
    "drop_chunks",
    "drop_fragment",
    "drop_host_name",
    "drop_many_addrs",
    "drop_no_assoc",
    "drop_policy",
    "drop_tag",
    "drop_truncated",
    "grown",
    "passed as it is",
    "translated",
];

/// What no packet may be dropped for.
const NEVER: [&str; 2] = ["drop_csum_failed", "drop_rewrite_failed"];

/// Associations end after so long.
fn options(update: Update, seeds: &Seeds) -> Options {
    Options {
        update: Some(update),
        sizes: SIZES,
        timeouts: State::ALL.map(|state| (state, seeds.timeout)).into(),
        ..Default::default()
    }
}

fn service(ends: &Ends) -> Service {
    let frontend = |order| Frontend {
        masquerade: ends.setup().masquerade,
        order,
        ..Default::default()
    };
    let vips = ends.all(Who::Vip).into_iter().enumerate();
    let all = ends.all(Who::Backend);
    let backend = |v6| {
        let first = *all.iter().find(|addr| addr.is_ipv6() == v6)?;
        let others = all.iter().filter(|addr| **addr != first);
        Some(Backend {
            addr: first,
            secondary: others.map(|addr| addr.ip()).collect(),
            draining: false,
        })
    };
    Service {
        frontends: vips.map(|(order, vip)| (vip, frontend(order))).collect(),
        backends: [false, true].into_iter().filter_map(backend).collect(),
        affinity: None,
    }
}

/// All may come but who is nobody.
fn policy() -> EndpointPolicy {
    let peers = [
        "10.96.0.0/11",
        "10.3.0.0/16",
        "2001:db8:60::/43",
        "2001:db8:3::/48",
    ];
    let block = |net: &str| Block {
        net: net.parse().expect("a prefix"),
        except: vec![],
    };
    let rule = PolicyRule {
        peers: peers.map(block).into(),
        ports: vec![PortRange {
            first: 0,
            last: u16::MAX,
        }],
    };
    EndpointPolicy {
        ingress: Some(vec![rule]),
        egress: None,
    }
}

fn desired() -> Desired {
    let mut desired = Desired::default();
    for (nr, setup) in SETUPS.iter().enumerate() {
        let ends = Ends::new(nr, 0, false);
        if setup.policy_only {
            let addrs = ends.all(Who::Backend);
            let policies = addrs.iter().map(|addr| (addr.ip(), policy()));
            desired.policies.extend(policies);
            continue;
        }
        let name = ServiceName {
            namespace: "default".into(),
            name: format!("setup-{nr}"),
            port: "sctp".into(),
        };
        desired.services.insert(name, service(&ends));
    }
    desired
}

/// A load balancer under fire.
struct Range<'a> {
    lb: &'a Datapath<'a>,
    seeds: &'a Seeds,
    services: Vec<rules::Service>,
    drops: RefCell<Vec<(String, u64)>>,
}

impl<'a> Range<'a> {
    fn new(lb: &'a Datapath<'a>, seeds: &'a Seeds) -> Self {
        let nodes: [IpAddr; 2] = [false, true].map(node);
        lb.maps().set_masquerade(&nodes).expect("a setting");
        lb.maps().apply(&desired()).expect("there is room");
        let range = Self {
            lb,
            seeds,
            services: rules::services(),
            drops: RefCell::default(),
        };
        range.new_drops();
        range
    }

    /// The counters of drops that have changed, and by how much.
    fn new_drops(&self) -> Vec<(String, u64)> {
        let stats = self.lb.maps().stats().expect("counters");
        let drops = stats.iter().filter(|(name, _)| name.starts_with("drop_"));
        let now: Vec<_> = drops.map(|(name, nr)| (name.to_string(), nr)).collect();
        let before = self.drops.replace(now.clone());
        let changed = now.into_iter().zip(before).filter(|(a, b)| a != b);
        changed.map(|(a, b)| (a.0, a.1 - b.1)).collect()
    }

    /// Sends a frame: what becomes of it, or why it is dropped; or which rule it breaks.
    fn send(&self, frame: &[u8]) -> Result<Result<Vec<u8>, String>, String> {
        let found = find(frame);
        let grows = found.is_some_and(|found| self.services.iter().any(|s| s.may_grow(&found)));
        let verdict = if grows {
            self.lb.run_growing(frame)
        } else {
            self.lb.run(frame)
        };
        match (
            verdict.map_err(|error| error.to_string())?,
            &*self.new_drops(),
        ) {
            (Verdict::Drop, [(reason, 1)]) if !NEVER.contains(&reason.as_str()) => {
                self.seeds.note(reason);
                Ok(Err(reason.clone()))
            }
            (Verdict::Pass(after), []) => {
                rules::check_passed(&self.services, frame, &after)
                    .inspect_err(|_| self.seeds.sent(&after))?;
                self.seeds.note(match after.len().cmp(&frame.len()) {
                    _ if after == frame => "passed as it is",
                    std::cmp::Ordering::Equal => "translated",
                    _ => "grown",
                });
                Ok(Ok(after))
            }
            (Verdict::Drop, drops) => Err(format!("dropped, and counted as {drops:?}")),
            (Verdict::Pass(_), drops) => Err(format!("passed, and counted as {drops:?}")),
        }
    }

    /// How the backend sees the client, if this is a packet to it.
    fn learn(&self, ends: &mut Ends, after: &[u8]) {
        if let Some(found) = find(after)
            && ends.all(Who::Backend).contains(&found.dest)
        {
            ends.seen = found.source;
        }
    }

    fn run(&self, case: &Case) -> Result<(), String> {
        let mut ends = Ends::new(case.setup, self.seeds.begin(), case.v6);
        let begin = Instant::now();
        for (nr, sent) in case.handshake.iter().chain(&case.rest).enumerate() {
            let frame = sent.frame(&ends, case.tags);
            self.seeds.sent(&frame);
            match resend(|reason| Ok(Err(reason)), || self.send(&frame)) {
                Ok(Ok(after)) => self.learn(&mut ends, &after),
                // The association may have expired if this thread had to wait.
                Ok(Err(reason))
                    if nr < case.handshake.len() && begin.elapsed() < self.seeds.timeout / 2 =>
                {
                    return Err(format!("packet {nr}, of the handshake: {reason}"));
                }
                Ok(Err(_)) => {}
                Err(why) => return Err(format!("packet {nr}: {why}")),
            }
        }
        Ok(())
    }
}

#[rstest]
fn random_packets_break_no_rule(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let seeds = Seeds::new();
    let mut storage = MaybeUninit::uninit();
    let lb = Datapath::load(hook, &options(update, &seeds), &mut storage).expect("it loads");
    let range = Range::new(&lb, &seeds);
    let place = format!("{hook:?} {update:?}");
    seeds.run(&place, &generate::case(), &USUAL, |case| range.run(case));
}
