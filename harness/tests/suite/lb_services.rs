// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Kinds of services, and policies, between hosts with the kernel's own SCTP sockets. What was
//! captured is verified by the reference and by tshark.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bpf_sctp::capture::{Capture, Report};
use bpf_sctp::csum_prog::Hook;
use bpf_sctp::feature::Feature;
use bpf_sctp::lab::{BACKEND_DEV, CLIENT_DEV, Family, TRANSLATOR_DEVS};
use bpf_sctp::lb::model::{Block, EndpointPolicy, Frontend, PolicyRule, PortRange, Reach};
use bpf_sctp::netns::Namespace;
use bpf_sctp::scenario::BACKEND_PORT;
use bpf_sctp::{sctp, transfer};
use rstest::rstest;
use socket2::Socket;

use crate::balanced::{Balanced, TIMEOUT, received_complaints};
use crate::support::{insist, require, tshark_complaints};

/// How long a client waits that is to wait in vain.
const IN_VAIN: Duration = Duration::from_secs(2);
const PAYLOAD: usize = 1 << 18;

/// Another address of the client, in the network of its first.
fn second_client(lb: &Balanced, family: Family) -> IpAddr {
    let (addr, len): (IpAddr, _) = match family {
        Family::V4 => ("192.0.2.2".parse().expect("an address"), 24),
        Family::V6 => ("2001:db8:1::2".parse().expect("an address"), 64),
    };
    let nodad = if addr.is_ipv6() { "nodad" } else { "" };
    let [to_client, _] = TRANSLATOR_DEVS;
    let add = format!("addr add {addr}/{len} dev {CLIENT_DEV} {nodad}");
    lb.lab.client.ip_batch(&[add]).expect("ip");
    let neighbour = format!("neigh add {addr} lladdr 02:00:00:00:01:01 dev {to_client}");
    lb.lab.translator.ip_batch(&[neighbour]).expect("ip");
    addr
}

/// Associates from the namespace with who listens.
fn associate(
    ns: &Namespace,
    source: SocketAddr,
    service: SocketAddr,
    listener: &Socket,
) -> (Socket, Socket, SocketAddr) {
    thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept());
        let client = sctp::connect_from(ns, source, service, TIMEOUT).expect("an association");
        let (server, peer) = accepted.join().expect("no panic").expect("an association");
        (client, server, peer.as_socket().expect("an IP address"))
    })
}

fn captures(lb: &Balanced) -> [Capture; 2] {
    [
        Capture::start(&lb.lab.client, CLIENT_DEV).expect("a capture"),
        Capture::start(&lb.lab.backend, BACKEND_DEV).expect("a capture"),
    ]
}

/// Insists that the test went well, as the captures and the counters tell.
fn finish(lb: &Balanced, captures: [Capture; 2], seen_by: [SocketAddr; 2], intact: bool) {
    let [client, backend] = captures.map(|capture| capture.finish().expect("a report"));
    let mut complaints = lb.complaints();
    if !intact {
        complaints.push("the payload arrived changed".into());
    }
    complaints.extend(received_complaints("client", &client, seen_by[0]));
    complaints.extend(received_complaints("backend", &backend, seen_by[1]));
    let reports: [(&str, &Report); 2] = [("client", &client), ("backend", &backend)];
    complaints.extend(tshark_complaints(&reports));
    insist(&complaints, &reports);
}

#[rstest]
fn masquerade_hides_clients_with_the_same_port_behind_the_node(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, false, None);
    let addrs = family.addrs();
    // The backend can answer nobody but the node.
    let route = match family {
        Family::V4 => "route del default",
        Family::V6 => "route del ::/0",
    };
    lb.lab.backend.ip_batch(&[route.into()]).expect("ip");
    let masquerade = Frontend {
        masquerade: true,
        ..Frontend::default()
    };
    lb.apply(lb.service((lb.vip(), masquerade), [0]), BTreeMap::new());
    lb.maps
        .set_masquerade(&[addrs.backend_gateway])
        .expect("it can be set");
    let second = second_client(&lb, family);
    let captures = captures(&lb);
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let from = |addr| {
        associate(
            &lb.lab.client,
            SocketAddr::new(addr, 5000),
            lb.vip(),
            &listener,
        )
    };
    let (one, other) = (from(addrs.client), from(second));
    let intact = transfer::both_ways(&one.0, &one.1, PAYLOAD).expect("it lasts")
        && transfer::both_ways(&other.0, &other.1, PAYLOAD).expect("it lasts");

    let (one, other) = (one.2, other.2);
    assert_eq!([one.ip(), other.ip()], [addrs.backend_gateway; 2]);
    assert_eq!(one.port(), 5000);
    assert_ne!(other.port(), 5000, "two associations with one tuple");
    finish(&lb, captures, [lb.vip(), lb.backend(0)], intact);
}

#[rstest]
fn a_backend_reaches_itself_through_the_service(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, false, None);
    lb.serve([0]);
    let addrs = family.addrs();
    let capture = Capture::start(&lb.lab.backend, BACKEND_DEV).expect("a capture");
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let source = SocketAddr::new(addrs.backend, 0);
    let (client, server, peer) = associate(&lb.lab.backend, source, lb.vip(), &listener);
    let intact = transfer::both_ways(&client, &server, PAYLOAD).expect("it lasts");

    assert_eq!(peer.ip(), addrs.vip);
    let report = capture.finish().expect("a report");
    let mut complaints = lb.complaints();
    if !intact || report.received.packets == 0 || report.received.good != report.received.packets {
        complaints.push(format!("intact: {intact}, {report:?}"));
    }
    complaints.extend(tshark_complaints(&[("backend", &report)]));
    insist(&complaints, &[("backend", &report)]);
}

#[rstest]
fn a_port_of_the_node_is_a_service(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, false, None);
    let addrs = family.addrs();
    let node_port = SocketAddr::new(addrs.client_gateway, 30_000);
    let frontend = Frontend {
        reach: Reach::Node,
        ..Frontend::default()
    };
    lb.apply(lb.service((node_port, frontend), [0]), BTreeMap::new());
    let captures = captures(&lb);
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let source = SocketAddr::new(addrs.client, 0);
    let (client, server, peer) = associate(&lb.lab.client, source, node_port, &listener);
    let intact = transfer::both_ways(&client, &server, PAYLOAD).expect("it lasts");
    assert_eq!(peer.ip(), addrs.client);
    finish(&lb, captures, [node_port, lb.backend(0)], intact);
}

#[rstest]
fn a_client_on_a_vlan_is_served(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, Family::V4, false, None);
    lb.serve([0]);
    let [to_client, _] = TRANSLATOR_DEVS;
    let vip = lb.vip().ip();
    let vlan = |device: &str, addr: &str| {
        [
            format!("link add link {device} name vlan5 type vlan id 5"),
            format!("addr add {addr}/24 dev vlan5"),
            "link set vlan5 up".into(),
        ]
    };
    lb.lab
        .translator
        .ip_batch(&vlan(to_client, "10.5.0.254"))
        .expect("ip");
    lb.lab
        .client
        .ip_batch(&vlan(CLIENT_DEV, "10.5.0.1"))
        .expect("ip");
    let route = format!("route add {vip} via 10.5.0.254");
    lb.lab.client.ip_batch(&[route]).expect("ip");
    // In XDP the tag is in the packet, and it is the only one that comes with tags.
    let captures = captures(&lb);
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let source = "10.5.0.1:0".parse().expect("an address");
    let (client, server, peer) = associate(&lb.lab.client, source, lb.vip(), &listener);
    let intact = transfer::both_ways(&client, &server, PAYLOAD).expect("it lasts");
    assert_eq!(peer.ip(), source.ip());
    finish(&lb, captures, [lb.vip(), lb.backend(0)], intact);
}

#[rstest]
fn affinity_keeps_a_client_with_one_backend(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    const NR: usize = 12;
    let lb = Balanced::new(hook, Family::V4, false, None);
    let listeners: Vec<_> = (0..2)
        .map(|nr| sctp::listen(&lb.lab.backend, lb.backend(nr), TIMEOUT).expect("a socket"))
        .collect();
    let frontend = || (lb.vip(), Frontend::default());
    let mut service = lb.service(frontend(), [0, 1]);
    service.affinity = Some(Duration::from_secs(3600));
    lb.apply(service, BTreeMap::new());
    let chosen = |from: usize| -> Vec<SocketAddr> {
        let _clients: Vec<_> = (0..NR).map(|_| lb.connect()).collect();
        let associations = lb.maps.associations().expect("they can be read");
        let mut chosen: Vec<_> = associations
            .iter()
            .map(|a| (a.age, a.translated.dest))
            .collect();
        chosen.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        chosen
            .split_off(from)
            .into_iter()
            .map(|(_, dest)| dest)
            .collect()
    };
    let kept = chosen(0);
    assert_eq!(kept.len(), NR);
    assert!(kept.iter().all(|dest| *dest == kept[0]), "{kept:?}");
    // Without it they are spread: that all of them go to one has a chance of one in 2048.
    lb.apply(lb.service(frontend(), [0, 1]), BTreeMap::new());
    let spread = chosen(NR);
    assert!(spread.iter().any(|dest| *dest != spread[0]), "{spread:?}");
    drop(listeners);
    assert_eq!(lb.complaints(), Vec::<String>::new());
}

/// Lets only this client, at this port, associate with the endpoint.
fn only(client: IpAddr, port: u16) -> EndpointPolicy {
    let rule = PolicyRule {
        peers: vec![Block {
            net: client.into(),
            except: vec![],
        }],
        ports: vec![PortRange {
            first: port,
            last: port,
        }],
    };
    EndpointPolicy {
        ingress: Some(vec![rule]),
        egress: None,
    }
}

/// Whether the client's message comes to the server.
fn gets_through(client: &mut Socket, server: &mut Socket, message: &[u8]) -> bool {
    client.write_all(message).expect("it is open");
    server.set_read_timeout(Some(IN_VAIN)).expect("a timeout");
    let mut buffer = [0; 64];
    matches!(server.read(&mut buffer), Ok(len) if &buffer[..len] == message)
}

/// Policy is judged on the backend behind the VIP, and holds without a service as well.
#[rstest]
fn a_policy_says_who_may_associate(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(true, false)] through_service: bool,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(hook, family, false, None);
    let addrs = family.addrs();
    let second = second_client(&lb, family);
    let service = lb.service((lb.vip(), Frontend::default()), [0]);
    let policies = |policy| BTreeMap::from([(addrs.backend, policy)]);
    lb.apply(service.clone(), policies(only(addrs.client, BACKEND_PORT)));
    let dest = if through_service {
        lb.vip()
    } else {
        lb.backend(0)
    };
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let refused = sctp::connect(&lb.lab.client, second, dest, IN_VAIN);
    assert!(refused.is_err(), "{second} is not one that may");
    let source = SocketAddr::new(addrs.client, 0);
    let (mut client, mut server, _) = associate(&lb.lab.client, source, dest, &listener);
    assert!(gets_through(&mut client, &mut server, b"allowed"));
    assert!(gets_through(&mut server, &mut client, b"a reply"));
    let stats = lb.maps.stats().expect("counters");
    assert!(stats.get("drop_policy") > 0, "{stats:?}");

    // An association that there is does not outlive what allowed it.
    lb.apply(service.clone(), policies(only(second, BACKEND_PORT)));
    assert!(!gets_through(&mut client, &mut server, b"forbidden"));
    // It is sent again, and comes when it may.
    lb.apply(service, policies(only(addrs.client, BACKEND_PORT)));
    server.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut buffer = [0; 64];
    let len = server.read(&mut buffer).expect("it is sent again");
    assert_eq!(&buffer[..len], b"forbidden");
}

/// The monitor shows what happens, until it has shown as much as it was asked for.
#[test]
fn the_monitor_shows_associations_and_drops() {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let lb = Balanced::new(Hook::Tc, Family::V4, false, None);
    let addrs = Family::V4.addrs();
    let policies = BTreeMap::from([(addrs.backend, only(addrs.client, BACKEND_PORT))]);
    lb.apply(lb.service((lb.vip(), Frontend::default()), [0]), policies);
    let second = second_client(&lb, Family::V4);
    let pins = lb.pins.folder().to_string_lossy().into_owned();
    let args = ["--pins", &pins, "-o", "json", "monitor", "--count", "12"];
    let mut monitor = lb
        .lab
        .translator
        .run(|| {
            Command::new(env!("CARGO_BIN_EXE_sctp-lb"))
                .args(args)
                .stdout(Stdio::piped())
                .spawn()
        })
        .expect("a namespace")
        .expect("it starts");
    let listener = sctp::listen(&lb.lab.backend, lb.backend(0), TIMEOUT).expect("a socket");
    let source = SocketAddr::new(addrs.client, 0);
    // Whenever it begins to watch, there is something to see.
    let over = (0..20).any(|_| {
        let _ended = associate(&lb.lab.client, source, lb.vip(), &listener);
        let refused = sctp::connect(&lb.lab.client, second, lb.vip(), Duration::from_millis(100));
        assert!(refused.is_err());
        monitor.try_wait().expect("its state").is_some()
    });
    if !over {
        monitor.kill().expect("it runs");
    }
    let output = monitor.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(over && output.status.success(), "{text}");
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document"))
        .collect();
    assert_eq!(events.len(), 12, "{text}");
    let of_kind = |kind: &str| {
        let found = events.iter().find(|event| event["event"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}: {text}")).clone()
    };
    let new = of_kind("new");
    assert_eq!(new["original"]["dest"], lb.vip().to_string(), "{text}");
    assert_eq!(
        new["translated"]["dest"],
        lb.backend(0).to_string(),
        "{text}"
    );
    let states = events.iter().filter(|event| event["event"] == "state");
    assert!(
        states.clone().any(|event| event["state"] == "ESTABLISHED"),
        "{text}"
    );
    let dropped = of_kind("drop");
    assert_eq!(dropped["reason"], "drop_policy", "{text}");
    assert_eq!(dropped["packet"]["dest"], lb.vip().to_string(), "{text}");
}

/// `ip netns exec` hides bpffs: what would be pinned there would be gone at once.
#[test]
fn pins_that_would_vanish_are_refused() {
    require!(Feature::Root);
    let script = format!(
        "mount -t sysfs none /sys && exec {} attach lo",
        env!("CARGO_BIN_EXE_sctp-lb")
    );
    let output = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", &script])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nsenter"), "{said}");
}
