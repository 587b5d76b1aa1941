// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Writes frames to a file that tshark reads.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::error::{Doing, Result};

/// Writes Ethernet `frames` to the file `path`, which is made with the folders above it.
///
/// # Errors
/// If the file cannot be written.
pub fn write<'a>(path: &Path, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    let doing = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).doing(doing)?;
    }
    let file = io::BufWriter::new(File::create(path).doing(doing)?);
    let mut writer = PcapWriter::new(file)
        .map_err(io::Error::other)
        .doing(doing)?;
    for (i, frame) in frames.into_iter().enumerate() {
        let packet = PcapPacket::new(Duration::from_micros(i as u64), frame.len() as u32, frame);
        writer
            .write_packet(&packet)
            .map_err(io::Error::other)
            .doing(doing)?;
    }
    Ok(())
}
