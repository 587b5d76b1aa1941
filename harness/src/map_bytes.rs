// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Structs of the BPF headers as the bytes of a map's key or value.

use std::net::{IpAddr, Ipv6Addr};

/// A struct of the BPF headers.
///
/// # Safety
/// The type consists of integers, without padding between or behind them.
pub(crate) unsafe trait MapBytes: Copy {
    /// The bytes, as the map has them.
    fn bytes(&self) -> &[u8] {
        // SAFETY: by the trait's promise all bytes are initialized, and they live as long as the
        // reference.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }

    /// The struct of these bytes; `None` if they are too few.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: there are enough bytes, and by the trait's promise any of them make a value.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

// SAFETY: an integer.
unsafe impl MapBytes for u8 {}
// SAFETY: an integer.
unsafe impl MapBytes for u32 {}
// SAFETY: an integer.
unsafe impl MapBytes for u64 {}

/// The words of `struct ip_addr` of `bpf/addr.h`.
pub(crate) fn words(addr: IpAddr) -> [u32; 4] {
    let octets = match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    };
    let mut words = [0; 4];
    for (word, octets) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
    }
    words
}

/// The address of these words.
pub(crate) fn addr(words: [u32; 4]) -> IpAddr {
    let mut octets = [0; 16];
    for (octets, word) in octets.chunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}
