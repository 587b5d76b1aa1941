// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The maps of the load balancer (`bpf/lb_maps.h`), with the types of their keys and values.

use std::ffi::OsStr;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object};

use crate::error::{BpfDoing, Error, Result};
use crate::map_batch::read_all;
use crate::map_bytes::{MapBytes, addr, words};
pub(crate) use crate::skel::lb_tc::types::{
    addr_list, affinity, affinity_key, assoc, assoc_addrs, backend, endpoint, endpoint_policy,
    event, ip_addr, lb_settings, path, policy_key, policy_ports, port_range, service, service_name,
    tag_key, tuple,
};

// SAFETY: integers, with explicit padding; the build fails below if there is any other.
unsafe impl MapBytes for assoc {}
// SAFETY: as above.
unsafe impl MapBytes for path {}
// SAFETY: as above.
unsafe impl MapBytes for tuple {}
// SAFETY: as above.
unsafe impl MapBytes for service {}
// SAFETY: as above.
unsafe impl MapBytes for backend {}
// SAFETY: as above.
unsafe impl MapBytes for endpoint {}
// SAFETY: as above.
unsafe impl MapBytes for ip_addr {}
// SAFETY: as above.
unsafe impl MapBytes for endpoint_policy {}
// SAFETY: as above.
unsafe impl MapBytes for policy_key {}
// SAFETY: as above.
unsafe impl MapBytes for policy_ports {}
// SAFETY: as above.
unsafe impl MapBytes for lb_settings {}
// SAFETY: as above.
unsafe impl MapBytes for affinity_key {}
// SAFETY: as above.
unsafe impl MapBytes for affinity {}
// SAFETY: as above.
unsafe impl MapBytes for event {}
// SAFETY: as above.
unsafe impl MapBytes for service_name {}
// SAFETY: as above.
unsafe impl MapBytes for addr_list {}
// SAFETY: as above.
unsafe impl MapBytes for assoc_addrs {}
// SAFETY: as above.
unsafe impl MapBytes for tag_key {}

/// To be raised with each change of what is in the maps, or in what order counters are.
const LAYOUT: u32 = 9;

/// The most addresses of a client, of a service and of a backend (`bpf/lb_types.h`).
pub(crate) const MAX_ADDRS: usize = 8;

const _: () = {
    assert!(size_of::<tuple>() == 2 * 16 + 2 * 2);
    assert!(size_of::<path>() == 2 * 8 + 36 + 12);
    assert!(size_of::<assoc>() == 16 + 4 + 4 + 3 * 8 + 8 + 16 + 5 * 8 + 2 * 36 + 6 * 4);
    assert!(size_of::<event>() == 8 + 2 * 4 + 2 * 36 + 2 * 4);
    assert!(size_of::<addr_list>() == 4 + MAX_ADDRS * 16);
    assert!(size_of::<assoc_addrs>() == 3 * size_of::<addr_list>() + 9 * 4 + 2 * 16);
    assert!(size_of::<tag_key>() == 4 + 2 * 2);
    assert!(size_of::<service>() == 6 * 4 + 4);
    assert!(size_of::<backend>() == 20 + 4 + 4 + size_of::<addr_list>());
};

/// Most entries of the maps whose size the user may choose. A map that is pinned keeps its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Associations at a time.
    pub assocs: u32,
    /// Frontends of services, that is their addresses and ports.
    pub services: u32,
    /// Backends, counted once for each service.
    pub backends: u32,
    /// Slots of all Maglev tables: at least 100 for each backend.
    pub table_slots: u32,
    /// Prefixes of all policies.
    pub policy_prefixes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            assocs: 1 << 16,
            services: 1 << 14,
            backends: 1 << 15,
            table_slots: 1 << 22,
            policy_prefixes: 1 << 16,
        }
    }
}

impl Sizes {
    /// The size of the map of this name, if it is one of them.
    pub(crate) fn of(&self, map: &str) -> Option<u32> {
        Some(match map {
            "assocs" | "affinities" | "multihomed" => self.assocs,
            // The tags of either side.
            "by_tag" => self.assocs.saturating_mul(2),
            // One way and back, of two pairs of addresses.
            "paths" => self.assocs.saturating_mul(4),
            "services" | "service_names" | "vips" => self.services,
            "backends" | "policy_endpoints" => self.backends,
            // Those of services, all that backends can have, and those of endpoints with a policy.
            "our_addrs" => self
                .backends
                .saturating_mul(MAX_ADDRS as u32 + 1)
                .saturating_add(self.services),
            "backend_endpoints" => self.backends.saturating_mul(MAX_ADDRS as u32),
            "tables" => self.table_slots,
            "policy_prefixes" => self.policy_prefixes,
            _ => return None,
        })
    }
}

/// A map with the types of its keys and values.
#[derive(Debug)]
pub(crate) struct TypedMap<K, V> {
    pub(crate) handle: MapHandle,
    types: PhantomData<(K, V)>,
}

impl<K: MapBytes, V: MapBytes> TypedMap<K, V> {
    fn new(handle: MapHandle) -> Self {
        Self {
            handle,
            types: PhantomData,
        }
    }

    fn name(&self) -> String {
        self.handle.name().to_string_lossy().into_owned()
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>> {
        self.get_with(key, MapFlags::ANY)
    }

    pub(crate) fn get_with(&self, key: &K, flags: MapFlags) -> Result<Option<V>> {
        let value = self
            .handle
            .lookup(key.bytes(), flags)
            .bpf(|| format!("look up in the map {}", self.name()))?;
        Ok(value.as_deref().and_then(V::from_bytes))
    }

    pub(crate) fn insert(&self, key: &K, value: &V) -> Result<()> {
        self.insert_with(key, value, MapFlags::ANY)
    }

    pub(crate) fn insert_with(&self, key: &K, value: &V, flags: MapFlags) -> Result<()> {
        self.handle
            .update(key.bytes(), value.bytes(), flags)
            .bpf(|| {
                format!(
                    "write to the map {} of {} entries",
                    self.name(),
                    self.handle.max_entries()
                )
            })
    }

    /// Removes the key, which may be gone already.
    pub(crate) fn remove(&self, key: &K) -> Result<()> {
        match self.handle.delete(key.bytes()) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => result.bpf(|| format!("delete from the map {}", self.name())),
        }
    }

    /// What is in the map. What changes meanwhile may or may not be seen.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>> {
        self.entries_with(MapFlags::ANY)
    }

    pub(crate) fn entries_with(&self, flags: MapFlags) -> Result<Vec<(K, V)>> {
        if self.handle.map_type() == MapType::Hash {
            return read_all(&self.handle, flags).bpf(|| format!("read the map {}", self.name()));
        }
        let mut entries = Vec::new();
        for key in self.handle.keys() {
            let Some(key) = K::from_bytes(&key) else {
                continue;
            };
            if let Some(value) = self.get_with(&key, flags)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    pub(crate) fn max_entries(&self) -> usize {
        self.handle.max_entries() as usize
    }
}

/// All maps that user space reads or writes.
#[derive(Debug)]
pub struct Maps {
    pub(crate) assocs: TypedMap<u64, assoc>,
    pub(crate) paths: TypedMap<tuple, path>,
    pub(crate) multihomed: TypedMap<u64, assoc_addrs>,
    pub(crate) by_tag: TypedMap<tag_key, u64>,
    pub(crate) services: TypedMap<endpoint, service>,
    pub(crate) vips: TypedMap<u32, addr_list>,
    pub(crate) service_names: TypedMap<u32, service_name>,
    pub(crate) backends: TypedMap<u32, backend>,
    pub(crate) tables: TypedMap<u32, u32>,
    pub(crate) our_addrs: TypedMap<ip_addr, u8>,
    pub(crate) backend_endpoints: TypedMap<endpoint, u8>,
    pub(crate) policy_endpoints: TypedMap<ip_addr, endpoint_policy>,
    pub(crate) policy_prefixes: TypedMap<policy_key, policy_ports>,
    pub(crate) settings: TypedMap<u32, lb_settings>,
    pub(crate) stats: MapHandle,
    pub(crate) events: MapHandle,
    /// Where they are pinned.
    folder: Option<PathBuf>,
}

impl Maps {
    fn collect(mut get: impl FnMut(&str) -> Result<MapHandle>) -> Result<Self> {
        Ok(Self {
            assocs: TypedMap::new(get("assocs")?),
            paths: TypedMap::new(get("paths")?),
            multihomed: TypedMap::new(get("multihomed")?),
            by_tag: TypedMap::new(get("by_tag")?),
            services: TypedMap::new(get("services")?),
            vips: TypedMap::new(get("vips")?),
            service_names: TypedMap::new(get("service_names")?),
            backends: TypedMap::new(get("backends")?),
            tables: TypedMap::new(get("tables")?),
            our_addrs: TypedMap::new(get("our_addrs")?),
            backend_endpoints: TypedMap::new(get("backend_endpoints")?),
            policy_endpoints: TypedMap::new(get("policy_endpoints")?),
            policy_prefixes: TypedMap::new(get("policy_prefixes")?),
            settings: TypedMap::new(get("settings")?),
            stats: get("stats")?,
            events: get("events")?,
            folder: None,
        })
    }

    /// Insists that the maps are pinned yet, if they were: otherwise no program writes to them.
    ///
    /// # Errors
    /// [`Error::Gone`] if they are not.
    pub(crate) fn check_pinned(&self) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let id = |map: &MapHandle| map.info().map(|info| info.info.id).ok();
        let pinned = MapHandle::from_pinned_path(folder.join("settings")).ok();
        if pinned.as_ref().and_then(id) != id(&self.settings.handle) {
            return Err(Error::Gone(folder.display().to_string()));
        }
        Ok(())
    }

    /// The maps of a loaded program.
    pub(crate) fn of_object(object: &Object) -> Result<Self> {
        Self::collect(|name| {
            let map = object
                .maps()
                .find(|map| map.name() == OsStr::new(name))
                .ok_or_else(|| Error::Packet(format!("the program has no map {name}")))?;
            MapHandle::try_from(&map).bpf(|| format!("duplicate the map {name}"))
        })
    }

    /// The maps that are pinned in `folder`.
    ///
    /// # Errors
    /// If they are not, because no program has been attached.
    pub fn pinned(folder: &Path) -> Result<Self> {
        check_pinned_layout(folder)?;
        let mut maps = Self::collect(|name| {
            MapHandle::from_pinned_path(folder.join(name)).bpf(|| {
                format!(
                    "open the map {}: is sctp-lb attached? (sctp-lb attach DEV)",
                    folder.join(name).display()
                )
            })
        })?;
        maps.check_layout()?;
        maps.folder = Some(folder.to_path_buf());
        Ok(maps)
    }

    /// Whether the maps are of this version, or new, which is noted in them.
    pub(crate) fn check_layout(&self) -> Result<()> {
        let mut settings = self.settings.get(&0)?.unwrap_or_default();
        match settings.layout {
            LAYOUT => Ok(()),
            0 => {
                settings.layout = LAYOUT;
                settings.node = rand::random::<NonZeroU32>().get();
                self.settings.insert(&0, &settings)
            }
            other => Err(Error::Layout(other, LAYOUT)),
        }
    }
}

/// Insists that the maps that are pinned in `folder`, if there are any, are of this version: those
/// of another may have other sizes.
///
/// # Errors
/// [`Error::Layout`] if they are not.
pub(crate) fn check_pinned_layout(folder: &Path) -> Result<()> {
    let path = folder.join("settings");
    if !path.exists() {
        return Ok(());
    }
    let doing = || format!("read {}", path.display());
    let settings = MapHandle::from_pinned_path(&path).bpf(doing)?;
    let value = settings.lookup(&[0; 4], MapFlags::ANY).bpf(doing)?;
    let layout = value.as_deref().and_then(|value| {
        let layout = value.get(offset_of!(lb_settings, layout)..)?;
        layout.first_chunk().copied().map(u32::from_ne_bytes)
    });
    match layout {
        Some(0 | LAYOUT) | None => Ok(()),
        Some(other) => Err(Error::Layout(other, LAYOUT)),
    }
}

pub(crate) fn addr_key(addr: IpAddr) -> ip_addr {
    ip_addr { word: words(addr) }
}

pub(crate) fn endpoint_key(addr: SocketAddr) -> endpoint {
    endpoint {
        addr: addr_key(addr.ip()),
        port: addr.port().to_be(),
        pad: 0,
    }
}

pub(crate) fn endpoint_addr(key: &endpoint) -> SocketAddr {
    SocketAddr::new(addr(key.addr.word), u16::from_be(key.port))
}

impl addr_list {
    /// The list of `addrs`, which are of `whose`.
    ///
    /// # Errors
    /// If they are more than it has room for.
    pub(crate) fn new(addrs: &[IpAddr], whose: impl Fn() -> String) -> Result<Self> {
        if addrs.len() > MAX_ADDRS {
            return Err(Error::Limit {
                what: format!("addresses of {}", whose()),
                wanted: addrs.len(),
                most: MAX_ADDRS,
            });
        }
        let mut list = Self {
            nr: addrs.len() as u32,
            ..Default::default()
        };
        for (to, from) in list.addr.iter_mut().zip(addrs) {
            *to = addr_key(*from);
        }
        Ok(list)
    }

    pub(crate) fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        let addrs = self.addr.iter().take(self.nr as usize);
        addrs.map(|addr_of| addr(addr_of.word))
    }
}

impl service_name {
    /// As the map has it: cut if it is too long, which no name of Kubernetes is.
    pub(crate) fn new(text: &str) -> Self {
        let mut name = Self::default();
        for (to, from) in name.text.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        name
    }

    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.text.iter().copied().take_while(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
