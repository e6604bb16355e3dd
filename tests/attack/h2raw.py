"""HTTP/2 frames by hand, for clients that no library would let one write.

A Connection sends what it is told to and keeps what comes back: by stream (status, body, end, reset), GOAWAY, and
whether the peer has closed. Of HPACK it writes literals without indexing (RFC 7541 section 6.2.2), and reads the one
field that the server writes first and never compresses: ":status".
"""

import socket
import ssl
import struct
import time

import patience

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, REFUSED_STREAM, ENHANCE_YOUR_CALM = 0x0, 0x1, 0x5, 0x7, 0xB
SETTING_INITIAL_WINDOW_SIZE = 0x4

_STATUS_BY_INDEX = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack_integer(value, prefix_bits, first=0):
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def hpack_string(text):
    raw = text.encode() if isinstance(text, str) else text
    return hpack_integer(len(raw), 7) + raw


def hpack_field(name, value, first=0):
    """One field; first=0: without indexing, first=0x40: added to the dynamic table."""
    return bytes([first]) + hpack_string(name) + hpack_string(value)


def block(method="POST", path="/echo", fields=(), authority="test", scheme="http"):
    pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    return b"".join(hpack_field(name, value) for name, value in [*pseudo, *fields])


def headers(stream, end=True, **request):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(**request))


def data(stream, payload=b"", end=False):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def rst(stream, code=0x8):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in pairs))


def status_of(payload):
    """The status, from the first field of a header block of this server."""
    if payload[0] & 0x80:
        return _STATUS_BY_INDEX[payload[0] & 0x7F]
    if payload[0] == 8 and payload[1] == 3:
        return int(payload[2:5])
    raise ValueError(f"a header block that does not begin with :status: {payload[:8].hex()}")


class Stream:
    def __init__(self):
        self.status = None
        self.body = b""
        self.ended = False
        self.reset = None  # error code


class Connection:
    """connect(): a function that returns a connected socket."""

    def __init__(self, connected, begin=True, first_settings=()):
        self.socket = connected
        self.socket.settimeout(patience.seconds)
        self.streams = {}
        self.goaways = []  # (last stream id, error code)
        self.settings_seen = 0
        self.pongs = 0
        self.window_returned = 0
        self.closed = False
        self.reset_by_peer = False
        self._input = b""
        if begin:
            self.send(PREFACE + settings(*first_settings))

    def stream(self, number):
        return self.streams.setdefault(number, Stream())

    def send(self, raw):
        """False when the peer does not take it any more."""
        try:
            self.socket.sendall(raw)
            return True
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.reset_by_peer = True
            return False
        except (TimeoutError, socket.timeout):
            return False

    def request(self, number, end=True, **request):
        self.stream(number)
        return self.send(headers(number, end, **request))

    def _take(self, kind, flags, number, payload):
        if kind == HEADERS:
            self.stream(number).status = status_of(payload)
        elif kind == DATA:
            self.stream(number).body += payload
        elif kind == RST_STREAM:
            self.stream(number).reset = struct.unpack(">I", payload)[0]
        elif kind == GOAWAY:
            last, code = struct.unpack(">II", payload[:8])
            self.goaways.append((last, code))
        elif kind == SETTINGS:
            self.settings_seen += 1
        elif kind == PING:
            self.pongs += 1
        elif kind == WINDOW_UPDATE and number == 0:
            self.window_returned += struct.unpack(">I", payload)[0]
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.stream(number).ended = True

    def _parse(self):
        at = 0
        while len(self._input) - at >= 9:
            length = int.from_bytes(self._input[at : at + 3], "big")
            if len(self._input) - at < 9 + length:
                break
            kind, flags, number = struct.unpack(">BBI", self._input[at + 3 : at + 9])
            self._take(kind, flags, number & 0x7FFFFFFF, self._input[at + 9 : at + 9 + length])
            at += 9 + length
        self._input = self._input[at:]

    def pump(self, until, timeout=None):
        """Reads until until() is true (True), or the peer has closed or the time is over (until() then)."""
        deadline = time.monotonic() + (patience.seconds if timeout is None else timeout)
        while not until() and not self.closed:
            self.socket.settimeout(max(0.0, deadline - time.monotonic()))  # 0: what is there already
            try:
                got = self.socket.recv(1 << 16)
            except (TimeoutError, socket.timeout, BlockingIOError, ssl.SSLWantReadError):
                break
            except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                self.reset_by_peer = True
                got = b""
            if not got:
                self.closed = True
            self._input += got
            self._parse()
        self.socket.settimeout(patience.seconds)
        return until()

    def wait_closed(self):
        return self.pump(lambda: self.closed)

    def wait_answer(self, number):
        stream = self.stream(number)
        self.pump(lambda: stream.ended or stream.reset is not None)
        return stream

    def goaway_code(self):
        return self.goaways[-1][1] if self.goaways else None

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
