// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What holds for all ports of a `Service`: its addresses and traffic policies.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};

use super::reading::Object;
use super::{Manifests, values};
use crate::error::Result;

/// How long a client stays with its backend, if its service does not say so, in seconds.
const DEFAULT_AFFINITY: u64 = 10800;
/// The longest that a service may say.
const MAX_AFFINITY: u64 = 86400;

/// Further addresses of a service in the cluster, of which Kubernetes has one for each family.
pub(super) const ADDRESSES_ANNOTATION: &str = "sctp-lb/addresses";

/// Where a service's clients reach it, and who of its endpoints serves them.
#[derive(Debug)]
pub(super) struct Reach {
    /// Its addresses in the cluster.
    pub internal: Vec<IpAddr>,
    /// Its addresses outside.
    pub external: Vec<IpAddr>,
    /// The addresses that its node ports are at.
    pub node: Vec<IpAddr>,
    /// Only endpoints of the node serve clients in the cluster.
    pub internal_local: bool,
    /// Only endpoints of the node serve clients outside.
    pub external_local: bool,
    /// How long a client stays with its backend.
    pub affinity: Option<Duration>,
}

impl Reach {
    /// Reads it from `object`, whose spec is `spec`.
    pub fn of(
        object: &Object<Service>,
        spec: &ServiceSpec,
        options: &Manifests,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let internal = internal(object, spec)?;
        let families = Families::of(object, spec, &internal)?;
        let (external, left_out): (Vec<_>, Vec<_>) = external(object, spec)?
            .into_iter()
            .partition(|addr| families.have(*addr));
        let node_addrs = options.node_addresses.iter().copied();
        let reach = Self {
            internal,
            external,
            node: node_addrs.filter(|addr| families.have(*addr)).collect(),
            internal_local: is_local(object, "internal", spec.internal_traffic_policy.as_ref())?,
            external_local: is_local(object, "external", spec.external_traffic_policy.as_ref())?,
            affinity: affinity(object, spec)?,
        };
        let title = object.title();
        let left_out = left_out.iter();
        notes.extend(
            left_out.map(|addr| format!("{title}: {addr} is of no family of it: left out")),
        );
        if has_source_ranges(spec) {
            notes.push(format!(
                "{title}: spec.loadBalancerSourceRanges is not applied: use a NetworkPolicy"
            ));
        }
        if options.node_name.is_none() && (reach.internal_local || reach.external_local) {
            notes.push(format!(
                "{title}: Local, but this node's name is not given: all endpoints serve it"
            ));
        }
        Ok(reach)
    }
}

/// Insists on Kubernetes' own words where a misspelt one would count as another.
pub(super) fn check_words(object: &Object<Service>, spec: &ServiceSpec) -> Result<()> {
    const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    const FAMILIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    let words = [
        ("type", spec.type_.as_deref(), &TYPES[..]),
        (
            "ipFamilyPolicy",
            spec.ip_family_policy.as_deref(),
            &FAMILIES,
        ),
    ];
    for (field, text, words) in words {
        object.check(format!("spec.{field}"), values::one_of(text, words))?;
    }
    Ok(())
}

/// Why there is nothing to balance.
pub(super) fn has_no_frontend(spec: &ServiceSpec) -> Option<&'static str> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some("an external name: no frontend");
    }
    let headless = cluster_ips(spec).iter().any(|(_, text)| *text == "None");
    headless.then_some("headless: no frontend")
}

fn has_source_ranges(spec: &ServiceSpec) -> bool {
    let ranges = spec.load_balancer_source_ranges.as_ref();
    ranges.is_some_and(|ranges| !ranges.is_empty())
}

/// With their fields. One that is empty has not been assigned yet.
fn cluster_ips(spec: &ServiceSpec) -> Vec<(String, &str)> {
    let several = spec.cluster_ips.iter().flatten().enumerate();
    let several = several.map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text));
    let mut all: Vec<_> = several.collect();
    if all.is_empty() {
        let one = spec.cluster_ip.iter();
        all.extend(one.map(|text| ("spec.clusterIP".to_string(), text)));
    }
    let all = all.into_iter().filter(|(_, text)| !text.is_empty());
    all.map(|(field, text)| (field, text.as_str())).collect()
}

fn internal(object: &Object<Service>, spec: &ServiceSpec) -> Result<Vec<IpAddr>> {
    let mut addrs = Vec::new();
    for (field, text) in cluster_ips(spec) {
        addrs.push(object.check(field, values::address(text))?);
    }
    if let Some((field, list)) = object.annotation(ADDRESSES_ANNOTATION) {
        for text in list.split(',') {
            addrs.push(object.check(&field, values::address(text.trim()))?);
        }
    }
    Ok(addrs)
}

fn external(object: &Object<Service>, spec: &ServiceSpec) -> Result<Vec<IpAddr>> {
    let mut addrs = Vec::new();
    for (index, text) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        addrs.push(object.check(field, values::address(text))?);
    }
    let status = object.it.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    for (index, ingress) in ingress.into_iter().flatten().enumerate() {
        let field = format!("status.loadBalancer.ingress[{index}]");
        addrs.extend(balancer_address(object, &field, ingress)?);
    }
    Ok(addrs)
}

/// The address, if packets come here as they were sent to it, and not from a proxy.
fn balancer_address(
    object: &Object<Service>,
    field: &str,
    ingress: &LoadBalancerIngress,
) -> Result<Option<IpAddr>> {
    let Some(text) = &ingress.ip else {
        return Ok(None);
    };
    match ingress.ip_mode.as_deref() {
        None | Some("VIP") => {}
        Some("Proxy") => return Ok(None),
        Some(other) => {
            let problem = format!("\"{other}\" is neither VIP nor Proxy");
            return Err(object.error(format!("{field}.ipMode"), problem));
        }
    }
    let addr = object.check(format!("{field}.ip"), values::address(text))?;
    Ok(Some(addr))
}

/// The families of a service, which its addresses outside are of as well.
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    fn of(object: &Object<Service>, spec: &ServiceSpec, internal: &[IpAddr]) -> Result<Self> {
        let mut families = Self {
            ipv4: internal.iter().any(IpAddr::is_ipv4),
            ipv6: internal.iter().any(IpAddr::is_ipv6),
        };
        for (index, family) in spec.ip_families.iter().flatten().enumerate() {
            match family.as_str() {
                "IPv4" => families.ipv4 = true,
                "IPv6" => families.ipv6 = true,
                _ => {
                    let problem = format!("\"{family}\" is neither IPv4 nor IPv6");
                    return Err(object.error(format!("spec.ipFamilies[{index}]"), problem));
                }
            }
        }
        // Nothing says so: it has not been through an API server.
        if !families.ipv4 && !families.ipv6 {
            (families.ipv4, families.ipv6) = (true, true);
        }
        Ok(families)
    }

    fn have(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

fn is_local(object: &Object<Service>, side: &str, policy: Option<&String>) -> Result<bool> {
    match policy.map(String::as_str) {
        None | Some("" | "Cluster") => Ok(false),
        Some("Local") => Ok(true),
        Some(other) => Err(object.error(
            format!("spec.{side}TrafficPolicy"),
            format!("\"{other}\" is neither Cluster nor Local"),
        )),
    }
}

fn affinity(object: &Object<Service>, spec: &ServiceSpec) -> Result<Option<Duration>> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => {
            let problem = format!("\"{other}\" is neither ClientIP nor None");
            return Err(object.error("spec.sessionAffinity", problem));
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let client_ip = config.and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|client_ip| client_ip.timeout_seconds);
    match seconds.map_or(Ok(DEFAULT_AFFINITY), u64::try_from) {
        Ok(seconds @ 1..=MAX_AFFINITY) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(object.error(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            format!("must be 1 to {MAX_AFFINITY}"),
        )),
    }
}
