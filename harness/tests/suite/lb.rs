// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The load balancer on single frames, in each hook and with each checksum update.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bpf_sctp::checksum;
use bpf_sctp::chunk;
use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::conntrack::{Association, PathEntry, State};
use bpf_sctp::lb::datapath::{Datapath, Options, Verdict};
use bpf_sctp::lb::maps::Sizes;
use bpf_sctp::lb::model::{
    Backend, Block, Desired, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};
use bpf_sctp::packet::{Spec, Stored, find};
use rstest::rstest;

use crate::multihome::address_parameter;
use crate::support::{backend_by_family, fail, feature_of, require, resend};

mod associations;
mod claims;
mod icmp;
mod multihoming;
mod pieces;
mod policy;

const SIZES: Sizes = Sizes {
    assocs: 64,
    services: 64,
    backends: 256,
    table_slots: 1 << 16,
    policy_prefixes: 256,
};

/// Where a test runs.
#[derive(Debug, Clone, Copy)]
struct Place {
    hook: Hook,
    update: Update,
    ipv6: bool,
}

impl Place {
    /// Where it does not matter what updates the checksum: it is what every kernel has.
    fn in_bpf(hook: Hook, ipv6: bool) -> Self {
        Self {
            hook,
            update: Update::Bpf,
            ipv6,
        }
    }

    fn addr(self, v4: &str, v6: &str) -> SocketAddr {
        let text = if self.ipv6 { v6 } else { v4 };
        text.parse().expect("an address")
    }

    fn client(self) -> SocketAddr {
        self.addr("192.0.2.1:5000", "[2001:db8:1::1]:5000")
    }

    fn vip(self) -> SocketAddr {
        self.addr("203.0.113.10:3868", "[2001:db8:ff::10]:3868")
    }

    fn node(self) -> SocketAddr {
        self.addr("198.51.100.254:0", "[2001:db8:2::fe]:0")
    }

    fn backend(self, nr: u8) -> SocketAddr {
        let (v4, v6) = (
            format!("198.51.100.{nr}:13868"),
            format!("[2001:db8:2::{nr:x}]:13868"),
        );
        self.addr(&v4, &v6)
    }

    fn everybody(self) -> Block {
        let net = if self.ipv6 { "::/0" } else { "0.0.0.0/0" };
        Block {
            net: net.parse().expect("a prefix"),
            except: vec![],
        }
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName {
        namespace: "default".into(),
        name: text.into(),
        port: "sctp".into(),
    }
}

fn backend(addr: SocketAddr) -> Backend {
    Backend {
        addr,
        secondary: vec![],
        draining: false,
    }
}

fn frontend(masquerade: bool) -> Frontend {
    Frontend {
        masquerade,
        ..Default::default()
    }
}

/// A service at the VIP, with these backends.
fn service(place: Place, backends: &[SocketAddr]) -> Service {
    Service {
        frontends: [(place.vip(), Frontend::default())].into(),
        backends: backends.iter().copied().map(backend).collect(),
        affinity: None,
    }
}

/// A service whose one backend has two addresses, and these.
fn with_two_addresses(place: Place) -> ([SocketAddr; 2], Service) {
    let addrs = [1, 2].map(|nr| place.backend(nr));
    let mut service = service(place, &addrs[..1]);
    let ips = addrs.map(|addr| addr.ip());
    service.backends = backend_by_family(&ips, addrs[0].port()).collect();
    (addrs, service)
}

fn desired(service: Service) -> Desired {
    Desired {
        services: [(name("amf"), service)].into(),
        ..Default::default()
    }
}

/// Runs `check` with a load balancer.
fn with_options(place: Place, options: &Options, check: impl FnOnce(&Datapath<'_>)) {
    let options = Options {
        update: Some(place.update),
        sizes: SIZES,
        ..options.clone()
    };
    let mut storage = MaybeUninit::uninit();
    let lb = Datapath::load(place.hook, &options, &mut storage).expect("it loads");
    check(&lb);
}

/// Runs `check` with a load balancer that does what is desired.
fn with_lb(place: Place, desired: &Desired, check: impl FnOnce(&Datapath<'_>)) {
    with_options(place, &Options::default(), |lb| {
        lb.maps().apply(desired).expect("there is room");
        check(lb);
    });
}

const CLIENT_TAG: u32 = 0xc11e_0001;
const BACKEND_TAG: u32 = 0xbac0_0002;

fn spec(source: SocketAddr, dest: SocketAddr, vtag: u32, chunks: Vec<u8>) -> Spec {
    Spec {
        vtag,
        ..Spec::new(source, dest, chunks)
    }
}

fn init(source: SocketAddr, dest: SocketAddr) -> Spec {
    spec(source, dest, 0, chunk::init(1, CLIENT_TAG, &[]))
}

/// The reason for which the frame was dropped, or the frame that went on.
fn outcome(lb: &Datapath<'_>, frame: &[u8]) -> Result<Vec<u8>, String> {
    resend(Err, || outcome_of_one(lb, frame))
}

fn outcome_of_one(lb: &Datapath<'_>, frame: &[u8]) -> Result<Vec<u8>, String> {
    let before = lb.maps().stats().expect("counters");
    let verdict = lb.run(frame).expect("the kernel runs it");
    let after = lb.maps().stats().expect("counters");
    let reasons: Vec<_> = after
        .iter()
        .filter(|(name, value)| name.starts_with("drop_") && *value != before.get(name))
        .map(|(name, _)| name.to_string())
        .collect();
    match verdict {
        Verdict::Pass(bytes) if reasons.is_empty() => Ok(bytes),
        Verdict::Drop if reasons.len() == 1 => Err(reasons[0].clone()),
        verdict => fail(format!("{verdict:?} counted as {reasons:?}"), &[frame]),
    }
}

fn outcome_of(lb: &Datapath<'_>, spec: &Spec) -> Result<Vec<u8>, String> {
    outcome(lb, &spec.build().expect("it fits").bytes)
}

fn expect_drop(lb: &Datapath<'_>, spec: &Spec, reason: &str) {
    let frame = spec.build().expect("it fits").bytes;
    let got = outcome(lb, &frame);
    if got != Err(reason.to_string()) {
        fail(format!("not {reason}: {got:?}"), &[&frame]);
    }
}

fn expect_unchanged(lb: &Datapath<'_>, frame: &[u8], what: &str) {
    let got = outcome(lb, frame);
    if got.as_deref() != Ok(frame) {
        fail(format!("{what} should pass as it is: {got:?}"), &[frame]);
    }
}

/// Insists that `before` comes out as `after` says it: the addresses and ports, all else as it
/// was, and the SCTP checksum as right or wrong as it was.
fn expect_translated(lb: &Datapath<'_>, before: &Spec, after: &Spec) {
    let (before, after) = (
        before.build().expect("it fits"),
        after.build().expect("it fits"),
    );
    match outcome(lb, &before.bytes) {
        Ok(got) if got == after.bytes => {}
        Ok(got) => fail(
            "not as wanted\npackets are: before, after, wanted".into(),
            &[&before.bytes, &got, &after.bytes],
        ),
        Err(reason) => fail(format!("dropped: {reason}"), &[&before.bytes]),
    }
}

/// Sends an INIT, and returns where it went from and to.
fn open(lb: &Datapath<'_>, source: SocketAddr, dest: SocketAddr) -> (SocketAddr, SocketAddr) {
    let frame = init(source, dest).build().expect("it fits").bytes;
    match outcome(lb, &frame) {
        Ok(got) => {
            let found = find(&got).expect("SCTP");
            assert_eq!(checksum::error(found.sctp), 0);
            (found.source, found.dest)
        }
        Err(reason) => fail(format!("dropped: {reason}"), &[&frame]),
    }
}

fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

fn only_assoc(maps: &Maps) -> Option<Association> {
    let mut all = maps.associations().expect("it can be read");
    assert!(all.len() <= 1, "{all:?}");
    all.pop()
}

/// What opens an association behind its INIT.
fn after_init(client: SocketAddr, vip: SocketAddr, backend: SocketAddr) -> [Spec; 3] {
    [
        spec(
            backend,
            client,
            CLIENT_TAG,
            chunk::init(2, BACKEND_TAG, &[]),
        ),
        spec(client, vip, BACKEND_TAG, chunk::chunk(10, 0, &[0; 4])),
        spec(backend, client, CLIENT_TAG, chunk::chunk(11, 0, &[])),
    ]
}

/// Opens an association, in four packets.
fn establish(lb: &Datapath<'_>, client: SocketAddr, vip: SocketAddr, backend: SocketAddr) {
    open(lb, client, vip);
    for packet in after_init(client, vip, backend) {
        outcome_of(lb, &packet).expect("it is the association's");
    }
}

#[rstest]
fn vlans_options_and_padding_are_ordinary(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
    #[values(false, true)] ipv6: bool,
    #[values(Stored::Good, Stored::WrongBy(0xbad), Stored::Absent)] checksum: Stored,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let place = Place { hook, update, ipv6 };
    let backend = place.backend(1);
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        for (vlans, min_len, options) in [(vec![], 0, 4), (vec![7], 100, 0), (vec![7, 9], 200, 12)]
        {
            let spec = |source, dest| Spec {
                vlans: vlans.clone(),
                min_len,
                // Padding: of IPv4, or of an IPv6 extension header, which holds six at least.
                ip_extra: match (ipv6, options) {
                    (false, options) => vec![1; options],
                    (true, 0) => vec![],
                    (true, _) => vec![1, 4, 0, 0, 0, 0],
                },
                checksum,
                ..init(source, dest)
            };
            let (client, vip) = (place.client(), place.vip());
            expect_translated(lb, &spec(client, vip), &spec(client, backend));
            let mut answer = spec(backend, client);
            answer.vtag = CLIENT_TAG;
            answer.chunks = chunk::init(2, BACKEND_TAG, &[]);
            let translated = Spec {
                source: vip,
                ..answer.clone()
            };
            expect_translated(lb, &answer, &translated);
        }
    });
}

/// What is read and written in place is so elsewhere where it lies elsewhere.
#[rstest]
fn headers_may_lie_in_any_piece(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
    #[values(false, true)] ipv6: bool,
) {
    require!(
        Feature::Root,
        Feature::Btf,
        feature_of(update),
        Feature::SplitTestRun
    );
    let place = Place { hook, update, ipv6 };
    let backend = place.backend(1);
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        let before = init(place.client(), place.vip());
        let after = init(place.client(), backend).build().expect("it fits");
        let frame = before.build().expect("it fits");
        // From the Ethernet header alone to the whole frame. In tc, BPF_PROG_TEST_RUN reads the IP
        // header itself.
        let first = match hook {
            Hook::Tc => frame.sctp.start,
            Hook::Xdp => 14,
        };
        for linear in (first..=frame.bytes.len()).step_by(2) {
            let got = lb.run_in_pieces(&frame.bytes, linear);
            if !matches!(&got, Ok(Verdict::Pass(bytes)) if *bytes == after.bytes) {
                fail(
                    format!("with {linear} bytes in front: {got:?}"),
                    &[&frame.bytes, &after.bytes],
                );
            }
        }
    });
}

#[rstest]
fn addresses_alone_leave_the_sctp_packet_untouched(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, ipv6);
    let mut backend = place.backend(1);
    backend.set_port(place.vip().port());
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        let spec = |dest| Spec {
            checksum: Stored::WrongBy(7),
            ..init(place.client(), dest)
        };
        expect_translated(lb, &spec(place.vip()), &spec(backend));
        let stats = lb.maps().stats().expect("counters");
        assert_eq!(stats.get("address_only"), 1);
        assert_eq!(stats.get("csum_bpf") + stats.get("csum_kfunc"), 0);
    });
}

/// Opens an association from each of `nr` ports, and counts them by backend.
fn spread(lb: &Datapath<'_>, place: Place, nr: u16) -> HashMap<SocketAddr, usize> {
    let mut shares = HashMap::new();
    for port in 0..nr {
        let client = SocketAddr::new(place.client().ip(), 20000 + port);
        let (_, dest) = open(lb, client, place.vip());
        *shares.entry(dest).or_default() += 1;
    }
    shares
}

#[rstest]
fn every_backend_gets_its_share(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, ipv6);
    let backends = [1, 2, 3].map(|nr| place.backend(nr));
    with_lb(place, &desired(service(place, &backends)), |lb| {
        let shares = spread(lb, place, 60);
        for backend in backends {
            let share = shares.get(&backend).copied().unwrap_or_default();
            assert!((10..=32).contains(&share), "{shares:?}");
        }
    });
}

#[rstest]
fn a_backend_that_drains_keeps_what_it_has_and_gets_nothing_new(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] removed: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (stays, leaves) = (place.backend(1), place.backend(2));
    with_lb(place, &desired(service(place, &[leaves])), |lb| {
        let maps = lb.maps();
        assert_eq!(open(lb, place.client(), place.vip()).1, leaves);
        let mut next = service(place, &[stays, leaves]);
        if removed {
            next.backends.pop();
        } else {
            next.backends[1].draining = true;
        }
        let changes = maps.apply(&desired(next.clone())).expect("there is room");
        assert_eq!((changes.backends_added, changes.backends_drained), (1, 1));
        let again = maps.apply(&desired(next)).expect("there is room");
        assert!(again.is_empty(), "{again:?}");

        let answer = |source| {
            spec(
                source,
                place.client(),
                CLIENT_TAG,
                chunk::init(2, BACKEND_TAG, &[]),
            )
        };
        expect_translated(lb, &answer(leaves), &answer(place.vip()));
        let shares = spread(lb, place, 20);
        assert_eq!(shares, [(stays, 20)].into());
        // It is gone for good when its association is.
        let abort = spec(leaves, place.client(), CLIENT_TAG, chunk::chunk(6, 0, &[]));
        outcome(lb, &abort.build().expect("it fits").bytes).expect("it passes");
    });
}

#[rstest]
fn a_client_that_restarts_gets_another_backend_when_its_own_is_gone(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (new, gone) = (place.backend(1), place.backend(2));
    with_lb(place, &desired(service(place, &[gone])), |lb| {
        assert_eq!(open(lb, place.client(), place.vip()).1, gone);
        let next = desired(service(place, &[new]));
        lb.maps().apply(&next).expect("there is room");
        // It may yet answer the first two, and has a second for each.
        for _ in 0..2 {
            for _ in 0..5 {
                assert_eq!(open(lb, place.client(), place.vip()).1, gone);
            }
            std::thread::sleep(Duration::from_millis(1100));
        }
        assert_eq!(open(lb, place.client(), place.vip()).1, new);
        assert_eq!(lb.maps().associations().expect("it can be read").len(), 1);
        lb.maps().apply(&next).expect("there is room");
        let changes = lb.maps().apply(&next).expect("there is room");
        assert!(changes.is_empty(), "{changes:?}");
    });
}

#[rstest]
fn affinity_is_for_those_that_policy_lets_in(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let first = place.backend(1);
    let mut wanted = desired(service(place, &[first]));
    let policy = EndpointPolicy {
        ingress: Some(vec![]),
        egress: None,
    };
    wanted.policies = [(first.ip(), policy)].into();
    let set = |wanted: &mut Desired, nr: u8| {
        let service = wanted.services.get_mut(&name("amf")).expect("it is there");
        service.affinity = Some(Duration::from_secs(3600));
        service.backends = (1..=nr).map(|nr| backend(place.backend(nr))).collect();
    };
    set(&mut wanted, 1);
    with_lb(place, &wanted.clone(), |lb| {
        let clients = (1..=20).map(|nr| at(&format!("192.0.2.{nr}"), 5000));
        for client in clients.clone() {
            expect_drop(lb, &init(client, place.vip()), "drop_policy");
        }
        wanted.policies.clear();
        set(&mut wanted, 20);
        lb.maps().apply(&wanted).expect("there is room");
        let mut chosen = clients.map(|client| open(lb, client, place.vip()).1);
        assert!(chosen.any(|backend| backend != first));
    });
}

#[rstest]
fn affinity_keeps_a_client_at_its_backend(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let backends = [1, 2, 3].map(|nr| place.backend(nr));
    let mut wanted = service(place, &backends);
    wanted.affinity = Some(Duration::from_secs(3600));
    with_lb(place, &desired(wanted.clone()), |lb| {
        let shares = spread(lb, place, 10);
        assert_eq!(shares.len(), 1, "{shares:?}");
        let chosen = *shares.keys().next().expect("one");
        // New backends do not draw it away, but it leaves with its own.
        wanted
            .backends
            .extend((4..40).map(|nr| backend(place.backend(nr))));
        lb.maps()
            .apply(&desired(wanted.clone()))
            .expect("there is room");
        assert_eq!(open(lb, place.client(), place.vip()).1, chosen);
        wanted.backends.retain(|backend| backend.addr != chosen);
        lb.maps().apply(&desired(wanted)).expect("there is room");
        let other = SocketAddr::new(place.client().ip(), 5001);
        assert_ne!(open(lb, other, place.vip()).1, chosen);
    });
}

#[rstest]
fn masquerade_hides_the_client_and_brings_replies_back(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let place = Place { hook, update, ipv6 };
    let mut wanted = service(place, &[place.backend(1)]);
    wanted.frontends = [(place.vip(), frontend(true))].into();
    with_lb(place, &desired(wanted), |lb| {
        expect_drop(lb, &init(place.client(), place.vip()), "drop_no_masquerade");
        lb.maps()
            .set_masquerade(&[place.node().ip()])
            .expect("a setting");

        let (source, _) = open(lb, place.client(), place.vip());
        assert_eq!(
            source,
            SocketAddr::new(place.node().ip(), place.client().port())
        );
        // Another client with the same port: it gets another.
        let neighbour = place.addr("192.0.2.2:5000", "[2001:db8:1::2]:5000");
        let (picked, _) = open(lb, neighbour, place.vip());
        assert_eq!(picked.ip(), place.node().ip());
        assert_ne!(picked.port(), neighbour.port());
        for (source, client) in [(source, place.client()), (picked, neighbour)] {
            let answer = |from, to| spec(from, to, CLIENT_TAG, chunk::init(2, BACKEND_TAG, &[]));
            expect_translated(
                lb,
                &answer(place.backend(1), source),
                &answer(place.vip(), client),
            );
        }
    });
}

#[rstest]
fn a_backend_reaches_itself_through_the_service(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let place = Place { hook, update, ipv6 };
    let backend = place.backend(1);
    let client = SocketAddr::new(backend.ip(), 40000);
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        let (source, dest) = open(lb, client, place.vip());
        assert_eq!(
            (source, dest),
            (SocketAddr::new(place.vip().ip(), 40000), backend)
        );
        let answer = |from, to| spec(from, to, CLIENT_TAG, chunk::init(2, BACKEND_TAG, &[]));
        expect_translated(lb, &answer(backend, source), &answer(place.vip(), client));
    });
}

/// As one-to-many sockets do, which have one port for what they open and what they serve.
#[rstest]
fn and_from_the_port_that_it_serves(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, ipv6);
    let (vip, backend) = (place.vip(), place.backend(1));
    let vip = SocketAddr::new(vip.ip(), backend.port());
    let mut wanted = service(place, &[backend]);
    wanted.frontends = [(vip, Frontend::default())].into();
    with_lb(place, &desired(wanted), |lb| {
        let (source, dest) = open(lb, backend, vip);
        assert_eq!((source.ip(), dest), (vip.ip(), backend));
        assert_ne!(source.port(), vip.port(), "its answers would be to itself");
        let answer = |from, to| spec(from, to, CLIENT_TAG, chunk::init(2, BACKEND_TAG, &[]));
        expect_translated(lb, &answer(backend, source), &answer(vip, backend));
    });
}

#[rstest]
fn and_by_any_of_its_addresses(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (backends, mut wanted) = with_two_addresses(place);
    let port = backends[0].port();
    let vip = SocketAddr::new(place.vip().ip(), port);
    wanted.frontends = [(vip, Frontend::default())].into();
    with_lb(place, &desired(wanted), |lb| {
        let (source, dest) = open(lb, SocketAddr::new(backends[1].ip(), 40000), vip);
        assert_eq!(
            (source, dest),
            (SocketAddr::new(vip.ip(), 40000), backends[0])
        );
        let (source, dest) = open(lb, backends[1], vip);
        assert_eq!((source.ip(), dest), (vip.ip(), backends[0]));
        assert_ne!(source.port(), port, "its answers would be requests");
    });
}

#[rstest]
fn what_is_not_ours_passes_untouched(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, ipv6);
    let backend = place.backend(1);
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        let other_port = |addr: SocketAddr| SocketAddr::new(addr.ip(), 99);
        for (source, dest, what) in [
            (place.client(), backend, "a packet to the backend itself"),
            (backend, place.client(), "the backend's own association"),
            (
                place.client(),
                other_port(place.vip()),
                "another port of the VIP",
            ),
        ] {
            let frame = init(source, dest).build().expect("it fits").bytes;
            expect_unchanged(lb, &frame, what);
        }
        let mut udp = init(place.client(), place.vip())
            .build()
            .expect("it fits")
            .bytes;
        udp[if ipv6 { 20 } else { 23 }] = 17;
        expect_unchanged(lb, &udp, "UDP");
        assert_eq!(lb.maps().associations().expect("it can be read"), []);
    });
}

#[rstest]
fn a_service_without_backends_refuses(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    with_lb(place, &desired(service(place, &[])), |lb| {
        expect_drop(lb, &init(place.client(), place.vip()), "drop_no_backend");
    });
}

#[rstest]
fn full_maps_refuse_the_new_and_keep_the_old(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let backend = place.backend(1);
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        let client = |port| SocketAddr::new(place.client().ip(), port);
        let mut opened = Vec::new();
        for port in 1000..2000 {
            let frame = init(client(port), place.vip())
                .build()
                .expect("it fits")
                .bytes;
            match outcome(lb, &frame) {
                Ok(_) => opened.push(port),
                Err(reason) => assert_eq!(reason, "drop_full"),
            }
        }
        // A hash map may hold a few more than it says.
        assert!(
            opened.len() >= SIZES.assocs as usize && opened.len() < 200,
            "{}",
            opened.len()
        );
        assert_eq!(
            lb.maps().associations().expect("it can be read").len(),
            opened.len()
        );
        for port in opened {
            let answer = |source| {
                spec(
                    source,
                    client(port),
                    CLIENT_TAG,
                    chunk::init(2, BACKEND_TAG, &[]),
                )
            };
            expect_translated(lb, &answer(backend), &answer(place.vip()));
        }
    });
}

#[rstest]
fn an_association_ends_by_its_states_timeout(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let options = Options {
        timeouts: vec![
            (State::CookieWait, Duration::from_secs(3600)),
            (State::Closed, Duration::from_millis(100)),
        ],
        ..Default::default()
    };
    with_options(place, &options, |lb| {
        lb.maps()
            .apply(&desired(service(place, &[place.backend(1)])))
            .expect("there is room");
        open(lb, place.client(), place.vip());
        std::thread::sleep(Duration::from_millis(300));
        assert!(only_assoc(lb.maps()).is_some(), "it waits for a cookie yet");
        let abort = spec(
            place.backend(1),
            place.client(),
            CLIENT_TAG,
            chunk::chunk(6, 0, &[]),
        );
        outcome(lb, &abort.build().expect("it fits").bytes).expect("it passes");
        for _ in 0..100 {
            if only_assoc(lb.maps()).is_none() {
                // Its peers have ended it.
                assert_eq!(lb.maps().stats().expect("counters").get("expired"), 0);
                let answer = spec(
                    place.backend(1),
                    place.client(),
                    CLIENT_TAG,
                    chunk::data(b"late"),
                );
                expect_unchanged(
                    lb,
                    &answer.build().expect("it fits").bytes,
                    "its path is gone",
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("it did not end");
    });
}

#[rstest]
fn more_than_fits_changes_nothing(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let backend = place.backend(1);
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        let many: Vec<_> = (0..300u16)
            .map(|port| SocketAddr::new(place.backend(2).ip(), 1000 + port))
            .collect();
        let error = lb
            .maps()
            .apply(&desired(service(place, &many)))
            .expect_err("no room");
        assert!(error.to_string().contains("301 backends"), "{error}");
        assert_eq!(open(lb, place.client(), place.vip()).1, backend);
    });
}
