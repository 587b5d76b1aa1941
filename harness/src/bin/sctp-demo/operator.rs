// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The operator's view: `sctp-lb` as it is typed, and what it prints.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use bpf_sctp::lab::{Family, Lab, TRANSLATOR_DEVS};
use bpf_sctp::sctp;

use crate::shell::Shell;

/// The manifests' service, and its two backends.
const SERVICE_PORT: u16 = 38412;
const BACKEND_PORTS: [u16; 2] = [13868, 13869];
const CLIENTS: usize = 6;
const TIMEOUT: Duration = Duration::from_secs(10);
/// An address of the client's that the policy excepts.
const EXCEPTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200));

/// Manifests in, associations, and what the load balancer says of them.
pub fn show(lab: &Lab) -> Result<()> {
    let shell = Shell::new(&lab.translator)?;
    shell.run(&format!("attach {}", TRANSLATOR_DEVS.join(" ")))?;
    let shown = associate(lab, &shell);
    // Also if something failed: the next run begins from nothing.
    shell.run("detach --all")?;
    shown
}

fn associate(lab: &Lab, shell: &Shell<'_>) -> Result<()> {
    shell.run("status")?;
    shell.run("apply -f docs/amf.yaml")?;
    shell.run("apply -f docs/amf.yaml")?;
    shell.run("get services")?;
    shell.run("get policies")?;
    let addrs = Family::V4.addrs();
    let service = SocketAddr::new(addrs.vip, SERVICE_PORT);
    let mut listeners = Vec::new();
    for port in BACKEND_PORTS {
        let addr = SocketAddr::new(addrs.backend, port);
        listeners.push(sctp::listen(&lab.backend, addr, TIMEOUT)?);
    }
    let clients = (0..CLIENTS)
        .map(|_| sctp::connect(&lab.client, addrs.client, service, TIMEOUT))
        .collect::<bpf_sctp::Result<Vec<_>>>()?;

    lab.client
        .ip_batch(&[format!("addr add {EXCEPTED}/24 dev c0")])?;
    let refused = thread::scope(|scope| {
        let wait = Duration::from_secs(2);
        let attempt = scope.spawn(move || sctp::connect(&lab.client, EXCEPTED, service, wait));
        matches!(attempt.join(), Ok(Err(_)))
    });
    if !refused {
        bail!("{EXCEPTED} has an association, which the policy denies");
    }
    let conntrack = shell.run("get conntrack")?;
    shell.run("get backends")?;
    let stats = shell.run("stats")?;
    drop(clients);
    let established = conntrack.matches("ESTABLISHED").count();
    if established != CLIENTS {
        bail!("{established} of {CLIENTS} associations are established");
    }
    if !stats
        .lines()
        .any(|line| line.ends_with("drop_policy") && !line.trim().starts_with("0 "))
    {
        bail!("no packet was dropped for the policy");
    }
    Ok(())
}
