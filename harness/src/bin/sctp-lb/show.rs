// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb get`, `stats` and `status`.

use std::io::Write;

use anyhow::Result;
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::Pins;
use bpf_sctp::lb::conntrack::Association;
use bpf_sctp::lb::inventory::PolicyEntry;
use clap::ValueEnum;
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::Output;

/// What `get` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Addresses and ports of services.
    Services,
    /// Backends, and whether they drain.
    Backends,
    /// Who may associate with whom.
    Policies,
    /// Associations.
    Conntrack,
}

/// Prints a list: as a document, or as a table with these columns.
fn print<T: Serialize>(
    list: &[T],
    output: Output,
    columns: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer(&mut out, list)?;
        writeln!(out)?;
        return Ok(());
    }
    let mut builder = Builder::new();
    builder.push_record(columns.iter().copied());
    for entry in list {
        builder.push_record(row(entry));
    }
    let mut table = builder.build();
    table.with(Style::blank());
    writeln!(out, "{table}")?;
    Ok(())
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_string()
}

fn ports(entry: &PolicyEntry) -> String {
    let ranges = entry
        .ports
        .iter()
        .map(|(first, last)| match (*first, *last) {
            (0, u16::MAX) => "all".to_string(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
    let ranges: Vec<_> = ranges.collect();
    if ranges.is_empty() {
        return "none".into();
    }
    ranges.join(",")
}

fn association(assoc: &Association) -> Vec<String> {
    vec![
        assoc.state.to_string(),
        assoc.original.source.to_string(),
        assoc.original.dest.to_string(),
        assoc.translated.source.to_string(),
        assoc.translated.dest.to_string(),
        format!("{}/{}", assoc.packets[0], assoc.packets[1]),
        format!("{}s", assoc.age.as_secs()),
        format!("{}s", assoc.expires_in.as_secs()),
    ]
}

/// `sctp-lb get`.
pub fn get(maps: &Maps, what: What, output: Output) -> Result<()> {
    match what {
        What::Services => print(
            &maps.service_list()?,
            output,
            &["SERVICE", "FRONTEND", "BACKENDS", "MASQUERADE", "AFFINITY"],
            |s| {
                let affinity = match s.affinity {
                    0 => "none".into(),
                    seconds => format!("{seconds}s"),
                };
                vec![
                    s.service.clone(),
                    s.frontend.to_string(),
                    s.backends.to_string(),
                    yes_or_no(s.masquerade),
                    affinity,
                ]
            },
        ),
        What::Backends => print(
            &maps.backend_list()?,
            output,
            &["SERVICE", "BACKEND", "DRAINING", "ASSOCIATIONS"],
            |b| {
                vec![
                    b.service.clone(),
                    b.backend.to_string(),
                    yes_or_no(b.draining),
                    b.associations.to_string(),
                ]
            },
        ),
        What::Policies => print(
            &maps.policy_list()?,
            output,
            &["ENDPOINT", "DIRECTION", "PEERS", "PORTS"],
            |p| {
                let peers = p.peers.map_or("nobody".into(), |net| net.to_string());
                vec![p.endpoint.to_string(), p.direction.clone(), peers, ports(p)]
            },
        ),
        What::Conntrack => print(
            &maps.associations()?,
            output,
            &[
                "STATE", "CLIENT", "SERVICE", "AS", "BACKEND", "PACKETS", "AGE", "EXPIRES",
            ],
            association,
        ),
    }
}

/// `sctp-lb stats`.
pub fn stats(maps: &Maps, output: Output) -> Result<()> {
    let stats = maps.stats()?;
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer(&mut out, &stats)?;
        writeln!(out)?;
        return Ok(());
    }
    for (name, value) in stats.iter() {
        writeln!(out, "{value:>12} {name}")?;
    }
    Ok(())
}

/// `sctp-lb status`.
pub fn status(pins: &Pins, output: Output) -> Result<()> {
    let attached = pins.attached()?;
    let update = if Feature::Kfunc.available() {
        "kfunc"
    } else {
        "pure BPF"
    };
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        let report = serde_json::json!({ "attached": attached, "checksum_update": update });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "checksum update: {update}")?;
    if attached.is_empty() {
        writeln!(out, "not attached")?;
    }
    for found in attached {
        writeln!(out, "attached: {} at {}", found.device, found.point)?;
    }
    Ok(())
}
