// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The command `sctp-lb`, as its operator types it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use bpf_sctp::chunk;
use bpf_sctp::feature::Feature;
use bpf_sctp::lab::{Family, Lab, TRANSLATOR_DEVS};
use bpf_sctp::packet::{Spec, find};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};
use nix::net::if_::if_nametoindex;
use rstest::rstest;
use socket2::Protocol;

use crate::support::{require, send_raw};

/// A node, and where its load balancer pins.
struct Node {
    lab: Lab,
    pins: PathBuf,
}

impl Node {
    fn new(name: &str) -> Self {
        let pins = format!("/sys/fs/bpf/test-{name}-{}", std::process::id());
        Self {
            lab: Lab::new().expect("namespaces and veth"),
            pins: pins.into(),
        }
    }

    fn command(&self, pins: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sctp-lb"));
        command.arg("--pins").arg(pins).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it on the node of this lab.
    fn run_in(&self, lab: &Lab, pins: &Path, args: &[&str]) -> Output {
        lab.translator
            .run(|| self.command(pins, args).output())
            .expect("a namespace")
            .expect("it runs")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_in(&self.lab, &self.pins, args)
    }

    /// Runs it, and returns what it prints, errors included.
    fn says(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    /// Starts a command that goes on, and waits until it says that it has begun.
    fn watch(&self, args: &[&str]) -> Child {
        self.first_words(args).0
    }

    /// The same, with what it says.
    fn first_words(&self, args: &[&str]) -> (Child, String) {
        let start = || {
            let mut command = self.command(&self.pins, args);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        };
        let child = self.lab.translator.run(start);
        let mut child = child.expect("a namespace").expect("it starts");
        let stderr = child.stderr.as_mut().expect("a pipe");
        // A byte at a time: what follows the line is for others to read.
        let mut line = vec![];
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stderr.read_exact(&mut byte).expect("it says a line");
            line.extend(byte);
        }
        (child, String::from_utf8_lossy(&line).into_owned())
    }

    fn attach(&self) {
        self.says(&[&["attach"], &TRANSLATOR_DEVS[..]].concat(), 0);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.run(&["detach", "--all"]);
    }
}

#[test]
fn what_others_have_pinned_stays() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("others");
    node.attach();
    let other = node.pins.join("other");
    fs::create_dir(&other).expect("bpffs has folders");
    let said = node.says(&["detach", "--all"], 1);
    assert!(said.contains("not empty"), "{said}");
    assert!(other.exists());
    assert!(!node.pins.join("assocs").exists() && !node.pins.join("links").exists());
    fs::remove_dir(&other).expect("it is empty");
    node.says(&["detach", "--all"], 0);
    assert!(!node.pins.exists());

    for command in [&["attach", TRANSLATOR_DEVS[0]][..], &["detach", "--all"]] {
        let output = node.run_in(&node.lab, Path::new("/sys/fs/bpf"), command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("a folder below it"), "{said}");
    }
}

#[test]
fn a_device_that_is_gone_is_shown_as_such() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("gone");
    node.attach();
    let [there, gone] = TRANSLATOR_DEVS;
    node.lab
        .translator
        .command("ip", &["link", "del", gone])
        .expect("it is there");
    // One of the same name is another.
    let again = ["link", "add", gone, "type", "veth"];
    node.lab.translator.command("ip", &again).expect("veth");
    let said = node.says(&["status"], 0);
    for line in said.lines().filter(|line| line.starts_with("attached")) {
        assert_eq!(line.contains("gone"), line.contains(gone), "{said}");
    }
    assert!(said.contains(there) && said.contains(gone), "{said}");
    node.attach();
    let said = node.says(&["status"], 0);
    assert!(!said.contains("is gone"), "{said}");
}

#[test]
fn a_service_that_masquerades_as_nobody_is_named() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("nobody");
    node.attach();
    let service = "203.0.113.10:3868=198.51.100.1:13868";
    let apply = ["apply", "--service", service, "--masquerade"];
    let said = node.says(&apply, 0);
    assert!(said.contains("--masquerade ADDR"), "{said}");
    let attach = [
        "attach",
        TRANSLATOR_DEVS[0],
        "--masquerade",
        "198.51.100.254",
    ];
    node.says(&attach, 0);
    let said = node.says(&apply, 0);
    assert!(!said.contains("note"), "{said}");
    let said = node.says(&["status"], 0);
    assert!(said.contains("masquerade: 198.51.100.254"), "{said}");
}

#[rstest]
#[case(&["monitor"])]
#[case(&["share", "--listen", "127.0.0.1:0"])]
fn one_at_a_time_is_at_work(#[case] args: &[&str]) {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new(&format!("{}-twice", args[0]));
    node.attach();
    let (mut first, (mut second, said)) = (node.watch(args), node.first_words(args));
    for child in [&mut first, &mut second] {
        // One has ended, if all is well.
        let _ = child.kill();
        child.wait().expect("it ran");
    }
    let refusal = format!("sctp-lb: another sctp-lb {}", args[0]);
    assert!(said.starts_with(&refusal), "{said}");
}

#[test]
fn status_says_how_full_the_maps_are() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("rooms");
    node.says(&["status"], 0);
    let attach = ["attach", TRANSLATOR_DEVS[0], "--max-services", "8"];
    node.says(&attach, 0);
    let service = "203.0.113.10:3868=198.51.100.1:13868,198.51.100.2:13868";
    node.says(&["apply", "--service", service], 0);
    let said = node.says(&["status"], 0);
    for line in [
        "services: 1 of 8",
        "backends: 2 of 32768",
        "associations: 0 of 65536",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    let document = node.says(&["status", "-o", "json"], 0);
    let document: serde_json::Value = serde_json::from_str(&document).expect("a document");
    let room = serde_json::json!({ "used": 2, "size": 32768 });
    assert_eq!(document["rooms"]["backends"], room);
    assert!(
        document["rooms"]["table_slots"]["used"].as_u64() > Some(0),
        "{document}"
    );
}

/// A file may be another's, and a terminal obeys.
#[test]
fn what_a_file_says_is_printed_without_its_commands() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("escape");
    node.attach();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.json");
    let file = file.to_str().expect("a name");
    let object = |kind| {
        let name = r"a\u001b[2J";
        format!(r#"{{"apiVersion": "v1", "kind": "{kind}", "metadata": {{"name": "{name}"}}}}"#)
    };
    let none = r#"{"apiVersion": "v1", "kind": "List", "items": []}"#;
    for (kind, code) in [("ConfigMap", 0), ("Service", 1)] {
        let text = object(kind) + none;
        fs::write(file, text).expect("it is written");
        let said = node.says(&["apply", "-f", file], code);
        assert!(!said.contains('\x1b') && said.contains("u{1b}"), "{said}");
    }
}

/// Sends a packet to the service that is of no association.
fn send_stray(lab: &Lab) {
    let stray = Spec::new(
        SocketAddr::new(Family::V4.addrs().client, 5000),
        SocketAddr::new(Family::V4.addrs().vip, 3868),
        chunk::data(b"stray"),
    );
    let frame = stray.build().expect("it fits");
    let sctp = find(&frame.bytes).expect("SCTP").sctp;
    let vip = Family::V4.addrs().vip;
    send_raw(&lab.client, Protocol::from(132), vip, sctp);
}

#[test]
fn a_monitor_waits_though_something_has_happened_before() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("idle");
    node.attach();
    let service = "203.0.113.10:3868=198.51.100.1:13868";
    node.says(&["apply", "--service", service], 0);
    send_stray(&node.lab);
    let mut watching = node.watch(&["monitor", "--idle", "60", "--count", "1"]);
    let ended = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(100));
        send_stray(&node.lab);
        watching.try_wait().is_ok_and(|status| status.is_some())
    });
    if !ended {
        watching.kill().expect("it runs");
    }
    let output = watching.wait_with_output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(ended && said.contains("drop_no_assoc"), "{said}");
}

#[rstest]
#[case(&["attach", "to-c", "--masquerade", "127.0.0.1"])]
#[case(&["attach", "to-c", "--masquerade", "::ffff:192.0.2.1"])]
#[case(&["attach", "to-c", "--max-associations", "0"])]
#[case(&["attach", "to-c", "--max-backends", "4294967295"])]
#[case(&["attach", "to-c", "--timeout", "established=99999999"])]
#[case(&["apply", "--service", "203.0.113.10:0=198.51.100.1:1"])]
#[case(&["apply", "--service", "127.0.0.1:1=198.51.100.1:1"])]
#[case(&["apply", "--service", "203.0.113.10:1=198.51.100.1:0"])]
#[case(&["apply", "--service", "203.0.113.10:1=198.51.100.1:1,198.51.100.1:1"])]
#[case(&["monitor", "--count", "0"])]
fn what_makes_no_sense_is_refused(#[case] args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_sctp-lb"))
        .args(args)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("invalid value"), "{said}");
}

/// What is left of the maps is of no use to who has them yet.
#[rstest]
#[case(&["monitor"])]
#[case(&["share", "--listen", "127.0.0.1:0"])]
fn who_watches_what_is_detached_is_told(#[case] args: &[&str]) {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new(&format!("{}-ends", args[0]));
    node.attach();
    let mut watching = node.watch(args);
    assert!(watching.try_wait().expect("it runs").is_none());
    node.says(&["detach", "--all"], 0);
    // It may be at work yet, if it is slow to begin.
    let attached = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        node.run(&["attach", TRANSLATOR_DEVS[0]]).status.success()
    });
    assert!(attached);
    let ended = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        watching.try_wait().is_ok_and(|status| status.is_some())
    });
    if !ended {
        watching.kill().expect("it runs");
    }
    let output = watching.wait_with_output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(ended && output.status.code() == Some(1), "{said}");
    assert!(said.contains("was detached meanwhile"), "{said}");
}

#[test]
fn maps_keep_their_size() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("sizes");
    let [device, ..] = TRANSLATOR_DEVS;
    let size = "--max-associations";
    node.says(&["attach", device, size, "1000"], 0);
    let said = node.says(&["attach", device, size, "2000"], 1);
    assert!(said.contains("room for 1000, not for 2000"), "{said}");
    // Also if it is what it would have been without a word.
    let said = node.says(&["attach", device, size, "65536"], 1);
    assert!(said.contains("room for 1000, not for 65536"), "{said}");
    node.says(&["attach", device], 0);
    node.says(&["detach", "--all"], 0);
    node.says(&["attach", device, size, "2000"], 0);
}

/// The program of each point that it is attached to, by its number.
fn programs(node: &Node) -> Vec<u32> {
    let links = ["tcx-ingress", "tcx-egress"].map(|point| node.pins.join("links").join(point));
    let links = links.map(|folder| Link::open(folder.join(TRANSLATOR_DEVS[0])).expect("a link"));
    links
        .map(|link| link.info().expect("it has some").prog_id)
        .to_vec()
}

/// Also if the device there has the same number.
#[test]
fn a_device_of_the_same_name_elsewhere_is_another() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("names");
    let [device, ..] = TRANSLATOR_DEVS;
    node.says(&["attach", device], 0);
    let before = programs(&node);
    let elsewhere = Lab::new().expect("namespaces and veth");
    let index = |lab: &Lab| lab.translator.run(|| if_nametoindex(device));
    assert_eq!(
        index(&elsewhere).expect("a namespace"),
        index(&node.lab).expect("a namespace")
    );
    let run = |args: &[&str]| node.run_in(&elsewhere, &node.pins, args);
    let refuse = |verb| {
        let output = run(&[verb, device]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("another network namespace"), "{said}");
    };
    refuse("attach");
    refuse("detach");
    // Nor if it has another one.
    let commands = [
        format!("link del {device}"),
        "link add first type veth peer name second".into(),
        format!("link add {device} type veth peer name third"),
    ];
    elsewhere.translator.ip_batch(&commands).expect("devices");
    refuse("detach");
    assert_eq!(programs(&node), before);
    node.says(&["detach", device], 0);
    // With nothing attached it may go elsewhere.
    assert!(run(&["attach", device]).status.success());
    let said = node.says(&["detach", "--all"], 1);
    assert!(said.contains("another network namespace"), "{said}");
    assert!(run(&["detach", "--all"]).status.success());
}

#[test]
fn maps_of_another_version_are_refused() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("version");
    node.attach();
    let settings = MapHandle::from_pinned_path(node.pins.join("settings")).expect("a map");
    let value = settings.lookup(&[0; 4], MapFlags::ANY).expect("a map");
    let mut value = value.expect("an array");
    // The generation of the policies is before it.
    value[4..8].copy_from_slice(&99_u32.to_ne_bytes());
    let written = settings.update(&[0; 4], &value, MapFlags::ANY);
    written.expect("a map");
    let [device, other] = TRANSLATOR_DEVS;
    for command in [&["get", "services"][..], &["attach", device]] {
        let said = node.says(command, 1);
        assert!(said.contains("have layout 99"), "{said}");
    }
    node.says(&["detach", device], 0);
    let said = node.says(&["status"], 1);
    assert!(said.contains("have layout 99"), "{said}");
    node.says(&["detach", other], 0);
}

#[test]
fn a_device_that_was_renamed_is_known_by_its_new_name() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("renamed");
    let [device, ..] = TRANSLATOR_DEVS;
    node.says(&["attach", device], 0);
    let commands = [
        format!("link set {device} down"),
        format!("link set {device} name renamed"),
        format!("link add {device} type veth peer name third"),
    ];
    node.lab.translator.ip_batch(&commands).expect("devices");
    assert!(node.says(&["status"], 0).contains("attached: renamed at"));
    let said = node.says(&["detach", device], 1);
    assert!(said.contains("not attached"), "{said}");
    node.says(&["attach", device, "renamed"], 0);
    let said = node.says(&["status"], 0);
    for name in [device, "renamed"] {
        let points = said.matches(&format!("attached: {name} at")).count();
        assert_eq!(points, 2, "{said}");
    }
    node.says(&["detach", "renamed"], 0);
    assert!(!node.says(&["status"], 0).contains("renamed"));
}

/// Its number may be another's here.
#[rstest]
fn a_device_that_was_moved_is_in_nobodys_way(#[values("tc", "xdp")] mode: &str) {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new(&format!("moved-{mode}"));
    let [device, other] = TRANSLATOR_DEVS;
    let attach = |devices: &[&str]| {
        let attach = [&["attach", "--mode", mode], devices].concat();
        node.says(&attach, 0);
    };
    attach(&[device, other]);
    let index = node.lab.translator.run(|| if_nametoindex(device));
    let index = index.expect("a namespace").expect("it is there");
    let elsewhere = Lab::new().expect("namespaces and veth");
    let there = elsewhere.translator.path();
    let send = |device, name| {
        let there = there.display();
        format!("link set {device} netns {there} name {name}")
    };
    let commands = [
        send(device, "moved"),
        format!("link add successor index {index} type veth peer name fourth"),
    ];
    node.lab.translator.ip_batch(&commands).expect("devices");
    let moved = |said: &str| {
        let lines = said
            .lines()
            .filter(|line| line.contains("another network namespace"));
        assert!(
            !said.contains("successor") && !said.contains("%moved"),
            "{said}"
        );
        lines
            .filter(|line| line.starts_with(&format!("attached: {device} at")))
            .count()
    };
    assert_eq!(moved(&node.says(&["status"], 0)), 2);
    attach(&[other]);
    node.says(&["detach", other], 0);
    assert_eq!(moved(&node.says(&["status"], 0)), 2);
    node.says(&["detach", device], 0);
    assert_eq!(moved(&node.says(&["status"], 0)), 0);
    // The next of its name takes its place.
    attach(&[other]);
    let commands = [
        send(other, "moved-too"),
        format!("link add {other} type veth peer name third"),
    ];
    node.lab.translator.ip_batch(&commands).expect("devices");
    attach(&[other]);
    let said = node.says(&["status"], 0);
    assert!(said.contains(&format!("attached: {other} at")), "{said}");
    assert!(!said.contains("another network namespace"), "{said}");
}

#[rstest]
fn two_load_balancers_on_a_device_are_one_too_many(
    #[values("tc", "xdp")] first: &str,
    #[values("tc", "xdp")] second: &str,
) {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new(&format!("two-{first}-{second}"));
    let pins = PathBuf::from(format!("{}-other", node.pins.display()));
    let [device, ..] = TRANSLATOR_DEVS;
    let said = node.says(&["attach", device, "--mode", first], 0);
    assert!(!said.contains("another load balancer"), "{said}");
    let output = node.run_in(&node.lab, &pins, &["attach", device, "--mode", second]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    node.run_in(&node.lab, &pins, &["detach", "--all"]);
    if [first, second] == ["xdp", "xdp"] {
        assert!(!output.status.success(), "{said}");
    } else {
        assert!(said.contains("another load balancer"), "{said}");
    }
}

/// Who reads what is said has left, as `head` does.
#[test]
fn what_nobody_hears_is_done_all_the_same() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("unheard");
    let run = |args: &[&str]| {
        let full = fs::File::create("/dev/full").expect("it is there");
        let mut command = node.command(&node.pins, args);
        let status = node.lab.translator.run(|| command.stderr(full).status());
        status.expect("a namespace").expect("it runs").code()
    };
    let warned = ["attach", TRANSLATOR_DEVS[0], "--masquerade", "203.0.113.99"];
    assert_eq!(run(&warned), Some(0));
    assert_eq!(run(&["monitor", "--idle", "1"]), Some(0));
    assert_eq!(run(&["detach", "nothing"]), Some(1));
}

#[test]
fn devices_that_changed_names_keep_their_programs() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("swapped");
    let [one, other] = TRANSLATOR_DEVS;
    node.says(&["attach", one], 0);
    node.says(&["attach", other, "--mode", "xdp"], 0);
    let names = [(one, "between"), (other, one), ("between", other)];
    let renamed = names.map(|(from, to)| format!("link set {from} name {to}"));
    let commands: Vec<_> = [one, other]
        .map(|device| format!("link set {device} down"))
        .into_iter()
        .chain(renamed)
        .collect();
    node.lab.translator.ip_batch(&commands).expect("devices");
    let at_points = |wanted: &[(&str, usize)]| {
        let said = node.says(&["status"], 0);
        for (at, nr) in wanted {
            assert_eq!(said.matches(at).count(), *nr, "{at}: {said}");
        }
    };
    at_points(&[
        (&format!("{one} at xdp"), 1),
        (&format!("{other} at tcx-ingress"), 1),
    ]);
    node.says(&["attach", one], 0);
    at_points(&[("at xdp", 0), ("at tcx-ingress", 2), ("at tcx-egress", 2)]);
    node.says(&["detach", other], 0);
    at_points(&[(&format!("{one} at"), 2), (&format!("{other} at"), 0)]);
}

#[test]
fn a_device_may_be_named_by_another_name() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("altname");
    let [device, ..] = TRANSLATOR_DEVS;
    let command = [format!("link property add dev {device} altname uplink")];
    node.lab.translator.ip_batch(&command).expect("a name");
    let said = node.says(&["attach", "uplink"], 0);
    assert!(!said.contains("another load balancer"), "{said}");
    assert!(node.says(&["status"], 0).contains(&format!("{device} at")));
    node.says(&["detach", "uplink"], 0);
    assert!(node.says(&["status"], 0).contains("not attached"));
}

#[test]
fn an_attach_that_fails_leaves_nothing() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("fails");
    let said = node.says(&["attach", TRANSLATOR_DEVS[0], "missing"], 1);
    assert!(said.contains("no device missing"), "{said}");
    assert!(!node.pins.exists());
}

#[test]
fn devices_are_detached_together_or_not_at_all() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("together");
    node.attach();
    let said = node.says(&["detach", TRANSLATOR_DEVS[0], "eth7"], 1);
    assert_eq!(
        said,
        "sctp-lb: detach from eth7: sctp-lb is not attached there\n"
    );
    let said = node.says(&["status"], 0);
    assert!(said.contains(TRANSLATOR_DEVS[0]), "{said}");
}

#[test]
fn a_masquerade_as_somebody_else_is_named() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("somebody");
    let [device, ..] = TRANSLATOR_DEVS;
    let attach = |addr: IpAddr| {
        let addr = addr.to_string();
        node.says(&["attach", device, "--masquerade", &addr], 0)
    };
    let own = Family::V4.addrs().backend_gateway;
    assert_eq!(attach(own), "");
    let other = Family::V4.addrs().vip;
    let said = attach(other);
    assert!(
        said.contains(&format!("{other} is not an address of this node")),
        "{said}"
    );
}

#[rstest]
fn who_may_not_is_told(
    #[values(
        &["attach", "to-c"], &["get", "services"], &["stats"], &["detach", "to-c"],
        &["apply", "--service", "203.0.113.10:1=198.51.100.1:1"]
    )]
    args: &[&str],
) {
    require!(Feature::Root);
    // Its folder may be closed to others.
    let program = fs::File::open(env!("CARGO_BIN_EXE_sctp-lb")).expect("it is built");
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let output = command.args(args).uid(65534).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("needs root"), "{said}");
}

#[test]
fn a_node_is_no_peer_of_itself() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("itself");
    let own = "127.0.0.1:7777";
    let said = node.says(&["share", "--listen", own, "--peer", own], 2);
    assert!(said.contains("name the others"), "{said}");
}

#[test]
fn devices_without_ethernet_are_refused() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("ethernet");
    let said = node.says(&["attach", "lo"], 1);
    assert!(said.contains("Ethernet"), "{said}");
    let addrs = ["--masquerade", "192.0.2.7", "--masquerade", "192.0.2.8"];
    let attach = [&["attach", TRANSLATOR_DEVS[0]], &addrs[..]].concat();
    let said = node.says(&attach, 2);
    assert!(said.contains("one address of each family"), "{said}");
}

#[test]
fn nothing_at_all_is_not_applied() {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new("nothing");
    node.attach();
    node.says(&["apply", "--service", "203.0.113.10:1=198.51.100.1:1"], 0);
    for file in ["/dev/null", "-"] {
        let said = node.says(&["apply", "-f", file], 1);
        assert!(said.contains("nothing in it"), "{said}");
    }
    let said = node.says(&["get", "services"], 0);
    assert!(said.contains("203.0.113.10:1"), "{said}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("empty.json");
    fs::write(
        &file,
        r#"{"apiVersion": "v1", "kind": "List", "items": []}"#,
    )
    .expect("a file");
    let said = node.says(&["apply", "-f", &file.to_string_lossy()], 0);
    assert!(
        said.contains("note: ") && said.contains("1 frontends removed"),
        "{said}"
    );
}

#[rstest]
fn output_that_cannot_be_written_is_an_error(
    #[values(
        &["apply", "--service", "203.0.113.10:1=198.51.100.1:1"],
        &["apply", "--service", "203.0.113.10:1=198.51.100.1:1", "-o", "json"],
        &["status"], &["completions", "bash"]
    )]
    args: &[&str],
) {
    require!(Feature::Root, Feature::Btf);
    let node = Node::new(&format!("full-{}", args.len()));
    node.attach();
    let run = || {
        let full = fs::File::create("/dev/full").expect("it is there");
        node.command(&node.pins, args).stdout(full).output()
    };
    let output = node.lab.translator.run(run);
    let output = output.expect("a namespace").expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left"), "{said}");
}
