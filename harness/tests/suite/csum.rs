// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The checksum update on single packets: the kfuncs and pure BPF, on skbs and XDP buffers, all
//! against the same cases and the same reference.

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use bpf_sctp::checksum;
use bpf_sctp::csum_prog::{Change, CsumProg, Hook, MAX_CHANGES, Outcome, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::packet::{Frame, Spec, Stored};
use nix::errno::Errno;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rstest::rstest;

use crate::support::{fail, feature_of, require};

const PORTS: usize = 0;
const VTAG: usize = 4;

fn families() -> [(SocketAddr, SocketAddr); 2] {
    [
        ("192.0.2.1:5000", "198.51.100.1:3868"),
        ("[2001:db8::1]:5000", "[2001:db8::2]:3868"),
    ]
    .map(|(source, dest)| {
        (
            source.parse().expect("address"),
            dest.parse().expect("address"),
        )
    })
}

/// Runs `check` with the program, unless the kernel lacks a feature.
fn with_prog(hook: Hook, update: Update, check: impl FnOnce(&mut CsumProg<'_>)) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let mut storage = MaybeUninit::uninit();
    check(&mut CsumProg::load(hook, update, &mut storage).expect("it loads"));
}

/// Likewise, for packets that lie in pieces or are longer than a page.
fn with_prog_for_pieces(hook: Hook, update: Update, check: impl FnOnce(&mut CsumProg<'_>)) {
    require!(
        Feature::Root,
        Feature::Btf,
        feature_of(update),
        Feature::SplitTestRun
    );
    with_prog(hook, update, check);
}

/// A frame with an SCTP packet of `sctp_len` bytes whose contents are not uniform.
fn spec(family: (SocketAddr, SocketAddr), sctp_len: usize) -> Spec {
    let chunks = (0..sctp_len - checksum::COMMON_HEADER_LEN).map(|i| (i * 7 + i / 251) as u8);
    Spec::new(family.0, family.1, chunks.collect())
}

/// The change of the word at `at` bytes into the SCTP packet, as a program makes it.
fn change(frame: &Frame, at: usize, to: u32) -> Change {
    Change {
        write_at: Some((frame.sctp.start + at) as u32),
        offset: frame.sctp.start as u32,
        len: (frame.sctp.len() - at) as u32,
        from: frame.word(at),
        to,
    }
}

/// `frame` with the word changed and the checksum in the same relation to the right one as
/// before.
fn with_word(frame: &Frame, at: usize, to: u32) -> Frame {
    let error = checksum::error(frame.sctp());
    let mut after = frame.clone();
    after.set_word(at, to);
    after.set_checksum(checksum::compute(after.sctp()) ^ error);
    after
}

/// Runs `changes` and insists that each succeeds and that `wanted` comes out.
fn expect(
    prog: &mut CsumProg<'_>,
    before: &Frame,
    linear: Option<usize>,
    changes: &[Change],
    wanted: &Frame,
) {
    let outcome = prog
        .run(&before.bytes, linear, changes)
        .expect("the kernel runs it");
    if outcome.results.iter().any(|result| *result != 0) || outcome.frame != wanted.bytes {
        fail(
            format!(
                "results {:?} for {changes:?}, linear {linear:?}\npackets are: before, after, wanted",
                outcome.results
            ),
            &[&before.bytes, &outcome.frame, &wanted.bytes],
        );
    }
}

/// Lengths of SCTP packets from 12 to 3,000 bytes: all up to 300, then in steps of a prime, so
/// that all residues by any small number occur; and the ends of the tables' digits.
fn short_lengths() -> impl Iterator<Item = usize> + Clone {
    (12..300)
        .chain((300..3000).step_by(61))
        .chain([511, 512, 513])
}

/// Likewise up to 9,000 bytes: more than a page, so that an skb lies in pieces.
fn long_lengths() -> impl Iterator<Item = usize> + Clone {
    (3000..9000)
        .step_by(61)
        .chain([4095, 4096, 4097, 8191, 8192, 8193, 9000])
}

/// Changes one port, the other, and both, of packets of these lengths in either family.
fn change_ports(prog: &mut CsumProg<'_>, lengths: impl Iterator<Item = usize> + Clone) {
    let (new_source, new_dest) = (13868, 40000);
    for (family, len) in families()
        .into_iter()
        .flat_map(|f| lengths.clone().map(move |l| (f, l)))
    {
        let before = spec(family, len).build().expect("it fits");
        let (source, dest) = (u32::from(family.0.port()), u32::from(family.1.port()));
        for ports in [
            new_source << 16 | dest,
            source << 16 | new_dest,
            new_source << 16 | new_dest,
        ] {
            let wanted = with_word(&before, PORTS, ports);
            expect(
                prog,
                &before,
                None,
                &[change(&before, PORTS, ports)],
                &wanted,
            );
        }
    }
}

/// Ends of the linear part: before, within and behind the SCTP common header.
fn splits(frame: &Frame) -> Vec<usize> {
    let start = frame.sctp.start;
    let ends = [
        start,
        start + 2,
        start + 8,
        start + 10,
        start + 12,
        start + 100,
    ];
    ends.into_iter()
        .filter(|end| *end < frame.bytes.len())
        .collect()
}

#[rstest]
fn ports_change_one_at_a_time_and_together(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        change_ports(prog, short_lengths());
    });
}

#[rstest]
fn ports_of_packets_longer_than_a_page_change(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog_for_pieces(hook, update, |prog| {
        change_ports(prog, long_lengths());
    });
}

#[rstest]
fn the_packet_may_lie_in_pieces(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog_for_pieces(hook, update, |prog| {
        for family in families() {
            for len in [12, 16, 50, 64, 1280, 1452, 4500, 9000] {
                let before = spec(family, len).build().expect("it fits");
                let wanted = with_word(&before, PORTS, 0xabcd_1234);
                let change = change(&before, PORTS, 0xabcd_1234);
                for split in splits(&before) {
                    expect(prog, &before, Some(split), &[change], &wanted);
                }
            }
        }
    });
}

#[rstest]
fn words_behind_the_ports_change_too(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        for family in families() {
            let before = spec(family, 300).build().expect("it fits");
            for at in [VTAG, 12, 16, 148, 292, 296] {
                let wanted = with_word(&before, at, 0x0102_0304);
                expect(
                    prog,
                    &before,
                    None,
                    &[change(&before, at, 0x0102_0304)],
                    &wanted,
                );
            }
        }
    });
}

#[rstest]
fn padding_does_not_count(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        for family in families() {
            // COOKIE ACK: 50 bytes over IPv4, padded to Ethernet's 60.
            let spec = Spec {
                min_len: 80,
                ..Spec::new(family.0, family.1, vec![11, 0, 0, 4])
            };
            for min_len in [60, 80] {
                let before = Spec {
                    min_len,
                    ..spec.clone()
                }
                .build()
                .expect("it fits");
                let wanted = with_word(&before, PORTS, 0x3c2c_1388);
                expect(
                    prog,
                    &before,
                    None,
                    &[change(&before, PORTS, 0x3c2c_1388)],
                    &wanted,
                );
            }
        }
    });
}

#[rstest]
fn a_wrong_checksum_stays_exactly_as_wrong(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        for family in families() {
            for error in [1, 0x8000_0000, 0xdead_beef] {
                let spec = Spec {
                    checksum: Stored::WrongBy(error),
                    ..spec(family, 200)
                };
                let before = spec.build().expect("it fits");
                let wanted = with_word(&before, PORTS, 0x3c2c_1388);
                assert_eq!(checksum::error(wanted.sctp()), error);
                expect(
                    prog,
                    &before,
                    None,
                    &[change(&before, PORTS, 0x3c2c_1388)],
                    &wanted,
                );
            }
        }
    });
}

#[rstest]
fn no_checksum_stays_no_checksum(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        for family in families() {
            let spec = Spec {
                checksum: Stored::Absent,
                ..spec(family, 200)
            };
            let before = spec.build().expect("it fits");
            let mut wanted = before.clone();
            wanted.set_word(PORTS, 0x3c2c_1388);
            expect(
                prog,
                &before,
                None,
                &[change(&before, PORTS, 0x3c2c_1388)],
                &wanted,
            );
        }
    });
}

/// Calls without a write: (offset, len) for a frame of `frame_len` bytes.
fn bad_arguments(start: u32, frame_len: u32) -> Vec<(&'static str, u32, u32)> {
    vec![
        ("no length", start, 0),
        ("less than a word", start, 3),
        ("more than the packet", start, frame_len - start + 1),
        ("more than IP can hold", start, 0x1_0000),
        ("any length", start, u32::MAX),
        ("half a header", frame_len - 11, 4),
        ("at the end", frame_len, 4),
        ("beyond the end", frame_len + 1, 4),
        ("far beyond the end", u32::MAX, 4),
        ("beyond a signed offset", 1 << 31, 12),
        ("a sum that wraps", u32::MAX - 15, 32),
    ]
}

#[rstest]
fn bad_arguments_get_einval_and_change_nothing(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        for family in families() {
            for len in [12, 200, 3000] {
                let frame = spec(family, len).build().expect("it fits");
                let arguments = bad_arguments(frame.sctp.start as u32, frame.bytes.len() as u32);
                for (what, offset, len) in arguments {
                    let call = Change {
                        write_at: None,
                        offset,
                        len,
                        from: 1,
                        to: 2,
                    };
                    let outcome = prog
                        .run(&frame.bytes, None, &[call])
                        .expect("the kernel runs it");
                    let wanted = Outcome {
                        frame: frame.bytes.clone(),
                        results: vec![-(Errno::EINVAL as i32)],
                    };
                    if outcome != wanted {
                        fail(
                            format!("{what}: {call:?} returned {:?}", outcome.results),
                            &[&frame.bytes, &outcome.frame],
                        );
                    }
                }
            }
        }
    });
}

#[rstest]
fn more_than_an_ip_packet_holds_is_a_bad_argument_too(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog_for_pieces(hook, update, |prog| {
        let spec = Spec {
            min_len: 66_000,
            ..spec(families()[0], 65_000)
        };
        let frame = spec.build().expect("it fits");
        let offset = frame.sctp.start as u32;
        let call = |len| Change {
            write_at: None,
            offset,
            len,
            from: 1,
            to: 1,
        };
        let outcome = prog.run(&frame.bytes, None, &[call(0xffff), call(0x1_0000)]);
        let wanted = Outcome {
            frame: frame.bytes,
            results: vec![0, -(Errno::EINVAL as i32)],
        };
        assert_eq!(outcome.expect("the kernel runs it"), wanted);
    });
}

/// A random frame and random changes of words anywhere in its SCTP packet but in the checksum.
fn random_case(rng: &mut SmallRng, len: usize) -> (Frame, Frame, Vec<Change>) {
    let mut chunks = vec![0; len - checksum::COMMON_HEADER_LEN];
    rng.fill_bytes(&mut chunks);
    let (source, dest) = families()[rng.random_range(0..2)];
    let stored = match rng.random_range(0..4) {
        0 => Stored::WrongBy(rng.random_range(1..=u32::MAX)),
        _ => Stored::Good,
    };
    let spec = Spec {
        checksum: stored,
        ..Spec::new(source, dest, chunks)
    };
    let before = spec.build().expect("it fits");

    let mut after = before.clone();
    let changes = (0..MAX_CHANGES)
        .map(|_| {
            let at = loop {
                let at = rng.random_range(0..len / 4) * 4;
                if at != checksum::CHECKSUM_OFFSET {
                    break at;
                }
            };
            let change = change(&after, at, rng.random());
            after = with_word(&after, at, change.to);
            change
        })
        .collect();
    (before, after, changes)
}

#[rstest]
fn incremental_equals_full_for_100_000_random_words(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
) {
    with_prog(hook, update, |prog| {
        let mut rng = SmallRng::seed_from_u64(0x5c79);
        for _ in 0..100_000usize.div_ceil(MAX_CHANGES) {
            let len = rng.random_range(12..=1500);
            let (before, after, changes) = random_case(&mut rng, len);
            expect(prog, &before, None, &changes, &after);
        }
    });
}
