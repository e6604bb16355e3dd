#!/usr/bin/env python3
"""The fault proxy by itself, before a server that says everything back: each toxic does what its name promises."""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from chaos.stand.places import replace  # noqa: E402
from tests.lib import processes  # noqa: E402
from tests.lib.places import ReservedPort  # noqa: E402
from tests.lib.waiting import until  # noqa: E402


class Echo(threading.Thread):
    """Says back what it hears, and closes when the other end does."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection):
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass


class Proxy(unittest.TestCase):
    def setUp(self):
        home = tempfile.TemporaryDirectory(prefix="sluice-proxy-")
        self.addCleanup(home.cleanup)
        self.control, self.seen = pathlib.Path(home.name, "toxics"), pathlib.Path(home.name, "seen")
        self.echo = Echo()
        self.addCleanup(self.echo.listener.close)
        reserved = ReservedPort()
        self.addCleanup(reserved.close)
        self.port = reserved.port
        reserved.close()
        self.process = processes.spawn([sys.executable, ROOT / "chaos" / "faults" / "proxy.py", self.port, "127.0.0.1",
                                        self.echo.port, self.control, self.seen, 0], stderr=subprocess.PIPE)
        self.addCleanup(self._end)
        until(self.seen.exists, "the proxy does not start", 10)

    def _end(self):
        self.process.kill()
        said = self.process.communicate()[1].decode()
        self.assertNotIn("Traceback", said)

    def toxic(self, kind, stream="downstream", **attributes):
        replace(self.control, json.dumps([{"name": "it", "type": kind, "stream": stream, "toxicity": 1.0,
                                           "attributes": attributes}]))

    def none(self):
        replace(self.control, "[]")

    def said(self):
        return json.loads(self.seen.read_text())

    def applied(self):
        return self.said()["applied"].get("it", 0)

    def wait_applied(self):
        until(self.applied, "the toxic did nothing", 10)

    def dial(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.addCleanup(connection.close)
        return connection

    def ask(self, connection, data=b"ping"):
        """Sends, and returns what comes back until it is as long, or the end."""
        connection.sendall(data)
        return self.hear(connection, len(data))

    @staticmethod
    def hear(connection, size):
        found = b""
        while len(found) < size and (piece := connection.recv(65536)):
            found += piece
        return found

    def test_without_toxics_all_passes(self):
        data = bytes(range(256)) * 4096
        connection = self.dial()
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        self.assertEqual(self.hear(connection, len(data)), data)
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.recv(1), b"")
        self.assertEqual(self.applied(), 0)

    def test_latency(self):
        connection = self.dial()
        self.ask(connection)
        self.toxic("latency", latency=400)
        until(lambda: self.said()["in_force"], "the proxy does not read its list", 10)
        began = time.monotonic()
        self.assertEqual(self.ask(connection), b"ping")
        self.assertGreaterEqual(time.monotonic() - began, 0.4)
        self.wait_applied()

    def test_bandwidth(self):
        self.toxic("bandwidth", rate=100)
        connection = self.dial()
        self.ask(connection)
        until(self.applied, "no toxic yet", 10)
        began = time.monotonic()
        self.assertEqual(len(self.ask(connection, b"x" * 50000)), 50000)
        self.assertGreaterEqual(time.monotonic() - began, 0.45)

    def test_timeout_holds_and_lets_go(self):
        connection = self.dial()
        self.ask(connection)
        self.toxic("timeout", timeout=0)
        self._until_held(connection)
        self.none()
        connection.settimeout(10)
        self.assertIn(b"late", self.hear(connection, 4))

    def _until_held(self, connection):
        connection.settimeout(0.3)

        def held():
            try:
                self.ask(connection, b"late")
                return False
            except TimeoutError:
                return True
        until(held, "data still comes through", 10)
        self.wait_applied()

    def test_timeout_closes(self):
        self.toxic("timeout", timeout=300)
        self.assertEqual(self.dial().recv(1), b"")

    def test_reset_peer(self):
        self.toxic("reset_peer", timeout=100)
        connection = self.dial()
        with self.assertRaises(ConnectionResetError):
            connection.recv(1)
        self.wait_applied()

    def test_slicer(self):
        self.toxic("slicer", average_size=10, size_variation=5, delay=1000)
        connection, data = self.dial(), bytes(range(200))
        self.assertEqual(self.ask(connection, data), data)
        self.wait_applied()

    def test_limit_data(self):
        self.toxic("limit_data", bytes=100)
        connection = self.dial()
        connection.sendall(b"x" * 1000)
        self.assertEqual(len(self.hear(connection, 1000)), 100)
        self.wait_applied()

    def test_slow_close(self):
        self.toxic("slow_close", delay=400)
        connection = self.dial()
        self.ask(connection)
        began = time.monotonic()
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.recv(1), b"")
        self.assertGreaterEqual(time.monotonic() - began, 0.4)

    def test_upstream_only(self):
        """What the server hears is cut short, what it says is not."""
        self.toxic("limit_data", stream="upstream", bytes=4)
        connection = self.dial()
        connection.sendall(b"12345678")
        self.assertIn(self.hear(connection, 8), (b"", b"1234"))  # the answer may be cut off by the end
        self.wait_applied()

    def test_a_dead_server(self):
        self.echo.listener.shutdown(socket.SHUT_RDWR)  # closing alone does not end an accept() that waits
        self.echo.listener.close()
        until(self._refused, "connections go on", 10)

    def _refused(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            try:
                return connection.recv(1) == b""
            except ConnectionResetError:
                return True


if __name__ == "__main__":
    unittest.main()
