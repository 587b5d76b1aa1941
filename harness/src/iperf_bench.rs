// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! iperf3 with SCTP from the client to the backend, by who translates it on the way.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Doing, Error, Result};
use crate::lab::Family;
use crate::netns::Namespace;
use crate::way::{Node, Who};

/// What it sends.
const LEN: &str = "8M";
/// Between two looks at what is to be forwarded.
const POLL: Duration = Duration::from_millis(20);

#[derive(Deserialize)]
struct Sum {
    bytes: u64,
    seconds: f64,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Document {
    end: End,
}

/// Ends with what uses it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long a KiB takes, with all that both hosts and the node do for it.
///
/// # Errors
/// If iperf3 is missing or fails.
pub fn measure(node: &Node) -> Result<Duration> {
    let (service, backend) = (node.way.service(), node.way.backend());
    node.lab.offload_checksums(false)?;
    let stop = AtomicBool::new(false);
    let Sum { bytes, seconds } = thread::scope(|scope| {
        let forwarding = (node.way.who != Who::Nobody)
            .then(|| scope.spawn(|| forward_tcp(&node.lab.translator, service, backend, &stop)));
        let sum = serve(&node.lab.backend, backend.port())
            .and_then(|_server| run(&node.lab.client, service));
        stop.store(true, Ordering::Relaxed);
        match forwarding.map(|thread| thread.join()) {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => sum,
        }
    })?;
    Ok(Duration::from_secs_f64(seconds * 1024.0 / bytes as f64))
}

fn serve(ns: &Namespace, port: u16) -> Result<Server> {
    let port = port.to_string();
    let spawn = || {
        Command::new("iperf3")
            .args(["-s", "-p", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    let server = ns
        .run(spawn)?
        .doing(|| "run iperf3 (is it installed? try scripts/setup vm)".into())?;
    Ok(Server(server))
}

fn run(ns: &Namespace, service: SocketAddr) -> Result<Sum> {
    let client = Family::V4.addrs().client.to_string();
    let (addr, port) = (service.ip().to_string(), service.port().to_string());
    let args = [
        "--sctp", "-J", "-n", LEN, "-B", &client, "-c", &addr, "-p", &port,
    ];
    let mut tries = 20;
    loop {
        // The server needs a while to listen.
        match ns.command("iperf3", &args).and_then(|text| sum_of(&text)) {
            Err(_) if tries > 0 => tries -= 1,
            result => return result,
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Its report, which may as well say what went wrong.
fn sum_of(report: &str) -> Result<Sum> {
    let document: Document = serde_json::from_str(report)
        .map_err(|e| Error::Packet(format!("no report of iperf3: {e} in {report}")))?;
    Ok(document.end.sum_received)
}

/// iperf3 talks TCP as well, to the same address and port, which is not what is measured: that
/// goes through the node's own stack and this process, until `stop`.
fn forward_tcp(
    node: &Namespace,
    service: SocketAddr,
    backend: SocketAddr,
    stop: &AtomicBool,
) -> Result<()> {
    node.ip_batch(&[format!("addr replace {}/32 dev lo", service.ip())])?;
    let accept = || -> io::Result<()> {
        let listener = TcpListener::bind(service)?;
        listener.set_nonblocking(true)?;
        thread::scope(|scope| {
            while !stop.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    thread::sleep(POLL);
                    continue;
                };
                // Whoever it is for does not listen yet: the client tries again.
                if let Ok(server) = TcpStream::connect(backend) {
                    scope.spawn(move || relay(&client, &server));
                }
            }
        });
        Ok(())
    };
    node.run(accept)?
        .doing(|| format!("forward TCP from {service}"))
}

/// Hands on what either sends, until both have ended.
fn relay(client: &TcpStream, server: &TcpStream) {
    let one_way = |mut from: &TcpStream, mut to: &TcpStream| {
        // An end is an end, however it comes.
        let _ = client.set_nonblocking(false);
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| one_way(client, server));
        one_way(server, client);
    });
}
