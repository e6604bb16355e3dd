"""The spool's disk: slow, failing, torn, full, rotten, gone.

Slow, failing and torn writes are the work of an LD_PRELOAD shim (tests/preload) that every gateway of the cluster is
started with and that does nothing until it is told to. The rest is done to the disk itself.
"""

import errno
import os
import time

from chaos.faults.base import FaultNotApplied, Skip, cluster, need, proven
from tests.preload.disk_fault import DiskFault

BALLAST = "fault-ballast"
WRITES = ("pwritev", "pwrite")


def needs():
    return ["loop", "ext4", "preload-disk"]


class _Shim(DiskFault):
    """The shim of a gateway that runs: joining it does not take its rules away."""

    def __init__(self, ours, zone):
        scratch = zone.gateway.config.parent
        self.shim, self.prefix = ours.dir / "bin" / "disk_fault.so", zone.disk.mount
        self.control, self.log = scratch / "disk_fault.rules", scratch / "disk_fault.log"
        self.generation = time.time_ns()


def _shim_fault(zone, key, text, rules, operation, wait_s):
    """Sets the rules and waits until one was applied. There must be traffic, or nothing is written."""
    ours = cluster()
    need(ours, "preload-disk")
    zone = ours.zone(zone)
    if not zone.gateway.pid:
        raise FaultNotApplied(f"the gateway in {zone.name} is dead")
    shim = _Shim(ours, zone)
    before = len(shim.applied())
    ours.injected.put(f"{key} {zone.name}", zone.name, text)
    shim.set(*rules)
    found = proven(lambda: shim.applied()[before:], f"no {operation} was touched in {zone.name}: any load?", wait_s)
    return {"proof": f"{found[0].operation} of {os.path.basename(found[0].path)} was the first of {len(found)}",
            "zone": zone.name}


def slow_sync(zone, delay_ms=500, wait_s=30):
    """Every fdatasync of the spool takes that much longer."""
    return _shim_fault(zone, "disk", f"every sync takes {delay_ms} ms more", [f"fdatasync delay_ms={delay_ms}"],
                       "fdatasync", wait_s)


def failing_sync(zone, after=0, wait_s=30):
    """The next fdatasync (after so many) fails with EIO: the gateway must end with code 4, it may not try again."""
    ours = cluster()
    pid = ours.zone(zone).gateway.pid
    found = _shim_fault(zone, "disk", "syncs fail", [f"fdatasync errno=EIO after={after}"], "fdatasync", wait_s)
    return {**found, "proof": f"{found['proof']}; {_ended(ours.zone(zone), pid)}"}


def torn_write(zone, bytes_written=1000, wait_s=30):
    """The next write into a segment stops in the middle, and the disk is gone: the rest of it and all after fail."""
    ours = cluster()
    pid = ours.zone(zone).gateway.pid
    rules = [rule for operation in WRITES
             for rule in (f"{operation} short={bytes_written} count=1 path=.seg", f"{operation} errno=EIO path=.seg")]
    found = _shim_fault(zone, "disk", "a torn write", [*rules, "fdatasync errno=EIO path=.seg"], "write", wait_s)
    return {**found, "proof": f"{found['proof']}; {_ended(ours.zone(zone), pid)}"}


def _ended(zone, pid):
    proven(lambda: zone.gateway.pid != pid, f"the gateway in {zone.name} goes on after its disk failed", 30)
    return f"process {pid} ended"


def heal(zone, wait_s=0):
    """The shim lets everything through again; a gateway that ended is started."""
    ours = cluster()
    zone = ours.zone(zone)
    _Shim(ours, zone).off()
    ours.injected.drop(f"disk {zone.name}")
    if not zone.gateway.pid:
        ours.start_gateway(zone)
    if wait_s:
        ours.wait_ready([zone], wait_s)
    return {"proof": f"no rule; process {zone.gateway.pid} runs", "zone": zone.name}


def _room_bytes(zone):
    found = os.statvfs(zone.disk.mount)
    return found.f_bavail * found.f_frsize


def fill(zone, leave_bytes=0):
    """Takes all blocks that are free, but for so many bytes."""
    ours = cluster()
    need(ours, "loop", "ext4", "fallocate")
    zone = ours.zone(zone)
    ours.injected.put(f"full {zone.name}", zone.name, "spool disk full")
    path, size = zone.disk.mount / BALLAST, 0
    with open(path, "ab") as file:
        size = os.fstat(file.fileno()).st_size
        step = 1 << 30
        while step >= 4096 and _room_bytes(zone) > leave_bytes:
            take = min(step, max(4096, _room_bytes(zone) - leave_bytes))
            try:
                os.posix_fallocate(file.fileno(), size, take)
                size += take
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size = os.fstat(file.fileno()).st_size
                step //= 4
    room = _room_bytes(zone)
    if room > leave_bytes + 65536:
        raise FaultNotApplied(f"{room} bytes are free in {zone.name} all the same")
    return {"proof": f"{size >> 20} MiB taken, {room} bytes are free", "zone": zone.name}


def free(zone):
    ours = cluster()
    zone = ours.zone(zone)
    (zone.disk.mount / BALLAST).unlink(missing_ok=True)
    room = proven(lambda: _room_bytes(zone), f"the disk in {zone.name} stays full", 10)
    ours.injected.drop(f"full {zone.name}")
    return {"proof": f"{room >> 20} MiB are free", "zone": zone.name}


def segments(zone, own=True):
    """Sealed segments, oldest first: all of a stream's but its last. `own`: of streams that this gateway wrote."""
    found = []
    for stream in sorted(zone.gateway.spool_dir.iterdir()):
        if stream.is_dir() and stream.name.startswith(f"{zone.gateway.name}.") == own:
            found += sorted(stream.glob("*.seg"))[:-1]
    return found


def bit_rot(zone, offset=None, bit=0):
    """Flips one bit of a byte of the oldest sealed segment (`offset`: default its middle), in the file and on the
    disk."""
    ours = cluster()
    zone = ours.zone(zone)
    found = segments(zone)
    if not found:
        raise FaultNotApplied(f"{zone.name} has no sealed segment yet: send more")
    path = found[0]
    place = path.stat().st_size // 2 if offset is None else offset
    with open(path, "r+b") as file:
        old = os.pread(file.fileno(), 1, place)
        new = bytes([old[0] ^ (1 << bit)])
        os.pwrite(file.fileno(), new, place)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is read from the disk again
        if os.pread(file.fileno(), 1, place) != new:
            raise FaultNotApplied(f"{path} does not keep the flipped bit")
    data = {"path": str(path), "offset": place, "old": old.hex()}
    ours.injected.put(f"rot {zone.name}", zone.name, f"a bit of {path.name} flipped", data)
    return {"proof": f"{path.name} at {place}: {old.hex()} became {new.hex()}", "zone": zone.name, **data}


def mend(zone):
    """Flips it back, if the segment is still there."""
    ours = cluster()
    zone = ours.zone(zone)
    data = ours.injected.drop(f"rot {zone.name}")
    if data is None:
        raise Skip(f"nothing was flipped in {zone.name}")
    if not os.path.exists(data["path"]):
        return {"proof": "the segment is gone meanwhile", "zone": zone.name}
    with open(data["path"], "r+b") as file:
        os.pwrite(file.fileno(), bytes.fromhex(data["old"]), data["offset"])
        os.fsync(file.fileno())
    return {"proof": f"{data['old']} at {data['offset']}", "zone": zone.name}


def vanish(zone):
    """The spool's disk is gone from one moment to the next, with what was not synced; the rest of the zone lives."""
    ours = cluster()
    need(ours, "loop", "ext4", "power-cut")
    zone = ours.zone(zone)
    pid = zone.gateway.pid
    ours.injected.put(f"vanished {zone.name}", zone.name, "spool disk gone")
    zone.disk.cut_power()
    try:
        (zone.disk.mount / "probe").write_bytes(b"x")
        raise FaultNotApplied(f"the disk in {zone.name} still takes data")
    except OSError as error:
        why = error.strerror
    return {"proof": f"a write to it: {why}", "zone": zone.name, "pid": pid}


def come_back(zone, empty=False, wait_s=0):
    """The disk is back, or an empty one in its place; the gateway is started again on it."""
    ours = cluster()
    zone = ours.zone(zone)
    proven(lambda: not zone.gateway.pid, f"the gateway in {zone.name} lives on without a disk: is there load?", 30)
    if zone.disk.mounted:
        zone.disk.unmount()
    if empty:
        zone.disk.image.unlink()
        zone.disk.make()
    else:
        zone.disk.attach()
    ours.start_gateway(zone)
    ours.injected.drop(f"vanished {zone.name}")
    if wait_s:
        ours.wait_ready([zone], wait_s)
    return {"proof": f"mounted, process {zone.gateway.pid} runs", "zone": zone.name}
