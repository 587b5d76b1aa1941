// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! A multihomed association through the load balancer, one of whose two planes is cut.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bpf_sctp::lab::Family;
use bpf_sctp::planes::{PLANES, Planes, Role, addr, addrs};
use bpf_sctp::{sctp, transfer};
use socket2::Socket;

use crate::shell::Shell;

/// The manifests' service, and its backend.
const SERVICE_PORT: u16 = 38412;
const BACKEND_PORT: u16 = 13868;
const TIMEOUT: Duration = Duration::from_secs(40);
const PAYLOAD: usize = 1 << 20;

/// An association, a cut, and what the load balancer says of its paths.
pub fn show() -> Result<()> {
    let planes = Planes::new(1)?;
    planes.hurry()?;
    let shell = Shell::new(planes.node(0))?;
    shell.run(&format!("attach {}", planes.node_devices(0).join(" ")))?;
    let shown = fail_over(&planes, &shell);
    // Also if something failed: the next run begins from nothing.
    shell.run("detach --all")?;
    shown
}

fn send(client: &Socket, server: &Socket, when: &str) -> Result<()> {
    if !transfer::both_ways(client, server, PAYLOAD)? {
        bail!("the payload was changed {when}");
    }
    println!("{} KiB each way {when}: intact", PAYLOAD >> 10);
    Ok(())
}

/// Waits until heartbeats have been on all paths.
fn await_paths(shell: &Shell<'_>) -> Result<()> {
    let until = Instant::now() + TIMEOUT;
    while Instant::now() < until {
        let paths = shell.run_quietly("get conntrack")?;
        if paths.matches("idle").count() >= PLANES {
            shell.run("get conntrack")?;
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("the association does not use all paths");
}

fn fail_over(planes: &Planes, shell: &Shell<'_>) -> Result<()> {
    shell.run("apply -f docs/amf-planes.yaml")?;
    shell.run("get services")?;
    let families = [Family::V4];
    let listener = sctp::listen_on_all(
        &planes.backend,
        &addrs(Role::Backend, &families),
        BACKEND_PORT,
        TIMEOUT,
    )?;
    let vip = SocketAddr::new(addr(Role::Vip, 0, Family::V4), SERVICE_PORT);
    let client = sctp::connect_from_all(
        &planes.client,
        &addrs(Role::Client, &families),
        vip,
        TIMEOUT,
    )?;
    let (server, _) = listener.accept()?;
    send(&client, &server, "on the first path")?;
    await_paths(shell)?;
    planes.cut(0)?;
    send(&client, &server, "after plane 0 was cut")?;
    shell.run("get conntrack")?;
    planes.restore(0)?;
    send(&client, &server, "after it was restored")?;
    for (side, ns) in [("client", &planes.client), ("backend", &planes.backend)] {
        for counter in ["SctpAborteds", "SctpChecksumErrors"] {
            let count = sctp::counter(ns, counter)?;
            println!("{counter} at the {side}: {count}");
            if count > 0 {
                bail!("{count} {counter} at the {side}");
            }
        }
    }
    Ok(())
}
