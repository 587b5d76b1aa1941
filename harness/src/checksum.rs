// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The SCTP checksum by the `crc32c` crate, which knows nothing of the kernel: what every
//! packet here is judged by.

/// Offset of the checksum field in the SCTP common header (RFC 9260 section 3.1), in bytes.
pub const CHECKSUM_OFFSET: usize = 8;
/// Length of the SCTP common header, in bytes.
pub const COMMON_HEADER_LEN: usize = 12;

/// What the checksum field of an SCTP packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The CRC-32C of the packet.
    Good,
    /// Zero: no checksum (RFC 9653), or not filled in yet.
    Absent,
    /// Anything else.
    Bad,
}

/// The checksum field of `packet`, an SCTP packet of at least 12 bytes, as a CRC-32C value.
///
/// # Panics
/// If the packet is shorter than the common header.
pub fn stored(packet: &[u8]) -> u32 {
    let field = &packet[CHECKSUM_OFFSET..COMMON_HEADER_LEN];
    u32::from_le_bytes([field[0], field[1], field[2], field[3]])
}

/// The CRC-32C that belongs into the checksum field of `packet` (RFC 9260 appendix A).
///
/// # Panics
/// If the packet is shorter than the common header.
pub fn compute(packet: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&packet[..CHECKSUM_OFFSET]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &packet[COMMON_HEADER_LEN..])
}

/// How the stored checksum of `packet` differs from the right one: zero if it is right.
///
/// # Panics
/// If the packet is shorter than the common header.
pub fn error(packet: &[u8]) -> u32 {
    stored(packet) ^ compute(packet)
}

/// Judges the checksum of `packet`.
///
/// # Panics
/// If the packet is shorter than the common header.
pub fn verdict(packet: &[u8]) -> Verdict {
    if error(packet) == 0 {
        Verdict::Good
    } else if stored(packet) == 0 {
        Verdict::Absent
    } else {
        Verdict::Bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C bit by bit, from the definition.
    fn bitwise(data: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in data {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn equals_the_bitwise_definition_with_the_field_as_zero() {
        let packet: Vec<u8> = (0..77u8).map(|i| i.wrapping_mul(37)).collect();
        let mut zeroed = packet.clone();
        zeroed[8..12].fill(0);
        assert_eq!(compute(&packet), bitwise(&zeroed));
    }

    #[test]
    fn a_flipped_bit_is_bad_and_a_zero_field_is_absent() {
        let mut packet = vec![7u8; 40];
        let crc = compute(&packet);
        packet[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(verdict(&packet), Verdict::Good);
        packet[20] ^= 1;
        assert_eq!(verdict(&packet), Verdict::Bad);
        packet[8..12].fill(0);
        assert_eq!(verdict(&packet), Verdict::Absent);
    }
}
