#!/usr/bin/env python3
"""clang-tidy over every C and C++ file that the build directory (SLUICE_BUILD) compiles; one verdict a file.

Optional arguments: only files whose path contains one of them.
"""
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SLUICE_BUILD", ROOT / "build-test"))
# The compile commands are gcc's: clang need not know its warnings, and every one of ours is gcc's to give.
EXTRA = ["--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-w"]


def sources():
    found = set()
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        path = Path(entry["directory"], entry["file"]).resolve()
        if path.is_relative_to(ROOT) and not path.is_relative_to(BUILD.resolve()):
            found.add(str(path.relative_to(ROOT)))
    return sorted(found)


def check(path):
    done = subprocess.run(["clang-tidy", "-p", str(BUILD), "--quiet", *EXTRA, path], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    problems = re.findall(r"^.*: (?:error|warning): .*\[.*\]$", done.stdout, re.MULTILINE)
    if done.returncode != 0 and not problems:
        problems = done.stdout.splitlines()[-3:] or [f"clang-tidy exited with {done.returncode}"]
    # Paths as they stand in the commands, relative to the build directory, become paths from the top.
    return path, list(dict.fromkeys(re.sub(r"^[^:]*\.\./|^" + re.escape(f"{ROOT}/"), "", line) for line in problems))


def main():
    chosen = [path for path in sources() if not sys.argv[1:] or any(word in path for word in sys.argv[1:])]
    if not chosen:
        print(f"not ok sources - {BUILD.name} compiles none")
        return 1
    red = False
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, problems in pool.map(check, chosen):
            for problem in problems:
                print(f"    {problem}")
            red = red or bool(problems)
            print(f"not ok {path} - {problems[0]}" if problems else f"ok {path}", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
