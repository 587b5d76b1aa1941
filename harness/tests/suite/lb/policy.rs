// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Who may associate with whom.

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

/// It may associate with everybody, which makes its associations tracked.
fn egress_to_everybody(place: Place) -> EndpointPolicy {
    EndpointPolicy {
        ingress: None,
        egress: Some(vec![rule(vec![place.everybody()], ports(0, u16::MAX))]),
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
fn egress_is_judged_by_the_backend_behind_the_service(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
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
        let (cookie_echo, cookie_ack) = (chunk::chunk(10, 0, &[0; 4]), chunk::chunk(11, 0, &[]));
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
    let policy = egress_to_everybody(place);
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

/// As where a device is on top of another, and both have the program.
#[rstest]
fn what_has_been_translated_is_not_judged_again(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
    for endpoint in [client, backend] {
        let policy = match endpoint {
            endpoint if endpoint == client => ingress(vec![]),
            _ => ingress(vec![rule(vec![place.everybody()], ports(0, u16::MAX))]),
        };
        with_lb(place, &with_policy(place, endpoint.ip(), policy), |lb| {
            establish(lb, client, vip, backend);
            let answer = |tag| spec(vip, client, tag, chunk::data(b"again"));
            let frame = answer(CLIENT_TAG).build().expect("it fits").bytes;
            expect_unchanged(lb, &frame, "an answer");
            if endpoint == client {
                expect_drop(lb, &answer(0x0bad_0bad), "drop_policy");
            }
        });
    }
}

/// Who serves can forge the INIT of who is to be protected, and then send his own.
#[rstest]
fn a_forged_init_does_not_let_its_peer_in(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, peer) = (place.client(), at("203.0.113.77", 36412));
    let wanted = with_policy(place, client.ip(), ingress(vec![]));
    with_lb(place, &wanted, |lb| {
        expect_drop(lb, &init(peer, client), "drop_policy");
        let forged = init(client, peer).build().expect("it fits").bytes;
        expect_unchanged(lb, &forged, "what the client may open");
        expect_drop(lb, &init(peer, client), "drop_policy");
    });
}

/// The same, by a service that he serves.
#[rstest]
fn a_forged_init_does_not_let_a_backend_in(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
    for rules in [vec![], vec![rule(vec![only(backend)], ports(0, u16::MAX))]] {
        let denied = rules.is_empty();
        with_lb(
            place,
            &with_policy(place, client.ip(), ingress(rules)),
            |lb| {
                outcome_of(lb, &init(client, vip)).expect("what the client may open");
                let own = init(vip, client);
                if denied {
                    expect_drop(lb, &own, "drop_policy");
                } else {
                    let frame = own.build().expect("it fits").bytes;
                    expect_unchanged(lb, &frame, "an INIT that has been translated");
                }
            },
        );
    }
}

/// Nor what the backend itself may not do, where only its service's address is seen.
#[rstest]
fn a_backend_opens_nothing_as_its_service(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
    let wanted = with_policy(
        place,
        backend.ip(),
        EndpointPolicy {
            ingress: None,
            egress: Some(vec![]),
        },
    );
    with_lb(place, &wanted, |lb| {
        outcome_of(lb, &init(client, vip)).expect("what the client may open");
        expect_drop(lb, &init(backend, client), "drop_policy");
        expect_drop(lb, &init(vip, client), "drop_no_assoc");
        // The association is there yet.
        let without = Desired {
            services: Default::default(),
            ..wanted.clone()
        };
        lb.maps().apply(&without).expect("there is room");
        expect_drop(lb, &init(vip, client), "drop_no_assoc");
    });
}

/// Its own backends would be behind it, unseen.
#[rstest]
fn a_service_is_nobodys_client(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let other = at("203.0.113.11", 4000);
    let mut wanted = desired(service(place, &[place.backend(1)]));
    let mut second = service(place, &[place.backend(2)]);
    second.frontends = [(other, Frontend::default())].into();
    wanted.services.insert(name("smf"), second);
    with_lb(place, &wanted, |lb| {
        expect_drop(lb, &init(other, place.vip()), "drop_no_assoc");
        // So its own backend gets there from any port.
        assert_eq!(open(lb, place.backend(1), other).1, place.backend(2));
    });
}

/// Also if who opened it answered an INIT that was forged, or has restarted it since.
#[rstest]
fn who_opened_an_association_is_judged_as_such(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, peer) = (place.client(), at("203.0.113.77", 36412));
    let allowed = ingress(vec![rule(vec![only(peer)], ports(0, u16::MAX))]);
    with_lb(place, &with_policy(place, client.ip(), allowed), |lb| {
        let data = spec(peer, client, 8, chunk::data(b"data"));
        for packet in [
            &init(client, peer),
            &spec(peer, client, 0, chunk::init(1, 7, &[])),
            &spec(client, peer, 7, chunk::init(2, 8, &[])),
            &spec(peer, client, 8, chunk::chunk(10, 0, &[0; 4])),
            &spec(client, peer, 7, chunk::chunk(11, 0, &[])),
            &data,
        ] {
            outcome_of(lb, packet).expect("what the peer may open");
        }
        let denied = with_policy(place, client.ip(), ingress(vec![]));
        lb.maps().apply(&denied).expect("there is room");
        expect_drop(lb, &data, "drop_policy");
    });
}

/// A client cannot answer an INIT that the other side has not sent: to be judged as who answers.
#[rstest]
fn who_opened_an_association_stays_so(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, peer) = (place.client(), at("203.0.113.77", 36412));
    let policy = egress_to_everybody(place);
    with_lb(place, &with_policy(place, client.ip(), policy), |lb| {
        let data = spec(client, peer, 8, chunk::data(b"data"));
        let echo = |tag| spec(peer, client, tag, chunk::chunk(10, 0, &[0; 4]));
        let own = |tag| spec(client, peer, 8, chunk::init(2, tag, &[]));
        for packet in [
            &spec(client, peer, 0, chunk::init(1, 7, &[])),
            &spec(peer, client, 7, chunk::init(2, 8, &[])),
            &spec(client, peer, 8, chunk::chunk(10, 0, &[0; 4])),
        ] {
            outcome_of(lb, packet).expect("what the client may open");
        }
        for (forged, tag) in [(own(9), 9), (own(7), 7)] {
            let _ = outcome_of(lb, &forged);
            let _ = outcome_of(lb, &echo(tag));
        }
        outcome_of(lb, &data).expect("the client's");
        let denied = EndpointPolicy {
            ingress: None,
            egress: Some(vec![]),
        };
        let denied = with_policy(place, client.ip(), denied);
        lb.maps().apply(&denied).expect("there is room");
        expect_drop(lb, &data, "drop_policy");
    });
}

/// Of an association that is older than the policy nothing is known, and anybody may send an INIT.
#[rstest]
fn a_forged_init_ends_nothing_that_is_older(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, peer) = (place.client(), at("203.0.113.77", 36412));
    let mut policy = egress_to_everybody(place);
    policy.ingress = policy.egress.clone();
    with_lb(place, &with_policy(place, client.ip(), policy), |lb| {
        for (from, to) in [(client, peer), (peer, client)] {
            outcome_of(lb, &init(from, to)).expect("it may be opened");
            for (source, dest) in [(client, peer), (peer, client)] {
                let data = spec(source, dest, 0x01de_a550, chunk::data(b"older"));
                let frame = data.build().expect("it fits").bytes;
                expect_unchanged(lb, &frame, "what is older");
            }
        }
    });
}

/// Nor does one that says to be of a backend, to a client, keep that from its association.
#[rstest]
fn a_forged_init_keeps_no_way_back(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, (backends, wanted)) =
        (place.client(), place.vip(), with_two_addresses(place));
    let second = at("192.0.2.50", client.port());
    let mut wanted = desired(wanted);
    let everybody = ingress(vec![rule(vec![place.everybody()], ports(0, u16::MAX))]);
    wanted.policies.insert(second.ip(), everybody);
    with_lb(place, &wanted, |lb| {
        outcome_of(lb, &init(backends[1], second)).expect("it may be opened");
        let named =
            |kind, tag, addr: SocketAddr| chunk::init(kind, tag, &address_parameter(addr.ip()));
        for packet in [
            spec(client, vip, 0, named(1, CLIENT_TAG, second)),
            spec(
                backends[0],
                client,
                CLIENT_TAG,
                named(2, BACKEND_TAG, backends[1]),
            ),
            spec(client, vip, BACKEND_TAG, chunk::chunk(10, 0, &[0; 4])),
            spec(backends[0], client, CLIENT_TAG, chunk::chunk(11, 0, &[])),
        ] {
            outcome_of(lb, &packet).expect("it is the association's");
        }
        let probe = |source| {
            spec(
                source,
                second,
                CLIENT_TAG,
                chunk::chunk(4, 0, &[0, 1, 0, 4]),
            )
        };
        expect_translated(lb, &probe(backends[1]), &probe(vip));
    });
}

/// What is not translated must not take the place of what is.
#[rstest]
fn a_service_is_nobodys_address(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
    let policy = egress_to_everybody(place);
    let (other, peer) = (
        at("192.0.2.77", client.port()),
        at("192.0.2.88", vip.port()),
    );
    // Whose association it is tracked for: another's, who names both ends; or the client's own.
    for endpoint in [other, client] {
        with_lb(
            place,
            &with_policy(place, endpoint.ip(), policy.clone()),
            |lb| {
                let names = |kind, tag, addr: SocketAddr| {
                    chunk::init(kind, tag, &address_parameter(addr.ip()))
                };
                for forged in [
                    spec(other, peer, 0, names(1, CLIENT_TAG, client)),
                    spec(peer, other, CLIENT_TAG, names(2, BACKEND_TAG, vip)),
                    spec(vip, client, CLIENT_TAG, chunk::data(b"forged")),
                    spec(client, vip, BACKEND_TAG, chunk::data(b"forged")),
                    init(vip, client),
                ] {
                    // Some pass, as nobody has asked for a policy.
                    let _ = outcome_of(lb, &forged);
                }
                expect_translated(lb, &init(client, vip), &init(client, backend));
            },
        );
    }
}

/// Who asked at an address before it was a service's, and still waits for an answer.
#[rstest]
fn a_service_that_comes_later_is_found(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (client, vip, backend) = (place.client(), place.vip(), place.backend(1));
    let policy = egress_to_everybody(place);
    let with_service = with_policy(place, client.ip(), policy);
    let without = Desired {
        services: Default::default(),
        ..with_service.clone()
    };
    with_lb(place, &without, |lb| {
        let frame = init(client, vip).build().expect("it fits").bytes;
        expect_unchanged(lb, &frame, "what goes to no service");
        lb.maps().apply(&with_service).expect("there is room");
        expect_translated(lb, &init(client, vip), &init(client, backend));
    });
}
