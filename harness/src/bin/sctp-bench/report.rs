// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Tables in Markdown, which are fit for a terminal as well.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bpf_sctp::bench::{LENGTHS, Way};
use indexmap::{IndexMap, IndexSet};
use tabled::Table;
use tabled::builder::Builder;
use tabled::settings::object::{Columns, Object, Rows};
use tabled::settings::{Alignment, Style};

use crate::{
    GROWTH_DATA, GROWTH_INIT, IPERF3, Line, NUMBERS, PATH, PATH_LENGTHS, PATH_START, plot,
};

const HOOKS: [&str; 2] = ["tc", "XDP"];

fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines = lines
        .map(serde_json::from_str)
        .collect::<std::result::Result<Vec<Line>, _>>()
        .with_context(|| format!("{}: not what sctp-bench measured", path.display()))?;
    if lines.is_empty() {
        bail!("{}: nothing was measured", path.display());
    }
    Ok(lines)
}

/// All that was measured of one case, in order.
fn values(lines: &[Line], hook: &str, way: Way, len: usize) -> Vec<u64> {
    let of_case = |line: &&Line| line.hook == hook && line.way == way.title() && line.len == len;
    let mut values: Vec<u64> = lines.iter().filter(of_case).map(|line| line.ns).collect();
    values.sort_unstable();
    values
}

fn with_separators(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Markdown, with numbers from this column on.
fn style(builder: Builder, first_number: usize) -> Table {
    let mut table = builder.build();
    table.with(Style::markdown()).modify(
        Columns::new(first_number..).intersect(Rows::new(..)),
        Alignment::right(),
    );
    table
}

fn print_table(title: &str, cell: impl Fn(&str, Way, usize) -> Option<String>) {
    let mut builder = Builder::new();
    let mut head = vec!["hook".to_string(), "way".to_string()];
    head.extend(LENGTHS.map(|len| with_separators(len as u64)));
    builder.push_record(head);
    for hook in HOOKS {
        for way in Way::ALL {
            let cells: Vec<_> = LENGTHS
                .map(|len| cell(hook, way, len))
                .into_iter()
                .collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let cells = cells.into_iter().map(|cell| cell.unwrap_or("-".into()));
            let row = [hook.to_string(), way.title().to_string()];
            builder.push_record(row.into_iter().chain(cells));
        }
    }
    println!("{title}\n\n{}\n", style(builder, 2));
}

fn ratio(values: &[u64], base: &[u64]) -> Option<String> {
    let middle = base
        .get(base.len() / 2)
        .copied()
        .filter(|value| *value > 0)? as f64;
    let part = |index: usize| values.get(index).map(|value| *value as f64 / middle);
    let (least, median, most) = (
        part(0)?,
        part(values.len() / 2)?,
        part(values.len().checked_sub(1)?)?,
    );
    Some(format!("{median:.1} ({least:.1} to {most:.1})"))
}

type Case = (String, String, usize);

fn case(line: &Line) -> Case {
    (line.hook.clone(), line.way.clone(), line.len)
}

/// The least of each case, in the order of the file.
fn least(lines: &[Line]) -> IndexMap<Case, u64> {
    let mut least: IndexMap<Case, u64> = IndexMap::new();
    for line in lines {
        let value = least.entry(case(line)).or_insert(line.ns);
        *value = line.ns.min(*value);
    }
    least
}

/// Says whether a second run came out the same.
fn compare(one: &[Line], other: &[Line]) -> Result<()> {
    let (mut one, other) = (least(one), least(other));
    let mut different = Vec::new();
    // Two processes that wait for one another do not run alike.
    one.retain(|(hook, _, _), _| hook != IPERF3);
    for (case, value) in &one {
        let again = other.get(case).copied().unwrap_or_default();
        if again != *value {
            different.push(again.abs_diff(*value) as f64 / *value as f64);
        }
    }
    let most = different.iter().copied().fold(0.0, f64::max);
    println!(
        "Of two runs, {} counts are the same; {} differ, by {:.1} % at most.",
        one.len() - different.len(),
        different.len(),
        100.0 * most
    );
    if most > 0.02 {
        bail!("the runs differ by more than 2 %: something else ran in the guest");
    }
    Ok(())
}

/// What it takes to forward a packet, without what it takes to bring it to the node: a row for each
/// way of the hook. `start` says what the column's start was measured as.
fn print_paths(
    title: &str,
    lines: &[Line],
    hook: &str,
    columns: &[usize],
    start: impl Fn(usize) -> usize,
) {
    let least = least(lines);
    let of = |way: &str, len| least.get(&(hook.into(), way.into(), len)).copied();
    let ways: IndexSet<&str> = lines
        .iter()
        .filter(|line| line.hook == hook && line.way != PATH_START)
        .map(|line| line.way.as_str())
        .collect();
    let mut builder = Builder::new();
    let head = columns.iter().map(|column| with_separators(*column as u64));
    builder.push_record([String::new()].into_iter().chain(head));
    for way in ways {
        let cells = columns.iter().map(|column| {
            let took = of(way, *column)?.checked_sub(of(PATH_START, start(*column))?)?;
            Some(with_separators(took))
        });
        let cells = cells.map(|cell| cell.unwrap_or("-".into()));
        builder.push_record([way.to_string()].into_iter().chain(cells));
    }
    println!("{title}\n\n{}\n", style(builder, 1));
}

/// What iperf3 takes for a KiB through each way.
fn print_iperf3(lines: &[Line]) {
    let mut builder = Builder::new();
    builder.push_record(["", "instructions for a KiB"]);
    for ((hook, way, _), took) in least(lines) {
        if hook == IPERF3 {
            builder.push_record([way, with_separators(took)]);
        }
    }
    println!(
        "iperf3 --sctp, with all that both hosts and the node do:\n\n{}\n",
        style(builder, 1)
    );
}

fn print_all_paths(lines: &[Line]) {
    print_paths(
        "Instructions of the guest to forward a packet, the least of several rounds, by bytes of the SCTP packet:",
        lines,
        PATH,
        &PATH_LENGTHS,
        |len| len,
    );
    for (what, hook) in [
        ("a packet of an association", GROWTH_DATA),
        ("the INIT of a new association", GROWTH_INIT),
    ] {
        print_paths(
            &format!("The same for {what}, by the number of what else there is:"),
            lines,
            hook,
            &NUMBERS,
            |_| 0,
        );
    }
}

/// Prints the tables, and writes the plot.
pub fn report(
    instructions: &Path,
    again: &Path,
    plain: &Path,
    native: &Path,
    plot_to: Option<&Path>,
) -> Result<()> {
    let (instructions, plain, native) = (read(instructions)?, read(plain)?, read(native)?);
    for (title, lines) in [
        (
            "Instructions of the guest for a packet, the least of several rounds, by bytes of the SCTP packet:",
            &instructions,
        ),
        (
            "The same, on a processor without instructions for CRC-32C and carry-less multiplication:",
            &plain,
        ),
    ] {
        print_table(title, |hook, way, len| {
            let values = values(lines, hook, way, len);
            values.first().map(|value| with_separators(*value))
        });
    }
    print_table(
        "Time on this machine, as a multiple of no update, median (least to most):",
        |hook, way, len| {
            let base = values(&native, hook, Way::None, len);
            ratio(&values(&native, hook, way, len), &base)
        },
    );
    print_all_paths(&instructions);
    print_iperf3(&instructions);
    print_paths(
        "Whole paths again, on the processor without those instructions:",
        &plain,
        PATH,
        &PATH_LENGTHS,
        |len| len,
    );
    compare(&instructions, &read(again)?)?;
    if let Some(path) = plot_to {
        plot::draw(path, |way, len| {
            values(&instructions, "tc", way, len).first().copied()
        })?;
    }
    Ok(())
}
