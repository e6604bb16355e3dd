"""Drives disk_fault.c from a test.

    fault = DiskFault(shim, prefix=spool_dir, scratch=some_dir_outside_the_prefix)
    process = subprocess.Popen([...], env={**os.environ, **fault.environment()})
    fault.set("fdatasync errno=EIO after=3")
    fault.wait_applied("fdatasync")
    fault.off()

`shim` is build-test/tests/preload/disk_fault.so. A process built with AddressSanitizer needs
ASAN_OPTIONS=verify_asan_link_order=0 as well.
"""
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Applied:
    pid: int
    operation: str
    errno: int
    delay_ms: int
    hang: bool
    short: int
    call: int  # the rule's own count of matching calls, from 1
    path: str


class DiskFault:
    def __init__(self, shim, prefix, scratch):
        self.shim = Path(shim).resolve(strict=True)
        self.prefix = Path(prefix).resolve()
        self.control = Path(scratch).resolve() / "disk_fault.rules"
        self.log = Path(scratch).resolve() / "disk_fault.log"
        self.generation = 0
        self.off()

    def environment(self):
        return {
            "LD_PRELOAD": str(self.shim),
            "SLUICE_FAULT_PREFIX": str(self.prefix),
            "SLUICE_FAULT_CONTROL": str(self.control),
            "SLUICE_FAULT_LOG": str(self.log),
        }

    def set(self, *rules):
        """Replaces all rules; in force for every call that starts after this returns. Counting starts anew."""
        self.generation += 1
        aside = self.control.with_suffix(".new")
        aside.write_text("".join(f"{line}\n" for line in (f"# {self.generation}", *rules)))
        os.rename(aside, self.control)

    def off(self):
        self.set()

    def applied(self, operation=None):
        """What was done so far, oldest first."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text().splitlines():
            pid, name, *options = line.split(" ", 7)
            values = dict(option.split("=", 1) for option in options)
            if operation in (None, name):
                found.append(Applied(int(pid), name, int(values["errno"]), int(values["delay_ms"]),
                                     values["hang"] == "1", int(values["short"]), int(values["call"]), values["path"]))
        return found

    def wait_applied(self, operation, more_than=0, deadline_seconds=30):
        """Waits until more than so many faults of that operation were applied; returns them all."""
        give_up = time.monotonic() + deadline_seconds
        while len(found := self.applied(operation)) <= more_than:
            if time.monotonic() > give_up:
                raise TimeoutError(f"no {operation} fault was applied: is the shim loaded, the path in scope?")
            time.sleep(0.005)
        return found
