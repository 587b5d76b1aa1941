// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Addresses, prefixes and ports as objects have them. Errors are what is wrong with the value.

use std::net::IpAddr;

use ipnet::IpNet;

type Checked<T> = std::result::Result<T, String>;

/// The protocol of a port that names none.
pub(super) const DEFAULT_PROTOCOL: &str = "TCP";

/// Whether a port of this protocol is for us.
pub(super) fn is_sctp(protocol: Option<&str>) -> Checked<bool> {
    match protocol.unwrap_or(DEFAULT_PROTOCOL) {
        "SCTP" => Ok(true),
        "TCP" | "UDP" => Ok(false),
        other => Err(format!("\"{other}\" is neither SCTP, TCP nor UDP")),
    }
}

/// One of the words that Kubernetes has for a field, or none.
pub(super) fn one_of<'a>(text: Option<&'a str>, words: &[&str]) -> Checked<Option<&'a str>> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if !words.contains(&text) => {
            Err(format!("\"{text}\" is none of {}", words.join(", ")))
        }
        text => Ok(text),
    }
}

/// A port of SCTP that something listens on.
pub(super) fn port(number: i32) -> Checked<u16> {
    match u16::try_from(number) {
        Ok(0) => Err("is 0 or missing: ports are 1 to 65535".into()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("{number} is not a port: ports are 1 to 65535")),
    }
}

/// Whether it is letters, digits, and `-`, `_` and `.` between them.
fn is_word(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().all(inside) && ends(text.chars().next()) && ends(text.chars().next_back())
}

/// Whether it is a part of a label's key, or a label's value.
fn is_label_word(text: &str) -> bool {
    text.len() <= 63 && is_word(text)
}

/// Whether it is a name of DNS, in small letters, for Kubernetes: as long as the whole may be.
fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| is_word(label) && !label.contains(['_', '.']);
    text.len() <= 253
        && text.split('.').all(is_label)
        && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// The name of an object, or of its namespace.
pub(super) fn object_name(name: &str) -> Checked<&str> {
    if name.len() > 253 {
        return Err(format!("{} characters are more than 253", name.len()));
    }
    if !is_dns_name(name) {
        return Err(format!(
            "{name:?} is not small letters and digits, with - and . between them"
        ));
    }
    Ok(name)
}

/// The key of a label: a word, which may have a name of DNS and a slash before it.
pub(super) fn label_key(key: &str) -> Checked<&str> {
    let (prefix, word) = key.rsplit_once('/').unwrap_or(("a", key));
    if !is_dns_name(prefix) || !is_label_word(word) {
        return Err(format!("{key:?} is not the key of a label"));
    }
    Ok(key)
}

/// The value of a label.
pub(super) fn label_value(value: &str) -> Checked<&str> {
    if !value.is_empty() && !is_label_word(value) {
        return Err(format!("{value:?} is not the value of a label"));
    }
    Ok(value)
}

/// The name of a port, which is not a number.
pub(super) fn port_name(name: &str) -> Checked<&str> {
    let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let has_letter = name.contains(|c: char| c.is_ascii_lowercase());
    if name.parse::<i64>().is_ok() {
        return Err(format!(
            "\"{name}\" is a name: write a number without quotes"
        ));
    }
    if !has_letter || name.len() > 15 || !name.chars().all(of_a_name) {
        return Err(format!("\"{name}\" is not the name of a port"));
    }
    Ok(name)
}

/// An address that a packet can have.
pub(super) fn address(text: &str) -> Checked<IpAddr> {
    let addr = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not an IP address"))?;
    check_address(addr)?;
    Ok(addr)
}

/// Whether packets can go to `addr`, from another node.
pub(super) fn check_address(addr: IpAddr) -> Checked<()> {
    if addr.to_canonical() != addr {
        return Err(format!("{addr} is an IPv4 address: write it as one"));
    }
    let link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    // This network's, and those that are reserved, the broadcast address among them.
    let nobodys =
        matches!(addr, IpAddr::V4(addr) if addr.octets()[0] == 0 || addr.octets()[0] >= 240);
    let several = addr.is_multicast() || nobodys;
    if addr.is_unspecified() || addr.is_loopback() || link_local || several {
        return Err(format!(
            "{addr} is not an address of one host in the network"
        ));
    }
    Ok(())
}

/// A prefix. Bits of the host are dropped, as by Kubernetes.
pub(super) fn cidr(text: &str) -> Checked<IpNet> {
    // ipnet takes addresses with leading zeros, which others take for octal numbers.
    let addr = text.split('/').next().unwrap_or_default();
    let net: IpNet = match (addr.parse::<IpAddr>(), text.parse()) {
        (Ok(_), Ok(net)) => net,
        _ => return Err(format!("\"{text}\" is not a prefix such as 10.0.0.0/8")),
    };
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{text} is an IPv4 prefix: write it as one"))
        }
        _ => Ok(net.trunc()),
    }
}

/// An exception from `net`, which must leave some of it.
pub(super) fn except(text: &str, net: IpNet) -> Checked<IpNet> {
    let except = cidr(text)?;
    if !net.contains(&except) || except == net {
        return Err(format!("{except} is not a part of {net}"));
    }
    Ok(except)
}
