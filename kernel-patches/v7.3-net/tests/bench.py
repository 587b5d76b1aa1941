#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Instructions per packet through each of those that rewrite SCTP packets.

For a guest with one CPU whose clock counts instructions: scripts/vm --accel
icount --cpus 1 -- kernel-patches/v7.3-net/tests/bench.py (four minutes).

From before sendto() on the client until the packet is in a packet socket of the
server, so with the cost of sendto() in Python: only the differences between
kernels mean something. Between runs of code that is the same they were up to
350 at 100 bytes, and up to 650 at 9,000.
"""

import os
import socket
import struct
import sys
import time
import traceback

from sctpnet import (ETH_P_IP, IPPROTO_SCTP, Genl, Topo, attr, frame,
                     init_chunk, ipv4, need, need_root, receive, sctp,
                     to_dport)

COUNT = 300
SIZES = (100, 1500, 9000)
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


def ovs_setup(topo):
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



# include/uapi/linux/ip_vs.h
NEW_SERVICE, NEW_DEST = 1, 5


def ipvs_service(genl, family, vip, vport, rip, rport):
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


def topo_with(**how):
    topo = Topo(**how)
    for ns, dev in ((topo.client, "c0"), (topo.router, "r0"),
                    (topo.router, "r1"), (topo.server, "s0")):
        ns.sh(f"ip link set {dev} mtu 9000")
    return topo


def nft(ns, rules):
    ns.sh("nft -f -", stdin=rules)


def drop_at(ns):
    """Behind the packet sockets of ns: nobody answers, nobody verifies."""
    nft(ns, """
table ip d {
	chain c {
		type filter hook prerouting priority -400; policy drop;
	}
}
""")


def run(name, topo, dst, dport, out_port, dst_mac="r0", rx=None):
    tx = topo.client.packet_socket("c0")
    rx = rx or topo.server.packet_socket("s0")
    rx.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)    # SO_RCVBUFFORCE
    for size in SIZES:
        chunks = init_chunk(padding=size - 20 - 12 - 20 - 4)
        raw = frame(topo.MAC[dst_mac], topo.MAC["c0"],
                    ipv4(topo.IP["c0"], dst,
                         sctp(4000, dport, chunks, vtag=0)))
        assert len(raw) == 14 + size
        for _ in range(3):
            tx.send(raw)
            if receive(rx, to_dport(out_port)) is None:
                sys.exit(f"{name}, {size}: no packet arrived")
        start = time.monotonic_ns()
        for _ in range(COUNT):
            tx.send(raw)
        each = (time.monotonic_ns() - start) // COUNT
        seen = 0
        while receive(rx, to_dport(out_port), timeout=0.01) is not None:
            seen += 1
        assert seen == COUNT, seen
        print(f"{name:32} {size:5} {each:7}", flush=True)


def forwarding():
    topo = topo_with()
    drop_at(topo.server)
    run("forwarding, no rewrite", topo, topo.IP["s0"], 3000, 3000)


def open_vswitch():
    topo = topo_with(addresses=False)
    ovs_setup(topo)
    drop_at(topo.server)
    run("Open vSwitch, set(sctp)", topo, topo.IP["s0"], OLD, NEW, dst_mac="s0")


def nf_nat(post):
    topo = topo_with()
    nft(topo.router, f"""
table ip t {{
	chain pre {{
		type nat hook prerouting priority dstnat;
		sctp dport {OLD} dnat to {topo.IP['s0']}:{NEW}
	}}
	chain post {{
		type nat hook postrouting priority srcnat;
		{post}
	}}
}}
""")
    drop_at(topo.server)
    return topo


def dnat():
    topo = nf_nat("")
    run("nf_nat, DNAT to another port", topo, topo.IP["r0"], OLD, NEW)


def masquerade():
    topo = nf_nat("oifname r1 masquerade")
    run("nf_nat, masquerade, same port", topo, topo.IP["s0"], 3000, 3000)
    run("nf_nat, DNAT and masquerade", topo, topo.IP["r0"], OLD, NEW)


def ipvs():
    topo = topo_with()
    genl = Genl(topo.router)
    ipvs_service(genl, genl.family("IPVS"), topo.IP["r0"], OLD, topo.IP["s0"],
                 NEW)
    drop_at(topo.server)
    run("IPVS, other port", topo, topo.IP["r0"], OLD, NEW)


def conntrack():
    """To the router itself; the packet socket makes clones of the packets."""
    topo = topo_with()
    nft(topo.router, """
table ip t {
	chain pre {
		type filter hook prerouting priority 0;
		ct state new accept
	}
	chain in {
		type filter hook input priority 0; policy drop;
	}
}
""")
    run("conntrack, to this host, captured", topo, topo.IP["r0"], OLD, OLD,
        rx=topo.router.packet_socket("r0"))


need_root()
need("nft")
failed = 0
for case in (forwarding, open_vswitch, dnat, masquerade, ipvs, conntrack):
    pid = os.fork()
    if not pid:
        try:
            case()
            code = 0
        except Exception:
            traceback.print_exc()
            code = 1
        os._exit(code)
    failed |= os.waitpid(pid, 0)[1]
sys.exit(bool(failed))
