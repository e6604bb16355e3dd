#!/usr/bin/env python3
"""PROXY protocol at the HTTP engine, over real sockets: proxy_test.py --server PATH (tests/http/http_test_server.c)."""

import argparse
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "attack"), os.path.join(HERE, "..", "..")]

import attack_connections  # noqa: E402
import h1raw  # noqa: E402
import h2raw  # noqa: E402
from registry import Skip  # noqa: E402
from target import Started  # noqa: E402
from tests.lib import proxy_header  # noqa: E402
from tests.lib.waiting import until  # noqa: E402

SERVER = None
GET = b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n"
TOO_LONG = proxy_header.v2(vectors=[(proxy_header.NOOP, bytes(4096 - 28 - 3 + 1))])


def fields_of(body):
    return dict(re.findall(r"(\w+)=(\S*)", body.decode()))


def unread_bytes(connected):
    """What has arrived at the server's end of a loopback connection and was not read; None when it is not there."""
    def as_listed(address):
        return f"{struct.unpack('=I', socket.inet_aton(address[0]))[0]:08X}:{address[1]:04X}"
    ends = as_listed(connected.getpeername()), as_listed(connected.getsockname())
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            words = line.split()
            if (words[1], words[2]) == ends:
                return int(words[4].split(":")[1], 16)
    return None


def wait_read(connected):
    until(lambda: unread_bytes(connected) == 0, "the server does not read what came", 60, 0.001)


class ProxyTest(unittest.TestCase):
    # A header may take as long as a busy machine makes it: that it may not take for ever is attack_connections.py's.
    version, limits, extra = "v2", {"handshake-timeout": 120}, ()

    def setUp(self):
        self.target = Started(SERVER, self.limits, ("--proxy-protocol", self.version, *self.extra))
        self.target.__enter__()
        self.addCleanup(self.clean)

    def clean(self):
        code = self.target.stop()
        log = self.target.log_text()
        self.target.__exit__()
        self.assertEqual(code, 0, log[-3000:])

    def open(self, *pieces, port=None):
        """A connection on which these pieces were sent, each read by the server before the next."""
        connected = socket.create_connection(("127.0.0.1", port or self.target.port))
        connected.settimeout(60)
        self.addCleanup(connected.close)
        for number, piece in enumerate(pieces):
            if number > 0:
                wait_read(connected)
            connected.sendall(piece)
        return connected

    def got(self, connected):
        answer = h1raw.Connection(connected).answer()
        self.assertIsNotNone(answer, "no answer")
        self.assertEqual(answer.status, 200)
        return fields_of(answer.body)

    def peer(self, *pieces):
        return self.got(self.open(*pieces))["peer"]

    def stats(self, header=None):
        self.target.preface = header or proxy_header.v2("203.0.113.1")
        return self.target.stats()

    def refused(self, *pieces, port=None):
        """Closed without an answer."""
        client = h1raw.Connection(self.open(*pieces, port=port))
        self.assertIsNone(client.answer())
        self.assertTrue(client.closed)


class Version2(ProxyTest):
    def test_the_header_says_who_it_is(self):
        for client in "192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7":
            for checksum in False, True:
                header = proxy_header.v2(client, vectors=[(0xEA, b"\1vpce-1")], checksum=checksum)
                self.assertEqual(self.peer(header + GET), client)
        unix = proxy_header.SIGNATURE + b"\x21\x31\0\xd8" + bytes(216)
        self.assertEqual(self.peer(unix + GET), "unix")
        self.assertEqual(self.peer(proxy_header.v2(None, checksum=True) + GET), "127.0.0.1")  # the balancer itself
        self.assertEqual(self.peer(proxy_header.SIGNATURE + b"\x21\0\0\2??" + GET), "127.0.0.1")

    def test_nobody_becomes_local_by_saying_so(self):
        for client, loopback in ("127.0.0.1", "0"), ("::1", "0"), (None, "1"):
            self.assertEqual(self.got(self.open(proxy_header.v2(client) + GET))["loopback"], loopback)

    def test_byte_by_byte(self):
        header = proxy_header.v2("192.0.2.7", vectors=[(proxy_header.NOOP, b"\r\n\r\n")], checksum=True)
        self.assertEqual(self.peer(*(bytes([byte]) for byte in header + GET)), "192.0.2.7")

    def test_every_split(self):
        header = proxy_header.v2("192.0.2.7", checksum=True)
        for at in range(1, len(header) + 5):
            whole = header + GET
            self.assertEqual(self.peer(whole[:at], whole[at:]), "192.0.2.7")

    def test_the_longest_header(self):
        header = proxy_header.v2("2001:db8::7", vectors=[(proxy_header.NOOP, bytes(4096 - 52 - 3 - 7))], checksum=True)
        self.assertEqual(len(header), 4096)
        self.assertEqual(self.peer(header + GET), "2001:db8::7")
        self.assertEqual(self.peer(header[:1000], header[1000:4095], header[4095:] + GET), "2001:db8::7")
        self.refused(TOO_LONG + GET)

    def test_http2_behind_the_header(self):
        class Together:
            """Sends the first bytes of HTTP/2 together with the header."""
            def __init__(self, connected, header):
                self.connected, self.header = connected, header

            def sendall(self, data):
                self.connected.sendall(self.header + data)
                self.header = b""

            def __getattr__(self, name):
                return getattr(self.connected, name)

        header = proxy_header.v2("2001:db8::7", checksum=True)
        for connected in self.open(header), Together(self.open(), header), self.open(header[:20], header[20:]):
            client = h2raw.Connection(connected)
            for stream in 1, 3:
                client.request(stream, end=False)
                client.send(h2raw.data(stream, b"z" * 10000, end=True))
                got = fields_of(client.wait_answer(stream).body)
                self.assertEqual((got["peer"], got["length"]), ("2001:db8::7", "10000"))

    def test_a_large_body_behind_the_header(self):
        body = os.urandom(1 << 20)
        head = f"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.assertEqual(self.got(self.open(proxy_header.v2() + head + body))["length"], str(len(body)))

    def test_what_begins_otherwise_is_refused(self):
        header = proxy_header.v2("192.0.2.7", checksum=True)
        before = self.stats()
        wrong = {GET: "no PROXY header", h2raw.PREFACE: "no PROXY header", proxy_header.v1() + GET: "version 1 instead",
                 b"\x16\x03\x01\x02\x00\x01": "TLS", header[:-1] + b"\0" + GET: "checksum", TOO_LONG[:16]: "4096",
                 proxy_header.SIGNATURE + b"\x31": "version number", proxy_header.SIGNATURE + b"\x22": "LOCAL"}
        for number, pieces in enumerate(wrong):
            self.refused(pieces)
            after = self.stats()
            self.assertEqual(after["refused_proxy"] - before["refused_proxy"], number + 1)
            self.assertEqual(after["accepted"] - before["accepted"], number + 1)  # the questions for the counters
            self.assertEqual(after["connections"], 1)
        lines = [line for line in self.target.log_text().splitlines() if "wants a header first" in line]
        self.assertIn(len(lines), range(1, len(wrong)), "the log is limited")
        self.assertIn('"peer":"127.0.0.1"', lines[0])
        self.assertIn("no PROXY header", lines[0])

    def test_what_the_log_says(self):
        self.refused(proxy_header.v1() + GET)
        self.assertIn("a PROXY header of version 1 instead of 2", self.target.log_text())

    def test_the_end_before_the_header(self):
        self.open().close()
        until(lambda: self.stats()["connections"] == 1, "the connection stays", 60)
        self.assertEqual(self.stats()["refused_proxy"], 0)  # a balancer looks whether the port is open
        self.open(proxy_header.v2()[:20]).close()
        until(lambda: self.stats()["refused_proxy"] == 1, "the half header is not counted", 60)
        self.assertIn("ended in the midst", self.target.log_text())
        reset = self.open(proxy_header.v2()[:20])
        wait_read(reset)
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()
        until(lambda: self.stats()["refused_proxy"] == 2, "the reset is not counted", 60)

    def test_the_loop_sleeps_while_it_waits(self):
        waiting = self.open(proxy_header.v2()[:20])
        wait_read(waiting)
        before = self.stats()["turns"]
        turns = [self.stats()["turns"] for _ in range(20)][-1] - before
        self.assertLess(turns, 1000, "the loop turns for bytes that it does not take")

    def test_waiting_connections_do_not_hold_up_the_end(self):
        waiting = [self.open(), self.open(proxy_header.v2()[:20])]
        until(lambda: self.stats()["connections"] == 3, "they are not there", 60)
        self.target.process.send_signal(signal.SIGTERM)  # ends when the last connection has
        self.assertEqual(self.target.process.wait(60), 0)
        self.assertEqual(len(waiting), 2)
        self.assertNotIn("wants a header first", self.target.log_text())

    def test_stop_closes_waiting_connections(self):
        waiting = self.open(proxy_header.v2()[:20])
        wait_read(waiting)
        self.assertEqual(self.target.stop(signal.SIGINT), 0)


class Version1(ProxyTest):
    version = "v1"

    def test_the_line_says_who_it_is(self):
        lines = {proxy_header.v1(): "192.0.2.7", proxy_header.v1("2001:db8::7", "::1"): "2001:db8::7",
                 b"PROXY UNKNOWN\r\n": "127.0.0.1", b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n": "127.0.0.1"}
        for line, client in lines.items():
            self.assertEqual(self.peer(line + GET), client)
            self.assertEqual(self.peer(*(bytes([byte]) for byte in line), GET), client)
            self.assertEqual(self.peer(line[:-1], line[-1:] + GET), client)

    def test_what_begins_otherwise_is_refused(self):
        wrong = [GET, proxy_header.v2() + GET, b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n" + GET,
                 b"PROXY UNKNOWN " + b"x" * 93]
        for pieces in wrong:
            self.refused(pieces)
        self.assertEqual(self.stats(proxy_header.v1())["refused_proxy"], len(wrong))


class Caps(ProxyTest):
    limits = {**ProxyTest.limits, "connections-address": 3}

    def test_the_client_counts_and_not_the_balancer(self):
        def fill(header):
            kept = [self.open(header + GET) for _ in range(3)]
            for connected in kept:
                self.got(connected)
            self.refused(header + GET)
            return kept

        before = self.stats()["refused_connections"]
        first, second = fill(proxy_header.v2("192.0.2.7")), fill(proxy_header.v2("192.0.2.8"))
        balancer = fill(proxy_header.v2(None))
        self.assertEqual(self.stats()["refused_connections"] - before, 3)
        unix = proxy_header.SIGNATURE + b"\x21\x31\0\xd8" + bytes(216)
        self.assertEqual([self.peer(unix + GET) for _ in range(5)], ["unix"] * 5)
        for connected in first + second + balancer:
            connected.close()
        until(lambda: self.stats()["connections"] == 6, "they are still there", 60)
        fill(proxy_header.v2("192.0.2.7"))


class All(ProxyTest):
    limits = {**ProxyTest.limits, "connections": 5}

    def test_waiting_connections_count(self):
        waiting = [self.open(proxy_header.v2()[:20]) for _ in range(4)]
        for connected in waiting:
            wait_read(connected)
        last = self.open(proxy_header.v2() + GET)
        self.got(last)
        client = h1raw.Connection(self.open())
        self.assertTrue(client.wait_closed())
        waiting[0].sendall(proxy_header.v2()[20:] + GET)
        self.got(waiting[0])


class UnixSocket(ProxyTest):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="sluice-proxy-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.extra = ("--listen", f"unix:{self.directory}/s")
        super().setUp()

    def test_it_takes_no_header(self):
        connected = socket.socket(socket.AF_UNIX)
        self.addCleanup(connected.close)
        connected.connect(f"{self.directory}/s")
        connected.sendall(GET)
        self.assertEqual(self.got(connected)["peer"], "unix")
        self.refused(GET)  # the TCP listener beside it does


class Tls(ProxyTest):
    @classmethod
    def setUpClass(cls):
        try:
            cls.directory, cls.extra = attack_connections.tls_flags()
        except Skip as skip:
            raise unittest.SkipTest(str(skip)) from skip
        cls.addClassCleanup(shutil.rmtree, cls.directory)

    def secure(self, plain, after_hello=None):
        context = ssl.create_default_context(cafile=f"{self.directory}/cert.pem")
        context.set_alpn_protocols(["h2"])
        secured = context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
        self.addCleanup(secured.close)
        if after_hello:
            secured.setblocking(False)
            with self.assertRaises(ssl.SSLWantReadError):
                secured.do_handshake()
            after_hello(secured)
        secured.settimeout(60)
        secured.do_handshake()
        return secured

    def exchange(self, secured, client):
        with h2raw.Connection(secured) as connection:
            connection.request(1, end=False)
            for _ in range(20):
                connection.send(h2raw.data(1, b"z" * 16384))
            connection.send(h2raw.data(1, b"", end=True))
            got = fields_of(connection.wait_answer(1).body)
            self.assertEqual((got["peer"], got["length"]), (client, str(20 * 16384)))

    def test_the_header_comes_before_the_handshake(self):
        header, port = proxy_header.v2("2001:db8::7", checksum=True), self.target.ports[1]
        self.exchange(self.secure(self.open(header, port=port)), "2001:db8::7")
        self.exchange(self.secure(self.open(header[:7], header[7:30], header[30:], port=port)), "2001:db8::7")
        self.exchange(self.secure(self.open(proxy_header.v2(None), port=port)), "127.0.0.1")

    def test_the_header_and_the_hello_in_one_piece(self):
        plain = self.open(port=self.target.ports[1])
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        plain.sendall(proxy_header.v2("192.0.2.7", checksum=True))
        uncork = (socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        self.exchange(self.secure(plain, lambda secured: secured.setsockopt(*uncork)), "192.0.2.7")

    def test_a_handshake_without_a_header_is_refused(self):
        with self.assertRaises((ssl.SSLError, ConnectionResetError)):
            self.secure(self.open(port=self.target.ports[1]))
        self.assertEqual(self.stats()["refused_proxy"], 1)
        self.assertIn("a TLS handshake without a PROXY header before it", self.target.log_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    options, rest = parser.parse_known_args()
    SERVER = options.server
    unittest.main(argv=[sys.argv[0], *rest])
