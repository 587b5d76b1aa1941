#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""IPVS NAT of SCTP: corrupt packets, and CHECKSUM_PARTIAL into a tunnel.

Without the fixes:
- "corrupt INIT, same port: no INIT-ACK" fails: IPVS says CHECKSUM_UNNECESSARY,
  and the server believes it;
- "VXLAN" fails: the stale csum_not_inet makes an SCTP checksum of the outer UDP
  checksum and overwrites the VXLAN header.
With the fixes, but without the conversion: "corrupt INIT, other port" fails, as
IPVS makes the packet valid.
"""

import errno
import socket
import struct

from sctpnet import (IPPROTO_SCTP, Genl, Topo, check, check_error, done,
                     error_of, frame, inet_csum, init_chunk, init_of_zero, ipv4,
                     need_root, need_sctp, payload_of, ports, receive, sctp)
from switches import ipvs_service

ERROR = 0xdeadbeef
SAME, OTHER, REAL_OTHER = 1000, 1001, 2001

need_root()
need_sctp()
topo = Topo()
# INIT-ACKs come from a socket; veth would pass them to the client without checksum
topo.offload_off(topo.router, "r0")
genl = Genl(topo.router)
ipvs = genl.family("IPVS")
vip, rip = topo.IP["r0"], topo.IP["s0"]
ipvs_service(genl, ipvs, vip, SAME, rip, SAME)
ipvs_service(genl, ipvs, vip, OTHER, rip, REAL_OTHER)

listeners = []
for port in (SAME, REAL_OTHER):
    sock = topo.server.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
    sock.bind((rip, port))
    sock.listen()
    listeners.append(sock)

client = topo.client.packet_socket("c0")
server = topo.server.packet_socket("s0")
sport = 4000


def send(vport, init=lambda sport, dport: init_chunk(), **how):
    """Send an INIT; return it as the server gets it, and the INIT-ACK."""
    global sport
    sport += 1
    mine = sport
    client.send(frame(topo.MAC["r0"], topo.MAC["c0"],
                      ipv4(topo.IP["c0"], vip,
                           sctp(mine, vport, init(mine, vport), vtag=0,
                                **how))))
    arrived = receive(server, lambda pkt: ports(pkt)[0] == mine)
    answer = receive(client, lambda pkt: ports(pkt)[1] == mine and
                     pkt[12] == 2, timeout=1)
    return arrived, answer


for name, vport, rport in (("same port", SAME, SAME),
                           ("other port", OTHER, REAL_OTHER)):
    arrived, answer = send(vport)
    check_error(f"INIT, {name}", arrived)
    check(f"INIT, {name}: to the right port",
          arrived is not None and ports(arrived)[1] == rport)
    check_error(f"INIT-ACK, {name}", answer)

    arrived, answer = send(vport, error=ERROR)
    check_error(f"corrupt INIT, {name}", arrived, ERROR)
    check(f"corrupt INIT, {name}: no INIT-ACK", answer is None,
          "the server took corrupt data for good")

    arrived, answer = send(vport, init_of_zero)
    check_error(f"INIT with a checksum of zero, {name}", arrived)
    check_error(f"INIT-ACK to that, {name}", answer)

# CHECKSUM_PARTIAL packets of a socket: to a device that can fill in the checksum
# and that can't, and through a tunnel with UDP checksums
for offload in (True, False):
    if not offload:
        topo.offload_off(topo.router, "r1")
    sock = topo.client.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
    sock.settimeout(5)
    try:
        sock.connect((vip, OTHER))
        ok = True
    except OSError:
        ok = False
    check(f"association of sockets, offload {offload}", ok)
    sock.close()

VTEP = "10.0.9."
for ns, dev, local, remote, last in ((topo.router, "r1", "r1", "s0", 2),
                                     (topo.server, "s0", "s0", "r1", 1)):
    ns.sh(f"ip link add vx0 type vxlan id 7 dstport 4789 udpcsum "
          f"local {topo.IP[local]} remote {topo.IP[remote]} dev {dev}")
    ns.sh(f"ip addr add {VTEP}{last}/24 dev vx0")
    ns.sh("ip link set vx0 up")
vip2 = "10.0.1.3"
topo.router.sh(f"ip addr add {vip2}/24 dev r0")
topo.client.sh(f"ip neigh add {vip2} lladdr {topo.MAC['r0']} dev c0 "
               "nud permanent")
ipvs_service(genl, ipvs, vip2, SAME, VTEP + "1", SAME)
ipvs_service(genl, ipvs, vip2, OTHER, VTEP + "1", REAL_OTHER)


def vxlan_sctp(udp):
    # by the inner packet: the VXLAN header may be what is wrong
    return len(udp) > 16 + 34 and udp[16 + 23] == IPPROTO_SCTP


for name, vport in (("same port", SAME), ("other port", OTHER)):
    sock = topo.client.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
    sock.setblocking(False)
    err = sock.connect_ex((vip2, vport))
    check(f"VXLAN, {name}: INIT was sent", err in (0, errno.EINPROGRESS))

    raw = receive(server, vxlan_sctp, proto=socket.IPPROTO_UDP, raw=True)
    if not check(f"VXLAN, {name}: a packet came out", raw is not None):
        continue
    udp = payload_of(raw, socket.IPPROTO_UDP)
    check(f"VXLAN, {name}: header is intact", udp[8] == 0x08 and
          udp[12:15] == b"\0\0\7", udp[8:16].hex())
    inner = payload_of(udp[16:])
    check(f"VXLAN, {name}: inner SCTP checksum", error_of(inner) == 0)
    pseudo = raw[26:34] + struct.pack("!BBH", 0, socket.IPPROTO_UDP, len(udp))
    check(f"VXLAN, {name}: outer UDP checksum",
          udp[6:8] != b"\0\0" and (inet_csum(pseudo + udp) == 0 or
                                   # left to the device, which veth can be
                                   struct.unpack("!H", udp[6:8])[0] ==
                                   inet_csum(pseudo) ^ 0xffff),
          udp[6:8].hex())
    sock.close()
done()
