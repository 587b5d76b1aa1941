// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Loads `bpf/translate.bpf.c`, writes its rules and reads its counters.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput};

use crate::error::{BpfDoing, Error, Result};
use crate::feature::Feature;
use crate::lab::{Lab, TRANSLATOR_DEVS};
use crate::map_bytes::{MapBytes, words};
use crate::skel::translate::types::{csum_mode, endpoint, ip_addr, stat};
use crate::skel::translate::{TranslateSkel, TranslateSkelBuilder};
use crate::tcx;

/// How the program fixes the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CsumMode {
    /// By the kfunc if the kernel has it, else in BPF.
    Auto,
    /// In BPF.
    Bpf,
    /// Not at all.
    Skip,
}

/// The program's counters, by the names of `bpf/stats.h`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described in bpf/stats.h")]
pub struct Stats {
    pub to_backend: u64,
    pub to_client: u64,
    pub csum_kfunc: u64,
    pub csum_bpf: u64,
    pub csum_skipped: u64,
    pub drop_fragment: u64,
    pub drop_truncated: u64,
    pub drop_ext_headers: u64,
    pub drop_rewrite_failed: u64,
    pub drop_csum_failed: u64,
}

impl Stats {
    /// Packets that were dropped, for whatever reason.
    pub fn drops(&self) -> u64 {
        self.drop_fragment
            + self.drop_truncated
            + self.drop_ext_headers
            + self.drop_rewrite_failed
            + self.drop_csum_failed
    }
}

/// What the program makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, changed or not.
    Pass(Vec<u8>),
    /// It is dropped.
    Drop,
}

/// `TC_ACT_SHOT` of `linux/pkt_cls.h`.
const TC_ACT_SHOT: u32 = 2;

/// The loaded program. It is detached when this is dropped.
pub struct Translator<'obj> {
    skel: TranslateSkel<'obj>,
    links: Vec<OwnedFd>,
}

impl std::fmt::Debug for Translator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translator")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

fn addr_key(addr: IpAddr) -> ip_addr {
    ip_addr { word: words(addr) }
}

fn endpoint_key(addr: SocketAddr) -> endpoint {
    endpoint {
        addr: addr_key(addr.ip()),
        port: addr.port().to_be(),
        pad: 0,
    }
}

fn check_family(vip: SocketAddr, backend: SocketAddr) -> Result<()> {
    if vip.is_ipv4() != backend.is_ipv4() {
        return Err(Error::Packet(format!(
            "{vip} and {backend} are of two families"
        )));
    }
    for addr in [vip, backend] {
        if addr.ip().to_canonical() != addr.ip() {
            return Err(Error::Packet(format!(
                "{addr} is an IPv4 address: write it as one"
            )));
        }
    }
    Ok(())
}

// SAFETY: 16 bytes of address, 2 of port, 2 of explicit padding, aligned to 4.
unsafe impl MapBytes for endpoint {}
// SAFETY: four words.
unsafe impl MapBytes for ip_addr {}

impl<'obj> Translator<'obj> {
    /// Loads the program into `storage`, which must outlive it.
    ///
    /// # Errors
    /// If the kernel lacks BTF or refuses the program.
    pub fn load(mode: CsumMode, storage: &'obj mut MaybeUninit<OpenObject>) -> Result<Self> {
        Feature::Root.require()?;
        Feature::Btf.require()?;
        let mut open = TranslateSkelBuilder::default()
            .open(storage)
            .bpf(|| "open the translator".into())?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.csum_mode = match mode {
                CsumMode::Auto => csum_mode::CSUM_AUTO,
                CsumMode::Bpf => csum_mode::CSUM_BPF,
                CsumMode::Skip => csum_mode::CSUM_SKIP,
            };
        }
        let skel = open.load().bpf(|| "load the translator".into())?;
        Ok(Self {
            skel,
            links: Vec::new(),
        })
    }

    /// Attaches the program to both devices of the lab's translator.
    ///
    /// # Errors
    /// If the kernel has no tcx (before 6.6).
    pub fn attach(&mut self, lab: &Lab) -> Result<()> {
        let prog = self.skel.progs.sctp_translate.as_fd();
        for device in TRANSLATOR_DEVS {
            let link = lab
                .translator
                .run(|| tcx::attach(prog, device, tcx::Point::TcxIngress))??;
            self.links.push(link);
        }
        Ok(())
    }

    /// Translates `vip` to `backend`, and `backend` back to `vip`.
    ///
    /// # Errors
    /// If they are of two families, or are IPv4 written as IPv6, if either has a rule already, or
    /// if the maps are full. No translation is left half written.
    pub fn add_rule(&self, vip: SocketAddr, backend: SocketAddr) -> Result<()> {
        check_family(vip, backend)?;
        let maps = &self.skel.maps;
        let doing = || format!("add the rule {vip} to {backend}");
        for addr in [vip.ip(), backend.ip()] {
            maps.translated_addrs
                .update(addr_key(addr).bytes(), &[1], MapFlags::ANY)
                .bpf(doing)?;
        }
        let (vip_key, backend_key) = (endpoint_key(vip), endpoint_key(backend));
        let new = MapFlags::NO_EXIST;
        maps.to_client
            .update(backend_key.bytes(), vip_key.bytes(), new)
            .bpf(doing)?;
        let added = maps
            .to_backend
            .update(vip_key.bytes(), backend_key.bytes(), new);
        if added.is_err() {
            maps.to_client.delete(backend_key.bytes()).bpf(doing)?;
        }
        added.bpf(doing)
    }

    /// Runs the program on `frame` alone, attached or not. The kernel also checks the sum over
    /// the skb (`CHECKSUM_COMPLETE`) afterwards.
    ///
    /// # Errors
    /// If the kernel refuses the frame, or the sum over the skb is wrong afterwards.
    pub fn run(&self, frame: &[u8]) -> Result<Verdict> {
        let mut out = vec![0; frame.len()];
        let input = ProgramInput {
            data_in: Some(frame),
            data_out: Some(&mut out),
            flags: libbpf_sys::BPF_F_TEST_SKB_CHECKSUM_COMPLETE,
            ..Default::default()
        };
        let output = self
            .skel
            .progs
            .sctp_translate
            .test_run(input)
            .bpf(|| format!("BPF_PROG_TEST_RUN on {} bytes", frame.len()))?;
        if output.return_value == TC_ACT_SHOT {
            return Ok(Verdict::Drop);
        }
        Ok(Verdict::Pass(out))
    }

    fn stat(&self, which: stat) -> Result<u64> {
        let doing = || "read the counters".to_string();
        let values = self
            .skel
            .maps
            .stats
            .lookup_percpu(&which.0.to_ne_bytes(), MapFlags::ANY)
            .bpf(doing)?
            .unwrap_or_default();
        let values = values
            .iter()
            .filter_map(|value| value.as_slice().try_into().ok());
        Ok(values.map(u64::from_ne_bytes).sum())
    }

    /// Reads the counters, summed over all CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            to_backend: self.stat(stat::STAT_TO_BACKEND)?,
            to_client: self.stat(stat::STAT_TO_CLIENT)?,
            csum_kfunc: self.stat(stat::STAT_CSUM_KFUNC)?,
            csum_bpf: self.stat(stat::STAT_CSUM_BPF)?,
            csum_skipped: self.stat(stat::STAT_CSUM_SKIPPED)?,
            drop_fragment: self.stat(stat::STAT_DROP_FRAGMENT)?,
            drop_truncated: self.stat(stat::STAT_DROP_TRUNCATED)?,
            drop_ext_headers: self.stat(stat::STAT_DROP_EXT_HEADERS)?,
            drop_rewrite_failed: self.stat(stat::STAT_DROP_REWRITE_FAILED)?,
            drop_csum_failed: self.stat(stat::STAT_DROP_CSUM_FAILED)?,
        })
    }
}
