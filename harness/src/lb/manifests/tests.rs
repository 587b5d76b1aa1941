// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The files of `tests/manifests`, each of which says in its first lines what is to come of it.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rstest::rstest;

use super::*;
use crate::lb::groups::groups;
use crate::lb::model::{
    Backend, Block, EndpointPolicy, Frontend, PolicyRule, PortRange, Service, ServiceName,
};

/// What the comments of a file say behind `tag`.
fn said(path: &Path, tags: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a readable case");
    let comments = text.lines().filter_map(|line| line.strip_prefix("# "));
    let said = comments.filter(|line| tags.iter().any(|tag| line.starts_with(tag)));
    said.map(|line| line.replace("FILE", &path.display().to_string()))
        .collect()
}

/// The file alone, on the node that it names, validated as it says.
fn manifests(path: &Path) -> Manifests {
    let warns = said(path, &["validate: warn"]).pop().is_some();
    let node = said(path, &["node: "]).pop().unwrap_or_default();
    let mut words = node.split_whitespace().skip(1);
    Manifests {
        files: vec![path.into()],
        node_name: words.next().map(String::from),
        node_addresses: words
            .map(|addr| addr.parse().expect("an address"))
            .collect(),
        validation: if warns {
            Validation::Warn
        } else {
            Validation::Strict
        },
    }
}

fn frontend((addr, frontend): (&std::net::SocketAddr, &Frontend)) -> String {
    let masquerade = if frontend.masquerade {
        " masquerade"
    } else {
        ""
    };
    format!("{addr}{masquerade}")
}

fn backend(backend: &Backend) -> String {
    let mut text = backend.addr.to_string();
    for addr in &backend.secondary {
        write!(text, "+{addr}").expect("written");
    }
    if backend.draining {
        text += " draining";
    }
    text
}

/// `items` in one line, or `none`.
fn joined(items: &[String], separator: &str, none: &str) -> String {
    if items.is_empty() {
        return none.to_string();
    }
    items.join(separator)
}

fn service(service: &Service) -> String {
    let frontends: Vec<_> = service.frontends.iter().map(frontend).collect();
    let backends: Vec<_> = service.backends.iter().map(backend).collect();
    let affinity = service.affinity;
    let affinity = affinity.map(|time| format!(" affinity {} s", time.as_secs()));
    let frontends = joined(&frontends, ", ", "nowhere");
    let backends = joined(&backends, ", ", "nobody");
    format!(
        "at {frontends} by {backends}{}",
        affinity.unwrap_or_default()
    )
}

/// The groups of several frontends.
fn vips(name: &ServiceName, service: &Service) -> Vec<String> {
    let several = groups(&service.frontends).into_iter();
    let several = several.filter(|group| group.len() > 1);
    let lines = several.map(|group| {
        let vips: Vec<_> = group.iter().map(ToString::to_string).collect();
        format!("vips: {name} {}", vips.join(", "))
    });
    lines.collect()
}

fn block(block: &Block) -> String {
    let nets: Vec<_> = [&block.net]
        .into_iter()
        .chain(&block.except)
        .map(|net| net.to_string())
        .collect();
    nets.join("!")
}

fn range(range: &PortRange) -> String {
    match range {
        PortRange { first, last } if first == last => first.to_string(),
        PortRange { first, last } => format!("{first}-{last}"),
    }
}

fn rule(rule: &PolicyRule) -> String {
    let peers: Vec<_> = rule.peers.iter().map(block).collect();
    let ports: Vec<_> = rule.ports.iter().map(range).collect();
    format!("[{}]:{}", peers.join(" "), ports.join(","))
}

fn policy(policy: &EndpointPolicy) -> String {
    let directions = [("in", &policy.ingress), ("out", &policy.egress)];
    let directions = directions.into_iter().filter_map(|(direction, rules)| {
        let rules: Vec<_> = rules.as_ref()?.iter().map(rule).collect();
        Some(format!("{direction}: {}", joined(&rules, " ", "nothing")))
    });
    directions.collect::<Vec<_>>().join(", ")
}

/// What was read, as the files say it.
fn told(reading: &Reading) -> Vec<String> {
    let Desired { services, policies } = &reading.desired;
    let services = services.iter();
    let mut told: Vec<_> = services
        .clone()
        .map(|(name, it)| format!("service: {name} {}", service(it)))
        .collect();
    told.extend(services.flat_map(|(name, it)| vips(name, it)));
    let policies = policies.iter();
    told.extend(policies.map(|(addr, it)| format!("policy: {addr} {}", policy(it))));
    told.extend(reading.notes.iter().map(|note| format!("note: {note}")));
    told
}

#[rstest]
fn a_manifest_means(#[files("tests/manifests/good/*.yaml")] path: PathBuf) {
    let reading = manifests(&path).load().expect("a good manifest");
    let expected = said(&path, &["service: ", "vips: ", "policy: ", "note: "]);
    assert_eq!(told(&reading), expected);
}

#[rstest]
fn an_error_names_file_object_and_field(#[files("tests/manifests/errors/*.yaml")] path: PathBuf) {
    let error = manifests(&path).load().expect_err("a bad manifest");
    let [expected] = said(&path, &["error: "]).try_into().expect("one error");
    let expected = expected.strip_prefix("error: ").expect("an error");
    assert_eq!(error.to_string(), format!("{}: {expected}", path.display()));
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn load(files: Vec<PathBuf>) -> Result<Reading> {
    let manifests = Manifests {
        files,
        ..Default::default()
    };
    manifests.load()
}

const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "amf"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 38412, "protocol": "SCTP"}]}}"#;
const SLICE: &str = r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
    "metadata": {"name": "amf-1", "labels": {"kubernetes.io/service-name": "amf"}},
    "addressType": "IPv4", "ports": [{"port": 38412, "protocol": "SCTP"}],
    "endpoints": [{"addresses": ["10.244.1.5"]}]}"#;
const TOLD: &str = "service: default/amf:38412 at 10.96.0.10:38412 by 10.244.1.5:38412";

#[rstest]
#[case("all.json", format!("{SERVICE}\n{SLICE}"))]
#[case("all.yaml", format!("{SERVICE}\n---\n{SLICE}"))]
#[case("list.json", format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{SERVICE}, {SLICE}]}}"#))]
fn json_is_read_like_yaml(#[case] name: &str, #[case] text: String) {
    let dir = tempfile::tempdir().expect("a folder");
    let reading = load(vec![write(&dir, name, &text)]).expect("a good file");
    assert_eq!(told(&reading), [TOLD]);
}

#[test]
fn objects_of_several_files_belong_together() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = vec![write(&dir, "b.json", SLICE), write(&dir, "a.json", SERVICE)];
    assert_eq!(told(&load(files).expect("good files")), [TOLD]);
}

#[test]
fn a_folder_is_its_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().display().to_string();
    write(&dir, "notes.txt", "kind: [");
    std::fs::create_dir(dir.path().join("below.yaml")).expect("made");
    let error = load(vec![dir.path().into()]).expect_err("nothing to read");
    let problem = "there is no file in it that ends in yaml, yml, json";
    assert_eq!(error.to_string(), format!("{folder}: {problem}"));
    write(&dir, "b.json", SLICE);
    write(&dir, "a.yml", SERVICE);
    let reading = load(vec![dir.path().into()]).expect("good files");
    assert_eq!(told(&reading), [TOLD]);
    // What cannot be read is not left out: what it names would be removed.
    let gone = dir.path().join("c.yaml");
    std::os::unix::fs::symlink("/nowhere", &gone).expect("a link");
    let error = load(vec![dir.path().into()]).expect_err("a dangling link");
    assert!(
        error
            .to_string()
            .starts_with(&format!("read {}: ", gone.display())),
        "{error}"
    );
}

#[test]
fn files_in_which_nothing_is_read_remove_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let other = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "amf"}}"#;
    let files = vec![write(&dir, "a.json", other), write(&dir, "b.json", other)];
    let error = load(files.clone())
        .expect_err("nothing is read")
        .to_string();
    let start = format!(
        "{} and 1 more: there is no object that is read",
        files[0].display()
    );
    assert!(error.starts_with(&start), "{error}");
    let none = r#"{"apiVersion": "v1", "kind": "ServiceList", "items": null}"#;
    let others = none
        .replace("v1", "apps/v1")
        .replace("ServiceList", "DeploymentList");
    for items in ["null", "[]"] {
        let others = others.replace("null", items);
        load(vec![write(&dir, "c.json", &others)]).expect_err("no list of what is read");
    }
    let wanted = vec![files[0].clone(), write(&dir, "c.json", none)];
    load(wanted).expect("nothing is wanted");
}

#[test]
fn an_object_in_two_files_is_an_error_that_names_both() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = [
        write(&dir, "a.json", SERVICE),
        write(&dir, "b.json", SERVICE),
    ];
    let [a, b] = files.each_ref().map(|path| path.display().to_string());
    let error = load(files.to_vec()).expect_err("twice").to_string();
    let place = format!("{b}: Service default/amf: metadata.name");
    assert_eq!(
        error,
        format!("{place}: is in {a} already: remove one of them")
    );
}

#[rstest]
#[case("bad.yaml", "kind: [\n")]
#[case("bad.yaml", "a: 1\na: 2\n")]
#[case("bad.json", "{\"kind\": \n")]
fn a_file_that_cannot_be_parsed_is_an_error_of_one_line(#[case] name: &str, #[case] text: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = write(&dir, name, text);
    let error = load(vec![path.clone()]).expect_err("bad").to_string();
    assert!(
        error.starts_with(&format!("{}: ", path.display())),
        "{error}"
    );
    assert!(
        error.contains("line ") && error.lines().count() == 1,
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(vec!["/nowhere/amf.yaml".into()]).expect_err("no file");
    let error = error.to_string();
    assert!(error.starts_with("read /nowhere/amf.yaml: "), "{error}");
}

#[test]
fn node_addresses_are_checked() {
    let node: IpAddr = "::ffff:192.0.2.1".parse().expect("an address");
    let manifests = Manifests {
        node_addresses: vec![node],
        ..Default::default()
    };
    let error = manifests.read().expect_err("a mapped address").to_string();
    let problem = "is an IPv4 address: write it as one";
    assert_eq!(error, format!("node address: {node} {problem}"));
}

#[test]
fn no_files_are_no_services() {
    assert_eq!(load(vec![]).expect("nothing"), Reading::default());
}

#[test]
fn files_of_a_big_cluster_are_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut text = String::new();
    for i in 0..3000 {
        let [high, low] = [i / 250, i % 250 + 1];
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}, labels: {{app: a}}}}\n\
             spec: {{containers: [{{name: c, env: [{}]}}]}}\n\
             status: {{podIPs: [{{ip: 10.1.{high}.{low}}}]}}\n",
            "{name: a, value: b}, ".repeat(30)
        )
        .expect("written");
    }
    let reading = load(vec![write(&dir, "pods.yaml", &text)]).expect("many pods");
    assert!(reading.notes.is_empty());
}
