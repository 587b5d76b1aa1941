// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Links between namespaces: veth pairs whose ends know one another.

use std::net::IpAddr;

use crate::error::Result;
use crate::netns::Namespace;

/// An end of a veth pair.
pub(crate) struct End<'a> {
    pub(crate) ns: &'a Namespace,
    pub(crate) device: &'a str,
    pub(crate) mac: &'a str,
    pub(crate) addrs: Vec<IpAddr>,
    /// The lengths of the prefixes of its networks, IPv4 and IPv6.
    pub(crate) prefix_len: [u8; 2],
}

/// Makes a veth pair between two namespaces.
pub(crate) fn connect(left: &End<'_>, right: &End<'_>) -> Result<()> {
    let veth = format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        left.device,
        left.mac,
        right.device,
        right.mac,
        right.ns.path().display()
    );
    left.ns
        .ip_batch(&[&[veth], left.setup(right).as_slice()].concat())?;
    right.ns.ip_batch(&right.setup(left))
}

impl End<'_> {
    /// What `ip` has to do at this end. It is told the peer's MAC address, so that no packet
    /// waits for a neighbour to answer.
    fn setup(&self, peer: &End<'_>) -> Vec<String> {
        let device = self.device;
        let mut commands = vec!["link set lo up".into(), format!("link set {device} up")];
        for own in &self.addrs {
            let [v4, v6] = self.prefix_len;
            let (len, nodad) = if own.is_ipv6() {
                (v6, "nodad")
            } else {
                (v4, "")
            };
            commands.push(format!("addr add {own}/{len} dev {device} {nodad}"));
        }
        for addr in &peer.addrs {
            commands.push(format!("neigh add {addr} lladdr {} dev {device}", peer.mac));
        }
        commands
    }
}

impl Namespace {
    /// Forwards packets between its devices.
    pub(crate) fn forward(&self) -> Result<()> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Switches the checksum and segmentation offload of SCTP on a device.
    pub(crate) fn sctp_offload(&self, device: &str, on: bool) -> Result<()> {
        let value = if on { "on" } else { "off" };
        self.command(
            "ethtool",
            &[
                "-K",
                device,
                "tx-checksum-sctp",
                value,
                "tx-sctp-segmentation",
                value,
            ],
        )?;
        Ok(())
    }
}
