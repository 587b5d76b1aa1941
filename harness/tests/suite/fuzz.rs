// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Random packets of random associations, each judged by rules that hold for all.
//!
//! `BPF_SCTP_FUZZ=N` runs N packets in each place; `BPF_SCTP_FUZZ_SEED=N` begins with the case of
//! this seed, and else there is a seed for each run if N is given, or always the same.

mod generate;
mod rules;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::conntrack::State;
use bpf_sctp::lb::datapath::{Datapath, Options, Verdict};
use bpf_sctp::lb::maps::Sizes;
use bpf_sctp::lb::model::{
    Backend, Block, Desired, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};
use bpf_sctp::packet::find;
use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rstest::rstest;

use crate::support::{fail, feature_of, require, resend};
use generate::{Case, Ends, SETUPS, Who, node};

const PACKETS: u64 = 2000;
/// Room for all associations that are younger than the timeout.
const SIZES: Sizes = Sizes {
    assocs: 1 << 15,
    services: 64,
    backends: 64,
    table_slots: 1 << 14,
    policy_prefixes: 256,
};
/// Of all associations: longer than a case takes, also under emulation; in a long run, where there
/// is none, so short that the kernel has the memory for their timers.
const TIMEOUT: Duration = Duration::from_secs(3);
const LONG_RUN_TIMEOUT: Duration = Duration::from_millis(30);
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

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: no number")),
    )
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
    services: Vec<rules::Service>,
    timeout: Duration,
    drops: RefCell<Vec<(String, u64)>>,
    /// What happened how often.
    tally: RefCell<BTreeMap<String, u64>>,
    runs: Cell<u32>,
    packets: Cell<u64>,
    /// Of the last case that failed: what was sent, and what the last became.
    frames: RefCell<Vec<Vec<u8>>>,
}

impl<'a> Range<'a> {
    fn new(lb: &'a Datapath<'a>, timeout: Duration) -> Self {
        let nodes: [IpAddr; 2] = [false, true].map(node);
        lb.maps().set_masquerade(&nodes).expect("a setting");
        lb.maps().apply(&desired()).expect("there is room");
        let range = Self {
            lb,
            services: rules::services(),
            timeout,
            drops: RefCell::default(),
            tally: RefCell::default(),
            runs: Cell::new(0),
            packets: Cell::new(0),
            frames: RefCell::default(),
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

    fn note(&self, what: &str) {
        *self.tally.borrow_mut().entry(what.into()).or_default() += 1;
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
                self.note(reason);
                Ok(Err(reason.clone()))
            }
            (Verdict::Pass(after), []) => {
                self.frames.borrow_mut().push(after.clone());
                rules::check_passed(&self.services, frame, &after)?;
                self.frames.borrow_mut().pop();
                self.note(match after.len().cmp(&frame.len()) {
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
        let run = self.runs.replace(self.runs.get() + 1);
        let mut ends = Ends::new(case.setup, run, case.v6);
        let begin = Instant::now();
        self.frames.borrow_mut().clear();
        for (nr, sent) in case.handshake.iter().chain(&case.rest).enumerate() {
            let frame = sent.frame(&ends, case.tags);
            self.frames.borrow_mut().push(frame.clone());
            self.packets.set(self.packets.get() + 1);
            match resend(|reason| Ok(Err(reason)), || self.send(&frame)) {
                Ok(Ok(after)) => self.learn(&mut ends, &after),
                // The association may have expired if this thread had to wait.
                Ok(Err(reason))
                    if nr < case.handshake.len() && begin.elapsed() < self.timeout / 2 =>
                {
                    return Err(format!("packet {nr}, of the handshake: {reason}"));
                }
                Ok(Err(_)) => {}
                Err(why) => return Err(format!("packet {nr}: {why}")),
            }
        }
        Ok(())
    }

    /// Runs the case of this seed. If it fails, smaller ones are tried.
    fn run_seed(&self, config: &Config, seed: u64) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config.clone(), rng);
        let tree = generate::case().new_tree(&mut runner).expect("a case");
        let failed = RefCell::new(Vec::new());
        let outcome = runner.run_one(tree, |case| {
            self.run(&case).map_err(|why| {
                failed.replace(self.frames.borrow().clone());
                TestCaseError::fail(why)
            })
        });
        let why = match outcome {
            Ok(_) => return,
            Err(TestError::Fail(why, case)) => format!("{why}\n{case:#?}"),
            Err(error) => error.to_string(),
        };
        let frames = failed.into_inner();
        let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
        fail(format!("BPF_SCTP_FUZZ_SEED={seed}: {why}"), &frames);
    }
}

#[rstest]
fn random_packets_break_no_rule(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let wanted = number("BPF_SCTP_FUZZ");
    let timeout = wanted.map_or(TIMEOUT, |_| LONG_RUN_TIMEOUT);
    let options = Options {
        update: Some(update),
        sizes: SIZES,
        timeouts: State::ALL.map(|state| (state, timeout)).into(),
        ..Default::default()
    };
    let mut storage = MaybeUninit::uninit();
    let lb = Datapath::load(hook, &options, &mut storage).expect("it loads");
    let range = Range::new(&lb, timeout);
    let mut seed = number("BPF_SCTP_FUZZ_SEED")
        .unwrap_or_else(|| wanted.map_or(0, |_| rand::random::<u32>().into()));
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let (begin, first) = (Instant::now(), seed);
    while range.packets.get() < wanted.unwrap_or(PACKETS) {
        range.run_seed(&config, seed);
        seed += 1;
    }
    let tally = range.tally.into_inner();
    let (nr, took) = (range.packets.get(), begin.elapsed());
    eprintln!(
        "{hook:?} {update:?}: {nr} packets in {took:.1?}, seeds {first} to {seed}: {tally:?}"
    );
    for what in USUAL {
        assert!(
            wanted.is_some() || tally.contains_key(what),
            "not one: {what}"
        );
    }
}
