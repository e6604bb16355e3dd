#!/usr/bin/env python3
"""The simulator for an hour on two cores: two processes, each with seeds of its own. long.py [SECONDS [FIRST SEED]]

Prints "ok NAME - figures" or "not ok NAME - why" for each (the protocol of tests/suites).
"""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORES = 2
SEEDS_APART = 10_000_000


def main(seconds=3600, first=1):
    sim = Path(os.environ.get("SLUICE_BUILD", ROOT / "build-test")) / "tests/sim/sim"
    runs = []
    for core in range(CORES):
        seed = first + core * SEEDS_APART
        command = [sim, "--from", str(seed), "--seconds", str(seconds)]
        runs.append((seed, subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
    failed = False
    for seed, process in runs:
        lines = process.communicate()[0].splitlines()
        good = process.returncode == 0 and lines and lines[-1].startswith("ok ")
        failed |= not good
        text = lines[-1].partition(" - ")[2] if lines else "nothing was printed"
        if good:
            print(f"ok from-seed-{seed} - {text}")
        else:
            print(f"not ok from-seed-{seed} - {lines[-1] if lines else text}, exit {process.returncode}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:])))
