// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Packets that are not whole.

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
