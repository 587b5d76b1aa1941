// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Harness for SCTP port translation in eBPF.
//!
//! It builds and checks packets ([`packet`], [`checksum`]), runs the BPF programs of `bpf/` on
//! them ([`csum_prog`]) or in a network of namespaces ([`lab`], [`planes`], [`translator`]), and drives
//! associations of the kernel's own SCTP through it ([`sctp`], [`transfer`]) while it captures
//! what is on the wire ([`capture`]).

pub mod bench;
pub mod capture;
pub mod checksum;
pub mod chunk;
pub mod crc_tables;
pub mod csum_prog;
pub mod error;
pub mod feature;
pub mod iperf_bench;
pub mod lab;
pub mod lb;
mod link;
mod map_batch;
mod map_bytes;
pub mod netns;
pub mod packet;
pub mod packet_ring;
pub mod path_bench;
pub mod pcap;
pub mod planes;
pub mod population;
pub mod scenario;
pub mod sctp;
mod skel;
pub mod tcx;
pub mod transfer;
pub mod translator;
pub mod way;
pub mod wire;

pub use error::{Error, Result};
