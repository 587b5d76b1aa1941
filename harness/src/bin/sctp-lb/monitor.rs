// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb monitor`.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Result;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::events::Event;
use bpf_sctp::tcx::device_name;
use clap::Args;

use crate::Output;

#[derive(Debug, Args)]
pub struct Monitor {
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing has happened for so long.
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u32>,
}

/// The name of a device, if it is one of this namespace.
fn device(ifindex: u32) -> String {
    device_name(ifindex).unwrap_or_else(|| format!("device {ifindex}"))
}

fn describe(event: &Event) -> String {
    match event {
        Event::New {
            original,
            translated,
        } => format!(
            "new    {} to {}: {} to {}",
            original.source, original.dest, translated.source, translated.dest
        ),
        Event::State {
            original, state, ..
        } => format!("state  {} to {}: {state}", original.source, original.dest),
        Event::Drop {
            packet,
            vtag,
            reason,
            ifindex,
        } => format!(
            "{reason}  {} to {}, tag {vtag:#010x}, from {}",
            packet.source,
            packet.dest,
            device(*ifindex)
        ),
    }
}

impl Monitor {
    pub fn run(&self, maps: &Maps, output: Output) -> Result<()> {
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut failed = None;
        let mut each = |event: Event| {
            let line = match output {
                Output::Text => describe(&event),
                Output::Json => serde_json::to_string(&event).unwrap_or_default(),
            };
            let mut out = std::io::stdout().lock();
            if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            left -= 1;
            if left == 0 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        crate::tell("watching");
        let idle = self.idle.map(|seconds| Duration::from_secs(seconds.into()));
        maps.watch(idle, &mut each)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
