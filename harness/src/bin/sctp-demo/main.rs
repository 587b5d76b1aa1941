// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Shows an SCTP association through the port-translating program, and what becomes of it
//! without the checksum update.

mod failover;
mod operator;
mod shell;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bpf_sctp::capture::{Counts, Report};
use bpf_sctp::feature::Feature;
use bpf_sctp::lab::{Family, Lab};
use bpf_sctp::scenario::{BACKEND_PORT, Outcome, Scenario, VIP_PORT};
use bpf_sctp::translator::CsumMode;
use clap::Parser;
use tabled::settings::object::{Columns, Object, Rows};
use tabled::settings::{Alignment, Style};
use tabled::{Table, Tabled};

/// Shows a kernel SCTP association through the port-translating BPF program.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// MiB of payload each way.
    #[arg(long, default_value_t = 16)]
    mib: usize,
    /// The kind of update that this kernel should bring about; fail if it is another.
    #[arg(long, value_parser = ["kfunc", "pure BPF"])]
    expect: Option<String>,
}

#[derive(Tabled)]
struct Row {
    #[tabled(rename = "IP")]
    family: Family,
    #[tabled(rename = "SCTP CRC by")]
    filled_by: &'static str,
    #[tabled(rename = "update")]
    update: &'static str,
    #[tabled(rename = "packets at\nclient")]
    client: u64,
    #[tabled(rename = "\nbackend")]
    backend: u64,
    #[tabled(rename = "checksums\nverified")]
    good: u64,
    #[tabled(rename = "\nbad")]
    bad: u64,
    #[tabled(rename = "\noffloaded")]
    offloaded: u64,
    #[tabled(rename = "SctpChecksumErrors\nclient/backend")]
    errors: String,
    #[tabled(rename = "payload")]
    payload: &'static str,
    #[tabled(rename = "as it should")]
    verdict: &'static str,
}

fn total(outcome: &Outcome, of: impl Fn(&Counts) -> u64) -> u64 {
    [&outcome.client, &outcome.backend]
        .into_iter()
        .flat_map(|report| [&report.sent, &report.received])
        .map(of)
        .sum()
}

fn packets(report: &Report) -> u64 {
    report.sent.packets + report.received.packets
}

impl Row {
    fn new(scenario: &Scenario, outcome: &Outcome) -> Self {
        Self {
            family: scenario.family,
            filled_by: if scenario.offload { "device" } else { "stack" },
            update: outcome.update_kind().unwrap_or("?"),
            client: packets(&outcome.client),
            backend: packets(&outcome.backend),
            good: total(outcome, |counts| counts.good),
            bad: total(outcome, |counts| counts.bad),
            offloaded: total(outcome, |counts| counts.offloaded),
            errors: format!("{}/{}", outcome.client_errors, outcome.backend_errors),
            payload: match outcome.intact {
                Ok(true) => "intact",
                Ok(false) => "CHANGED",
                Err(_) => "none",
            },
            verdict: if outcome.complaints().is_empty() {
                "yes"
            } else {
                "NO"
            },
        }
    }
}

/// The translations in all their forms, then the control.
fn scenarios(payload: usize) -> Vec<Scenario> {
    let families = [Family::V4, Family::V6];
    let scenario = |family, offload, mode| Scenario {
        family,
        offload,
        mode,
        payload,
    };
    let mut scenarios = Vec::new();
    for family in families {
        for offload in [true, false] {
            scenarios.push(scenario(family, offload, CsumMode::Auto));
        }
    }
    for family in families {
        scenarios.push(scenario(family, false, CsumMode::Skip));
    }
    scenarios
}

/// Says what is going on, where somebody watches.
fn progress(text: &str) -> Result<()> {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        write!(out, "\r\x1b[K{text}")?;
        out.flush()?;
    }
    Ok(())
}

fn run(args: &Args) -> Result<bool> {
    Feature::Root.require()?;
    Feature::Btf.require()?;
    Feature::Sctp.require()?;
    let release = nix::sys::utsname::uname().context("uname")?;
    println!(
        "Linux {}: client -> VIP:{VIP_PORT} -> translator -> backend:{BACKEND_PORT}, {} MiB each way",
        release.release().to_string_lossy(),
        args.mib
    );
    let lab = Lab::new()?;
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    for scenario in scenarios(args.mib << 20) {
        progress(&format!("{scenario:?}"))?;
        let outcome = scenario.run(&lab)?;
        complaints.extend(
            outcome
                .complaints()
                .into_iter()
                .map(|c| format!("{scenario:?}: {c}")),
        );
        if let (Some(expected), CsumMode::Auto) = (&args.expect, scenario.mode)
            && outcome.update_kind() != Some(expected)
        {
            complaints.push(format!("{scenario:?}: the update is not by {expected}"));
        }
        rows.push(Row::new(&scenario, &outcome));
    }
    progress("")?;
    let mut table = Table::new(rows);
    table.with(Style::sharp()).modify(
        Columns::new(3..9).intersect(Rows::new(1..)),
        Alignment::right(),
    );
    println!("{table}");
    println!(
        "The last two are the control: ports are translated, the checksum is not updated, and \
         there must be no association.\n"
    );
    println!("The load balancer, as its operator sees it:\n");
    if let Err(error) = operator::show(&lab) {
        complaints.push(format!("sctp-lb: {error:#}"));
    }
    println!(
        "\nAn association with two addresses on each side, in two planes, of which one is cut:\n"
    );
    if let Err(error) = failover::show() {
        complaints.push(format!("failover: {error:#}"));
    }
    println!();
    for complaint in &complaints {
        eprintln!("sctp-demo: {complaint}");
    }
    Ok(complaints.is_empty())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sctp-demo: {error:#}");
            ExitCode::from(2)
        }
    }
}
