"""HTTP/1.1 by hand: bytes out, answers in."""

import json
import socket
import ssl
import time

import patience


class Answer:
    def __init__(self, status, fields, body):
        self.status = status
        self.fields = fields
        self.body = body

    def is_problem(self):
        """A problem+json that says what its status line says (RFC 9457)."""
        if self.fields.get("content-type") != "application/problem+json":
            return False
        problem = json.loads(self.body)
        said = problem["title"] and problem["detail"]
        return problem["status"] == self.status and problem["type"] == "about:blank" and said


class Connection:
    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(patience.seconds)
        self.closed = False
        self.reset_by_peer = False
        self._input = b""

    def send(self, raw):
        try:
            self.socket.sendall(raw)
            return True
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.reset_by_peer = True
            return False
        except (TimeoutError, socket.timeout):
            return False

    def _more(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or self.closed:
            return False
        self.socket.settimeout(left)
        try:
            got = self.socket.recv(1 << 16)
        except (TimeoutError, socket.timeout):
            return False
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            self.reset_by_peer = True
            got = b""
        self.closed = not got
        self._input += got
        return bool(got)

    def answer(self):
        """The next answer, or None when there is none: the connection has been closed, or the time is over."""
        deadline = time.monotonic() + patience.seconds
        while b"\r\n\r\n" not in self._input:
            if not self._more(deadline):
                return None
        head, rest = self._input.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        length = int(fields.get("content-length", 0)) if status >= 200 else 0
        while len(rest) < length:
            self._input = head + b"\r\n\r\n" + rest
            if not self._more(deadline):
                return None
            rest = self._input.split(b"\r\n\r\n", 1)[1]
        self._input = rest[length:]
        return Answer(status, fields, rest[:length])

    def wait_closed(self):
        deadline = time.monotonic() + patience.seconds
        while self._more(deadline):
            pass
        return self.closed

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
