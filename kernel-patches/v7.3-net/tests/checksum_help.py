#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""skb_checksum_help() must fill in an SCTP checksum for CHECKSUM_PARTIAL SCTP.

A socket sends to a router through veth with a large MTU, so that its packets are
CHECKSUM_PARTIAL, and the router has to fragment them. Without the fix, no
message that needs fragments arrives.
"""

import socket
import struct
import time

from sctpnet import (IPPROTO_SCTP, PACKET_OUTGOING, Topo, check, done, error_of,
                     need, need_root, need_sctp, payload_of)

need_root()
need_sctp()
need("tc")
topo = Topo()
for ns, dev in ((topo.client, "c0"), (topo.router, "r0")):
    ns.sh(f"ip link set {dev} mtu 9000")
# Clear DF after SCTP has set it. Only the checksum of the IP header is fixed;
# that of SCTP stays CHECKSUM_PARTIAL.
topo.client.sh("tc qdisc add dev c0 clsact")
topo.client.sh("tc filter add dev c0 egress protocol ip matchall "
               "action pedit munge offset 6 u16 set 0 pipe "
               "action csum ip4h")

listener = topo.server.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
listener.bind((topo.IP["s0"], 5000))
listener.listen()
capture = topo.server.packet_socket("s0")

sock = topo.client.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
sock.settimeout(5)
sock.connect((topo.IP["s0"], 5000))
conn, _ = listener.accept()
conn.settimeout(3)

sock.send(b"s" * 1000)
try:
    ok = len(conn.recv(65536)) == 1000
except TimeoutError:
    ok = False
check("a message that fits the MTU arrives", ok)

sock.send(b"l" * 4000)

# Put the fragments of one packet together and check it; what arrives at the
# socket can come from a packet that was sent another time, in a better way.
fragments, whole, end = {}, None, time.monotonic() + 3
while whole is None and time.monotonic() < end:
    capture.settimeout(max(0.01, end - time.monotonic()))
    try:
        data, addr = capture.recvfrom(65536)
    except TimeoutError:
        break
    if addr[2] == PACKET_OUTGOING or payload_of(data) is None:
        continue
    ident, frag = struct.unpack_from("!HH", data, 18)
    if not frag & 0x3fff:
        continue
    parts = fragments.setdefault(ident, {})
    parts[(frag & 0x1fff) * 8] = (payload_of(data), bool(frag & 0x2000))
    joined = b""
    while len(joined) in parts:
        part, more = parts[len(joined)]
        joined += part
        if not more:
            whole = joined
            break
check("the router fragmented a packet", whole is not None)
if whole:
    check("the SCTP checksum of the packet is right", error_of(whole) == 0,
          f"off by {error_of(whole):#010x}")
try:
    ok = len(conn.recv(65536)) == 4000
except TimeoutError:
    ok = False
check("a message that does not fit the MTU arrives", ok)
done()
