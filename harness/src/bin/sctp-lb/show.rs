// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb get`, `stats` and `status`.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use bpf_sctp::feature::Feature;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::{Attached, Pins};
use bpf_sctp::lb::conntrack::{Association, PathEntry};
use bpf_sctp::lb::inventory::{BackendEntry, PolicyEntry, Room};
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
    /// Associations. AS is the client as its backend sees it; PACKETS are to the backend, and to
    /// the client.
    Conntrack,
}

/// Prints a list: as a document, or as a table with these columns and a row for each entry.
fn print<T: Serialize>(
    list: &[T],
    output: Output,
    columns: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    print_rows(list, output, columns, |entry| vec![row(entry)])
}

/// The same, with as many rows as an entry needs.
fn print_rows<T: Serialize>(
    list: &[T],
    output: Output,
    columns: &[&str],
    rows: impl Fn(&T) -> Vec<Vec<String>>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer(&mut out, list)?;
        writeln!(out)?;
        return Ok(());
    }
    let mut builder = Builder::new();
    builder.push_record(columns.iter().copied());
    for row in list.iter().flat_map(rows) {
        builder.push_record(row);
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

/// Below its association, whose state's column it leaves free.
fn path(path: &PathEntry) -> Vec<String> {
    let used = match path.idle {
        _ if !path.confirmed => "unconfirmed".to_string(),
        Some(idle) => format!("idle {}s", idle.as_secs()),
        None => "unused".to_string(),
    };
    let [client, vip, backend] = [path.client, path.vip, path.backend].map(|addr| addr.to_string());
    vec![String::new(), client, vip, String::new(), backend, used]
}

fn association(assoc: &Association) -> Vec<Vec<String>> {
    let mut rows = vec![vec![
        format!(
            "{}{}",
            assoc.state,
            if assoc.adopted { " adopted" } else { "" }
        ),
        assoc.original.source.to_string(),
        assoc.original.dest.to_string(),
        assoc.translated.source.to_string(),
        assoc.translated.dest.to_string(),
        format!("{}/{}", assoc.packets[0], assoc.packets[1]),
        format!("{}s", assoc.age.as_secs()),
        format!("{}s", assoc.expires_in.as_secs()),
    ]];
    if assoc.paths.len() > 1 {
        rows.extend(assoc.paths.iter().map(path));
    }
    rows
}

/// The further addresses have a column if there are any.
fn backends(list: &[BackendEntry], output: Output) -> Result<()> {
    let mut columns = vec!["SERVICE", "BACKEND", "DRAINING", "ASSOCIATIONS"];
    let several = list.iter().any(|b| b.addresses.len() > 1);
    if several {
        columns.push("ALSO AT");
    }
    print(list, output, &columns, |b| {
        let mut row = vec![
            b.service.clone(),
            b.backend.to_string(),
            yes_or_no(b.draining),
            b.associations.to_string(),
        ];
        if several {
            let further = b.addresses.iter().skip(1);
            let further: Vec<_> = further.map(ToString::to_string).collect();
            row.push(further.join(","));
        }
        row
    })
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
        What::Backends => backends(&maps.backend_list()?, output),
        What::Policies => print(
            &maps.policy_list()?,
            output,
            &["ENDPOINT", "DIRECTION", "PEERS", "PORTS"],
            |p| {
                let peers = p.peers.map_or("nobody".into(), |net| net.to_string());
                vec![p.endpoint.to_string(), p.direction.clone(), peers, ports(p)]
            },
        ),
        What::Conntrack => print_rows(
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
    // There are no maps before it is attached.
    let (masquerade, rooms) = if pins.folder().join("settings").exists() {
        let maps = Maps::pinned(pins.folder())?;
        (maps.masquerade()?, maps.rooms()?)
    } else {
        Default::default()
    };
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        let named = rooms.iter().map(|room| (room.of.replace(' ', "_"), room));
        let rooms: BTreeMap<_, _> = named.collect();
        let report = serde_json::json!({
            "attached": attached, "checksum_update": update, "masquerade": masquerade,
            "rooms": rooms
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "checksum update: {update}")?;
    if attached.is_empty() {
        writeln!(out, "not attached")?;
    }
    for found in attached {
        let gone = match found {
            Attached { gone: true, .. } => {
                ": the device is gone (detach, or attach to its successor)"
            }
            Attached { moved: true, .. } => {
                ": the device is in another network namespace (detach, or bring it back)"
            }
            _ => "",
        };
        writeln!(out, "attached: {} at {}{gone}", found.device, found.point)?;
    }
    for addr in masquerade {
        writeln!(out, "masquerade: {addr}")?;
    }
    for Room { of, used, size } in rooms {
        writeln!(out, "{of}: {used} of {size}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bpf_sctp::lb::conntrack::{State, Tuple};

    use super::*;

    fn path_of(last: u8, confirmed: bool, idle: Option<u64>) -> PathEntry {
        PathEntry {
            client: [192, 0, 2, last].into(),
            vip: [203, 0, 113, last].into(),
            backend: [198, 51, 100, last].into(),
            confirmed,
            idle: idle.map(Duration::from_secs),
        }
    }

    fn association_of(paths: Vec<PathEntry>) -> Association {
        let tuple = Tuple {
            source: ([192, 0, 2, 1], 5000).into(),
            dest: ([203, 0, 113, 1], 3868).into(),
        };
        Association {
            id: u64::MAX,
            state: State::Established,
            original: tuple,
            translated: tuple,
            tags: [1, 2],
            packets: [3, 4],
            age: Duration::ZERO,
            expires_in: Duration::ZERO,
            service: Some("default/diameter:s6a".into()),
            backend: Some(tuple.dest),
            adopted: false,
            paths,
        }
    }

    #[test]
    fn documents_have_names_and_whole_seconds() {
        let paths = vec![path_of(1, true, Some(3)), path_of(2, true, None)];
        let document = serde_json::to_value(association_of(paths)).expect("a document");
        assert_eq!(document["service"], "default/diameter:s6a");
        assert_eq!(document["backend"], "203.0.113.1:3868");
        assert_eq!(document["id"], "18446744073709551615");
        assert_eq!(document["age"], 0);
        assert_eq!(document["paths"][0]["idle"], 3);
        assert!(document["paths"][1]["idle"].is_null());
    }

    #[test]
    fn paths_have_lines_where_there_are_several() {
        let one = path_of(1, true, Some(3));
        assert_eq!(association(&association_of(vec![one])).len(), 1);
        let paths = vec![one, path_of(2, false, Some(1)), path_of(3, true, None)];
        let rows = association(&association_of(paths));
        let lines: Vec<_> = rows[1..].iter().map(|row| row.join(" ")).collect();
        let wanted = [
            " 192.0.2.1 203.0.113.1  198.51.100.1 idle 3s",
            " 192.0.2.2 203.0.113.2  198.51.100.2 unconfirmed",
            " 192.0.2.3 203.0.113.3  198.51.100.3 unused",
        ];
        assert_eq!(lines, wanted);
    }
}
