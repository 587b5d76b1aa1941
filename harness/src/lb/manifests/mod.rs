// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Kubernetes' own objects, from files. `docs/manifests.md` says what each means here.

mod endpoints;
mod kinds;
mod networks;
mod pods;
mod policy;
mod reach;
mod reading;
mod selectors;
mod services;
mod targets;
#[cfg(test)]
mod tests;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::lb::model::{Desired, Source};

/// Files of manifests, and what they do not say of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    /// YAML, of one or more documents, or JSON if the name ends in `.json`; `-` is what comes in.
    pub files: Vec<PathBuf>,
    /// This node, as endpoints name it in `nodeName`. Traffic policies that are `Local` need it.
    pub node_name: Option<String>,
    /// Where clients reach node ports.
    pub node_addresses: Vec<IpAddr>,
    /// What becomes of fields that are not known.
    pub validation: Validation,
}

/// What becomes of fields that are not known, as of a misspelt one: after `kubectl --validate`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Validation {
    /// They are errors.
    #[default]
    Strict,
    /// They are noted, but for those in the spec of a policy: for what another Kubernetes wrote.
    Warn,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// All that is wanted.
    pub desired: Desired,
    /// What was left out and the user should know of, a line each.
    pub notes: Vec<String>,
}

impl Manifests {
    /// Reads all files.
    ///
    /// # Errors
    /// If a file cannot be read, or any part of it that matters here is not understood. The error
    /// names the file, the object and the field.
    pub fn load(&self) -> Result<Reading> {
        self.check_node_addresses()?;
        let mut objects = reading::read(&self.files, self.validation)?;
        let mut notes = std::mem::take(&mut objects.notes);
        let services = services::build(&objects, self, &mut notes)?;
        let policies = policy::build(&objects, &mut notes)?;
        Ok(Reading {
            desired: Desired { services, policies },
            notes,
        })
    }

    fn check_node_addresses(&self) -> Result<()> {
        for addr in &self.node_addresses {
            values::check_address(*addr).map_err(|problem| Error::Manifest {
                place: "node address".into(),
                problem,
            })?;
        }
        Ok(())
    }
}

impl Source for Manifests {
    fn read(&self) -> Result<Desired> {
        Ok(self.load()?.desired)
    }
}

/// The address of one host in the network, as objects and flags may name it.
///
/// # Errors
/// If it is none, or one of the host itself, of a link, or of several hosts.
pub fn parse_address(text: &str) -> Result<IpAddr> {
    values::address(text).map_err(|problem| Error::Manifest {
        place: "address".into(),
        problem,
    })
}

/// Says that a port is not for us.
fn left_to_others(what: &str, protocol: Option<&str>) -> String {
    let protocol = protocol.unwrap_or(values::DEFAULT_PROTOCOL);
    format!("{what} ({protocol}): left to others")
}
