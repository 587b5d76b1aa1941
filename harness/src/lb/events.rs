// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What happens in the datapath, as it happens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use libbpf_rs::RingBufferBuilder;
use serde::Serialize;

use super::conntrack::{State, Tuple, now};
use super::maps::{Maps, event};
use super::stats;
use crate::error::{BpfDoing, Result};
use crate::map_bytes::MapBytes;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// An association was opened.
    New {
        /// Packets of who opened it.
        original: Tuple,
        /// What they become.
        translated: Tuple,
    },
    /// An association has another state.
    State {
        /// Packets of who opened it.
        original: Tuple,
        /// What they become.
        translated: Tuple,
        /// The state.
        state: State,
    },
    /// A packet was dropped.
    Drop {
        /// The packet's, as it came. Ports are zero where they are not known.
        packet: Tuple,
        /// Its verification tag.
        vtag: u32,
        /// The name of the reason, which is that of its counter.
        reason: String,
        /// The number of the device that it came in by.
        ifindex: u32,
    },
}

impl Event {
    fn new(event: &event, names: &[String]) -> Self {
        let original = Tuple::from(&event.tuple);
        let translated = Tuple::from(&event.translated);
        match event.kind {
            0 => Event::New {
                original,
                translated,
            },
            1 => Event::State {
                original,
                translated,
                state: State::of(event.detail),
            },
            _ => Event::Drop {
                packet: original,
                vtag: u32::from_be(event.vtag),
                reason: names
                    .get(event.detail as usize)
                    .cloned()
                    .unwrap_or_else(|| format!("reason {}", event.detail)),
                ifindex: event.ifindex,
            },
        }
    }
}

impl Maps {
    /// Calls `each` with what happens from now on, until it breaks, or nothing has happened for
    /// `patience`, where there is one. Only one can watch at a time.
    ///
    /// # Errors
    /// If the buffer cannot be read, or no program writes to it any more.
    pub fn watch(
        &self,
        patience: Option<Duration>,
        mut each: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        let doing = || "watch the datapath".to_string();
        let names = stats::names()?;
        let start = now()?.as_nanos() as u64;
        let over = std::cell::Cell::new(false);
        let seen = std::cell::Cell::new(0u64);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.events, |bytes| {
                // What nobody watched is in the buffer yet.
                let Some(event) = event::from_bytes(bytes).filter(|event| event.time >= start)
                else {
                    return 0;
                };
                seen.set(seen.get() + 1);
                if !over.get() && each(Event::new(&event, names)).is_break() {
                    over.set(true);
                }
                0
            })
            .bpf(doing)?;
        let buffer = builder.build().bpf(doing)?;
        let mut last = Instant::now();
        while !over.get() {
            let before = seen.get();
            let left = patience.map(|patience| patience.saturating_sub(last.elapsed()));
            match buffer.poll(left.unwrap_or(Duration::from_secs(1))) {
                Err(e) if e.kind() == libbpf_rs::ErrorKind::Interrupted => {}
                result => result.bpf(doing)?,
            }
            if seen.get() != before {
                last = Instant::now();
            } else if patience.is_some_and(|patience| last.elapsed() >= patience) {
                break;
            }
            self.check_pinned()?;
        }
        Ok(())
    }
}
