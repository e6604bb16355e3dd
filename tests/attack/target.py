"""The server under attack: one that is started with the limits a test wants, or one that runs already."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import h1raw
import h2raw
import patience

# Limits small enough for tests to reach; a test sets the ones that it is about. Names as of the test server's flags.
LIMITS = {
    "body-bytes": 16 << 20,
    "unfinished-connection": 32 << 20,
    "unfinished": 128 << 20,
    "header-block": 16384,
    "header-count": 128,
    "connections": 10000,
    "connections-address": 1000,
    "resets": 200,
    "control-frames": 60000,
    "request-timeout": 30,
    "response-timeout": 30,
    "idle-timeout": 75,
    "handshake-timeout": 10,
}


def rss_anon_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"^RssAnon:\s+(\d+) kB", status.read(), re.M)[1]) * 1024


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Target:
    """What a test may do to any server. path: answers 200 to a POST of body. preface: sent first on each connection.
    loops: threads of the server that serve connections."""

    path, body, preface, loops = "/echo", b"{}", b"", 1

    def __init__(self, limits):
        self.limits = {**LIMITS, **limits}
        self.host, self.port, self.pid = "127.0.0.1", 0, 0

    def connect(self, receive_buffer=None):
        connected = socket.socket()
        if receive_buffer is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connected.settimeout(patience.seconds)
        connected.connect((self.host, self.port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.sendall(self.preface)
        return connected

    def h2(self, **options):
        receive_buffer = options.pop("receive_buffer", None)
        return h2raw.Connection(self.connect(receive_buffer), **options)

    def h1(self, **options):
        return h1raw.Connection(self.connect(**options))

    def honest(self):
        """One honest request over a connection of its own; None, or what is wrong with the answer."""
        try:
            with self.h2() as client:
                # In one piece: where a request has a second, a client that stood still in between was a slow one.
                head = h2raw.headers(1, end=False, path=self.path, fields=[("content-type", "application/json")])
                client.send(head + h2raw.data(1, self.body, end=True))
                stream = client.wait_answer(1)
                return None if stream.status == 200 and stream.ended else f"an honest request got {stream.status}"
        except OSError as error:
            return f"an honest request failed: {error}"

    def rss(self):
        return rss_anon_bytes(self.pid)

    def is_alive(self):
        try:
            os.kill(self.pid, 0)
            return True
        except ProcessLookupError:
            return False


class Honest(threading.Thread):
    """Honest requests one after the other, for as long as an attack lasts."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.count, self.failure, self._over = target, 0, None, threading.Event()

    def run(self):
        while not self._over.is_set() and self.failure is None:
            self.failure = self.target.honest()
            self.count += self.failure is None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        self._over.set()
        self.join()


class Started(Target):
    """The test server (tests/http/http_test_server.c), for as long as the with block lasts."""

    def __init__(self, path, limits=None, extra=(), sabotage=()):
        super().__init__(limits or {})
        self.binary, self.extra, self.sabotage = path, extra, sabotage

    def __enter__(self):
        words = [self.binary, "--listen", "127.0.0.1:0", *self.extra]
        for name, value in self.limits.items():
            words += [f"--{name}", str(value)]
        # A build with AddressSanitizer keeps freed memory for a while: little of it, because memory is measured here.
        environment = {"ASAN_OPTIONS": "quarantine_size_mb=4", **os.environ}
        environment = {**environment, "SLUICE_HTTP_SABOTAGE": "," + ",".join(self.sabotage) + ","}
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, env=environment, text=True)
        self.pid = self.process.pid
        self.ports = []
        for line in self.process.stdout:
            if line.startswith("port"):
                self.ports.append(int(line.split()[2]))
            if line == "ready\n":
                break
        if not self.ports:
            self.process.stdout.close()
            self.process.wait()
            raise RuntimeError("the server did not start: " + self.log_text())
        self.port = self.ports[0]
        return self

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stats(self):
        with self.h1() as client:
            client.send(b"GET /stats HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            answer = client.answer()
            return json.loads(answer.body) if answer is not None else None

    def is_alive(self):
        return self.process.poll() is None

    def wait_stats(self, condition, timeout=None):
        deadline = time.monotonic() + (patience.seconds if timeout is None else timeout)
        while True:
            stats = self.stats()
            if (stats is not None and condition(stats)) or time.monotonic() > deadline:
                return stats
            time.sleep(0.05)

    def stop(self, how=signal.SIGINT):
        """Its exit code; 0 is a clean end (with AddressSanitizer: and nothing leaked)."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(patience.LONG_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "it did not end"

    def __exit__(self, *unused):
        self.stop()
        self.process.stdout.close()
        self.log.close()


class Running(Target):
    """A server that somebody else has started, with these limits."""

    def __init__(self, host, port, pid, limits, path):
        super().__init__(limits)
        self.host, self.port, self.pid, self.path = host, port, pid, path

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass
