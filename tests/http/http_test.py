#!/usr/bin/env python3
"""The HTTP engine's normal behaviour, over real sockets: http_test.py --server PATH (tests/http/http_test_server.c)."""

import argparse
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "attack"))

import attack_connections  # noqa: E402
import h1raw  # noqa: E402
import h2raw  # noqa: E402
from registry import Skip  # noqa: E402
from target import Started  # noqa: E402

SERVER = None


def fields_of(body):
    return dict(re.findall(r"(\w+)=(\S*)", body.decode()))


def checksum(body):
    value = 0
    for byte in body:
        value = (value * 31 + byte) & 0xFFFFFFFF
    return f"{value:08x}"


def refused(*words):
    """What the server says when it does not start with these flags."""
    pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    run = subprocess.run([SERVER, *words], **pipes, text=True, timeout=60, check=False)
    if run.returncode != 1:
        raise AssertionError(f"{words}: exit {run.returncode}: {run.stderr}")
    return run.stderr


class EngineTest(unittest.TestCase):
    limits = {}
    extra = ()

    def setUp(self):
        self.target = Started(SERVER, self.limits, self.extra)
        self.target.__enter__()
        self.addCleanup(self.clean)

    def clean(self):
        code = self.target.stop()
        log = self.target.log_text()
        self.target.__exit__()
        self.assertEqual(code, 0, log[-3000:])

    def h1(self):
        client = self.target.h1()
        self.addCleanup(client.close)
        return client

    def h2(self, **options):
        client = self.target.h2(**options)
        self.addCleanup(client.close)
        return client


class Http1(EngineTest):
    def test_keep_alive_and_bodies_of_every_size(self):
        client = self.h1()
        for length in 0, 1, 63, 64, 4096, 8191, 8192, 8193, 65535, 65536, 65537, 131072, 1000000, 16 << 20:
            body = os.urandom(min(length, 1000)) * (length // 1000 + 1)
            body = body[:length]
            for chunked in False, True:
                if length > 1000000 and chunked:
                    continue
                head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
                line = f"POST /echo?n={length} HTTP/1.1\r\nHost: a.example\r\nContent-Type: x/y\r\n"
                client.send(f"{line}{head}\r\n\r\n".encode())
                if chunked:
                    for at in range(0, length, 50000):
                        piece = body[at : at + 50000]
                        client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
                    client.send(b"0\r\n\r\n")
                else:
                    client.send(body)
                answer = client.answer()
                self.assertEqual(answer.status, 200)
                got = fields_of(answer.body)
                self.assertEqual(got["length"], str(length))
                if length <= 131072:
                    self.assertEqual(got["sum"], checksum(body))
                seen = got["method"], got["path"], got["host"], got["type"]
                self.assertEqual(seen, ("POST", "/echo", "a.example", "x/y"))
                self.assertEqual(answer.fields["x-engine"], "test")
                self.assertNotIn("server", answer.fields)

    def test_pipelining_keeps_the_order(self):
        client = self.h1()
        requests = [f"POST /echo?n={i} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc" for i in range(50)]
        requests[10] = "GET /late?ms=50&n=10 HTTP/1.1\r\nHost: t\r\n\r\n"
        client.send("".join(requests).encode())
        for i in range(50):
            self.assertTrue(fields_of(client.answer().body)["query"].endswith(f"n={i}"))

    def test_a_request_in_pieces(self):
        client = self.h1()
        for byte in b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab":
            client.send(bytes([byte]))
        self.assertEqual(fields_of(client.answer().body)["length"], "2")

    def test_connection_close_and_http10(self):
        client = self.h1()
        client.send(b"GET /echo HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        self.assertEqual(client.answer().status, 200)
        self.assertTrue(client.wait_closed())
        old = self.h1()
        old.send(b"GET /echo HTTP/1.0\r\n\r\n")
        self.assertEqual(old.answer().status, 200)
        self.assertTrue(old.wait_closed())

    def test_expect_100_continue(self):
        client = self.h1()
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        self.assertEqual(client.answer().status, 100)
        client.send(b"hello")
        self.assertEqual(client.answer().status, 200)
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: money\r\nContent-Length: 5\r\n\r\n")
        answer = client.answer()
        self.assertEqual(answer.status, 417)
        self.assertTrue(answer.is_problem())

    def test_head_has_no_body(self):
        client = self.h1()
        client.send(b"HEAD /fixed HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        client.wait_closed()
        head, rest = client._input.split(b"\r\n\r\n", 1)
        self.assertIn(b"Content-Length: 1", head)
        self.assertEqual(rest, b"")

    def test_repeated_headers_are_noticed(self):
        client = self.h1()
        client.send(b"GET /echo HTTP/1.1\r\nHost: t\r\nContent-Type: a\r\nContent-Type: b\r\nX-Extra: e \r\n\r\n")
        got = fields_of(client.answer().body)
        self.assertEqual((got["type"], got["repeated"], got["extra"]), ("a", "1", "e"))

    def test_upgrade_to_http2(self):
        client = self.h1()
        head = b"GET /echo?up HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        client.send(head + b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
        self.assertEqual(client.answer().status, 101)
        upgraded = h2raw.Connection(client.socket)
        upgraded._input = client._input
        first = upgraded.wait_answer(1)
        self.assertEqual((first.status, fields_of(first.body)["query"]), (200, "up"))
        upgraded.request(3, end=False)
        upgraded.send(h2raw.data(3, b"xyz", end=True))
        self.assertEqual(fields_of(upgraded.wait_answer(3).body)["length"], "3")


class Http2(EngineTest):
    def test_bodies_of_every_size(self):
        client = self.h2()
        for number, length in enumerate((0, 1, 8191, 8192, 8193, 65536, 131072, 131073, 1000000, 16 << 20)):
            for declared in False, True:
                stream = 4 * number + 1 + 2 * declared
                body = os.urandom(1000) * (length // 1000 + 1)
                body = body[:length]
                fields = [("content-length", str(length))] if declared else []
                client.request(stream, end=False, path=f"/echo?n={length}", fields=[("x-extra", "e"), *fields])
                for at in range(0, length, 16384):
                    client.send(h2raw.data(stream, body[at : at + 16384]))
                client.send(h2raw.data(stream, b"", end=True))
                answer = client.wait_answer(stream)
                self.assertEqual(answer.status, 200)
                got = fields_of(answer.body)
                self.assertEqual((got["length"], got["extra"], got["host"]), (str(length), "e", "test"))
                if length <= 131073:
                    self.assertEqual(got["sum"], checksum(body))

    def test_a_hundred_streams_in_any_order(self):
        client = self.h2()
        streams = range(1, 201, 2)
        client.send(b"".join(h2raw.headers(n, path=f"/late?ms={n % 7 * 10}&n={n}") for n in streams))
        for n in streams:
            client.stream(n)
        self.assertTrue(client.pump(lambda: all(client.stream(n).ended for n in streams)))
        for n in streams:
            self.assertEqual(fields_of(client.stream(n).body)["query"], f"ms={n % 7 * 10}&n={n}")

    def test_priorities_and_padding_are_taken_off(self):
        client = self.h2()
        block = h2raw.block(path="/echo?padded")
        padded = b"\x03" + b"\x80\x00\x00\x07\x10" + block + b"\0\0\0"
        client.send(h2raw.frame(h2raw.PRIORITY, 0, 7, b"\0\0\0\0\x10"))
        flags = h2raw.END_HEADERS | h2raw.PADDED | 0x20
        client.send(h2raw.frame(h2raw.HEADERS, flags, 1, padded))
        client.send(h2raw.frame(h2raw.DATA, h2raw.PADDED | h2raw.END_STREAM, 1, b"\x02abc\0\0"))
        answer = client.wait_answer(1)
        self.assertEqual((answer.status, fields_of(answer.body)["query"]), (200, "padded"))
        self.assertEqual(fields_of(answer.body)["length"], "3")

    def test_a_block_in_continuations(self):
        client = self.h2()
        block = h2raw.block(fields=[("x-extra", "v" * 5000)])
        client.send(h2raw.frame(h2raw.HEADERS, h2raw.END_STREAM, 1, block[:100]))
        client.send(h2raw.frame(h2raw.CONTINUATION, 0, 1, block[100:3000]))
        client.send(h2raw.frame(h2raw.CONTINUATION, h2raw.END_HEADERS, 1, block[3000:]))
        self.assertEqual(client.wait_answer(1).status, 200)

    def test_a_reset_request_is_gone(self):
        client = self.h2()
        client.request(1, path="/hold")
        self.target.wait_stats(lambda stats: stats["live"] == 2)
        client.send(h2raw.rst(1))
        self.assertEqual(self.target.wait_stats(lambda stats: stats["gone"] == 1)["gone"], 1)
        client.request(3, path="/hold")
        client.request(5, path="/late?ms=3600000")
        self.target.wait_stats(lambda stats: stats["live"] == 3)
        client.close()
        stats = self.target.wait_stats(lambda stats: stats["gone"] == 3)
        self.assertEqual((stats["gone"], stats["late"]), (3, 0))

    def test_held_requests_are_released(self):
        first, second = self.h2(), self.h1()
        first.request(1, path="/hold?a")
        second.send(b"GET /hold?b HTTP/1.1\r\nHost: t\r\n\r\n")
        self.target.wait_stats(lambda stats: stats["live"] == 3)
        first.request(3, path="/release")
        self.assertEqual(fields_of(first.wait_answer(1).body)["query"], "a")
        self.assertEqual(fields_of(second.answer().body)["query"], "b")

    def test_a_dropped_body_is_freed_while_its_request_waits(self):
        client = self.h2()
        for number, path, length in (1, "/hold", "1000000"), (5, "/hold?drop=1", "0"):
            client.request(number, end=False, path=path)
            for _ in range(10):
                client.send(h2raw.data(number, b"d" * 10000) * 10)
            client.send(h2raw.data(number, b"", end=True))
            held = self.target.wait_stats(lambda stats: stats["live"] == 2)["body_bytes"]
            self.assertEqual(held > 1000000, length != "0", held)
            client.request(number + 2, path="/release")
            self.assertEqual(fields_of(client.wait_answer(number).body)["length"], length)

    def test_a_long_answer_through_a_small_window(self):
        client = self.h2()
        client.request(1, method="GET", path="/big?bytes=1000000")
        stream = client.stream(1)
        given = 65535
        while not stream.ended:
            self.assertTrue(client.pump(lambda: len(stream.body) >= given or stream.ended))
            if stream.ended:
                break
            client.send(h2raw.window_update(0, 30000) + h2raw.window_update(1, 30000))
            given += 30000
        self.assertEqual(stream.body, b"b" * 1000000)


class Ages(EngineTest):
    limits = {"connection-age": 1}

    def test_old_connections_are_told_to_go(self):
        client = self.h2()
        while not client.goaways:
            client.pump(lambda: bool(client.goaways), 0.3)
        self.assertEqual(client.goaways[0], (0x7FFFFFFF, h2raw.NO_ERROR))
        self.assertTrue(client.wait_closed())
        self.assertEqual(client.goaways[-1][0], 0)
        old = self.h1()
        old.send(b"GET /late?ms=2500 HTTP/1.1\r\nHost: t\r\n\r\n")
        self.assertEqual(old.answer().fields["connection"], "close")
        self.assertTrue(old.wait_closed())


class Graceful(EngineTest):
    def test_uploads_and_answers_in_progress_finish(self):
        uploading, waiting, silent, other = self.h2(), self.h2(), self.h2(), self.h1()
        uploading.request(1, end=False, path="/echo?upload")
        uploading.send(h2raw.data(1, b"x" * 10000))
        waiting.request(1, path="/late?ms=2500")
        silent.request(1)
        silent.wait_answer(1)
        other.send(b"POST /echo?h1 HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345")
        self.target.wait_stats(lambda stats: stats["live"] == 2 and stats["connections"] == 5)
        self.target.process.send_signal(signal.SIGTERM)
        self.assertTrue(uploading.pump(lambda: bool(uploading.goaways)))
        self.assertEqual(uploading.goaways[0], (0x7FFFFFFF, h2raw.NO_ERROR))
        with self.assertRaises(OSError):
            self.target.connect()
        # h2o by itself would throw uploads away a second after its first GOAWAY. So: wait for more than that, which the
        # idle connection tells: it is closed after a second, with the number of the last stream.
        self.assertTrue(silent.wait_closed())
        self.assertEqual(silent.goaways[-1], (1, h2raw.NO_ERROR))
        for _ in range(3):
            uploading.pump(lambda: False, 0.5)
            uploading.send(h2raw.data(1, b"x" * 10000))
        uploading.send(h2raw.data(1, b"", end=True))
        answer = uploading.wait_answer(1)
        self.assertEqual((answer.status, fields_of(answer.body)["length"]), (200, "40000"))
        self.assertEqual(waiting.wait_answer(1).status, 200)
        other.send(b"67890")
        answer = other.answer()
        self.assertEqual((answer.status, answer.fields["connection"]), (200, "close"))
        for client in uploading, waiting, other:
            self.assertTrue(client.wait_closed())
        self.assertEqual(self.target.process.wait(60), 0)

    def test_stop_tells_the_owners_of_unanswered_requests(self):
        first, second = self.h2(), self.h1()
        first.request(1, path="/hold")
        second.send(b"GET /hold HTTP/1.1\r\nHost: t\r\n\r\n")
        self.target.wait_stats(lambda stats: stats["live"] == 3)
        self.target.process.send_signal(signal.SIGINT)
        self.assertIn("stopped gone=2\n", self.target.process.stdout.read())


class Loops(EngineTest):
    extra = ("--loops", "4")

    def test_connections_are_spread_evenly(self):
        clients = [self.h2() for _ in range(20)]
        loops = []
        for client in clients:
            client.request(1)
            loops.append(fields_of(client.wait_answer(1).body)["loop"])
        self.assertEqual(sorted(loops), sorted("0123" * 5))

    def test_many_clients_at_once(self):
        failures = []

        def work(seed):
            client = self.target.h2()
            for number in range(1, 101, 2):
                path = "/late?ms=1" if number % 10 == 1 else "/echo"
                client.request(number, end=False, path=path)
                client.send(h2raw.data(number, b"y" * seed, end=True))
                answer = client.wait_answer(number)
                if answer.status != 200 or fields_of(answer.body)["length"] != str(seed):
                    failures.append((seed, number, answer.status))
            client.close()

        threads = [threading.Thread(target=work, args=(100 * seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        stats = self.target.wait_stats(lambda stats: stats["connections"] == 1)
        self.assertEqual((stats["body_bytes"] <= 8192, stats["live"]), (True, 1))


class Listeners(unittest.TestCase):
    def start(self, *extra):
        return Started(SERVER, {}, extra)

    def test_ipv6_takes_ipv4_too(self):
        with self.start("--listen", "[::]:0") as target:
            target.port = target.ports[1]
            mapped, real = ("127.0.0.1", "::ffff:127.0.0.1", socket.AF_INET), ("::1", "::1", socket.AF_INET6)
            for host, peer, family in mapped, real:
                connected = socket.socket(family)
                connected.connect((host, target.port))
                with h1raw.Connection(connected) as client:
                    client.send(b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n")
                    got = fields_of(client.answer().body)
                    self.assertEqual((got["peer"], got["loopback"]), (peer, "1"))

    def test_unix_socket(self):
        path = os.path.join(tempfile.mkdtemp(prefix="sluice-http-"), "s.sock")
        with self.start("--listen", f"unix:{path}") as target:
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(path)
            with h1raw.Connection(connected) as client:
                client.send(b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n")
                self.assertEqual(fields_of(client.answer().body)["peer"], "unix")
            self.assertIn("another process listens", refused("--listen", f"unix:{path}"))
            target.process.kill()
            target.process.wait()
        self.assertTrue(os.path.exists(path))  # stale
        with self.start("--listen", f"unix:{path}") as target:
            self.assertEqual(target.stop(), 0)
        self.assertFalse(os.path.exists(path))
        with open(path, "w", encoding="ascii") as file:
            file.write("precious")
        self.assertIn("not a socket", refused("--listen", f"unix:{path}"))
        os.remove(path)
        os.rmdir(os.path.dirname(path))

    def test_bad_addresses_are_named(self):
        for address in "127.0.0.1", ":80", "127.0.0.1:", "::1:80", "127.0.0.1:http", "unix:", "no such host:80":
            self.assertIn(address, refused("--listen", address))
        with self.start() as target:
            address = f"127.0.0.1:{target.port}"
            self.assertIn(f"{address}: Address already in use", refused("--listen", address))


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.directory, cls.flags = attack_connections.tls_flags()
        except Skip as skip:
            raise unittest.SkipTest(str(skip)) from skip
        cls.addClassCleanup(shutil.rmtree, cls.directory)

    def connect(self, target, protocols=None, configure=None):
        context = ssl.create_default_context(cafile=f"{self.directory}/cert.pem")
        if protocols:
            context.set_alpn_protocols(protocols)
        if configure:
            configure(context)
        plain = socket.create_connection(("127.0.0.1", target.ports[1]))
        return context.wrap_socket(plain, server_hostname="localhost")

    def test_alpn_and_versions(self):
        with Started(SERVER, {}, self.flags) as target:
            for protocols, chosen in (["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"):
                secured = self.connect(target, protocols)
                self.assertEqual(secured.selected_alpn_protocol(), chosen)
                self.exchange(secured, chosen)
            self.exchange(self.connect(target), "http/1.1")
            for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:

                def only(context, version=version):
                    context.minimum_version = context.maximum_version = version

                secured = self.connect(target, ["h2"], only)
                self.assertEqual(secured.version(), version.name.replace("_", "."))
                self.exchange(secured, "h2")

            def old(context):
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
                context.set_ciphers("ALL:@SECLEVEL=0")

            with self.assertRaises((ssl.SSLError, ConnectionResetError)):
                self.connect(target, ["h2"], old)
            self.assertEqual(target.stop(), 0, target.log_text())

    def exchange(self, secured, protocol):
        if protocol == "h2":
            with h2raw.Connection(secured) as client:
                for number in 1, 3:
                    client.request(number, end=False)
                    for _ in range(40):
                        client.send(h2raw.data(number, b"z" * 16384))
                    client.send(h2raw.data(number, b"", end=True))
                    answer = client.wait_answer(number)
                    self.assertEqual((answer.status, fields_of(answer.body)["length"]), (200, str(40 * 16384)))
            return
        with h1raw.Connection(secured) as client:
            for _ in range(2):
                client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n" + b"z" * 100000)
                self.assertEqual(fields_of(client.answer().body)["length"], "100000")

    def test_sessions_are_resumed(self):
        with Started(SERVER, {}, self.flags) as target:
            context = ssl.create_default_context(cafile=f"{self.directory}/cert.pem")
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            session = None
            for resumed in False, True:
                plain = socket.create_connection(("127.0.0.1", target.ports[1]))
                secured = context.wrap_socket(plain, server_hostname="localhost", session=session)
                session = secured.session
                self.assertEqual(secured.session_reused, resumed)
                self.exchange(secured, "http/1.1")

    def test_bad_certificates_are_named(self):
        other = tempfile.mkdtemp(prefix="sluice-http-")
        self.addCleanup(shutil.rmtree, other)
        attack_connections.make_certificate(other)
        locked = f"{other}/locked.pem"
        encrypt = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", f"{other}/key.pem", "-out", locked]
        subprocess.run(encrypt, check=True, stderr=subprocess.DEVNULL)
        good, garbage = f"{self.directory}/cert.pem", f"{other}/garbage.pem"
        with open(garbage, "w", encoding="ascii") as file:
            file.write("nothing")
        for certificate, key, words in (
            ("/nowhere/cert.pem", f"{other}/key.pem", ("/nowhere/cert.pem", "No such file")),
            (good, "/nowhere/key.pem", ("/nowhere/key.pem", "No such file")),
            (garbage, f"{other}/key.pem", (garbage,)),
            (good, garbage, (garbage,)),
            (good, f"{other}/key.pem", (f"{other}/key.pem", "does not belong to", good)),
            (f"{other}/cert.pem", locked, (locked,)),
        ):
            flags = ["--listen-tls", "127.0.0.1:0", "--certificate", certificate, "--key", key]
            said = refused(*flags)
            for word in words:
                self.assertIn(word, said)
        self.assertIn("needs a certificate and a key", refused("--listen-tls", "127.0.0.1:0"))


def main():
    global SERVER
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    options, rest = parser.parse_known_args()
    SERVER = os.path.abspath(options.server)
    unittest.main(argv=[sys.argv[0], *rest], warnings="ignore")


if __name__ == "__main__":
    main()
