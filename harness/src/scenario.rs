// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The whole way once: an association through the translator, with everything on the wire
//! checked. The demo shows it, and the tests insist on it.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::capture::{Capture, Counts, Report};
use crate::error::Result;
use crate::feature::Feature;
use crate::lab::{BACKEND_DEV, CLIENT_DEV, Family, Lab};
use crate::netns::Namespace;
use crate::translator::{CsumMode, Stats, Translator};
use crate::{sctp, transfer};

/// Port of the service at the VIP: Diameter's.
pub const VIP_PORT: u16 = 3868;
/// Port that the backend listens on.
pub const BACKEND_PORT: u16 = 13868;

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Address family.
    pub family: Family,
    /// Whether client and backend leave the checksum to the device (`CHECKSUM_PARTIAL`).
    pub offload: bool,
    /// How the translator fixes the checksum.
    pub mode: CsumMode,
    /// Bytes to carry each way.
    pub payload: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    scenario: Scenario,
    /// Whether the payload arrived as it was sent, in both directions; or why there was no
    /// association, or an early end to it.
    pub intact: std::result::Result<bool, String>,
    /// What passed the client's device.
    pub client: Report,
    /// What passed the backend's device.
    pub backend: Report,
    /// `SctpChecksumErrors` of the client's kernel.
    pub client_errors: u64,
    /// `SctpChecksumErrors` of the backend's kernel.
    pub backend_errors: u64,
    /// The translator's counters.
    pub stats: Stats,
}

/// Longest wait for an association, or on it. The control waits as long for one that must fail.
const TIMEOUT: Duration = Duration::from_secs(20);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(4);

impl Scenario {
    fn timeout(&self) -> Duration {
        if self.mode == CsumMode::Skip {
            CONTROL_TIMEOUT
        } else {
            TIMEOUT
        }
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.family.addrs().vip, VIP_PORT)
    }

    fn backend(&self) -> SocketAddr {
        SocketAddr::new(self.family.addrs().backend, BACKEND_PORT)
    }

    /// Runs the scenario in the lab, which may serve several of them, one after the other.
    ///
    /// # Errors
    /// If the kernel or a tool lacks something. That there is no association is an outcome.
    pub fn run(self, lab: &Lab) -> Result<Outcome> {
        Feature::Sctp.require()?;
        lab.offload_checksums(self.offload)?;
        let mut storage = MaybeUninit::uninit();
        let mut translator = Translator::load(self.mode, &mut storage)?;
        translator.add_rule(self.vip(), self.backend())?;
        translator.attach(lab)?;

        let errors = |ns: &Namespace| sctp::counter(ns, "SctpChecksumErrors");
        let (client_errors, backend_errors) = (errors(&lab.client)?, errors(&lab.backend)?);
        let client = Capture::start(&lab.client, CLIENT_DEV)?;
        let backend = Capture::start(&lab.backend, BACKEND_DEV)?;
        let intact = self.associate(lab).map_err(|e| e.to_string());
        Ok(Outcome {
            scenario: self,
            intact,
            client: client.finish()?,
            backend: backend.finish()?,
            client_errors: errors(&lab.client)? - client_errors,
            backend_errors: errors(&lab.backend)? - backend_errors,
            stats: translator.stats()?,
        })
    }

    /// Associates the client with the VIP and carries the payload both ways.
    fn associate(&self, lab: &Lab) -> Result<bool> {
        // An INIT that gets no answer is sent again soon.
        lab.client.sysctl("net/sctp/rto_initial", "500")?;
        let timeout = self.timeout();
        let source = self.family.addrs().client;
        let listener = sctp::listen(&lab.backend, self.backend(), timeout)?;
        let (client, accepted) = thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept());
            (
                sctp::connect(&lab.client, source, self.vip(), timeout),
                accepted.join(),
            )
        });
        let client = client?;
        match accepted {
            Ok(Ok((server, _))) => transfer::both_ways(&client, &server, self.payload),
            Ok(Err(e)) => Err(crate::Error::Association(format!("not accepted: {e}"))),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Outcome {
    /// What is not as it should be: nothing, if the translation works; or, for
    /// [`CsumMode::Skip`], if it fails for the right reason.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = self.common_complaints();
        if self.scenario.mode == CsumMode::Skip {
            complaints.extend(self.control_complaints());
        } else {
            complaints.extend(self.translation_complaints());
        }
        complaints
    }

    fn common_complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (side, report) in [("client", &self.client), ("backend", &self.backend)] {
            if report.lost > 0 {
                complaints.push(format!(
                    "the capture at the {side} lost {} packets",
                    report.lost
                ));
            }
        }
        if self.stats.drops() > 0 {
            complaints.push(format!("the translator dropped packets: {:?}", self.stats));
        }
        complaints
    }

    fn control_complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.intact.is_ok() {
            complaints.push("there is an association though checksums were not fixed".into());
        }
        if self.backend_errors == 0 {
            complaints.push("the backend's kernel counted no checksum error".into());
        }
        if self.backend.received.bad == 0 {
            complaints.push("the reference found no bad checksum at the backend".into());
        }
        complaints
    }

    fn translation_complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        match &self.intact {
            Ok(true) => {}
            Ok(false) => complaints.push("the payload arrived changed".into()),
            Err(why) => complaints.push(why.clone()),
        }
        if self.client_errors + self.backend_errors > 0 {
            complaints.push(format!(
                "the kernel counted checksum errors: {} at the client, {} at the backend",
                self.client_errors, self.backend_errors
            ));
        }
        for (side, report) in [("client", &self.client), ("backend", &self.backend)] {
            complaints.extend(self.checksum_complaints(side, report));
        }
        if self.update_kind().is_none() {
            complaints.push(format!(
                "the translator used no update, or two: {:?}",
                self.stats
            ));
        }
        complaints.extend(self.address_complaints());
        complaints
    }

    /// What the hosts send is good, or left to the device; what they receive is always good.
    fn checksum_complaints(&self, side: &str, report: &Report) -> Vec<String> {
        let sent_well = |counts: &Counts| {
            if self.scenario.offload {
                counts.offloaded
            } else {
                counts.good
            }
        };
        let mut complaints = Vec::new();
        let (sent, received) = (&report.sent, &report.received);
        if sent.packets == 0 || sent_well(sent) != sent.packets {
            complaints.push(format!("sent by the {side}: {sent:?}"));
        }
        if received.packets == 0 || received.good != received.packets {
            complaints.push(format!("received by the {side}: {received:?}"));
        }
        complaints
    }

    /// The client knows the VIP only, and the backend its own address only.
    fn address_complaints(&self) -> Vec<String> {
        let strange = |report: &Report, service: SocketAddr| {
            report
                .packets()
                .find(|p| p.source != service && p.dest != service)
                .map(|p| {
                    format!(
                        "a packet from {} to {}, neither of which is {service}",
                        p.source, p.dest
                    )
                })
        };
        let complaints = [
            strange(&self.client, self.scenario.vip()),
            strange(&self.backend, self.scenario.backend()),
        ];
        complaints.into_iter().flatten().collect()
    }

    /// The kind of checksum update that was used, if it was one only.
    pub fn update_kind(&self) -> Option<&'static str> {
        match (
            self.stats.csum_kfunc,
            self.stats.csum_bpf,
            self.stats.csum_skipped,
        ) {
            (1.., 0, 0) => Some("kfunc"),
            (0, 1.., 0) => Some("pure BPF"),
            (0, 0, 1..) => Some("none"),
            _ => None,
        }
    }
}
