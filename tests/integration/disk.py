"""A disk budget that runs down, a disk that fails, a disk that is full."""

import contextlib
import os
import pathlib
import re
import subprocess
import time

from tests.lib.report import Failure, Skip, expect, note
from tests.lib.waiting import until
from tests.preload.disk_fault import DiskFault

BULK = ("-c", "2", "-m", "2", "-b", "50", "-s", "8192", "-k", "1000")


@contextlib.contextmanager
def frozen(kafka):
    for node in kafka.nodes:
        kafka.stop(node)
    try:
        yield
    finally:
        kafka.heal()


def fault_of(stand, home):
    """The shim for a spool below `home`."""
    shim = pathlib.Path(stand.build) / "tests" / "preload" / "disk_fault.so"
    if not shim.exists():
        raise Skip(f"no {shim}: a sanitized build has none")
    prefix, scratch = home / "spool", home / "fault"
    prefix.mkdir(parents=True)
    scratch.mkdir()
    return DiskFault(shim, prefix, scratch)


def _probe(client, source):
    status, headers, answer = client.post(source, client.make(key="acc_probe", namespace=source))
    if status in (429, 503):
        after, kind = headers.get("retry-after", "none"), headers.get("content-type", "nothing")
        expect(re.fullmatch(r"[1-9]\d*", after), f"{status} with Retry-After {after}")
        expect(kind.startswith("application/problem+json"), f"{status} is {kind}")
    elif status != 200:
        raise Failure(f"{status} {answer}")
    return status


def disk_budget(stand):
    """Kafka frozen: first low priority is throttled, then normal, then all is refused; all of it recovers by itself."""
    names = ("low", "normal", "high")
    sources = {name: {"priority": name} for name in names}
    with stand.scene("budget", sources=sources, config={"spool": {"segment": "4MiB", "max": "96MiB"}}) as scene:
        gateway, client = scene.gateway.start(), scene.client()
        refused = {}
        with frozen(stand.kafka):
            for _ in range(200):
                full = gateway.metric("sluice_spool_pending_bytes") / gateway.metric("sluice_spool_max_bytes")
                for name in names:
                    status = _probe(client, name)
                    if status != 200 and name not in refused:
                        refused[name] = (status, full)
                if len(refused) == 3:
                    break
                bulk = scene.load(*BULK, "-n", "100", "--retry-for", "1", source="high")
                bulk.wait()
            found = ", ".join(f"{name}: {status} at {full:.0%}" for name, (status, full) in refused.items())
            note(f"refused: {found}")
            expect(len(refused) == 3, f"never refused: {sorted(set(names) - set(refused))}")
            expect([refused[name][0] for name in names] == [429, 429, 503], f"refused with {refused}")
            # The fill goes up in steps of a bulk, and a probe comes after it: the promised shares, give or take.
            expect(refused["low"][1] < refused["normal"][1] < refused["high"][1], f"not by priority: {found}")
            for name, least, most in (("low", 0.6, 0.8), ("normal", 0.75, 0.95), ("high", 0.85, 1.0)):
                expect(least <= refused[name][1] <= most, f"{name} was refused at {refused[name][1]:.0%}")
            gateway.check_alive()
            expect(gateway.ready_status() == 503, "/readyz is 200 although nothing is accepted any more")
        for name in names:
            until(lambda: _probe(client, name) == 200, f"{name} does not recover by itself", 300)
        expect(_directory_bytes(gateway.spool) <= 96 * 2**20, "the spool directory is over its budget")
        scene.settle(min_acked=100)


def _directory_bytes(path):
    return sum(entry.stat().st_size for entry in pathlib.Path(path).rglob("*") if entry.is_file())


def sync_error(stand):
    """fdatasync fails: no 2xx after it, exit code 4 with a clear message; nothing acknowledged is lost."""
    for operation in ("fdatasync", "pwrite"):
        _one_sync_error(stand, operation)


def _one_sync_error(stand, operation):
    name = f"eio-{operation}"
    fault = fault_of(stand, stand.home / f"fault-{name}")
    with stand.scene(name, config={"spool": {"dir": str(fault.prefix)}}, environment=fault.environment()) as scene:
        gateway = scene.gateway.start()
        scene.load("-c", "3", "-m", "8", "-r", "2500", "--retry-for", "30")
        until(lambda: gateway.accepted() > 2000, "no load arrives")
        # The writer may use the vectored call: both names, whichever it uses.
        fault.set(f"{operation} errno=EIO after=5", *(["pwritev errno=EIO after=5"] if operation == "pwrite" else []))
        until(lambda: [each for each in fault.applied() if each.errno], f"no {operation} fault was applied",
              pause_s=0.001)
        applied_ns = time.monotonic_ns()
        code = gateway.wait_exit()
        expect(code == 4, f"exit code {code} after a failed {operation}: {gateway.log_tail()}")
        expect(any('"level":"error"' in line and "spool" in line for line in gateway.log_lines()),
               f"no message says why: {gateway.log_tail()}")
        fault.off()
        ended_ns = time.monotonic_ns()
        gateway.start()
        until(lambda: gateway.accepted() > 500, "no load arrives after the restart")
        _verdict, history = scene.settle(min_acked=2000)
        late = sum(applied_ns < sent and answered < ended_ns for sent, answered in history.oks)
        expect(late == 0, f"{late} events that were sent after the failed {operation} got a 2xx from the same process")


def no_space_shim(stand):
    """No new segment can be made: 503 before an acknowledgement is at risk, and recovery without a restart."""
    fault = fault_of(stand, stand.home / "fault-enospc")
    config = {"spool": {"dir": str(fault.prefix), "segment": "4MiB"}}
    with stand.scene("enospc", config=config, environment=fault.environment()) as scene:
        gateway = scene.gateway.start()
        fault.set("fallocate errno=ENOSPC", "create errno=ENOSPC path=.prep")
        _fill_and_recover(stand, scene, gateway, fault.off)
        expect([each for each in fault.applied() if each.errno], "no fault was applied")


def no_space_disk(stand):
    """The same on a small file system of its own that is really full."""
    image = stand.home / "small.img"
    mounted = stand.home / "small"
    mounted.mkdir()
    with _small_disk(image, mounted, mib=160):
        ballast = mounted / "ballast"
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 64 * 2**20)
        config = {"spool": {"dir": str(mounted / "spool"), "segment": "4MiB"}}
        with stand.scene("full-disk", config=config) as scene:
            _fill_and_recover(stand, scene, scene.gateway.start(), ballast.unlink)


@contextlib.contextmanager
def _small_disk(image, where, mib):
    with open(image, "wb") as file:
        file.truncate(mib * 2**20)
    for command in (["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, where]):
        try:
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        except FileNotFoundError as error:
            raise Skip(f"no {command[0]}") from error
        if run.returncode != 0:
            raise Skip(f"no loop mounts here: {run.stdout.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=False)


def _fill_and_recover(stand, scene, gateway, make_room):
    client = scene.client()
    with frozen(stand.kafka):
        def refused():
            scene.load(*BULK, "-n", "200", "--retry-for", "1").wait()
            return _probe(client, "payments") == 503
        until(refused, "it is never refused although there is no room", 600)
        gateway.check_alive()
        expect(gateway.ready_status() == 503, "/readyz is 200 although nothing is accepted")
        note(f"refused with {gateway.metric('sluice_spool_pending_bytes') / 2**20:.0f} MiB pending")
        make_room()
        until(lambda: _probe(client, "payments") == 200, "it does not recover by itself when there is room again", 300)
    scene.settle(min_acked=100)
