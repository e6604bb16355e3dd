#!/usr/bin/python3
"""The warehouse on the three-zone cluster: up in one command, everything that was acknowledged in raw and in curated
once, fresh, and nothing left by `down` after kill -9 of its parts. cluster.py [RATE [SECONDS]]; needs root."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT))

from chaos.client import Load  # noqa: E402
from chaos.judge import judge  # noqa: E402
from chaos.stand import Cluster, StandError, processes  # noqa: E402
from chaos.stand.places import Places  # noqa: E402
from tests.chaos import snapshot  # noqa: E402
from tests.lib import report  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402
from tests.lib.report import expect, note  # noqa: E402
from tests.lib.waiting import until  # noqa: E402

COMMAND = ROOT / "chaos" / "cluster"
EXACT = ("lost", "doubled", "phantom", "reordered", "corrupt", "unseen", "raw_missing", "raw_doubled", "raw_phantom",
         "raw_corrupt", "curated_missing", "curated_doubled", "curated_phantom", "curated_quarantined")
FRESH_S = 120


def memory_of_nobody():
    """System V shared memory that no process has: a killed PostgreSQL leaves a piece. {(key, id)}"""
    rows = [line.split() for line in pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()]
    attached = rows[0].index("nattch")
    return {(row[0], row[1]) for row in rows[1:] if row[attached] == "0"}


def resident_mib(pid, children=True):
    """Of a process, with its children; what they share is counted by share. PostgreSQL's workers come and go."""
    found = [_pss_kib(pid)]
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if children else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(_pss_kib(child))
    return sum(found) / 1024


def _pss_kib(pid):
    return int(re.search(r"Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text())[1])


class Scenes:
    def __init__(self, folder, rate, seconds):
        self.folder, self.rate, self.seconds, self.places = pathlib.Path(folder), rate, seconds, Places()
        self.before, self.memory = snapshot.take(self.places), memory_of_nobody()

    def command(self, *words):
        done = subprocess.run([COMMAND, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=240, check=False)
        expect(done.returncode == 0, f"chaos/cluster {words[0]}: {done.stdout[-500:]}")
        return done.stdout

    def up(self):
        said = self.command("up")
        for line in said.splitlines():
            if re.match(r" *\d+\.\d s ", line):
                note(line)
        expect("warehouse: up" in self.command("status"), "status does not know of the warehouse")
        note(self.memory_mib())

    @staticmethod
    def memory_mib():
        warehouse = Cluster.load().warehouse
        mib = {role: resident_mib(each["pid"]) for role, each in warehouse["processes"].items()}
        mib["supervisor"] = resident_mib(warehouse["pid"], children=False)
        return "MiB: " + " ".join(f"{role} {size:.0f}" for role, size in mib.items())

    def acknowledged_is_stored(self):
        cluster, started = Cluster.load(), time.monotonic_ns()
        load = Load(cluster, self.folder, rate=self.rate, batch=5, duplicates=0.02, reused=0.01)
        try:
            load.start()
            time.sleep(self.seconds)
            load.stop()
        finally:
            load.close()
        note(self.memory_mib())
        found = judge(cluster, load, self.folder, started)
        figures = found["figures"]
        note(json.dumps({name: value for name, value in figures.items() if value}))
        expect(found["passed"], found["why"])
        expect(all(figures[name] == 0 for name in EXACT), {name: figures[name] for name in EXACT if figures[name] != 0})
        expect(figures["acked"] > 0 and figures["raw_rows"] >= figures["curated_rows"] >= figures["acked"],
               f"acked {figures['acked']}, raw {figures['raw_rows']}, curated {figures['curated_rows']}")
        expect(figures["catch_up_s"] is not None, "curated did not catch up")
        expect(figures["curated_p95_s"] < FRESH_S, f"95th percentile until curated: {figures['curated_p95_s']} s")
        expect(len(found["freshness"]) >= self.seconds / 2, f"freshness has {len(found['freshness'])} seconds")

    def nothing_left(self):
        cluster = Cluster.load()
        owner, server = cluster.warehouse["pid"], cluster.warehouse["processes"]["postgres"]["pid"]
        processes.send(owner, signal.SIGSTOP)
        processes.send(server, signal.SIGKILL)
        until(lambda: pathlib.Path(f"/proc/{server}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z",
              "the server does not die")
        processes.send(owner, signal.SIGKILL)
        self.command("down")
        expect(not (left := snapshot.difference(self.before, snapshot.take(self.places))), left)
        expect(not (left := memory_of_nobody() - self.memory), f"shared memory is left: {left}")


def main(rate=500, seconds=30):
    if os.geteuid() != 0:
        print("skip warehouse-cluster - needs root")
        return 0
    try:
        Cluster.load()
        sys.exit("a cluster is up already: chaos/cluster down")
    except StandError:
        pass
    folder = temporary_directory("warehouse-cluster")
    scenes = Scenes(folder, rate, seconds)
    try:
        good = report.run("up", scenes.up) and report.run("acknowledged-is-stored", scenes.acknowledged_is_stored)
        good = good and report.run("nothing-left", scenes.nothing_left)
        if not good:
            for log in ("logs/warehouse.log", "warehouse/connect.log"):
                path = pathlib.Path(scenes.places.dir) / log
                print(f"---- {log}\n{path.read_text(errors='replace')[-3000:] if path.exists() else 'none'}")
    finally:
        Cluster.down()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
