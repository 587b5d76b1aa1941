// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What can go wrong, and what to do next.

use std::io;

/// Errors of the harness.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or file operation.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that the harness runs, such as `ip`.
    #[error("`{command}` failed: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed.
        stderr: String,
    },
    /// libbpf or the verifier.
    #[error("{what}: {source}")]
    Bpf {
        /// What was tried.
        what: String,
        /// What libbpf said.
        source: libbpf_rs::Error,
    },
    /// The kernel lacks something.
    #[error("{0}")]
    Missing(#[from] crate::feature::Missing),
    /// A packet that cannot be built or is not what it should be.
    #[error("packet: {0}")]
    Packet(String),
    /// Pinned maps of another version.
    #[error(
        "the pinned maps have layout {0}, and this program is for {1}: run sctp-lb detach --all, \
         which ends all associations, and attach again"
    )]
    Layout(u32, u32),
    /// The maps are no longer those of the load balancer.
    #[error("{0} was detached meanwhile, or attached anew: start this again when it is attached")]
    Gone(String),
    /// A map has another size than is wanted.
    #[error(
        "the map {map} has room for {is}, not for {wanted}: run sctp-lb detach --all, which ends all \
         associations, and attach again"
    )]
    Size {
        /// The map.
        map: String,
        /// How many it has room for.
        is: u32,
        /// How many are wanted.
        wanted: u32,
    },
    /// What was asked for cannot be, and why.
    #[error("{0}")]
    Refused(String),
    /// Another process is changing the same load balancer.
    #[error("another sctp-lb is at work on {0}: try again when it is done")]
    Busy(String),
    /// More is wanted than a map has room for.
    #[error(
        "{wanted} {what}, but there is room for {room}: attach with larger maps (sctp-lb attach \
         --help), after sctp-lb detach --all"
    )]
    Full {
        /// What there are too many of.
        what: String,
        /// How many are wanted.
        wanted: usize,
        /// How many there can be.
        room: usize,
    },
    /// More is wanted than there can be, however large the maps are.
    #[error("{wanted} {what}, but there can be {most} at most")]
    Limit {
        /// What there are too many of.
        what: String,
        /// How many are wanted.
        wanted: usize,
        /// How many there can be.
        most: usize,
    },
    /// An association did not come about, or broke.
    #[error("association: {0}")]
    Association(String),
    /// What a peer sends is not understood, or not meant for this node.
    #[error("{0}")]
    Protocol(String),
    /// A manifest, or a part of one, that is not understood.
    #[error("{place}: {problem}")]
    Manifest {
        /// File, object and field, as far as they are known.
        place: String,
        /// What is wrong with it, and what to do where that is known.
        problem: String,
    },
}

/// Shorthand for results with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was tried when an operation fails.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::Io {
            what: what(),
            source: e.into(),
        })
    }
}

/// [`Doing`] for libbpf's errors, which are not I/O errors.
pub(crate) trait BpfDoing<T> {
    fn bpf(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> BpfDoing<T> for libbpf_rs::Result<T> {
    fn bpf(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Bpf {
            what: what(),
            source,
        })
    }
}
