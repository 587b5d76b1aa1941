// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The networks that pods are in besides the cluster's, as Multus notes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::reading::{Object, Objects};
use super::targets::Target;
use super::values;
use crate::error::Result;

/// A list of a pod's networks, in JSON.
const STATUS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/network-status";

/// A network of a pod; what else is said of it does not matter.
#[derive(Deserialize)]
struct Network {
    ips: Option<Vec<String>>,
    /// It is the cluster's.
    #[serde(default)]
    default: bool,
}

/// Addresses of a pod, and the field that they are from.
pub(super) struct Further<'a> {
    pub pod: &'a Object<Pod>,
    pub field: String,
    pub addrs: Vec<IpAddr>,
}

/// The pods that were read, by namespace and name.
pub(super) struct Networks<'a>(BTreeMap<(&'a str, &'a str), &'a Object<Pod>>);

impl<'a> Networks<'a> {
    pub fn new(objects: &'a Objects) -> Self {
        let pods = objects.pods.iter();
        let by_name = pods.map(|pod| ((pod.namespace.as_str(), pod.name.as_str()), pod));
        Self(by_name.collect())
    }

    /// The addresses of a pod outside the cluster's network, if it was read and has any noted.
    pub fn further(&self, target: &Target) -> Result<Option<Further<'a>>> {
        let pod = self.0.get(&target.id()).filter(|pod| target.is(pod));
        let Some(&pod) = pod else {
            return Ok(None);
        };
        let Some((field, text)) = pod.annotation(STATUS_ANNOTATION) else {
            return Ok(None);
        };
        let networks = serde_json::from_str::<Vec<Network>>(text);
        let networks = networks.map_err(|e| format!("is not a list of networks: {e}"));
        let networks = pod.check(&field, networks)?.into_iter();
        let mut addrs = Vec::new();
        for text in networks
            .filter(|network| !network.default)
            .flat_map(|network| network.ips.unwrap_or_default())
        {
            addrs.push(pod.check(&field, values::address(&text))?);
        }
        Ok(Some(Further { pod, field, addrs }))
    }
}
