// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Loads the load balancer's programs, and prints what the verifier had to look at: a row of
//! `docs/sctp-lb.md`, for each program, on the kernel that this runs on.

use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use bpf_sctp::csum_prog::Hook;
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::datapath::{Datapath, Options};
use bpf_sctp::lb::maps::Sizes;
use libbpf_rs::query::ProgInfoIter;

/// The programs, as the kernel cuts their names.
const PROGRAMS: [&str; 2] = ["sctp_lb", "sctp_lb_egress"];

fn main() -> Result<()> {
    let release = nix::sys::utsname::uname().context("uname")?;
    let release = release.release().to_string_lossy().into_owned();
    let update = if Feature::Kfunc.available() {
        "kfunc"
    } else {
        "pure BPF"
    };
    for (hook, name) in [(Hook::Tc, "tc"), (Hook::Xdp, "XDP")] {
        let mut storage = MaybeUninit::uninit();
        let options = Options {
            sizes: Sizes {
                assocs: 64,
                ..Default::default()
            },
            ..Default::default()
        };
        let _datapath = Datapath::load(hook, &options, &mut storage)?;
        for program in ProgInfoIter::default() {
            let program_name = program.name.to_string_lossy();
            if PROGRAMS.contains(&program_name.as_ref()) {
                println!(
                    "| {release} | {update} | {name} | `{program_name}` | {} |",
                    program.verified_insns
                );
            }
        }
    }
    Ok(())
}
