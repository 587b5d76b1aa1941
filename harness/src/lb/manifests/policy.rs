// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Who may associate with whom: `NetworkPolicy`s, applied to pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pods::{self, Cluster, Pod};
use super::reading::{Object, Objects};
use super::selectors::Selector;
use super::{left_to_others, values};
use crate::error::Result;
use crate::lb::model::{Block, EndpointPolicy, PolicyRule, PortRange};

const ALL_PORTS: PortRange = PortRange {
    first: 0,
    last: u16::MAX,
};

/// Makes the policies of all pods that any policy selects.
pub(super) fn build(
    objects: &Objects,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<IpAddr, EndpointPolicy>> {
    let mut endpoints = BTreeMap::new();
    if objects.policies.is_empty() {
        return Ok(endpoints);
    }
    let cluster = Cluster::new(objects, notes)?;
    if objects.policies.iter().any(selects_namespaces) {
        let unknown = pods::unknown_namespaces(objects).into_iter();
        notes.extend(unknown.map(|name| {
            format!("Namespace {name}: not there: policies select it by its name only")
        }));
    }
    let mut without_address = BTreeSet::new();
    for object in &objects.policies {
        let policy = Reader { object, notes }.read(&cluster)?;
        let mut pods = selected(&cluster, object, &policy.selector).peekable();
        if pods.peek().is_none() {
            notes.push(format!("{}: selects no pod that is there", object.title()));
        }
        for pod in pods {
            if pod.addrs.is_empty() {
                without_address.insert((pod.namespace, pod.name));
            }
            policy.apply(pod, &mut endpoints);
        }
    }
    notes.extend(without_address.into_iter().map(|(namespace, name)| {
        format!(
            "Pod {namespace}/{name}: has no address (status.podIPs), so no policy is enforced for it"
        )
    }));
    Ok(endpoints)
}

/// Whether a policy has a selector of namespaces that an unlabelled one may fail.
fn selects_namespaces(object: &Object<NetworkPolicy>) -> bool {
    let spec = object.it.spec.as_ref();
    let from = spec.and_then(|spec| spec.ingress.as_ref());
    let from = from.into_iter().flatten().flat_map(|rule| &rule.from);
    let to = spec.and_then(|spec| spec.egress.as_ref());
    let to = to.into_iter().flatten().flat_map(|rule| &rule.to);
    let mut selectors = from
        .chain(to)
        .flatten()
        .filter_map(|peer| peer.namespace_selector.as_ref());
    selectors.any(|selector| *selector != LabelSelector::default())
}

/// A policy, with its peers looked up. A direction without rules (`None`) is not its business.
struct Policy {
    selector: Selector,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<PolicyRule>>,
}

/// A rule with the ports as it has them.
struct Rule {
    peers: Vec<Block>,
    ranges: Vec<PortRange>,
    /// Names of ports, for the destination to resolve, with their fields.
    names: Vec<(String, String)>,
}

impl Policy {
    /// Adds it to the policies of a pod that it selects.
    fn apply(&self, pod: &Pod<'_>, endpoints: &mut BTreeMap<IpAddr, EndpointPolicy>) {
        let rules = self.ingress.iter().flatten();
        let ingress = rules.filter_map(|rule| rule.to_pod(pod));
        let ingress = self.ingress.as_ref().map(|_| ingress.collect());
        for addr in &pod.addrs {
            let endpoint = endpoints.entry(*addr).or_default();
            add(&mut endpoint.ingress, ingress.as_ref());
            add(&mut endpoint.egress, self.egress.as_ref());
        }
    }
}

/// The pods that a policy is about, by its selector.
fn selected<'c>(
    cluster: &'c Cluster<'_>,
    object: &Object<NetworkPolicy>,
    selector: &Selector,
) -> impl Iterator<Item = &'c Pod<'c>> {
    let pods = cluster.pods.iter();
    pods.filter(move |pod| pod.namespace == object.namespace && selector.matches(&pod.labels))
}

/// Adds a policy's rules of a direction: what any policy allows is allowed.
fn add(to: &mut Option<Vec<PolicyRule>>, rules: Option<&Vec<PolicyRule>>) {
    if let Some(rules) = rules {
        to.get_or_insert_default().extend_from_slice(rules);
    }
}

/// A rule, unless it allows nothing.
fn rule(peers: Vec<Block>, ports: Vec<PortRange>) -> Option<PolicyRule> {
    (!peers.is_empty() && !ports.is_empty()).then_some(PolicyRule { peers, ports })
}

fn one_port(port: u16) -> PortRange {
    PortRange {
        first: port,
        last: port,
    }
}

impl Rule {
    /// What it allows to associate with `pod`, whose names of ports count.
    fn to_pod(&self, pod: &Pod<'_>) -> Option<PolicyRule> {
        let named = self.names.iter();
        let named = named.filter_map(|(_, name)| pod.ports.get(name.as_str()));
        let mut ports = self.ranges.clone();
        ports.extend(named.map(|port| one_port(*port)));
        rule(self.peers.clone(), ports)
    }

    fn has_peer(&self, pod: &Pod<'_>) -> bool {
        pod.addrs.iter().any(|addr| has(&self.peers, *addr))
    }

    /// What it allows to associate with its peers, of whom each has its own names of ports.
    fn to_peers(&self, cluster: &Cluster<'_>) -> Vec<PolicyRule> {
        let mut by_port: BTreeMap<u16, Vec<Block>> = BTreeMap::new();
        for pod in cluster.pods.iter().filter(|pod| self.has_peer(pod)) {
            let addrs = pod.addrs.iter().filter(|addr| has(&self.peers, **addr));
            let blocks: Vec<_> = addrs.map(|addr| host(*addr)).collect();
            let named = self.names.iter();
            for port in named.filter_map(|(_, name)| pod.ports.get(name.as_str())) {
                by_port.entry(*port).or_default().extend(blocks.clone());
            }
        }
        let named = by_port.into_iter();
        let named = named.filter_map(|(port, peers)| rule(peers, vec![one_port(port)]));
        let numbered = rule(self.peers.clone(), self.ranges.clone());
        numbered.into_iter().chain(named).collect()
    }
}

/// Whether `addr` is one of `peers`.
fn has(peers: &[Block], addr: IpAddr) -> bool {
    let is_of = |block: &Block| {
        block.net.contains(&addr) && !block.except.iter().any(|except| except.contains(&addr))
    };
    peers.iter().any(is_of)
}

fn block(net: impl Into<IpNet>) -> Block {
    Block {
        net: net.into(),
        except: Vec::new(),
    }
}

fn host(addr: IpAddr) -> Block {
    block(addr)
}

fn everybody() -> Vec<Block> {
    vec![block(Ipv4Net::default()), block(Ipv6Net::default())]
}

/// Reads a policy, and blames it.
struct Reader<'a> {
    object: &'a Object<NetworkPolicy>,
    notes: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn read(mut self, cluster: &Cluster<'_>) -> Result<Policy> {
        let spec = self.object.it.spec.clone().unwrap_or_default();
        let selector = spec.pod_selector.clone().unwrap_or_default();
        let selector = Selector::parse(self.object, "spec.podSelector", &selector)?;
        let mut ingress = Vec::new();
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let field = format!("spec.ingress[{index}]");
            let from = rule.from.as_deref().unwrap_or_default();
            let ports = rule.ports.as_deref().unwrap_or_default();
            let rule = self.rule(cluster, &field, "from", from, ports)?;
            let pods: Vec<_> = selected(cluster, self.object, &selector).collect();
            if !pods.is_empty() {
                self.note_names(&rule, "pod that it selects", &pods);
            }
            ingress.push(rule);
        }
        let mut egress = Vec::new();
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let field = format!("spec.egress[{index}]");
            let to = rule.to.as_deref().unwrap_or_default();
            let ports = rule.ports.as_deref().unwrap_or_default();
            let rule = self.rule(cluster, &field, "to", to, ports)?;
            let pods = cluster.pods.iter().filter(|pod| rule.has_peer(pod));
            self.note_names(&rule, "pod among its peers", &pods.collect::<Vec<_>>());
            egress.extend(rule.to_peers(cluster));
        }
        let (has_ingress, has_egress) = self.directions(&spec)?;
        Ok(Policy {
            selector,
            ingress: has_ingress.then_some(ingress),
            egress: has_egress.then_some(egress),
        })
    }

    /// Says which names of ports none of `pods` has: to them the rule allows nothing.
    fn note_names(&mut self, rule: &Rule, what: &str, pods: &[&Pod<'_>]) {
        let is_unknown = |name: &str| !pods.iter().any(|pod| pod.ports.contains_key(name));
        let unknown = rule.names.iter().filter(|(_, name)| is_unknown(name));
        let title = self.object.title();
        self.notes.extend(unknown.map(|(field, name)| {
            format!("{title}: {field}: no {what} has a port of SCTP named {name:?}")
        }));
    }

    /// Whether the policy is about ingress, and about egress.
    fn directions(&self, spec: &NetworkPolicySpec) -> Result<(bool, bool)> {
        let types = spec.policy_types.as_deref().unwrap_or_default();
        for (index, policy_type) in types.iter().enumerate() {
            if policy_type != "Ingress" && policy_type != "Egress" {
                let problem = format!("\"{policy_type}\" is neither Ingress nor Egress");
                return Err(self
                    .object
                    .error(format!("spec.policyTypes[{index}]"), problem));
            }
        }
        if types.is_empty() {
            let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
            return Ok((true, has_egress));
        }
        let is_there = |wanted| types.iter().any(|policy_type| policy_type == wanted);
        Ok((is_there("Ingress"), is_there("Egress")))
    }

    fn rule(
        &mut self,
        cluster: &Cluster<'_>,
        field: &str,
        direction: &str,
        peers: &[NetworkPolicyPeer],
        ports: &[NetworkPolicyPort],
    ) -> Result<Rule> {
        let mut rule = Rule {
            peers: Vec::new(),
            ranges: Vec::new(),
            names: Vec::new(),
        };
        for (index, peer) in peers.iter().enumerate() {
            let field = format!("{field}.{direction}[{index}]");
            rule.peers.extend(self.peer(cluster, &field, peer)?);
        }
        for (index, port) in ports.iter().enumerate() {
            self.port(&mut rule, &format!("{field}.ports[{index}]"), port)?;
        }
        // Only what is not given is all: peers that are not there, or ports of TCP, are not.
        if peers.is_empty() {
            rule.peers = everybody();
        }
        if ports.is_empty() {
            rule.ranges = vec![ALL_PORTS];
        }
        Ok(rule)
    }

    fn peer(
        &self,
        cluster: &Cluster<'_>,
        field: &str,
        peer: &NetworkPolicyPeer,
    ) -> Result<Vec<Block>> {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            (Some(block), None, None) => {
                let block = self.ip_block(&format!("{field}.ipBlock"), block)?;
                Ok(vec![block])
            }
            (Some(_), ..) => {
                let problem = "ipBlock and selectors exclude each other: make them two peers";
                Err(self.object.error(field, problem))
            }
            (None, None, None) => {
                let problem = "is empty: give an ipBlock or a selector; {} selects all";
                Err(self.object.error(field, problem))
            }
            (None, namespaces, pods) => {
                self.pods(cluster, field, namespaces.as_ref(), pods.as_ref())
            }
        }
    }

    fn ip_block(&self, field: &str, block: &IPBlock) -> Result<Block> {
        let net = values::cidr(&block.cidr);
        let net = self.object.check(format!("{field}.cidr"), net)?;
        let mut except = Vec::new();
        for (index, text) in block.except.iter().flatten().enumerate() {
            let field = format!("{field}.except[{index}]");
            except.push(self.object.check(field, values::except(text, net))?);
        }
        Ok(Block { net, except })
    }

    /// The addresses of the pods that are selected: in the policy's own namespace, if namespaces
    /// are not.
    fn pods(
        &self,
        cluster: &Cluster<'_>,
        field: &str,
        namespaces: Option<&LabelSelector>,
        pods: Option<&LabelSelector>,
    ) -> Result<Vec<Block>> {
        let parse = |name: &str, selector: Option<&LabelSelector>| {
            let field = format!("{field}.{name}");
            let selector = selector.map(|selector| Selector::parse(self.object, &field, selector));
            selector.transpose()
        };
        let namespaces = parse("namespaceSelector", namespaces)?;
        let pods = parse("podSelector", pods)?;
        let is_peer = |pod: &&Pod<'_>| {
            let here = match &namespaces {
                Some(selector) => cluster.selects(selector, pod.namespace),
                None => pod.namespace == self.object.namespace,
            };
            here && pods
                .as_ref()
                .is_none_or(|selector| selector.matches(&pod.labels))
        };
        let peers = cluster.pods.iter().filter(is_peer);
        Ok(peers
            .flat_map(|pod| &pod.addrs)
            .map(|addr| host(*addr))
            .collect())
    }

    fn port(&mut self, rule: &mut Rule, field: &str, port: &NetworkPolicyPort) -> Result<()> {
        let object = self.object;
        let protocol = port.protocol.as_deref();
        if !object.check(format!("{field}.protocol"), values::is_sctp(protocol))? {
            let what = format!("{}: {field}", object.title());
            self.notes.push(left_to_others(&what, protocol));
            return Ok(());
        }
        let (end_field, field) = (format!("{field}.endPort"), format!("{field}.port"));
        match (&port.port, port.end_port) {
            (None, None) => rule.ranges.push(ALL_PORTS),
            (Some(IntOrString::Int(first)), last) => {
                let first = object.check(&field, values::port(*first))?;
                let last = last.map_or(Ok(first), values::port);
                let last = object.check(&end_field, last)?;
                if last < first {
                    let problem = format!("{last} is less than port, {first}");
                    return Err(object.error(end_field, problem));
                }
                rule.ranges.push(PortRange { first, last });
            }
            (Some(IntOrString::String(name)), None) => {
                let name = object.check(&field, values::port_name(name))?.to_string();
                rule.names.push((field, name));
            }
            (_, Some(_)) => {
                return Err(object.error(end_field, "needs a port that is a number"));
            }
        }
        Ok(())
    }
}
