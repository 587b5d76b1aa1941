// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb apply`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::manifests::{Manifests, Reading, Validation};
use bpf_sctp::lb::model::{Backend, Desired, Frontend, Service, ServiceName};
use clap::Args;

use crate::Output;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(true))]
pub struct Apply {
    /// Manifests: Service, EndpointSlice, NetworkPolicy, Pod and Namespace objects, in YAML or
    /// JSON, or a folder of those; - is standard input. All that is wanted: what they do not name
    /// is removed.
    #[arg(short, long = "file", value_name = "FILE", num_args = 1.., group = "source")]
    files: Vec<PathBuf>,
    /// Without manifests: a service and its backends.
    #[arg(long, value_name = "VIP:PORT=BACKEND:PORT[,BACKEND:PORT]…", value_parser = parse_service,
          group = "source")]
    service: Vec<(SocketAddr, Vec<SocketAddr>)>,
    /// Masquerade clients of the services of --service.
    #[arg(long, requires = "service")]
    masquerade: bool,
    /// The name of this node, as endpoints have it in nodeName: for traffic policies that are
    /// Local.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// An address of this node, at which clients reach node ports.
    #[arg(long, value_name = "ADDR")]
    node_address: Vec<IpAddr>,
    /// What becomes of fields of the manifests that are not known.
    #[arg(long, value_enum, default_value = "strict")]
    validate: Validation,
}

fn parse_service(text: &str) -> Result<(SocketAddr, Vec<SocketAddr>)> {
    let parse = |text: &str| -> Result<SocketAddr> {
        let addr: SocketAddr = text
            .parse()
            .with_context(|| format!("{text} is not ADDRESS:PORT, or [ADDRESS]:PORT"))?;
        crate::parse_address(&addr.ip().to_string())?;
        if addr.port() == 0 {
            bail!("{addr}: ports are 1 to 65535");
        }
        Ok(addr)
    };
    let (vip, backends) = text
        .split_once('=')
        .context("it is VIP:PORT=BACKEND:PORT")?;
    let vip = parse(vip)?;
    let backends = backends.split(',').map(parse).collect::<Result<Vec<_>>>()?;
    if let Some(twice) = (1..backends.len()).find(|i| backends[..*i].contains(&backends[*i])) {
        bail!("{} is named twice", backends[twice]);
    }
    if let Some(other) = backends.iter().find(|b| b.is_ipv4() != vip.is_ipv4()) {
        bail!("{vip} and {other} are of two families");
    }
    Ok((vip, backends))
}

/// New associations of a service that masquerades as nobody are dropped.
fn note_masquerade(maps: &Maps, reading: &mut Reading) -> Result<()> {
    let known = maps.masquerade()?;
    for (name, service) in &reading.desired.services {
        let hidden = service.frontends.iter().filter(|(_, f)| f.masquerade);
        let hidden: Vec<_> = hidden.map(|(addr, _)| addr).collect();
        for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            let known = known.iter().any(|addr| addr.is_ipv6() == v6);
            let first = hidden.iter().find(|addr| addr.is_ipv6() == v6);
            if let Some(addr) = first.filter(|_| !known) {
                reading.notes.push(format!(
                    "{name}: {addr} masquerades, and this node has no {family} address for that: \
                     new associations are dropped until sctp-lb attach --masquerade ADDR"
                ));
            }
        }
    }
    Ok(())
}

impl Apply {
    fn read(&self) -> Result<Reading> {
        let manifests = Manifests {
            files: self.files.clone(),
            node_name: self.node_name.clone(),
            node_addresses: self.node_address.clone(),
            validation: self.validate,
        };
        let mut reading = manifests.load()?;
        for (vip, backends) in &self.service {
            let name = ServiceName {
                namespace: "flags".into(),
                name: vip.ip().to_string(),
                port: vip.port().to_string(),
            };
            let taken = reading.desired.services.iter();
            if let Some((other, _)) = taken.clone().find(|(_, s)| s.frontends.contains_key(vip)) {
                bail!("--service {vip}: {other} has this address and port already");
            }
            let backends = backends.iter().map(|addr| Backend {
                addr: *addr,
                secondary: Vec::new(),
                draining: false,
            });
            let service = Service {
                frontends: [(
                    *vip,
                    Frontend {
                        masquerade: self.masquerade,
                        ..Default::default()
                    },
                )]
                .into(),
                backends: backends.collect(),
                affinity: None,
            };
            reading.desired.services.insert(name, service);
        }
        Ok(reading)
    }

    pub fn run(&self, maps: &Maps, output: Output) -> Result<()> {
        let mut reading = self.read()?;
        let changes = maps.apply(&reading.desired)?;
        if reading.desired == Desired::default() {
            let note =
                "there is no service for SCTP, and no policy, in this: what was there is removed";
            reading.notes.push(note.into());
        }
        note_masquerade(maps, &mut reading)?;
        let mut out = std::io::stdout().lock();
        if output == Output::Json {
            let report = serde_json::json!({ "changes": changes, "notes": reading.notes });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        for note in &reading.notes {
            crate::tell(format_args!("note: {note}"));
        }
        if changes.is_empty() {
            writeln!(out, "nothing to change")?;
            return Ok(());
        }
        for (what, number) in [
            ("frontends set", changes.frontends_set),
            ("frontends removed", changes.frontends_removed),
            ("backends added", changes.backends_added),
            ("backends draining", changes.backends_drained),
            ("backends removed", changes.backends_removed),
            ("endpoints' policies set", changes.policies_set),
            ("endpoints' policies removed", changes.policies_removed),
        ] {
            if number > 0 {
                writeln!(out, "{number} {what}")?;
            }
        }
        Ok(())
    }
}
