// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb`: service load balancing and network policy for SCTP, in eBPF.

mod apply;
mod attach;
mod monitor;
mod share;
mod show;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::{PINS, Pins};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Service load balancing and network policy for SCTP, in eBPF.
///
/// The programs and all they know stay in the kernel when a command ends. Exit codes: 0, it is
/// done; 1, it could not be done, and why is said; 2, the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "sctp-lb", version)]
struct Args {
    /// The folder, on bpffs, of this load balancer's maps and links.
    #[arg(long, global = true, env = "SCTP_LB_PINS", default_value = PINS)]
    pins: PathBuf,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs: one document, or a line for each event.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach to devices, or replace the program of those that have it.
    Attach(attach::Attach),
    /// Detach from devices.
    Detach(attach::Detach),
    /// Make the load balancer do what manifests say, and nothing else.
    Apply(apply::Apply),
    /// List services, backends, policies or associations.
    Get {
        /// What to list.
        #[arg(value_enum)]
        what: show::What,
    },
    /// Print the counters: what was passed, and for which reason what was dropped.
    Stats,
    /// Say where it is attached, what updates checksums, and how full its maps are.
    Status,
    /// Print new associations, their states, and drops, as they happen.
    Monitor(monitor::Monitor),
    /// Tell other nodes of this node's associations, and learn of theirs, until it is stopped.
    Share(share::Share),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// An address of one host, for a flag.
fn parse_address(text: &str) -> Result<IpAddr> {
    Ok(bpf_sctp::lb::manifests::parse_address(text)?)
}

/// Ends it as clap does if the command line is wrong.
fn usage_error(problem: &str) -> ! {
    Args::command()
        .error(clap::error::ErrorKind::ValueValidation, problem)
        .exit()
}

fn run(args: Args) -> Result<()> {
    if !matches!(args.command, Command::Completions { .. }) {
        Feature::Root.require()?;
    }
    let pins = || Pins::new(&args.pins);
    let maps = || Maps::pinned(pins()?.folder());
    match args.command {
        Command::Attach(attach) => {
            let pins = pins()?;
            let _lock = pins.lock()?;
            attach.run(&pins)
        }
        Command::Detach(detach) => {
            let pins = pins()?;
            let _lock = pins.lock()?;
            detach.run(&pins)
        }
        Command::Apply(apply) => {
            let maps = maps()?;
            let _lock = pins()?.lock()?;
            apply.run(&maps, args.output)
        }
        Command::Get { what } => show::get(&maps()?, what, args.output),
        Command::Stats => show::stats(&maps()?, args.output),
        Command::Status => show::status(&pins()?, args.output),
        Command::Monitor(monitor) => {
            let maps = maps()?;
            let _lock = pins()?.lock_events()?;
            monitor.run(&maps, args.output)
        }
        Command::Share(share) => share.run(&pins()?),
        Command::Completions { shell } => {
            let mut command = Args::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "sctp-lb", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
    }
}

/// What a file says must not command the terminal.
fn printable(text: &str) -> String {
    let is_command = |c: char| c.is_control() && c != '\n';
    let chars = text.chars().map(|c| match c {
        c if is_command(c) => c.escape_default().to_string(),
        c => c.to_string(),
    });
    chars.collect()
}

/// Says what is not output. Who does not want to hear it does not keep it from being done.
fn tell(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", printable(&text.to_string()));
}

/// Whether the reader of our output has left, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("sctp-lb: {error}"));
            ExitCode::FAILURE
        }
    }
}
