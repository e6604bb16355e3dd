#!/usr/bin/env python3
"""sluice-load against a small HTTP/2 server that keeps the bodies and misbehaves on demand.

usage: load_test.py PATH-TO-SLUICE-LOAD [unittest arguments]
"""
import collections
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

LOAD = ""
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK = 1, 1
CLOSE, RESET, REFUSE, SILENCE, GO_AWAY = "close", "reset", "refuse", "silence", "goaway"


def crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc32c_table()


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


class Server:
    """Answers each request as `plan(n)` says: a status, or one of the words above; n counts requests from 0.

    `requests` is a list of (n, body), in the order in which bodies were complete.
    """

    def __init__(self, plan=lambda n: 200):
        self.plan = plan
        self.requests = []
        self.seq = 1
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d/v1/events/payments" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self):
        self.listener.close()

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def answer(self, stream, status, count):
        if status == 200:
            with self.lock:
                first, self.seq = self.seq, self.seq + count
            body = json.dumps({"ack": "disk", "accepted": count, "duplicates": 0, "quarantined": 0,
                               "stream": "t.1-a", "first_seq": first, "last_seq": first + count - 1},
                              separators=(",", ":")).encode()
        else:
            body = b'{"status":%d}' % status
        # ":status" as a literal with the name from the static table, entry 8 (RFC 7541 appendix A)
        head = b"\x08\x03%d" % status
        return self.frame(HEADERS, 4, stream, head) + self.frame(DATA, END_STREAM, stream, body)

    def finish(self, connection, stream, body):
        """False when the connection is to be closed."""
        with self.lock:
            number = len(self.requests)
            self.requests.append((number, body))
        what = self.plan(number)
        if what == CLOSE:
            return False
        if what == RESET:
            connection.sendall(self.frame(RST_STREAM, 0, stream, struct.pack(">I", 2)))
        elif what == REFUSE:
            connection.sendall(self.frame(RST_STREAM, 0, stream, struct.pack(">I", 7)))
        elif what == GO_AWAY:
            connection.sendall(self.frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0)) +
                               self.answer(stream, 200, len(events_of(body))))
        elif what != SILENCE:
            connection.sendall(self.answer(stream, what, len(events_of(body))))
        return True

    def serve(self, connection):
        bodies = collections.defaultdict(bytearray)
        with connection, connection.makefile("rb") as reader:
            try:
                if reader.read(24) != b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
                    return
                connection.sendall(self.frame(SETTINGS, 0, 0))
                while head := reader.read(9):
                    length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], head[5:]
                    stream = int.from_bytes(stream, "big")
                    payload = reader.read(length)
                    if kind == SETTINGS and not flags & ACK:
                        connection.sendall(self.frame(SETTINGS, ACK, 0))
                    elif kind == DATA:
                        bodies[stream] += payload
                        if length:
                            more = struct.pack(">I", length)
                            connection.sendall(self.frame(WINDOW_UPDATE, 0, 0, more) +
                                               self.frame(WINDOW_UPDATE, 0, stream, more))
                        if flags & END_STREAM and not self.finish(connection, stream, bytes(bodies.pop(stream))):
                            connection.shutdown(socket.SHUT_RDWR)
                            return
            except (OSError, ValueError):
                return


def events_of(body):
    """The bytes of each event of a body, as sent."""
    if body.endswith(b"\n"):
        return body[:-1].split(b"\n")
    if body.startswith(b"["):
        return [b"{" + part + b"}" for part in body[2:-2].split(b"},{")] if b"},{" in body else [body[1:-1]]
    return [body]


# Nothing is given up because the machine stood still, but where a test says so.
PATIENT = ("--timeout", "60")


def load(server, *options):
    """The summary and the lines of the history."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "history")
        run = subprocess.run([LOAD, "--history", path, *PATIENT, *options, server.url], capture_output=True,
                             timeout=100, check=False)
        with open(path, encoding="utf-8") as lines:
            history = [json.loads(line) for line in lines]
    if run.returncode not in (0, 3):
        raise AssertionError("exit %d: %s" % (run.returncode, run.stderr.decode()))
    return json.loads(run.stdout), history


class LoadTest(unittest.TestCase):
    def serve(self, plan=lambda n: 200):
        server = Server(plan)
        self.addCleanup(server.close)
        return server

    def check_end(self, history):
        """The last line agrees with the lines before it; returns those."""
        lines, end = history[1:-1], history[-1]
        self.assertIs(end["end"], True)
        outcomes = collections.Counter(line["o"] for line in lines)
        self.assertEqual([end["ok"], end["fail"], end["unknown"], end["attempts"]],
                         [outcomes["ok"], outcomes["fail"], outcomes["unknown"], len(lines)])
        fates = collections.defaultdict(set)
        for line in lines:
            fates[line["id"]].add(line["o"])
        self.assertEqual(end["events"], len(fates))
        self.assertEqual(end["acked"], sum("ok" in fate for fate in fates.values()))
        self.assertEqual(end["refused"], sum(fate == {"fail"} for fate in fates.values()))
        self.assertEqual(end["open"], end["events"] - end["acked"] - end["refused"])
        return lines

    def check_bodies(self, server, lines, size=1048):
        """Every event that was sent is JSON of the asked size and is what the history says of it."""
        sent = {}
        for _, body in server.requests:
            for event in events_of(body):
                self.assertEqual(len(event), size)
                fields = json.loads(event)
                before = sent.setdefault(fields["event_id"], event)
                self.assertEqual(before, event, "a retry has other bytes")
        for line in lines:
            event = sent[line["id"]]
            fields = json.loads(event)
            self.assertEqual((fields["account_id"], int(fields["seq"])), (line["k"], line["s"]))
            self.assertEqual(crc32c(event), line["c"])
        return sent

    def test_single_events(self):
        server = self.serve()
        summary, history = load(server, "-c3", "-m4", "-n500", "-k7")
        lines = self.check_end(history)
        self.assertEqual(len(self.check_bodies(server, lines)), 500)
        self.assertEqual((summary["acked"], summary["accepted"], summary["status"]), (500, 500, {"200": 500}))
        self.assertEqual(sorted(line["f"] for line in lines), list(range(1, 501)))
        for line in lines:
            self.assertLessEqual(line["t0"], line["t1"])
            self.assertEqual((line["st"], line["a"], line["sm"], line["d"]), (200, 1, "t.1-a", 0))

    def test_batches_that_cross_frames(self):
        for options in (["-b", "37"], ["-b", "37", "--ndjson"], ["-b", "2", "-s", "30001"]):
            server = self.serve()
            _, history = load(server, "-c2", "-m2", "-n300", *options)
            size = 30001 if "-s" in options else 1048
            lines = self.check_end(history)
            self.check_bodies(server, lines, size)
            for _, body in server.requests:
                self.assertEqual(len(events_of(body)), int(options[1]))
                if "--ndjson" not in options:
                    self.assertEqual(len(json.loads(body)), int(options[1]))
            self.assertEqual(sorted(line["f"] + line["i"] for line in lines), list(range(1, len(lines) + 1)))

    def test_sizes_and_runs_at_the_edges(self):
        for size in (256, 300, 700, 1047, 2000, 100000):
            server = self.serve()
            _, history = load(server, "-n20", "-s", str(size), "--run", "R" * 32)
            self.check_bodies(server, self.check_end(history), size)

    def test_retries_keep_the_id_until_ok(self):
        plan = {0: 503, 1: RESET, 2: CLOSE, 3: REFUSE, 4: GO_AWAY, 5: 429, 6: 500}
        server = self.serve(lambda n: plan.get(n, 200))
        summary, history = load(server, "-c2", "-m1", "-n40", "--retry", "--ordered")
        lines = self.check_end(history)
        self.check_bodies(server, lines)
        self.assertEqual((history[-1]["acked"], history[-1]["open"], history[-1]["refused"]), (40, 0, 0))
        self.assertGreaterEqual(summary["retries"], 6)
        self.assertEqual({line["e"] for line in lines if line["st"] == 0} & {"reset", "refused"}, {"reset", "refused"})
        self.assertEqual([line["o"] for line in lines if line["st"] == 429], ["fail"])
        self.assertEqual([line["o"] for line in lines if line["st"] == 503], ["unknown"])
        attempts = collections.Counter(line["id"] for line in lines)
        for line in lines:
            if line["o"] == "ok":
                self.assertEqual(line["a"], attempts[line["id"]])

    def test_without_retry_unknown_stays_open_and_4xx_is_refused(self):
        plan = {0: 503, 1: RESET, 2: 422, 3: 409}
        server = self.serve(lambda n: plan.get(n, 200))
        _, history = load(server, "-c1", "-m1", "-n20")
        self.check_end(history)
        self.assertEqual((history[-1]["acked"], history[-1]["open"], history[-1]["refused"]), (16, 2, 2))

    def test_4xx_is_final_even_with_retry(self):
        server = self.serve(lambda n: 422)
        _, history = load(server, "-c1", "-m2", "-n10", "--retry")
        self.check_end(history)
        self.assertEqual((history[-1]["refused"], len(server.requests)), (10, 10))

    def test_a_refused_retry_of_an_unknown_attempt_stays_open(self):
        server = self.serve(lambda n: 503 if n == 0 else 409)
        _, history = load(server, "-c1", "-m1", "-n1", "--retry")
        self.check_end(history)
        self.assertEqual((history[-1]["open"], history[-1]["refused"]), (1, 0))

    def test_timeouts_and_the_end(self):
        server = self.serve(lambda n: SILENCE if n < 3 else 200)
        summary, history = load(server, "-c1", "-m3", "-n9", "--timeout", "0.3", "--retry")
        self.check_end(history)
        self.assertEqual(history[-1]["acked"], 9)
        self.assertGreaterEqual(summary["errors"]["timeout"], 3)
        server = self.serve(lambda n: SILENCE)
        _, history = load(server, "-c1", "-m3", "-t0.2", "--timeout", "30", "--drain", "0.2")
        self.assertEqual([line["e"] for line in self.check_end(history)], ["end"] * 3)

    def test_server_that_goes_and_comes_back(self):
        server = self.serve(lambda n: CLOSE if n % 50 == 49 else 200)
        summary, history = load(server, "-c4", "-m4", "-n1000", "-k50", "--retry", "--ordered")
        lines = self.check_end(history)
        self.check_bodies(server, lines)
        self.assertEqual(history[-1]["acked"], 1000)
        self.assertGreater(summary["reconnects"], 0)
        self.assertGreater(summary["errors"]["lost"], 0)

    def test_ordered_has_one_event_of_a_key_outstanding(self):
        server = self.serve(lambda n: 503 if n % 7 == 0 else 200)
        _, history = load(server, "-c4", "-m4", "-b3", "-n600", "-k20", "--retry", "--ordered")
        lines = self.check_end(history)
        spans = collections.defaultdict(dict)
        for line in lines:
            span = spans[line["k"]].setdefault(line["s"], [line["t0"], line["t1"]])
            span[0], span[1] = min(span[0], line["t0"]), max(span[1], line["t1"])
        for key, by_seq in spans.items():
            self.assertEqual(sorted(by_seq), list(range(1, len(by_seq) + 1)), key)
            for seq in range(1, len(by_seq)):
                self.assertLessEqual(by_seq[seq][1], by_seq[seq + 1][0], key)

    def test_open_loop_keeps_its_schedule_and_counts_from_it(self):
        server = self.serve(lambda n: SILENCE if n == 0 else 200)
        summary, _ = load(server, "-c1", "-m1", "-r100", "-t1", "--timeout", "0.4", "--retry")
        # 100 were due; the last may have come due less than 10 ms before the end without room (bench/load_request.c).
        self.assertIn(summary["requests"] + summary["not_sent"], (99, 100))
        # The first answer came after 0.4 s; the requests that were due in between waited, and say so.
        self.assertGreater(summary["latency_ms"]["p90"], 10)

    def test_headers_and_several_urls(self):
        first, second = self.serve(), self.serve()
        run = subprocess.run([LOAD, *PATIENT, "-c4", "-n200", "-H", "X-Api-Key: k", first.url, second.url],
                             capture_output=True, timeout=100, check=True)
        self.assertEqual(json.loads(run.stdout)["acked"], 200)
        self.assertGreater(len(first.requests), 0)
        self.assertGreater(len(second.requests), 0)

    def test_usage_errors(self):
        for options in (["-c0"], ["--nonsense"], ["-s", "10"], [], ["http://127.0.0.1/x"], ["https://127.0.0.1:1/"],
                        ["--run", "a b", "http://127.0.0.1:1/"], ["-k1", "-b2", "--ordered", "http://127.0.0.1:1/"]):
            run = subprocess.run([LOAD, *options], capture_output=True, timeout=60, check=False)
            self.assertEqual(run.returncode, 2, options)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    LOAD = sys.argv.pop(1)
    unittest.main(verbosity=2)
