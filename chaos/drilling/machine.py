"""What the machine itself did during a drill, once a second: how busy its processors were, how much of them its host
gave to others ("steal", man 5 proc_stat), and by how much the look itself came too late.

A drill judges times, and a virtual machine's times are its host's as well. Whoever reads a red p99 sees here whose it
is. A drill begins when the host gives what it promised, and one that is red only about service while it did not is run
again (main.py); both are said.
"""

import os
import pathlib
import platform
import subprocess
import threading
import time

EVERY_S = 1.0
MUCH = 0.2         # of the processors' time in a second: from here on times are worth little
OFTEN = 0.1        # of the seconds
MOST = 0.5         # of the processors' time: once is enough
ASK_S = 0.5        # for how long all processors are asked for, to see what the host gives
ASK_AGAIN_S = 5.0  # it gives more after a while, or not
WAIT_S = 180.0     # for a host that gives what it promised; then the drill begins all the same
STAT = pathlib.Path("/proc/stat")
_IDLE, _WAITING, _STOLEN = 3, 4, 7
_GUESTS_FROM = 8  # in user and nice already


def facts():
    return {"cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(), "node": platform.node(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)}


def ticks(text):
    """Of all processors since the start of the machine: [user, nice, system, idle, iowait, irq, softirq, steal]."""
    name, _space, rest = text.partition("\n")[0].partition(" ")
    counts = rest.split()
    if name != "cpu" or len(counts) < _GUESTS_FROM:
        raise ValueError(f"/proc/stat begins with {text[:80]!r}")
    return [int(each) for each in counts[:_GUESTS_FROM]]


def shares(before, after):
    """(busy, stolen) between two readings, of the processors' time; (0, 0) when none went by."""
    gained = [max(now - then, 0) for then, now in zip(before, after)]
    total = sum(gained)
    if not total:
        return 0.0, 0.0
    return (total - gained[_IDLE] - gained[_WAITING] - gained[_STOLEN]) / total, gained[_STOLEN] / total


def stolen_when_asked():
    """What share the host keeps when this machine wants all of its processors for a moment; idle, it tells nothing."""
    before = ticks(STAT.read_text())
    busy = [subprocess.Popen(["timeout", str(ASK_S), "sh", "-c", "while :; do :; done"])
            for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.wait()
    return shares(before, ticks(STAT.read_text()))[1]


def await_own(say):
    """Returns when the host gives what it promised, or after WAIT_S."""
    end, told, pause = time.monotonic() + WAIT_S, False, threading.Event()
    while (stolen := stolen_when_asked()) > MUCH and time.monotonic() < end:
        if not told:
            say(f"the host gives {stolen:.0%} of the processors to others: waiting, {WAIT_S:.0f} s at most")
        told = True
        pause.wait(ASK_AGAIN_S)


class Watch:
    """with Watch(start_ns) as watch: ...; afterwards watch.rows: [seconds since the start, busy, stolen, seconds by
    which this look was late]."""

    def __init__(self, start_ns):
        self._start_ns = start_ns
        self.rows = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._end.set()
        self._thread.join()

    def _run(self):
        before, due = ticks(STAT.read_text()), time.monotonic() + EVERY_S
        while not self._end.wait(max(due - time.monotonic(), 0)):
            now, after = time.monotonic(), ticks(STAT.read_text())
            busy, stolen = shares(before, after)
            self.rows.append([round(now - self._start_ns / 1e9, 3), round(busy, 3), round(stolen, 3),
                              round(now - due, 3)])
            before, due = after, now + EVERY_S


def figures(rows):
    """Never criteria: nothing that Sluice does changes them."""
    return {"stolen_worst": max((row[2] for row in rows), default=0.0),
            "stolen_seconds": sum(row[2] >= MUCH for row in rows),
            "look_late_s": max((row[3] for row in rows), default=0.0)}


def note(rows):
    """A sentence for whoever reads the times of this drill; None when the machine was its own."""
    found = figures(rows)
    if (found["stolen_seconds"] <= OFTEN * len(rows) and found["stolen_worst"] < MOST and
            found["look_late_s"] < EVERY_S):
        return None
    return (f"the host gave up to {found['stolen_worst']:.0%} of this machine's processors to others, {MUCH:.0%} or "
            f"more in {found['stolen_seconds']} of {len(rows)} seconds, and the drill itself waited up to "
            f"{found['look_late_s']:.1f} s for its turn: its times are the machine's, too")
