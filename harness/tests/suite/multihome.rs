// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Associations with several addresses, on single frames: `tests/packets/multihoming.yaml`.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bpf_sctp::checksum;
use bpf_sctp::chunk;
use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::datapath::{Datapath, Options, Verdict};
use bpf_sctp::lb::maps::Sizes;
use bpf_sctp::lb::model::{Desired, Frontend, Service, ServiceName};
use bpf_sctp::packet::{Spec, Stored, find};
use rstest::rstest;
use serde::Deserialize;

use crate::support::{backend_by_family, fail, feature_of, require, resend};

pub(crate) const SIZES: Sizes = Sizes {
    assocs: 512,
    services: 128,
    backends: 256,
    table_slots: 1 << 16,
    policy_prefixes: 256,
};
/// Each case has ports of its own.
const CLIENT_PORT: u16 = 5000;
const VIP_PORT: u16 = 3000;
const BACKEND_PORT: u16 = 13000;

#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) case: String,
    pub(crate) vips: String,
    pub(crate) backend: String,
    #[serde(default)]
    pub(crate) masquerade: bool,
    pub(crate) steps: Vec<String>,
}

/// The address of this name; `ipv6`: what the names with capitals are.
pub(crate) fn addr(name: &str, ipv6: bool) -> IpAddr {
    let (kind, nr) = name.split_at(1);
    let nr: u8 = nr.parse().unwrap_or(1);
    let net = match kind.to_ascii_uppercase().as_str() {
        "C" => 1,
        "V" => 2,
        "B" => 3,
        "N" => 4,
        "X" => 5,
        _ => panic!("whose address is {name}?"),
    };
    if ipv6 == kind.starts_with(char::is_uppercase) {
        Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, nr.into()).into()
    } else {
        Ipv4Addr::new(10, net, 0, nr).into()
    }
}

fn socket_addr(name: &str, place: &Place) -> SocketAddr {
    let first = match name.as_bytes()[0].to_ascii_uppercase() {
        b'V' => VIP_PORT,
        b'B' => BACKEND_PORT,
        _ => CLIENT_PORT,
    };
    SocketAddr::new(addr(name, place.ipv6), first + place.case)
}

fn parameter(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = (4 + value.len()) as u16;
    let mut bytes = [kind.to_be_bytes(), len.to_be_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(crate) fn address_parameter(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => parameter(5, &addr.octets()),
        IpAddr::V6(addr) => parameter(6, &addr.octets()),
    }
}

/// Padding as long as the parameter of an address of this family.
fn padding(ipv6: bool) -> Vec<u8> {
    parameter(0x8005, &vec![0; if ipv6 { 16 } else { 4 }])
}

/// A parameter of an ASCONF that says something of an address.
fn asconf_parameter(kind: u16, name: &str, ipv6: bool) -> Vec<u8> {
    let correlation = [0, 0, 0, 7];
    parameter(
        kind,
        &[&correlation[..], &parameter_by_name(name, ipv6)].concat(),
    )
}

fn parameter_by_name(name: &str, ipv6: bool) -> Vec<u8> {
    match name.split_at(1) {
        ("+", addr) => return asconf_parameter(0xc001, addr, ipv6),
        ("-", addr) => return asconf_parameter(0xc002, addr, ipv6),
        ("*", addr) => return asconf_parameter(0xc004, addr, ipv6),
        _ => {}
    }
    match name {
        "0" if ipv6 => address_parameter(Ipv6Addr::UNSPECIFIED.into()),
        "0" => address_parameter(Ipv4Addr::UNSPECIFIED.into()),
        "ECN" => parameter(0x8000, &[]),
        "COOKIE" => parameter(7, &[0xc0; 40]),
        "ODD" => parameter(7, &[0xc0; 3]),
        "FAMILIES" => parameter(12, &[0, 5, 0, 6]),
        "UNKNOWN" => parameter(0xc123, &[1, 2, 3, 4, 5]),
        "ZERO" => parameter(0x8001, &[0, 0, 0, 1]),
        "HOST-NAME" => parameter(11, b"client.example\0"),
        "PAD" => padding(ipv6),
        "pad" => padding(!ipv6),
        "BLANK" => parameter(0x8005, &vec![0; if ipv6 { 24 } else { 12 }]),
        "SHORT" => parameter(5, &[10, 1]),
        "LONG" => parameter(6, &[0; 20]),
        "EMPTY" => vec![0x80, 0, 0, 3],
        "STRAY" => vec![0, 0],
        "most" => parameter(0x8000, &[]).repeat(64),
        "many" => parameter(0x8000, &[]).repeat(65),
        _ => address_parameter(addr(name, ipv6)),
    }
}

fn tag(text: &str) -> u32 {
    match text {
        "0" => 0,
        _ => 0x7a60_0000 + u32::from(text.as_bytes()[0]),
    }
}

/// What a step says of a packet before or after.
#[derive(Debug, Clone, Default)]
struct Packet {
    source: String,
    dest: String,
    parameters: Vec<String>,
}

/// Splits `text[a b]`.
fn split_list(text: &str) -> (&str, Vec<String>) {
    let (text, list) = text.split_once('[').unwrap_or((text, ""));
    let list = list.trim_end_matches(']').split_whitespace();
    (text, list.map(String::from).collect())
}

impl Packet {
    fn new(ends: &str, parameters: Vec<String>) -> Self {
        let (source, dest) = ends.split_once('>').expect("FROM>TO");
        Self {
            source: source.into(),
            dest: dest.into(),
            parameters,
        }
    }

    fn chunk(&self, text: &str, ipv6: bool) -> Vec<u8> {
        let parameters = self.parameters.iter();
        let parameters = parameters.flat_map(|name| parameter_by_name(name, ipv6));
        let (kind, init_tag) = text.split_once('=').unwrap_or((text, ""));
        let (kind, flags) = match kind.strip_suffix("/T") {
            Some(kind) => (kind, chunk::T_BIT),
            None => (kind, 0),
        };
        match (chunk::type_of(kind).expect("a chunk"), kind) {
            (kind, "INIT" | "INIT-ACK") => {
                let parameters: Vec<u8> = parameters.collect();
                let mut bytes = chunk::init(kind, tag(init_tag), &parameters);
                // A chunk's length leaves out the padding behind its last parameter.
                let odd = self.parameters.last().is_some_and(|name| name == "ODD");
                let len = u16::from_be_bytes([bytes[2], bytes[3]]) - u16::from(odd);
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes
            }
            (kind, "ASCONF") => {
                let serial = [0, 0, 0, 1];
                chunk::chunk(
                    kind,
                    0,
                    &serial.into_iter().chain(parameters).collect::<Vec<_>>(),
                )
            }
            (0, _) => chunk::data(b"payload"),
            (kind, _) => chunk::chunk(kind, flags, &[0; 8]),
        }
    }

    fn spec(&self, step: &Step, place: &Place, checksum: Stored) -> Spec {
        let chunks = step.chunk.split('+');
        Spec {
            vtag: tag(&step.tag),
            checksum,
            ..Spec::new(
                socket_addr(&self.source, place),
                socket_addr(&self.dest, place),
                chunks
                    .flat_map(|text| self.chunk(text, place.ipv6))
                    .collect(),
            )
        }
    }
}

/// A step of a case.
#[derive(Debug)]
struct Step {
    before: Packet,
    tag: String,
    chunk: String,
    after: Result<Packet, String>,
}

impl Step {
    fn parse(text: &str) -> Self {
        let (before, after) = text.split_once(" => ").expect("=>");
        let mut words = before.splitn(3, ' ');
        let mut word = || words.next().expect("FROM>TO TAG CHUNK");
        let (ends, tag, chunk) = (word(), word(), word());
        let (chunk, parameters) = split_list(chunk);
        let (outcome, left) = split_list(after);
        Self {
            before: Packet::new(ends, parameters),
            tag: tag.into(),
            chunk: chunk.into(),
            after: if outcome.contains('>') {
                Ok(Packet::new(outcome, left))
            } else {
                Err(outcome.into())
            },
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// What the names with capitals are.
    pub(crate) ipv6: bool,
    /// Its number.
    pub(crate) case: u16,
}

fn drops(lb: &Datapath<'_>) -> Vec<(String, u64)> {
    let stats = lb.maps().stats().expect("counters");
    let drops = stats.iter().filter(|(name, _)| name.starts_with("drop_"));
    drops
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}

/// Runs the program on a frame: what comes out, or the reason why it is dropped.
fn run(lb: &Datapath<'_>, frame: &[u8], grows: bool) -> Result<Vec<u8>, String> {
    resend(Err, || run_once(lb, frame, grows))
}

fn run_once(lb: &Datapath<'_>, frame: &[u8], grows: bool) -> Result<Vec<u8>, String> {
    let before = drops(lb);
    let verdict = if grows {
        lb.run_growing(frame)
    } else {
        lb.run(frame)
    };
    match verdict.expect("the kernel runs it") {
        Verdict::Pass(bytes) => Ok(bytes),
        Verdict::Drop => {
            let after = drops(lb);
            let reason = after
                .iter()
                .zip(&before)
                .find(|(after, before)| after != before);
            Err(reason.map_or("dropped, not counted".into(), |(after, _)| after.0.clone()))
        }
    }
}

/// A packet that grew keeps its errors, but not which bits are wrong.
fn is_as_wrong(got: &[u8], wanted: &[u8], checksum: Stored, grows: bool) -> bool {
    if !grows || !matches!(checksum, Stored::WrongBy(_)) {
        return got == wanted;
    }
    let (Some(got), Some(wanted)) = (find(got), find(wanted)) else {
        return false;
    };
    let rest = |sctp: &[u8]| [&sctp[..8], &sctp[12..]].concat();
    got.source == wanted.source
        && got.dest == wanted.dest
        && rest(got.sctp) == rest(wanted.sctp)
        && checksum::error(got.sctp) != 0
}

pub(crate) fn run_step(lb: &Datapath<'_>, place: &Place, text: &str, checksum: Stored) {
    let step = Step::parse(text);
    let before = step
        .before
        .spec(&step, place, checksum)
        .build()
        .expect("it fits");
    let after = step.after.as_ref().map(|after| {
        let built = after.spec(&step, place, checksum).build();
        built.expect("it fits").bytes
    });
    let grows = after
        .as_ref()
        .is_ok_and(|after| after.len() > before.bytes.len());
    let got = run(lb, &before.bytes, grows);
    match (&got, after) {
        (Ok(got), Ok(after)) if is_as_wrong(got, &after, checksum, grows) => {}
        (Err(got), Err(reason)) if got == reason => {}
        (Ok(got), Ok(after)) => fail(
            format!("{text} {checksum:?}: not as wanted\npackets are: before, after, wanted"),
            &[&before.bytes, got, &after],
        ),
        (got, _) => fail(
            format!("{text} {checksum:?}: {:?}", got.as_ref().map(|_| "passed")),
            &[&before.bytes],
        ),
    }
}

/// The service of a case and its one backend, which each family has as its own.
fn service(case: &Case, place: &Place) -> Service {
    let frontends = case.vips.split(' ').enumerate().map(|(order, name)| {
        let frontend = Frontend {
            masquerade: case.masquerade,
            order,
            ..Default::default()
        };
        (socket_addr(name, place), frontend)
    });
    let names = case.backend.split(' ');
    let addrs: Vec<_> = names.map(|name| addr(name, place.ipv6)).collect();
    let backends = backend_by_family(&addrs, BACKEND_PORT + place.case);
    Service {
        frontends: frontends.collect(),
        backends: backends.collect(),
        affinity: None,
    }
}

pub(crate) fn desired(cases: &[Case], ipv6: bool) -> Desired {
    let services = (0..).zip(cases).map(|(nr, case)| {
        let name = ServiceName {
            namespace: "default".into(),
            name: case.case.clone(),
            port: "sctp".into(),
        };
        (name, service(case, &Place { ipv6, case: nr }))
    });
    Desired {
        services: services.collect(),
        ..Default::default()
    }
}

#[rstest]
fn paths_and_address_parameters(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
    #[values(false, true)] ipv6: bool,
    #[values(Stored::Good, Stored::WrongBy(0xbad), Stored::Absent)] checksum: Stored,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let text = include_str!("../packets/multihoming.yaml");
    let cases: Vec<Case> = serde_saphyr::from_str(text).expect("cases");
    let options = Options {
        update: Some(update),
        sizes: SIZES,
        ..Default::default()
    };
    let mut storage = MaybeUninit::uninit();
    let lb = Datapath::load(hook, &options, &mut storage).expect("it loads");
    let nodes = ["N", "n"].map(|name| addr(name, ipv6));
    lb.maps().set_masquerade(&nodes).expect("a setting");
    lb.maps()
        .apply(&desired(&cases, ipv6))
        .expect("there is room");
    for (nr, case) in (0..).zip(&cases) {
        for step in &case.steps {
            eprintln!("{}: {step}", case.case);
            run_step(&lb, &Place { ipv6, case: nr }, step, checksum);
        }
    }
}
