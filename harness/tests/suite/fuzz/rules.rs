// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What holds for every packet that passes, whatever it is.

use std::net::{IpAddr, SocketAddr};

use bpf_sctp::checksum;
use bpf_sctp::chunk::named_addresses;
use bpf_sctp::packet::{Found, find};

use super::generate::{Ends, SETUPS, Who, node};

const ASCONF: u8 = 193;
const INIT_CHUNK_LEN: usize = 20;

/// The addresses of a setup that has a service.
#[derive(Debug)]
pub struct Service {
    pub vips: Vec<SocketAddr>,
    pub backends: Vec<SocketAddr>,
    pub masquerade: bool,
}

pub fn services() -> Vec<Service> {
    let setups = SETUPS.iter().enumerate();
    setups
        .filter(|(_, setup)| !setup.policy_only)
        .map(|(nr, setup)| {
            let ends = Ends::new(nr, 0, false);
            Service {
                vips: ends.all(Who::Vip),
                backends: ends.all(Who::Backend),
                masquerade: setup.masquerade,
            }
        })
        .collect()
}

fn has_ip(list: &[SocketAddr], ip: IpAddr) -> bool {
    list.iter().any(|addr| addr.ip() == ip)
}

fn is_node(ip: IpAddr) -> bool {
    ip == node(ip.is_ipv6())
}

impl Service {
    /// Whether addresses may have to be added to this packet.
    pub fn may_grow(&self, found: &Found<'_>) -> bool {
        is_init(found.sctp) && self.backends.contains(&found.source) && self.vips.len() > 2
    }

    /// A backend that reaches itself sees the service.
    fn is_itself(&self, end: SocketAddr, shown: SocketAddr) -> bool {
        has_ip(&self.backends, end.ip()) && has_ip(&self.vips, shown.ip())
    }

    fn is_to_backend(&self, before: &Found<'_>, after: &Found<'_>) -> bool {
        let source_fits = if self.masquerade {
            is_node(after.source.ip())
        } else {
            after.source.ip() == before.source.ip() || self.is_itself(before.source, after.source)
        };
        self.vips.contains(&before.dest) && self.backends.contains(&after.dest) && source_fits
    }

    fn is_to_client(&self, before: &Found<'_>, after: &Found<'_>) -> bool {
        let dest_fits = if self.masquerade {
            is_node(before.dest.ip())
        } else {
            after.dest.ip() == before.dest.ip() || self.is_itself(after.dest, before.dest)
        };
        self.backends.contains(&before.source) && self.vips.contains(&after.source) && dest_fits
    }
}

fn is_init(sctp: &[u8]) -> bool {
    matches!(sctp.get(checksum::COMMON_HEADER_LEN), Some(1 | 2))
}

/// Type, and bytes with the header but without padding, of what has a length at its third byte:
/// chunks, and parameters with 16-bit types.
fn items(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let [_, _, high, low, ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(item) = bytes.get(..len).filter(|item| item.len() >= 4) else {
            break;
        };
        all.push(item);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn asconf(sctp: &[u8]) -> Option<&[u8]> {
    items(&sctp[checksum::COMMON_HEADER_LEN..])
        .into_iter()
        .find(|chunk| chunk[0] == ASCONF)
}

fn address(parameter: &[u8]) -> Option<IpAddr> {
    let (kind, value) = (parameter.get(..4)?, &parameter[4..]);
    match kind {
        [0, 5, ..] => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        [0, 6, ..] => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The addresses in an ASCONF: its own, and those that it adds, deletes and makes primary.
fn asconf_addresses(sctp: &[u8]) -> Vec<IpAddr> {
    let parameters = asconf(sctp).and_then(|chunk| chunk.get(8..));
    let parameters = items(parameters.unwrap_or_default());
    let named =
        parameters
            .iter()
            .enumerate()
            .filter_map(|(nr, bytes)| match (nr, bytes.get(..2)?) {
                (0, _) => address(bytes),
                (_, [0xc0, 1 | 2 | 4]) => address(items(bytes.get(8..)?).first()?),
                _ => None,
            });
    named.filter(|ip| !ip.is_unspecified()).collect()
}

fn check_ends(services: &[Service], before: &Found<'_>, after: &Found<'_>) -> Result<(), String> {
    let named = named_addresses(after.sctp);
    let moved = asconf_addresses(after.sctp);
    for service in services {
        if service.is_to_client(before, after) {
            return match named
                .iter()
                .chain(&moved)
                .find(|ip| !has_ip(&service.vips, **ip))
            {
                Some(ip) => Err(format!("the client is told of {ip}")),
                None => Ok(()),
            };
        }
        if service.is_to_backend(before, after) {
            return match named.iter().find(|ip| service.masquerade && !is_node(**ip)) {
                Some(ip) => Err(format!("the backend is told of {ip}")),
                None => Ok(()),
            };
        }
    }
    let (before, after) = ((before.source, before.dest), (after.source, after.dest));
    Err(format!("{before:?} became {after:?}"))
}

fn check_checksum(before: &[u8], after: &[u8]) -> Result<(), String> {
    let errors = [before, after].map(checksum::error);
    let kept = if checksum::stored(before) == 0 {
        checksum::stored(after) == 0
    } else if before.len() == after.len() {
        errors[0] == errors[1]
    } else {
        (errors[0] == 0) == (errors[1] == 0)
    };
    if kept {
        Ok(())
    } else {
        Err(format!("the checksum was and is wrong by {errors:x?}"))
    }
}

/// The sum over an IPv4 header is right, or there is none.
fn ipv4_sum_is_right(frame: &[u8], found: &Found<'_>) -> bool {
    if found.source.is_ipv6() {
        return true;
    }
    // SCTP's place in the frame is behind the IP header, which says its own length.
    let end = found.sctp.as_ptr() as usize - frame.as_ptr() as usize;
    let start = (0..=8)
        .map(|words| end.saturating_sub(20 + 4 * words))
        .chain([end.saturating_sub(56), end.saturating_sub(60)])
        .find(|start| end - start == usize::from(frame[*start] & 15) * 4);
    let header = start.map_or(&[][..], |start| &frame[start..end]);
    let words = header
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

fn check_lengths(frames: [&[u8]; 2], before: &Found<'_>, after: &Found<'_>) -> Result<(), String> {
    let lens = [
        frames[0].len(),
        frames[1].len(),
        before.sctp.len(),
        after.sctp.len(),
    ];
    let fits = if before.sctp.len() == after.sctp.len() {
        frames[0].len() == frames[1].len()
    } else {
        // What padded the frame is the packet's now.
        let chunk = &after.sctp[checksum::COMMON_HEADER_LEN..];
        after.sctp.len() > before.sctp.len()
            && frames[1].ends_with(after.sctp)
            && is_init(after.sctp)
            && usize::from(u16::from_be_bytes([chunk[2], chunk[3]])) == chunk.len()
    };
    if fits {
        Ok(())
    } else {
        Err(format!("frames and SCTP packets of lengths {lens:?}"))
    }
}

/// Nothing has changed but what is translated.
fn check_rest(frames: [&[u8]; 2], before: &Found<'_>, after: &Found<'_>) -> Result<(), String> {
    let fixed = if is_init(before.sctp) {
        checksum::COMMON_HEADER_LEN + 4..checksum::COMMON_HEADER_LEN + INIT_CHUNK_LEN
    } else if asconf(before.sctp).is_some() {
        0..0
    } else {
        checksum::COMMON_HEADER_LEN..before.sctp.len()
    };
    if frames[0][..14] != frames[1][..14]
        || before.sctp[4..8] != after.sctp[4..8]
        || before.sctp.get(fixed.clone()) != after.sctp.get(fixed)
    {
        return Err("more has changed than is translated".into());
    }
    if ipv4_sum_is_right(frames[0], before) && !ipv4_sum_is_right(frames[1], after) {
        return Err("the IP header's checksum is wrong".into());
    }
    Ok(())
}

/// Two VLAN tags are looked behind, if their types are the usual ones.
fn is_hidden_by_tags(frame: &[u8]) -> bool {
    let types = frame[12..].chunks(4).map(|tag| tag.get(..2));
    let usual = |kind: &Option<&[u8]>| matches!(kind, Some([0x81, 0] | [0x88, 0xa8]));
    let after_two = types.clone().take(2).take_while(usual).count();
    !matches!(
        types.clone().nth(after_two),
        Some(Some([8, 0] | [0x86, 0xdd]))
    )
}

/// Judges a packet that passed.
pub fn check_passed(services: &[Service], before: &[u8], after: &[u8]) -> Result<(), String> {
    let found = (find(before), find(after));
    if before == after {
        return match found.0 {
            Some(found)
                if !is_hidden_by_tags(before)
                    && services.iter().any(|s| s.vips.contains(&found.dest)) =>
            {
                Err("it passed to the service as it is".into())
            }
            _ => Ok(()),
        };
    }
    let (Some(old), Some(new)) = found else {
        return Err("it has changed, but is no SCTP".into());
    };
    check_ends(services, &old, &new)?;
    check_checksum(old.sctp, new.sctp)?;
    check_lengths([before, after], &old, &new)?;
    check_rest([before, after], &old, &new)
}
