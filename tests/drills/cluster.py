#!/usr/bin/env python3
"""cluster.py [DRILL ...]: drills on the real cluster, those with the tag "short" by default, as verdicts of ./test.

Judged is what must hold on any machine: nothing lost, doubled, reordered or missing, and that clients were served in
the end. Times are in the reports; `chaos/drill` judges them.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from chaos.drilling import drills  # noqa: E402

LINE = re.compile(r"(PASS|FAIL|SKIP) (\S+) (.*)")
WORDS = {"PASS": "ok", "FAIL": "not ok", "SKIP": "skip"}


def verdicts(lines):
    """[(word, name, what to say)]: the reasons follow their line, indented, and remarks in parentheses. A skip says its
    reason alone."""
    found = []
    for line in lines:
        if match := LINE.match(line):
            found.append([WORDS[match.group(1)], match.group(2), match.group(3)])
        elif line.startswith("    ") and found:
            said = line.strip()
            if found[-1][0] == "skip" and not said.startswith("("):
                found[-1][2] = said
            else:
                found[-1][2] += "; " + said
    return found


def main(names):
    which = ["--any-speed", *(names or ["--tag", "short"])]
    names = names or [drill.name for drill in drills.every() if "short" in drill.tags]
    if os.geteuid() != 0:
        for name in names:
            print(f"skip {name} - needs root")
        return 0
    reports = pathlib.Path(os.environ.get("SLUICE_BUILD", ROOT / "build-test")) / "chaos-reports"
    run = subprocess.Popen([ROOT / "chaos/drill", *which, "--reports", reports], stdout=subprocess.PIPE, text=True)
    lines = []
    for line in run.stdout:
        sys.stderr.write(line)
        lines.append(line.rstrip("\n"))
    run.wait()
    seen = verdicts(lines)
    for word, name, text in seen:
        print(f"{word} {name} - {text}", flush=True)
    for name in set(names) - {name for _word, name, _text in seen}:
        print(f"not ok {name} - chaos/drill said nothing of it (exit {run.returncode})")
    return 0 if run.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
