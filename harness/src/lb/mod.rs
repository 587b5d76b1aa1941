// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The load balancer, `sctp-lb`: its control plane ([`model`], [`sync`]), and its programs
//! ([`datapath`]).

pub mod attachment;
pub mod conntrack;
pub mod datapath;
pub mod events;
pub mod inventory;
pub mod maglev;
pub mod maps;
pub mod model;
pub mod policy;
pub mod stats;
pub mod sync;
mod tables;

pub use maps::Maps;
