// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! SCTP packets in Ethernet frames: built from a description, and found in captured bytes. The
//! layers below SCTP are etherparse's.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6Header, Ipv6RawExtHeader, PacketBuilder, SingleVlanHeader, SlicedPacket, VlanId, icmpv4,
};

use crate::checksum::{self, CHECKSUM_OFFSET, COMMON_HEADER_LEN};
use crate::error::{Error, Result};

/// What to store in the checksum field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The right checksum.
    Good,
    /// The right checksum XOR this, which must not be zero.
    WrongBy(u32),
    /// Zero.
    Absent,
}

/// Description of a frame.
#[derive(Debug, Clone)]
pub struct Spec {
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port, of the same family.
    pub dest: SocketAddr,
    /// Verification tag.
    pub vtag: u32,
    /// What follows the fixed IP header: IPv4 options (a multiple of 4 bytes), or the contents of
    /// an IPv6 destination options header (6 bytes, or that plus a multiple of 8).
    pub ip_extra: Vec<u8>,
    /// What follows the SCTP common header, in bytes as on the wire.
    pub chunks: Vec<u8>,
    /// What to store in the checksum field.
    pub checksum: Stored,
    /// Shortest length of the frame in bytes; zero bytes pad it behind the IP packet.
    pub min_len: usize,
}

impl Spec {
    /// A frame from `source` to `dest` without VLAN tags, IP options and padding, and with the
    /// right checksum.
    pub fn new(source: SocketAddr, dest: SocketAddr, chunks: Vec<u8>) -> Self {
        Self {
            vlans: Vec::new(),
            source,
            dest,
            vtag: 0x1234_5678,
            ip_extra: Vec::new(),
            chunks,
            checksum: Stored::Good,
            min_len: 0,
        }
    }

    /// Builds the frame.
    ///
    /// # Errors
    /// If the addresses are of two families, or something does not fit its field.
    pub fn build(&self) -> Result<Frame> {
        let sctp = self.sctp();
        let (ether_type, ip) = match (self.source.ip(), self.dest.ip()) {
            (IpAddr::V4(source), IpAddr::V4(dest)) => (
                EtherType::IPV4,
                self.ipv4(source.octets(), dest.octets(), sctp.len())?,
            ),
            (IpAddr::V6(source), IpAddr::V6(dest)) => (
                EtherType::IPV6,
                self.ipv6(source.octets(), dest.octets(), sctp.len())?,
            ),
            _ => return Err(Error::Packet("source and dest are of two families".into())),
        };
        let mut bytes = self.link(ether_type)?;
        bytes.extend(ip);
        let start = bytes.len();
        bytes.extend(sctp);
        let sctp = start..bytes.len();
        bytes.resize(bytes.len().max(self.min_len), 0);
        Ok(Frame { bytes, sctp })
    }

    fn sctp(&self) -> Vec<u8> {
        let mut sctp = Vec::with_capacity(COMMON_HEADER_LEN + self.chunks.len());
        sctp.extend(self.source.port().to_be_bytes());
        sctp.extend(self.dest.port().to_be_bytes());
        sctp.extend(self.vtag.to_be_bytes());
        sctp.extend([0; 4]);
        sctp.extend(&self.chunks);
        let stored = match self.checksum {
            Stored::Good => checksum::compute(&sctp),
            Stored::WrongBy(error) => checksum::compute(&sctp) ^ error,
            Stored::Absent => 0,
        };
        sctp[CHECKSUM_OFFSET..COMMON_HEADER_LEN].copy_from_slice(&stored.to_le_bytes());
        sctp
    }

    fn link(&self, ether_type: EtherType) -> Result<Vec<u8>> {
        let types = self
            .vlans
            .iter()
            .map(|_| EtherType::VLAN_TAGGED_FRAME)
            .chain([ether_type]);
        let mut types = types.collect::<Vec<_>>().into_iter();
        let mut next = || types.next().unwrap_or(ether_type);
        let ethernet = Ethernet2Header {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
            ether_type: next(),
        };
        let mut bytes = ethernet.to_bytes().to_vec();
        for id in &self.vlans {
            let vlan_id = VlanId::try_new(*id).map_err(|e| Error::Packet(e.to_string()))?;
            let tag = SingleVlanHeader {
                vlan_id,
                ether_type: next(),
                ..Default::default()
            };
            bytes.extend(tag.to_bytes());
        }
        Ok(bytes)
    }

    fn ipv4(&self, source: [u8; 4], dest: [u8; 4], sctp_len: usize) -> Result<Vec<u8>> {
        let len = u16::try_from(sctp_len).map_err(|e| Error::Packet(e.to_string()))?;
        let mut header = Ipv4Header::new(len, 64, IpNumber::SCTP, source, dest)
            .map_err(|e| Error::Packet(e.to_string()))?;
        header.options = Ipv4Options::try_from(self.ip_extra.as_slice())
            .map_err(|e| Error::Packet(e.to_string()))?;
        header
            .set_payload_len(sctp_len)
            .map_err(|e| Error::Packet(e.to_string()))?;
        header.header_checksum = header.calc_header_checksum();
        Ok(header.to_bytes().to_vec())
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], sctp_len: usize) -> Result<Vec<u8>> {
        let mut extension = Vec::new();
        if !self.ip_extra.is_empty() {
            let header = Ipv6RawExtHeader::new_raw(IpNumber::SCTP, &self.ip_extra)
                .map_err(|e| Error::Packet(e.to_string()))?;
            extension.extend(header.to_bytes());
        }
        let header = Ipv6Header {
            payload_length: u16::try_from(extension.len() + sctp_len)
                .map_err(|e| Error::Packet(e.to_string()))?,
            next_header: if extension.is_empty() {
                IpNumber::SCTP
            } else {
                IpNumber::IPV6_DESTINATION_OPTIONS
            },
            hop_limit: 64,
            source,
            destination,
            ..Default::default()
        };
        Ok([header.to_bytes().to_vec(), extension].concat())
    }
}

/// A frame, with the place of the SCTP packet in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// All bytes of the frame.
    pub bytes: Vec<u8>,
    /// Where the SCTP packet is, without padding.
    pub sctp: Range<usize>,
}

impl Frame {
    /// The bytes of the SCTP packet.
    pub fn sctp(&self) -> &[u8] {
        &self.bytes[self.sctp.clone()]
    }

    /// The 32-bit word at `offset` bytes into the SCTP packet, in network byte order.
    ///
    /// # Panics
    /// If it is not within the SCTP packet.
    pub fn word(&self, offset: usize) -> u32 {
        let word = &self.sctp()[offset..offset + 4];
        u32::from_be_bytes([word[0], word[1], word[2], word[3]])
    }

    /// Writes the word at `offset` bytes into the SCTP packet, and leaves the checksum alone.
    ///
    /// # Panics
    /// If it is not within the SCTP packet.
    pub fn set_word(&mut self, offset: usize, word: u32) {
        let at = self.sctp.start + offset;
        self.bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }

    /// Writes the checksum field.
    pub fn set_checksum(&mut self, crc: u32) {
        let at = self.sctp.start + CHECKSUM_OFFSET;
        self.bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// An ICMP error of `router` about `quoted`, of which it quotes the IP packet's first bytes: it
/// goes to where that came from. The kind is "too big", with an MTU of 1,280.
///
/// # Errors
/// If the addresses are of two families, or the quoted frame has VLAN tags.
pub fn icmp_error(router: IpAddr, quoted: &Frame, quoted_len: usize) -> Result<Vec<u8>> {
    let found = find(&quoted.bytes).ok_or_else(|| Error::Packet("no SCTP to quote".into()))?;
    let quote = quoted
        .bytes
        .get(Ethernet2Header::LEN..)
        .map(|packet| &packet[..quoted_len.min(packet.len())])
        .unwrap_or_default();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut bytes = Vec::new();
    let written = match (router, found.source.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder
            .ipv4(from.octets(), to.octets(), 64)
            .icmpv4(Icmpv4Type::DestinationUnreachable(
                icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 },
            ))
            .write(&mut bytes, quote),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder
            .ipv6(from.octets(), to.octets(), 64)
            .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 })
            .write(&mut bytes, quote),
        _ => {
            return Err(Error::Packet(
                "router and source are of two families".into(),
            ));
        }
    };
    written.map_err(|e| Error::Packet(e.to_string()))?;
    Ok(bytes)
}

/// An SCTP packet found in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub dest: SocketAddr,
    /// The SCTP packet, from the common header to the end by the IP header.
    pub sctp: &'a [u8],
}

/// Finds the SCTP packet in an Ethernet frame: `None` if there is none, or only a fragment of one.
pub fn find(frame: &[u8]) -> Option<Found<'_>> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let net = sliced.net.as_ref()?;
    let payload = sliced.ip_payload()?;
    let sctp = payload.payload;
    if payload.ip_number != IpNumber::SCTP || payload.fragmented || sctp.len() < COMMON_HEADER_LEN {
        return None;
    }
    let (source, dest): (IpAddr, IpAddr) = if let Some(ip) = net.ipv4_ref() {
        (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        )
    } else {
        let ip = net.ipv6_ref()?;
        (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        )
    };
    let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
    Some(Found {
        source: SocketAddr::new(source, port(0)),
        dest: SocketAddr::new(dest, port(2)),
        sctp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::ipv4("192.0.2.1:5000", "198.51.100.1:3868", &[], 0)]
    #[case::ipv4_options("192.0.2.1:5000", "198.51.100.1:3868", &[1, 1, 1, 0], 0)]
    #[case::ipv4_padded("192.0.2.1:5000", "198.51.100.1:3868", &[], 60)]
    #[case::ipv6("[2001:db8::1]:5000", "[2001:db8::2]:3868", &[], 0)]
    #[case::ipv6_destination_options(
        "[2001:db8::1]:5000", "[2001:db8::2]:3868", &[1, 4, 0, 0, 0, 0], 0)]
    fn what_is_built_is_found(
        #[case] source: &str,
        #[case] dest: &str,
        #[case] ip_extra: &[u8],
        #[case] min_len: usize,
        #[values(0, 1, 2)] nr_vlans: u16,
    ) {
        let spec = Spec {
            vlans: (0..nr_vlans).map(|i| 100 + i).collect(),
            ip_extra: ip_extra.to_vec(),
            min_len,
            ..Spec::new(
                source.parse().expect("an address"),
                dest.parse().expect("an address"),
                vec![11, 0, 0, 4],
            )
        };
        let frame = spec.build().expect("it fits");
        let found = find(&frame.bytes).expect("SCTP");
        assert_eq!(found.source, spec.source);
        assert_eq!(found.dest, spec.dest);
        assert_eq!(found.sctp, frame.sctp());
        assert_eq!(found.sctp.len(), 16);
        assert_eq!(checksum::verdict(found.sctp), checksum::Verdict::Good);
    }

    #[test]
    fn noise_is_not_sctp() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[0xff; 60]), None);
    }
}
