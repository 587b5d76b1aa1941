// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What `apply` does with services and backends of several addresses.

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
