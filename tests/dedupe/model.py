#!/usr/bin/env python3
"""The model check of the window in its long form: one run each with 1, 2 and 4 threads, and one under ThreadSanitizer.

Prints "ok NAME" or "not ok NAME - why" for each (the protocol of tests/suites).
DEDUPE_MODEL_OPERATIONS: of each run (default 100000000); the one under ThreadSanitizer does a hundredth of it.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WINDOW = ("claim", "figures", "filter", "generation", "origin", "sweep", "table", "window")
SOURCES = (
    *(ROOT / "base" / f"{name}.c" for name in ("error", "log")),
    *(ROOT / "dedupe" / f"{name}.c" for name in WINDOW),
    ROOT / "tests/dedupe/model.c", ROOT / "tests/dedupe/model_test.c",
)
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", f"-I{ROOT}", "-lpthread")


def run(name, binary, threads, operations):
    environment = {**os.environ, "DEDUPE_MODEL_THREADS": threads, "DEDUPE_MODEL_OPERATIONS": str(operations),
                   "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run([str(binary)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    print(done.stdout, end="")
    if done.returncode == 0:
        print(f"ok {name}", flush=True)
        return True
    last = done.stdout.strip().splitlines()[-1:] or [""]
    print(f"not ok {name} - exit code {done.returncode}: {last[0].strip()}", flush=True)
    return False


def main():
    operations = int(os.environ.get("DEDUPE_MODEL_OPERATIONS", "100000000"))
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for kind, extra in (("plain", ()), ("tsan", ("-fsanitize=thread",))):
            binary = Path(folder) / kind
            subprocess.run(["gcc", *map(str, SOURCES), *FLAGS, *extra, "-o", str(binary)], check=True)
        for threads in ("1", "2", "4"):
            good &= run(f"model-{threads}", Path(folder) / "plain", threads, operations)
        good &= run("model-tsan", Path(folder) / "tsan", "2 4", operations // 100)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
