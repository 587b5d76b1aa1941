// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The paths of an association, as `bpf/paths.h` has them follow from its addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::record::Addrs;
use crate::lb::conntrack::{DIR_ORIGINAL, DIR_REPLY, Tuple};

/// What packets between two addresses become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) from: Tuple,
    pub(super) to: Tuple,
    pub(super) dir: u8,
    /// Several there have one back.
    pub(super) shared: bool,
}

impl Route {
    /// Who associates with whom, for policies.
    pub(super) fn peers(&self) -> (IpAddr, IpAddr) {
        match self.dir {
            DIR_ORIGINAL => (self.from.source.ip(), self.to.dest.ip()),
            _ => (self.to.dest.ip(), self.from.source.ip()),
        }
    }
}

pub(super) fn reverse(tuple: &Tuple) -> Tuple {
    Tuple {
        source: tuple.dest,
        dest: tuple.source,
    }
}

fn with_ips(tuple: &Tuple, source: IpAddr, dest: IpAddr) -> Tuple {
    Tuple {
        source: SocketAddr::new(source, tuple.source.port()),
        dest: SocketAddr::new(dest, tuple.dest.port()),
    }
}

/// The addresses of one family, with their places in the list.
fn family(list: &[IpAddr], ipv4: bool) -> Vec<(usize, IpAddr)> {
    let all = list.iter().copied().enumerate();
    all.filter(|(_, addr)| addr.is_ipv4() == ipv4).collect()
}

/// The one of these, counted round again if there are fewer, that the address at `index` of the
/// other list leads to, by its rank in `ranks`.
fn counterpart(
    list: &[(usize, IpAddr)],
    ranks: &[(usize, IpAddr)],
    index: usize,
) -> Option<IpAddr> {
    let rank = ranks.iter().filter(|(place, _)| *place < index).count();
    let place = rank.checked_rem(list.len())?;
    list.get(place).map(|(_, addr)| *addr)
}

/// An association's first pair of addresses, and all of them.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) original: Tuple,
    pub(super) translated: Tuple,
    pub(super) addrs: Addrs,
}

impl Shape {
    pub(super) fn new(original: Tuple, translated: Tuple, addrs: Option<Addrs>) -> Self {
        Self {
            addrs: addrs.unwrap_or_else(|| Addrs::single(&original, &translated)),
            original,
            translated,
        }
    }

    fn vips(&self, ipv4: bool) -> Vec<(usize, IpAddr)> {
        family(&self.addrs.vip, ipv4)
    }

    /// Those that the backend uses.
    fn backends(&self, ipv4: bool) -> Vec<(usize, IpAddr)> {
        let mut all = family(&self.addrs.backend, ipv4);
        all.retain(|(place, _)| self.addrs.available >> place & 1 != 0);
        all
    }

    /// What backends see for a client's address; `None`: it has no path in this family.
    fn source_of(&self, client: IpAddr) -> Option<IpAddr> {
        match self.addrs.source {
            None => Some(client),
            Some(own) => own[usize::from(client.is_ipv6())],
        }
    }

    /// Whether packets between several pairs of addresses come back as between one.
    fn is_shared(&self, ipv4: bool) -> bool {
        let clients = family(&self.addrs.client, ipv4).len();
        self.vips(ipv4).len() > self.backends(ipv4).len()
            || (self.addrs.source.is_some() && clients > 1)
    }

    fn route_there(&self, client: IpAddr, vip: usize) -> Option<Route> {
        let addr = self.addrs.vip[vip];
        let ipv4 = addr.is_ipv4();
        if client.is_ipv4() != ipv4 {
            return None;
        }
        let backend = counterpart(&self.backends(ipv4), &self.vips(ipv4), vip)?;
        Some(Route {
            from: with_ips(&self.original, client, addr),
            to: with_ips(&self.translated, self.source_of(client)?, backend),
            dir: DIR_ORIGINAL,
            shared: self.is_shared(ipv4),
        })
    }

    fn route_back(&self, client: IpAddr, backend: usize) -> Option<Route> {
        let addr = self.addrs.backend[backend];
        let ipv4 = addr.is_ipv4();
        if client.is_ipv4() != ipv4 {
            return None;
        }
        let vip = counterpart(&self.vips(ipv4), &self.backends(ipv4), backend)?;
        Some(Route {
            from: with_ips(&reverse(&self.translated), addr, self.source_of(client)?),
            to: with_ips(&reverse(&self.original), vip, client),
            dir: DIR_REPLY,
            shared: self.is_shared(ipv4),
        })
    }

    /// All paths, those back first: who finds one there finds its replies' as well. Where several
    /// clients' are one back, it is the first that counts, which is the one that opened it.
    pub(super) fn routes(&self) -> Vec<Route> {
        let mut seen = BTreeSet::new();
        let back = self.addrs.client.iter().flat_map(|client| {
            let backends = 0..self.addrs.backend.len();
            backends.filter_map(|backend| self.route_back(*client, backend))
        });
        let there = self.addrs.client.iter().flat_map(|client| {
            let vips = 0..self.addrs.vip.len();
            vips.filter_map(|vip| self.route_there(*client, vip))
        });
        back.chain(there)
            .filter(|route| seen.insert(route.from))
            .collect()
    }

    /// All tuples that may lead to the association, whatever the backend uses.
    pub(super) fn tuples(&self) -> BTreeSet<Tuple> {
        let mut tuples = BTreeSet::from([self.original, reverse(&self.translated)]);
        let answer = reverse(&self.translated);
        for client in &self.addrs.client {
            let vips = self.addrs.vip.iter();
            tuples.extend(vips.map(|vip| with_ips(&self.original, *client, *vip)));
            if let Some(source) = self.source_of(*client) {
                let backends = self.addrs.backend.iter();
                tuples.extend(backends.map(|backend| with_ips(&answer, *backend, source)));
            }
        }
        tuples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rstest::rstest;

    /// `c1`: 10.1.0.1, `C1`: the same in IPv6, and so on, as in `tests/packets/multihoming.yaml`.
    fn ip(name: &str) -> IpAddr {
        let net = "_cvbn".find(&name[..1].to_lowercase()).expect("whose");
        let nr: u16 = name[1..].parse().expect("a number");
        if name.starts_with(char::is_lowercase) {
            IpAddr::from([10, net as u8, 0, nr as u8])
        } else {
            IpAddr::from([0x2001, 0xdb8, net as u16, 0, 0, 0, 0, nr])
        }
    }

    fn name(addr: SocketAddr) -> String {
        let names = ["c", "v", "b", "n", "C", "V", "B", "N"];
        let all = names
            .iter()
            .flat_map(|n| (1..9).map(move |nr| format!("{n}{nr}")));
        let mut all = all.filter(|name| ip(name) == addr.ip());
        all.next().expect("a name")
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(ip).collect()
    }

    fn text(route: &Route) -> String {
        let [a, b, c, d] = [
            route.from.source,
            route.from.dest,
            route.to.source,
            route.to.dest,
        ];
        let ports = [a, b, c, d].map(|addr| addr.port());
        let wanted = match route.dir {
            DIR_ORIGINAL => [1, 2, 3, 4],
            _ => [4, 3, 2, 1],
        };
        assert_eq!(ports, wanted);
        let mark = if route.shared { "*" } else { "" };
        format!("{}>{}={}>{}{mark}", name(a), name(b), name(c), name(d))
    }

    #[rstest]
    #[case::pairs(
        "c1 c2",
        "v1 v2",
        "b1 b2",
        0xff,
        "",
        "b1>c1=v1>c1 b2>c1=v2>c1 b1>c2=v1>c2 b2>c2=v2>c2 \
         c1>v1=c1>b1 c1>v2=c1>b2 c2>v1=c2>b1 c2>v2=c2>b2"
    )]
    #[case::one("c1", "v1", "b1", 0xff, "", "b1>c1=v1>c1 c1>v1=c1>b1")]
    #[case::ranks_are_within_a_family(
        "c1 C1",
        "V1 v1 V2",
        "b1 B1 B2",
        0xff,
        "",
        "b1>c1=v1>c1 B1>C1=V1>C1 B2>C1=V2>C1 c1>v1=c1>b1 C1>V1=C1>B1 C1>V2=C1>B2"
    )]
    #[case::fewer_backends_share(
        "c1",
        "v1 v2 v3",
        "b1 b2",
        0xff,
        "",
        "b1>c1=v1>c1* b2>c1=v2>c1* c1>v1=c1>b1* c1>v2=c1>b2* c1>v3=c1>b1*"
    )]
    #[case::more_backends_do_not(
        "c1",
        "v1",
        "b1 b2",
        0xff,
        "",
        "b1>c1=v1>c1 b2>c1=v1>c1 c1>v1=c1>b1"
    )]
    #[case::only_used_ones(
        "c1",
        "v1 v2",
        "b1 b2 b3",
        0b110,
        "",
        "b1>c1=v1>c1 b2>c1=v1>c1 b3>c1=v2>c1 c1>v1=c1>b2 c1>v2=c1>b3"
    )]
    #[case::a_family_that_the_backend_does_not_use(
        "c1 C1",
        "v1 V1",
        "b1 B1",
        0b01,
        "",
        "b1>c1=v1>c1 B1>C1=V1>C1* c1>v1=c1>b1"
    )]
    #[case::masquerade(
        "c1 c2 C1",
        "v1 V1",
        "b1 B1",
        0xff,
        "n1",
        "b1>n1=v1>c1* c1>v1=n1>b1* c2>v1=n1>b1*"
    )]
    fn addresses_pair_as_in_the_datapath(
        #[case] client: &str,
        #[case] vip: &str,
        #[case] backend: &str,
        #[case] available: u32,
        #[case] source: &str,
        #[case] wanted: &str,
    ) {
        let addrs = Addrs {
            client: ips(client),
            vip: ips(vip),
            backend: ips(backend),
            available,
            source: ips(source).first().map(|source| [Some(*source), None]),
        };
        let tuple = |source: u16, dest: u16| Tuple {
            source: SocketAddr::new(ip("c1"), source),
            dest: SocketAddr::new(ip("v1"), dest),
        };
        let shape = Shape::new(tuple(1, 2), tuple(3, 4), Some(addrs));
        let routes = shape.routes();
        let texts: Vec<_> = routes.iter().map(text).collect();
        assert_eq!(texts.join(" "), wanted);
        let tuples = shape.tuples();
        assert!(routes.iter().all(|route| tuples.contains(&route.from)));
    }

    #[test]
    fn without_a_list_there_is_the_first_pair() {
        let tuple = |source: &str, dest: &str, ports: [u16; 2]| Tuple {
            source: SocketAddr::new(ip(source), ports[0]),
            dest: SocketAddr::new(ip(dest), ports[1]),
        };
        let original = tuple("C1", "V1", [1, 2]);
        for (source, wanted) in [
            ("C1", "B1>C1=V1>C1 C1>V1=C1>B1"),
            ("N1", "B1>N1=V1>C1 C1>V1=N1>B1"),
        ] {
            let shape = Shape::new(original, tuple(source, "B1", [3, 4]), None);
            let texts: Vec<_> = shape.routes().iter().map(text).collect();
            assert_eq!(texts.join(" "), wanted);
            assert_eq!(shape.tuples().len(), 2);
        }
    }
}
