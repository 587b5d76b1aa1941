#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Open vSwitch's set(sctp(...)): padding, CHECKSUM_PARTIAL, and errors kept.

Without the fixes: "padded", "IP header longer" and "CHECKSUM_PARTIAL" fail.
"""

import errno
import socket

from sctpnet import (COOKIE_ACK, IPPROTO_SCTP, Topo, check, check_error,
                     data_chunk, done, frame, init_of_zero, ipv4, need_root,
                     need_sctp, ports, receive, sctp, to_dport)
from switches import ovs_set_ports

OLD, NEW, SPORT, NEW_SPORT = 1000, 2000, 4000, 5000

need_root()
topo = Topo(addresses=False)
ovs_set_ports(topo, OLD, NEW_SPORT, NEW)
# the router does not route here: frames go straight to the server
topo.client.sh(f"ip neigh replace {topo.IP['r0']} lladdr {topo.MAC['s0']} "
               "dev c0 nud permanent")

tx = topo.client.packet_socket("c0")
rx = topo.server.packet_socket("s0")


def through(pkt, pad=None, **ip):
    tx.send(frame(topo.MAC["s0"], topo.MAC["c0"],
                  ipv4(topo.IP["c0"], topo.IP["s0"], pkt, **ip), pad))
    return receive(rx, to_dport(NEW))


for name, chunks, pad in (("COOKIE-ACK, not padded", COOKIE_ACK, None),
                          ("COOKIE-ACK, padded", COOKIE_ACK, 0xa5),
                          ("DATA", data_chunk(b"y" * 1000), None)):
    for kind, error in (("valid", 0), ("corrupt", 0xdeadbeef)):
        out = through(sctp(SPORT, OLD, chunks, error=error), pad)
        check_error(f"{name}, {kind}", out, error)
        check(f"{name}, {kind}: both ports set",
              out is not None and ports(out) == (NEW_SPORT, NEW))

out = through(sctp(SPORT, OLD, init_of_zero(SPORT, OLD), vtag=0))
check_error("checksum of zero", out)

check("IP header longer than the frame: dropped",
      through(sctp(SPORT, OLD, COOKIE_ACK), tot_len=200) is None)

# CHECKSUM_PARTIAL comes from SCTP sockets only. Where the output device can't
# fill in the checksum, the stack has to.
need_sctp()
topo.offload_off(topo.router, "r1")
sock = topo.client.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
sock.setblocking(False)
err = sock.connect_ex((topo.IP["s0"], OLD))
check("INIT of a socket was sent", err in (0, errno.EINPROGRESS),
      errno.errorcode.get(err, "?"))
check_error("INIT of a socket, CHECKSUM_PARTIAL", receive(rx, to_dport(NEW)))
done()
