// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Tests against a running kernel. One binary, so that a VM boots once for all of them.
//!
//! `cargo test` runs what the machine's own kernel can do and says what it skipped;
//! `scripts/test` runs all of it in a VM, on the patched and on the unpatched kernel.

mod association;
mod balanced;
mod csum;
mod fuzz;
mod lb;
mod lb_command;
mod lb_services;
mod lb_sockets;
mod multihome;
mod multihome_sockets;
mod share;
mod support;
mod translate;
