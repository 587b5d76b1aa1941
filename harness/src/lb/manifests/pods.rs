// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Whom policies are about: `Pod`s, and the `Namespace`s that they are in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod as Manifest, PodSpec};

use super::reading::{Object, Objects};
use super::selectors::{Labels, Selector};
use super::values;
use crate::error::Result;

/// The label that each namespace has, with its name.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A pod in the cluster's network.
#[derive(Debug)]
pub(super) struct Pod<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: Labels,
    pub addrs: Vec<IpAddr>,
    /// Its ports of SCTP, by their names.
    pub ports: BTreeMap<&'a str, u16>,
}

/// All pods and namespaces.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    pub pods: Vec<Pod<'a>>,
    namespaces: BTreeMap<&'a str, Labels>,
}

impl<'a> Cluster<'a> {
    /// Reads them from `objects`.
    pub fn new(objects: &'a Objects, notes: &mut Vec<String>) -> Result<Self> {
        let mut cluster = Self {
            pods: Vec::new(),
            namespaces: namespaces(objects),
        };
        let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
        for object in &objects.pods {
            if !runs(object)? {
                continue;
            }
            if is_on_host_network(object) {
                let title = object.title();
                notes.push(format!(
                    "{title}: on its host's network: no policy is about it"
                ));
                continue;
            }
            let pod = Pod::of(object)?;
            for addr in &pod.addrs {
                if let Some(other) = owners.insert(*addr, object.title()) {
                    let problem = format!("{addr} is an address of {other} too");
                    return Err(object.error("status.podIPs", problem));
                }
            }
            cluster.name_namespace(pod.namespace);
            cluster.pods.push(pod);
        }
        Ok(cluster)
    }

    /// A namespace that was not read has its name at least.
    fn name_namespace(&mut self, name: &'a str) {
        let labels = self.namespaces.entry(name).or_default();
        labels.insert(NAMESPACE_NAME_LABEL.to_string(), name.to_string());
    }

    /// Whether `selector` selects the namespace of this name.
    pub fn selects(&self, selector: &Selector, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace);
        labels.is_some_and(|labels| selector.matches(labels))
    }
}

fn namespaces(objects: &Objects) -> BTreeMap<&str, Labels> {
    let all = objects.namespaces.iter();
    all.map(|object| {
        let labels = object.it.metadata.labels.clone();
        (object.name.as_str(), labels.unwrap_or_default())
    })
    .collect()
}

/// The namespaces of pods that no file describes.
pub(super) fn unknown_namespaces(objects: &Objects) -> Vec<&str> {
    let known = namespaces(objects);
    let pods = objects.pods.iter().map(|object| object.namespace.as_str());
    let mut unknown: Vec<_> = pods.filter(|name| !known.contains_key(name)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

/// A pod that has ended has no address any more.
fn runs(object: &Object<Manifest>) -> Result<bool> {
    const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
    let status = object.it.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let phase = object.check("status.phase", values::one_of(phase, &PHASES))?;
    Ok(!matches!(phase, Some("Succeeded" | "Failed")))
}

fn is_on_host_network(object: &Object<Manifest>) -> bool {
    let spec = object.it.spec.as_ref();
    spec.and_then(|spec| spec.host_network) == Some(true)
}

impl<'a> Pod<'a> {
    fn of(object: &'a Object<Manifest>) -> Result<Self> {
        Ok(Self {
            namespace: &object.namespace,
            name: &object.name,
            labels: object.it.metadata.labels.clone().unwrap_or_default(),
            addrs: addresses(object)?,
            ports: named_ports(object)?,
        })
    }
}

fn addresses(object: &Object<Manifest>) -> Result<Vec<IpAddr>> {
    let Some(status) = &object.it.status else {
        return Ok(Vec::new());
    };
    let several = status.pod_ips.iter().flatten().enumerate();
    let several = several.map(|(index, pod_ip)| (format!("status.podIPs[{index}].ip"), &pod_ip.ip));
    let mut texts: Vec<_> = several.collect();
    if texts.is_empty() {
        let one = status.pod_ip.iter();
        texts.extend(one.map(|text| ("status.podIP".to_string(), text)));
    }
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    texts
        .map(|(field, text)| object.check(field, values::address(text)))
        .collect()
}

/// The containers that run as long as the pod does, with their fields.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let containers = spec.containers.iter().enumerate();
    let containers = containers.map(|(i, container)| (format!("spec.containers[{i}]"), container));
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars.map(|(i, container)| (format!("spec.initContainers[{i}]"), container));
    containers.chain(
        sidecars.filter(|(_, container)| container.restart_policy.as_deref() == Some("Always")),
    )
}

fn named_ports(object: &Object<Manifest>) -> Result<BTreeMap<&str, u16>> {
    let mut named = BTreeMap::new();
    for (field, container) in object.it.spec.iter().flat_map(containers) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let field = format!("{field}.ports[{index}]");
            let is_sctp = values::is_sctp(port.protocol.as_deref());
            let is_sctp = object.check(format!("{field}.protocol"), is_sctp)?;
            let (Some(name), true) = (&port.name, is_sctp) else {
                continue;
            };
            let field = format!("{field}.containerPort");
            let number = object.check(field, values::port(port.container_port))?;
            named.entry(name.as_str()).or_insert(number);
        }
    }
    Ok(named)
}
