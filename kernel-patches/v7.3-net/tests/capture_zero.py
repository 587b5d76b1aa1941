#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A packet socket must not see a checksum that is zero for a moment only.

sctp_rcv() of an unpatched kernel sets it to zero while it verifies. That is a
race: two CPUs, many packets. Passing does not prove much, failing does.

Usage: capture_zero.py [SECONDS]
"""

import os
import socket
import sys
import threading
import time

from sctpnet import (IPPROTO_SCTP, PACKET_OUTGOING, Topo, check, done, need,
                     need_root, need_sctp, payload_of, skip, stored)

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 20

need_root()
need_sctp()
if os.cpu_count() < 2:
    skip("needs two CPUs")
# The receiver verifies only what the sender has filled in. GSO packets are
# CHECKSUM_PARTIAL, with a zero that is right, wherever veth takes them.
need("ethtool")
topo = Topo(offload=False)
topo.client.sh("ethtool -K c0 tx-sctp-segmentation off")

listener = topo.server.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
listener.bind((topo.IP["s0"], 5000))
listener.listen()
capture = topo.server.packet_socket("s0")
capture.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)    # SO_RCVBUFFORCE
stop = time.monotonic() + SECONDS


def sink():
    conn, _ = listener.accept()
    conn.settimeout(1)
    while time.monotonic() < stop:
        try:
            if not conn.recv(65536):
                break
        except TimeoutError:
            pass
        except OSError:
            break


def source():
    sock = topo.client.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
    sock.settimeout(1)
    sock.connect((topo.IP["s0"], 5000))
    while time.monotonic() < stop:
        try:
            sock.send(b"m" * 1000)
        except TimeoutError:
            pass
        except OSError:    # the other thread was first to stop
            break


threads = [threading.Thread(target=run, daemon=True) for run in (sink, source)]
for thread in threads:
    thread.start()

seen = zero = 0
capture.settimeout(1)
while time.monotonic() < stop:
    try:
        data, addr = capture.recvfrom(65536)
    except TimeoutError:
        continue
    pkt = payload_of(data)
    if addr[2] != PACKET_OUTGOING and pkt is not None and len(pkt) >= 12:
        seen += 1
        zero += stored(pkt) == 0
print(f"# {zero} of {seen} captured packets have a checksum of zero")
check("packets were captured", seen > 100, f"{seen}")
check("none has a checksum of zero", zero == 0, f"{zero} of {seen}")
done()
