// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What an object says that it is, and what was meant if that is misspelt: what is not read counts
//! as not there, and `apply` removes what is not there.

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

/// A list of objects of any kind.
const LIST: &str = "List";

/// All that is read, with the version that it is read as.
const READ: [(&str, &str); 6] = [
    (Service::KIND, Service::API_VERSION),
    (EndpointSlice::KIND, EndpointSlice::API_VERSION),
    (NetworkPolicy::KIND, NetworkPolicy::API_VERSION),
    (Pod::KIND, Pod::API_VERSION),
    (Namespace::KIND, Namespace::API_VERSION),
    (LIST, "v1"),
];

/// What an object is, as it says itself or the list says that it is in.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub api_version: String,
    pub kind: String,
}

impl Header {
    /// Reads it from an object that is in `list`, if in any.
    pub fn of(value: &Value, list: &Self) -> Result<Self, String> {
        let get = |field: &str, of_list: &str| match value.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            None if !of_list.is_empty() => Ok(of_list.to_string()),
            _ => Err(format!("{field} is missing: not an object of Kubernetes")),
        };
        Ok(Self {
            api_version: get("apiVersion", &list.api_version)?,
            kind: get("kind", &list.kind)?,
        })
    }

    /// What the items of a list are: anything in a `List`, services in a `ServiceList`.
    pub fn items(&self) -> Option<Self> {
        let kind = self.kind.strip_suffix(LIST)?;
        let api_version = if kind.is_empty() {
            ""
        } else {
            &self.api_version
        };
        Some(Self {
            api_version: api_version.to_string(),
            kind: kind.to_string(),
        })
    }

    /// Whether it is a list whose items are read.
    pub fn is_list(&self) -> bool {
        let item = self.kind.strip_suffix(LIST);
        let is_read = |item| READ.contains(&(item, self.api_version.as_str()));
        item.is_some_and(|item| item.is_empty() || is_read(item))
    }

    pub fn is<T: Resource>(&self) -> bool {
        self.api_version == T::API_VERSION && self.kind == T::KIND
    }

    /// What is wrong with it, if it is nearly that of something that is read. Another's kind may
    /// have the same name.
    pub fn mistake(&self) -> Option<String> {
        let Self { api_version, kind } = self;
        let lower = kind.to_lowercase();
        let (item, suffix) = match lower.trim_end_matches('s').strip_suffix("list") {
            Some("") | None => (lower.as_str(), ""),
            Some(item) => (item, LIST),
        };
        let (meant, version) = READ
            .into_iter()
            .find(|(meant, version)| is_near(item, meant) && may_be(api_version, version))?;
        let meant = format!("{meant}{suffix}");
        if *kind != meant {
            let problem =
                format!("kind: \"{kind}\" of {api_version} is not known: is {meant} meant?");
            Some(problem)
        } else if api_version != version {
            let problem = format!("apiVersion: {kind} is read as {version}, not as {api_version}");
            Some(problem)
        } else {
            None
        }
    }
}

/// What kubectl takes for a kind, besides its name.
const SHORT: [(&str, &str); 5] = [
    ("svc", Service::KIND),
    ("netpol", NetworkPolicy::KIND),
    ("networkpolicies", NetworkPolicy::KIND),
    ("po", Pod::KIND),
    ("ns", Namespace::KIND),
];

/// Whether a kind, in lower case, is `meant`, but for a slip or two.
fn is_near(kind: &str, meant: &str) -> bool {
    let slips = if meant.len() < 6 { 1 } else { 2 };
    SHORT.contains(&(kind, meant))
        || strsim::damerau_levenshtein(kind, &meant.to_lowercase()) <= slips
}

/// Whether `api_version` may have been meant to be `version`: its group is that, or nearly, or
/// another one of Kubernetes' own.
fn may_be(api_version: &str, version: &str) -> bool {
    let group = |version: &str| {
        let (group, _) = version.split_once('/').unwrap_or_default();
        group.to_string()
    };
    let (found, meant) = (group(api_version), group(version));
    let is_own = !found.contains('.') || found.ends_with(".k8s.io");
    is_own || strsim::damerau_levenshtein(&found, &meant) <= 3
}
