// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Chunks of SCTP packets (RFC 9260 section 3), in bytes as on the wire.

use std::net::IpAddr;

/// Types of chunks, by their standard names.
pub const TYPES: [(&str, u8); 20] = [
    ("DATA", 0),
    ("INIT", 1),
    ("INIT-ACK", 2),
    ("SACK", 3),
    ("HEARTBEAT", 4),
    ("HEARTBEAT-ACK", 5),
    ("ABORT", 6),
    ("SHUTDOWN", 7),
    ("SHUTDOWN-ACK", 8),
    ("ERROR", 9),
    ("COOKIE-ECHO", 10),
    ("COOKIE-ACK", 11),
    ("ECNE", 12),
    ("CWR", 13),
    ("SHUTDOWN-COMPLETE", 14),
    ("AUTH", 15),
    ("I-DATA", 64),
    ("ASCONF-ACK", 128),
    ("FORWARD-TSN", 192),
    ("ASCONF", 193),
];

/// The T bit of ABORT and SHUTDOWN COMPLETE.
pub const T_BIT: u8 = 1;

/// The type of this name.
pub fn type_of(name: &str) -> Option<u8> {
    TYPES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// A chunk with its padding.
///
/// # Panics
/// If the value is longer than 65,531 bytes.
pub fn chunk(chunk_type: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("a chunk's length has 16 bits");
    let mut chunk = vec![chunk_type, flags];
    chunk.extend(len.to_be_bytes());
    chunk.extend(value);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// An INIT or INIT ACK with this initiate tag, and parameters in bytes as on the wire.
pub fn init(chunk_type: u8, tag: u32, parameters: &[u8]) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    // a_rwnd, outbound and inbound streams, initial TSN
    value.extend(65536u32.to_be_bytes());
    value.extend([0, 10, 0, 10]);
    value.extend(1u32.to_be_bytes());
    value.extend(parameters);
    chunk(chunk_type, 0, &value)
}

/// A DATA chunk with this payload.
pub fn data(payload: &[u8]) -> Vec<u8> {
    // TSN, stream, sequence, protocol
    let mut value = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    value.extend(payload);
    chunk(0, 3, &value)
}

/// The addresses that an SCTP packet names in its parameters, if it is an INIT or INIT ACK: those
/// of a list that is cut short, as far as it goes.
pub fn named_addresses(sctp: &[u8]) -> Vec<IpAddr> {
    let mut named = Vec::new();
    let Some([kind, _, high, low]) = sctp.get(12..16) else {
        return named;
    };
    if !matches!(kind, 1 | 2) {
        return named;
    }
    let end = 12 + usize::from(u16::from_be_bytes([*high, *low]));
    let mut rest = sctp.get(32..end.min(sctp.len())).unwrap_or_default();
    while let [kind_high, kind_low, high, low, ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).max(4);
        let value = rest.get(4..len).unwrap_or_default();
        match u16::from_be_bytes([*kind_high, *kind_low]) {
            5 => named.extend(<[u8; 4]>::try_from(value).map(IpAddr::from)),
            6 => named.extend(<[u8; 16]>::try_from(value).map(IpAddr::from)),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    named
}
