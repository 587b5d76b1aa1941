// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The load balancer between hosts: the kernel's own SCTP sockets, and programs that others wrote.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bpf_sctp::capture::Capture;
use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lab::{BACKEND_DEV, CLIENT_DEV, Family, TRANSLATOR_DEVS};
use bpf_sctp::lb::conntrack::State;
use bpf_sctp::lb::model::{Backend, Desired, Frontend, Service, ServiceName};
use bpf_sctp::netns::Namespace;
use bpf_sctp::scenario::{BACKEND_PORT, VIP_PORT};
use bpf_sctp::{sctp, transfer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rstest::rstest;
use socket2::{Protocol, Socket};

use crate::balanced::{Balanced, TIMEOUT, received_complaints};
use crate::support::{
    StopOnDrop, insist, patiently, require, send_raw, tshark_complaints, with_server,
};

#[rstest]
fn an_association_goes_through(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(true, false)] offload: bool,
    #[values(None, Some(Update::Bpf))] update: Option<Update>,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, offload, update);
    lb.serve([0]);
    let at_client = Capture::start(&lb.lab.client, CLIENT_DEV).expect("a capture");
    let at_backend = Capture::start(&lb.lab.backend, BACKEND_DEV).expect("a capture");
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let (client, server) = lb.associate(&listener);
    let intact = transfer::both_ways(&client, &server, 1 << 20);
    let states: Vec<_> = lb
        .maps
        .associations()
        .expect("it can be read")
        .iter()
        .map(|assoc| assoc.state)
        .collect();
    let (at_client, at_backend) = (
        at_client.finish().expect("a report"),
        at_backend.finish().expect("a report"),
    );

    let mut complaints = lb.complaints();
    if !matches!(intact, Ok(true)) {
        complaints.push(format!("the payload: {intact:?}"));
    }
    if states != [State::Established] {
        complaints.push(format!("associations: {states:?}"));
    }
    let stats = lb.maps.stats().expect("counters");
    let kfunc = update.is_none() && Feature::Kfunc.available();
    let (used, unused) = if kfunc {
        ("csum_kfunc", "csum_bpf")
    } else {
        ("csum_bpf", "csum_kfunc")
    };
    if stats.get(used) == 0 || stats.get(unused) > 0 {
        complaints.push(format!("not {used} only: {stats:?}"));
    }
    complaints.extend(received_complaints("client", &at_client, lb.vip()));
    complaints.extend(received_complaints("backend", &at_backend, lb.backend(0)));
    let reports = [("client", &at_client), ("backend", &at_backend)];
    if !offload {
        complaints.extend(tshark_complaints(&reports));
    }
    insist(&complaints, &reports);
}

/// Accepts until `stop`, and as long as there is something to accept.
fn accept_all(listener: &Socket, stop: &AtomicBool) -> Vec<Socket> {
    listener
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    let mut accepted = Vec::new();
    loop {
        match listener.accept() {
            Ok((socket, _)) => accepted.push(socket),
            Err(_) if stop.load(Ordering::Relaxed) => return accepted,
            Err(_) => {}
        }
    }
}

#[rstest]
fn none_of_500_associations_breaks_while_backends_and_programs_change(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    const NR: usize = 500;
    const NR_BACKENDS: u16 = 8;
    // Two sockets for each, and as many in the same test of the other hook.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the limit");
    let lb = Balanced::new(hook, Family::V4, false, None);
    lb.serve([0, 1]);
    let listeners: Vec<_> = (0..NR_BACKENDS)
        .map(|nr| sctp::listen(&lb.lab.backend, lb.backend(nr), TIMEOUT).expect("a socket"))
        .collect();
    let stop = AtomicBool::new(false);
    let (mut clients, mut servers) = thread::scope(|scope| {
        let accepting: Vec<_> = listeners
            .iter()
            .map(|listener| scope.spawn(|| accept_all(listener, &stop)))
            .collect();
        let stopping = StopOnDrop(&stop);
        let mut clients = Vec::new();
        for nr in 0..NR {
            if nr % 25 == 24 {
                // Two others each time: each backend comes and goes again.
                let first = (nr / 25) as u16;
                lb.serve([first % NR_BACKENDS, (first + 3) % NR_BACKENDS]);
            }
            if nr == 150 || nr == 350 {
                lb.replace();
            }
            clients.push(lb.connect());
            // One that was there before is used meanwhile.
            let old = nr / 2;
            clients[old].write_all(b"early").expect("it is open");
        }
        drop(stopping);
        let servers = accepting
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect::<Vec<_>>();
        (clients, servers)
    });
    assert_eq!(servers.len(), NR);

    let established = lb.maps.associations().expect("it can be read");
    let established = established
        .iter()
        .filter(|assoc| assoc.state == State::Established);
    assert_eq!(established.count(), NR);
    for (nr, client) in clients.iter_mut().enumerate() {
        client
            .write_all(format!("message {nr}").as_bytes())
            .expect("it is open");
    }
    for server in &mut servers {
        let mut buffer = [0; 64];
        loop {
            let len = server.read(&mut buffer).expect("it is open");
            if buffer[..len].starts_with(b"message") {
                server.write_all(&buffer[..len]).expect("it is open");
                break;
            }
            assert_eq!(&buffer[..len], b"early");
        }
    }
    for (nr, client) in clients.iter_mut().enumerate() {
        let mut buffer = [0; 64];
        let len = client.read(&mut buffer).expect("it is open");
        assert_eq!(buffer[..len], *format!("message {nr}").as_bytes());
    }
    assert_eq!(lb.complaints(), Vec::<String>::new());
    for ns in [&lb.lab.client, &lb.lab.backend] {
        assert_eq!(sctp::counter(ns, "SctpAborteds").expect("a counter"), 0);
    }
}

/// Only the load balancer knows: packets by `device` may have no more than 1,300 bytes.
fn narrow(lb: &Balanced, device: &str, (v4, v6): (&str, &str), family: Family) {
    let net = match family {
        Family::V4 => v4.into(),
        Family::V6 => format!("{v6} metric 256"),
    };
    lb.lab
        .translator
        .ip_batch(&[format!("route replace {net} dev {device} mtu lock 1300")])
        .expect("ip");
}

/// Whether a host learns that soon. Returns its route as well.
fn learns(ns: &Namespace, dest: IpAddr) -> (bool, String) {
    let dest = dest.to_string();
    let route = || {
        let output = ns.command("ip", &["route", "get", &dest]);
        output.expect("ip")
    };
    let learned = (0..50).any(|_| {
        thread::sleep(Duration::from_millis(100));
        route().contains("mtu 1300")
    });
    (learned, route())
}

#[rstest]
fn path_mtu_discovery_works_through_it(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, false, None);
    lb.serve([0]);
    // It has to tell the client, about a packet to the VIP.
    let nets = ("198.51.100.0/24", "2001:db8:2::/64");
    narrow(&lb, TRANSLATOR_DEVS[1], nets, family);
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    // What is too big is lost, and Linux sends it again in IP fragments, which are refused. But
    // the client learns.
    let (mut first, _server) = lb.associate(&listener);
    first.write_all(&[7; 1400]).expect("it is open");
    let (learned, route) = learns(&lb.lab.client, lb.vip().ip());
    let stats = lb.maps.stats().expect("counters");
    assert!(learned && stats.get("icmp") > 0, "{stats:?} {route}");

    let before = lb.maps.stats().expect("counters");
    let (client, server) = lb.associate(&listener);
    assert!(transfer::both_ways(&client, &server, 1 << 18).expect("it goes on"));
    let after = lb.maps.stats().expect("counters");
    assert_eq!(after.get("icmp"), before.get("icmp"));
}

/// The load balancer has to tell the backend, about a packet from the VIP.
#[rstest]
fn path_mtu_discovery_works_for_replies(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, false, None);
    lb.serve([0]);
    // Of IPv4's, a route's MTU is not enough.
    let ends = [
        (&lb.lab.translator, TRANSLATOR_DEVS[0]),
        (&lb.lab.client, CLIENT_DEV),
    ];
    for (ns, device) in ends {
        ns.ip_batch(&[format!("link set {device} mtu 1300")])
            .expect("ip");
    }
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let (_client, mut server) = lb.associate(&listener);
    server.write_all(&[7; 1400]).expect("it is open");
    let (learned, route) = learns(&lb.lab.backend, family.addrs().client);
    let stats = lb.maps.stats().expect("counters");
    assert!(learned && stats.get("too_big") > 0, "{stats:?} {route}");

    let (client, server) = lb.associate(&listener);
    assert!(transfer::both_ways(&client, &server, 1 << 18).expect("it goes on"));
    assert_eq!(
        lb.maps.stats().expect("counters").get("too_big"),
        stats.get("too_big")
    );
}

/// An ICMP error from the client: this node's answer to a ping was too big for a path of this MTU.
fn fragmentation_needed(node: Ipv4Addr, client: Ipv4Addr, mtu: u16) -> Vec<u8> {
    let mut icmp = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes()].concat();
    icmp.extend([0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, 1, 0, 0]);
    icmp.extend([node.octets(), client.octets()].concat());
    icmp.extend([0; 8]);
    let words = icmp
        .chunks(2)
        .map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp
}

/// The node believes it for what it sends itself, but does not forward by it.
#[rstest]
fn an_mtu_that_anybody_may_tell_leaves_replies_translated(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, Family::V4, false, None);
    lb.serve([0]);
    let addrs = Family::V4.addrs();
    let (IpAddr::V4(node), IpAddr::V4(client)) = (addrs.client_gateway, addrs.client) else {
        panic!("{addrs:?}");
    };
    let too_big = fragmentation_needed(node, client, 600);
    send_raw(&lb.lab.client, Protocol::ICMPV4, node.into(), &too_big);
    let route = ["route", "get", &client.to_string()];
    let route = lb.lab.translator.command("ip", &route).expect("ip");
    assert!(route.contains("mtu 600"), "{route}");

    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let (client, server) = lb.associate(&listener);
    assert!(transfer::both_ways(&client, &server, 1 << 18).expect("it goes on"));
    let stats = lb.maps.stats().expect("counters");
    assert_eq!(stats.get("too_big"), 0, "{stats:?}");
    assert_eq!(lb.complaints(), Vec::<String>::new());
}

#[rstest]
fn lksctp_tools_are_content(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, Family::V4, true, None);
    lb.serve([0]);
    let addrs = Family::V4.addrs();
    let (client, backend, vip) = (
        addrs.client.to_string(),
        addrs.backend.to_string(),
        addrs.vip.to_string(),
    );
    let (port, vip_port) = (BACKEND_PORT.to_string(), VIP_PORT.to_string());
    let server = ["sctp_test", "-H", &backend, "-P", &port, "-l"];
    let client_args = [
        "-H", &client, "-P", "5000", "-h", &vip, "-p", &vip_port, "-s", "-c", "2", "-x", "20",
    ];
    let output = with_server(&lb.lab.backend, &server, || {
        patiently(&lb.lab.client, "sctp_test", &client_args)
    });
    let stats = lb.maps.stats().expect("counters");
    assert!(stats.get("to_backend") > 20, "{stats:?}\n{output}");
    assert!(stats.get("to_client") > 5, "{stats:?}\n{output}");
    assert_eq!(lb.complaints(), Vec::<String>::new());
}

#[rstest]
fn iperf3_is_content(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, Family::V4, true, None);
    lb.serve([0]);
    let addrs = Family::V4.addrs();
    let vip = addrs.vip.to_string();
    // iperf3 talks TCP as well, to the same address and port, which is none of our business: it
    // goes to the VIP on the backend itself, at the service's port.
    lb.lab
        .backend
        .ip_batch(&[format!("addr add {vip}/32 dev lo")])
        .expect("ip");
    lb.lab
        .translator
        .ip_batch(&[format!("route add {vip} via {}", addrs.backend)])
        .expect("ip");
    let port = BACKEND_PORT.to_string();
    let mut service = lb.vip();
    service.set_port(BACKEND_PORT);
    let name = ServiceName {
        namespace: "default".into(),
        name: "iperf3".into(),
        port: "sctp".into(),
    };
    let backend = Backend {
        addr: lb.backend(0),
        secondary: vec![],
        draining: false,
    };
    let desired = Desired {
        services: [(
            name,
            Service {
                frontends: [(service, Frontend::default())].into(),
                backends: vec![backend],
                affinity: None,
            },
        )]
        .into(),
        ..Default::default()
    };
    lb.maps.apply(&desired).expect("there is room");
    let output = with_server(&lb.lab.backend, &["iperf3", "-s", "-p", &port], || {
        let args = ["--sctp", "-c", &vip, "-p", &port, "-n", "1M", "-B"];
        let client = addrs.client.to_string();
        patiently(&lb.lab.client, "iperf3", &[&args[..], &[&client]].concat())
    });
    assert!(output.contains("iperf Done."), "{output}");
    let stats = lb.maps.stats().expect("counters");
    assert!(stats.get("address_only") > 20, "{stats:?}\n{output}");
    assert_eq!(lb.complaints(), Vec::<String>::new());
}

#[test]
fn the_command_takes_manifests_and_shows_what_is() {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(Hook::Tc, Family::V4, false, None);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("amf.yaml");
    let addrs = Family::V4.addrs();
    std::fs::write(
        &file,
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: amf, namespace: core}}
spec:
  clusterIP: {vip}
  ports:
  - {{name: n2, protocol: SCTP, port: {VIP_PORT}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: amf-1, namespace: core, labels: {{kubernetes.io/service-name: amf}}}}
addressType: IPv4
ports:
- {{name: n2, protocol: SCTP, port: {BACKEND_PORT}}}
endpoints:
- addresses: [{backend}]
",
            vip = addrs.vip,
            backend = addrs.backend
        ),
    )
    .expect("a file");
    let pins = lb.pins.folder().to_string_lossy().into_owned();
    let run = |args: &[&str]| {
        let args = [&["--pins", &pins, "-o", "json"], args].concat();
        lb.lab
            .translator
            .command(env!("CARGO_BIN_EXE_sctp-lb"), &args)
            .expect("it works")
    };
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&run(args)).expect("a document")
    };
    let file = file.to_string_lossy().into_owned();
    let applied = json(&["apply", "-f", &file]);
    assert_eq!(applied["changes"]["backends_added"], 1, "{applied}");
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let _client = lb.connect();
    let _server = listener.accept().expect("an association");

    let assocs = json(&["get", "conntrack"]);
    assert_eq!(assocs[0]["state"], "ESTABLISHED", "{assocs}");
    assert_eq!(assocs[0]["original"]["dest"], lb.vip().to_string());
    assert_eq!(assocs[0]["translated"]["dest"], lb.backend(0).to_string());
    let services = json(&["get", "services"]);
    assert_eq!(services[0]["service"], "core/amf:n2", "{services}");
    let backends = json(&["get", "backends"]);
    assert_eq!(backends[0]["associations"], 1, "{backends}");
    assert_eq!(json(&["stats"])["new"], 1);
    let status = json(&["status"]);
    assert_eq!(status["attached"].as_array().map(Vec::len), Some(4));
}
