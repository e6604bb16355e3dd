#!/usr/bin/env python3
"""Sluice beside bare h2o, a bare Kafka producer and the bare disk: one run, one table. See bench/README.md."""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import report  # noqa: E402  the path must be set first
from bench.servers import Bare, BenchError, FrozenKafka, Sluice, StoppedBrokers, Usage  # noqa: E402
from tests.kafka import ClusterError  # noqa: E402
from tests.lib.places import disk_root  # noqa: E402
from tests.lib.report import Failure  # noqa: E402

WARM_UP_S = 1
RATE = re.compile(r"finished in ([\d.]+)(us|ms|s|m), ([\d.]+) req/s")
STATUS = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")


class Bench:
    def __init__(self, arguments):
        self.build = arguments.build.resolve()
        self.binary = (arguments.sluice or self.build / "sluice").resolve()
        self.arguments = arguments
        self.spool_root = arguments.spool_dir
        self.sections = []
        self.runs = {}
        self.body = None

    def log(self, text):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    def tool(self, name):
        return str(self.build / "bench" / name)

    # ---- clients

    def load(self, server, *options, timeout=600):
        """sluice-load's summary; an error in it is an error of the run."""
        run = subprocess.run([self.tool("sluice-load"), *map(str, options), server.url], capture_output=True, text=True,
                             timeout=timeout, check=False)
        if run.returncode != 0:
            raise BenchError(f"sluice-load: exit {run.returncode}: {run.stderr.strip()[-500:]}")
        summary = json.loads(run.stdout)
        if summary["acked"] != summary["events"]:
            raise BenchError(f"{summary['events'] - summary['acked']} of {summary['events']} events got no 2xx: "
                             f"{summary['status']} {summary['errors']} {run.stderr.strip()[-300:]}")
        return summary

    def h2load(self, server, requests, connections=64, streams=10):
        """Requests a second; every answer must be a 2xx."""
        run = subprocess.run(["h2load", f"-c{connections}", f"-m{streams}", f"-n{requests}", "-d", self.body,
                              "-H", "content-type: application/json", server.url],
                             capture_output=True, text=True, timeout=600, check=False)
        rate, status = RATE.search(run.stdout), STATUS.search(run.stdout)
        if run.returncode != 0 or not rate or not status:
            raise BenchError(f"h2load: exit {run.returncode}: {run.stdout[-300:]} {run.stderr[-300:]}")
        if int(status[1]) != requests:
            raise BenchError(f"h2load: {status[0]} of {requests} requests")
        return float(rate[3])

    # ---- one measurement each

    def measure_h2load(self, server):
        warm = self.h2load(server, 30000)
        requests = max(int(warm * self.arguments.seconds) // 1000, 30) * 1000
        with Usage(server.pid) as usage:
            rate = self.h2load(server, requests)
        server.check(requests + 30000)
        return {"events_per_second": rate, "cpu_us": usage.cpu_s / requests * 1e6, "rss_anon_mib": usage.rss_anon_mib}

    def measure_load(self, server, *options):
        with Usage(server.pid) as usage:
            summary = self.load(server, "-w", WARM_UP_S, "-t", WARM_UP_S + self.arguments.seconds, *options)
        server.check(summary["acked"])
        latency = summary["latency_ms"]
        return {"events_per_second": summary["events_per_second"], "cpu_us": usage.cpu_s / summary["acked"] * 1e6,
                "rss_anon_mib": usage.rss_anon_mib, "client_cpu_us": summary["client_cpu_us_per_event"],
                "p50_ms": latency["p50"], "p99_ms": latency["p99"], "p99_9_ms": latency["p99_9"],
                "max_ms": latency["max"], "not_sent": summary["not_sent"]}

    # ---- bare h2o and Sluice, one after the other, again and again

    def servers(self, frozen):
        bare = Bare(self.build, self.arguments.threads)
        if self.arguments.stand_in:
            stand_in = Bare(self.build, self.arguments.threads)
            stand_in.name = "bare h2o standing in"
            return [bare, stand_in]
        return [bare, self.sluice(frozen, self.arguments.dedupe)]

    def sluice(self, frozen, dedupe):
        return Sluice(self.binary, self.arguments.threads, self.spool_root, frozen.bootstrap, dedupe=dedupe)

    def dedupe_off_and_on(self, frozen):
        """The same gateway twice."""
        both = [self.sluice(frozen, "off"), self.sluice(frozen, "on")]
        for server, name in zip(both, ("dedupe off", "dedupe on")):
            server.name = name
        return both

    def alternate(self, name, measure, servers_of=None):
        """{server name: [measurement, …]}"""
        kafka = StoppedBrokers() if self.arguments.frozen == "brokers" else FrozenKafka()
        found = {}
        with kafka as frozen:
            servers = (servers_of or self.servers)(frozen)
            for turn in range(self.arguments.repeats):
                for server in servers:
                    with server:
                        run = measure(server)
                    found.setdefault(server.name, []).append(run)
                    self.log(f"{name} {turn + 1}/{self.arguments.repeats} {server.name}: " +
                             " ".join(f"{key}={value:.4g}" for key, value in run.items() if value is not None))
        self.runs[name] = found
        return found

    def rate_section(self, name, title, note, measure, servers_of=None):
        found = self.alternate(name, measure, servers_of)
        bare = report.median(next(iter(found.values())), "events_per_second")
        rows = []
        for server, runs in found.items():
            rate = report.median(runs, "events_per_second")
            rows.append([server, report.number(rate), f"{rate / bare:.2f}", report.spread(runs, "events_per_second"),
                         report.number(report.median(runs, "cpu_us"), 2),
                         report.number(report.median(runs, "p50_ms"), 2),
                         report.number(report.median(runs, "p99_ms"), 2),
                         report.number(max(run["rss_anon_mib"] for run in runs), 0)])
        self.sections.append({"title": title, "note": note, "rows": rows,
                              "head": ["server", "events/s", "ratio", "least…most", "server CPU µs/event", "p50 ms",
                                       "p99 ms", "RssAnon peak MiB"]})

    # ---- scenarios

    def raw(self):
        command = [self.tool("raw-commit"), "-j", "-t", str(self.arguments.raw_seconds), str(self.spool_root)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise BenchError(f"raw-commit: {run.stderr.strip()}")
        found = [json.loads(line) for line in run.stdout.splitlines()]
        self.runs["raw"] = found
        self.sections.append({
            "title": "The disk: pwrite and fdatasync in a loop, zero-filled file", "note": "What no spool can exceed.",
            "head": ["KiB a commit", "commits/s", "MB/s", "p50 µs", "p99 µs"],
            "rows": [[each["kib"], report.number(each["commits_per_second"]), report.number(each["mb_per_second"]),
                      report.number(each["p50_us"]), report.number(each["p99_us"])] for each in found]})

    def single(self):
        self.rate_section("single", "One event a request, h2load",
                          "`h2load -c64 -m10`, one 1,048-byte event a request, Kafka frozen. Goal: ratio ≥ 0.45.",
                          self.measure_h2load)

    def own(self):
        self.rate_section("own", "One event a request, own client",
                          "`sluice-load -c64 -m10`: unique ids, the same otherwise.",
                          lambda server: self.measure_load(server, "-c", 64, "-m", 10))

    def batch100(self):
        self.rate_section("batch100", "100 events a request",
                          "`sluice-load -c8 -m10 -b100`, JSON arrays, Kafka frozen. Goal: ≥ 450,000 durable events/s.",
                          lambda server: self.measure_load(server, "-c", 8, "-m", 10, "-b", 100))

    def dedupe(self):
        for name, what, options in (("dedupe-single", "one event a request", ("-c", 64, "-m", 10)),
                                    ("dedupe-batch100", "100 events a request", ("-c", 8, "-m", 10, "-b", 100))):
            self.rate_section(name, f"The dedupe window, {what}",
                              f"`sluice-load {' '.join(map(str, options))}`: unique ids, Kafka frozen. Goal: "
                              "ratio ≥ 0.95.",
                              lambda server, options=options: self.measure_load(server, *options),
                              self.dedupe_off_and_on)

    def fixed20k(self):
        rate = self.arguments.rate
        found = self.alternate("fixed20k", lambda server: self.measure_load(server, "-c", 64, "-m", 10, "-r", rate))
        rows = [[server] + [report.number(report.median(runs, field), 2)
                            for field in ("p50_ms", "p99_ms", "p99_9_ms", "max_ms", "cpu_us")] +
                [report.number(sum(run["not_sent"] for run in runs)),
                 report.number(max(run["rss_anon_mib"] for run in runs))] for server, runs in found.items()]
        self.sections.append({
            "title": f"Latency at a fixed {rate:,} single events a second",
            "note": f"`sluice-load -c64 -m10 -r{rate}`, open loop: latency from the scheduled time. Goal: p99 ≤ 5 ms.",
            "head": ["server", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "server CPU µs/event", "not sent",
                     "RssAnon peak MiB"],
            "rows": rows})

    def az2(self):
        from bench.cell import CellScenario
        CellScenario(self).run()

    def kafka(self):
        from bench.kafka import KafkaScenario
        KafkaScenario(self).run()

    # ---- all

    def prepare(self):
        missing = [name for name in ("bare-h2o", "sluice-load", "raw-commit", "bare-producer")
                   if not os.access(self.tool(name), os.X_OK)]
        if missing:
            raise BenchError(f"{', '.join(missing)} not found under {self.build}/bench: ninja -C {self.build}")
        if not self.arguments.stand_in and not os.access(self.binary, os.X_OK):
            raise BenchError(f"no {self.binary}; --stand-in measures bare h2o in its place")
        if self.arguments.dedupe == "on" and "single" in self.arguments.scenarios:
            raise BenchError("h2load repeats its body: with --dedupe on everything would be a duplicate")
        self.spool_root.mkdir(parents=True, exist_ok=True)
        # h2load repeats one body. It is one of our client's events, so that both clients send the same.
        body = self.spool_root / "sluice-bench-body.json"
        run = subprocess.run([self.tool("sluice-load"), "--print-event"], capture_output=True, check=True)
        body.write_bytes(run.stdout)
        self.body = str(body)

    def results(self):
        settings = (f"Medians of {self.arguments.repeats}, {self.arguments.seconds} s each (kafka: one run); "
                    f"event loops of either server: {self.arguments.threads}; load generator on the same cores; "
                    f"frozen Kafka: {self.arguments.frozen}.")
        return {"machine": self.machine, "settings": settings, "sections": self.sections, "runs": self.runs}

    def run(self):
        self.prepare()
        self.machine = report.machine(ROOT, self.spool_root)
        failed = []
        for name in self.arguments.scenarios:
            self.log(name)
            try:
                getattr(self, name)()
            except (BenchError, ClusterError, Failure, subprocess.TimeoutExpired) as error:
                self.log(f"{name} FAILED: {error}")
                failed.append(name)
        os.unlink(self.body)
        results = self.results()
        text = report.markdown(results)
        print(text)
        self.log(f"written to {report.write(results, self.arguments.results)}")
        if self.arguments.markdown:
            self.arguments.markdown.write_text(text)
        if failed:
            self.log(f"failed: {', '.join(failed)}")
        return 1 if failed else 0


SCENARIOS = ["raw", "single", "own", "batch100", "fixed20k", "dedupe", "az2", "kafka"]


def parse():
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO",
                        help=f"of {' '.join(SCENARIOS)}; default: all but dedupe, az2 and kafka")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="default %(default)s")
    parser.add_argument("--sluice", type=pathlib.Path, help="the binary (BUILD/sluice)")
    parser.add_argument("--stand-in", action="store_true",
                        help="a second bare h2o in place of Sluice: tests the bench itself")
    parser.add_argument("--spool-dir", type=pathlib.Path, default=pathlib.Path(disk_root()) / "sluice-bench.spool",
                        help="on the disk to be measured (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (%(default)s)")
    parser.add_argument("--raw-seconds", type=float, default=1)
    parser.add_argument("--threads", type=int, default=1, help="event loops of either server (%(default)s)")
    parser.add_argument("--dedupe", choices=["on", "off"], default="off",
                        help="of Sluice, in all scenarios but dedupe, which compares both (%(default)s)")
    parser.add_argument("--rate", type=int, default=20000, help="of fixed20k and az2 (%(default)s)")
    parser.add_argument("--frozen", choices=["listener", "brokers"], default="listener",
                        help="a listener that never answers, or three real brokers under SIGSTOP")
    parser.add_argument("--kafka-seconds", type=int, default=60, help="of load on Sluice (%(default)s)")
    parser.add_argument("--kafka-ratio", type=float, default=0.6,
                        help="offered, of the bare producer's rate (%(default)s)")
    parser.add_argument("--kafka-rate", type=int, help="offered, in events a second, instead")
    parser.add_argument("--kafka-batch", type=int, default=100, help="events a request (%(default)s)")
    parser.add_argument("--kafka-bare-seconds", type=int, default=20, help="of each bare producer (%(default)s)")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables here, too")
    arguments = parser.parse_args()
    arguments.scenarios = arguments.scenarios or SCENARIOS[:-3]
    unknown = [name for name in arguments.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}")
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(Bench(parse()).run())
    except BenchError as error:
        sys.exit(f"bench/run.py: {error}")
