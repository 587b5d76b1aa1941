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
import sys
import time
import traceback

from sctpnet import (Genl, Topo, frame, init_chunk, ipv4, need, need_root,
                     receive, sctp, to_dport)
from switches import ipvs_service, ovs_set_ports

COUNT = 300
SIZES = (100, 1500, 9000)
OLD, NEW, NEW_SPORT = 1000, 2000, 5000


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
    ovs_set_ports(topo, OLD, NEW_SPORT, NEW)
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
