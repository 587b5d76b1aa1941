// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What the maps take of the kernel's memory, as the kernel counts it (`map_mem_usage`).

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapHandle};

use super::datapath::{Datapath, Options};
use super::maps::{Maps, Sizes, assoc_addrs};
use crate::csum_prog::Hook;
use crate::error::{Doing, Error, Result};

/// Bytes of a map.
fn memory(map: &MapHandle) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    text.lines()
        .filter_map(|line| line.strip_prefix("memlock:"))
        .find_map(|bytes| bytes.trim().parse().ok())
        .ok_or_else(|| Error::Packet(format!("no memlock in {path}")))
}

/// The maps whose size is the number of associations, or follows from it.
fn by_association(maps: &Maps) -> Result<BTreeMap<String, u64>> {
    let handles = [
        &maps.assocs.handle,
        &maps.paths.handle,
        &maps.by_tag.handle,
        &maps.multihomed.handle,
    ];
    let named = |map: &&MapHandle| Ok((map.name().to_string_lossy().into_owned(), memory(map)?));
    handles.iter().map(named).collect()
}

/// Bytes in each map for an association, of a load balancer with room for so many: those of
/// `multihomed` only for one with several addresses, of the others in any case.
///
/// # Errors
/// If the user may not, or there is no memory for them.
pub fn memory_per_association(room: u32) -> Result<BTreeMap<String, u64>> {
    const MULTIHOMED: u64 = 1000;
    let with_room = |assocs| -> Result<BTreeMap<String, u64>> {
        let mut storage = MaybeUninit::uninit();
        let options = Options {
            sizes: Sizes {
                assocs,
                ..Sizes::default()
            },
            ..Options::default()
        };
        let datapath = Datapath::load(Hook::Tc, &options, &mut storage)?;
        let maps = datapath.maps();
        let mut bytes = by_association(maps)?;
        let empty = memory(&maps.multihomed.handle)?;
        for id in 0..MULTIHOMED {
            maps.multihomed.insert(&id, &assoc_addrs::default())?;
        }
        let full = memory(&maps.multihomed.handle)?;
        bytes.insert(
            "multihomed".into(),
            (full - empty) * u64::from(assocs) / MULTIHOMED,
        );
        Ok(bytes)
    };
    let (one, two) = (with_room(room)?, with_room(2 * room)?);
    let each = |(name, bytes): (String, u64)| {
        let less = one.get(&name).copied().unwrap_or_default();
        (name, (bytes - less).div_ceil(room.into()))
    };
    Ok(two.into_iter().map(each).collect())
}
