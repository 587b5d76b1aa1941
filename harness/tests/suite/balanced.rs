// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! A network whose translator is the load balancer, for tests with sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bpf_sctp::capture::Report;
use bpf_sctp::csum_prog::{Hook, Update};
use bpf_sctp::lab::{Family, Lab, TRANSLATOR_DEVS};
use bpf_sctp::lb::Maps;
use bpf_sctp::lb::attachment::Pins;
use bpf_sctp::lb::datapath::Options;
use bpf_sctp::lb::model::{Backend, Desired, EndpointPolicy, Frontend, Service, ServiceName};
use bpf_sctp::scenario::{BACKEND_PORT, VIP_PORT};
use bpf_sctp::sctp;
use socket2::Socket;

/// The longest wait on a socket.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A lab whose translator is the load balancer.
pub struct Balanced {
    pub lab: Lab,
    pub pins: Pins,
    pub maps: Maps,
    family: Family,
    hook: Hook,
    update: Option<Update>,
}

impl Balanced {
    pub fn new(hook: Hook, family: Family, offload: bool, update: Option<Update>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nr = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("/sys/fs/bpf/test-{}-{nr}", std::process::id());
        let lab = Lab::new().expect("namespaces and veth");
        lab.offload_checksums(offload).expect("ethtool");
        // An INIT that gets no answer is sent again soon.
        lab.client
            .sysctl("net/sctp/rto_initial", "500")
            .expect("a sysctl");
        let pins = Pins::new(&PathBuf::from(folder)).expect("bpffs");
        attach(&lab, &pins, hook, update);
        let maps = Maps::pinned(pins.folder()).expect("it is attached");
        Self {
            lab,
            pins,
            maps,
            family,
            hook,
            update,
        }
    }

    /// Replaces the programs, as an upgrade would.
    pub fn replace(&self) {
        attach(&self.lab, &self.pins, self.hook, self.update);
    }

    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.family.addrs().vip, VIP_PORT)
    }

    pub fn backend(&self, nr: u16) -> SocketAddr {
        SocketAddr::new(self.family.addrs().backend, BACKEND_PORT + nr)
    }

    pub fn serve(&self, backends: impl IntoIterator<Item = u16>) {
        let frontend = (self.vip(), Frontend::default());
        self.apply(self.service(frontend, backends), BTreeMap::new());
    }

    /// A service at `frontend`, without affinity.
    pub fn service(
        &self,
        frontend: (SocketAddr, Frontend),
        backends: impl IntoIterator<Item = u16>,
    ) -> Service {
        let backends = backends.into_iter().map(|nr| Backend {
            addr: self.backend(nr),
            secondary: vec![],
            draining: false,
        });
        Service {
            frontends: [frontend].into(),
            backends: backends.collect(),
            affinity: None,
        }
    }

    /// Has the load balancer do nothing but this.
    pub fn apply(&self, service: Service, policies: BTreeMap<IpAddr, EndpointPolicy>) {
        let name = ServiceName {
            namespace: "default".into(),
            name: "amf".into(),
            port: "sctp".into(),
        };
        let desired = Desired {
            services: [(name, service)].into(),
            policies,
        };
        self.maps.apply(&desired).expect("there is room");
    }

    pub fn connect(&self) -> Socket {
        let source = self.family.addrs().client;
        sctp::connect(&self.lab.client, source, self.vip(), TIMEOUT).expect("an association")
    }

    /// An association with who listens, at the client and at the backend.
    pub fn associate(&self, listener: &Socket) -> (Socket, Socket) {
        thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept());
            let client = self.connect();
            let (server, _) = accepted.join().expect("no panic").expect("an association");
            (client, server)
        })
    }

    /// What no test wants to see.
    pub fn complaints(&self) -> Vec<String> {
        let stats = self.maps.stats().expect("counters");
        let mut complaints: Vec<String> = stats
            .iter()
            .filter(|(name, value)| name.starts_with("drop_") && *value > 0)
            .map(|(name, value)| format!("{value} packets counted as {name}"))
            .collect();
        for (side, ns) in [("client", &self.lab.client), ("backend", &self.lab.backend)] {
            let errors = sctp::counter(ns, "SctpChecksumErrors").expect("a counter");
            if errors > 0 {
                complaints.push(format!("{errors} checksum errors at the {side}"));
            }
        }
        complaints
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        let detached = self.lab.translator.run(|| self.pins.detach_all());
        detached.expect("a namespace").expect("it detaches");
    }
}

fn attach(lab: &Lab, pins: &Pins, hook: Hook, update: Option<Update>) {
    let options = Options {
        update,
        ..Default::default()
    };
    let devices = TRANSLATOR_DEVS.map(String::from);
    lab.translator
        .run(|| pins.attach(&devices, hook, &options))
        .expect("a namespace")
        .expect("it attaches");
}

/// What is wrong with what a host received: all of it must be good, and from or to `service`.
pub fn received_complaints(side: &str, report: &Report, service: SocketAddr) -> Vec<String> {
    let mut complaints = Vec::new();
    let received = &report.received;
    if received.packets == 0 || received.good != received.packets {
        complaints.push(format!("received by the {side}: {received:?}"));
    }
    let strange = |source: SocketAddr, dest: SocketAddr| source != service && dest != service;
    if let Some(p) = report.packets().find(|p| strange(p.source, p.dest)) {
        complaints.push(format!("at the {side}: from {} to {}", p.source, p.dest));
    }
    complaints
}
