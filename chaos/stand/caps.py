"""What this machine can inject: each capability is tried, not guessed, and what fails says so in the kernel's own
words.

    found = probe()                 # {name: Capability}
    found["netem"].reason           # "Error: Specified qdisc kind is unknown."
"""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from chaos.stand import disks
from chaos.stand.shell import ROOT, StandError, run, run_in
from tests.lib.places import disk_root


@dataclasses.dataclass(frozen=True)
class Capability:
    name: str
    what: str  # what it is for
    reason: str  # why it is missing; "" when it is there

    @property
    def there(self):
        return not self.reason


class _Bench:
    """A namespace and a directory to try things in."""

    def __init__(self):
        self.netns = f"sluice-probe-{os.getpid()}"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="sluice-probe-", dir=disk_root()))
        self.mount, self.image = self.directory / "mnt", self.directory / "disk.img"

    def close(self):
        run("ip", "netns", "del", self.netns, check=False)
        for point in disks.mounts_below(self.directory):
            run("umount", point, check=False)
        for loop in disks.loops_below(self.directory):
            run("losetup", "--detach", loop, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def _netns(bench):
    run("ip", "netns", "add", bench.netns)
    run("ip", "-n", bench.netns, "link", "set", "lo", "up")


def _bridge(bench):
    run("ip", "-n", bench.netns, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", bench.netns, "link", "add", "one", "type", "veth", "peer", "name", "two")
    run("ip", "-n", bench.netns, "link", "set", "two", "master", "br0")


def _iptables(*rule):
    def probe(bench):
        run_in(bench.netns, "iptables", *rule)
    return probe


def _queue(*words):
    def probe(bench):
        run_in(bench.netns, "tc", "qdisc", "replace", "dev", "lo", "root", *words)
        run_in(bench.netns, "tc", "qdisc", "del", "dev", "lo", "root")
    return probe


def _socket_destroy(bench):
    done = run_in(bench.netns, "ss", "-K", "dport", "=", "9", check=False)
    if "answers" in done.stderr:
        raise StandError(done.stderr.strip())


def _loop(bench):
    disks.make(bench.image, 64 << 20)
    loop = run("losetup", "--find", "--show", bench.image).stdout.strip()
    run("losetup", "--detach", loop)


def _ext4(bench):
    disks.mount(bench.image, bench.mount)


def _power_cut(bench):
    """What was synced is there afterwards, what was not is gone."""
    synced, unsynced = bench.mount / "synced", bench.mount / "unsynced"
    with open(synced, "wb") as file:
        file.write(b"x" * 10000)
        file.flush()
        os.fsync(file.fileno())
        unsynced.write_bytes(b"y" * 10000)
        disks.cut_power(bench.mount)
    disks.unmount(bench.mount)
    disks.mount(bench.image, bench.mount)
    if not synced.exists() or synced.stat().st_size != 10000 or unsynced.exists():
        raise StandError("after FS_IOC_SHUTDOWN the disk has not exactly what was synced")


def _device_mapper(_bench):
    if not os.path.exists("/dev/mapper/control"):
        with open("/proc/misc", encoding="ascii") as table:
            if "device-mapper" not in table.read():
                raise StandError("/proc/misc has no device-mapper: not in this kernel, or not loaded")
    run("dmsetup", "targets")


def _fuse(_bench):
    os.close(os.open("/dev/fuse", os.O_RDWR))
    with open("/proc/filesystems", encoding="ascii") as table:
        if "\tfuse\n" not in table.read():
            raise StandError("/proc/filesystems has no fuse")


def _freezer_paths():
    for parent in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.exists(f"{parent}/cgroup.procs"):
            return pathlib.Path(parent, f"sluice-probe-{os.getpid()}")
    raise StandError("no cgroup hierarchy is mounted")


def _freezer(_bench):
    group = _freezer_paths()
    group.mkdir()
    child = subprocess.Popen(["sleep", "60"])
    try:
        old = (group / "freezer.state").exists()
        control, on, off = (group / "freezer.state", "FROZEN", "THAWED") if old else (group / "cgroup.freeze", "1", "0")
        shown = control if old else group / "cgroup.events"
        (group / "cgroup.procs").write_text(str(child.pid))
        control.write_text(on)
        end = time.monotonic() + 2
        while ("FROZEN" if old else "frozen 1") not in shown.read_text():
            if time.monotonic() > end:
                raise StandError(f"{control} does not freeze: {shown.read_text().strip()}")
            time.sleep(0.01)
        control.write_text(off)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        while (group / "cgroup.procs").read_text():
            time.sleep(0.01)
        group.rmdir()


def _clock_namespace(_bench):
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(0x80) == 0 else ctypes.get_errno())  # CLONE_NEWTIME
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise StandError(f"unshare: {os.strerror(code)}")
    raise StandError("a time namespace moves only the monotonic clocks, not the time of day")


def _shim(relative):
    def probe(_bench):
        path = pathlib.Path(os.environ.get("SLUICE_BUILD") or os.path.join(ROOT, "build"), relative)
        if not path.exists():
            raise StandError(f"{path} is not built: scripts/build")
        done = subprocess.run(["true"], env={**os.environ, "LD_PRELOAD": str(path)}, stderr=subprocess.PIPE, text=True,
                              check=False)
        if "cannot be preloaded" in done.stderr:
            raise StandError(done.stderr.strip())
    return probe


def _program(name):
    def probe(_bench):
        if not shutil.which(name) and not os.path.exists(f"/usr/sbin/{name}"):
            raise StandError(f"{name} is not installed: scripts/setup chaos")
    return probe


def _reserve(bench):
    """Reserving blocks is how a disk is filled at one stroke."""
    with open(bench.mount / "reserved", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)


# What the cluster itself stands on: no drill without these.
STAND = ("netns", "bridge", "loop", "ext4", "haproxy", "prometheus", "java", "openssl")

# In order: later ones stand on earlier ones.
_TABLE = (
    ("netns", "zones as network namespaces", _netns),
    ("bridge", "links between zones: veth, bridge", _bridge),
    ("iptables", "partitions: packets dropped without a word",
     _iptables("-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")),
    ("iptables-reset", "connections reset",
     _iptables("-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "REJECT", "--reject-with", "tcp-reset")),
    ("iptables-nat", "a fault proxy put before a broker that runs",
     _iptables("-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "9", "-m", "mark", "!", "--mark", "1", "-j",
               "REDIRECT", "--to-ports", "10")),
    ("iptables-statistic", "random loss of packets",
     _iptables("-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "DROP")),
    ("netem", "delay, jitter and loss in the kernel", _queue("netem", "delay", "1ms")),
    ("tbf", "bandwidth limited in the kernel", _queue("tbf", "rate", "1mbit", "burst", "10k", "latency", "50ms")),
    ("htb", "bandwidth shared in the kernel", _queue("htb")),
    ("socket-destroy", "ss -K: connections of others ended", _socket_destroy),
    ("loop", "disks as files", _loop),
    ("ext4", "their file system", _ext4),
    ("fallocate", "a disk filled at one stroke", _reserve),
    ("power-cut", "unsynced data dropped: FS_IOC_SHUTDOWN", _power_cut),
    ("device-mapper", "dm-flakey, dm-delay (not used)", _device_mapper),
    ("fuse", "LazyFS (not used)", _fuse),
    ("freezer", "a whole zone frozen by its cgroup (not used: SIGSTOP does)", _freezer),
    ("time-namespace", "a clock of its own (not used: the shim does)", _clock_namespace),
    ("preload-disk", "slow, failing and torn writes: LD_PRELOAD", _shim("tests/preload/disk_fault.so")),
    ("preload-clock", "a clock that jumps: LD_PRELOAD", _shim("chaos/faults/clock_shift.so")),
    ("haproxy", "the load balancer", _program("haproxy")),
    ("prometheus", "metrics over time", _program("prometheus")),
    ("java", "Kafka", _program("java")),
    ("openssl", "certificates", _program("openssl")),
)


def probe(names=None):
    """{name: Capability} of all, or of those named and what they stand on. Takes about a second."""
    found, bench = {}, _Bench()
    with contextlib.closing(bench):
        for name, what, attempt in _TABLE:
            try:
                attempt(bench)
                reason = ""
            except (StandError, OSError) as error:
                reason = " ".join((getattr(error, "answer", "") or str(error)).split())
            found[name] = Capability(name, what, reason)
    return {name: each for name, each in found.items() if names is None or name in names}
