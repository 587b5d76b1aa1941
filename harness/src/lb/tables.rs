// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The slots of all Maglev tables, mapped into memory, and who has which.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::maps::{TypedMap, service};
use crate::error::{Doing, Error, Result};

/// The distance of the slots, in words: the kernel rounds an array's elements up to eight bytes.
const STRIDE: usize = 2;

/// The slots, in memory that is the map's.
pub(crate) struct Slots {
    start: NonNull<u32>,
    len: usize,
}

impl Slots {
    pub(crate) fn open(tables: &TypedMap<u32, u32>) -> Result<Self> {
        let len = tables.max_entries();
        let bytes = NonZeroUsize::new(len * STRIDE * size_of::<u32>())
            .ok_or_else(|| Error::Packet("the map tables is empty".into()))?;
        // SAFETY: a new mapping, nowhere in particular, of a map that has BPF_F_MMAPABLE.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                tables.handle.as_fd(),
                0,
            )
        }
        .doing(|| "map the backends' tables into memory".into())?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// The slots of a service; none if it has no table, or one that is out of bounds.
    pub(crate) fn of(&self, service: &service) -> Vec<u32> {
        let range = service.table as usize..service.table as usize + service.table_size as usize;
        if range.end > self.len {
            return Vec::new();
        }
        range
            // SAFETY: within the mapping, which lives as long as self. Programs only read it.
            .map(|slot| unsafe { self.start.add(slot * STRIDE).read_volatile() })
            .collect()
    }

    /// Writes a table to slots that no service has.
    pub(crate) fn write(&mut self, start: usize, table: &[u32]) {
        assert!(
            start + table.len() <= self.len,
            "slots beyond the end of the map"
        );
        for (slot, id) in (start..).zip(table) {
            // SAFETY: within the mapping, as was just checked.
            unsafe { self.start.add(slot * STRIDE).write_volatile(*id) };
        }
    }

    /// The most slots that there can be.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that open() made, and nobody has a reference into it.
        // There is nothing to be done if it fails.
        let _ = unsafe { munmap(self.start.cast(), self.len * STRIDE * size_of::<u32>()) };
    }
}

/// Slots that no service has, as ranges. What is freed is not to be had from the same allocator:
/// a program may still be reading it.
pub(crate) struct Allocator {
    free: Vec<(usize, usize)>,
}

impl Allocator {
    /// What `used` tables leave of `len` slots.
    pub(crate) fn new(len: usize, used: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut used: Vec<_> = used.into_iter().filter(|(_, size)| *size > 0).collect();
        used.sort_unstable();
        let mut free = Vec::new();
        let mut next = 0;
        for (start, size) in used {
            if start > next {
                free.push((next, start - next));
            }
            next = next.max(start + size);
        }
        if len > next {
            free.push((next, len - next));
        }
        Self { free }
    }

    /// The size of the largest range.
    pub(crate) fn most(&self) -> usize {
        let sizes = self.free.iter().map(|(_, size)| *size);
        sizes.max().unwrap_or_default()
    }

    /// The first range of this size; `None` if there is none.
    pub(crate) fn take(&mut self, size: usize) -> Option<usize> {
        let range = self.free.iter_mut().find(|(_, free)| *free >= size)?;
        let start = range.0;
        range.0 += size;
        range.1 -= size;
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_do_not_overlap_and_gaps_are_used() {
        let mut slots = Allocator::new(100, [(50, 10), (0, 20), (0, 20), (90, 10)]);
        assert_eq!(slots.most(), 30);
        assert_eq!(slots.take(31), None);
        assert_eq!(slots.take(30), Some(20));
        assert_eq!(slots.take(30), Some(60));
        assert_eq!(slots.take(1), None);
    }
}
