// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb attach` and `sctp-lb detach`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bpf_sctp::csum_prog::Hook;
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::{Pins, is_local, is_not_forwarding, is_reverse_path_strict};
use bpf_sctp::lb::conntrack::State;
use bpf_sctp::lb::datapath::Options;
use bpf_sctp::lb::maps::Sizes;
use clap::{Args, ValueEnum};

/// Where packets meet the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// tc (tcx), behind XDP: works on every device.
    Tc,
    /// XDP, before anything else.
    Xdp,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// Devices: all that clients, backends, and endpoints with a policy are behind.
    #[arg(required = true, value_name = "DEV")]
    devices: Vec<String>,
    /// Where packets meet the program.
    #[arg(long, value_enum, default_value = "tc")]
    mode: Mode,
    /// This node's address, IPv4 or IPv6, as which clients reach the backends of services that
    /// masquerade.
    #[arg(long, value_name = "ADDR", value_parser = crate::parse_address)]
    masquerade: Vec<IpAddr>,
    /// How long an association may be in a state with no packet, for example established=600. The
    /// states are closed, cookie-wait, cookie-echoed, established, shutdown-sent and
    /// shutdown-ack-sent.
    #[arg(long, value_name = "STATE=SECONDS", value_parser = parse_timeout)]
    timeout: Vec<(State, Duration)>,
    /// Associations at a time: 65536, unless said. Sizes hold until `detach --all`.
    #[arg(long, value_name = "N", value_parser = parse_size())]
    max_associations: Option<u32>,
    /// Frontends: addresses and ports of services. 16384, unless said.
    #[arg(long, value_name = "N", value_parser = parse_size())]
    max_services: Option<u32>,
    /// Backends, counted once for each service, those that drain included. 32768, unless said.
    #[arg(long, value_name = "N", value_parser = parse_size())]
    max_backends: Option<u32>,
    /// Slots of backend tables: at least 100 for each backend, and 251 for each service,
    /// twice while backends change. 4194304, unless said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(251..=1 << 24))]
    max_table_slots: Option<u32>,
    /// Prefixes in all policies: 65536, unless said.
    #[arg(long, value_name = "N", value_parser = parse_size())]
    max_policy_prefixes: Option<u32>,
}

/// What the kernel may have memory for.
fn parse_size() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1 << 24)
}

fn parse_timeout(text: &str) -> Result<(State, Duration)> {
    let (name, seconds) = text.split_once('=').context("it is STATE=SECONDS")?;
    let state = State::ALL
        .into_iter()
        .find(|state| format!("{state:?}").eq_ignore_ascii_case(&name.replace('-', "")))
        .with_context(|| format!("there is no state {name}"))?;
    let seconds: u32 = seconds.parse().context("seconds are a number")?;
    // Programs count milliseconds in 32 bits.
    if !(1..=u32::MAX / 1000).contains(&seconds) {
        bail!("it must be 1 to {} seconds", u32::MAX / 1000);
    }
    Ok((state, Duration::from_secs(seconds.into())))
}

impl Attach {
    pub fn run(&self, pins: &Pins) -> Result<()> {
        let hook = match self.mode {
            Mode::Tc => Hook::Tc,
            Mode::Xdp => Hook::Xdp,
        };
        let known = pins.sizes()?;
        let options = Options {
            timeouts: self.timeout.clone(),
            sizes: Sizes {
                assocs: self.max_associations.unwrap_or(known.assocs),
                services: self.max_services.unwrap_or(known.services),
                backends: self.max_backends.unwrap_or(known.backends),
                table_slots: self.max_table_slots.unwrap_or(known.table_slots),
                policy_prefixes: self.max_policy_prefixes.unwrap_or(known.policy_prefixes),
            },
            ..Default::default()
        };
        for ipv6 in [false, true] {
            let of_family = |addr: &&IpAddr| addr.is_ipv6() == ipv6;
            if self.masquerade.iter().filter(of_family).count() > 1 {
                crate::usage_error("--masquerade: one address of each family is used, not several");
            }
        }
        pins.attach(&self.devices, hook, &options)?;
        Maps::pinned(pins.folder())?.set_masquerade(&self.masquerade)?;
        for addr in self.masquerade.iter().filter(|addr| !is_local(**addr)) {
            crate::tell(format_args!(
                "sctp-lb: warning: {addr} is not an address of this node: what backends answer to it may go elsewhere"
            ));
        }
        for device in &self.devices {
            if let Some(setting) = is_not_forwarding(device) {
                crate::tell(format_args!(
                    "sctp-lb: warning: {setting} is 0 (see net.ipv4.ip_forward, net.ipv6.conf.all.forwarding): its packets go nowhere from here"
                ));
            }
            if pins.has_another(device)? {
                crate::tell(format_args!(
                    "sctp-lb: warning: {device} has a program of another load balancer as well (see --pins): each sees what the other has passed"
                ));
            }
            if is_reverse_path_strict(device) {
                crate::tell(format_args!(
                    "sctp-lb: warning: services that masquerade, and ports of this node, need net.ipv4.conf.{device}.rp_filter=2 (or 0 for all devices): it is strict"
                ));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
#[command(override_usage = "sctp-lb detach DEV...\n       sctp-lb detach --all")]
pub struct Detach {
    /// Devices.
    #[arg(value_name = "DEV", required_unless_present = "all")]
    devices: Vec<String>,
    /// From all devices; and forget services, policies and associations.
    #[arg(long, conflicts_with = "devices")]
    all: bool,
}

impl Detach {
    pub fn run(&self, pins: &Pins) -> Result<()> {
        if self.all {
            return Ok(pins.detach_all()?);
        }
        Ok(pins.detach(&self.devices)?)
    }
}
