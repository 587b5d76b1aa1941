// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ICMP errors about translated packets.

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
            let quote =
                |from: IpAddr, spec: &Spec| icmp_error(from, &frame(spec), len).expect("it fits");
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

#[rstest]
fn who_is_only_named_gets_his_own_errors(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let claimed = at("192.0.2.50", place.client().port());
    with_lb(place, &desired(service(place, &[place.backend(1)])), |lb| {
        let tags = [CLIENT_TAG, BACKEND_TAG];
        claims::shake(lb, place, place.client(), claimed.ip(), tags);
        let direct = |vtag, chunk| frame(&spec(claimed, place.backend(1), vtag, chunk));
        for quoted in [
            direct(0x0bad_0bad, chunk::data(b"payload")),
            direct(0, chunk::init(1, 0x0bad_0bad, &[])),
        ] {
            let error = icmp_error(place.node().ip(), &quoted, 28).expect("it fits");
            expect_unchanged(lb, &error, "an error about another");
        }
    });
}

/// Also of an INIT that was sent again between others of the addresses.
#[rstest]
fn errors_about_an_init_reach_who_sent_it(#[values(Hook::Tc, Hook::Xdp)] hook: Hook) {
    require!(Feature::Root, Feature::Btf);
    let place = Place::in_bpf(hook, false);
    let (backends, mut wanted) = with_two_addresses(place);
    let vips = [place.vip(), at("203.0.113.74", place.vip().port())];
    let frontends = vips.into_iter().enumerate().map(|(order, vip)| {
        let frontend = Frontend {
            order,
            ..Default::default()
        };
        (vip, frontend)
    });
    wanted.frontends = frontends.collect();
    let second = at("192.0.2.2", place.client().port());
    let clients = [(place.client(), second), (second, place.client())];
    with_lb(place, &desired(wanted), |lb| {
        let sent = clients.into_iter().zip(vips).zip(backends);
        let sent = sent.map(|(((client, other), vip), backend)| {
            let named = chunk::init(1, CLIENT_TAG, &address_parameter(other.ip()));
            [vip, backend].map(|dest| spec(client, dest, 0, named.clone()))
        });
        let sent: Vec<_> = sent.collect();
        for [to_vip, to_backend] in &sent {
            expect_translated(lb, to_vip, to_backend);
        }
        for quoted in &sent {
            let [to_vip, to_backend] = quoted
                .each_ref()
                .map(|quoted| icmp_error(place.node().ip(), &frame(quoted), 28).expect("it fits"));
            expect(lb, &to_backend, &to_vip);
        }
    });
}
