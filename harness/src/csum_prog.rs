// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Runs the checksum update of `bpf/csum_tc.bpf.c` and `bpf/csum_xdp.bpf.c` on packets, through
//! `BPF_PROG_TEST_RUN`.

use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{OpenObject, ProgramInput};

use crate::error::{BpfDoing, Error, Result};
use crate::feature::Feature;
use crate::packet::Spec;
use crate::skel::{csum_tc, csum_xdp};

/// Most changes in one run (`MAX_CHANGES` of `bpf/csum_case.h`).
pub const MAX_CHANGES: usize = 64;

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On an skb, as at tc.
    Tc,
    /// On an XDP buffer.
    Xdp,
}

/// What updates the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// The kernel.
    Kfunc,
    /// `bpf/sctp_csum.h`.
    Bpf,
}

/// A call of the update, and optionally the write of the changed word before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Where to write `to`, in bytes from the start of the frame; `None` writes nothing.
    pub write_at: Option<u32>,
    /// The update's `offset`.
    pub offset: u32,
    /// The update's `len`.
    pub len: u32,
    /// The update's `from`, in host byte order.
    pub from: u32,
    /// The update's `to`, in host byte order.
    pub to: u32,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What each update returned: zero or a negative errno.
    pub results: Vec<i32>,
}

enum Skel<'obj> {
    Tc(csum_tc::CsumTcSkel<'obj>),
    Xdp(csum_xdp::CsumXdpSkel<'obj>),
}

/// Whether an skb in pieces can be tested here.
pub(crate) fn takes_pieces() -> bool {
    let addresses = ("192.0.2.1:1".parse(), "192.0.2.2:2".parse());
    let (Ok(source), Ok(dest)) = addresses else {
        return false;
    };
    let Ok(frame) = Spec::new(source, dest, vec![0; 100]).build() else {
        return false;
    };
    let mut storage = MaybeUninit::uninit();
    CsumProg::load(Hook::Tc, Update::Bpf, &mut storage)
        .and_then(|mut prog| prog.run(&frame.bytes, Some(frame.sctp.start), &[]))
        .is_ok()
}

/// A loaded program.
pub struct CsumProg<'obj> {
    skel: Skel<'obj>,
}

impl std::fmt::Debug for CsumProg<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsumProg").finish_non_exhaustive()
    }
}

/// The skeletons are alike, but their types are not: this is what is done with either.
macro_rules! load {
    ($builder:expr, $storage:expr, $update:expr) => {{
        let mut open = $builder
            .open($storage)
            .bpf(|| "open the checksum program".into())?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.use_kfunc = $update == Update::Kfunc;
        }
        open.load().bpf(|| "load the checksum program".into())?
    }};
}

macro_rules! set_changes {
    ($skel:expr, $changes:expr) => {
        if let Some(bss) = $skel.maps.bss_data.as_deref_mut() {
            bss.nr_changes = $changes.len() as u32;
            for (slot, change) in bss.changes.iter_mut().zip($changes) {
                slot.word_offset = change.write_at.unwrap_or(u32::MAX);
                slot.offset = change.offset;
                slot.len = change.len;
                slot.from = change.from.to_be();
                slot.to = change.to.to_be();
            }
        }
    };
}

macro_rules! results {
    ($skel:expr, $nr:expr) => {
        $skel
            .maps
            .bss_data
            .as_deref()
            .map_or(Vec::new(), |bss| bss.results[..$nr].to_vec())
    };
}

impl<'obj> CsumProg<'obj> {
    /// Loads the program for `hook` into `storage`, which must outlive it.
    ///
    /// # Errors
    /// If the kernel lacks BTF or the kfunc, or refuses the program.
    pub fn load(
        hook: Hook,
        update: Update,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self> {
        Feature::Root.require()?;
        Feature::Btf.require()?;
        if update == Update::Kfunc {
            Feature::Kfunc.require()?;
        }
        let skel = match hook {
            Hook::Tc => Skel::Tc(load!(
                csum_tc::CsumTcSkelBuilder::default(),
                storage,
                update
            )),
            Hook::Xdp => Skel::Xdp(load!(
                csum_xdp::CsumXdpSkelBuilder::default(),
                storage,
                update
            )),
        };
        Ok(Self { skel })
    }

    /// Runs the program on `frame`, of which at most `linear` bytes lie in the linear part. Each
    /// write must have an update, because the sum over an skb is checked as well.
    ///
    /// # Errors
    /// If there are more than [`MAX_CHANGES`], if the kernel refuses the frame, or if the sum over
    /// the skb (`CHECKSUM_COMPLETE`) is wrong afterwards.
    pub fn run(
        &mut self,
        frame: &[u8],
        linear: Option<usize>,
        changes: &[Change],
    ) -> Result<Outcome> {
        if changes.len() > MAX_CHANGES {
            return Err(Error::Packet(format!(
                "more than {MAX_CHANGES} changes in a run"
            )));
        }
        match &mut self.skel {
            Skel::Tc(skel) => set_changes!(skel, changes),
            Skel::Xdp(skel) => set_changes!(skel, changes),
        }
        let frame = self.test_run(frame, linear)?;
        let results = match &self.skel {
            Skel::Tc(skel) => results!(skel, changes.len()),
            Skel::Xdp(skel) => results!(skel, changes.len()),
        };
        Ok(Outcome { frame, results })
    }

    fn test_run(&self, frame: &[u8], linear: Option<usize>) -> Result<Vec<u8>> {
        let mut out = vec![0; frame.len()];
        let mut context = linear.map(|linear| split_context(self.hook(), linear));
        let input = ProgramInput {
            data_in: Some(frame),
            data_out: Some(&mut out),
            context_in: context.as_deref_mut(),
            flags: self.flags(),
            ..Default::default()
        };
        let output = match &self.skel {
            Skel::Tc(skel) => skel.progs.csum_tc.test_run(input),
            Skel::Xdp(skel) => skel.progs.csum_xdp.test_run(input),
        };
        let len = output
            .bpf(|| {
                format!(
                    "BPF_PROG_TEST_RUN on {} bytes, linear {linear:?}",
                    frame.len()
                )
            })?
            .data
            .map_or(0, |data| data.len());
        out.truncate(len);
        Ok(out)
    }

    /// An skb has `CHECKSUM_COMPLETE`, and the kernel answers `EBADMSG` if `skb->csum` is not
    /// right afterwards.
    fn flags(&self) -> u32 {
        match &self.skel {
            Skel::Tc(_) => libbpf_sys::BPF_F_TEST_SKB_CHECKSUM_COMPLETE,
            Skel::Xdp(_) => 0,
        }
    }

    fn hook(&self) -> Hook {
        match &self.skel {
            Skel::Tc(_) => Hook::Tc,
            Skel::Xdp(_) => Hook::Xdp,
        }
    }
}

/// The context of a run in which the first `linear` bytes of the frame lie apart from the others.
pub(crate) fn split_context(hook: Hook, linear: usize) -> Vec<u8> {
    let (size, data_end) = match hook {
        Hook::Tc => (
            size_of::<csum_tc::types::__sk_buff>(),
            std::mem::offset_of!(csum_tc::types::__sk_buff, data_end),
        ),
        Hook::Xdp => (
            size_of::<csum_xdp::types::xdp_md>(),
            std::mem::offset_of!(csum_xdp::types::xdp_md, data_end),
        ),
    };
    let mut context = vec![0; size];
    context[data_end..data_end + 4].copy_from_slice(&(linear as u32).to_ne_bytes());
    context
}
