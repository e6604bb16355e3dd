#!/usr/bin/env python3
"""The relays: what is held arrives neither whole nor in part, and all of it when it is released."""

import pathlib
import socket
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from tests.lib.relay import RelayError, Relays  # noqa: E402  the path must be set first
from tests.lib.waiting import until  # noqa: E402

QUIET_S = 0.2  # how long nothing must come: a relay that leaks would have leaked by then


class RelayTest(unittest.TestCase):
    def setUp(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.relays = Relays()
        self.port = self.relays.add("link", self.server.getsockname()[1])
        self.open = [self.server]

    def tearDown(self):
        self.relays.close()
        for each in self.open:
            each.close()

    def pair(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        server, _ = self.server.accept()
        server.settimeout(60)
        self.open += [client, server]
        return client, server

    def silent(self, sock):
        sock.settimeout(QUIET_S)
        with self.assertRaises(TimeoutError):
            sock.recv(1)
        sock.settimeout(60)

    def test_passes_both_ways_and_ends(self):
        client, server = self.pair()
        client.sendall(b"question")
        self.assertEqual(server.recv(100), b"question")
        server.sendall(b"answer")
        self.assertEqual(client.recv(100), b"answer")
        stat = self.relays.stat("link")
        self.assertEqual((stat["forth"], stat["back"], stat["connections"], stat["waiting"]), (8, 6, 1, 0))
        client.close()
        self.assertEqual(server.recv(100), b"")
        server.close()
        until(lambda: self.relays.stat("link")["connections"] == 0, "the connection does not end")

    def test_all_of_much_arrives(self):
        client, server = self.pair()
        data = bytes(range(256)) * 65536
        client.setblocking(False)
        sent, received = 0, bytearray()
        while len(received) < len(data):
            try:
                sent += client.send(data[sent:sent + 100000])
            except BlockingIOError:
                pass
            server.setblocking(False)
            try:
                received += server.recv(1 << 20)
            except BlockingIOError:
                pass
        client.close()
        self.assertEqual(bytes(received), data)

    def test_one_way(self):
        client, server = self.pair()
        self.relays.hold("link", forth=True, back=False)
        client.sendall(b"held")
        server.sendall(b"passes")
        self.assertEqual(client.recv(100), b"passes")
        self.silent(server)
        self.relays.hold("link", forth=False, back=True)
        self.assertEqual(server.recv(100), b"held")
        server.sendall(b"held, too")
        self.silent(client)
        self.relays.release("link")
        self.assertEqual(client.recv(100), b"held, too")

    def test_an_end_is_held_too(self):
        client, server = self.pair()
        self.relays.hold("link")
        client.sendall(b"last")
        client.close()
        self.silent(server)
        self.relays.release("link")
        self.assertEqual(server.recv(100), b"last")
        self.assertEqual(server.recv(100), b"")

    def test_no_connection_while_held(self):
        self.relays.hold("link", forth=False, back=True)
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.open.append(client)
        self.server.settimeout(QUIET_S)
        with self.assertRaises(TimeoutError):
            self.server.accept()
        self.assertEqual(self.relays.stat("link")["waiting"], 1)
        self.relays.release("link")
        self.server.settimeout(60)
        server, _ = self.server.accept()
        server.close()

    def test_reset(self):
        client, server = self.pair()
        self.relays.reset("link")
        for each in (client, server):
            with self.assertRaises(ConnectionResetError):
                each.recv(1)

    def test_nobody_listens(self):
        port = self.relays.add("void", 1)
        with self.assertRaises(ConnectionResetError):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.recv(1)
        with self.assertRaises(RelayError):
            self.relays.stat("nothing")


if __name__ == "__main__":
    unittest.main()
