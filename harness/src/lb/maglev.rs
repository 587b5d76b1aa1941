// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Maglev hashing: which backend serves which hash of an association. All nodes make the same
//! table of the same backends, and a backend more or less moves few of the others' associations.
//!
//! D. E. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4.

use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// Primes just below the powers of two.
const SIZES: [u32; 10] = [
    251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071,
];

/// The paper's advice: a table this much larger than the number of backends loads them evenly.
const SLOTS_PER_BACKEND: usize = 100;

/// All nodes must hash alike, today's and tomorrow's: a change of these moves associations.
const KEYS: (u64, u64) = (0x7363_7470_2d6c_6221, 0x6d61_676c_6576_2121);

/// The size of the table for so many backends: a prime, and 100 slots for each backend while the
/// largest table has them.
pub fn table_size(nr_backends: usize) -> u32 {
    let wanted = nr_backends.saturating_mul(SLOTS_PER_BACKEND);
    let largest = SIZES[SIZES.len() - 1];
    SIZES
        .into_iter()
        .find(|size| *size as usize >= wanted)
        .unwrap_or(largest)
}

fn is_prime(number: u32) -> bool {
    let number = u64::from(number);
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number >= 2 && divisors.all(|divisor| number % divisor != 0)
}

/// The order in which a backend wants the table's slots.
struct Preferences {
    next: u64,
    skip: u64,
    size: u64,
}

impl Preferences {
    fn new(name: &[u8], size: u32) -> Self {
        let size = u64::from(size);
        let mut hasher = SipHasher24::new_with_keys(KEYS.0, KEYS.1);
        hasher.write(name);
        let hash = hasher.finish128();
        Self {
            next: hash.h1 % size,
            skip: hash.h2 % (size - 1) + 1,
            size,
        }
    }

    /// The slot that it wants most of those that it did not ask for yet.
    fn slot(&mut self) -> usize {
        let slot = self.next;
        self.next = (slot + self.skip) % self.size;
        slot as usize
    }
}

/// The table: by the hash of an association modulo `size`, an index into `names`, the names of
/// the backends. Their order does not matter. Without backends it is empty.
///
/// # Panics
/// If `size` is not a prime, which [`table_size`] returns.
pub fn table<N: AsRef<[u8]>>(names: &[N], size: u32) -> Vec<u32> {
    assert!(is_prime(size), "{size} slots: must be a prime");
    let mut backends: Vec<(&[u8], u32)> = names.iter().map(AsRef::as_ref).zip(0..).collect();
    backends.sort_unstable();
    // A name twice would get twice its share.
    backends.dedup_by_key(|(name, _)| *name);
    let mut backends: Vec<_> = backends
        .into_iter()
        .map(|(name, index)| (Preferences::new(name, size), index))
        .collect();

    let mut slots = vec![None; size as usize];
    let mut free = if backends.is_empty() { 0 } else { slots.len() };
    while free > 0 {
        for (preferences, index) in backends.iter_mut().take(free) {
            take_slot(&mut slots, preferences, *index);
            free -= 1;
        }
    }
    slots.into_iter().flatten().collect()
}

/// There must be a free slot. As the table's size is a prime, the preferences come to it.
fn take_slot(slots: &mut [Option<u32>], preferences: &mut Preferences, index: u32) {
    loop {
        let slot = &mut slots[preferences.slot()];
        if slot.is_none() {
            *slot = Some(index);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rstest::rstest;

    fn names(number: usize) -> Vec<String> {
        (0..number)
            .map(|i| format!("10.0.{}.{}:38412", i / 256, i % 256))
            .collect()
    }

    fn shares(table: &[u32], number: usize) -> Vec<usize> {
        let mut shares = vec![0; number];
        for index in table {
            shares[*index as usize] += 1;
        }
        shares
    }

    #[rstest]
    #[case(0, 251)]
    #[case(2, 251)]
    #[case(3, 509)]
    #[case(10, 1021)]
    #[case(655, 65521)]
    #[case(1310, 131_071)]
    #[case(100_000, 131_071)]
    #[case(usize::MAX, 131_071)]
    fn a_table_has_100_slots_for_each_backend(#[case] backends: usize, #[case] size: u32) {
        assert_eq!(table_size(backends), size);
    }

    #[test]
    fn all_sizes_are_primes() {
        assert!(SIZES.into_iter().all(is_prime));
        assert!([0, 1, 4, 65535].into_iter().all(|size| !is_prime(size)));
    }

    #[rstest]
    #[case(1)]
    #[case(2)]
    #[case(7)]
    #[case(100)]
    #[case(1000)]
    fn backends_get_equal_shares(#[case] number: usize) {
        let shares = shares(&table(&names(number), table_size(number)), number);
        let (min, max) = (shares.iter().min(), shares.iter().max());
        let (min, max) = (*min.expect("a share"), *max.expect("a share"));
        assert!(max - min <= 1, "{min} to {max}");
    }

    #[rstest]
    #[case(2)]
    #[case(3)]
    #[case(10)]
    #[case(100)]
    #[case(1000)]
    fn a_backend_that_goes_leaves_the_others_their_associations(#[case] number: usize) {
        let names = names(number);
        let size = table_size(number);
        let before = table(&names, size);
        for gone in [0, number / 2, number - 1] {
            let mut rest = names.clone();
            let gone_name = rest.remove(gone);
            let after = table(&rest, size);
            let slots = before.iter().zip(&after);
            let theirs: Vec<_> = slots
                .map(|(before, after)| (&names[*before as usize], &rest[*after as usize]))
                .filter(|(before, _)| **before != gone_name)
                .collect();
            let kept = theirs.iter().filter(|(b, a)| b == a).count();
            let percent = 100 * kept / theirs.len();
            assert!(percent >= 95, "{number} without {gone}: {percent} % kept");
        }
    }

    #[test]
    fn the_order_of_the_backends_does_not_matter() {
        let forth = names(20);
        let back: Vec<_> = forth.iter().rev().cloned().collect();
        let named = |names: &[String]| -> Vec<String> {
            let table = table(names, 2039);
            table.iter().map(|i| names[*i as usize].clone()).collect()
        };
        assert_eq!(named(&forth), named(&back));
    }

    #[test]
    fn a_backend_that_is_listed_twice_gets_one_share() {
        assert_eq!(shares(&table(&["a", "b", "a"], 251), 3)[2], 0);
    }

    #[test]
    fn tables_stay_the_same_from_release_to_release() {
        let table = table(&["a", "b", "c"], 251);
        assert_eq!(
            table[..16],
            [2, 0, 1, 1, 0, 0, 1, 1, 2, 0, 1, 2, 0, 0, 2, 2]
        );
    }

    #[test]
    fn without_backends_there_is_no_table() {
        assert!(table::<&str>(&[], 251).is_empty());
    }

    #[test]
    fn more_backends_than_slots_fill_the_table() {
        assert_eq!(table(&names(300), 251).len(), 251);
    }
}
