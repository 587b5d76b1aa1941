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
use serde::Deserialize;

use crate::multihome::address_parameter;
use crate::support::{backend_by_family, fail, feature_of, require, resend};

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

mod associations {
    use super::*;

    /// A case of `tests/packets/associations.yaml`, which says what a step is.
    #[derive(Debug, Deserialize)]
    struct Case {
        case: String,
        steps: Vec<String>,
    }

    fn tag(text: &str) -> u32 {
        match text {
            "0" => 0,
            _ => 0x7a60_0000 + u32::from(text.as_bytes()[0]),
        }
    }

    fn from_hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().map_while(|c| c.to_digit(16)).collect();
        assert_eq!(digits.len(), text.len(), "not a chunk: {text}");
        digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
    }

    fn parse_chunk(text: &str) -> Vec<u8> {
        let (text, flags) = match text.strip_suffix("/T") {
            Some(text) => (text, chunk::T_BIT),
            None => (text, 0),
        };
        let (kind, init_tag) = text.split_once('=').unwrap_or((text, ""));
        match (chunk::type_of(kind), kind) {
            (Some(kind), "INIT" | "INIT-ACK") => chunk::init(kind, tag(init_tag), &[]),
            (Some(0), _) => chunk::data(b"payload"),
            (Some(kind), _) => chunk::chunk(kind, flags, &[0; 8]),
            (None, _) => from_hex(text),
        }
    }

    fn run_step(
        lb: &Datapath<'_>,
        place: Place,
        client: SocketAddr,
        step: &str,
    ) -> Result<(), String> {
        let mut words = step.split_whitespace();
        let mut word = || words.next().unwrap_or_default();
        let (who, vtag, chunks, _arrow, outcome_wanted, state) =
            (word(), word(), word(), word(), word(), word());
        let ends = match who {
            "client" => [client, place.vip(), client, place.backend(1)],
            _ => [place.backend(1), client, place.vip(), client],
        };
        let chunks: Vec<u8> = chunks.split(',').flat_map(parse_chunk).collect();
        let packet = |source, dest| spec(source, dest, tag(vtag), chunks.clone());
        let before = packet(ends[0], ends[1]).build().expect("it fits");
        let after = packet(ends[2], ends[3]).build().expect("it fits");

        let got = match outcome(lb, &before.bytes) {
            Ok(got) if got == after.bytes => "pass".to_string(),
            Ok(_) => "wrongly translated".to_string(),
            Err(reason) => reason,
        };
        if got != outcome_wanted {
            return Err(got);
        }
        let mut all = lb.maps().associations().expect("it can be read");
        all.retain(|assoc| assoc.original.source == client);
        assert!(all.len() <= 1, "{all:?}");
        let found = all
            .pop()
            .map_or("none".to_string(), |assoc| assoc.state.to_string());
        if !state.is_empty() && state != found {
            return Err(format!("the state {found}"));
        }
        Ok(())
    }

    #[rstest]
    fn go_through_their_states(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(Update::Kfunc, Update::Bpf)] update: Update,
        #[values(false, true)] ipv6: bool,
    ) {
        require!(Feature::Root, Feature::Btf, feature_of(update));
        let place = Place { hook, update, ipv6 };
        let text = include_str!("../packets/associations.yaml");
        let cases: Vec<Case> = serde_saphyr::from_str(text).expect("cases");
        // Each has a port of its own: a guest takes seconds to load the program.
        with_lb(place, &desired(service(place, &[place.backend(1)])), |lb| {
            for (port, case) in (place.client().port()..).zip(cases) {
                let client = SocketAddr::new(place.client().ip(), port);
                for step in &case.steps {
                    if let Err(got) = run_step(lb, place, client, step) {
                        panic!("{}: {step}: got {got}", case.case);
                    }
                }
            }
        });
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
fn who_forges_the_inits_of_a_client_does_not_end_its_association(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(true, false)] heard: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (new, old) = (place.backend(1), place.backend(2));
    let silence = Duration::from_secs(if heard { 60 } else { 8 });
    let options = Options {
        silence: Some(silence),
        ..Default::default()
    };
    with_options(place, &options, |lb| {
        let apply = |backend| {
            let desired = desired(service(place, &[backend]));
            lb.maps().apply(&desired).expect("there is room");
        };
        apply(old);
        establish(lb, place.client(), place.vip(), old);
        apply(new);
        let expires = || only_assoc(lb.maps()).expect("it is there").expires_in;
        let before = expires();
        let forged = [
            spec(place.client(), place.vip(), 0, chunk::init(1, 0xbad, &[])),
            // With the T bit, its own tag.
            spec(place.client(), place.vip(), 0xbad, chunk::chunk(6, 1, &[])),
        ];
        for _ in 0..3 {
            assert_eq!(open(lb, place.client(), place.vip()).1, old);
            for packet in &forged {
                outcome_of(lb, packet).expect("it may be true");
            }
            std::thread::sleep(Duration::from_millis(1100));
        }
        assert!(before - expires() >= Duration::from_secs(3), "{before:?}");
        // Its backend is there, or has said nothing for too long.
        if !heard {
            std::thread::sleep(silence);
        }
        let last = open(lb, place.client(), place.vip()).1;
        assert_eq!(last, if heard { old } else { new });
    });
}

/// Somebody's INIT from the client's other address holds it until that has expired.
#[rstest]
fn a_way_back_that_was_anothers_is_found(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
    let other = at("192.0.2.77", client.port());
    let options = Options {
        timeouts: vec![(State::CookieWait, Duration::from_secs(2))],
        ..Default::default()
    };
    with_options(place, &options, |lb| {
        lb.maps()
            .apply(&desired(service(place, &[backend])))
            .expect("there is room");
        let ours = chunk::init(1, CLIENT_TAG, &address_parameter(other.ip()));
        let inits = [
            spec(other, vip, 0, chunk::init(1, 0xbad, &[])),
            spec(client, vip, 0, ours),
        ];
        for packet in inits.iter().chain(&after_init(client, vip, backend)) {
            outcome_of(lb, packet).expect("it is the association's");
        }
        let heartbeat = |source| spec(source, other, CLIENT_TAG, chunk::chunk(4, 0, &[0; 4]));
        expect_drop(lb, &heartbeat(backend), "drop_tag");
        for _ in 0..100 {
            if only_of(lb.maps(), client) {
                return expect_translated(lb, &heartbeat(backend), &heartbeat(vip));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the other did not end");
    });
}

/// Whether the only association is this client's.
fn only_of(maps: &Maps, client: SocketAddr) -> bool {
    let all = maps.associations().expect("it can be read");
    all.len() == 1 && all[0].original.source == client
}

#[rstest]
fn what_inits_claim_leaves_room_for_associations(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (vip, backend) = (place.vip(), place.backend(1));
    let client = |nr: usize, addr: usize| at(&format!("192.0.{addr}.{nr}"), 5000);
    let claim = |nr| {
        let named: Vec<_> = (2..9)
            .flat_map(|addr| address_parameter(client(nr, addr).ip()))
            .collect();
        chunk::init(1, CLIENT_TAG + nr as u32, &named)
    };
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        // Each has 16 paths, and there are four times as many as associations.
        let all = SIZES.assocs as usize;
        for nr in 1..=all {
            let (source, claim) = (client(nr, 1), claim(nr));
            expect_translated(
                lb,
                &spec(source, vip, 0, claim.clone()),
                &spec(source, backend, 0, claim),
            );
        }
        // The last ones' are known by their tags until they have paths.
        let again = |addr| spec(client(all, addr), vip, 0, claim(all));
        let other = spec(client(all, 3), vip, 0, claim(1));
        expect_drop(lb, &other, "drop_full");
        outcome_of(lb, &again(3)).expect("it was sent before");
        let tag = CLIENT_TAG + all as u32;
        let ack = chunk::init(2, BACKEND_TAG, &[]);
        for packet in [
            spec(backend, client(all, 3), tag, ack),
            spec(
                client(all, 3),
                vip,
                BACKEND_TAG,
                chunk::chunk(10, 0, &[0; 4]),
            ),
            spec(backend, client(all, 2), tag, chunk::chunk(11, 0, &[])),
        ] {
            outcome_of(lb, &packet).expect("it is the association's");
        }
    });
}

/// With no room for the paths that an INIT claims.
#[rstest]
fn an_init_ack_from_the_backends_other_address_does_not_name_it(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (vip, (backends, wanted)) = (place.vip(), with_two_addresses(place));
    let client = |nr: usize, addr: usize| at(&format!("192.0.{addr}.{nr}"), 5000);
    with_lb(place, &desired(wanted), |lb| {
        let named: Vec<_> = (2..9)
            .flat_map(|addr| address_parameter(client(1, addr).ip()))
            .collect();
        let all = SIZES.assocs as usize;
        for nr in 1..=all {
            let claim = chunk::init(1, CLIENT_TAG + nr as u32, &named);
            outcome_of(lb, &spec(client(nr, 1), vip, 0, claim)).expect("there is room");
        }
        let ack = |source| {
            let ack = chunk::init(2, BACKEND_TAG, &[]);
            spec(source, client(all, 1), CLIENT_TAG + all as u32, ack)
        };
        expect_translated(lb, &ack(backends[1]), &ack(vip));
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

#[rstest]
fn and_by_any_of_its_addresses(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (vip, (backends, wanted)) = (place.vip(), with_two_addresses(place));
    with_lb(place, &desired(wanted), |lb| {
        let (source, dest) = open(lb, SocketAddr::new(backends[1].ip(), 40000), vip);
        assert_eq!(
            (source, dest),
            (SocketAddr::new(vip.ip(), 40000), backends[0])
        );
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
                assert_eq!(lb.maps().stats().expect("counters").get("expired"), 1);
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

mod pieces {
    use super::*;

    /// A frame that carries this offset and flags: in the IPv4 header, or in an IPv6 fragment one.
    fn fragment(source: SocketAddr, dest: SocketAddr, more: bool, offset: u16) -> Vec<u8> {
        let spec = init(source, dest);
        if source.is_ipv4() {
            let mut bytes = spec.build().expect("it fits").bytes;
            let field = u16::from(more) << 13 | offset;
            bytes[20..22].copy_from_slice(&field.to_be_bytes());
            return bytes;
        }
        let spec = Spec {
            ip_extra: vec![0; 6],
            ..spec
        };
        let mut bytes = spec.build().expect("it fits").bytes;
        bytes[20] = 44;
        bytes[55] = 0;
        let field = offset << 3 | u16::from(more);
        bytes[56..58].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    #[rstest]
    fn fragments_of_ours_are_refused(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(false, true)] ipv6: bool,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, ipv6);
        let backend = place.backend(1);
        with_lb(place, &desired(service(place, &[backend])), |lb| {
            for (more, offset) in [(true, 0), (true, 8), (false, 8)] {
                for (source, dest) in [(place.client(), place.vip()), (backend, place.client())] {
                    let frame = fragment(source, dest, more, offset);
                    assert_eq!(outcome(lb, &frame), Err("drop_fragment".into()));
                }
                let stranger = place.backend(99);
                expect_unchanged(
                    lb,
                    &fragment(place.client(), stranger, more, offset),
                    "a stranger's",
                );
            }
        });
    }

    #[rstest]
    fn what_is_shorter_than_it_says_is_refused(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(false, true)] ipv6: bool,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, ipv6);
        with_lb(place, &desired(service(place, &[place.backend(1)])), |lb| {
            let whole = init(place.client(), place.vip())
                .build()
                .expect("it fits")
                .bytes;
            for missing in [1, 4, 16, 20] {
                let frame = &whole[..whole.len() - missing];
                assert_eq!(outcome(lb, frame), Err("drop_truncated".into()));
            }
            // Shorter by the IP header than the frame is: the rest is padding, and the chunk is cut.
            let mut short = whole.clone();
            let (at, header) = if ipv6 { (18, 0) } else { (16, 20) };
            short[at..at + 2].copy_from_slice(&(header + 12 + 16u16).to_be_bytes());
            assert_eq!(outcome(lb, &short), Err("drop_chunks".into()));
        });
    }
}

mod policy {
    use super::*;

    fn ports(first: u16, last: u16) -> Vec<PortRange> {
        vec![PortRange { first, last }]
    }

    fn rule(peers: Vec<Block>, ports: Vec<PortRange>) -> PolicyRule {
        PolicyRule { peers, ports }
    }

    fn ingress(rules: Vec<PolicyRule>) -> EndpointPolicy {
        EndpointPolicy {
            ingress: Some(rules),
            egress: None,
        }
    }

    fn with_policy(place: Place, endpoint: IpAddr, policy: EndpointPolicy) -> Desired {
        Desired {
            policies: [(endpoint, policy)].into(),
            ..desired(service(place, &[place.backend(1)]))
        }
    }

    #[rstest]
    fn an_endpoint_that_is_selected_denies_what_no_rule_allows(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(false, true)] ipv6: bool,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, ipv6);
        let backend = place.backend(1);
        let wanted = with_policy(place, backend.ip(), ingress(vec![]));
        with_lb(place, &wanted, |lb| {
            expect_drop(lb, &init(place.client(), backend), "drop_policy");
            // Through the service as well, though the packet names the VIP.
            expect_drop(lb, &init(place.client(), place.vip()), "drop_policy");
            let other = init(place.client(), place.backend(2))
                .build()
                .expect("it fits");
            expect_unchanged(lb, &other.bytes, "an endpoint that no policy selects");
            let out = init(backend, place.client()).build().expect("it fits");
            expect_unchanged(lb, &out.bytes, "the other direction");
            let answer = spec(
                place.client(),
                backend,
                CLIENT_TAG,
                chunk::init(2, BACKEND_TAG, &[]),
            );
            expect_unchanged(lb, &answer.build().expect("it fits").bytes, "its answer");
        });
    }

    #[rstest]
    fn ports_prefixes_and_exceptions_are_kept_apart(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(false, true)] ipv6: bool,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, ipv6);
        let backend = place.backend(1);
        let net = |v4: &str, v6: &str| if ipv6 { v6 } else { v4 }.parse().expect("a prefix");
        let near = Block {
            net: net("192.0.2.0/24", "2001:db8:1::/48"),
            except: vec![net("192.0.2.128/25", "2001:db8:1:8000::/49")],
        };
        let rules = vec![
            rule(vec![near], ports(13000, 13999)),
            rule(vec![place.everybody()], ports(7, 7)),
        ];
        with_lb(
            place,
            &with_policy(place, backend.ip(), ingress(rules)),
            |lb| {
                let near = place.client();
                let excepted = place.addr("192.0.2.200:5000", "[2001:db8:1:8001::1]:5000");
                let far = place.addr("203.0.113.77:5000", "[2001:db8:77::1]:5000");
                let at = |port| SocketAddr::new(backend.ip(), port);
                for (client, port, allowed) in [
                    (near, 13000, true),
                    (near, 13999, true),
                    (near, 7, true),
                    (near, 12999, false),
                    (near, 14000, false),
                    (excepted, 13868, false),
                    (excepted, 7, true),
                    (far, 13868, false),
                    (far, 7, true),
                    (far, 8, false),
                ] {
                    let packet = init(client, at(port));
                    if allowed {
                        expect_unchanged(lb, &packet.build().expect("it fits").bytes, "allowed");
                    } else {
                        expect_drop(lb, &packet, "drop_policy");
                    }
                }
                // At the service, it is the backend's port that counts.
                assert_eq!(
                    open(lb, SocketAddr::new(near.ip(), 6000), place.vip()).1,
                    backend
                );
                expect_drop(lb, &init(far, place.vip()), "drop_policy");
            },
        );
    }

    #[rstest]
    fn egress_is_judged_by_the_backend_behind_the_service(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, false);
        let to = |net: &str| EndpointPolicy {
            ingress: None,
            egress: Some(vec![rule(
                vec![Block {
                    net: net.parse().expect("a prefix"),
                    except: vec![],
                }],
                ports(0, u16::MAX),
            )]),
        };
        let client = place.client();
        with_lb(
            place,
            &with_policy(place, client.ip(), to("203.0.113.0/24")),
            |lb| {
                expect_drop(lb, &init(client, place.vip()), "drop_policy");
                let wanted = with_policy(place, client.ip(), to("198.51.100.0/24"));
                lb.maps().apply(&wanted).expect("there is room");
                open(lb, client, place.vip());
            },
        );
    }

    #[rstest]
    fn a_policy_that_changes_holds_for_associations_that_are_there(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, false);
        let backend = place.backend(1);
        let none = desired(service(place, &[backend]));
        with_lb(place, &none, |lb| {
            open(lb, place.client(), place.vip());
            let answer = |source| {
                spec(
                    source,
                    place.client(),
                    CLIENT_TAG,
                    chunk::init(2, BACKEND_TAG, &[]),
                )
            };
            let denied = with_policy(place, backend.ip(), ingress(vec![]));
            assert_eq!(
                lb.maps()
                    .apply(&denied)
                    .expect("there is room")
                    .policies_set,
                1
            );
            assert!(lb.maps().apply(&denied).expect("there is room").is_empty());
            expect_drop(lb, &answer(backend), "drop_policy");
            assert_eq!(
                lb.maps()
                    .apply(&none)
                    .expect("there is room")
                    .policies_removed,
                1
            );
            expect_translated(lb, &answer(backend), &answer(place.vip()));
        });
    }

    fn data(source: SocketAddr, dest: SocketAddr) -> Spec {
        spec(source, dest, BACKEND_TAG, chunk::data(b"data"))
    }

    fn only(addr: SocketAddr) -> Block {
        Block {
            net: addr.ip().into(),
            except: vec![],
        }
    }

    #[rstest]
    fn a_policy_that_changes_holds_for_each_path(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, false);
        let (backend, vip) = (place.backend(1), place.vip());
        let clients = [place.client(), at("192.0.2.2", place.client().port())];
        with_lb(place, &desired(service(place, &[backend])), |lb| {
            let first = chunk::init(1, CLIENT_TAG, &address_parameter(clients[1].ip()));
            let ack = chunk::init(2, BACKEND_TAG, &[]);
            outcome_of(lb, &spec(clients[0], vip, 0, first)).expect("it is opened");
            let ack = spec(backend, clients[0], CLIENT_TAG, ack);
            outcome_of(lb, &ack).expect("it is answered");
            for allowed in [0, 1, 0] {
                let rules = vec![rule(vec![only(clients[allowed])], ports(0, u16::MAX))];
                let policy = with_policy(place, backend.ip(), ingress(rules));
                lb.maps().apply(&policy).expect("there is room");
                let client = clients[allowed];
                expect_translated(lb, &data(client, vip), &data(client, backend));
                let denied = clients[1 - allowed];
                expect_drop(lb, &data(denied, vip), "drop_policy");
                // Nor as if it had been translated before.
                expect_drop(lb, &data(denied, backend), "drop_policy");
            }
        });
    }

    #[rstest]
    fn addresses_that_a_peer_names_late_are_not_its(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, false);
        let (client, peer) = (place.client(), at("203.0.113.77", 36412));
        let other = at("203.0.113.78", 36412);
        let policy = EndpointPolicy {
            ingress: Some(vec![]),
            egress: Some(vec![rule(vec![place.everybody()], ports(0, u16::MAX))]),
        };
        with_lb(place, &with_policy(place, client.ip(), policy), |lb| {
            let ack = |parameters: &[u8]| {
                let ack = chunk::init(2, BACKEND_TAG, parameters);
                spec(peer, client, CLIENT_TAG, ack)
            };
            let (cookie_echo, cookie_ack) =
                (chunk::chunk(10, 0, &[0; 4]), chunk::chunk(11, 0, &[]));
            for packet in [
                init(client, peer),
                ack(&[]),
                spec(client, peer, BACKEND_TAG, cookie_echo),
                spec(peer, client, CLIENT_TAG, cookie_ack),
                ack(&address_parameter(other.ip())),
            ] {
                outcome_of(lb, &packet).expect("it is the association's");
            }
            expect_drop(lb, &init(other, client), "drop_policy");
        });
    }

    #[rstest]
    fn who_is_only_named_keeps_its_associations(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, false);
        let (client, peer) = (place.client(), at("203.0.113.77", 36412));
        let claimed = at("192.0.2.50", client.port());
        let policy = EndpointPolicy {
            ingress: None,
            egress: Some(vec![rule(vec![place.everybody()], ports(0, u16::MAX))]),
        };
        with_lb(place, &with_policy(place, client.ip(), policy), |lb| {
            // No policy is about these two, so that their association is not known.
            let theirs = |source, dest| data(source, dest).build().expect("it fits").bytes;
            let both = [theirs(claimed, peer), theirs(peer, claimed)];
            let named = chunk::init(1, CLIENT_TAG, &address_parameter(claimed.ip()));
            outcome_of(lb, &spec(client, peer, 0, named)).expect("it is opened");
            for frame in &both {
                expect_unchanged(lb, frame, "what the policy is not about");
            }
            // Nor is what the peer opens towards them the client's.
            let init = init(peer, claimed).build().expect("it fits").bytes;
            expect_unchanged(lb, &init, "an INIT of the peer");
            let paths = |assoc: &Association| assoc.paths.len();
            assert_eq!(only_assoc(lb.maps()).as_ref().map(paths), Some(1));
        });
    }

    #[rstest]
    fn who_is_only_named_keeps_its_policy(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, false);
        let (backend, client) = (place.backend(1), place.client());
        let claimed = at("192.0.2.50", client.port());
        let wanted = with_policy(place, claimed.ip(), ingress(vec![]));
        with_lb(place, &wanted, |lb| {
            let first = chunk::init(1, CLIENT_TAG, &address_parameter(claimed.ip()));
            outcome_of(lb, &spec(client, place.vip(), 0, first)).expect("it is opened");
            expect_drop(lb, &init(backend, claimed), "drop_policy");
        });
    }
}

mod icmp {
    use super::*;
    use bpf_sctp::packet::{Frame, icmp_error};

    fn frame(spec: &Spec) -> Frame {
        spec.build().expect("it fits")
    }

    fn expect(lb: &Datapath<'_>, before: &[u8], after: &[u8]) {
        match outcome(lb, before) {
            Ok(got) if got == after => {}
            got => fail(
                format!("{got:?}\npackets are: before, wanted"),
                &[before, after],
            ),
        }
    }

    /// How much of the SCTP packet is quoted: eight bytes, which is the least, the header, or all.
    const QUOTED_SCTP: [usize; 3] = [8, 12, 1000];

    #[rstest]
    fn errors_about_translated_packets_reach_who_sent_them(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(false, true)] ipv6: bool,
        #[values(false, true)] masquerade: bool,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, ipv6);
        let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
        let mut wanted = service(place, &[backend]);
        wanted.frontends = [(vip, frontend(masquerade))].into();
        with_lb(place, &desired(wanted), |lb| {
            lb.maps()
                .set_masquerade(&[place.node().ip()])
                .expect("a setting");
            let (source, _) = open(lb, client, vip);
            let answer = |from, to| {
                let chunks = chunk::init(2, BACKEND_TAG, &[]);
                spec(from, to, CLIENT_TAG, chunks)
            };
            outcome(lb, &frame(&answer(backend, source)).bytes).expect("it passes");
            let router = place.addr("192.0.2.254:0", "[2001:db8:1::fe]:0").ip();
            let ip_len = if ipv6 { 40 } else { 20 };
            let data = |from, to, tag| spec(from, to, tag, chunk::data(&[7; 100]));
            for len in QUOTED_SCTP.map(|len| ip_len + len) {
                let quote = |from: IpAddr, spec: &Spec| {
                    icmp_error(from, &frame(spec), len).expect("it fits")
                };
                // Of a router on the way to the backend, and of the backend itself.
                let to_backend = data(source, backend, BACKEND_TAG);
                let to_vip = data(client, vip, BACKEND_TAG);
                expect(lb, &quote(router, &to_backend), &quote(router, &to_vip));
                expect(
                    lb,
                    &quote(backend.ip(), &to_backend),
                    &quote(vip.ip(), &to_vip),
                );
                // Of a router on the way to the client, and of the client itself.
                let to_client = data(vip, client, CLIENT_TAG);
                let from_backend = data(backend, source, CLIENT_TAG);
                expect(
                    lb,
                    &quote(router, &to_client),
                    &quote(router, &from_backend),
                );
                expect(
                    lb,
                    &quote(client.ip(), &to_client),
                    &quote(source.ip(), &from_backend),
                );
            }
            // With a tag that is not the association's, anybody may have sent it.
            let forged = data(vip, client, 0x0bad_0bad);
            let forged = icmp_error(router, &frame(&forged), ip_len + 8).expect("it fits");
            assert_eq!(outcome(lb, &forged), Err("drop_icmp_tag".into()));
        });
    }

    #[rstest]
    fn errors_about_others_pass_untouched(
        #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
        #[values(false, true)] ipv6: bool,
    ) {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(hook, ipv6);
        with_lb(place, &desired(service(place, &[place.backend(1)])), |lb| {
            open(lb, place.client(), place.vip());
            let other = frame(&init(place.client(), place.backend(2)));
            let router = place.node().ip();
            let ip_len = if ipv6 { 40 } else { 20 };
            for len in [0, 4, ip_len, ip_len + 7, ip_len + 8] {
                let error = icmp_error(router, &other, len).expect("it fits");
                expect_unchanged(lb, &error, "an error about another");
            }
            let ours = frame(&init(place.client(), place.backend(1)));
            for len in [0, 4, ip_len, ip_len + 7] {
                let error = icmp_error(router, &ours, len).expect("it fits");
                expect_unchanged(lb, &error, "a quote that is too short");
            }
        });
    }
}

mod multihoming {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn wanted(place: Place, vips: &[&str], secondary: &[&str]) -> Desired {
        let mut wanted = service(place, &[place.backend(1)]);
        wanted.frontends.clear();
        for (order, vip) in vips.iter().enumerate() {
            let vip = SocketAddr::new(ip(vip), place.vip().port());
            let frontend = Frontend {
                order,
                ..Default::default()
            };
            wanted.frontends.insert(vip, frontend);
        }
        wanted.backends[0].secondary = secondary.iter().copied().map(ip).collect();
        desired(wanted)
    }

    /// The addresses of each frontend's group.
    fn paths(maps: &Maps) -> Vec<Vec<IpAddr>> {
        let services = maps.service_list().expect("it can be read");
        services.into_iter().map(|service| service.paths).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().copied().map(ip).collect()
    }

    #[test]
    fn a_second_apply_changes_nothing_and_another_list_is_a_change() {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(Hook::Tc, false);
        let [a, b, c] = ["203.0.113.10", "203.0.113.5", "2001:db8:ff::10"];
        let two = wanted(place, &[a, b], &["198.51.101.1", "2001:db8:2::1"]);
        with_lb(place, &two, |lb| {
            let maps = lb.maps();
            let apply = |wanted| {
                let changes = maps.apply(wanted).expect("there is room");
                let again = maps.apply(wanted).expect("there is room");
                assert!(again.is_empty(), "{again:?}");
                changes
            };
            assert!(apply(&two).is_empty());
            assert_eq!(paths(maps), [ips(&[a, b]), ips(&[a, b])]);
            let backends = maps.backend_list().expect("it can be read");
            let all = ips(&["198.51.100.1", "198.51.101.1", "2001:db8:2::1"]);
            assert_eq!(backends[0].addresses, all);

            let three = wanted(place, &[c, a, b], &["198.51.101.1", "2001:db8:2::1"]);
            // The new one, and the group of the others.
            assert_eq!(apply(&three).frontends_set, 2);
            assert_eq!(paths(maps), vec![ips(&[c, a, b]); 3]);
            let turned = wanted(place, &[b, a, c], &["198.51.101.1", "2001:db8:2::1"]);
            assert_eq!(apply(&turned).frontends_set, 1);
            assert_eq!(paths(maps), vec![ips(&[b, a, c]); 3]);
            let one = wanted(place, &[b], &[]);
            let changes = apply(&one);
            let counts = (changes.frontends_set, changes.frontends_removed);
            assert_eq!((counts, changes.backends_added), ((1, 2), 1));
            assert_eq!(paths(maps), [ips(&[b])]);
            apply(&Desired::default());
            assert_eq!(paths(maps), Vec::<Vec<IpAddr>>::new());
        });
    }

    #[test]
    fn a_backend_that_drains_keeps_its_addresses_and_paths() {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(Hook::Tc, false);
        let wanted = wanted(place, &["203.0.113.10"], &["198.51.101.1"]);
        with_lb(place, &wanted, |lb| {
            open(lb, place.client(), place.vip());
            let paths = only_assoc(lb.maps()).expect("an association").paths;
            let ends = |path: &PathEntry| [path.client, path.vip, path.backend];
            let paths: Vec<_> = paths.iter().map(ends).collect();
            let ends = [place.client(), place.vip(), place.backend(1)];
            assert_eq!(paths, [ends.map(|end| end.ip())]);
            let changes = lb.maps().apply(&Desired::default()).expect("room");
            assert_eq!(changes.backends_drained, 1);
            let backends = lb.maps().backend_list().expect("it can be read");
            assert!(backends[0].draining);
            let all = ips(&["198.51.100.1", "198.51.101.1"]);
            assert_eq!(backends[0].addresses, all);
        });
    }

    #[test]
    fn more_addresses_than_are_kept_change_nothing() {
        require!(Feature::Root, Feature::Btf);
        let place = Place::in_bpf(Hook::Tc, false);
        let many: Vec<_> = (1..10).map(|nr| format!("198.51.101.{nr}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        with_lb(place, &Desired::default(), |lb| {
            let refused = |wanted| {
                let error = lb.maps().apply(&wanted).expect_err("no room");
                assert_eq!(paths(lb.maps()), Vec::<Vec<IpAddr>>::new());
                error.to_string()
            };
            assert_eq!(
                refused(wanted(place, &many, &[])),
                "9 addresses of the service default/amf:sctp, but there can be 8 at most"
            );
            assert_eq!(
                refused(wanted(place, &["203.0.113.10"], &many[1..])),
                "9 addresses of the backend 198.51.100.1:13868 of the service default/amf:sctp, \
                 but there can be 8 at most"
            );
        });
    }
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
