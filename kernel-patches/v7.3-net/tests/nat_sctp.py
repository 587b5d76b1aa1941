#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""nf_nat and SCTP: corrupt packets stay corrupt, ICMP errors quote right.

Conntrack's verification is turned off (nf_conntrack_checksum=0): otherwise NAT
sees corrupt packets only from devices with CHECKSUM_COMPLETE, which veth has not.

Without the conversion: "corrupt" fails. Without the last nat patch: "ICMP ...
cut short" fails.
"""

import socket
import struct

from sctpnet import (Topo, check, check_error, done, frame, inet_csum,
                     init_chunk, init_of_zero, ipv4, need, need_root, ports,
                     receive, sctp, skip)

ERROR = 0xdeadbeef
OLD, NEW = 1000, 2000

need_root()
need("nft")
topo = Topo()
rules = topo.router.sh("nft -f -", check=False, stdin=f"""
table ip t {{
	chain pre {{
		type nat hook prerouting priority dstnat;
		sctp dport {OLD} dnat to {topo.IP['s0']}:{NEW}
	}}
	chain post {{
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}}
}}
""")
if rules.returncode:
    skip(f"nft: {rules.stderr.splitlines()[0]}")
topo.router.sysctl("net.netfilter.nf_conntrack_checksum", 0)

client = topo.client.packet_socket("c0")
server = topo.server.packet_socket("s0")
sport = 4000


def send(dst, dport, chunks, **how):
    """Send chunks, or what they return for the ports."""
    global sport
    sport += 1
    chunks = chunks(sport, dport) if callable(chunks) else chunks
    pkt = sctp(sport, dport, chunks, vtag=0, **how)
    client.send(frame(topo.MAC["r0"], topo.MAC["c0"],
                      ipv4(topo.IP["c0"], dst, pkt)))
    return pkt, receive(server, lambda got: ports(got)[1] in (NEW, 3000) and
                        got[12:] == chunks, raw=True)


def sctp_of(raw):
    return None if raw is None else raw[34:14 + struct.unpack_from("!H", raw,
                                                                  16)[0]]


for name, dst, dport in (("DNAT to another port", topo.IP["r0"], OLD),
                         ("masquerading, same port", topo.IP["s0"], 3000)):
    for tag, (kind, how, error) in enumerate((("valid", {}, 0),
                                              ("corrupt", {"error": ERROR},
                                               ERROR))):
        _, raw = send(dst, dport, init_chunk(0x1000 + tag), **how)
        check_error(f"{name}, {kind}", sctp_of(raw), error)
        check(f"{name}, {kind}: address changed", raw is not None and
              socket.inet_ntoa(raw[26:30]) == topo.IP["r1"])
    _, raw = send(dst, dport, init_of_zero)
    check_error(f"{name}, checksum of zero", sctp_of(raw))

# An ICMP error quotes a packet: as long as the original, cut short behind the
# common header, cut within it.
for name, quoted in (("in full", None), ("cut short", 12 + 8), ("8 bytes", 8)):
    chunks = init_chunk(0x3000, padding=400)
    sent, raw = send(topo.IP["r0"], OLD, chunks)
    if not check(f"ICMP, {name}: the packet arrived", raw is not None):
        continue
    ip_packet = raw[14:]
    quote = ip_packet[:20 + quoted] if quoted else ip_packet
    icmp = struct.pack("!BBHI", 3, 2, 0, 0) + quote    # protocol unreachable
    icmp = icmp[:2] + struct.pack("!H", inet_csum(icmp)) + icmp[4:]
    server.send(frame(topo.MAC["r1"], topo.MAC["s0"],
                      ipv4(topo.IP["s0"], topo.IP["r1"], icmp, proto=1)))
    got = receive(client, lambda pkt: pkt[:2] == b"\3\2", proto=1)
    if not check(f"ICMP, {name}: the error arrived", got is not None):
        continue
    check(f"ICMP, {name}: ICMP checksum", inet_csum(got) == 0)
    inner = got[8 + 20:]
    check(f"ICMP, {name}: header and checksum as sent",
          inner == sent[:len(inner)] and len(inner) >= 8,
          f"{inner[:12].hex()}, sent {sent[:12].hex()}")
done()
