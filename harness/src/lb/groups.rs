// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Frontends that are the addresses (VIPs) of one multihomed service, and the numbers by which
//! programs find the others of one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::maps::{Maps, addr_list, endpoint_addr};
use super::model::Frontend;
use super::sync::Numbers;
use crate::error::Result;

/// The groups of a service's frontends, each in its order.
pub(super) fn groups(frontends: &BTreeMap<SocketAddr, Frontend>) -> Vec<Vec<SocketAddr>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (addr, frontend) in frontends {
        let alike = (frontend.reach, addr.port(), frontend.masquerade);
        let group = groups.entry(alike).or_default();
        group.push((frontend.order, *addr));
    }
    let sorted = groups.into_values().map(|mut group| {
        group.sort_unstable();
        group.into_iter().map(|(_, addr)| addr).collect()
    });
    sorted.collect()
}

/// Finds numbers for groups: those that they have, and new ones for new ones.
pub(super) struct GroupPlan {
    /// By frontend.
    current: HashMap<SocketAddr, u32>,
    taken: HashSet<u32>,
    free: Numbers,
    /// The VIPs of each group.
    lists: Vec<(u32, addr_list)>,
}

impl GroupPlan {
    pub(super) fn read(maps: &Maps) -> Result<Self> {
        let frontends = maps.services.entries()?.into_iter();
        let frontends = frontends.map(|(key, service)| (endpoint_addr(&key), service.group));
        // A process that did not come to its end may have left groups that no frontend is in.
        let listed = maps.vips.entries()?.into_iter().map(|(number, _)| number);
        Ok(Self::new(frontends.collect(), listed))
    }

    fn new(current: HashMap<SocketAddr, u32>, listed: impl IntoIterator<Item = u32>) -> Self {
        let free = Numbers::new(current.values().copied().chain(listed));
        Self {
            current,
            taken: HashSet::new(),
            free,
            lists: Vec::new(),
        }
    }

    /// The number of the group of each of these frontends, which are of `service`.
    pub(super) fn add(
        &mut self,
        service: &str,
        frontends: &BTreeMap<SocketAddr, Frontend>,
    ) -> Result<HashMap<SocketAddr, u32>> {
        let mut numbers = HashMap::new();
        for group in groups(frontends) {
            let vips: Vec<IpAddr> = group.iter().map(SocketAddr::ip).collect();
            let list = addr_list::new(&vips, || format!("the service {service}"))?;
            let number = self.number(&group);
            self.lists.push((number, list));
            numbers.extend(group.into_iter().map(|frontend| (frontend, number)));
        }
        Ok(numbers)
    }

    /// The number that a frontend of the group has now, if no other group has taken it.
    fn number(&mut self, group: &[SocketAddr]) -> u32 {
        let mut current = group.iter().filter_map(|addr| self.current.get(addr));
        let kept = current.find(|number| **number != 0 && !self.taken.contains(number));
        let number = kept.copied().unwrap_or_else(|| self.free.take());
        self.taken.insert(number);
        number
    }

    pub(super) fn into_lists(self) -> Vec<(u32, addr_list)> {
        self.lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::model::Reach;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn frontend(reach: Reach, order: usize, masquerade: bool) -> Frontend {
        Frontend {
            masquerade,
            reach,
            order,
        }
    }

    fn cluster(addrs: &[&str]) -> BTreeMap<SocketAddr, Frontend> {
        let addrs = addrs.iter().enumerate();
        addrs
            .map(|(order, text)| (addr(text), frontend(Reach::Cluster, order, false)))
            .collect()
    }

    #[test]
    fn frontends_that_are_alike_are_one_group_in_the_order_in_which_they_are_written() {
        let frontends = [
            ("10.0.0.1:1", frontend(Reach::Cluster, 2, false)),
            ("10.0.0.2:1", frontend(Reach::Cluster, 0, false)),
            ("[fd00::1]:1", frontend(Reach::Cluster, 1, false)),
            ("10.0.0.3:2", frontend(Reach::Cluster, 3, false)),
            ("10.0.0.4:1", frontend(Reach::External, 0, false)),
            ("10.0.0.5:1", frontend(Reach::External, 1, true)),
            ("10.0.0.6:1", frontend(Reach::Node, 0, false)),
        ];
        let frontends = frontends.map(|(text, frontend)| (addr(text), frontend));
        let found = groups(&frontends.into());
        let text = |group: &Vec<SocketAddr>| {
            let addrs: Vec<_> = group.iter().map(SocketAddr::to_string).collect();
            addrs.join(" ")
        };
        let found: Vec<_> = found.iter().map(text).collect();
        assert_eq!(
            found,
            [
                "10.0.0.2:1 [fd00::1]:1 10.0.0.1:1",
                "10.0.0.3:2",
                "10.0.0.4:1",
                "10.0.0.5:1",
                "10.0.0.6:1",
            ]
        );
    }

    #[test]
    fn groups_keep_their_numbers_and_new_ones_get_numbers_that_nobody_has() {
        let current = [("10.0.0.1:1", 1), ("10.0.0.2:1", 1), ("10.0.0.3:1", 4)];
        let current = current.map(|(text, number)| (addr(text), number));
        // Nobody is in group 2.
        let mut plan = GroupPlan::new(current.into(), [1, 2, 4]);
        let mut add = |addrs: &[&str]| {
            let mut numbers = plan.add("a", &cluster(addrs)).expect("few").into_values();
            let number = numbers.next().expect("a group");
            assert!(numbers.all(|other| other == number));
            number
        };
        assert_eq!(add(&["10.0.0.9:1", "10.0.0.2:1"]), 1);
        // Its number is with the one that it was in a group with.
        assert_eq!(add(&["10.0.0.1:1"]), 3);
        assert_eq!(add(&["10.0.0.1:1", "10.0.0.3:1"]), 4);
        assert_eq!(add(&["10.0.0.8:1"]), 5);
    }

    #[test]
    fn more_addresses_than_programs_keep_are_an_error_that_names_the_service() {
        let addrs: Vec<_> = (1..10).map(|nr| format!("10.0.0.{nr}:1")).collect();
        let addrs: Vec<_> = addrs.iter().map(String::as_str).collect();
        let mut plan = GroupPlan::new(HashMap::new(), []);
        assert!(plan.add("amf", &cluster(&addrs[1..])).is_ok());
        let error = plan.add("amf", &cluster(&addrs)).expect_err("too many");
        let wanted = "9 addresses of the service amf, but there can be 8 at most";
        assert_eq!(error.to_string(), wanted);
    }
}
