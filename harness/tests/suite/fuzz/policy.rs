// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Random packets of a few hosts that send what they like, under random policies: none passes that
//! no policy allows, whatever was sent before.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bpf_sctp::chunk;
use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::datapath::{Datapath, Verdict};
use bpf_sctp::lb::model::{
    Backend, Block, Desired, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};
use bpf_sctp::packet::{Spec, find};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use rstest::rstest;

use super::options;
use super::seeds::Seeds;
use crate::multihome::address_parameter;
use crate::support::require;

/// Who has an address. Those of clients and backends are endpoints of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Client(u8),
    Backend(u8),
    Vip(u8),
    /// What backends see of clients, if the service masquerades.
    Node,
}

const ENDPOINTS: [Host; 4] = [
    Host::Client(1),
    Host::Client(2),
    Host::Backend(1),
    Host::Backend(2),
];

impl Host {
    fn ip(self) -> IpAddr {
        let (net, nr) = match self {
            Self::Client(nr) => (100, nr),
            Self::Backend(nr) => (3, nr),
            Self::Vip(nr) => (2, nr),
            Self::Node => (4, 1),
        };
        Ipv4Addr::new(10, net, 0, nr).into()
    }
}

/// Ports of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// Of who opens associations. Each run has another one: it meets no association of others.
    Own,
    Service,
    Backend,
}

/// The services: all have both VIPs.
const SERVICES: [&[Host]; 4] = [
    &[Host::Backend(1)],
    &[Host::Backend(1), Host::Backend(2)],
    &[Host::Backend(1), Host::Backend(2)],
    &[Host::Backend(1)],
];
/// Of this one, the two are addresses of one backend.
const MULTIHOMED: usize = 2;
const MASQUERADED: usize = 3;

const OWN_PORTS: u16 = 20000;

fn port(port: Port, service: usize, run: u16) -> u16 {
    match port {
        Port::Own => OWN_PORTS + run % 45000,
        Port::Service => 3000 + service as u16,
        Port::Backend => 13000 + service as u16,
    }
}

/// What an endpoint may do in one direction: anything, or what a rule says.
type Rule = Option<(Vec<Host>, [u16; 2])>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Ingress,
    Egress,
}

#[derive(Debug, Clone)]
enum Chunk {
    Init(u32, Vec<Host>),
    InitAck(u32, Vec<Host>),
    Asconf(u16, Host),
    /// Type and flags.
    Plain(u8, u8),
}

impl Chunk {
    fn bytes(&self) -> Vec<u8> {
        let names = |hosts: &[Host]| -> Vec<u8> {
            hosts
                .iter()
                .flat_map(|host| address_parameter(host.ip()))
                .collect()
        };
        match self {
            Self::Init(tag, hosts) => chunk::init(1, *tag, &names(hosts)),
            Self::InitAck(tag, hosts) => chunk::init(2, *tag, &names(hosts)),
            Self::Asconf(kind, host) => {
                let addr = address_parameter(host.ip());
                let len = (8 + addr.len() as u16).to_be_bytes();
                let param = [&kind.to_be_bytes()[..], &len, &[0, 0, 0, 7], &addr].concat();
                let first = address_parameter(Ipv4Addr::UNSPECIFIED.into());
                chunk::chunk(193, 0, &[&[0, 0, 0, 9], &first[..], &param].concat())
            }
            Self::Plain(kind, flags) => chunk::chunk(*kind, *flags, &[0, 1, 0, 4]),
        }
    }

    /// The addresses that its sender says are his.
    fn claims(&self) -> &[Host] {
        match self {
            Self::Init(_, hosts) => hosts,
            Self::Asconf(0xc001, host) => std::slice::from_ref(host),
            _ => &[],
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send {
        from: (Host, Port),
        to: (Host, Port),
        vtag: u32,
        chunk: Chunk,
    },
    Change(Host, Way, Rule),
}

#[derive(Debug, Clone)]
struct Case {
    service: usize,
    steps: Vec<Step>,
}

fn nth(kind: fn(u8) -> Host) -> impl Strategy<Value = Host> {
    (1..3u8).prop_map(kind)
}

fn endpoint() -> impl Strategy<Value = Host> {
    select(&ENDPOINTS[..])
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![4 => endpoint(), 1 => nth(Host::Vip), 1 => Just(Host::Node)]
}

fn ends() -> impl Strategy<Value = ((Host, Port), (Host, Port))> {
    let at = |host, port| (host, port);
    let any_port = || select(&[Port::Own, Port::Service, Port::Backend][..]);
    prop_oneof![
        6 => (nth(Host::Client), nth(Host::Vip))
            .prop_map(move |(c, v)| (at(c, Port::Own), at(v, Port::Service))),
        6 => (nth(Host::Backend), nth(Host::Client))
            .prop_map(move |(b, c)| (at(b, Port::Backend), at(c, Port::Own))),
        3 => (nth(Host::Client), nth(Host::Backend))
            .prop_map(move |(c, b)| (at(c, Port::Own), at(b, Port::Backend))),
        1 => nth(Host::Backend).prop_map(move |b| (at(b, Port::Backend), at(Host::Node, Port::Own))),
        1 => (nth(Host::Vip), nth(Host::Client))
            .prop_map(move |(v, c)| (at(v, Port::Service), at(c, Port::Own))),
        1 => (nth(Host::Backend), nth(Host::Vip))
            .prop_map(move |(b, v)| (at(b, Port::Own), at(v, Port::Service))),
        2 => (host(), host(), any_port()).prop_map(|(a, b, p)| ((a, Port::Own), (b, p))),
        2 => (host(), host(), any_port()).prop_map(|(a, b, p)| ((a, p), (b, Port::Own))),
    ]
}

/// Few, so that they are often right.
fn tag() -> impl Strategy<Value = u32> {
    1..4u32
}

fn named() -> impl Strategy<Value = Vec<Host>> {
    let all = [&ENDPOINTS[..], &[Host::Vip(1), Host::Node]].concat();
    prop_oneof![2 => Just(vec![]), 1 => subsequence(all, 1..3)]
}

fn chunk() -> impl Strategy<Value = Chunk> {
    // COOKIE ECHO, COOKIE ACK, HEARTBEAT and its answer, DATA, SACK, SHUTDOWN and its answer
    let kinds = &[10u8, 10, 11, 11, 4, 4, 5, 0, 3, 7, 8][..];
    let asconf = select(&[0xc001u16, 0xc002][..]);
    prop_oneof![
        6 => (tag(), named()).prop_map(|(tag, hosts)| Chunk::Init(tag, hosts)),
        4 => (tag(), named()).prop_map(|(tag, hosts)| Chunk::InitAck(tag, hosts)),
        10 => select(kinds).prop_map(|kind| Chunk::Plain(kind, 0)),
        1 => (select(&[6u8, 14][..]), 0..2u8).prop_map(|(kind, t)| Chunk::Plain(kind, t)),
        1 => (asconf, endpoint()).prop_map(|(kind, host)| Chunk::Asconf(kind, host)),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports = select(&[[0, u16::MAX], [13000, 13999], [OWN_PORTS, u16::MAX]][..]);
    let peers = [&ENDPOINTS[..], &[Host::Vip(1), Host::Vip(2), Host::Node]].concat();
    let some = (subsequence(peers, 0..6), ports).prop_map(Some);
    prop_oneof![1 => Just(None), 1 => some]
}

fn change() -> impl Strategy<Value = Step> {
    let way = select(&[Way::Ingress, Way::Egress][..]);
    (endpoint(), way, rule()).prop_map(|(host, way, rule)| Step::Change(host, way, rule))
}

fn step() -> impl Strategy<Value = Step> {
    let send = (ends(), 0..4u32, chunk()).prop_map(|((from, to), vtag, chunk)| Step::Send {
        from,
        to,
        vtag: if matches!(chunk, Chunk::Init(..)) {
            0
        } else {
            vtag
        },
        chunk,
    });
    prop_oneof![50 => send, 1 => change()]
}

fn case() -> impl Strategy<Value = Case> {
    let parts = (0..SERVICES.len(), vec(change(), 0..6), vec(step(), 1..150));
    parts.prop_map(|(service, first, then)| Case {
        service,
        steps: [first, then].concat(),
    })
}

fn services() -> BTreeMap<ServiceName, Service> {
    let one = |nr: usize| {
        let frontend = |order| Frontend {
            masquerade: nr == MASQUERADED,
            order,
            ..Default::default()
        };
        let at = |host: Host, which| SocketAddr::new(host.ip(), port(which, nr, 0));
        let vips =
            [1, 2].map(|order| (at(Host::Vip(order), Port::Service), frontend(order.into())));
        let backend = |hosts: &[Host]| Backend {
            addr: at(hosts[0], Port::Backend),
            secondary: hosts[1..].iter().map(|host| host.ip()).collect(),
            draining: false,
        };
        let nr_addrs = if nr == MULTIHOMED { 2 } else { 1 };
        let service = Service {
            frontends: vips.into(),
            backends: SERVICES[nr].chunks(nr_addrs).map(backend).collect(),
            affinity: None,
        };
        let name = ServiceName {
            namespace: "default".into(),
            name: format!("service-{nr}"),
            port: "sctp".into(),
        };
        (name, service)
    };
    (0..SERVICES.len()).map(one).collect()
}

/// The policies, and what has passed of who may: what a packet is judged by.
#[derive(Debug, Default)]
struct Judge {
    rules: BTreeMap<(Host, Way), (Vec<Host>, [u16; 2])>,
    /// By the client's address and port, and the other's port.
    opened: BTreeSet<(IpAddr, u16, u16)>,
}

impl Judge {
    fn policies(&self) -> BTreeMap<IpAddr, EndpointPolicy> {
        let rules = |host, way| {
            let (peers, [first, last]) = self.rules.get(&(host, way))?;
            let block = |peer: &Host| Block {
                net: peer.ip().into(),
                except: vec![],
            };
            Some(vec![PolicyRule {
                peers: peers.iter().map(block).collect(),
                ports: vec![PortRange {
                    first: *first,
                    last: *last,
                }],
            }])
        };
        let policy = |host: &Host| {
            let policy = EndpointPolicy {
                ingress: rules(*host, Way::Ingress),
                egress: rules(*host, Way::Egress),
            };
            (host.ip(), policy)
        };
        ENDPOINTS.iter().map(policy).collect()
    }

    fn permits(&self, host: IpAddr, way: Way, peer: IpAddr, port: u16) -> bool {
        let mut rules = self.rules.iter();
        let rule = rules.find(|((of, its_way), _)| of.ip() == host && *its_way == way);
        rule.is_none_or(|(_, (peers, [first, last]))| {
            peers.iter().any(|allowed| allowed.ip() == peer) && (*first..=*last).contains(&port)
        })
    }

    /// Whether one may open an association with the other.
    fn may_open(&self, from: IpAddr, to: SocketAddr) -> bool {
        self.permits(from, Way::Egress, to.ip(), to.port())
            && self.permits(to.ip(), Way::Ingress, from, to.port())
    }

    /// Who may have sent a packet: of one that was translated before it came, that is not known.
    fn senders(&self, case: &Case, source: SocketAddr, chunk: &Chunk) -> Vec<SocketAddr> {
        let at = |host: &Host, port| SocketAddr::new(host.ip(), port);
        let is_vip = [1, 2].map(|nr| Host::Vip(nr).ip()).contains(&source.ip());
        let mut senders = vec![source];
        if is_vip && source.port() == port(Port::Service, case.service, 0) {
            let own = port(Port::Backend, case.service, 0);
            senders.extend(SERVICES[case.service].iter().map(|host| at(host, own)));
            // A service opens nothing.
            if matches!(chunk, Chunk::Init(..)) {
                senders.remove(0);
            }
        } else if is_vip || source.ip() == Host::Node.ip() {
            senders.extend(ENDPOINTS.iter().map(|host| at(host, source.port())));
        }
        senders
    }

    /// What a packet has passed for, if it may.
    fn judge(
        &self,
        senders: &[SocketAddr],
        dest: SocketAddr,
        chunk: &Chunk,
    ) -> Option<&'static str> {
        if senders.iter().any(|from| self.may_open(from.ip(), dest)) {
            return Some("allowed");
        }
        let answers = |from: &SocketAddr| {
            self.may_open(dest.ip(), *from)
                && self.opened.contains(&(dest.ip(), dest.port(), from.port()))
        };
        let answered = !matches!(chunk, Chunk::Init(..)) && senders.iter().any(answers);
        answered.then_some("an answer")
    }

    /// From which addresses an association may go on: those that its packets name, or come from.
    fn note(&mut self, senders: &[SocketAddr], port: u16, dest: SocketAddr, chunk: &Chunk) {
        let opens = match chunk {
            Chunk::Init(..) => true,
            Chunk::Asconf(..) | Chunk::Plain(4, _) => false,
            _ => return,
        };
        let ports = |addr| (addr, port, dest.port());
        let known = |one: &(IpAddr, u16, u16)| (one.1, one.2) == (port, dest.port());
        if opens || self.opened.iter().any(known) {
            let claims = chunk.claims().iter().map(|host| host.ip());
            let all = senders.iter().map(SocketAddr::ip).chain(claims).map(ports);
            self.opened.extend(all);
        }
    }
}

/// Sends what a case says. Returns the packet that has passed though it may not.
fn run(lb: &Datapath<'_>, seeds: &Seeds, case: &Case) -> Result<(), String> {
    let run = seeds.begin() as u16;
    let mut judge = Judge::default();
    let mut desired = Desired {
        services: services(),
        policies: judge.policies(),
    };
    let mut stale = true;
    for (nr, step) in case.steps.iter().enumerate() {
        let (from, to, vtag, chunk) = match step {
            Step::Send {
                from,
                to,
                vtag,
                chunk,
            } => (from, to, *vtag, chunk),
            Step::Change(host, way, rule) => {
                match rule {
                    Some(rule) => judge.rules.insert((*host, *way), rule.clone()),
                    None => judge.rules.remove(&(*host, *way)),
                };
                stale = true;
                continue;
            }
        };
        if stale {
            desired.policies = judge.policies();
            lb.maps()
                .apply(&desired)
                .map_err(|error| error.to_string())?;
            stale = false;
        }
        let at = |(host, which): &(Host, Port)| {
            SocketAddr::new(host.ip(), port(*which, case.service, run))
        };
        let (source, dest) = (at(from), at(to));
        let spec = Spec {
            vtag,
            ..Spec::new(source, dest, chunk.bytes())
        };
        let frame = spec.build().map_err(|error| error.to_string())?.bytes;
        seeds.sent(&frame);
        let verdict = lb.run_growing(&frame).map_err(|error| error.to_string())?;
        let Verdict::Pass(after) = verdict else {
            seeds.note("dropped");
            continue;
        };
        let reached = find(&after).ok_or("no SCTP any more")?.dest;
        // A port that was picked for an earlier case, whose associations may be there yet.
        if reached.port() != dest.port() && reached.port() >= OWN_PORTS {
            seeds.note("of another case");
            continue;
        }
        let senders = judge.senders(case, source, chunk);
        let why = judge.judge(&senders, reached, chunk);
        let why = why.ok_or_else(|| {
            seeds.sent(&after);
            format!("packet {nr}: {source} reached {reached}\n{step:?}\n{judge:#?}")
        })?;
        judge.note(&senders, source.port(), reached, chunk);
        seeds.note(why);
    }
    Ok(())
}

#[rstest]
fn random_packets_get_past_no_policy(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let seeds = Seeds::new();
    let mut storage = MaybeUninit::uninit();
    let options = options(Update::Bpf, &seeds);
    let lb = Datapath::load(hook, &options, &mut storage).expect("it loads");
    let node = Host::Node.ip();
    lb.maps().set_masquerade(&[node]).expect("a setting");
    let usual = ["dropped", "allowed", "an answer"];
    seeds.run(&format!("{hook:?}"), &case(), &usual, |case| {
        run(&lb, &seeds, case)
    });
}
