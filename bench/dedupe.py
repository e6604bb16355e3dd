#!/usr/bin/env python3
"""Sluice's window of event ids beside a locked hash table and a single-writer one: a table and JSON. See README.md."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import report  # noqa: E402  the path must be set first
from tests.lib.places import disk_root  # noqa: E402


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.tool = str(arguments.build.resolve() / "bench" / "dedupe-bench")
        self.runs, self.sections = {}, []

    def lines(self, *options):
        """What dedupe-bench measured: it ends with an error when an answer was not the right one."""
        command = [self.tool, *map(str, options)]
        print(f"[{time.strftime('%H:%M:%S')}] {' '.join(command[1:])}", file=sys.stderr, flush=True)
        # Huge pages for the tables that are made with malloc, too: the window asks for them itself.
        environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
        if run.returncode != 0:
            sys.exit(f"bench/dedupe.py: {' '.join(command)}: exit {run.returncode}")
        return [json.loads(line) for line in run.stdout.splitlines()]

    def table_row(self, table, ids, batch):
        arguments = self.arguments
        threads = [1] if table == "ck_ht" else arguments.threads
        found = self.lines("-n", ids, "-b", batch, "-o", arguments.operations, "-r", arguments.repeats,
                           "-t", ",".join(map(str, arguments.threads)), table)
        self.runs.setdefault(f"{table} {ids} {batch}", []).extend(found)
        rates = {}
        for line in found:
            if "claims" in line:
                rates.setdefault((line["claims"], line["threads"]), []).append(line)

        def million(claims, count, field):
            lines = rates.get((claims, count))
            return report.number(statistics.median(line[field] for line in lines) / 1e6, 2) if lines else "–"

        row = [found[0]["table"]]
        for claims in ("new", "duplicate"):
            row.append(million(claims, threads[0], "per_core_second"))
            row += [million(claims, count, "per_second") for count in arguments.threads]
        return row + [report.number(found[-1]["bytes_per_id"], 1)]

    def tables(self, ids, batch):
        threads = self.arguments.threads
        rows = [self.table_row(table, ids, batch) for table in self.arguments.tables]
        head = ["table"]
        for claims in ("new", "dup"):
            head += [f"{claims} a core"] + [f"{claims} ×{count}" for count in threads]
        self.sections.append({
            "title": f"{ids:,} ids in the table, {batch} a call",
            "note": "Million claims (look-up, and insertion where the id is new) a second: of one thread by its CPU "
                    f"time, then by the clock with {', '.join(map(str, threads))} threads.",
            "head": [*head, "bytes an id"], "rows": rows})

    def identity(self):
        found = self.lines("--identity")
        self.runs["identity"] = found
        self.sections.append({"title": "Before the window is asked", "note": "SipHash-2-4-128 and XXH3; best of 7.",
                              "head": ["hash of", "bytes", "ns"],
                              "rows": [[line["hash"], line["length"], line["ns"]] for line in found]})

    def rebuild(self):
        with tempfile.TemporaryDirectory(prefix="sluice-bench.", dir=self.arguments.dir) as place:
            found = self.lines("--rebuild", self.arguments.rebuild, pathlib.Path(place) / "spool")
        self.runs["rebuild"] = found
        rows = [[line["from"], report.number(line["ids"]), report.number(line["rebuild_s"], 2),
                 report.number(line["ids"] / line["rebuild_s"] / 1e6, 1), report.number(line["cpu_s"], 2)]
                for line in found]
        self.sections.append({"title": "Rebuild at a start",
                              "note": "By the gateway's own code, two threads, files not in the page cache when it "
                                      "begins. Goal: 50 million in ≤ 10 s on two cores.",
                              "head": ["from", "ids", "s", "million ids/s", "CPU s"], "rows": rows})

    def run(self):
        arguments = self.arguments
        for part in arguments.parts:
            if part == "tables":
                for ids in arguments.ids:
                    for batch in arguments.batch:
                        self.tables(ids, batch)
            else:
                getattr(self, part)()
        results = {"machine": report.machine(ROOT, arguments.dir), "sections": self.sections, "runs": self.runs,
                   "settings": f"Medians of {arguments.repeats}; {arguments.operations:,} duplicates, half as many new "
                               "ids each; huge pages for all tables."}
        text = report.markdown(results)
        print(text)
        print(f"written to {report.write(results, arguments.results)}", file=sys.stderr)
        if arguments.markdown:
            arguments.markdown.write_text(text)


PARTS = ["identity", "tables", "rebuild"]


def parse():
    def numbers(text):
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(prog="bench/dedupe.py", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {' '.join(PARTS)}; default: all")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="default %(default)s")
    parser.add_argument("--ids", type=numbers, default=[1000000, 64000000], help="in the table: 1000000,64000000")
    parser.add_argument("--batch", type=numbers, default=[1, 100], help="ids a call: 1,100")
    parser.add_argument("--threads", type=numbers, default=[1, 2, 3, 4], help="1,2,3,4")
    parser.add_argument("--operations", type=int, default=1000000, help="of one measurement (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tables", type=lambda text: text.split(","), help="of dedupe-bench --list; default: all")
    parser.add_argument("--rebuild", type=int, default=50000000, help="ids in the spool (%(default)s)")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(disk_root()),
                        help="where the spool is filled (%(default)s)")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables here, too")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or PARTS
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}")
    if not arguments.tables:
        tool = arguments.build.resolve() / "bench" / "dedupe-bench"
        arguments.tables = subprocess.run([tool, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return arguments


if __name__ == "__main__":
    Bench(parse()).run()
