# SPDX-License-Identifier: GPL-2.0
"""What the tests of SCTP checksums share: packets, namespaces, netlink.

Topology of Topo, one network namespace per column:

    client               router                server
    c0 10.0.1.1  <---->  r0 10.0.1.2
                         r1 10.0.2.2  <---->  s0 10.0.2.1

Only the Python standard library, ip(8), and per test tc(8), nft(8), ethtool(8).
"""

import atexit
import contextlib
import ctypes
import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import time

ETH_P_ALL = 3
ETH_P_IP = 0x0800
PACKET_OUTGOING = 4
IPPROTO_SCTP = 132
CLONE_NEWNET = 0x40000000
KSFT_SKIP = 4

COOKIE_ACK = b"\x0b\x00\x00\x04"


# --- packets -----------------------------------------------------------------

def _table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    return table


_TABLE = _table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def inet_csum(data):
    if len(data) & 1:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def data_chunk(payload, tsn=1):
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("!BBHIHHI", 0, 3, 16 + len(payload), tsn, 0, 0, 0) + \
        payload + padding


def init_chunk(tag=0x01020304, padding=0):
    """An INIT, with a padding parameter of that many bytes behind it."""
    param = struct.pack("!HH", 0x8005, 4 + padding) + bytes(padding)
    param = param if padding else b""
    return struct.pack("!BBHIIHHI", 1, 0, 20 + len(param), tag, 65536, 1, 1,
                       1) + param


def sctp(sport, dport, chunks, vtag=0x11223344, error=0):
    """An SCTP packet; its checksum is off by XOR with error."""
    head = struct.pack("!HHI", sport, dport, vtag)
    csum = crc32c(head + bytes(4) + chunks) ^ error
    return head + struct.pack("<I", csum) + chunks


def init_of_zero(sport, dport):
    """An INIT whose checksum between these ports, with vtag 0, is truly zero."""
    def csum(tag):
        return stored(sctp(sport, dport, init_chunk(tag), vtag=0))

    # the checksum is linear in the tag: bits of it that make one of the checksum
    basis = {}
    for bit in range(32):
        diff, tag = csum(1 << bit) ^ csum(0), 1 << bit
        while diff and diff.bit_length() in basis:
            other = basis[diff.bit_length()]
            diff, tag = diff ^ other[0], tag ^ other[1]
        if diff:
            basis[diff.bit_length()] = diff, tag
    left, tag = csum(0), 0
    while left:
        diff, bits = basis[left.bit_length()]
        left, tag = left ^ diff, tag ^ bits
    return init_chunk(tag)


def stored(pkt):
    return struct.unpack_from("<I", pkt, 8)[0]


def error_of(pkt):
    """XOR of the checksum of an SCTP packet and what it should be."""
    return stored(pkt) ^ crc32c(pkt[:8] + bytes(4) + pkt[12:])


def ports(pkt):
    return struct.unpack_from("!HH", pkt)


def ipv4(src, dst, payload, proto=IPPROTO_SCTP, ttl=64, tot_len=None, df=True):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0,
                       tot_len or 20 + len(payload), 1, 0x4000 if df else 0,
                       ttl, proto, 0, socket.inet_aton(src),
                       socket.inet_aton(dst))
    return head[:10] + struct.pack("!H", inet_csum(head)) + head[12:] + payload


def frame(dst, src, packet, pad=None):
    """An Ethernet frame; pad is a byte to fill it up to 60 bytes with."""
    out = mac(dst) + mac(src) + struct.pack("!H", ETH_P_IP) + packet
    if pad is not None:
        out += bytes([pad]) * max(0, 60 - len(out))
    return out


ETH_P_PPP_SES = b"\x88\x64"


def pppoe(ether):
    """The IPv4 packet of a frame in a PPPoE session."""
    packet = ether[14:]
    return (ether[:12] + ETH_P_PPP_SES +
            struct.pack("!BBHHH", 0x11, 0, 1, 2 + len(packet), 0x21) + packet)


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def payload_of(raw, proto=IPPROTO_SCTP):
    """What the IPv4 header in a frame, or in PPPoE in it, says is the payload of that protocol."""
    if raw[12:14] == ETH_P_PPP_SES:
        raw = raw[:12] + b"\x08\x00" + raw[22:]
    if len(raw) < 34 or raw[12:14] != b"\x08\x00" or raw[23] != proto:
        return None
    ihl = (raw[14] & 15) * 4
    tot_len = struct.unpack_from("!H", raw, 16)[0]
    return raw[14 + ihl:14 + tot_len]


# --- namespaces --------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Ns:
    def __init__(self, name):
        self.name = f"{name}-{os.getpid()}"
        sh(f"ip netns add {self.name}")
        atexit.register(lambda: subprocess.run(
            ["ip", "netns", "del", self.name], check=False))
        self.sh("ip link set lo up")
        # no neighbour discovery between the packets of a test
        self.sysctl("net.ipv6.conf.default.disable_ipv6", 1, check=False)
        self.sysctl("net.ipv6.conf.all.disable_ipv6", 1, check=False)

    def sh(self, command, **kwargs):
        return sh(f"ip netns exec {self.name} {command}", **kwargs)

    def sysctl(self, key, value, check=True):
        path = "/proc/sys/" + key.replace(".", "/")
        return self.sh(f"sh -c 'echo {value} > {path}'", check=check)

    @contextlib.contextmanager
    def inside(self):
        """Sockets that are created inside belong to the namespace."""
        with open("/proc/thread-self/ns/net", "rb") as old, \
                open(f"/run/netns/{self.name}", "rb") as new:
            _setns(new.fileno())
            try:
                yield
            finally:
                _setns(old.fileno())

    def packet_socket(self, dev):
        with self.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                 socket.htons(ETH_P_ALL))
            sock.bind((dev, ETH_P_ALL))
        return sock

    def socket(self, *args):
        with self.inside():
            return socket.socket(*args)


def sh(command, check=True, stdin=None):
    done = subprocess.run(command, shell=True, text=True, input=stdin,
                          capture_output=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done


class Topo:
    MAC = {"c0": "02:00:00:00:01:01", "r0": "02:00:00:00:01:02",
           "r1": "02:00:00:00:02:02", "s0": "02:00:00:00:02:01"}
    IP = {"c0": "10.0.1.1", "r0": "10.0.1.2", "r1": "10.0.2.2",
          "s0": "10.0.2.1"}

    def __init__(self, addresses=True, offload=True):
        self.client, self.router, self.server = map(
            Ns, ("client", "router", "server"))
        for a, ns_a, b, ns_b in (("c0", self.client, "r0", self.router),
                                 ("s0", self.server, "r1", self.router)):
            sh(f"ip link add {a} netns {ns_a.name} address {self.MAC[a]} "
               f"type veth peer name {b} netns {ns_b.name} "
               f"address {self.MAC[b]}")
            for dev, ns in ((a, ns_a), (b, ns_b)):
                if not offload:
                    self.offload_off(ns, dev)
                ns.sh(f"ip link set {dev} up")
        for dev, ns, peer in (("c0", self.client, "r0"),
                              ("s0", self.server, "r1")):
            ns.sh(f"ip addr add {self.IP[dev]}/24 dev {dev}")
            ns.sh(f"ip route add default via {self.IP[peer]} dev {dev}")
            ns.sh(f"ip neigh add {self.IP[peer]} lladdr {self.MAC[peer]} "
                  f"dev {dev} nud permanent")
        if addresses:
            for dev, peer in (("r0", "c0"), ("r1", "s0")):
                self.router.sh(f"ip addr add {self.IP[dev]}/24 dev {dev}")
                self.router.sh(f"ip neigh add {self.IP[peer]} "
                               f"lladdr {self.MAC[peer]} dev {dev} "
                               "nud permanent")
            self.router.sysctl("net.ipv4.ip_forward", 1)

    @staticmethod
    def offload_off(ns, dev):
        need("ethtool")
        ns.sh(f"ethtool -K {dev} tx-checksum-sctp off")


# --- traffic -----------------------------------------------------------------

def receive(sock, match=lambda pkt: True, timeout=2.0, proto=IPPROTO_SCTP,
            raw=False):
    """The payload (or frame) of the first matching packet that came in."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data, addr = sock.recvfrom(65536)
        except TimeoutError:
            break
        if addr[2] == PACKET_OUTGOING:
            continue
        pkt = payload_of(data, proto)
        if pkt is not None and match(pkt):
            return data if raw else pkt
    return None


def to_dport(port):
    return lambda pkt: len(pkt) >= 12 and ports(pkt)[1] == port


# --- generic netlink, for OVS and IPVS, whose tools a small VM lacks ----------

def attr(kind, data):
    if isinstance(data, int):
        data = struct.pack("=I", data)
    elif isinstance(data, str):
        data = data.encode() + b"\0"
    return struct.pack("=HH", 4 + len(data), kind) + data + \
        b"\0" * (-len(data) % 4)


class Genl:
    def __init__(self, ns):
        self.sock = ns.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        self.sock.bind((0, 0))
        self.sock.settimeout(5)
        self.seq = 0

    def call(self, family, cmd, payload, version=1):
        """Send one request and wait for the acknowledgement."""
        self.seq += 1
        body = struct.pack("=BBH", cmd, version, 0) + payload
        flags = 1 | 4    # NLM_F_REQUEST | NLM_F_ACK
        self.sock.send(struct.pack("=IHHII", 16 + len(body), family, flags,
                                   self.seq, 0) + body)
        replies = []
        while True:
            data = self.sock.recv(65536)
            while len(data) >= 16:
                size, kind, _, seq, _ = struct.unpack_from("=IHHII", data)
                if seq == self.seq and kind == 2:    # NLMSG_ERROR
                    err = struct.unpack_from("=i", data, 16)[0]
                    if err:
                        raise OSError(-err, os.strerror(-err))
                    return replies
                if seq == self.seq:
                    replies.append(data[20:size])
                data = data[(size + 3) & ~3:]

    def family(self, name):
        try:
            reply = self.call(16, 3, attr(2, name))[0]
        except OSError as err:
            if err.errno == errno.ENOENT:
                skip(f"no generic netlink family {name}")
            raise
        while len(reply) >= 4:
            size, kind = struct.unpack_from("=HH", reply)
            if kind == 1:
                return struct.unpack_from("=H", reply, 4)[0]
            reply = reply[(size + 3) & ~3:]
        raise RuntimeError(f"family {name} has no id")


# --- results -----------------------------------------------------------------

_failed = 0
_count = 0


def check(name, ok, detail=""):
    global _failed, _count
    _count += 1
    _failed += not ok
    print(f"{'ok' if ok else 'not ok'} {_count} - {name}"
          f"{'' if ok or not detail else ' # ' + detail}", flush=True)
    return ok


def check_error(name, pkt, error=0):
    """Check that the checksum of pkt is off by error, which is 0 if right."""
    if pkt is None:
        return check(name, False, "no packet came out")
    return check(name, error_of(pkt) == error,
                 f"stored {stored(pkt):#010x}, off by {error_of(pkt):#010x}, "
                 f"expected to be off by {error:#010x}")


def skip(why):
    print(f"1..0 # SKIP {why}")
    sys.exit(KSFT_SKIP)


def need(tool):
    if not shutil.which(tool):
        skip(f"no {tool}")


def need_root():
    if os.geteuid():
        skip("needs root")


def need_sctp():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP).close()
    except OSError as err:
        skip(f"no SCTP sockets: {err}")


def done():
    print(f"1..{_count}")
    sys.exit(1 if _failed else 0)
