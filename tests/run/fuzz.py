#!/usr/bin/env python3
"""Runs every libFuzzer target of the build directory (SLUICE_BUILD) for a bounded number of runs, from its corpus.

A target is an executable `fuzz_NAME` below the build directory's tests/; its corpus is tests/fuzz/NAME/corpus/. Runs
are counted, not timed, and the seed is fixed, so that the same tree gives the same verdict; FUZZ_RUNS, FUZZ_SEED and
FUZZ_SECONDS change that. An input that breaks a target stays in build-fuzz/crashes/, with the line that repeats it.
"""
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SLUICE_BUILD", ROOT / "build-fuzz"))
RUNS = int(os.environ.get("FUZZ_RUNS", "200000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
# A belt for targets that are slow under the sanitizers: then fewer than RUNS are made, and the verdict says how many.
SECONDS = int(os.environ.get("FUZZ_SECONDS", "12"))
INPUT_BYTES_MAX = 65536


def targets():
    return sorted(path for path in (BUILD / "tests").rglob("fuzz_*") if path.is_file() and os.access(path, os.X_OK))


def corpora(name):
    corpus = ROOT / "tests" / "fuzz" / name.removeprefix("fuzz_") / "corpus"
    return [corpus] if corpus.is_dir() else []


def run(target):
    crashes = BUILD / "crashes"
    crashes.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-fuzz-") as fresh:
        # The first directory takes what is new; the tree's corpora are only read.
        command = [target, f"-runs={RUNS}", f"-max_total_time={SECONDS}", f"-seed={SEED}",
                   f"-max_len={INPUT_BYTES_MAX}", "-timeout=60", "-rss_limit_mb=2048", "-print_final_stats=1",
                   f"-artifact_prefix={crashes}/{target.name}-", fresh, *corpora(target.name)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0:
        count = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
        print(f"ok {target.name} - {count.group(1) if count else '?'} runs\n", end="", flush=True)
        return True
    written = re.search(r"Test unit written to (\S+)", output)
    why = "no input kept"
    if written:
        why = f"repeat: {os.path.relpath(target, ROOT)} {os.path.relpath(written.group(1), ROOT)}"
    # In one piece: another target may end at the same time.
    verdict = f"not ok {target.name} - exit code {done.returncode}; {why}\n"
    print("\n".join([*output.splitlines()[-60:], verdict]), end="", flush=True)
    return False


def main():
    found = targets()
    if not found:
        print(f"not ok targets - {BUILD.name}/tests holds no fuzz_* executable")
        return 1
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # a target is one thread
        return 0 if all(list(pool.map(run, found))) else 1


if __name__ == "__main__":
    sys.exit(main())
