// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Loads the programs of `bpf/lb_tc.bpf.c` and `bpf/lb_xdp.bpf.c`, with maps of their own or those
//! that are pinned.

use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, Skel as _, SkelBuilder};
use libbpf_rs::{MapCore, MapHandle, OpenMapMut, OpenObject, ProgramImpl, ProgramInput};

use super::conntrack::State;
use super::maps::{Maps, Sizes, check_pinned_layout};
use crate::csum_prog::{Hook, Update, split_context};
use crate::error::{BpfDoing, Doing, Error, Result};
use crate::feature::Feature;
use crate::skel::{lb_tc, lb_xdp};

/// How to load the programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// What updates a checksum: the kernel if it can, else BPF; or always BPF.
    pub update: Option<Update>,
    /// Timeouts that differ from those of `bpf/conntrack.h`.
    pub timeouts: Vec<(State, Duration)>,
    /// How long a backend that drains must have been silent until a client that restarts gets
    /// another, unless it is as `bpf/conntrack.h` has it, or a third of the timeout of
    /// [`State::Established`] if that is longer.
    pub silence: Option<Duration>,
    /// Sizes of maps that are not pinned yet.
    pub sizes: Sizes,
    /// Where the maps are pinned, or to be pinned. Without it they end with the programs.
    pub pins: Option<PathBuf>,
}

enum Skel<'obj> {
    Tc(lb_tc::LbTcSkel<'obj>),
    Xdp(lb_xdp::LbXdpSkel<'obj>),
}

/// The programs of a hook, loaded.
pub struct Datapath<'obj> {
    skel: Skel<'obj>,
    maps: Maps,
}

impl std::fmt::Debug for Datapath<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath")
            .field("maps", &self.maps)
            .finish_non_exhaustive()
    }
}

/// What a program makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, changed or not.
    Pass(Vec<u8>),
    /// It is dropped.
    Drop,
}

/// The most that a program adds to a packet: eight addresses (`bpf/params.h`).
const MAX_GROWTH: usize = 8 * 20;
/// `TC_ACT_SHOT` of `linux/pkt_cls.h`.
const TC_ACT_SHOT: u32 = 2;
/// `XDP_DROP` of `linux/bpf.h`.
const XDP_DROP: u32 = 1;

/// What only one program uses is its own: it is not shared between hooks.
fn is_shared(map: &str) -> bool {
    const OWN: [&str; 4] = ["openings", "ways", "added_params", "asconf_params"];
    !map.contains('.') && !OWN.contains(&map)
}

/// A map that is pinned has the size that it has; another gets the one that is wanted.
fn prepare_map(map: &mut OpenMapMut<'_>, options: &Options) -> Result<()> {
    let name = map.name().to_string_lossy().into_owned();
    if !is_shared(&name) {
        return Ok(());
    }
    let doing = || format!("prepare the map {name}");
    let mut size = options.sizes.of(&name);
    if let Some(pins) = &options.pins {
        let path = pins.join(&name);
        if path.exists() {
            let pinned = MapHandle::from_pinned_path(&path).bpf(doing)?;
            size = Some(pinned.max_entries());
        }
        map.set_pin_path(&path).bpf(doing)?;
    }
    if let Some(size) = size {
        map.set_max_entries(size).bpf(doing)?;
    }
    Ok(())
}

macro_rules! load {
    ($builder:expr, $storage:expr, $options:expr) => {{
        let mut open = $builder
            .open($storage)
            .bpf(|| "open the load balancer".into())?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.csum_in_bpf = $options.update == Some(Update::Bpf);
            for (state, timeout) in &$options.timeouts {
                rodata.timeouts[*state as usize] = millis(*timeout)?;
            }
            rodata.silence = match $options.silence {
                Some(silence) => millis(silence)?,
                // Who is kept for longer may also have less to say.
                None => {
                    let kept = rodata.timeouts[State::Established as usize];
                    rodata.silence.max(kept / 3)
                }
            };
        }
        for mut map in open.open_object_mut().maps_mut() {
            prepare_map(&mut map, $options)?;
        }
        open.load().bpf(|| "load the load balancer".into())?
    }};
}

fn millis(timeout: Duration) -> Result<u32> {
    u32::try_from(timeout.as_millis())
        .map_err(|_| Error::Packet(format!("a timeout of {timeout:?} is too long")))
}

impl<'obj> Datapath<'obj> {
    /// Loads the programs for `hook` into `storage`, which must outlive them.
    ///
    /// # Errors
    /// If the kernel lacks BTF, or the kfunc where it is asked for, or refuses the program, or
    /// what is pinned is of another version.
    pub fn load(
        hook: Hook,
        options: &Options,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self> {
        Feature::Root.require()?;
        Feature::Btf.require()?;
        if options.update == Some(Update::Kfunc) {
            Feature::Kfunc.require()?;
        }
        if let Some(pins) = &options.pins {
            std::fs::create_dir_all(pins)
                .doing(|| format!("make {} (is bpffs mounted?)", pins.display()))?;
            check_pinned_layout(pins)?;
        }
        let skel = match hook {
            Hook::Tc => Skel::Tc(load!(lb_tc::LbTcSkelBuilder::default(), storage, options)),
            Hook::Xdp => Skel::Xdp(load!(lb_xdp::LbXdpSkelBuilder::default(), storage, options)),
        };
        let maps = Maps::of_object(match &skel {
            Skel::Tc(skel) => skel.object(),
            Skel::Xdp(skel) => skel.object(),
        })?;
        maps.check_layout()?;
        Ok(Self { skel, maps })
    }

    /// The maps, to be read and written.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The program for packets that come in.
    pub(crate) fn ingress(&self) -> &ProgramImpl<'obj, libbpf_rs::Mut> {
        match &self.skel {
            Skel::Tc(skel) => &skel.progs.sctp_lb,
            Skel::Xdp(skel) => &skel.progs.sctp_lb,
        }
    }

    /// The program for packets that go out: for ICMP errors of this node, in tc only.
    pub(crate) fn egress(&self) -> Option<&ProgramImpl<'obj, libbpf_rs::Mut>> {
        match &self.skel {
            Skel::Tc(skel) => Some(&skel.progs.sctp_lb_egress),
            Skel::Xdp(_) => None,
        }
    }

    /// Runs the ingress program on `frame` alone, attached or not. In tc, the kernel also checks
    /// the sum over the skb (`CHECKSUM_COMPLETE`) afterwards.
    ///
    /// # Errors
    /// If the kernel refuses the frame, or the sum over the skb is wrong afterwards.
    pub fn run(&self, frame: &[u8]) -> Result<Verdict> {
        self.run_program(self.ingress(), frame, true, None)
    }

    /// As [`Datapath::run`], with the first `linear` bytes apart from the others, which are in
    /// other pages.
    ///
    /// # Errors
    /// As there; and if the kernel's `BPF_PROG_TEST_RUN` takes no skb in pieces.
    pub fn run_in_pieces(&self, frame: &[u8], linear: usize) -> Result<Verdict> {
        Feature::SplitTestRun.require()?;
        self.run_program(self.ingress(), frame, true, Some(linear))
    }

    /// As [`Datapath::run`], for a packet to which bytes are added: the kernel gives up the sum
    /// over the skb then, which is not checked.
    ///
    /// # Errors
    /// If the kernel refuses the frame.
    pub fn run_growing(&self, frame: &[u8]) -> Result<Verdict> {
        self.run_program(self.ingress(), frame, false, None)
    }

    /// Runs the egress program, as [`Datapath::run`] does the other.
    ///
    /// # Errors
    /// As there; and if the hook has no such program.
    pub fn run_egress(&self, frame: &[u8]) -> Result<Verdict> {
        let program = self
            .egress()
            .ok_or_else(|| Error::Packet("XDP has no egress".into()))?;
        self.run_program(program, frame, true, None)
    }

    fn run_program(
        &self,
        program: &ProgramImpl<'obj, libbpf_rs::Mut>,
        frame: &[u8],
        check_sum: bool,
        linear: Option<usize>,
    ) -> Result<Verdict> {
        let hook = match &self.skel {
            Skel::Tc(_) => Hook::Tc,
            Skel::Xdp(_) => Hook::Xdp,
        };
        let mut context = linear.map(|linear| split_context(hook, linear));
        let (flags, drop) = match &self.skel {
            Skel::Tc(_) if check_sum => (libbpf_sys::BPF_F_TEST_SKB_CHECKSUM_COMPLETE, TC_ACT_SHOT),
            Skel::Tc(_) => (0, TC_ACT_SHOT),
            Skel::Xdp(_) => (0, XDP_DROP),
        };
        let mut out = vec![0; frame.len() + MAX_GROWTH];
        let input = ProgramInput {
            data_in: Some(frame),
            data_out: Some(&mut out),
            context_in: context.as_deref_mut(),
            flags,
            ..Default::default()
        };
        let output = program
            .test_run(input)
            .bpf(|| format!("BPF_PROG_TEST_RUN on {} bytes", frame.len()))?;
        if output.return_value == drop {
            return Ok(Verdict::Drop);
        }
        let len = output.data.map_or(frame.len(), |data| data.len());
        out.truncate(len);
        Ok(Verdict::Pass(out))
    }
}
