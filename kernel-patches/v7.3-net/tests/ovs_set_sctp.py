#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Open vSwitch's set(sctp(...)): padding, CHECKSUM_PARTIAL, and errors kept.

Without the fixes: "padded", "IP header longer" and "CHECKSUM_PARTIAL" fail.
With the fixes, but without the conversion: "without checksum" fails.
"""

import errno
import socket
import struct

from sctpnet import (COOKIE_ACK, ETH_P_IP, IPPROTO_SCTP, Genl, Topo, attr,
                     check, check_error, data_chunk, done, frame, ipv4,
                     need_root, need_sctp, ports, receive, sctp, stored,
                     to_dport)

OLD, NEW, SPORT, NEW_SPORT = 1000, 2000, 4000, 5000
IN_PORT, OUT_PORT = 1, 2

# include/uapi/linux/openvswitch.h
KEY_IN_PORT, KEY_ETHERNET, KEY_ETHERTYPE, KEY_IPV4, KEY_SCTP = 3, 4, 6, 7, 17
ACTION_OUTPUT, ACTION_SET = 1, 3


def flow_key(in_port, eth_type, proto, mask):
    tag = 0xff if mask else 0
    # "frag" and the destination port are not wildcarded, the rest is
    return (attr(KEY_IN_PORT, in_port) + attr(KEY_ETHERNET, bytes(12)) +
            attr(KEY_ETHERTYPE, struct.pack("!H", eth_type)) +
            attr(KEY_IPV4, bytes(8) + bytes([proto, 0, 0, tag])) +
            attr(KEY_SCTP, struct.pack("!HH", 0, 0xffff if mask else OLD)))


def setup(topo):
    genl = Genl(topo.router)
    datapath = genl.family("ovs_datapath")
    vport = genl.family("ovs_vport")
    flow = genl.family("ovs_flow")

    genl.call(datapath, 1, struct.pack("=i", 0) + attr(1, "dp0") + attr(2, 0),
              version=2)
    with topo.router.inside():
        head = struct.pack("=i", socket.if_nametoindex("dp0"))
    for number, dev in ((IN_PORT, "r0"), (OUT_PORT, "r1")):
        genl.call(vport, 1, head + attr(1, number) + attr(2, 1) +
                  attr(3, dev) + attr(5, 0))

    actions = (attr(ACTION_SET, attr(KEY_SCTP,
                                     struct.pack("!HH", NEW_SPORT, NEW))) +
               attr(ACTION_OUTPUT, OUT_PORT))
    genl.call(flow, 1, head +
              attr(1, flow_key(IN_PORT, ETH_P_IP, IPPROTO_SCTP, False)) +
              attr(2, actions) +
              attr(7, flow_key(0xffffffff, 0xffff, 0xff, True)))


need_root()
topo = Topo(addresses=False)
setup(topo)
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

out = through(sctp(SPORT, OLD, COOKIE_ACK, zero=True))
check("without checksum: stays without", out is not None and not stored(out))

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
