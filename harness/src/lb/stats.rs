// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The datapath's counters, by the names of `bpf/lb_stats.h`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::{Btf, BtfType};
use libbpf_rs::{MapCore, MapFlags};

use super::maps::Maps;
use crate::error::{BpfDoing, Error, Result};
use crate::skel;

/// Packets and associations counted since the maps were made, by what happened to them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// The counter of this name, for example `drop_tag`.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All counters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Packets that were dropped, for whatever reason.
    pub fn drops(&self) -> u64 {
        let drops = self.iter().filter(|(name, _)| name.starts_with("drop_"));
        drops.map(|(_, value)| value).sum()
    }
}

/// The names of an enum of the program's, by value and without the prefix.
fn enum_names(name: &str, prefix: &str) -> Result<Vec<String>> {
    let doing = || format!("read the names of enum {name} from the program's BTF");
    let btf = Btf::from_raw("lb_tc", skel::LB_TC_OBJECT)
        .bpf(doing)?
        .ok_or_else(|| Error::Packet(doing()))?;
    let found: Enum<'_> = btf
        .type_by_kind::<BtfType<'_>>()
        .filter_map(|found| Enum::try_from(found).ok())
        .find(|found| found.name().is_some_and(|found| found == name))
        .ok_or_else(|| Error::Packet(doing()))?;
    let mut names: Vec<_> = found
        .iter()
        .filter_map(|member| {
            let name = member.name?.to_str()?;
            Some((member.value, name.strip_prefix(prefix)?.to_lowercase()))
        })
        .filter(|(_, name)| name != "max")
        .collect();
    names.sort();
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// The names of the counters, by their place.
///
/// # Errors
/// If the program has no BTF, which its build gives it.
pub fn names() -> Result<&'static [String]> {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    if let Some(names) = NAMES.get() {
        return Ok(names);
    }
    let names = enum_names("stat", "STAT_")?;
    Ok(NAMES.get_or_init(|| names))
}

impl Maps {
    /// Reads the counters, summed over all CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = BTreeMap::new();
        for (key, name) in (0u32..).zip(names()?) {
            let values = self
                .stats
                .lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)
                .bpf(|| "read the counters".into())?
                .unwrap_or_default();
            let values = values.iter().filter_map(|v| v.as_slice().try_into().ok());
            stats.insert(name.clone(), values.map(u64::from_ne_bytes).sum());
        }
        Ok(Stats(stats))
    }
}
