#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""nft "sctp dport set" must not count Ethernet padding where nobody cuts it off.

Without the fix: cases "bridge prerouting: ... padded" and "netdev ingress: ...
padded" fail; the latter are left out where CONFIG_NETFILTER_INGRESS is. nft makes a corrupt packet valid, before
and after; the test has it only to notice when that changes.
"""

from sctpnet import (COOKIE_ACK, Topo, check_error, data_chunk, done, frame,
                     ipv4, need, need_root, pppoe, receive, sctp, skip,
                     to_dport)

OLD, NEW = 1000, 2000

need_root()
need("nft")
topo = Topo()
rx = topo.server.packet_socket("s0")
tx = topo.client.packet_socket("c0")


def run(family, table, dst="r0", optional=False, wrap=lambda ether: ether):
    done_ = topo.router.sh("nft -f -", stdin=table, check=False)
    if done_.returncode:
        why = f"nft {family}: {done_.stderr.splitlines()[0]}"
        if not optional:
            skip(why)
        print(f"# {why}")
        return
    for name, chunks, pad in (
            ("COOKIE-ACK, not padded", COOKIE_ACK, None),
            ("COOKIE-ACK, padded", COOKIE_ACK, 0xa5),
            ("DATA", data_chunk(b"z" * 64), None)):
        for kind, error in (("valid", 0), ("corrupt", 0xdeadbeef)):
            tx.send(wrap(frame(topo.MAC[dst], topo.MAC["c0"],
                               ipv4(topo.IP["c0"], topo.IP["s0"],
                                    sctp(4000, OLD, chunks, error=error)),
                               pad)))
            check_error(f"{family}: {name}, {kind}",
                        receive(rx, to_dport(NEW)))


# padding has been cut off here: passes with and without the fix
run("ip prerouting", f"""
flush ruleset
table ip t {{
	chain c {{
		type filter hook prerouting priority 0;
		sctp dport {OLD} sctp dport set {NEW}
	}}
}}
""")
run("netdev ingress", f"""
flush ruleset
table netdev t {{
	chain c {{
		type filter hook ingress device r0 priority 0;
		sctp dport {OLD} sctp dport set {NEW}
	}}
}}
""", optional=True)

topo.router.sh("ip link add br0 type bridge")
for dev in ("r0", "r1"):
    topo.router.sh(f"ip link set {dev} master br0")
topo.router.sh("ip link set br0 up")
BRIDGE = f"""
flush ruleset
table bridge t {{
	chain c {{
		type filter hook prerouting priority 0;
		sctp dport {OLD} sctp dport set {NEW}
	}}
}}
"""
run("bridge prerouting", BRIDGE, dst="s0")
# the IP header is not where the skb's network header is
run("bridge prerouting, PPPoE", BRIDGE, dst="s0", wrap=pppoe)
done()
