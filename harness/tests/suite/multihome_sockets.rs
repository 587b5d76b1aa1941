// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Associations between hosts with several addresses, in two planes: the kernel's own SCTP sockets.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
use bpf_sctp::lb::model::{
    Block, Desired, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};
use bpf_sctp::lb::share::Exchange;
use bpf_sctp::netns::Namespace;
use bpf_sctp::planes::{PLANES, Planes, Role, addr, addrs};
use bpf_sctp::{sctp, transfer};
use rstest::rstest;
use socket2::Socket;

use crate::support::{StopOnDrop, backend_by_family, insist, patiently, require, with_server};

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

impl Balanced {
    fn new(hook: Hook, families: &'static [Family], nr_nodes: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let planes = Planes::new(nr_nodes).expect("namespaces and veth");
        planes.hurry().expect("sysctls");
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
        let ports = BACKEND_PORTS.iter();
        let backends = ports.flat_map(|port| backend_by_family(&all, *port));
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
            backends: backends.collect(),
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
        (client, self.accept(listeners))
    }

    /// The association of whichever backend gets it.
    fn accept(&self, listeners: &[Socket]) -> Socket {
        for listener in listeners {
            listener.set_nonblocking(true).expect("a flag");
        }
        let until = Instant::now() + TIMEOUT;
        loop {
            if let Some((server, _)) = listeners.iter().find_map(|l| l.accept().ok()) {
                server.set_nonblocking(false).expect("a flag");
                return server;
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

    /// Makes the path in the second plane the primary one of both sides.
    fn move_to_second_plane(&self, client: &Socket, server: &Socket, assoc: &Association) {
        let port = assoc.original.source.port();
        let other = SocketAddr::new(addr(Role::Client, 1, self.families[0]), port);
        sctp::set_primary(client, self.vip(1)).expect("it knows the service's other address");
        sctp::set_primary(server, other).expect("it knows the client's other address");
    }

    /// What no test wants to see.
    fn complaints(&self) -> Vec<String> {
        let mut complaints =
            self.counted(&["SctpChecksumErrors", "SctpAborteds", "SctpOutOfBlues"]);
        for maps in &self.maps {
            let stats = maps.stats().expect("counters");
            let drops = stats.iter().filter(|(name, _)| name.starts_with("drop_"));
            let drops = drops.filter(|(_, value)| *value > 0);
            complaints.extend(drops.map(|(name, value)| format!("{value} packets: {name}")));
        }
        complaints
    }

    /// Those of the kernel's counters that are not zero.
    fn counted(&self, names: &[&str]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (side, ns) in [
            ("client", &self.planes.client),
            ("backend", &self.planes.backend),
        ] {
            for name in names {
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
        if reports.iter().all(|report| report.received.packets == 0) {
            complaints.push("nothing received".into());
        }
        for (plane, report) in reports.iter().enumerate() {
            let (sent, received) = (&report.sent, &report.received);
            // A stack may send by one plane from its address in another, where the answers go.
            if sent.packets + received.packets == 0 {
                complaints.push(format!("nothing in plane {plane}"));
            }
            if received.good != received.packets {
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
        for (node, pins) in self.planes.nodes.iter().zip(&self.pins) {
            let detached = node.run(|| pins.detach_all());
            detached.expect("a namespace").expect("it detaches");
        }
    }
}

/// Sends and receives, and says what was wrong with it.
fn payload_complaint(client: &Socket, server: &Socket, when: &str) -> Option<String> {
    let intact = transfer::both_ways(client, server, PAYLOAD);
    (!matches!(intact, Ok(true))).then(|| format!("the payload {when}: {intact:?}"))
}

fn finish(captures: Vec<Capture>) -> Vec<Report> {
    let finished = captures.into_iter().map(Capture::finish);
    finished.map(|report| report.expect("a report")).collect()
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
    let mut transfer = |when| complaints.extend(payload_complaint(&client, &server, when));

    transfer("on the first path");
    let nr_paths = PLANES * families.len();
    let assoc = lb.await_assoc(0, "on all paths", |assoc| nr_confirmed(assoc) >= nr_paths);
    lb.move_to_second_plane(&client, &server, &assoc);
    transfer("on the second path");
    lb.planes.cut(1).expect("nft");
    transfer("after the second path was cut");
    lb.planes.restore(1).expect("nft");
    transfer("after it was restored");

    let reports = finish(captures);
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

/// Nobody is translated, but a policy has its say on each path.
#[rstest]
fn a_policy_holds_on_every_path(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(1, 2)] nr_allowed: usize,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, V4, 1);
    let (clients, backends) = (lb.addrs(Role::Client), lb.addrs(Role::Backend));
    let port = BACKEND_PORTS[0];
    let peers = clients[..nr_allowed].iter().map(|addr| Block {
        net: (*addr).into(),
        except: vec![],
    });
    let rule = PolicyRule {
        peers: peers.collect(),
        ports: vec![PortRange {
            first: port,
            last: port,
        }],
    };
    let policy = EndpointPolicy {
        ingress: Some(vec![rule]),
        egress: None,
    };
    let policies = backends.iter().map(|addr| (*addr, policy.clone()));
    lb.maps[0]
        .apply(&Desired {
            policies: policies.collect(),
            ..Default::default()
        })
        .expect("there is room");
    for (plane, backend) in backends.iter().enumerate() {
        let gateway = addr(Role::ClientGateway, plane, Family::V4);
        let route = format!("route add {backend} via {gateway}");
        lb.planes.client.ip_batch(&[route]).expect("ip");
    }
    let listeners = lb.listen();
    let dest = SocketAddr::new(backends[0], port);
    let client =
        sctp::connect_from_all(&lb.planes.client, &clients, dest, TIMEOUT).expect("an association");
    let server = lb.accept(&listeners);
    let mut complaints = Vec::new();
    let mut transfer = |when| complaints.extend(payload_complaint(&client, &server, when));
    transfer("on the first path");
    if nr_allowed == 2 {
        lb.await_assoc(0, "on both paths", |assoc| nr_confirmed(assoc) >= PLANES);
        let own_port = client.local_addr().expect("its address");
        let own_port = own_port.as_socket().expect("an IP address").port();
        sctp::set_primary(&client, SocketAddr::new(backends[1], port)).expect("a peer's");
        sctp::set_primary(&server, SocketAddr::new(clients[1], own_port)).expect("a peer's");
        transfer("on the second path");
        lb.planes.cut(0).expect("nft");
        transfer("after the first path was cut");
        complaints.extend(lb.complaints());
    } else {
        // Either side probes the other path, in vain.
        let dropped = || lb.maps[0].stats().expect("counters").get("drop_policy");
        let until = Instant::now() + TIMEOUT;
        while dropped() == 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(100));
        }
        let assoc = lb.await_assoc(0, "there", |_| true);
        if dropped() == 0 || assoc.paths.iter().any(|path| path.client == clients[1]) {
            complaints.push(format!("{} dropped, {assoc:?}", dropped()));
        }
    }
    insist(&complaints, &[]);
}

#[rstest]
fn addresses_come_and_go(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] auth: bool,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, V4, 1);
    for ns in [&lb.planes.client, &lb.planes.backend] {
        let set =
            |name, on: bool| ns.sysctl(&format!("net/sctp/{name}"), if on { "1" } else { "0" });
        set("auth_enable", auth).expect("a sysctl");
        set("addip_noauth_enable", !auth).expect("a sysctl");
        set("addip_enable", true).expect("a sysctl");
    }
    let client_addrs = lb.addrs(Role::Client);
    let listeners = lb.listen();
    let (client, server) = lb.associate(&listeners, &client_addrs[..1]);
    let port = lb
        .await_assoc(0, "established", |assoc| assoc.state == State::Established)
        .original
        .source
        .port();
    let uses =
        |addr: IpAddr| move |assoc: &Association| assoc.paths.iter().any(|p| p.client == addr);

    let change = |addr, add| {
        sctp::change_addresses(&client, &[addr], port, add).expect("the kernel has ASCONF");
    };
    change(client_addrs[1], true);
    lb.await_assoc(0, "on the new address", uses(client_addrs[1]));
    thread::sleep(Duration::from_millis(500));
    sctp::set_primary(&server, SocketAddr::new(client_addrs[1], port)).expect("it has been told");
    sctp::set_primary(&client, lb.vip(1)).expect("it knows the service's other address");
    let added = payload_complaint(&client, &server, "after an address was added");
    change(client_addrs[0], false);
    lb.await_assoc(0, "off the old address", |assoc| {
        !uses(client_addrs[0])(assoc)
    });
    let deleted = payload_complaint(&client, &server, "after an address was deleted");

    let mut complaints = lb.complaints();
    complaints.extend(added.into_iter().chain(deleted));
    insist(&complaints, &[]);
}

/// The service's address of plane 0, and its port, as programs take them.
fn service_args(lb: &Balanced) -> [String; 2] {
    [lb.vip(0).ip().to_string(), VIP_PORT.to_string()]
}

/// Checks what passed by while others' programs talked.
fn insist_on_clean_planes(lb: &Balanced, captures: Vec<Capture>) {
    let reports = finish(captures);
    let mut complaints = lb.client_complaints(&reports);
    complaints.extend(lb.counted(&["SctpChecksumErrors"]));
    let stats = lb.maps[0].stats().expect("counters");
    for (name, value) in stats
        .iter()
        .filter(|(name, value)| name.starts_with("drop_") && *value > 0)
    {
        complaints.push(format!("{value} packets: {name}"));
    }
    if stats.get("addrs") == 0 || stats.get("to_backend") < 20 {
        complaints.push(format!("{stats:?}"));
    }
    insist(
        &complaints,
        &[("plane-0", &reports[0]), ("plane-1", &reports[1])],
    );
}

#[rstest]
fn lksctp_tools_use_all_paths(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, V4, 1);
    let [c0, c1] = [0, 1].map(|plane| addr(Role::Client, plane, Family::V4).to_string());
    let [b0, b1] = [0, 1].map(|plane| addr(Role::Backend, plane, Family::V4).to_string());
    let [vip, vip_port] = service_args(&lb);
    let ports = BACKEND_PORTS.map(|port| port.to_string());
    let server = |port| ["sctp_test", "-H", &b0, "-B", &b1, "-P", port, "-l"];
    let client = [
        "-H", &c0, "-B", &c1, "-P", "5000", "-h", &vip, "-p", &vip_port, "-s", "-c", "2", "-x",
        "600",
    ];
    let captures = lb.capture_client();
    let backend = &lb.planes.backend;
    with_server(backend, &server(&ports[0]), || {
        with_server(backend, &server(&ports[1]), || {
            patiently(&lb.planes.client, "sctp_test", &client)
        })
    });
    insist_on_clean_planes(&lb, captures);
}

/// Keeps the kernel's SCTP quiet about packets that are usrsctp's, which are none of it.
fn mute_kernel(ns: &Namespace) {
    let rules = "add table inet mute { chain output { type filter hook output priority 0; \
                 meta l4proto sctp @th,96,8 6 drop; }; }";
    ns.command("nft", &[rules]).expect("nft");
}

const USRSCTP: &str = "/usr/lib/usrsctp/tsctp";

#[rstest]
fn usrsctp_as_a_client_uses_all_paths(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, V4, 1);
    mute_kernel(&lb.planes.client);
    let [vip, vip_port] = service_args(&lb);
    let listeners = lb.listen();
    let captures = lb.capture_client();
    // More than the server's buffer takes: nothing ends before it reads.
    let args = ["-n", "1000", "-l", "1000", "-p", &vip_port, &vip];
    let received = thread::scope(|scope| {
        let client = scope.spawn(|| lb.planes.client.command(USRSCTP, &args));
        let mut server = lb.accept(&listeners);
        lb.await_assoc(0, "on all paths", |assoc| nr_confirmed(assoc) >= PLANES);
        let received = std::io::copy(&mut server, &mut std::io::sink()).expect("it is open");
        client
            .join()
            .expect("no panic")
            .expect("tsctp (scripts/setup vm)");
        received
    });
    assert_eq!(received, 1000 * 1000);
    insist_on_clean_planes(&lb, captures);
}

#[rstest]
fn usrsctp_as_a_backend_uses_all_paths(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, V4, 1);
    mute_kernel(&lb.planes.backend);
    let ports = BACKEND_PORTS.map(|port| port.to_string());
    let server = |port| [USRSCTP, "-E", "0", "-p", port];
    let captures = lb.capture_client();
    let backend = &lb.planes.backend;
    with_server(backend, &server(&ports[0]), || {
        with_server(backend, &server(&ports[1]), || {
            let addrs = lb.addrs(Role::Client);
            let client = (0..5).find_map(|_| {
                thread::sleep(Duration::from_millis(500));
                sctp::connect_from_all(&lb.planes.client, &addrs, lb.vip(0), TIMEOUT / 8).ok()
            });
            let Some(mut client) = client else {
                return;
            };
            lb.await_assoc(0, "on all paths", |assoc| nr_confirmed(assoc) >= PLANES);
            sctp::set_primary(&client, lb.vip(1)).expect("it knows the service's other address");
            for _ in 0..100 {
                client.write_all(&[7; 1000]).expect("it is open");
            }
            drop(client);
            lb.await_assoc(0, "shut down", |assoc| assoc.state == State::Closed);
        })
    });
    insist_on_clean_planes(&lb, captures);
}

/// Both nodes' programs have a service; each tells the other of its associations.
#[rstest]
fn either_node_carries_any_path(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, V4, 2);
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let addrs = [0, 1].map(|node: usize| sockets[node].local_addr().expect("its own"));
    let stop = AtomicBool::new(false);
    let nodes: Vec<_> = sockets
        .into_iter()
        .zip(&lb.maps)
        .zip([addrs[1], addrs[0]])
        .map(|((listener, maps), peer)| {
            maps.set_service_only(true).expect("a setting");
            Exchange {
                maps,
                listener,
                peers: vec![peer],
                notice: &|notice| eprintln!("{notice}"),
                stop: &stop,
            }
        })
        .collect();
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for node in &nodes {
            scope.spawn(|| node.run().expect("it runs"));
        }
        let listeners = lb.listen();
        let captures = lb.capture_client();
        let (client, server) = lb.associate(&listeners, &lb.addrs(Role::Client));
        let mut complaints = Vec::new();
        let mut transfer = |when| complaints.extend(payload_complaint(&client, &server, when));
        transfer("through the node that opened it");
        let assoc = lb.await_assoc(1, "used by heartbeats", |assoc| {
            assoc.paths.iter().any(|path| path.idle.is_some())
        });
        lb.move_to_second_plane(&client, &server, &assoc);
        transfer("through the other node");
        lb.planes.cut(0).expect("nft");
        transfer("after the first node was cut off");
        lb.planes.restore(0).expect("nft");
        transfer("after it was back");

        let reports = finish(captures);
        // Packets that came before their association was known here: SCTP sent them again.
        let early = |complaint: &String| complaint.ends_with("drop_no_assoc");
        complaints.extend(lb.complaints().into_iter().filter(|c| !early(c)));
        complaints.extend(lb.client_complaints(&reports));
        insist(
            &complaints,
            &[("plane-0", &reports[0]), ("plane-1", &reports[1])],
        );
    });
}
