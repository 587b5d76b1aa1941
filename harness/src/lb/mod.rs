// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The control plane of the load balancer, `sctp-lb`.

pub mod maglev;
pub mod manifests;
pub mod model;
pub mod policy;
