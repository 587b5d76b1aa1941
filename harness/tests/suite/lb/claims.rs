// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What packets claim of whom they are from, or name, and what becomes of others by that.

use super::*;

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
        // The backend knows who is there.
        expect_translated(lb, &heartbeat(backend), &heartbeat(vip));
        for _ in 0..100 {
            if only_of(lb.maps(), client) {
                assert_eq!(lb.maps().stats().expect("counters").get("expired"), 1);
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

/// The handshake of a client that names an address of its own: what its backend takes it for.
pub(super) fn shake(
    lb: &Datapath<'_>,
    place: Place,
    client: SocketAddr,
    named: IpAddr,
    [tag, backend_tag]: [u32; 2],
) -> SocketAddr {
    let (vip, backend) = (place.vip(), place.backend(1));
    let first = chunk::init(1, tag, &address_parameter(named));
    let sent = outcome_of(lb, &spec(client, vip, 0, first)).expect("it is opened");
    let source = find(&sent).expect("SCTP").source;
    for packet in [
        spec(
            backend,
            source,
            tag,
            chunk::init(2, backend_tag, &address_parameter(backend.ip())),
        ),
        spec(client, vip, backend_tag, chunk::chunk(10, 0, &[0; 4])),
        spec(backend, source, tag, chunk::chunk(11, 0, &[])),
    ] {
        outcome_of(lb, &packet).expect("it is the association's");
    }
    source
}

/// Behind masquerade one path back is for all of a client's, also when there is no room for the
/// others yet; and if it has named them in a second INIT only.
#[rstest]
fn replies_follow_the_client_also_where_paths_are_scarce(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(false, true)] named_late: bool,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (vip, backend) = (place.vip(), place.backend(1));
    with_masquerade(place, |lb| {
        let other = |nr: usize, addr: usize| at(&format!("192.0.{addr}.{nr}"), 5000);
        for nr in 1..SIZES.assocs as usize / 2 {
            let named = (2..9).flat_map(|addr| address_parameter(other(nr, addr).ip()));
            let claim = chunk::init(1, CLIENT_TAG + nr as u32, &named.collect::<Vec<_>>());
            outcome_of(lb, &spec(other(nr, 1), vip, 0, claim)).expect("there is room");
        }
        let clients = [1, 2].map(|last| at(&format!("192.0.100.{last}"), 5000));
        if named_late {
            outcome_of(lb, &init(clients[0], vip)).expect("there is room");
        }
        let source = shake(lb, place, clients[0], clients[1].ip(), [1, BACKEND_TAG]);
        let probe = chunk::chunk(4, 0, &[0, 1, 0, 4]);
        let reply = |source, dest| spec(source, dest, 1, chunk::data(b"reply"));
        for client in [clients[1], clients[0], clients[1]] {
            outcome_of(lb, &spec(client, vip, BACKEND_TAG, probe.clone())).expect("the client's");
            expect_translated(lb, &reply(backend, source), &reply(vip, client));
        }
    });
}

/// A service whose clients its backend sees as the node.
fn with_masquerade(place: Place, check: impl FnOnce(&Datapath<'_>)) {
    let mut wanted = service(place, &[place.backend(1)]);
    wanted.frontends = [(place.vip(), frontend(true))].into();
    with_lb(place, &desired(wanted), |lb| {
        let node = [place.node().ip()];
        lb.maps().set_masquerade(&node).expect("a setting");
        check(lb);
    });
}

#[rstest]
fn behind_masquerade_who_is_heard_goes_before_who_is_named(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    with_masquerade(place, |lb| {
        let (client, second) = (place.client(), at("192.0.2.2", place.client().port()));
        let other = at("192.0.2.77", client.port());
        shake(lb, place, other, second.ip(), [3, 4]);
        let source = shake(lb, place, client, second.ip(), [CLIENT_TAG, BACKEND_TAG]);
        let heartbeat = |from, to| spec(from, to, BACKEND_TAG, chunk::chunk(4, 0, &[0; 4]));
        let seen = heartbeat(source, place.backend(1));
        // Nor does an INIT from there.
        let forged = chunk::init(1, 0x0bad_0bad, &[]);
        outcome_of(lb, &spec(second, place.vip(), 0, forged)).expect("it is opened");
        expect_translated(lb, &heartbeat(second, place.vip()), &seen);
        // Nobody has named it: its tag may be guessed.
        let stranger = at("192.0.2.78", client.port());
        expect_drop(lb, &heartbeat(stranger, place.vip()), "drop_no_assoc");
    });
}

/// Where the backend has one address, what it sends comes back by one path from all of them.
#[rstest]
fn an_init_does_not_keep_an_address_that_the_backend_knows(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, second) = (place.client(), at("192.0.2.2", place.client().port()));
    let vips = [place.vip(), at("203.0.113.74", place.vip().port())];
    let backend = place.backend(1);
    let mut wanted = service(place, &[backend]);
    wanted.frontends = vips.map(|vip| (vip, Frontend::default())).into();
    with_lb(place, &desired(wanted), |lb| {
        shake(lb, place, client, second.ip(), [CLIENT_TAG, BACKEND_TAG]);
        let packet = |from, to, tag, kind| spec(from, to, tag, chunk::chunk(kind, 0, &[0; 4]));
        let heartbeat = |from, to| packet(from, to, CLIENT_TAG, 4);
        expect_translated(lb, &heartbeat(backend, second), &heartbeat(vips[0], second));
        let forged = chunk::init(1, 0x0bad_0bad, &[]);
        outcome_of(lb, &spec(second, vips[1], 0, forged)).expect("it is opened");
        for kind in [4, 3] {
            let sent = |to| packet(second, to, BACKEND_TAG, kind);
            expect_translated(lb, &sent(vips[1]), &sent(backend));
        }
    });
}

/// Behind masquerade a backend may know a client by the node's addresses of both families.
#[rstest]
fn a_port_is_one_associations_in_both_families(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let places = [false, true].map(|ipv6| Place::in_bpf(hook, ipv6));
    let [v4, v6] = places;
    let backends = places.map(|place| place.backend(1).ip());
    let mut wanted = service(v4, &[]);
    wanted.frontends = places.map(|place| (place.vip(), frontend(true))).into();
    wanted.backends = backend_by_family(&backends, v4.backend(1).port()).collect();
    with_lb(v4, &desired(wanted), |lb| {
        let node = places.map(|place| place.node().ip());
        lb.maps().set_masquerade(&node).expect("a setting");
        let neighbours = [at("192.0.2.9", 5000), at("2001:db8:1::9", 5000)];
        let clients = [(v4, v4.client()), (v6, neighbours[1]), (v4, neighbours[0])];
        let ports = clients.map(|(place, client)| open(lb, client, place.vip()).0.port());
        assert_eq!(ports[0], 5000);
        let all: std::collections::HashSet<_> = ports.into_iter().collect();
        assert_eq!(all.len(), ports.len(), "{ports:?}");
    });
}

/// An INIT ACK has the tag that was in the INIT, whoever sent that.
#[rstest]
fn who_answers_an_init_knows_nobody(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (vip, backend) = (place.vip(), place.backend(1));
    let (client, other) = (place.client(), at("192.0.2.77", place.client().port()));
    with_lb(place, &desired(service(place, &[backend])), |lb| {
        establish(lb, other, vip, backend);
        let ack = chunk::init(2, 0x0bad_0bad, &[]);
        // As the client, whom the backend does not know.
        for forged in [
            spec(client, vip, BACKEND_TAG, chunk::chunk(4, 0, &[0; 4])),
            spec(client, vip, 0, chunk::init(1, CLIENT_TAG, &[])),
            spec(backend, client, CLIENT_TAG, ack),
        ] {
            outcome_of(lb, &forged).expect("the right tag");
        }
        outcome_of(lb, &spec(client, vip, 0, chunk::init(1, 7, &[]))).expect("it is opened");
        let all = lb.maps().associations().expect("it can be read");
        assert!(all.iter().any(|assoc| assoc.original.source == client));
    });
}

/// Behind masquerade all of a client's addresses have one way back.
#[rstest]
fn an_init_leads_nobody_away_who_is_there(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    with_masquerade(place, |lb| {
        let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
        let second = at("192.0.2.2", client.port());
        let source = shake(lb, place, client, second.ip(), [CLIENT_TAG, BACKEND_TAG]);
        let sack = |from, to| spec(from, to, CLIENT_TAG, chunk::chunk(3, 0, &[0; 4]));
        for from in [second, client] {
            let heartbeat = spec(from, vip, BACKEND_TAG, chunk::chunk(4, 0, &[0; 4]));
            outcome_of(lb, &heartbeat).expect("the right tag");
        }
        let init = spec(second, vip, 0, chunk::init(1, 0x0bad_0bad, &[]));
        let answer = |from, to| spec(from, to, 0x0bad_0bad, chunk::init(2, 1, &[]));
        outcome_of(lb, &init).expect("it passes");
        expect_translated(lb, &sack(backend, source), &sack(vip, client));
        // Nor does who refuses an INIT of his own.
        let refusal = spec(second, vip, 0x0bad_0bad, chunk::chunk(6, chunk::T_BIT, &[]));
        outcome_of(lb, &spec(client, vip, 0, chunk::init(1, 0x0bad_0bad, &[]))).expect("a path");
        outcome_of(lb, &refusal).expect("it passes");
        expect_translated(lb, &sack(backend, source), &sack(vip, client));
        // A client that restarts, and has only this address left, is answered there.
        outcome_of(lb, &init).expect("it passes");
        expect_translated(lb, &answer(backend, source), &answer(vip, second));
        expect_translated(lb, &sack(backend, source), &sack(vip, client));
    });
}

/// Who has opened an association in a client's name, and holds it, does not get his answers.
#[rstest]
fn an_init_is_answered_where_it_came_from(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    with_masquerade(place, |lb| {
        let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
        let other = at("192.0.2.77", client.port());
        let source = shake(lb, place, client, other.ip(), [3, 4]);
        let heartbeat = spec(other, vip, 4, chunk::chunk(4, 0, &[0; 4]));
        outcome_of(lb, &heartbeat).expect("it has the tag");
        outcome_of(lb, &init(client, vip)).expect("a restart");
        outcome_of(lb, &heartbeat).expect("it has the tag");
        let answer = |from, to| spec(from, to, CLIENT_TAG, chunk::init(2, BACKEND_TAG, &[]));
        expect_translated(lb, &answer(backend, source), &answer(vip, client));
        let echo = spec(client, vip, BACKEND_TAG, chunk::chunk(10, 0, &[0; 4]));
        outcome_of(lb, &echo).expect("it confirms the restart");
        let ack = |from, to| spec(from, to, CLIENT_TAG, chunk::chunk(11, 0, &[]));
        expect_translated(lb, &ack(backend, source), &ack(vip, client));
    });
}

/// Nor keeps an INIT that was forged before a client's own its other addresses out.
#[rstest]
fn behind_masquerade_all_inits_name_addresses(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    with_masquerade(place, |lb| {
        let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
        let second = at("192.0.2.2", client.port());
        let forged = spec(client, vip, 0, chunk::init(1, 0x0bad_0bad, &[]));
        outcome_of(lb, &forged).expect("it opens");
        let source = shake(lb, place, client, second.ip(), [CLIENT_TAG, BACKEND_TAG]);
        let heartbeat = |from, to| spec(from, to, BACKEND_TAG, chunk::chunk(4, 0, &[0; 4]));
        expect_translated(lb, &heartbeat(second, vip), &heartbeat(source, backend));
    });
}
