"""A gateway's clock that jumps: its wall clock only, as a person or a bad time server would move it, by an LD_PRELOAD
shim (clock_shift.c) that every gateway is started with."""

import mmap
import struct

from chaos.faults.base import cluster, need, proven

_SHIFT, _SEEN = struct.Struct("<q"), struct.Struct("<Q")


def needs():
    return ["preload-clock"]


def _words(zone):
    """(shift in ns, readings that were shifted)."""
    data = (zone.gateway.config.parent / "clock_shift").read_bytes()
    return _SHIFT.unpack_from(data, 0)[0], _SEEN.unpack_from(data, 8)[0]


def _set(zone, shift_ns):
    # Mapped, as the gateway has it: the eight bytes change at one stroke, and its counter is not written over.
    with open(zone.gateway.config.parent / "clock_shift", "r+b") as file, mmap.mmap(file.fileno(), 16) as words:
        words[0:8] = _SHIFT.pack(shift_ns)


def jump(zone, seconds):
    """From now on the clock is that much ahead of the true time; negative: behind."""
    ours = cluster()
    need(ours, *needs())
    zone = ours.zone(zone)
    before = _words(zone)[1]
    ours.injected.put(f"clock {zone.name}", zone.name, f"clock off by {seconds:+} s")
    _set(zone, int(seconds * 1e9))
    seen = proven(lambda: _words(zone)[1] - before, f"the gateway in {zone.name} does not look at its clock", 20)
    return {"proof": f"the gateway read the wrong time {seen} times", "zone": zone.name}


def back(zone):
    """The true time again."""
    ours = cluster()
    zone = ours.zone(zone)
    _set(zone, 0)
    ours.injected.drop(f"clock {zone.name}")
    return {"proof": f"shift {_words(zone)[0]}", "zone": zone.name}
