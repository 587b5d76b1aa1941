// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Those that translate SCTP packets, each set up on the node of a network like the others.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::csum_prog::{Hook, Update};
use crate::error::Result;
use crate::feature::Feature;
use crate::lab::{Family, Lab, TRANSLATOR_DEVS};
use crate::lb::Maps;
use crate::lb::attachment::Pins;
use crate::lb::datapath::Options;
use crate::population::Population;
use crate::scenario::{BACKEND_PORT, VIP_PORT};

/// Who translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Nobody: the node only forwards.
    Nobody,
    /// `sctp-lb`, with this way to update a checksum.
    Lb(Hook, Update),
    /// nftables' DNAT.
    Nftables,
    /// IPVS, as NAT (masquerading).
    Ipvs,
}

/// A way through the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Who translates.
    pub who: Who,
    /// Whether the port is translated as well as the address.
    pub port: bool,
}

impl Way {
    /// All that this kernel has.
    pub fn all() -> Vec<Way> {
        let mut all = vec![Way {
            who: Who::Nobody,
            port: false,
        }];
        let mut add = |who, port| all.push(Way { who, port });
        for hook in [Hook::Tc, Hook::Xdp] {
            add(Who::Lb(hook, Update::Bpf), false);
            if Feature::Kfunc.available() {
                add(Who::Lb(hook, Update::Kfunc), true);
            }
            add(Who::Lb(hook, Update::Bpf), true);
        }
        for who in [Who::Nftables, Who::Ipvs] {
            add(who, false);
            add(who, true);
        }
        all
    }

    /// What a table calls it.
    pub fn title(self) -> String {
        let who = match self.who {
            Who::Nobody => return "forwarding only".into(),
            Who::Lb(Hook::Tc, _) => "sctp-lb in tc",
            Who::Lb(Hook::Xdp, _) => "sctp-lb in XDP",
            Who::Nftables => "nftables DNAT",
            Who::Ipvs => "IPVS",
        };
        let what = match (self.port, self.who) {
            (false, _) => "address",
            (true, Who::Lb(_, Update::Kfunc)) => "address and port, kfunc",
            (true, Who::Lb(_, Update::Bpf)) => "address and port, pure BPF",
            (true, _) => "address and port",
        };
        format!("{who}, {what}")
    }

    /// Where the client finds the service.
    pub fn service(self) -> SocketAddr {
        let addrs = Family::V4.addrs();
        match self.who {
            Who::Nobody => self.backend(),
            _ => SocketAddr::new(addrs.vip, VIP_PORT),
        }
    }

    /// Who serves it, if there is nobody else.
    pub fn backend(self) -> SocketAddr {
        let port = if self.port { BACKEND_PORT } else { VIP_PORT };
        SocketAddr::new(Family::V4.addrs().backend, port)
    }
}

/// A network with one way through it.
#[derive(Debug)]
pub struct Node {
    /// The way.
    pub way: Way,
    /// The network, whose translator is the node.
    pub lab: Lab,
    pins: Option<Pins>,
}

impl Node {
    /// Builds it, with others in the load balancer if that is it.
    ///
    /// # Errors
    /// If the kernel or a tool lacks something.
    pub fn new(way: Way, population: &Population) -> Result<Self> {
        let mut node = Self {
            way,
            lab: Lab::new()?,
            pins: None,
        };
        node.translate(population)?;
        Ok(node)
    }

    /// The load balancer's maps, if that is it.
    ///
    /// # Errors
    /// If they cannot be opened.
    pub fn maps(&self) -> Result<Option<Maps>> {
        let pins = self.pins.as_ref();
        pins.map(|pins| Maps::pinned(pins.folder())).transpose()
    }

    fn translate(&mut self, population: &Population) -> Result<()> {
        let (service, backend) = (self.way.service(), self.way.backend());
        match self.way.who {
            Who::Nobody => Ok(()),
            Who::Lb(hook, update) => self.balance(hook, update, population),
            Who::Nftables => {
                let rules = nft_rules(service, backend);
                self.lab.translator.command("nft", &[&rules])?;
                Ok(())
            }
            Who::Ipvs => self.add_to_ipvs(&service.to_string(), &backend.to_string()),
        }
    }

    fn add_to_ipvs(&self, service: &str, backend: &str) -> Result<()> {
        let node = &self.lab.translator;
        // IPVS takes what comes in to the node itself.
        node.ip_batch(&[format!("addr add {}/32 dev lo", Family::V4.addrs().vip)])?;
        node.command("ipvsadm", &["-A", "--sctp-service", service, "-s", "rr"])?;
        let real = ["-a", "--sctp-service", service, "-r", backend, "-m"];
        node.command("ipvsadm", &real)?;
        Ok(())
    }

    fn balance(&mut self, hook: Hook, update: Update, population: &Population) -> Result<()> {
        let folder = format!("/sys/fs/bpf/bench-{}", std::process::id());
        let options = population.options(Options {
            update: Some(update),
            ..Options::default()
        });
        let devices = TRANSLATOR_DEVS.map(String::from);
        let pins = Pins::new(&PathBuf::from(folder))?;
        let attached = self
            .lab
            .translator
            .run(|| pins.attach(&devices, hook, &options));
        let folder = pins.folder().to_path_buf();
        self.pins = Some(pins);
        attached??;
        // All backends are behind the same device.
        let gateway = Family::V4.addrs().backend;
        let route = format!("route add 10.0.0.0/8 via {gateway}");
        self.lab.translator.ip_batch(&[route])?;
        let (service, backend) = (self.way.service(), self.way.backend());
        Maps::pinned(&folder)?.apply(&population.desired(service, backend))?;
        population.associate(hook, &folder, service)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(pins) = &self.pins {
            // What is left then is of a process that is gone: the next has another folder.
            let _ = self.lab.translator.run(|| pins.detach_all());
        }
    }
}

fn nft_rules(service: SocketAddr, backend: SocketAddr) -> String {
    let mut rules = String::from("add table ip bench; ");
    let _ = write!(
        rules,
        "add chain ip bench pre {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip bench pre ip daddr {} sctp dport {} dnat to {backend}",
        service.ip(),
        service.port()
    );
    rules
}
