"""What the machine itself did during a drill, once a second: how busy its processors were, how much of them its host
gave to others ("steal", man 5 proc_stat), by how much the look itself came too late, and for how long its disk stood
still: requests were on their way, and none was completed between two looks (Linux, admin-guide/iostats).

A drill judges times, and a virtual machine's times are its host's as well. Whoever reads a red p99 sees here whose it
is. A drill begins when the host gives what it promised, and one that is red only about service while it did not is run
again (main.py); both are said. No fault of a drill shows here: they are injected into processes, and into disks that
are files on this one.
"""

import os
import pathlib
import platform
import subprocess
import threading
import time

EVERY_S = 1.0
LOOK_S = 0.02      # at the disk, which is busy for less than that with any one request
MUCH = 0.2         # of the processors' time in a second: from here on times are worth little
OFTEN = 0.1        # of the seconds
MOST = 0.5         # of the processors' time: once is enough
STOOD = 0.01       # of the whole time, by the disk: every answer waits for it, and a p99 is about that hundredth
ASK_S = 0.5        # for how long all processors are asked for, to see what the host gives
ASK_AGAIN_S = 5.0  # it gives more after a while, or not
WAIT_S = 180.0     # for a host that gives what it promised; then the drill begins all the same
STAT = pathlib.Path("/proc/stat")
DISKS = pathlib.Path("/proc/diskstats")
_IDLE, _WAITING, _STOLEN = 3, 4, 7
_READS, _WRITES, _IN_FLIGHT, _DISCARDS, _FLUSHES = 3, 7, 11, 14, 18  # words of a line; the last two are not in all
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


def disk_of(path):
    """(major, minor) of the disk below a file; None without one, as in memory. The file may not be there yet."""
    path = pathlib.Path(path).absolute()
    device = next(each for each in (path, *path.parents) if each.exists()).stat().st_dev
    found = os.major(device), os.minor(device)
    return found if requests(DISKS.read_text(), found) else None


def requests(text, device):
    """(completed since the start of the machine, on their way now) of a disk; None when there is no such disk."""
    for line in text.splitlines():
        words = line.split()
        if (int(words[0]), int(words[1])) == device:
            counts = (int(words[at]) for at in (_READS, _WRITES, _DISCARDS, _FLUSHES) if at < len(words))
            return sum(counts), int(words[_IN_FLIGHT])
    return None


class _Disk:
    """Adds up for how long it stands still. `device`: from disk_of; None: it never does."""

    def __init__(self, device):
        self._device, self._last, self._at, self._still_s = device, None, time.monotonic(), 0.0

    def look(self):
        if self._device is None:
            return
        now, found = time.monotonic(), requests(DISKS.read_text(), self._device)
        if found and self._last and found[0] == self._last[0] and found[1] and self._last[1]:
            self._still_s += now - self._at
        self._last, self._at = found, now

    def take(self):
        """Seconds since it was asked last."""
        found, self._still_s = self._still_s, 0.0
        return found


class Watch:
    """with Watch(start_ns, path) as watch: ...; afterwards watch.rows: [seconds since the start, busy, stolen, seconds
    by which this look was late, share of the time in which the disk below `path` stood still]."""

    def __init__(self, start_ns, path):
        self._start_ns, self._disk = start_ns, _Disk(disk_of(path))
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
        last, before = time.monotonic(), ticks(STAT.read_text())
        due = last + EVERY_S
        while not self._end.wait(max(min(due - time.monotonic(), LOOK_S), 0)):
            self._disk.look()
            if (now := time.monotonic()) < due:
                continue
            after = ticks(STAT.read_text())
            busy, stolen = shares(before, after)
            still = min(self._disk.take() / (now - last), 1.0)
            self.rows.append([round(now - self._start_ns / 1e9, 3), round(busy, 3), round(stolen, 3),
                              round(now - due, 3), round(still, 3)])
            last, before, due = now, after, now + EVERY_S


def figures(rows):
    """Never criteria: nothing that Sluice does changes them."""
    return {"stolen_worst": max((row[2] for row in rows), default=0.0),
            "stolen_seconds": sum(row[2] >= MUCH for row in rows),
            "look_late_s": max((row[3] for row in rows), default=0.0),
            "disk_still_worst": max((row[4] for row in rows), default=0.0),
            "disk_still": round(sum(row[4] for row in rows) / max(len(rows), 1), 4)}


def note(rows):
    """A sentence for whoever reads the times of this drill; None when the machine was its own."""
    found, said = figures(rows), []
    if (found["stolen_seconds"] > OFTEN * len(rows) or found["stolen_worst"] >= MOST or
            found["look_late_s"] >= EVERY_S):
        said.append(f"the host gave up to {found['stolen_worst']:.0%} of this machine's processors to others, "
                    f"{MUCH:.0%} or more in {found['stolen_seconds']} of {len(rows)} seconds, and the drill itself "
                    f"waited up to {found['look_late_s']:.1f} s for its turn")
    if found["disk_still"] >= STOOD:
        said.append(f"this machine's disk completed nothing of what it was asked for during {found['disk_still']:.1%} "
                    f"of the time, up to {found['disk_still_worst']:.0%} of a second")
    return f"{'; '.join(said)}: its times are the machine's, too" if said else None
