// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Compiles what an endpoint's policies allow for a longest-prefix-match map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::model::{Block, PolicyRule, PortRange};

/// IPv4 addresses are looked up as `::ffff:a.b.c.d`.
const MAPPED_PREFIX: u8 = 96;
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);

/// Where IPv4 is, among the IPv6 addresses.
fn mapped() -> Ipv6Net {
    Ipv6Net::new_assert(MAPPED, MAPPED_PREFIX)
}

/// `net` as a prefix of IPv6 addresses.
fn unified(net: IpNet) -> Ipv6Net {
    match net {
        IpNet::V4(net) => {
            let addr = net.network().to_ipv6_mapped();
            Ipv6Net::new_assert(addr, MAPPED_PREFIX + net.prefix_len())
        }
        IpNet::V6(net) => net.trunc(),
    }
}

/// Whether `net` has addresses. No packet has an IPv6 address that is an IPv4 one.
fn is_real(net: IpNet) -> bool {
    matches!(net, IpNet::V4(_)) || !mapped().contains(&unified(net))
}

fn same_family(a: IpNet, b: IpNet) -> bool {
    matches!(
        (a, b),
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
    )
}

/// What changes at a prefix, by the numbers of the blocks.
#[derive(Default)]
struct Boundary {
    begins: Vec<usize>,
    excepts: Vec<usize>,
}

/// A block, and the ports of its rule.
struct Allowed<'a> {
    block: &'a Block,
    ports: &'a [PortRange],
}

fn blocks(rules: &[PolicyRule]) -> Vec<Allowed<'_>> {
    let all = rules.iter().flat_map(|rule| {
        let ports = rule.ports.as_slice();
        rule.peers.iter().map(move |block| Allowed { block, ports })
    });
    all.filter(|allowed| is_real(allowed.block.net)).collect()
}

/// The prefixes at which something changes, each before those that are part of it.
fn boundaries(blocks: &[Allowed<'_>]) -> BTreeMap<Ipv6Net, Boundary> {
    let mut boundaries: BTreeMap<_, Boundary> = BTreeMap::new();
    for (number, Allowed { block, .. }) in blocks.iter().enumerate() {
        let net = unified(block.net);
        let excepts = block.except.iter();
        let excepts = excepts.filter(|except| same_family(**except, block.net));
        let excepts: Vec<_> = excepts.map(|except| unified(*except)).collect();
        if excepts.iter().any(|except| except.contains(&net)) {
            continue;
        }
        boundaries.entry(net).or_default().begins.push(number);
        for except in excepts {
            boundaries.entry(except).or_default().excepts.push(number);
        }
        if net.contains(&mapped()) && matches!(block.net, IpNet::V6(_)) {
            boundaries.entry(mapped()).or_default();
        }
    }
    boundaries
}

/// Sorted, and ranges that touch made one.
fn merge(ranges: impl Iterator<Item = PortRange>) -> Vec<PortRange> {
    let mut ranges: Vec<_> = ranges.filter(|range| range.first <= range.last).collect();
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What holds for a prefix but for longer ones.
struct State {
    net: Ipv6Net,
    allowed: BTreeSet<usize>,
    ports: Vec<PortRange>,
}

/// The ports that `rules` together allow, by the longest prefix of the other end's address; an
/// address without any is allowed nothing. IPv4 addresses are IPv6 ones here, `::ffff:a.b.c.d`.
pub fn compile(rules: &[PolicyRule]) -> BTreeMap<Ipv6Net, Vec<PortRange>> {
    let blocks = blocks(rules);
    let mut entries = BTreeMap::new();
    // Prefixes that cover the one that is looked at, the longest last.
    let mut covering: Vec<State> = Vec::new();
    for (net, boundary) in boundaries(&blocks) {
        while covering.last().is_some_and(|last| !last.net.contains(&net)) {
            covering.pop();
        }
        let mut allowed = match covering.last() {
            // What covers all of IPv4 is IPv6, and no rule for it.
            Some(last) if net != mapped() => last.allowed.clone(),
            _ => BTreeSet::new(),
        };
        allowed.extend(boundary.begins);
        for number in boundary.excepts {
            allowed.remove(&number);
        }
        let ports = merge(allowed.iter().flat_map(|i| blocks[*i].ports).copied());
        if ports != covering.last().map_or(&[][..], |last| &last.ports) {
            entries.insert(net, ports.clone());
        }
        covering.push(State {
            net,
            allowed,
            ports,
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{IpAddr, Ipv4Addr};

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use rstest::rstest;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn block(text: &str, except: &[&str]) -> Block {
        Block {
            net: net(text),
            except: except.iter().map(|text| net(text)).collect(),
        }
    }

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    fn rule(peers: Vec<Block>, ports: &[(u16, u16)]) -> PolicyRule {
        let ports = ports.iter().map(|(first, last)| range(*first, *last));
        PolicyRule {
            peers,
            ports: ports.collect(),
        }
    }

    fn entries(rules: &[PolicyRule]) -> Vec<(String, Vec<PortRange>)> {
        let entries = compile(rules).into_iter();
        entries
            .map(|(net, ports)| (net.to_string(), ports))
            .collect()
    }

    /// What the datapath looks up.
    fn lookup(entries: &BTreeMap<Ipv6Net, Vec<PortRange>>, addr: IpAddr) -> Vec<PortRange> {
        let addr = match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        let matching = entries.iter().filter(|(net, _)| net.contains(&addr));
        let longest = matching.max_by_key(|(net, _)| net.prefix_len());
        longest.map(|(_, ports)| ports.clone()).unwrap_or_default()
    }

    /// What the rules say, without compiling them.
    fn naive(rules: &[PolicyRule], addr: IpAddr) -> Vec<PortRange> {
        let matches = |block: &Block| {
            block.net.contains(&addr) && !block.except.iter().any(|except| except.contains(&addr))
        };
        let matching = rules.iter().filter(|rule| rule.peers.iter().any(matches));
        merge(matching.flat_map(|rule| &rule.ports).copied())
    }

    #[test]
    fn no_rule_allows_nothing() {
        assert!(compile(&[]).is_empty());
        assert!(compile(&[rule(vec![], &[(0, 65535)])]).is_empty());
        assert!(compile(&[rule(vec![block("10.0.0.0/8", &[])], &[])]).is_empty());
    }

    #[test]
    fn everybody_of_ipv6_is_nobody_of_ipv4() {
        let all = range(0, 65535);
        assert_eq!(
            entries(&[rule(vec![block("::/0", &[])], &[(0, 65535)])]),
            [
                ("::/0".to_string(), vec![all]),
                ("::ffff:0.0.0.0/96".to_string(), vec![])
            ]
        );
    }

    #[test]
    fn everybody_is_one_entry() {
        let everybody = vec![block("0.0.0.0/0", &[]), block("::/0", &[])];
        assert_eq!(
            entries(&[rule(everybody, &[(7, 9)])]),
            [("::/0".to_string(), vec![range(7, 9)])]
        );
    }

    #[test]
    fn an_exception_is_open_to_other_rules() {
        let rules = [
            rule(vec![block("10.0.0.0/8", &["10.1.0.0/16"])], &[(1, 5)]),
            rule(vec![block("10.1.2.0/24", &[])], &[(6, 9)]),
        ];
        assert_eq!(
            entries(&rules),
            [
                ("::ffff:10.0.0.0/104".to_string(), vec![range(1, 5)]),
                ("::ffff:10.1.0.0/112".to_string(), vec![]),
                ("::ffff:10.1.2.0/120".to_string(), vec![range(6, 9)]),
            ]
        );
    }

    #[test]
    fn an_entry_that_says_what_its_cover_says_is_left_out() {
        let rules = [
            rule(vec![block("10.0.0.0/8", &[])], &[(1, 9)]),
            rule(vec![block("10.1.0.0/16", &[])], &[(2, 3)]),
        ];
        assert_eq!(compile(&rules).len(), 1);
    }

    #[rstest]
    #[case(&[(1, 2), (3, 4)], &[(1, 4)])]
    #[case(&[(3, 4), (1, 3)], &[(1, 4)])]
    #[case(&[(1, 9), (2, 3)], &[(1, 9)])]
    #[case(&[(1, 2), (4, 5)], &[(1, 2), (4, 5)])]
    #[case(&[(65535, 65535), (0, 65534)], &[(0, 65535)])]
    #[case(&[(0, 65535), (65535, 65535)], &[(0, 65535)])]
    #[case(&[(5, 4)], &[])]
    fn ranges_that_touch_are_one(#[case] given: &[(u16, u16)], #[case] merged: &[(u16, u16)]) {
        let ranges = |pairs: &[(u16, u16)]| -> Vec<_> {
            pairs
                .iter()
                .map(|(first, last)| range(*first, *last))
                .collect()
        };
        assert_eq!(merge(ranges(given).into_iter()), ranges(merged));
    }

    #[rstest]
    #[case(block("::ffff:0:0/96", &[]))]
    #[case(block("::ffff:10.0.0.0/104", &[]))]
    #[case(block("10.0.0.0/8", &["10.0.0.0/8"]))]
    #[case(block("10.0.0.0/8", &["10.0.0.0/7"]))]
    fn a_block_without_addresses_allows_nothing(#[case] nobody: Block) {
        assert!(compile(&[rule(vec![nobody], &[(0, 65535)])]).is_empty());
    }

    /// Few bits vary, so that prefixes nest and meet, around what is special too.
    fn random_net(rng: &mut SmallRng) -> IpNet {
        if rng.random() {
            let addr = Ipv4Addr::from_bits(u32::from(rng.random::<u8>() & 0x93) << 24);
            let low = Ipv4Addr::from_bits(addr.to_bits() | u32::from(rng.random::<u8>() & 0x83));
            let len = [0, 1, 4, 7, 8, 24, 25, 31, 32][rng.random_range(0..9)];
            return ipnet::Ipv4Net::new_assert(low, len).trunc().into();
        }
        let special = [0, 0xffff_0000_0000, 0xfffe_0000_0000, 0xfd00 << 112];
        let addr: u128 = special[rng.random_range(0..4)] | u128::from(rng.random::<u8>() & 0x83);
        let len = [0, 1, 8, 80, 94, 95, 96, 97, 120, 127, 128][rng.random_range(0..11)];
        Ipv6Net::new_assert(Ipv6Addr::from_bits(addr), len)
            .trunc()
            .into()
    }

    fn random_block(rng: &mut SmallRng) -> Block {
        let net = random_net(rng);
        let excepts = (0..rng.random_range(0..4)).map(|_| random_net(rng));
        Block {
            net,
            except: excepts.filter(|except| same_family(net, *except)).collect(),
        }
    }

    fn random_rule(rng: &mut SmallRng) -> PolicyRule {
        let peers = (0..rng.random_range(0..4))
            .map(|_| random_block(rng))
            .collect();
        let ports = (0..rng.random_range(0..3)).map(|_| {
            let first = rng.random_range(0..20);
            range(first, first + rng.random_range(0..5))
        });
        PolicyRule {
            peers,
            ports: ports.collect(),
        }
    }

    /// Addresses at the ends of `net`, and just outside.
    fn edges(net: IpNet) -> Vec<IpAddr> {
        match net {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                    .map(|bits| Ipv4Addr::from_bits(bits).into())
                    .to_vec()
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                    .map(Ipv6Addr::from_bits)
                    .into_iter()
                    .filter(|addr| addr.to_ipv4_mapped().is_none())
                    .map(IpAddr::from)
                    .collect()
            }
        }
    }

    #[test]
    fn addresses_at_the_boundaries_are_allowed_what_the_rules_say() {
        let mut rng = SmallRng::seed_from_u64(132);
        let mut addrs = 0;
        for _ in 0..2000 {
            let rules: Vec<_> = (0..rng.random_range(0..5))
                .map(|_| random_rule(&mut rng))
                .collect();
            let entries = compile(&rules);
            let blocks = rules.iter().flat_map(|rule| &rule.peers);
            let nets = blocks.flat_map(|block| block.except.iter().chain([&block.net]));
            for addr in nets.flat_map(|net| edges(*net)) {
                assert_eq!(
                    lookup(&entries, addr),
                    naive(&rules, addr),
                    "{addr} of {rules:#?}"
                );
                addrs += 1;
            }
        }
        assert!(addrs > 10_000, "{addrs}");
    }

    #[test]
    fn each_entry_differs_from_the_one_that_covers_it() {
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..500 {
            let rules: Vec<_> = (0..4).map(|_| random_rule(&mut rng)).collect();
            let mut rest = compile(&rules);
            while let Some((net, ports)) = rest.pop_last() {
                let covers = rest.iter().filter(|(cover, _)| cover.contains(&net));
                let cover = covers.max_by_key(|(cover, _)| cover.prefix_len());
                assert_ne!(
                    ports,
                    cover.map(|(_, ports)| ports.clone()).unwrap_or_default()
                );
            }
        }
    }
}
