// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Associations of one node on another, on single frames. Steps are those of
//! `tests/packets/multihoming.yaml`.

use std::io::Write;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::conntrack::{Association, State};
use bpf_sctp::lb::datapath::{Datapath, Options};
use bpf_sctp::lb::model::{Desired, EndpointPolicy};
use bpf_sctp::lb::share::{Adoption, Exchange, NodeId, Notice, Record, Refusal};
use bpf_sctp::packet::Stored;
use rstest::rstest;

use crate::multihome::{Case, Place, SIZES, addr, desired, run_step};
use crate::support::require;

const OPEN: [&str; 4] = [
    "C1>V1 0 INIT=C[C1 C2] => C1>B1[C1 C2]",
    "B1>C1 C INIT-ACK=B[B1 B2 COOKIE] => V1>C1[V2 PAD COOKIE]",
    "C1>V1 B COOKIE-ECHO => C1>B1",
    "B1>C1 C COOKIE-ACK => V1>C1",
];

const RESTART: [&str; 4] = [
    "C1>V1 0 INIT=D[C1 C2] => C1>B1[C1 C2]",
    "B1>C1 D INIT-ACK=E[B1 B2 COOKIE] => V1>C1[V2 PAD COOKIE]",
    "C1>V1 E COOKIE-ECHO => C1>B1",
    "B1>C1 D COOKIE-ACK => V1>C1",
];

/// By the backend.
const RESTART_BACK: [&str; 4] = [
    "B1>C1 0 INIT=E[B1 B2] => V1>C1[V2 PAD]",
    "C1>V1 E INIT-ACK=D[C1 C2 COOKIE] => C1>B1[C1 C2 COOKIE]",
    "B1>C1 D COOKIE-ECHO => V1>C1",
    "C1>V1 E COOKIE-ACK => C1>B1",
];

const EVERY_PATH: [&str; 10] = [
    "C2>V2 B HEARTBEAT => C2>B2",
    "B2>C2 C HEARTBEAT-ACK => V2>C2",
    "C1>V1 B DATA => C1>B1",
    "B1>C1 C SACK => V1>C1",
    "C1>V2 B DATA => C1>B2",
    "B2>C1 C DATA => V2>C1",
    "C2>V1 B DATA => C2>B1",
    "B1>C2 C SACK => V1>C2",
    "C2>V2 X DATA => drop_tag",
    "B2>C2 X DATA => drop_tag",
];

fn place(ipv6: bool) -> Place {
    Place { ipv6, case: 0 }
}

fn case(name: &str, backend: &str, masquerade: bool) -> Case {
    Case {
        case: name.into(),
        vips: "V1 V2".into(),
        backend: backend.into(),
        masquerade,
        steps: vec![],
    }
}

/// The service of the associations, and another.
fn services(masquerade: bool, ipv6: bool) -> Desired {
    let cases = [
        case("amf", "B1 B2", masquerade),
        case("smf", "B1 B2", masquerade),
    ];
    desired(&cases, ipv6)
}

fn run_steps(lb: &Datapath<'_>, ipv6: bool, steps: &[&str]) {
    for step in steps {
        eprintln!("{step}");
        run_step(lb, &place(ipv6), step, Stored::Good);
    }
}

fn with_node(hook: Hook, masquerade: bool, ipv6: bool, check: impl FnOnce(&Datapath<'_>)) {
    let options = Options {
        update: Some(Update::Bpf),
        sizes: SIZES,
        ..Default::default()
    };
    let mut storage = MaybeUninit::uninit();
    let lb = Datapath::load(hook, &options, &mut storage).expect("it loads");
    let node = addr("N", ipv6);
    lb.maps().set_masquerade(&[node]).expect("a setting");
    let wanted = services(masquerade, ipv6);
    lb.maps().apply(&wanted).expect("there is room");
    check(&lb);
}

/// Two nodes, of which the second has other numbers for services and backends.
fn with_nodes(
    hooks: [Hook; 2],
    masquerade: bool,
    ipv6: bool,
    check: impl FnOnce(&Datapath<'_>, &Datapath<'_>),
) {
    with_node(hooks[0], masquerade, ipv6, |one| {
        with_node(hooks[1], masquerade, ipv6, |other| {
            let maps = other.maps();
            let both = services(masquerade, ipv6);
            let mut second = both.clone();
            let (amf, _) = second.services.pop_first().expect("two");
            assert_eq!(amf.name, "amf");
            maps.apply(&Desired::default()).expect("there is room");
            maps.apply(&second).expect("there is room");
            maps.apply(&both).expect("there is room");
            assert!(maps.apply(&both).expect("there is room").is_empty());
            check(one, other);
        });
    });
}

fn only_record(maps: &Maps) -> Record {
    let mut records = maps.own_associations().expect("it can be read");
    assert_eq!(records.len(), 1, "{records:?}");
    let record = records.pop().expect("one");
    let json = serde_json::to_string(&record).expect("JSON");
    serde_json::from_str(&json).expect("the same")
}

fn adopt(maps: &Maps, record: &Record) {
    let adoption = maps.adopt(NodeId::MIN, record).expect("there is room");
    assert_eq!(adoption, Adoption::Done);
}

fn refused(maps: &Maps, record: &Record) -> Refusal {
    match maps.adopt(NodeId::MIN, record).expect("there is room") {
        Adoption::Refused(refusal) => refusal,
        Adoption::Done => panic!("it is adopted"),
    }
}

fn associations(maps: &Maps) -> Vec<Association> {
    maps.associations().expect("it can be read")
}

fn only_assoc(maps: &Maps) -> Association {
    let mut all = associations(maps);
    assert_eq!(all.len(), 1, "{all:?}");
    all.pop().expect("one")
}

/// How many associations the node's own packets have opened.
fn opened(lb: &Datapath<'_>) -> u64 {
    lb.maps().stats().expect("counters").get("new")
}

/// Insists that nothing leads to the association any more.
fn expect_gone(lb: &Datapath<'_>, ipv6: bool) {
    assert_eq!(associations(lb.maps()), []);
    let gone = [
        "C1>V1 B DATA => drop_no_assoc",
        "C2>V2 B DATA => drop_no_assoc",
        "C3>V2 B HEARTBEAT => drop_no_assoc",
        "B1>C1 C SACK => B1>C1",
        "B2>C2 C SACK => B2>C2",
    ];
    run_steps(lb, ipv6, &gone);
}

const HOOKS: [[Hook; 2]; 2] = [[Hook::Tc, Hook::Xdp], [Hook::Xdp, Hook::Tc]];

#[rstest]
fn every_path_is_translated_alike_on_the_other_node(
    #[values(0, 1)] hooks: usize,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[hooks], false, ipv6, |one, other| {
        run_steps(one, ipv6, &OPEN);
        let record = only_record(one.maps());
        assert_eq!(record.state, State::Established);
        assert_eq!(record.service, "default/amf:sctp");
        adopt(other.maps(), &record);
        let [theirs, ours] = [one, other].map(|lb| only_assoc(lb.maps()));
        assert!(theirs.service.is_some() && theirs.backend.is_some());
        assert_eq!(
            (&theirs.service, theirs.backend),
            (&ours.service, ours.backend)
        );
        assert!(ours.adopted && !theirs.adopted);
        assert!(ours.expires_in > Duration::from_secs(200), "{ours:?}");

        run_steps(other, ipv6, &EVERY_PATH);
        run_steps(one, ipv6, &EVERY_PATH);
        // Nobody has named this one, and each node learns it by the tag.
        run_steps(other, ipv6, &["C3>V2 B HEARTBEAT => C3>B2"]);
        assert_eq!(only_assoc(other.maps()).packets, [5, 4]);
        assert_eq!(opened(other), 0);
        assert_eq!(other.maps().own_associations().expect("read"), []);

        // What another has told is not told on, and said again it changes nothing.
        adopt(other.maps(), &record);
        assert_eq!(only_assoc(other.maps()).packets, [5, 4]);
        assert!(other.maps().release(record.id).expect("a map"));
        assert!(!other.maps().release(record.id).expect("a map"));
        expect_gone(other, ipv6);
        assert!(!one.maps().release(record.id).expect("its own stays"));
        run_steps(one, ipv6, &EVERY_PATH);
    });
}

#[rstest]
fn masquerade_is_the_opening_nodes(#[values(false, true)] ipv6: bool) {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], true, ipv6, |one, other| {
        let open = [
            "C1>V1 0 INIT=C[C1 C2] => N>B1[PAD PAD]",
            "B1>N C INIT-ACK=B[B2 COOKIE] => V1>C1[V2 COOKIE]",
            "C1>V1 B COOKIE-ECHO => N>B1",
        ];
        run_steps(one, ipv6, &open);
        let elsewhere = addr("X", ipv6);
        other.maps().set_masquerade(&[elsewhere]).expect("set");
        adopt(other.maps(), &only_record(one.maps()));
        let steps = [
            "C1>V1 B DATA => N>B1",
            "B1>N C SACK => V1>C1",
            "C2>V2 B HEARTBEAT => N>B2",
            "B2>N C HEARTBEAT-ACK => V2>C2",
            "B1>N C SACK => V1>C1",
        ];
        run_steps(other, ipv6, &steps);
        assert_eq!(opened(other), 0);
    });
}

#[rstest]
fn a_restart_replaces_the_tags(#[values(false, true)] ipv6: bool) {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, ipv6, |one, other| {
        run_steps(one, ipv6, &OPEN);
        let before = only_record(one.maps());
        adopt(other.maps(), &before);
        run_steps(other, ipv6, &["C2>V2 B DATA => C2>B2"]);
        run_steps(one, ipv6, &RESTART);
        let after = only_record(one.maps());
        assert_eq!(after.id, before.id);
        run_steps(other, ipv6, &["C2>V2 E DATA => drop_no_assoc"]);
        adopt(other.maps(), &after);
        let steps = [
            "C2>V2 E DATA => C2>B2",
            "B2>C2 D SACK => V2>C2",
            "C2>V2 B DATA => drop_tag",
            "C3>V2 B HEARTBEAT => drop_no_assoc",
            "C3>V2 E HEARTBEAT => C3>B2",
        ];
        run_steps(other, ipv6, &steps);
        assert_eq!(only_assoc(other.maps()).packets, [3, 1]);
    });
}

#[test]
fn an_address_that_is_deleted_has_no_path_any_more() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        let mut record = only_record(one.maps());
        adopt(other.maps(), &record);
        let addrs = record.addrs.as_mut().expect("several");
        addrs.client.retain(|client| *client != addr("C2", false));
        adopt(other.maps(), &record);
        let steps = ["C2>V2 B DATA => drop_no_assoc", "C1>V2 B DATA => C1>B2"];
        run_steps(other, false, &steps);
    });
}

#[test]
fn without_the_service_or_its_backend_nothing_is_adopted() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        let record = only_record(one.maps());
        let maps = other.maps();
        let moved = [case("amf", "B3 B2", false)];
        maps.apply(&desired(&moved, false)).expect("there is room");
        let error = refused(maps, &record).to_string();
        let backend = record.translated.dest;
        let service = "default/amf:sctp";
        assert_eq!(
            error,
            format!("the service {service} has no backend {backend} here")
        );
        maps.apply(&Desired::default()).expect("there is room");
        assert_eq!(refused(maps, &record), Refusal::Service(service.into()));
        assert_eq!(associations(maps), []);
    });
}

#[test]
fn what_a_node_has_opened_itself_stays() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        run_steps(other, false, &OPEN[..1]);
        let own = only_assoc(other.maps());
        let record = only_record(one.maps());
        let Refusal::Own(..) = refused(other.maps(), &record) else {
            panic!("for another reason");
        };
        let left = only_assoc(other.maps());
        assert_eq!(
            (left.id, left.adopted, left.tags),
            (own.id, false, own.tags)
        );
        run_steps(other, false, &OPEN[1..]);

        // Nor does one that is adopted give way.
        let twin = Record {
            id: record.id ^ 1,
            ..record.clone()
        };
        with_node(Hook::Tc, false, false, |third| {
            adopt(third.maps(), &record);
            let Refusal::Taken(..) = refused(third.maps(), &twin) else {
                panic!("for another reason");
            };
            run_steps(third, false, &EVERY_PATH);
        });
    });
}

#[test]
fn policies_are_this_nodes() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        let record = only_record(one.maps());
        let nobody = EndpointPolicy {
            ingress: Some(vec![]),
            egress: None,
        };
        let mut wanted = services(false, false);
        wanted.policies.insert(addr("B1", false), nobody.clone());
        other.maps().apply(&wanted).expect("there is room");
        let Refusal::Policy(..) = refused(other.maps(), &record) else {
            panic!("for another reason");
        };
        wanted.policies = [(addr("B2", false), nobody)].into();
        other.maps().apply(&wanted).expect("there is room");
        adopt(other.maps(), &record);
        let steps = [
            "C1>V1 B DATA => C1>B1",
            "C2>V1 B DATA => C2>B1",
            "C2>V2 B DATA => drop_no_assoc",
        ];
        run_steps(other, false, &steps);
    });
}

/// Whom the client may not reach, but who may reach it, has restarted their association: that is
/// his now, also over addresses that are learned since, and on each node.
#[test]
fn policies_judge_by_who_opened_an_association_last() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        adopt(other.maps(), &only_record(one.maps()));
        run_steps(one, false, &RESTART_BACK);
        let record = only_record(one.maps());
        let to_nobody = Some(vec![]);
        let policy = |ingress, egress| {
            let mut wanted = services(false, false);
            let policy = EndpointPolicy { ingress, egress };
            for name in ["B1", "B2"] {
                wanted.policies.insert(addr(name, false), policy.clone());
            }
            wanted
        };
        for node in [one, other] {
            let wanted = policy(to_nobody.clone(), None);
            node.maps().apply(&wanted).expect("there is room");
            if std::ptr::eq(node, other) {
                adopt(other.maps(), &record);
            }
            let steps = [
                "B2>C2 D DATA => V2>C2",
                "C2>V2 E SACK => C2>B2",
                "C3>V1 E HEARTBEAT => C3>B1",
                "C3>V2 E DATA => C3>B2",
            ];
            run_steps(node, false, &steps);
        }
        let wanted = policy(None, to_nobody);
        other.maps().apply(&wanted).expect("there is room");
        let refusal = refused(other.maps(), &record);
        let client = record.original.source;
        assert_eq!(refusal, Refusal::Policy(addr("B1", false), client));
        run_steps(other, false, &["C2>V2 E SACK => drop_policy"]);
    });
}

#[test]
fn an_adopted_association_lasts_as_long_as_was_said_last() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        let record = only_record(one.maps());
        let maps = other.maps();
        adopt(maps, &record);
        adopt(
            maps,
            &Record {
                ttl_ms: 0,
                ..record.clone()
            },
        );
        assert_eq!(maps.release_expired().expect("a map"), 0);
        assert!(only_assoc(maps).expires_in > Duration::from_secs(200));
        maps.release(record.id).expect("a map");
        adopt(
            maps,
            &Record {
                ttl_ms: 0,
                ..record
            },
        );
        thread::sleep(Duration::from_millis(10));
        assert_eq!(maps.release_expired().expect("a map"), 1);
        assert_eq!(one.maps().release_expired().expect("a map"), 0);
        expect_gone(other, false);
    });
}

/// Who would release it has ended.
#[test]
fn an_adopted_association_ends_by_itself_at_its_next_packet() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        let record = Record {
            ttl_ms: 0,
            ..only_record(one.maps())
        };
        adopt(other.maps(), &record);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(associations(other.maps()).len(), 1);
        run_steps(other, false, &["C1>V1 B DATA => drop_no_assoc"]);
        expect_gone(other, false);
    });
}

#[rstest]
fn strictly_a_stray_reply_is_dropped(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf);
    with_node(hook, false, ipv6, |lb| {
        let maps = lb.maps();
        let strict = |on| maps.set_service_only(on).expect("a setting");
        let stray = |reason: &str| {
            let steps = ["B1>C1 C SACK", "B2>C2 C SACK"];
            let ends = ["B1>C1", "B2>C2"];
            for (step, ends) in steps.iter().zip(ends) {
                let outcome = if reason.is_empty() { ends } else { reason };
                run_steps(lb, ipv6, &[&format!("{step} => {outcome}")]);
            }
        };
        stray("");
        strict(true);
        maps.set_masquerade(&[]).expect("a setting");
        stray("drop_no_assoc");
        run_steps(lb, ipv6, &["X>C1 C SACK => X>C1", "C1>B1 B DATA => C1>B1"]);
        run_steps(lb, ipv6, &OPEN);
        // A backend that drains has not left yet.
        maps.apply(&Desired::default()).expect("there is room");
        run_steps(
            lb,
            ipv6,
            &["B2>X C SACK => drop_no_assoc", "B2>C2 C SACK => V2>C2"],
        );
        strict(false);
        let steps = ["B2>X C SACK => drop_no_assoc", "B2>X Z SACK => B2>X"];
        run_steps(lb, ipv6, &steps);
    });
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The paths of the association of a node, if it knows it: those come after it.
fn nr_paths(lb: &Datapath<'_>) -> Option<usize> {
    associations(lb.maps()).pop().map(|a| a.paths.len())
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    (listener, addr)
}

/// Runs `check` while each of these nodes shares with the others, with what they say.
fn sharing(nodes: &[&Maps], check: impl FnOnce(&[SocketAddr], &[Mutex<Vec<Notice>>])) {
    sharing_of(nodes, nodes.len(), check);
}

/// The same, but only the first `nr_telling` of them tell anything.
fn sharing_of(
    nodes: &[&Maps],
    nr_telling: usize,
    check: impl FnOnce(&[SocketAddr], &[Mutex<Vec<Notice>>]),
) {
    let (listeners, addrs): (Vec<_>, Vec<_>) = nodes.iter().map(|_| listener()).unzip();
    let notices: Vec<_> = nodes.iter().map(|_| Mutex::new(Vec::new())).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for ((listener, maps), said) in listeners.into_iter().zip(nodes).zip(&notices) {
            let own = listener.local_addr().expect("an address");
            let peers = addrs.iter().copied();
            let peers = match addrs[..nr_telling].contains(&own) {
                true => peers.filter(|addr| *addr != own).collect(),
                false => vec![],
            };
            let stop = &stop;
            scope.spawn(move || {
                let exchange = Exchange {
                    maps,
                    listener,
                    peers,
                    notice: &|notice| said.lock().expect("no panic").push(notice),
                    stop,
                };
                exchange.run().expect("it ends when it is told to");
            });
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&addrs, &notices);
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            eprintln!("{notices:?}");
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn nodes_tell_one_another() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        sharing(&[one.maps(), other.maps()], |addrs, notices| {
            let adopted = || associations(other.maps()).pop();
            wait_until("one that was there", || adopted().is_some());
            run_steps(other, false, &EVERY_PATH);
            run_steps(one, false, &RESTART);
            let tags = only_assoc(one.maps()).tags;
            wait_until("new tags", || adopted().is_some_and(|a| a.tags == tags));
            run_steps(other, false, &["C2>V2 E DATA => C2>B2"]);

            run_steps(one, false, &["B1>C1 D ABORT => V1>C1"]);
            wait_until("the end", || adopted().is_none());
            expect_gone(other, false);
            // The next takes the place of the one that has ended.
            run_steps(one, false, &OPEN);
            wait_until("another", || adopted().is_some());
            run_steps(other, false, &EVERY_PATH);
            assert_eq!(opened(other), 0);
            let said = notices[0].lock().expect("no panic");
            assert!(said.contains(&Notice::Connected(addrs[1])), "{said:?}");
        });
        // It is not this that ends associations.
        run_steps(other, false, &EVERY_PATH);
    });
}

#[test]
fn what_ended_unheard_is_released_when_nodes_meet_again() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        let nodes = [one.maps(), other.maps()];
        let adopted = || !associations(other.maps()).is_empty();
        run_steps(one, false, &OPEN);
        sharing(&nodes, |_, _| wait_until("adopted", adopted));
        run_steps(one, false, &["B1>C1 C ABORT => V1>C1"]);
        run_steps(other, false, &EVERY_PATH);
        sharing(&nodes, |_, _| wait_until("released", || !adopted()));
        expect_gone(other, false);
    });
}

#[test]
fn a_restart_through_another_node_is_told_back() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        sharing(&[one.maps(), other.maps()], |_, _| {
            wait_until("adopted", || nr_paths(other) == nr_paths(one));
            run_steps(other, false, &RESTART);
            let tags = only_assoc(other.maps()).tags;
            wait_until("the new tags", || only_assoc(one.maps()).tags == tags);
            assert!(!only_record(one.maps()).handshake.by_backend);
            let steps = [
                "C2>V2 E DATA => C2>B2",
                "B2>C2 D SACK => V2>C2",
                "C3>V2 B HEARTBEAT => drop_no_assoc",
                "C3>V2 E HEARTBEAT => C3>B2",
            ];
            run_steps(one, false, &steps);
        });
        run_steps(other, false, &["C2>V2 E DATA => C2>B2"]);
    });
}

#[test]
fn so_is_who_has_restarted_it() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        sharing(&[one.maps(), other.maps()], |_, _| {
            wait_until("adopted", || nr_paths(other) == nr_paths(one));
            run_steps(other, false, &RESTART_BACK);
            let is_the_backend = || only_record(one.maps()).handshake.by_backend;
            wait_until("the restart", is_the_backend);
        });
    });
}

#[test]
fn what_else_changes_brings_no_older_tags() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        sharing_of(&[one.maps(), other.maps()], 1, |_, _| {
            wait_until("adopted", || nr_paths(other) == nr_paths(one));
            run_steps(other, false, &RESTART);
            // It has not heard of the restart, and learns an address.
            run_steps(one, false, &["C3>V2 B HEARTBEAT => C3>B2"]);
            let more = nr_paths(one);
            wait_until("the address", || nr_paths(other) == more);
        });
        let steps = [
            "C2>V2 E DATA => C2>B2",
            "C3>V2 E DATA => C3>B2",
            "C2>V2 B DATA => drop_no_assoc",
        ];
        run_steps(other, false, &steps);
    });
}

#[test]
fn a_path_that_only_another_node_sees_keeps_the_association() {
    require!(Feature::Root, Feature::Btf);
    with_nodes(HOOKS[0], false, false, |one, other| {
        run_steps(one, false, &OPEN);
        sharing(&[one.maps(), other.maps()], |_, _| {
            wait_until("adopted", || nr_paths(other) == nr_paths(one));
            let before = only_assoc(one.maps()).expires_in;
            wait_until("time passes", || {
                only_assoc(one.maps()).expires_in < before - Duration::from_secs(3)
            });
            run_steps(other, false, &EVERY_PATH);
            wait_until("it lasts longer", || {
                only_assoc(one.maps()).expires_in > before - Duration::from_secs(2)
            });
        });
        run_steps(one, false, &EVERY_PATH);
    });
}

#[test]
fn a_malformed_line_ends_the_connection() {
    require!(Feature::Root, Feature::Btf);
    with_node(Hook::Tc, false, false, |lb| {
        sharing(&[lb.maps()], |addrs, notices| {
            let left = |lines: &str| {
                let mut stream = TcpStream::connect(addrs[0]).expect("it listens");
                stream.write_all(lines.as_bytes()).expect("it reads");
                let own = stream.local_addr().expect("an address");
                let why = || {
                    let said = notices[0].lock().expect("no panic");
                    said.iter().find_map(|notice| match notice {
                        Notice::Left(peer, why) if *peer == own => Some(why.clone()),
                        _ => None,
                    })
                };
                wait_until(lines, || why().is_some());
                why().expect("a reason")
            };
            let hello = "{\"hello\":{\"version\":2,\"node\":1}}\n";
            assert!(left("GET / HTTP/1.1\r\n").contains("malformed"));
            assert!(left(&format!("{hello}{{\"end\":\n")).contains("malformed"));
            assert_eq!(left("{\"end\":1}\n"), "it does not say hello first");
            assert_eq!(left(&format!("{hello}{hello}")), "a second hello");
            let other = "{\"hello\":{\"version\":1,\"node\":1}}\n";
            assert!(left(other).contains("speaks version 1, and this node 2"));
        });
    });
}
