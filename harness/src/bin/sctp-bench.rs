// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Measures what a translation of ports costs with each way to fix the checksum.

use std::process::ExitCode;

use anyhow::Result;
use bpf_sctp::bench::{LENGTHS, Way, measure, packet, works};
use bpf_sctp::csum_prog::Hook;
use bpf_sctp::feature::Feature;
use clap::Parser;
use serde::Serialize;

/// Measures what a translation of ports costs with each way to fix the checksum. Prints a line of
/// JSON for each.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Runs on each packet: an even number, so that the ports are what they were.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    repeat: u32,
    /// Measure each so many times.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
}

#[derive(Debug, Serialize)]
struct Line {
    hook: &'static str,
    way: &'static str,
    len: usize,
    /// By the kernel's clock: instructions of the guest under -icount.
    ns: u128,
}

fn run(args: &Args) -> Result<()> {
    // Interleaved, so that what disturbs one round disturbs all ways alike.
    for _ in 0..args.rounds {
        for len in LENGTHS {
            let frame = packet(len)?;
            for (hook, name) in [(Hook::Tc, "tc"), (Hook::Xdp, "xdp")] {
                for way in Way::ALL {
                    let missing = way == Way::Kfunc && !Feature::Kfunc.available();
                    let too_long = len > 3000 && !Feature::SplitTestRun.available();
                    if missing || too_long || !works(hook, way, &frame) {
                        continue;
                    }
                    // Of what takes a hundred times as long, fewer do.
                    let repeat = match way {
                        Way::Recompute if len > 4000 => args.repeat.div_ceil(100) * 2,
                        _ => args.repeat & !1,
                    };
                    let line = Line {
                        hook: name,
                        way: way.title(),
                        len,
                        ns: measure(hook, way, &frame, repeat)?.as_nanos(),
                    };
                    println!("{}", serde_json::to_string(&line)?);
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sctp-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
