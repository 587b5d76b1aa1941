// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Associations between hosts with several addresses, in two planes: the kernel's own SCTP sockets.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_sctp::capture::{Capture, Report};
use bpf_sctp::chunk;
use bpf_sctp::csum_prog::Hook;
use bpf_sctp::feature::Feature;
use bpf_sctp::lab::Family;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::Pins;
use bpf_sctp::lb::conntrack::{Association, State};
use bpf_sctp::lb::datapath::Options;
use bpf_sctp::lb::model::{Backend, Desired, Frontend, Service, ServiceName};
use bpf_sctp::netns::Namespace;
use bpf_sctp::planes::{PLANES, Planes, Role, addr, addrs};
use bpf_sctp::{sctp, transfer};
use rstest::rstest;
use socket2::Socket;

use crate::support::{insist, require};

const TIMEOUT: Duration = Duration::from_secs(40);
const VIP_PORT: u16 = 3868;
const BACKEND_PORTS: [u16; 2] = [13868, 13869];
const PAYLOAD: usize = 256 << 10;

/// Planes whose nodes are load balancers, all with the same service.
struct Balanced {
    planes: Planes,
    pins: Vec<Pins>,
    maps: Vec<Maps>,
    families: &'static [Family],
}

/// A dead path is found out soon, and an idle one probed often.
fn hurry(ns: &Namespace) {
    for (name, value) in [
        ("rto_min", "100"),
        ("rto_initial", "400"),
        ("rto_max", "800"),
        ("hb_interval", "300"),
        ("path_max_retrans", "2"),
        ("association_max_retrans", "30"),
    ] {
        ns.sysctl(&format!("net/sctp/{name}"), value)
            .expect("a sysctl");
    }
}

impl Balanced {
    fn new(hook: Hook, families: &'static [Family], nr_nodes: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let planes = Planes::new(nr_nodes).expect("namespaces and veth");
        hurry(&planes.client);
        hurry(&planes.backend);
        let (mut pins, mut maps) = (Vec::new(), Vec::new());
        for node in 0..planes.nodes.len() {
            let nr = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = format!("/sys/fs/bpf/planes-{}-{nr}", std::process::id());
            let pin = Pins::new(&PathBuf::from(folder)).expect("bpffs");
            planes.nodes[node]
                .run(|| pin.attach(&planes.node_devices(node), hook, &Options::default()))
                .expect("a namespace")
                .expect("it attaches");
            maps.push(Maps::pinned(pin.folder()).expect("it is attached"));
            pins.push(pin);
        }
        let balanced = Self {
            planes,
            pins,
            maps,
            families,
        };
        for maps in &balanced.maps {
            maps.apply(&balanced.desired()).expect("there is room");
        }
        balanced
    }

    fn addrs(&self, role: Role) -> Vec<IpAddr> {
        addrs(role, self.families)
    }

    /// Two backends of the same addresses: it is seen which one it was.
    fn desired(&self) -> Desired {
        let all = self.addrs(Role::Backend);
        let backend = |port, v6| {
            let first = *all.iter().find(|addr| addr.is_ipv6() == v6)?;
            Some(Backend {
                addr: SocketAddr::new(first, port),
                secondary: all.iter().copied().filter(|addr| *addr != first).collect(),
                draining: false,
            })
        };
        let backends = BACKEND_PORTS
            .iter()
            .flat_map(|port| [backend(*port, false), backend(*port, true)]);
        let vips = self.addrs(Role::Vip).into_iter().enumerate();
        let frontends = vips.map(|(order, vip)| {
            let frontend = Frontend {
                order,
                ..Default::default()
            };
            (SocketAddr::new(vip, VIP_PORT), frontend)
        });
        let name = ServiceName {
            namespace: "core".into(),
            name: "amf".into(),
            port: "ngap".into(),
        };
        let service = Service {
            frontends: frontends.collect(),
            backends: backends.flatten().collect(),
            affinity: None,
        };
        Desired {
            services: [(name, service)].into(),
            ..Default::default()
        }
    }

    fn listen(&self) -> Vec<Socket> {
        let addrs = self.addrs(Role::Backend);
        BACKEND_PORTS
            .map(|port| sctp::listen_on_all(&self.planes.backend, &addrs, port, TIMEOUT))
            .map(|listener| listener.expect("a socket"))
            .into()
    }

    fn vip(&self, plane: usize) -> SocketAddr {
        SocketAddr::new(addr(Role::Vip, plane, self.families[0]), VIP_PORT)
    }

    /// An association with whichever backend gets it, at the client and there.
    fn associate(&self, listeners: &[Socket], client_addrs: &[IpAddr]) -> (Socket, Socket) {
        let client =
            sctp::connect_from_all(&self.planes.client, client_addrs, self.vip(0), TIMEOUT)
                .expect("an association");
        for listener in listeners {
            listener.set_nonblocking(true).expect("a flag");
        }
        let until = Instant::now() + TIMEOUT;
        loop {
            if let Some((server, _)) = listeners.iter().find_map(|l| l.accept().ok()) {
                server.set_nonblocking(false).expect("a flag");
                return (client, server);
            }
            assert!(Instant::now() < until, "no backend has it");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The only association, as soon as it is what is wanted.
    fn await_assoc(
        &self,
        node: usize,
        what: &str,
        wanted: impl Fn(&Association) -> bool,
    ) -> Association {
        let until = Instant::now() + TIMEOUT;
        loop {
            let all = self.maps[node].associations().expect("it can be read");
            assert!(all.len() <= 1, "{all:?}");
            if let Some(assoc) = all.first().filter(|assoc| wanted(assoc)) {
                return assoc.clone();
            }
            assert!(Instant::now() < until, "not {what}: {all:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What no test wants to see.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for maps in &self.maps {
            let stats = maps.stats().expect("counters");
            let drops = stats
                .iter()
                .filter(|(name, value)| name.starts_with("drop_") && *value > 0);
            complaints
                .extend(drops.map(|(name, value)| format!("{value} packets counted as {name}")));
        }
        for (side, ns) in [
            ("client", &self.planes.client),
            ("backend", &self.planes.backend),
        ] {
            for name in ["SctpChecksumErrors", "SctpAborteds", "SctpOutOfBlues"] {
                let count = sctp::counter(ns, name).expect("a counter");
                if count > 0 {
                    complaints.push(format!("{count} {name} at the {side}"));
                }
            }
        }
        complaints
    }

    fn capture_client(&self) -> Vec<Capture> {
        (0..PLANES)
            .map(|plane| Capture::start(&self.planes.client, &format!("c{plane}")))
            .map(|capture| capture.expect("a capture"))
            .collect()
    }

    /// What is wrong with what the client received: all is to be good, and from the service.
    fn client_complaints(&self, reports: &[Report]) -> Vec<String> {
        let (vips, backends) = (self.addrs(Role::Vip), self.addrs(Role::Backend));
        let mut complaints = Vec::new();
        for (plane, report) in reports.iter().enumerate() {
            let received = &report.received;
            if received.packets == 0 || received.good != received.packets {
                complaints.push(format!("received in plane {plane}: {received:?}"));
            }
            for found in report.packets() {
                let ours = |addr: SocketAddr| vips.contains(&addr.ip());
                if !ours(found.source) && !ours(found.dest) {
                    complaints.push(format!("from {} to {}", found.source, found.dest));
                }
                let named = chunk::named_addresses(found.sctp);
                if let Some(addr) = named.iter().find(|addr| backends.contains(addr)) {
                    complaints.push(format!("the client was told of {addr}"));
                }
            }
        }
        complaints
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        for pins in &self.pins {
            pins.detach_all().expect("it detaches");
        }
    }
}

fn nr_confirmed(assoc: &Association) -> usize {
    assoc.paths.iter().filter(|path| path.confirmed).count()
}

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const BOTH: &[Family] = &[Family::V4, Family::V6];

#[rstest]
fn an_association_has_every_path_and_survives_a_cut(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(V4, V6, BOTH)] families: &'static [Family],
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, families, 1);
    let listeners = lb.listen();
    let captures = lb.capture_client();
    let (client, server) = lb.associate(&listeners, &lb.addrs(Role::Client));
    let mut complaints = Vec::new();
    let mut transfer = |when: &str| {
        let intact = transfer::both_ways(&client, &server, PAYLOAD);
        if !matches!(intact, Ok(true)) {
            complaints.push(format!("the payload {when}: {intact:?}"));
        }
    };

    transfer("on the first path");
    let nr_paths = PLANES * families.len();
    let assoc = lb.await_assoc(0, "on all paths", |assoc| nr_confirmed(assoc) >= nr_paths);
    let other = SocketAddr::new(
        addr(Role::Client, 1, families[0]),
        assoc.original.source.port(),
    );
    sctp::set_primary(&client, lb.vip(1)).expect("it knows the service's other address");
    sctp::set_primary(&server, other).expect("it knows the client's other address");
    transfer("on the second path");
    lb.planes.cut(1).expect("nft");
    transfer("after the second path was cut");
    lb.planes.restore(1).expect("nft");
    transfer("after it was restored");

    let reports: Vec<_> = captures
        .into_iter()
        .map(|capture| capture.finish().expect("a report"))
        .collect();
    let assoc = lb.await_assoc(0, "established", |assoc| assoc.state == State::Established);
    complaints.extend(lb.complaints());
    complaints.extend(lb.client_complaints(&reports));
    if assoc.paths.iter().any(|path| path.backend == path.vip) {
        complaints.push(format!("{assoc:?}"));
    }
    insist(
        &complaints,
        &[("plane-0", &reports[0]), ("plane-1", &reports[1])],
    );
}
