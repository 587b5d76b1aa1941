// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What the tests have in common.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_sctp::capture::Report;
use bpf_sctp::csum_prog::Update;
use bpf_sctp::feature::{Feature, Missing};
use bpf_sctp::lb::model::Backend;
use bpf_sctp::netns::Namespace;
use bpf_sctp::pcap;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// The name of the running test, as libtest names its thread.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("test").to_string()
}

/// Whether the environment says that this kernel must have `feature`, so that a test which does
/// not find it fails. `BPF_SCTP_EXPECT` lists them, as in `root,btf,kfunc`.
fn expected(feature: Feature) -> bool {
    let name = format!("{feature:?}").to_lowercase();
    std::env::var("BPF_SCTP_EXPECT").is_ok_and(|list| list.split(',').any(|item| item == name))
}

/// The first of `features` that this kernel lacks. It is reported past libtest's capture, which
/// would hide it, because libtest has no way to skip a test at run time.
///
/// # Panics
/// If the environment says that the feature must be there.
pub fn missing(features: &[Feature]) -> Option<Missing> {
    let missing = features
        .iter()
        .find_map(|feature| feature.require().err())?;
    assert!(
        !expected(missing.0),
        "{:?} is expected, but {missing}",
        missing.0
    );
    // One write, so that it stays a line among those of other tests.
    let line = format!("SKIPPED {}: {missing}\n", test_name());
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("stderr");
    Some(missing)
}

/// Sends a packet again, as a client would, while it is dropped because the kernel has no memory
/// for a timer. Since Linux 6.18 it takes none from the page allocator while the machine has not
/// set up all of its memory, which some virtual machines leave for later.
pub fn resend<T: PartialEq>(dropped: impl FnOnce(String) -> T, mut send: impl FnMut() -> T) -> T {
    let dropped = dropped("drop_no_timer".into());
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let outcome = send();
        if outcome != dropped || Instant::now() > end {
            return outcome;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends `bytes`, which follow the IPv4 header, to `to` from a namespace.
pub fn send_raw(from: &Namespace, protocol: Protocol, to: IpAddr, bytes: &[u8]) {
    let send = || {
        let socket = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(protocol))?;
        socket.send_to(bytes, &SocketAddr::new(to, 0).into())
    };
    let sent = from.run(send).expect("a namespace");
    sent.expect("it is sent");
}

/// Returns from the test if the kernel lacks one of the features.
macro_rules! require {
    ($($feature:expr),+ $(,)?) => {
        if $crate::support::missing(&[$($feature),+]).is_some() {
            return;
        }
    };
}
pub(crate) use require;

/// What `update` needs beyond root and BTF.
pub fn feature_of(update: Update) -> Feature {
    match update {
        Update::Kfunc => Feature::Kfunc,
        Update::Bpf => Feature::Btf,
    }
}

/// The backend with these addresses, which each family has with the first of its own.
pub fn backend_by_family(addrs: &[IpAddr], port: u16) -> impl Iterator<Item = Backend> {
    [false, true].into_iter().filter_map(move |v6| {
        let first = *addrs.iter().find(|addr| addr.is_ipv6() == v6)?;
        Some(Backend {
            addr: SocketAddr::new(first, port),
            secondary: addrs
                .iter()
                .copied()
                .filter(|addr| *addr != first)
                .collect(),
            draining: false,
        })
    })
}

/// Fails the test, and leaves `frames` in a file for tshark.
pub fn fail(why: String, frames: &[&[u8]]) -> ! {
    let name = test_name().replace("::", "-");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pcap"));
    match pcap::write(&path, frames.iter().copied()) {
        Ok(()) => panic!("{why}\npackets: {}", path.display()),
        Err(error) => panic!("{why}\nand no packets are left: {error}"),
    }
}

/// Fails the test if there are complaints, and leaves what was captured.
pub fn insist(complaints: &[String], reports: &[(&str, &Report)]) {
    if complaints.is_empty() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let name = test_name().replace("::", "-");
    for (side, report) in reports {
        report
            .write_pcap(&folder.join(format!("{name}-{side}.pcap")))
            .expect("a file to write");
    }
    let folder = folder.display();
    panic!("{}\npackets: {folder}/{name}-*.pcap", complaints.join("\n"));
}

/// What tshark says of checksums in what was captured, where hosts fill in their own.
pub fn tshark_complaints(reports: &[(&str, &Report)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let complaint = |(side, report): &(&str, &Report)| {
        let file = folder.path().join(format!("{side}.pcap"));
        report.write_pcap(&file).expect("a file to write");
        let file = file.to_string_lossy().into_owned();
        let fields = ["-T", "fields", "-e", "sctp.checksum.status"];
        let output = Command::new("tshark")
            .args(["-r", &file, "-o", "sctp.checksum:CRC 32c", "-Y", "sctp"])
            .args(fields)
            .output()
            .expect("tshark runs (scripts/setup vm)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // 1 is good.
        let good = text.lines().filter(|status| *status == "1").count();
        let all = report.packets().count();
        (good != all || all == 0).then(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("at the {side}, tshark finds {good} of {all} packets good: {said}")
        })
    };
    reports.iter().filter_map(complaint).collect()
}

/// Runs a server in the background until the client is done.
pub fn with_server<T>(ns: &Namespace, command: &[&str], client: impl FnOnce() -> T) -> T {
    let mut server = ns
        .run(|| {
            Command::new(command[0])
                .args(&command[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        })
        .expect("a namespace")
        .expect("the server runs (scripts/setup vm)");
    let result = client();
    server.kill().expect("it runs");
    server.wait().expect("it ran");
    result
}

/// Tries until it works: a server needs a while to listen.
pub fn patiently(ns: &Namespace, program: &str, args: &[&str]) -> String {
    let mut tries = 20;
    loop {
        match ns.command(program, args) {
            Ok(output) => return output,
            Err(_) if tries > 0 => tries -= 1,
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Tells other threads to stop, also when this one panics.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
