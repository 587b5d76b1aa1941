// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The pods that endpoints are.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::reading::Object;

/// A pod, as endpoints name it in `targetRef`.
#[derive(Debug, Clone)]
pub(super) struct Target {
    namespace: String,
    name: String,
    uid: Option<String>,
}

impl Target {
    /// The pod that an endpoint of `slice` is, if it is one.
    pub fn of(slice: &Object<EndpointSlice>, endpoint: &Endpoint) -> Option<Self> {
        let target = endpoint.target_ref.as_ref()?;
        if target.kind.as_deref() != Some("Pod") {
            return None;
        }
        let namespace = target.namespace.as_ref().unwrap_or(&slice.namespace);
        Some(Self {
            namespace: namespace.clone(),
            name: target.name.clone()?,
            uid: target.uid.clone(),
        })
    }

    /// Namespace and name, which a pod may have after another.
    pub fn id(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    pub fn is_same(&self, other: &Self) -> bool {
        self.id() == other.id() && may_be_same(self.uid.as_deref(), other.uid.as_deref())
    }

    /// Whether `pod`, which has this namespace and name, is the one.
    pub fn is(&self, pod: &Object<Pod>) -> bool {
        may_be_same(self.uid.as_deref(), pod.it.metadata.uid.as_deref())
    }
}

/// Who writes objects by hand gives no uids.
fn may_be_same(uid: Option<&str>, other: Option<&str>) -> bool {
    uid.is_none() || other.is_none() || uid == other
}
