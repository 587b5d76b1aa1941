// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The translator on single frames: what it finds in them, what it changes, what it refuses.

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use bpf_sctp::checksum;
use bpf_sctp::feature::Feature;
use bpf_sctp::packet::{Frame, Spec, Stored, find};
use bpf_sctp::translator::{CsumMode, Stats, Translator, Verdict};
use rstest::rstest;

use crate::support::{fail, require};

/// The parties of one address family.
struct Parties {
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
    /// On the way through, but none of our business.
    stranger: SocketAddr,
}

fn parties(ipv6: bool) -> Parties {
    let addr = |v4: &str, v6: &str| if ipv6 { v6 } else { v4 }.parse().expect("an address");
    Parties {
        client: addr("192.0.2.1:5000", "[2001:db8:1::1]:5000"),
        vip: addr("203.0.113.10:3868", "[2001:db8:ff::10]:3868"),
        backend: addr("198.51.100.1:13868", "[2001:db8:2::1]:13868"),
        stranger: addr("198.51.100.99:3868", "[2001:db8:2::99]:3868"),
    }
}

fn init(source: SocketAddr, dest: SocketAddr) -> Spec {
    let mut chunk = vec![1, 0, 0, 20];
    chunk.extend(1..=16);
    Spec::new(source, dest, chunk)
}

/// Runs `check` with a translator that knows the rules of both families.
fn with_translator(check: impl Fn(&Translator<'_>)) {
    let mut storage = MaybeUninit::uninit();
    let translator = Translator::load(CsumMode::Auto, &mut storage).expect("it loads");
    for ipv6 in [false, true] {
        let parties = parties(ipv6);
        translator
            .add_rule(parties.vip, parties.backend)
            .expect("there is room");
    }
    check(&translator);
}

fn expect_unchanged(translator: &Translator<'_>, frame: &[u8], what: &str) {
    let verdict = translator.run(frame).expect("the kernel runs it");
    if verdict != Verdict::Pass(frame.to_vec()) {
        fail(
            format!("{what} should pass as it is: {verdict:?}"),
            &[frame],
        );
    }
}

/// Insists that `before` comes out as `after` says it: the addresses and ports, all else as it
/// was, and the SCTP checksum as right or wrong as it was.
fn expect_translated(translator: &Translator<'_>, before: &Spec, after: &Spec) {
    let (before, after) = (
        before.build().expect("it fits"),
        after.build().expect("it fits"),
    );
    let verdict = translator.run(&before.bytes).expect("the kernel runs it");
    let Verdict::Pass(got) = &verdict else {
        fail("it is dropped".into(), &[&before.bytes]);
    };
    if *got != after.bytes {
        fail(
            "not as wanted\npackets are: before, after, wanted".into(),
            &[&before.bytes, got, &after.bytes],
        );
    }
}

fn expect_dropped(
    translator: &Translator<'_>,
    frame: &[u8],
    what: &str,
    counter: fn(&Stats) -> u64,
) {
    let before = translator.stats().expect("counters");
    let verdict = translator.run(frame).expect("the kernel runs it");
    let after = translator.stats().expect("counters");
    if verdict != Verdict::Drop {
        fail(format!("{what} should be dropped: {verdict:?}"), &[frame]);
    }
    assert_eq!(counter(&after), counter(&before) + 1, "{what}: {after:?}");
    assert_eq!(after.drops(), before.drops() + 1, "{what}: {after:?}");
}

#[rstest]
#[case::plain(&[], &[], 0)]
#[case::padded(&[], &[], 100)]
#[case::vlan(&[7], &[], 0)]
#[case::two_vlans(&[7, 4000], &[], 0)]
#[case::ip_options(&[], &[1; 4], 0)]
#[case::all_of_them(&[7, 4000], &[1; 12], 200)]
fn ports_and_addresses_change_there_and_back(
    #[case] vlans: &[u16],
    #[case] ipv4_options: &[u8],
    #[case] min_len: usize,
    #[values(false, true)] ipv6: bool,
    #[values(Stored::Good, Stored::WrongBy(0xbad), Stored::Absent)] checksum: Stored,
) {
    require!(Feature::Root, Feature::Btf);
    let Parties {
        client,
        vip,
        backend,
        ..
    } = parties(ipv6);
    // Padding options of six bytes, the least that an IPv6 extension header holds.
    let ipv6_options = if ipv4_options.is_empty() {
        vec![]
    } else {
        vec![1, 4, 0, 0, 0, 0]
    };
    let spec = |source, dest| Spec {
        vlans: vlans.to_vec(),
        ip_extra: if ipv6 {
            ipv6_options.clone()
        } else {
            ipv4_options.to_vec()
        },
        min_len,
        checksum,
        ..init(source, dest)
    };
    with_translator(|translator| {
        expect_translated(translator, &spec(client, vip), &spec(client, backend));
        expect_translated(translator, &spec(backend, client), &spec(vip, client));
    });
}

#[rstest]
fn what_is_none_of_its_business_passes_as_it_is(#[values(false, true)] ipv6: bool) {
    require!(Feature::Root, Feature::Btf);
    let Parties {
        client,
        vip,
        backend,
        stranger,
    } = parties(ipv6);
    let other_port = |addr: SocketAddr| SocketAddr::new(addr.ip(), 99);
    with_translator(|translator| {
        for (source, dest, what) in [
            (client, stranger, "another address"),
            (client, other_port(vip), "another port of the VIP"),
            (other_port(backend), client, "another port of the backend"),
            (client, backend, "the backend itself"),
            (vip, client, "the VIP as a source"),
        ] {
            let frame = init(source, dest).build().expect("it fits");
            expect_unchanged(translator, &frame.bytes, what);
        }
        let three_vlans = Spec {
            vlans: vec![1, 2, 3],
            ..init(client, vip)
        };
        expect_unchanged(
            translator,
            &three_vlans.build().expect("it fits").bytes,
            "three VLAN tags",
        );

        let mut udp = init(client, vip).build().expect("it fits").bytes;
        udp[if ipv6 { 20 } else { 23 }] = 17;
        expect_unchanged(translator, &udp, "UDP");
        let mut arp = udp;
        arp[12..14].copy_from_slice(&[8, 6]);
        expect_unchanged(translator, &arp, "ARP");
    });
}

/// A frame that carries an IPv6 fragment header with this offset and flag field.
fn ipv6_fragment(source: SocketAddr, dest: SocketAddr, offset_and_flags: u16) -> Frame {
    let spec = Spec {
        ip_extra: vec![0; 6],
        ..init(source, dest)
    };
    let mut frame = spec.build().expect("it fits");
    let ip = 14;
    frame.bytes[ip + 6] = 44;
    frame.bytes[ip + 41] = 0;
    frame.bytes[ip + 42..ip + 44].copy_from_slice(&offset_and_flags.to_be_bytes());
    frame
}

/// A frame whose IPv4 header has this flags and offset field.
fn ipv4_fragment(source: SocketAddr, dest: SocketAddr, flags_and_offset: u16) -> Frame {
    let mut frame = init(source, dest).build().expect("it fits");
    frame.bytes[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    frame
}

#[test]
fn fragments_of_ours_are_refused() {
    require!(Feature::Root, Feature::Btf);
    let (v4, v6) = (parties(false), parties(true));
    with_translator(|translator| {
        for (fragment, what) in [
            (0x2000, "the first"),
            (0x2010, "a middle one"),
            (0x0010, "the last"),
        ] {
            for (source, dest) in [(v4.client, v4.vip), (v4.backend, v4.client)] {
                let frame = ipv4_fragment(source, dest, fragment);
                expect_dropped(translator, &frame.bytes, what, |stats| stats.drop_fragment);
            }
            let strange = ipv4_fragment(v4.client, v4.stranger, fragment);
            expect_unchanged(translator, &strange.bytes, what);
        }
        for (fragment, what) in [
            (0x0001, "the first"),
            (0x0009, "a middle one"),
            (0x0008, "the last"),
        ] {
            for (source, dest) in [(v6.client, v6.vip), (v6.backend, v6.client)] {
                let frame = ipv6_fragment(source, dest, fragment);
                expect_dropped(translator, &frame.bytes, what, |stats| stats.drop_fragment);
            }
            let strange = ipv6_fragment(v6.client, v6.stranger, fragment);
            expect_unchanged(translator, &strange.bytes, what);
        }
    });
}

#[test]
fn a_fragment_is_known_through_the_headers_behind_it() {
    require!(Feature::Root, Feature::Btf);
    let Parties {
        client,
        vip,
        stranger,
        ..
    } = parties(true);
    // What the fragment header announces: destination options, which SCTP may follow.
    let fragment = |dest| {
        let mut frame = ipv6_fragment(client, dest, 0x0001).bytes;
        frame[54] = 60;
        frame
    };
    with_translator(|translator| {
        expect_dropped(translator, &fragment(vip), "the first", |stats| {
            stats.drop_fragment
        });
        expect_unchanged(translator, &fragment(stranger), "the first");
    });
}

#[test]
fn ipv4_written_as_ipv6_is_not_taken_for_ipv4() {
    require!(Feature::Root, Feature::Btf);
    let (v4, v6) = (parties(false), parties(true));
    let mapped = |addr: SocketAddr| match addr {
        SocketAddr::V4(addr) => SocketAddr::from((addr.ip().to_ipv6_mapped(), addr.port())),
        SocketAddr::V6(_) => addr,
    };
    with_translator(|translator| {
        let frame = init(v6.client, mapped(v4.vip)).build().expect("it fits");
        expect_unchanged(translator, &frame.bytes, "a mapped destination");
        let frame = init(mapped(v4.backend), v6.client)
            .build()
            .expect("it fits");
        expect_unchanged(translator, &frame.bytes, "a mapped source");
        translator
            .add_rule(mapped(v4.client), v6.stranger)
            .expect_err("a mapped VIP");
        translator
            .add_rule(v4.client, v6.stranger)
            .expect_err("two families");
    });
}

#[test]
fn a_rule_that_clashes_with_another_changes_nothing() {
    require!(Feature::Root, Feature::Btf);
    let Parties {
        client,
        vip,
        backend,
        stranger,
    } = parties(false);
    with_translator(|translator| {
        translator
            .add_rule(stranger, backend)
            .expect_err("the backend has a VIP");
        translator
            .add_rule(vip, stranger)
            .expect_err("the VIP has a backend");
        expect_translated(translator, &init(client, vip), &init(client, backend));
        expect_translated(translator, &init(backend, client), &init(vip, client));
        for (source, dest) in [(client, stranger), (stranger, client)] {
            let frame = init(source, dest).build().expect("it fits");
            expect_unchanged(translator, &frame.bytes, "the refused rule's");
        }
    });
}

#[test]
fn a_fragment_that_is_the_whole_packet_is_translated() {
    require!(Feature::Root, Feature::Btf);
    let Parties {
        client,
        vip,
        backend,
        ..
    } = parties(true);
    with_translator(|translator| {
        let frame = ipv6_fragment(client, vip, 0);
        let verdict = translator.run(&frame.bytes).expect("the kernel runs it");
        let Verdict::Pass(got) = verdict else {
            fail("it is dropped".into(), &[&frame.bytes]);
        };
        let found = find(&got).expect("SCTP");
        assert_eq!((found.source, found.dest), (client, backend));
        assert_eq!(checksum::error(found.sctp), 0);
    });
}

#[rstest]
fn what_is_shorter_than_it_says_is_refused(#[values(false, true)] ipv6: bool) {
    require!(Feature::Root, Feature::Btf);
    let Parties { client, vip, .. } = parties(ipv6);
    let whole = init(client, vip).build().expect("it fits");
    with_translator(|translator| {
        let drop = |frame: &[u8], what: &str| {
            expect_dropped(translator, frame, what, |stats| stats.drop_truncated);
        };
        for missing in [1, 4, 16, 20] {
            let cut = whole.bytes.len() - missing;
            drop(
                &whole.bytes[..cut],
                &format!("a frame without its last {missing} bytes"),
            );
        }
        let (at, header) = if ipv6 { (18, 0) } else { (16, 20) };
        for len in [0u16, 1, 8, 11] {
            let mut short = whole.clone();
            short.bytes[at..at + 2].copy_from_slice(&(header + len).to_be_bytes());
            drop(
                &short.bytes,
                &format!("an SCTP packet of {len} bytes by the IP header"),
            );
        }
        if !ipv6 {
            for version_and_ihl in [0x40, 0x44, 0x4f] {
                let mut short = init(client, vip);
                short.chunks.truncate(4);
                let mut short = short.build().expect("it fits");
                short.bytes[14] = version_and_ihl;
                drop(
                    &short.bytes,
                    &format!("IPv4 that starts with {version_and_ihl:#x}"),
                );
            }
        }
    });
}

/// An IPv6 frame with `nr` hop-by-hop headers of eight bytes.
fn many_ext_headers(source: SocketAddr, dest: SocketAddr, nr: usize) -> Vec<u8> {
    let mut frame = init(source, dest).build().expect("it fits").bytes;
    let headers = (1..=nr).flat_map(|i| [if i == nr { 132 } else { 0 }, 0, 1, 4, 0, 0, 0, 0]);
    frame.splice(54..54, headers);
    frame[20] = 0;
    let len = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

#[test]
fn too_many_extension_headers_are_refused() {
    require!(Feature::Root, Feature::Btf);
    let Parties {
        client,
        vip,
        stranger,
        ..
    } = parties(true);
    with_translator(|translator| {
        let most = many_ext_headers(client, vip, 8);
        assert_ne!(
            translator.run(&most).expect("it runs"),
            Verdict::Pass(most.clone())
        );
        assert_eq!(translator.stats().expect("counters").drops(), 0);
        let more = many_ext_headers(client, vip, 9);
        expect_dropped(translator, &more, "nine headers", |stats| {
            stats.drop_ext_headers
        });
        expect_unchanged(
            translator,
            &many_ext_headers(client, stranger, 9),
            "nine headers",
        );
    });
}
