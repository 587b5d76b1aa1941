// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb share`.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;

use anyhow::{Result, anyhow};
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::Pins;
use bpf_sctp::lb::share::{Exchange, Notice};
use clap::Args;

#[derive(Debug, Args)]
pub struct Share {
    /// Where other nodes connect to: an address of this node in a network that only nodes are in,
    /// as nobody is asked who they are.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Where another node listens. All nodes name all others.
    #[arg(long, value_name = "ADDR:PORT")]
    peer: Vec<SocketAddr>,
    /// Let backends' packets pass that are of no association. Without this they are dropped, from
    /// now on and also when this ends: another node may not have told of their association yet.
    #[arg(long)]
    allow_direct: bool,
}

impl Share {
    pub fn run(&self, pins: &Pins) -> Result<()> {
        if self.peer.contains(&self.listen) {
            crate::usage_error(&format!(
                "--peer {} is this node itself: name the others",
                self.listen
            ));
        }
        let maps = Maps::pinned(pins.folder())?;
        let _lock = pins.lock_exchange()?;
        let listener = TcpListener::bind(self.listen)
            .map_err(|error| anyhow!("listen at {}: {error}", self.listen))?;
        let lock = pins.lock()?;
        maps.set_service_only(!self.allow_direct)?;
        drop(lock);
        crate::tell(format_args!("listening at {}", listener.local_addr()?));
        let exchange = Exchange {
            maps: &maps,
            listener,
            peers: self.peer.clone(),
            notice: &|notice: Notice| crate::tell(notice),
            // A signal ends the process, and leaves nothing to be done.
            stop: &AtomicBool::new(false),
        };
        Ok(exchange.run()?)
    }
}
