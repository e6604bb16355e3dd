"""A zone's disks: ext4 on sparse images behind loop devices.

Two for each zone, one for the gateway's spool and one for the broker's log, so that one can fill, fail or vanish and
leave the other. What a power cut does is FS_IOC_SHUTDOWN without flushing: the file system stops at once, every call
gets EIO, and the next mount replays the journal; what was written and not synced is not there any more.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import struct
import time

from chaos.stand.shell import StandError, run

SPOOL, KAFKA = "spool", "kafka"
SIZE_BYTES = {SPOOL: 3 << 30, KAFKA: 8 << 30}  # sparse
_FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_NO_LOG_FLUSH = 2
_OPTIONS = "loop,noatime"


def make(image, size_bytes):
    image.parent.mkdir(parents=True, exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(size_bytes)
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", image)


def mount(image, point):
    point.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", _OPTIONS, image, point)


def mounts_below(directory):
    """Mount points below a directory, innermost and latest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            if point.startswith(f"{directory}/"):
                found.append(point)
    return found[::-1]


def mounted(point):
    return str(point) in mounts_below(os.path.dirname(point))


def users(point):
    """["1234 (bash)"]: who has something open there, or stands in it."""
    device, found = os.stat(point).st_dev, []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        links = [f"/proc/{entry}/cwd", f"/proc/{entry}/root"]
        with contextlib.suppress(OSError):
            links += [f"/proc/{entry}/fd/{each}" for each in os.listdir(f"/proc/{entry}/fd")]
        for link in links:
            with contextlib.suppress(OSError):
                if os.stat(link).st_dev == device:
                    name = pathlib.Path(f"/proc/{entry}/comm").read_text(encoding="utf-8").strip()
                    found.append(f"{entry} ({name})")
                    break
    return found


def unmount(point, timeout_s=30):
    """Waits for the last user to be gone from it; StandError names who is not."""
    end = time.monotonic() + timeout_s
    while True:
        done = run("umount", point, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            there = ", ".join(users(point)) or "nobody that can be seen"
            raise StandError(f"{done.stderr.strip()}, used by {there}")
        time.sleep(0.05)


def cut_power(point):
    """From now on nothing reaches the disk, and nothing comes from it."""
    descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


def loops_below(directory):
    """Loop devices whose image lies below a directory, deleted images included."""
    listed = json.loads(run("losetup", "--json", "--list", "--output", "NAME,BACK-FILE").stdout or "{}")
    return [each["name"] for each in listed.get("loopdevices", ())
            if (each["back-file"] or "").startswith(f"{directory}/")]


def remove(places):
    for point in mounts_below(places.dir):
        unmount(point)
    end = time.monotonic() + 10
    while loops := loops_below(places.dir):
        for loop in loops:  # mounts detach theirs by themselves; one is left when `mount` was killed half-way
            run("losetup", "--detach", loop, check=False)
        if time.monotonic() > end:
            raise StandError(f"loop devices stay: {loops}")
        time.sleep(0.05)
