"""Slowness: a byte now and then, or an answer that is never read."""

import threading

import h2raw
from registry import attack, check, check_honest

SHORT = {"request-timeout": 2}
LONG = {"request-timeout": 1000}
PAUSE = 0.25


def drip(client, pieces, over):
    """Sends a piece now and then, until `over` is set or the peer has gone."""

    def run():
        for piece in pieces:
            if over.wait(PAUSE) or not client.send(piece):
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Dripping:
    def __init__(self, client, pieces):
        self.over = threading.Event()
        self.thread = drip(client, pieces, self.over)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.over.set()
        self.thread.join()


@attack(limits=SHORT, sabotage_limits=LONG)
def slow_headers_http1(target):
    with target.h1() as client:
        client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\n".encode())
        with Dripping(client, [b"X: y\r\n"] * 100):
            answer = client.answer()
        in_time = answer is not None and answer.status == 408 and answer.is_problem()
        check(in_time, "slow headers were not answered with 408")
        check(client.wait_closed(), "the connection was not closed")
    check_honest(target)


@attack(limits=SHORT, sabotage_limits=LONG)
def slow_body_http1(target):
    chunk = b"1\r\nx\r\n"
    for framing, pieces in ("Content-Length: 1000", [b"x"] * 100), ("Transfer-Encoding: chunked", [chunk] * 100):
        with target.h1() as client:
            client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n".encode())
            with Dripping(client, pieces):
                answer = client.answer()
            check(answer is not None and answer.status == 408 and answer.is_problem(), f"{framing}: no 408")
            check(client.wait_closed(), "the connection was not closed")
    check_honest(target)


@attack(limits=SHORT, sabotage_limits=LONG)
def slow_headers_http2(target):
    """The bytes of one HEADERS frame, one by one; and a header block that never ends."""
    with target.h2() as client, target.h2() as other:
        other.send(h2raw.frame(h2raw.HEADERS, h2raw.END_STREAM, 1, h2raw.block()))
        raw = h2raw.headers(1, path=target.path)
        client.send(raw[:10])
        with Dripping(client, [raw[i : i + 1] for i in range(10, len(raw) - 1)]):
            check(client.wait_closed(), "a frame may take for ever")
        check(other.wait_closed(), "a header block may take for ever")
    check_honest(target)


@attack(limits=SHORT, sabotage_limits=LONG)
def slow_preface(target):
    with target.h2(begin=False) as client:
        client.send(h2raw.PREFACE[:18])
        with Dripping(client, [h2raw.PREFACE[i : i + 1] for i in range(18, 23)]):
            check(client.wait_closed(), "a preface may take for ever")
    check_honest(target)


@attack(limits=SHORT, sabotage_limits=LONG)
def slow_body_http2(target):
    with target.h2() as client:
        client.request(1, end=False, path=target.path)
        with Dripping(client, [h2raw.data(1, b"x")] * 100):
            answer = client.wait_answer(1)
        check(answer.status == 408, f"a slow body got {answer.status}, reset {answer.reset}")
        client.request(3, path=target.path)
        check(client.wait_answer(3).status == 200, "the connection is to live on")


UNREAD = {"response-timeout": 1}


@attack(limits=UNREAD, sabotage=("stalled-window",))
def stalled_window(target):
    """The client opens no window for the answer."""
    with target.h2(first_settings=[(h2raw.SETTING_INITIAL_WINDOW_SIZE, 0)]) as client:
        client.request(1, path=target.path)
        client.pump(lambda: client.stream(1).status is not None)
        check(client.wait_closed(), "an answer may wait for ever")
    check_honest(target)


@attack(limits=UNREAD, sabotage=("stalled-write", "stalled-window"))
def answer_not_read_http2(target):
    """The window is wide, but nothing is read from the socket."""
    first = [(h2raw.SETTING_INITIAL_WINDOW_SIZE, 0x7FFFFFFF)]
    with target.h2(receive_buffer=4096, first_settings=first) as client:
        client.send(h2raw.window_update(0, 0x7FFFFFFF - 65535))
        client.request(1, path="/big?bytes=8388608", method="GET")
        check_gone(target)
    check_honest(target)


@attack(limits=UNREAD, sabotage=("stalled-write",))
def answer_not_read_http1(target):
    with target.h1(receive_buffer=4096) as client:
        client.send(b"GET /big?bytes=8388608 HTTP/1.1\r\nHost: t\r\n\r\n")
        check_gone(target)
    check_honest(target)


def check_gone(target):
    """The server gets rid of the connection, though this side does nothing."""
    stats = target.wait_stats(lambda stats: stats["armour"] >= 1 and stats["connections"] == 1)
    check(stats["armour"] >= 1 and stats["connections"] == 1, f"{stats['connections'] - 1} connections are still there")


IDLE = {"idle-timeout": 3}


@attack(limits=IDLE, sabotage_limits={"idle-timeout": 1000})
def idle_connections_are_closed(target):
    silent, answered = target.h1(), target.h1()
    answered.send(f"GET {target.path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    check(answered.answer().status == 200, "no answer")
    with target.h2() as pinging, Dripping(pinging, [h2raw.frame(h2raw.PING, 0, 0, b"12345678")] * 100):
        check(silent.wait_closed(), "a connection without a byte stays open")
        check(answered.wait_closed(), "an idle HTTP/1.1 connection stays open")
        check(pinging.wait_closed(), "PING keeps an HTTP/2 connection without requests open")
        check(pinging.goaway_code() == h2raw.NO_ERROR, "no GOAWAY before an idle connection was closed")
    check_honest(target)
