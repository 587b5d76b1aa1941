# SPDX-License-Identifier: GPL-2.0
"""Open vSwitch and IPVS, told by netlink what their own tools would tell them."""

import socket
import struct

from sctpnet import ETH_P_IP, IPPROTO_SCTP, Genl, attr

# include/uapi/linux/openvswitch.h
KEY_IN_PORT, KEY_ETHERNET, KEY_ETHERTYPE, KEY_IPV4, KEY_SCTP = 3, 4, 6, 7, 17
ACTION_OUTPUT, ACTION_SET = 1, 3
IN_PORT, OUT_PORT = 1, 2


def flow_key(in_port, eth_type, proto, dport, mask):
    tag = 0xff if mask else 0
    # "frag" and the destination port are not wildcarded, the rest is
    return (attr(KEY_IN_PORT, in_port) + attr(KEY_ETHERNET, bytes(12)) +
            attr(KEY_ETHERTYPE, struct.pack("!H", eth_type)) +
            attr(KEY_IPV4, bytes(8) + bytes([proto, 0, 0, tag])) +
            attr(KEY_SCTP, struct.pack("!HH", 0, 0xffff if mask else dport)))


def ovs_set_ports(topo, dport, new_sport, new_dport):
    """Have Open vSwitch give packets from r0 to a port both other ports, and send them to r1."""
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
                                     struct.pack("!HH", new_sport, new_dport))) +
               attr(ACTION_OUTPUT, OUT_PORT))
    genl.call(flow, 1, head +
              attr(1, flow_key(IN_PORT, ETH_P_IP, IPPROTO_SCTP, dport,
                               False)) +
              attr(2, actions) +
              attr(7, flow_key(0xffffffff, 0xffff, 0xff, dport, True)))


# include/uapi/linux/ip_vs.h
NEW_SERVICE, NEW_DEST = 1, 5


def ipvs_service(genl, family, vip, vport, rip, rport):
    """Add a service of SCTP, and its one real server, which is reached by NAT."""
    u16 = lambda value: struct.pack("=H", value)
    port = lambda value: struct.pack("!H", value)
    addr = lambda value: socket.inet_aton(value) + bytes(12)
    svc = (attr(1, u16(socket.AF_INET)) + attr(2, u16(IPPROTO_SCTP)) +
           attr(3, addr(vip)) + attr(4, port(vport)) + attr(6, "rr") +
           attr(7, struct.pack("=II", 0, 0xffffffff)) + attr(8, 0) +
           attr(9, 0xffffffff))
    dest = (attr(1, addr(rip)) + attr(2, port(rport)) +
            attr(3, 0) +    # IP_VS_CONN_F_MASQ
            attr(4, 1) + attr(5, 0) + attr(6, 0) +
            attr(11, u16(socket.AF_INET)))
    genl.call(family, NEW_SERVICE, attr(1, svc))
    genl.call(family, NEW_DEST, attr(1, svc) + attr(2, dest))
