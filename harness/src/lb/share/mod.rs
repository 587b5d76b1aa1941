// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Nodes tell one another of their associations, so that each can carry any path of a multihomed
//! one: the node that opened an association has its timer, and the others adopt it.

mod adopt;
mod exchange;
mod protocol;
mod record;
mod routes;

pub use adopt::{Adoption, Refusal};
pub use exchange::{Exchange, Notice};
pub use record::{Addrs, Handshake, NodeId, Record};
