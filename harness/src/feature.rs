// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What the running kernel and user can do, and what to do where they can't.

use std::path::Path;

use libbpf_rs::btf::{Btf, types::Func};
use nix::unistd::Uid;
use socket2::{Domain, Protocol, Socket, Type};

/// Something that the harness needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Root: BPF, namespaces, packet sockets.
    Root,
    /// The kernel's own types, for CO-RE and kfuncs.
    Btf,
    /// `bpf_sctp_csum_update()` and `bpf_xdp_sctp_csum_update()`.
    Kfunc,
    /// The kfuncs of `kernel-patches/v7.3-bench`.
    BenchKfuncs,
    /// SCTP sockets.
    Sctp,
    /// `BPF_PROG_TEST_RUN` on packets that lie in pieces, or do not fit a page.
    SplitTestRun,
}

/// A feature that is missing, with the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Missing(pub Feature);

impl Missing {
    fn text(&self) -> &'static str {
        match self.0 {
            Feature::Root => "this needs root: run it with sudo",
            Feature::Btf => {
                "the kernel has no BTF (/sys/kernel/btf/vmlinux): it needs \
                 CONFIG_DEBUG_INFO_BTF=y, or run this in the VM (scripts/test)"
            }
            Feature::Kfunc => {
                "the kernel has no bpf_sctp_csum_update(): run this on the patched kernel \
                 (scripts/test, or scripts/vm --kernel patched)"
            }
            Feature::BenchKfuncs => {
                "the kernel is not the one for benchmarks: run scripts/bench, or \
                 scripts/vm --kernel patched --base v7.3-bench"
            }
            Feature::SplitTestRun => {
                "the kernel's BPF_PROG_TEST_RUN takes no skb in pieces (since Linux 7.0): run \
                 this in the VM (scripts/test)"
            }
            Feature::Sctp => {
                "the kernel has no SCTP sockets: load the sctp module, build it with \
                 CONFIG_IP_SCTP, or run this in the VM (scripts/demo, scripts/test)"
            }
        }
    }
}

const KFUNCS: [&str; 2] = ["bpf_sctp_csum_update", "bpf_xdp_sctp_csum_update"];
const BENCH_KFUNCS: [&str; 2] = ["bpf_bench_sctp_recompute", "bpf_bench_sctp_two_passes"];

fn has_kfuncs(names: &[&str]) -> bool {
    Btf::from_vmlinux().is_ok_and(|btf| {
        names
            .iter()
            .all(|name| btf.type_by_name::<Func>(name).is_some())
    })
}

fn has_sctp() -> bool {
    const IPPROTO_SCTP: i32 = 132;
    Socket::new(
        Domain::IPV4,
        Type::STREAM,
        Some(Protocol::from(IPPROTO_SCTP)),
    )
    .is_ok()
}

impl Feature {
    /// Whether the feature is there.
    pub fn available(self) -> bool {
        match self {
            Feature::Root => Uid::effective().is_root(),
            Feature::Btf => Path::new("/sys/kernel/btf/vmlinux").exists(),
            Feature::Kfunc => has_kfuncs(&KFUNCS),
            Feature::BenchKfuncs => has_kfuncs(&BENCH_KFUNCS),
            Feature::Sctp => has_sctp(),
            Feature::SplitTestRun => crate::csum_prog::takes_pieces(),
        }
    }

    /// # Errors
    /// [`Missing`] if the feature is not there.
    pub fn require(self) -> Result<(), Missing> {
        if self.available() {
            Ok(())
        } else {
            Err(Missing(self))
        }
    }
}
