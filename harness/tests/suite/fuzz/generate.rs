// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What random packets are made of, and their bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bpf_sctp::checksum::COMMON_HEADER_LEN;
use bpf_sctp::chunk;
use bpf_sctp::packet::{Spec, Stored};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// The longest frame that `BPF_PROG_TEST_RUN` takes for XDP, with room for what is added.
const MAX_FRAME: usize = 3000;
/// `BPF_PROG_TEST_RUN` wants a whole IP header.
const MIN_FRAME: usize = 14 + 40;

/// What a service is like: how many addresses of IPv4 and IPv6 each side has.
#[derive(Debug)]
pub struct Setup {
    pub vips: [u8; 2],
    pub backend: [u8; 2],
    pub masquerade: bool,
    /// There is no service, but a policy for the backend's addresses, which clients use.
    pub policy_only: bool,
    pub ports: [u16; 2],
}

pub const SETUPS: [Setup; 5] = [
    Setup::new([2, 2], [2, 2], [3000, 13000]),
    Setup::new([3, 2], [1, 1], [3001, 13001]),
    // Where no port changes, the SCTP packet of most chunks is not written.
    Setup::new([1, 1], [3, 2], [3868, 3868]),
    Setup {
        masquerade: true,
        ..Setup::new([2, 1], [1, 2], [3003, 13003])
    },
    Setup {
        policy_only: true,
        ..Setup::new([2, 2], [2, 2], [3004, 3004])
    },
];

impl Setup {
    const fn new(vips: [u8; 2], backend: [u8; 2], ports: [u16; 2]) -> Self {
        Self {
            vips,
            backend,
            masquerade: false,
            policy_only: false,
            ports,
        }
    }
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Client,
    Vip,
    Backend,
    Nobody,
    /// All zero, as ASCONF means the packet's source.
    Zero,
}

/// The address of this number, counted round.
#[derive(Debug, Clone, Copy)]
pub struct Addr {
    pub who: Who,
    pub nr: u8,
    pub v6: bool,
}

/// Who is who in a run of a case.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub setup: usize,
    /// Each run has clients of its own.
    pub run: u32,
    /// The client, as the backend sees it.
    pub seen: SocketAddr,
}

pub const CLIENTS: u8 = 4;

impl Ends {
    pub fn new(setup: usize, run: u32, v6: bool) -> Self {
        let mut ends = Self {
            setup,
            run,
            seen: SocketAddr::from(([0; 4], 0)),
        };
        ends.seen = ends.socket_addr(Addr::new(Who::Client, 0, v6));
        ends
    }

    pub fn setup(&self) -> &'static Setup {
        &SETUPS[self.setup]
    }

    pub fn ip(&self, addr: Addr) -> IpAddr {
        let [_, _, high, low] = self.run.to_be_bytes();
        let (setup, family) = (self.setup as u8, usize::from(addr.v6));
        let (net, third, last) = match addr.who {
            Who::Client => (100 + addr.nr % CLIENTS, high, low),
            Who::Vip if self.setup().policy_only => {
                return self.ip(Addr {
                    who: Who::Backend,
                    ..addr
                });
            }
            Who::Vip => (2, setup, 1 + addr.nr % self.setup().vips[family]),
            Who::Backend => (3, setup, 1 + addr.nr % self.setup().backend[family]),
            Who::Nobody => (5, 0, 1 + addr.nr),
            Who::Zero if addr.v6 => return Ipv6Addr::UNSPECIFIED.into(),
            Who::Zero => return Ipv4Addr::UNSPECIFIED.into(),
        };
        if addr.v6 {
            let [net, third, last] = [net, third, last].map(u16::from);
            Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, third, last).into()
        } else {
            Ipv4Addr::new(10, net, third, last).into()
        }
    }

    pub fn socket_addr(&self, addr: Addr) -> SocketAddr {
        let port = match addr.who {
            Who::Vip => self.setup().ports[0],
            Who::Backend => self.setup().ports[1],
            _ => 5000 + (self.run >> 16) as u16,
        };
        SocketAddr::new(self.ip(addr), port)
    }

    /// All addresses of one side.
    pub fn all(&self, who: Who) -> Vec<SocketAddr> {
        let addrs = [false, true].into_iter().flat_map(|v6| {
            let nr = match who {
                Who::Vip => self.setup().vips[usize::from(v6)],
                Who::Backend => self.setup().backend[usize::from(v6)],
                _ => CLIENTS,
            };
            (0..nr).map(move |nr| self.socket_addr(Addr::new(who, nr, v6)))
        });
        addrs.collect()
    }
}

/// What backends see of clients that are masqueraded.
pub fn node(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 4, 0, 0, 0, 0, 1).into()
    } else {
        Ipv4Addr::new(10, 4, 0, 1).into()
    }
}

impl Addr {
    pub fn new(who: Who, nr: u8, v6: bool) -> Self {
        Self { who, nr, v6 }
    }

    fn parameter(self, ends: &Ends) -> Vec<u8> {
        match ends.ip(self) {
            IpAddr::V4(addr) => with_header(5, &addr.octets(), 0),
            IpAddr::V6(addr) => with_header(6, &addr.octets(), 0),
        }
    }
}

/// A parameter, whose length is off by some.
fn with_header(kind: u16, value: &[u8], off: i16) -> Vec<u8> {
    let len = (4 + value.len() as u16).wrapping_add_signed(off);
    let mut bytes = [kind.to_be_bytes(), len.to_be_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[derive(Debug, Clone)]
pub enum Param {
    Addr(Addr),
    Other {
        kind: u16,
        value: Vec<u8>,
        off: i16,
    },
    /// As ASCONF has it: another in it.
    Nested {
        kind: u16,
        addr: Addr,
        off: i16,
    },
    Many(u8),
}

impl Param {
    fn bytes(&self, ends: &Ends) -> Vec<u8> {
        match self {
            Self::Addr(addr) => addr.parameter(ends),
            Self::Other { kind, value, off } => with_header(*kind, value, *off),
            Self::Nested { kind, addr, off } => {
                let value = [vec![0, 0, 0, 7], addr.parameter(ends)].concat();
                with_header(*kind, &value, *off)
            }
            Self::Many(nr) => with_header(0x8000, &[], 0).repeat(usize::from(*nr)),
        }
    }
}

/// Tags as the association has them, or others.
#[derive(Debug, Clone, Copy)]
pub enum Tag {
    Client,
    Backend,
    Zero,
    Other(u32),
}

#[derive(Debug, Clone)]
pub enum Chunk {
    Plain {
        kind: u8,
        flags: u8,
        value: Vec<u8>,
        off: i16,
    },
    Init {
        kind: u8,
        tag: Tag,
        params: Vec<Param>,
        off: i16,
    },
    Asconf {
        addr: Addr,
        params: Vec<Param>,
        off: i16,
    },
    Many(u16),
}

impl Chunk {
    fn bytes(&self, ends: &Ends, tags: Tags) -> Vec<u8> {
        let params = |params: &[Param]| -> Vec<u8> {
            params.iter().flat_map(|param| param.bytes(ends)).collect()
        };
        let (mut bytes, off) = match self {
            Self::Plain {
                kind,
                flags,
                value,
                off,
            } => (chunk::chunk(*kind, *flags, value), *off),
            Self::Init {
                kind,
                tag,
                params: list,
                off,
            } => (chunk::init(*kind, tags.of(*tag), &params(list)), *off),
            Self::Asconf {
                addr,
                params: list,
                off,
            } => {
                let value = [vec![0, 0, 0, 9], addr.parameter(ends), params(list)].concat();
                (chunk::chunk(193, 0, &value), *off)
            }
            Self::Many(nr) => return chunk::chunk(11, 0, &[]).repeat(usize::from(*nr)),
        };
        let len = u16::from_be_bytes([bytes[2], bytes[3]]).wrapping_add_signed(off);
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        bytes
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Tags {
    pub client: u32,
    pub backend: u32,
}

impl Tags {
    pub fn of(self, tag: Tag) -> u32 {
        match tag {
            Tag::Client => self.client,
            Tag::Backend => self.backend,
            Tag::Zero => 0,
            Tag::Other(tag) => tag,
        }
    }
}

/// A change of bytes that knows nothing of what they mean; places are counted round.
#[derive(Debug, Clone)]
pub enum Damage {
    Flip(u16),
    Set(u16, u8),
    Cut(u16),
    Append(Vec<u8>),
}

fn damage(bytes: &mut Vec<u8>, all: &[Damage], least: usize) {
    for one in all {
        let len = bytes.len().max(1);
        match one {
            Damage::Flip(bit) => {
                let bit = usize::from(*bit) % (8 * len);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Damage::Set(at, value) => {
                if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
                    *byte = *value;
                }
            }
            Damage::Cut(by) => {
                bytes.truncate(len.saturating_sub(usize::from(*by) % len).max(least))
            }
            Damage::Append(more) => bytes.extend(more),
        }
    }
}

/// A packet of a case.
#[derive(Debug, Clone)]
pub struct Sent {
    pub to_client: bool,
    pub v6: bool,
    pub source: (Who, u8),
    /// 0: of a packet to the client, what the backend knows as its address.
    pub dest: (Who, u8),
    pub tag: Tag,
    pub chunks: Vec<Chunk>,
    pub checksum: Stored,
    pub vlans: Vec<u16>,
    pub ip_extra: usize,
    pub min_len: usize,
    /// Before the checksum is taken.
    pub in_chunks: Vec<Damage>,
    /// After that.
    pub in_frame: Vec<Damage>,
}

impl Sent {
    /// As it should be: to the service, or to the client as the backend knows it.
    pub fn plain(to_client: bool, v6: bool, chunk: Chunk, checksum: Stored) -> Self {
        let is_init = matches!(chunk, Chunk::Init { kind: 1, .. });
        let (source, dest, tag) = if to_client {
            (Who::Backend, Who::Client, Tag::Client)
        } else {
            (Who::Client, Who::Vip, Tag::Backend)
        };
        Self {
            to_client,
            v6,
            source: (source, 0),
            dest: (dest, 0),
            tag: if is_init { Tag::Zero } else { tag },
            chunks: vec![chunk],
            checksum,
            vlans: vec![],
            ip_extra: 0,
            min_len: 0,
            in_chunks: vec![],
            in_frame: vec![],
        }
    }

    fn dest(&self, ends: &Ends) -> SocketAddr {
        match self.dest {
            (Who::Client, 0) if self.to_client && ends.setup().masquerade => {
                SocketAddr::new(node(self.v6), ends.seen.port())
            }
            (Who::Client, 0) if self.to_client && ends.seen.is_ipv6() == self.v6 => ends.seen,
            (who, nr) => ends.socket_addr(Addr::new(who, nr, self.v6)),
        }
    }

    pub fn frame(&self, ends: &Ends, tags: Tags) -> Vec<u8> {
        let bytes = self.chunks.iter().map(|chunk| chunk.bytes(ends, tags));
        let mut chunks = bytes.collect::<Vec<_>>().concat();
        damage(&mut chunks, &self.in_chunks, 0);
        chunks.truncate(MAX_FRAME - COMMON_HEADER_LEN);
        let ip_extra = match (self.v6, self.ip_extra) {
            (_, 0) => vec![],
            (false, words) => vec![1; 4 * words],
            // One option that pads.
            (true, words) => [vec![1, 8 * words as u8 - 4], vec![0; 8 * words - 4]].concat(),
        };
        let source = Addr::new(self.source.0, self.source.1, self.v6);
        let spec = Spec {
            vlans: self.vlans.clone(),
            vtag: tags.of(self.tag),
            ip_extra,
            checksum: self.checksum,
            min_len: self.min_len,
            ..Spec::new(ends.socket_addr(source), self.dest(ends), chunks)
        };
        let mut frame = spec.build().expect("it fits").bytes;
        damage(&mut frame, &self.in_frame, MIN_FRAME);
        frame.truncate(MAX_FRAME);
        frame
    }
}

/// A few packets of one association.
#[derive(Debug, Clone)]
pub struct Case {
    pub setup: usize,
    pub v6: bool,
    pub tags: Tags,
    /// How much of the handshake comes before the rest.
    pub handshake: Vec<Sent>,
    pub rest: Vec<Sent>,
}

fn off() -> impl Strategy<Value = i16> {
    prop_oneof![20 => Just(0i16), 2 => -9i16..10, 1 => any::<i16>()]
}

fn addr() -> impl Strategy<Value = Addr> {
    let who = prop_oneof![
        4 => Just(Who::Client),
        4 => Just(Who::Backend),
        1 => Just(Who::Vip),
        1 => Just(Who::Nobody),
        1 => Just(Who::Zero),
    ];
    (who, 0u8..4, any::<bool>()).prop_map(|(who, nr, v6)| Addr::new(who, nr, v6))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![10 => vec(any::<u8>(), 0..24), 1 => vec(any::<u8>(), 0..1400)]
}

fn kind_of_param() -> impl Strategy<Value = u16> {
    let known = vec![
        1u16, 5, 6, 7, 8, 9, 11, 12, 0x8000, 0x8001, 0x8002, 0x8005, 0x8008, 0xc000, 0xc001,
        0xc002, 0xc003, 0xc004, 0xc005, 0xc006,
    ];
    prop_oneof![8 => select(known), 1 => any::<u16>()]
}

fn param() -> impl Strategy<Value = Param> {
    let other = (kind_of_param(), value(), off()).prop_map(|(kind, value, off)| Param::Other {
        kind,
        value,
        off,
    });
    prop_oneof![8 => addr().prop_map(Param::Addr), 6 => other, 1 => (0u8..80).prop_map(Param::Many)]
}

fn nested() -> impl Strategy<Value = Param> {
    let kind = prop_oneof![8 => select(vec![0xc001u16, 0xc002, 0xc004]), 1 => kind_of_param()];
    let nested =
        (kind, addr(), off()).prop_map(|(kind, addr, off)| Param::Nested { kind, addr, off });
    prop_oneof![12 => nested, 1 => param()]
}

fn tag() -> impl Strategy<Value = Tag> {
    prop_oneof![
        6 => Just(Tag::Client),
        6 => Just(Tag::Backend),
        1 => Just(Tag::Zero),
        1 => any::<u32>().prop_map(Tag::Other),
    ]
}

fn plain() -> impl Strategy<Value = Chunk> {
    let known: Vec<u8> = chunk::TYPES.iter().map(|(_, kind)| *kind).collect();
    let kind = prop_oneof![12 => select(known), 1 => any::<u8>()];
    let flags = prop_oneof![4 => Just(0u8), 2 => Just(chunk::T_BIT), 1 => any::<u8>()];
    (kind, flags, value(), off()).prop_map(|(kind, flags, value, off)| Chunk::Plain {
        kind,
        flags,
        value,
        off,
    })
}

fn init() -> impl Strategy<Value = Chunk> {
    let params = prop_oneof![
        9 => vec(param(), 0..7),
        1 => vec(addr().prop_map(Param::Addr), 7..14),
    ];
    (1u8..3, tag(), params, off()).prop_map(|(kind, tag, params, off)| Chunk::Init {
        kind,
        tag,
        params,
        off,
    })
}

fn asconf() -> impl Strategy<Value = Chunk> {
    let nr = prop_oneof![9 => 0usize..4, 1 => 0usize..20];
    let params = nr.prop_flat_map(|nr| vec(nested(), nr));
    (addr(), params, off()).prop_map(|(addr, params, off)| Chunk::Asconf { addr, params, off })
}

fn chunks() -> impl Strategy<Value = Vec<Chunk>> {
    prop_oneof![
        6 => vec(plain(), 1),
        4 => vec(plain(), 0..5),
        6 => vec(init(), 1),
        5 => vec(asconf(), 1),
        1 => (plain(), asconf()).prop_map(|(plain, asconf)| vec![plain, asconf]),
        1 => (asconf(), init()).prop_map(|(asconf, init)| vec![asconf, init]),
        1 => (plain(), 0u16..600).prop_map(|(plain, nr)| vec![plain, Chunk::Many(nr)]),
    ]
}

fn checksum() -> impl Strategy<Value = Stored> {
    prop_oneof![
        6 => Just(Stored::Good),
        1 => (1..=u32::MAX).prop_map(Stored::WrongBy),
        1 => Just(Stored::Absent),
    ]
}

fn some_damage(most: usize) -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        6 => any::<u16>().prop_map(Damage::Flip),
        2 => any::<(u16, u8)>().prop_map(|(at, value)| Damage::Set(at, value)),
        1 => (1u16..60).prop_map(Damage::Cut),
        1 => vec(any::<u8>(), 1..9).prop_map(Damage::Append),
    ];
    prop_oneof![4 => Just(vec![]), 1 => vec(one, 1..=most)]
}

fn link() -> impl Strategy<Value = (Vec<u16>, usize, usize)> {
    let vlans = prop_oneof![6 => Just(vec![]), 1 => vec(1u16..4000, 1..4)];
    let ip_extra = prop_oneof![6 => Just(0usize), 1 => 1usize..11];
    let min_len = prop_oneof![6 => Just(0usize), 1 => 60usize..200];
    (vlans, ip_extra, min_len)
}

fn sent() -> impl Strategy<Value = Sent> {
    let twist = prop_oneof![
        12 => Just(None),
        1 => select(vec![Who::Client, Who::Vip, Who::Backend, Who::Nobody]).prop_map(Some),
    ];
    let nr = || prop_oneof![3 => Just(0u8), 2 => 0u8..4];
    let ends = (
        any::<bool>(),
        any::<bool>(),
        twist.clone(),
        twist,
        nr(),
        nr(),
    );
    let twisted_tag = prop_oneof![6 => Just(None), 1 => tag().prop_map(Some)];
    let damage = (some_damage(3), some_damage(3));
    (ends, twisted_tag, chunks(), checksum(), link(), damage).prop_map(
        |(ends, twisted_tag, chunks, checksum, (vlans, ip_extra, min_len), damage)| {
            let (to_client, v6, source, dest, from_nr, to_nr) = ends;
            let first = chunks.first().cloned().unwrap_or(Chunk::Many(0));
            let plain = Sent::plain(to_client, v6, first, checksum);
            Sent {
                source: (source.unwrap_or(plain.source.0), from_nr),
                dest: (dest.unwrap_or(plain.dest.0), to_nr),
                tag: twisted_tag.unwrap_or(plain.tag),
                chunks,
                vlans,
                ip_extra,
                min_len,
                in_chunks: damage.0,
                in_frame: damage.1,
                ..plain
            }
        },
    )
}

/// Addresses of the sender's own, and parameters that have nothing to do with them.
fn own_params(who: Who) -> impl Strategy<Value = Vec<Param>> {
    let own = (0u8..4, any::<bool>()).prop_map(move |(nr, v6)| Param::Addr(Addr::new(who, nr, v6)));
    let cookie = (0usize..40).prop_map(|len| Param::Other {
        kind: 7,
        value: vec![0xc0; len],
        off: 0,
    });
    vec(prop_oneof![3 => own, 1 => cookie], 0..5)
}

fn handshake() -> impl Strategy<Value = (bool, Vec<Sent>)> {
    let done = prop_oneof![1 => 0usize..4, 4 => Just(4usize)];
    let params = (own_params(Who::Client), own_params(Who::Backend));
    (any::<bool>(), done, params, checksum()).prop_map(|(v6, done, (client, backend), checksum)| {
        let init = |kind, tag, params| Chunk::Init {
            kind,
            tag,
            params,
            off: 0,
        };
        let cookie = |kind| Chunk::Plain {
            kind,
            flags: 0,
            value: vec![],
            off: 0,
        };
        let all = [
            (false, init(1, Tag::Client, client)),
            (true, init(2, Tag::Backend, backend)),
            (false, cookie(10)),
            (true, cookie(11)),
        ];
        let sent = all.map(|(to_client, chunk)| Sent::plain(to_client, v6, chunk, checksum));
        (v6, sent.into_iter().take(done).collect())
    })
}

pub fn case() -> impl Strategy<Value = Case> {
    let tags = (1..=u32::MAX, 1..=u32::MAX).prop_map(|(client, backend)| Tags { client, backend });
    let setup = 0..SETUPS.len();
    (setup, tags, handshake(), vec(sent(), 1..9)).prop_map(
        |(setup, tags, (v6, handshake), rest)| Case {
            setup,
            v6,
            tags,
            handshake,
            rest,
        },
    )
}
