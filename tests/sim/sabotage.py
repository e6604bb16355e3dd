#!/usr/bin/env python3
"""Switches each rule of the protocol off, one at a time, in a copy: the simulator must see it within a minute.

Where a rule cannot be seen, it stands here with the reason, and the simulator must stay green for SECONDS_HARMLESS.
Prints "ok NAME - why" or "not ok NAME - why" for each (the protocol of tests/suites). sabotage.py [NAME ...]
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))
from sabotages import SABOTAGES  # noqa: E402  pylint: disable=wrong-import-position

SECONDS = 60
SECONDS_HARMLESS = int(os.environ.get("SIM_HARMLESS_SECONDS", "20"))
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-w", '-DSIM_REVISION="sabotage"')
LIBRARIES = ("-lisal", "-lpthread", "-lm")


def sources():
    for folder in ("spool", "tests/sim"):
        yield from sorted(ROOT.glob(f"{folder}/*.c"))
    core = ("core", "forget", "id", "replicate", "seal", "takeover", "watch")
    yield from (ROOT / "ha" / f"{name}.c" for name in core)
    yield from (ROOT / "base" / f"{name}.c" for name in ("error", "log", "crc32c", "histogram"))
    yield from (ROOT / "tests/spool" / f"{name}.c" for name in ("disk", "disk_ops", "fault"))
    yield ROOT / "gateway/ack.c"


def compile_to(root, source, target):
    compiler = ["ccache", "gcc"] if shutil.which("ccache") else ["gcc"]
    subprocess.run([*compiler, *FLAGS, f"-I{root}", "-c", str(source), "-o", str(target)], check=True)


def object_of(path):
    return str(path.relative_to(ROOT)).replace("/", "_") + ".o"


def simulate(build, objects, seconds, first):
    """(green, its last line) of the simulator with these objects. Too long is red: something does not end."""
    binary = build / "sim"
    subprocess.run(["gcc", *map(str, objects), "-o", str(binary), *LIBRARIES], check=True)
    try:
        done = subprocess.run([str(binary), "--from", str(first), "--seconds", str(seconds)], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=seconds + 60, check=False)
    except subprocess.TimeoutExpired:
        return False, "a run that does not end"
    lines = done.stdout.splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit {done.returncode}"


def run(sabotage, copy, build, objects):
    """(whether it went as it must, what was seen)."""
    file = sabotage["file"]
    text = broken = (ROOT / file).read_text()
    for there, instead in sabotage["changes"]:
        if broken.count(there) != 1:
            return False, f"{file} holds what is to be broken {broken.count(there)} times: {there[:50]!r}"
        broken = broken.replace(there, instead)
    (copy / file).write_text(broken)
    target = build / "broken.o"
    try:
        compile_to(copy, copy / file, target)
    finally:
        (copy / file).write_text(text)
    changed = [target if path.name == object_of(ROOT / file) else path for path in objects]
    harmless = sabotage.get("harmless")
    green, line = simulate(build, changed, SECONDS_HARMLESS if harmless else SECONDS, sabotage["first"])
    if harmless:
        return green, f"does not matter: {harmless}" if green else f"does matter: {line}"
    return not green, line if not green else f"the simulator stayed green for {SECONDS} s"


def main(names):
    with tempfile.TemporaryDirectory() as folder:
        copy, build = Path(folder) / "tree", Path(folder) / "build"
        build.mkdir()
        for part in ("base", "ha", "spool", "gateway", "tests/spool", "tests/sim"):
            shutil.copytree(ROOT / part, copy / part)
        objects = []
        for source in sources():
            objects.append(build / object_of(source))
            compile_to(copy, copy / source.relative_to(ROOT), objects[-1])
        failed = False
        for sabotage in SABOTAGES:
            if names and sabotage["name"] not in names:
                continue
            good, why = run(sabotage, copy, build, objects)
            failed |= not good
            print(f"{'ok' if good else 'not ok'} {sabotage['name']} - {why}", flush=True)
        return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
