// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Measures what a translation of ports costs with each way to fix the checksum, and reports it.

mod plot;
mod report;

use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bpf_sctp::bench::{LENGTHS, measure, packet, works};
use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::memory::memory_per_association;
use bpf_sctp::path_bench::Path;
use bpf_sctp::population::Population;
use bpf_sctp::way::{Node, Way, Who};
use bpf_sctp::{bench, iperf_bench};
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// Measures what a translation of ports costs with each way to fix the checksum.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure on this kernel, and print a line of JSON for each.
    Measure {
        /// Runs on each packet; an even number, so that the ports are what they were.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
        repeat: u32,
        /// Measure all of it so many times.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Measure whole paths on this kernel, and print a line of JSON for each.
    Paths {
        /// Measure all of it so many times.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
        /// Only ways whose title contains this, or one of these.
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: Vec<String>,
    },
    /// Measure what sctp-lb in tc takes as there is more for it to keep.
    Growth {
        /// Measure all of it so many times.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Measure what iperf3 --sctp takes for a KiB, through each way.
    Iperf3 {
        /// Measure all of it so many times.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Print the bytes in each of sctp-lb's maps for an association.
    Memory,
    /// Make tables, and a plot, of what was measured.
    Report {
        /// What was measured in a guest whose clock counts instructions.
        #[arg(long, value_name = "FILE")]
        instructions: PathBuf,
        /// The same once more.
        #[arg(long, value_name = "FILE")]
        again: PathBuf,
        /// Whole paths on a processor without CRC instructions.
        #[arg(long, value_name = "FILE")]
        plain: PathBuf,
        /// What was measured on this machine, in several rounds.
        #[arg(long, value_name = "FILE")]
        native: PathBuf,
        /// Where to put the plot.
        #[arg(long, value_name = "FILE.svg")]
        plot: Option<PathBuf>,
    },
}

/// A measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    hook: String,
    way: String,
    /// Bytes of the SCTP packet.
    len: usize,
    /// By the kernel's clock: instructions of the guest under -icount.
    ns: u64,
}

/// The hook of a line about a whole path.
const PATH: &str = "path";
/// What is not the path: from the source of the packets to the node.
const PATH_START: &str = "to the node";
/// Lengths of SCTP packets on whole paths: a frame has no more than a page.
const PATH_LENGTHS: [usize; 4] = [64, 256, 576, 1500];

/// The hook of a line about iperf3.
const IPERF3: &str = "iperf3";

/// The hooks of lines about growth, whose `len` is a number of things, not of bytes.
const GROWTH_DATA: &str = "growth, DATA";
const GROWTH_INIT: &str = "growth, INIT";
/// Length of the DATA packet.
const GROWTH_LEN: usize = 576;
/// Of the things that there are more of.
const NUMBERS: [usize; 4] = [1, 100, 10_000, 100_000];

fn measure_all(repeat: u32, rounds: u32) -> Result<()> {
    // Interleaved, so that what disturbs a round disturbs all ways alike.
    for _ in 0..rounds {
        for len in LENGTHS {
            let frame = packet(len)?;
            for (hook, name) in [(Hook::Tc, "tc"), (Hook::Xdp, "XDP")] {
                for way in bench::Way::ALL {
                    let too_long = len > 3000 && !Feature::SplitTestRun.available();
                    if too_long || !works(hook, way, &frame) {
                        continue;
                    }
                    // Of what takes a hundred times as long, fewer do.
                    let repeat = match way {
                        bench::Way::Recompute if len > 4000 => repeat.div_ceil(100) * 2,
                        _ => repeat & !1,
                    };
                    let line = Line {
                        hook: name.into(),
                        way: way.title().into(),
                        len,
                        ns: measure(hook, way, &frame, repeat)?.as_nanos() as u64,
                    };
                    println!("{}", serde_json::to_string(&line)?);
                }
            }
        }
    }
    Ok(())
}

fn print_line(hook: &str, way: &str, len: usize, took: Duration) -> Result<()> {
    let line = Line {
        hook: hook.into(),
        way: way.into(),
        len,
        ns: took.as_nanos() as u64,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

fn measure_paths(rounds: u32, only: &[String]) -> Result<()> {
    let ways = Way::all().into_iter();
    let wanted = |way: &Way| only.iter().any(|text| way.title().contains(text));
    for way in ways.filter(wanted) {
        let mut storage = MaybeUninit::uninit();
        let mut path = Path::new(way, &Population::default(), &mut storage)
            .with_context(|| format!("set up {}", way.title()))?;
        for len in PATH_LENGTHS {
            path.verify(len)?;
            for _ in 0..rounds {
                print_line(PATH, &way.title(), len, path.measure(len)?)?;
                if way.who == Who::Nobody {
                    print_line(PATH, PATH_START, len, path.measure_start(len)?)?;
                }
            }
        }
    }
    Ok(())
}

fn growing(kind: &str, number: u32) -> Population {
    let mut population = Population::default();
    let of_kind = match kind {
        "services" => &mut population.services,
        "backends" => &mut population.backends,
        "policies" => &mut population.policies,
        _ => &mut population.associations,
    };
    *of_kind = number;
    population
}

fn measure_growth(rounds: u32) -> Result<()> {
    let way = Way {
        who: Who::Lb(Hook::Tc, Update::Bpf),
        port: true,
    };
    let nobody = Way {
        who: Who::Nobody,
        port: false,
    };
    let mut storage = MaybeUninit::uninit();
    let mut path = Path::new(nobody, &Population::default(), &mut storage)?;
    for _ in 0..rounds {
        print_line(GROWTH_DATA, PATH_START, 0, path.measure_start(GROWTH_LEN)?)?;
        print_line(GROWTH_INIT, PATH_START, 0, path.measure_init_start()?)?;
    }
    drop(path);
    for kind in ["services", "backends", "policies", "associations"] {
        for number in NUMBERS {
            let population = growing(kind, number as u32);
            let mut storage = MaybeUninit::uninit();
            let mut path = Path::new(way, &population, &mut storage)
                .with_context(|| format!("set up {number} {kind}"))?;
            for _ in 0..rounds {
                print_line(GROWTH_DATA, kind, number, path.measure(GROWTH_LEN)?)?;
                print_line(GROWTH_INIT, kind, number, path.measure_init()?)?;
            }
        }
    }
    Ok(())
}

fn measure_iperf3(rounds: u32) -> Result<()> {
    for way in Way::all() {
        let node = Node::new(way, &Population::default())
            .with_context(|| format!("set up {}", way.title()))?;
        for _ in 0..rounds {
            print_line(IPERF3, &way.title(), 1024, iperf_bench::measure(&node)?)?;
        }
    }
    Ok(())
}

fn print_memory() -> Result<()> {
    println!("| map | bytes |\n|---|---:|");
    for (map, bytes) in memory_per_association(1 << 16)? {
        println!("| `{map}` | {bytes} |");
    }
    Ok(())
}

fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Measure { repeat, rounds } => measure_all(repeat, rounds),
        Command::Paths { rounds, only } => measure_paths(rounds, &only),
        Command::Iperf3 { rounds } => measure_iperf3(rounds),
        Command::Memory => print_memory(),
        Command::Growth { rounds } => measure_growth(rounds),
        Command::Report {
            instructions,
            again,
            plain,
            native,
            plot,
        } => report::report(&instructions, &again, &plain, &native, plot.as_deref()),
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sctp-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
