#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""tc's csum action at ingress must not count Ethernet padding for SCTP.

Without the fix: cases "padded" fail, all others pass.
"""

from sctpnet import (COOKIE_ACK, Topo, check_error, data_chunk, done, frame,
                     ipv4, need, need_root, receive, sctp, to_dport)

need_root()
need("tc")
topo = Topo()
topo.router.sh("tc qdisc add dev r0 clsact")
topo.router.sh("tc filter add dev r0 ingress protocol ip matchall "
               "action csum ip4h and sctp")

tx = topo.client.packet_socket("c0")
rx = topo.server.packet_socket("s0")

PORT = 1000
for name, chunks, pad in (
        ("COOKIE-ACK, no padding", COOKIE_ACK, None),
        ("COOKIE-ACK, padded with zeroes", COOKIE_ACK, 0),
        ("COOKIE-ACK, padded with 0xa5", COOKIE_ACK, 0xa5),
        ("DATA, long enough to need no padding", data_chunk(b"x" * 64), 0)):
    for kind, error in (("valid", 0), ("corrupt", 0xdeadbeef)):
        PORT += 1
        tx.send(frame(topo.MAC["r0"], topo.MAC["c0"],
                      ipv4(topo.IP["c0"], topo.IP["s0"],
                           sctp(4000, PORT, chunks, error=error)), pad))
        # the action makes all packets valid, on purpose
        check_error(f"{name}, {kind}", receive(rx, to_dport(PORT)))
done()
