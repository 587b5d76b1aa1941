// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What it costs to forward a packet of an association from the client's device to the backend's,
//! by who translates it on the way.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use crate::capture::Capture;
use crate::chunk;
use crate::error::{Error, Result};
use crate::lab::{BACKEND_DEV, CLIENT_DEV, Family, Lab, TRANSLATOR_DEVS};
use crate::packet::{Spec, find};
use crate::population::Population;
use crate::way::{Node, Way};
use crate::wire::{MAX_FRAMES, Wire};

const CLIENT_PORT: u16 = 40_000;
/// Verification tags of what the client and what the backend receives.
const TAGS: [u32; 2] = [0x0c11_e417, 0x0bac_c17d];
/// Of `lab`: the translator, as client and backend address it.
const TRANSLATOR_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0xfe], [2, 0, 0, 0, 2, 0xfe]];

/// The network with one way through it, and an association that is established.
#[derive(Debug)]
pub struct Path<'obj> {
    node: Node,
    wire: Wire<'obj>,
    /// Who serves the association.
    backend: SocketAddr,
    /// The next client to associate only halfway.
    next_client: u16,
}

impl<'obj> Path<'obj> {
    /// Builds it, with others in the load balancer if that is it, and sends the four packets of
    /// the handshake.
    ///
    /// # Errors
    /// If the kernel or a tool lacks something, or a packet does not arrive.
    pub fn new(
        way: Way,
        population: &Population,
        storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
    ) -> Result<Self> {
        let node = Node::new(way, population)?;
        prepare_devices(&node.lab)?;
        let mut path = Self {
            node,
            wire: Wire::load(storage)?,
            backend: way.backend(),
            next_client: CLIENT_PORT + 1,
        };
        path.associate()?;
        Ok(path)
    }

    /// Who of all backends was chosen.
    fn find_backend(&self) -> Result<SocketAddr> {
        let Some(maps) = self.node.maps()? else {
            return Ok(self.backend);
        };
        let associations = maps.associations()?;
        let ours = associations
            .into_iter()
            .find(|assoc| assoc.original.source.port() == CLIENT_PORT);
        ours.map(|assoc| assoc.translated.dest)
            .ok_or_else(|| Error::Packet("the INIT opened no association".into()))
    }

    fn client_frame(&self, vtag: u32, chunks: Vec<u8>) -> Result<Vec<u8>> {
        let client = SocketAddr::new(Family::V4.addrs().client, CLIENT_PORT);
        frame(
            client,
            self.node.way.service(),
            vtag,
            chunks,
            TRANSLATOR_MACS[0],
        )
    }

    fn backend_frame(&self, vtag: u32, chunks: Vec<u8>) -> Result<Vec<u8>> {
        let client = SocketAddr::new(Family::V4.addrs().client, CLIENT_PORT);
        frame(self.backend, client, vtag, chunks, TRANSLATOR_MACS[1])
    }

    fn associate(&mut self) -> Result<()> {
        let [to_client, to_backend] = TAGS;
        let client_end = self.wire.end_at(&self.node.lab.client, CLIENT_DEV)?;
        let backend_end = self.wire.end_at(&self.node.lab.backend, BACKEND_DEV)?;
        let init = self.client_frame(0, chunk::init(1, to_client, &[]))?;
        self.wire
            .send(&self.node.lab.client, CLIENT_DEV, &init, 1)?;
        self.backend = self.find_backend()?;
        let cookie = [0, 7, 0, 8, 1, 2, 3, 4];
        let init_ack = self.backend_frame(to_client, chunk::init(2, to_backend, &cookie))?;
        self.wire
            .send(&self.node.lab.backend, BACKEND_DEV, &init_ack, 1)?;
        let echo = self.client_frame(to_backend, chunk::chunk(10, 0, &cookie[4..]))?;
        self.wire
            .send(&self.node.lab.client, CLIENT_DEV, &echo, 1)?;
        let cookie_ack = self.backend_frame(to_client, chunk::chunk(11, 0, &[]))?;
        self.wire
            .send(&self.node.lab.backend, BACKEND_DEV, &cookie_ack, 1)?;
        drop((client_end, backend_end));
        Ok(())
    }

    /// A packet of this length in the client's direction.
    fn data(&self, len: usize) -> Result<Vec<u8>> {
        let payload = len
            .checked_sub(12 + 16)
            .ok_or_else(|| Error::Packet(format!("{len} bytes are too few for SCTP")))?;
        let payload: Vec<u8> = (0..payload).map(|i| (i * 7 + i / 251) as u8).collect();
        self.client_frame(TAGS[1], chunk::data(&payload))
    }

    /// Sends SCTP packets of `len` bytes and looks at what arrives.
    ///
    /// # Errors
    /// If not all arrive, translated, and with a right checksum.
    pub fn verify(&mut self, len: usize) -> Result<()> {
        let frame = self.data(len)?;
        let capture = Capture::start(&self.node.lab.backend, BACKEND_DEV)?;
        let _end = self.wire.end_at(&self.node.lab.backend, BACKEND_DEV)?;
        self.wire
            .send(&self.node.lab.client, CLIENT_DEV, &frame, 2)?;
        let report = capture.finish()?;
        let backend = self.backend;
        let translated = report.packets().filter(|found| found.dest == backend);
        let sent = find(&frame).map(|found| found.sctp.len());
        let whole = translated.filter(|found| Some(found.sctp.len()) == sent);
        if report.received.good != 2 || whole.count() != 2 {
            return Err(Error::Packet(format!(
                "{}: of 2 packets of {len} bytes arrived: {report:?}",
                self.node.way.title()
            )));
        }
        Ok(())
    }

    /// How long it takes for a packet of `len` bytes: from the node's device to the backend's.
    ///
    /// # Errors
    /// If not all arrive.
    pub fn measure(&mut self, len: usize) -> Result<Duration> {
        let frame = self.data(len)?;
        let _end = self.wire.end_at(&self.node.lab.backend, BACKEND_DEV)?;
        self.wire
            .send(&self.node.lab.client, CLIENT_DEV, &frame, MAX_FRAMES)
    }

    fn init_of_another(&mut self) -> Result<Vec<u8>> {
        let client = SocketAddr::new(Family::V4.addrs().client, self.next_client);
        self.next_client += 1;
        let chunks = chunk::init(1, u32::from(self.next_client), &[]);
        frame(
            client,
            self.node.way.service(),
            0,
            chunks,
            TRANSLATOR_MACS[0],
        )
    }

    /// How long it takes for the INIT of a new association.
    ///
    /// # Errors
    /// If it does not arrive.
    pub fn measure_init(&mut self) -> Result<Duration> {
        let init = self.init_of_another()?;
        let _end = self.wire.end_at(&self.node.lab.backend, BACKEND_DEV)?;
        self.wire.send(&self.node.lab.client, CLIENT_DEV, &init, 1)
    }

    /// The same for one that ends as soon as it has come to the node: what is not the way.
    ///
    /// # Errors
    /// If it does not arrive there.
    pub fn measure_init_start(&mut self) -> Result<Duration> {
        let init = self.init_of_another()?;
        let _end = self
            .wire
            .end_at(&self.node.lab.translator, TRANSLATOR_DEVS[0])?;
        self.wire.send(&self.node.lab.client, CLIENT_DEV, &init, 1)
    }

    /// The same for a packet that ends as soon as it has come to the node: what is not the way.
    ///
    /// # Errors
    /// If not all arrive there.
    pub fn measure_start(&mut self, len: usize) -> Result<Duration> {
        let frame = self.data(len)?;
        let _end = self
            .wire
            .end_at(&self.node.lab.translator, TRANSLATOR_DEVS[0])?;
        self.wire
            .send(&self.node.lab.client, CLIENT_DEV, &frame, MAX_FRAMES)
    }
}

/// Room for all packets, and NAPI, through which frames come without a copy.
fn prepare_devices(lab: &Lab) -> Result<()> {
    let [to_client, to_backend] = TRANSLATOR_DEVS;
    for (ns, device) in [
        (&lab.client, CLIENT_DEV),
        (&lab.translator, to_client),
        (&lab.translator, to_backend),
        (&lab.backend, BACKEND_DEV),
    ] {
        ns.ip_batch(&[format!("link set {device} mtu 3000")])?;
        ns.command("ethtool", &["-K", device, "gro", "on"])?;
    }
    Ok(())
}

fn frame(
    source: SocketAddr,
    dest: SocketAddr,
    vtag: u32,
    chunks: Vec<u8>,
    mac: [u8; 6],
) -> Result<Vec<u8>> {
    let mut spec = Spec::new(source, dest, chunks);
    spec.vtag = vtag;
    let mut bytes = spec.build()?.bytes;
    bytes[..6].copy_from_slice(&mac);
    Ok(bytes)
}
