// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The load balancer, `sctp-lb`: what it is to do ([`model`], [`manifests`]), its programs
//! ([`datapath`], [`attachment`]), and what connects the two ([`sync`]).

pub mod attachment;
pub mod conntrack;
pub mod datapath;
pub mod events;
mod groups;
pub mod inventory;
pub mod maglev;
pub mod manifests;
pub mod maps;
pub mod memory;
pub mod model;
pub mod policy;
pub mod share;
pub mod stats;
pub mod sync;
mod tables;

pub use maps::Maps;
