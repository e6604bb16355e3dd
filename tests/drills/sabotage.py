#!/usr/bin/env python3
"""Breaks the gateway in known ways, one at a time, in a copy, and demands that a drill turns red.

Prints "ok NAME" or "not ok NAME - why" for each (the protocol of tests/suites), and at the end the table of
docs/drills.md. sabotage.py [NAME ...]. Needs root and a machine that can run the drills; some two minutes each.
SLUICE_BUILD names the build of the sound gateway, whose client and reader are used (default: build-test).
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REASONS_SHOWN = 2

# name, what the rule is, file, what is there, what is put in its place, the drills that have to see it
SABOTAGES = (
    ("answer-with-one-zone", "az2 waits for a second zone", "gateway/ack.c",
     "return on_disk && (at_peer || in_kafka);", "return on_disk;", ("partition-then-loss",)),
    ("answer-before-sync", "an answer waits until anything is durable", "gateway/ack.c",
     "    switch (level) {\n    case ACK_DISK:", "    if (level == ACK_AZ2)\n        return true;\n"
     "    switch (level) {\n    case ACK_DISK:", ("partition-then-loss",)),
    ("ignore-the-fence", "who takes a stream over fences its producer", "produce/handle.c",
     "    if (transactional_id && (!set(conf, \"transactional.id\", transactional_id, err) ||",
     "    static _Atomic unsigned handles;\n    char own[300];\n"
     "    snprintf(own, sizeof(own), \"%s-%d-%u\", transactional_id ? transactional_id : \"\", (int)getpid(),\n"
     "             handles++);\n"
     "    if (transactional_id && (!set(conf, \"transactional.id\", own, err) ||", ("gateway-stall",)),
    ("go-on-from-own-notes", "where to go on is read from Kafka, behind the fence", "produce/connect.c",
     "    session->progress = read;\n    return STEP_GO;",
     "    if (read.through > session->verified)\n        read.through = session->verified;\n"
     "    session->progress = read;\n    return STEP_GO;", ("gateway-kill",)),
    ("progress-early", "progress names what was produced with it", "produce/commit.c",
     "    next.through = through > next.through ? through : next.through;",
     "    next.through = session->staged_through > next.through ? session->staged_through : next.through;\n"
     "    (void)through;", ("gateway-kill",)),
    ("no-dedupe", "an id that was seen is not stored again", "gateway/ingest_dedupe.c",
     "    dedupe_prefetch(ingest->dedupe, &taken->id);\n",
     "    static _Atomic uint64_t events;\n    taken->id.words[0] += ++events;\n"
     "    dedupe_prefetch(ingest->dedupe, &taken->id);\n", ("broker-kill",)),
    ("no-takeover", "a silent node's stream is taken over", "ha/takeover.c",
     "return may && (stream->kept || ha_suspect(core, stream, index));", "return may && stream->kept;",
     ("gateway-kill",)),
    ("ready-come-what-may", "a gateway that cannot acknowledge leaves the balancer", "gateway/readiness.c",
     "    return *why == NULL;\n}\n\n// A node without", "    return true;\n}\n\n// A node without",
     ("zone-partition",)),
)


class Broken(Exception):
    """The sabotage itself did not come about."""


def copy_tree(into):
    shutil.copytree(ROOT, into, ignore=shutil.ignore_patterns(".git", "build*", "chaos-reports", "__pycache__"),
                    symlinks=True)


def build(tree, where, sabotage):
    """The gateway with one change; the copy is whole again afterwards."""
    name, _rule, file, there, instead, _drills = sabotage
    text = (tree / file).read_text()
    if text.count(there) != 1:
        raise Broken(f"{file} holds what is to be broken {text.count(there)} times")
    head = "#include <stdio.h>\n#include <unistd.h>\n"
    (tree / file).write_text(head + text.replace(there, instead))
    try:
        if not where.exists():
            subprocess.run(["meson", "setup", where, tree, "-Dbuildtype=debugoptimized"], stdout=subprocess.DEVNULL,
                           check=True, env={**os.environ, **compilers()})
        done = subprocess.run(["ninja", "-C", where, "sluice"], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Broken(f"{name} does not build: {done.stdout[-600:]}")
    finally:
        (tree / file).write_text(text)
    return where / "sluice"


def compilers():
    return {"CC": "ccache gcc", "CXX": "ccache g++"} if shutil.which("ccache") else {}


def drill(name, binary, reports):
    """The verdict of one drill on a cluster of its own with this gateway."""
    environment = {"SLUICE_BUILD": str(ROOT / "build-test"), **os.environ, "SLUICE_BINARY": str(binary)}
    subprocess.run([ROOT / "chaos/cluster", "down"], stdout=subprocess.DEVNULL, check=True)
    subprocess.run([ROOT / "chaos/drill", name, "--once", "--reports", reports], stdout=sys.stderr, env=environment,
                   check=False)
    return json.loads((reports / f"{name}.json").read_text())


def judge(verdicts):
    """(whether a drill turned red, what it said)."""
    red = [verdict for verdict in verdicts if verdict["verdict"] == "FAIL"]
    if not red:
        return False, "; ".join(verdict["line"] for verdict in verdicts)
    return True, "; ".join(f"{verdict['name']}: {', '.join(verdict['reasons'][:REASONS_SHOWN])}" for verdict in red)


def table(rows):
    lines = ["| switched off | the rule | turned red | which said |", "|---|---|---|---|"]
    for (name, rule, *_), verdicts in rows:
        for verdict in verdicts:
            said = ", ".join(verdict["reasons"][:REASONS_SHOWN]).replace("|", "/") or verdict["line"]
            lines.append(f"| {name} | {rule} | {verdict['name'] if verdict['verdict'] == 'FAIL' else '–'} | {said} |")
    return "\n".join(lines)


def main(names):
    rows, failed = [], False
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tree, where = Path(folder) / "tree", Path(folder) / "build"
        copy_tree(tree)
        for sabotage in SABOTAGES:
            if names and sabotage[0] not in names:
                continue
            try:
                binary = build(tree, where, sabotage)
                verdicts = [drill(each, binary, Path(folder) / sabotage[0]) for each in sabotage[-1]]
                fine, said = judge(verdicts)
                rows.append((sabotage, verdicts))
            except Broken as error:
                fine, said = False, str(error)
            failed |= not fine
            print(f"{'ok' if fine else 'not ok'} {sabotage[0]} - {' '.join(said.split())[:400]}", flush=True)
    print(table(rows), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skip sabotage - needs root")
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
