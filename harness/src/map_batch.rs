// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! All entries of a hash map, many at a time. The iterator of libbpf-rs ends at the first batch that
//! is not full, which need not be the last, and takes errors for the end.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use libbpf_rs::{MapCore, MapFlags};
use nix::errno::Errno;

use crate::map_bytes::MapBytes;

/// How many are asked for at first: as many as a bucket has are needed.
const ROOM: usize = 1024;

/// The entries of a map of the type `BPF_MAP_TYPE_HASH` (`htab_map_lookup_batch` in the kernel). The
/// kernel reads a bucket at a time: what is there all the while is found once.
///
/// # Errors
/// If the kernel refuses, or has no memory.
pub(crate) fn read_all<K: MapBytes, V: MapBytes>(
    map: &impl MapCore,
    elem_flags: MapFlags,
) -> libbpf_rs::Result<Vec<(K, V)>> {
    let key_size = map.key_size() as usize;
    let value_size = map.value_size() as usize;
    let opts = libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as libbpf_sys::size_t,
        elem_flags: elem_flags.bits(),
        ..Default::default()
    };
    let mut entries = Vec::new();
    let mut room = ROOM;
    let mut bucket: Option<u32> = None;
    loop {
        let mut keys = vec![0_u8; room * key_size];
        let mut values = vec![0_u8; room * value_size];
        let mut count = room as u32;
        let mut next = 0_u32;
        let from = bucket.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: there is room for `count` keys and values of the map's sizes, and a hash map's
        // places are 32-bit numbers of buckets.
        let ret = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                from.cast(),
                (&raw mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                &raw const opts,
            )
        };
        let error = Errno::from_raw(-ret);
        match (ret, error) {
            (0, _) | (_, Errno::ENOENT) => {}
            (_, Errno::ENOSPC) => {
                room *= 2;
                continue;
            }
            (_, Errno::EINTR) => continue,
            _ => return Err(io::Error::from(error).into()),
        }
        let pairs = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        let pairs = pairs.take(count as usize);
        entries.extend(pairs.filter_map(|(k, v)| Some((K::from_bytes(k)?, V::from_bytes(v)?))));
        if ret != 0 {
            return Ok(entries);
        }
        bucket = Some(next);
    }
}
