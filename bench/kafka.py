"""Into three real brokers on the same machine: Sluice drained while accepting, against librdkafka alone.

1. Brokers start; the bare producer, with headers, warms them up.
2. Bare transactional producer, without and with the headers that Sluice adds.
3. Sluice takes the offered rate (a share of the bare producer's) for a minute; pending events are read every second.
4. The bare producer once more: a machine that has become slower meanwhile shows.
"""

import json
import subprocess
import threading
import time

from bench import report
from bench.servers import BenchError, Sluice, Usage, cpu_seconds

PARTITIONS = 12
DRAIN_TIMEOUT_S = 180
WARM_UP_S = 90  # the brokers' JVMs go on compiling for that long: 47,000 events/s at first, 78,000 then


class Watch(threading.Thread):
    """Pending events every second, from the start of the load."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.samples, self.end = gateway, [], threading.Event()
        self.began = time.monotonic()

    def run(self):
        while not self.end.wait(max(0.0, self.began + len(self.samples) + 1 - time.monotonic())):
            try:
                self.samples.append(self.gateway.pending())
            except OSError:
                self.samples.append(None)

    def at(self, second):
        found = [value for value in self.samples[max(0, second - 2):second + 1] if value is not None]
        return found[-1] if found else None


class KafkaScenario:
    def __init__(self, bench):
        self.bench, self.arguments = bench, bench.arguments

    def bare(self, cluster, seconds, warm_up_s, *options):
        command = [self.bench.tool("bare-producer"), "-b", cluster.bootstrap, "-T", "payments.bare", "-t", str(seconds),
                   "-w", str(warm_up_s), *options]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if run.returncode != 0:
            raise BenchError(f"bare-producer: exit {run.returncode}: {run.stderr.strip()[-500:]}")
        found = json.loads(run.stdout)
        self.bench.log(f"kafka bare {' '.join(options)}: {found}")
        return found

    def sluice(self, cluster, rate):
        seconds, batch = self.arguments.kafka_seconds, self.arguments.kafka_batch
        server = Sluice(self.bench.binary, self.arguments.threads, self.bench.spool_root, cluster.bootstrap)
        with server:
            watch = Watch(server.gateway)
            with Usage(server.pid) as usage:
                watch.start()
                summary = self.bench.load(server, "-c", 16, "-m", 10, "-b", batch, "-r", rate, "-t", seconds)
                watch.end.set()
                watch.join()
                drain_began = time.monotonic()
                server.gateway.wait_drained(DRAIN_TIMEOUT_S)
            drained_s = time.monotonic() - drain_began
            server.check(summary["acked"])
            produced = server.gateway.metric("sluice_produced_total")
        if produced < summary["acked"]:
            raise BenchError(f"{summary['acked']} acknowledged, {produced:.0f} produced")
        latency = summary["latency_ms"]
        return {"offered": rate, "events_per_second": summary["events_per_second"], "acked": summary["acked"],
                "not_sent": summary["not_sent"], "p50_ms": latency["p50"], "p99_ms": latency["p99"],
                "p99_9_ms": latency["p99_9"], "lag_half": watch.at(seconds // 2), "lag_end": watch.at(seconds),
                "lag_most": max((value for value in watch.samples if value is not None), default=None),
                "lag": watch.samples, "drained_s": drained_s, "cpu_us": usage.cpu_s / summary["acked"] * 1e6,
                "rss_anon_mib": usage.rss_anon_mib}

    def run(self):
        from tests.kafka import Cluster
        with Cluster(3) as cluster:
            for topic in ("payments.bare", "payments.events"):
                cluster.create_topic(topic, PARTITIONS, 3, {"min.insync.replicas": "2"})
            nodes = list(cluster.nodes)
            self.bare(cluster, 1, WARM_UP_S, "-H")
            before = self.bare(cluster, self.arguments.kafka_bare_seconds, 2)
            headers = self.bare(cluster, self.arguments.kafka_bare_seconds, 2, "-H")
            rate = self.arguments.kafka_rate or int(before["events_per_second"] * self.arguments.kafka_ratio)
            brokers = sum(cpu_seconds(cluster.pid(node)) for node in nodes)
            sluice = None if self.arguments.stand_in else self.sluice(cluster, rate)
            brokers = sum(cpu_seconds(cluster.pid(node)) for node in nodes) - brokers
            after = self.bare(cluster, self.arguments.kafka_bare_seconds, 2)
        self.bench.log(f"kafka Sluice: {sluice}")
        self.bench.runs["kafka"] = {"bare_before": before, "bare_headers": headers, "bare_after": after,
                                    "sluice": sluice}
        self.section(before, headers, after, sluice, brokers)

    def section(self, before, headers, after, sluice, brokers_cpu_s):
        number, seconds = report.number, self.arguments.kafka_seconds
        base = before["events_per_second"]
        rows = [[name, number(each["events_per_second"]), f"{each['events_per_second'] / base:.2f}",
                 number(each["cpu_us_per_event"], 2), "", "", ""]
                for name, each in (("bare transactional producer", before), ("the same with Sluice's headers", headers),
                                   ("bare again, at the end", after))]
        note = "No Sluice in this run."
        if sluice:
            rows.append(["Sluice, HTTP to committed", number(sluice["events_per_second"]),
                         f"{sluice['events_per_second'] / base:.2f}", number(sluice["cpu_us"], 2),
                         number(sluice["lag_half"]), number(sluice["lag_end"]), number(sluice["p99_ms"], 1)])
            note = (f"Offered {sluice['offered']:,} events/s for {seconds} s, {self.arguments.kafka_batch} a request; "
                    f"most pending {number(sluice['lag_most'])}, drained {sluice['drained_s']:.1f} s after the end; "
                    f"RssAnon {sluice['rss_anon_mib']:.0f} MiB; the three brokers used "
                    f"{brokers_cpu_s / sluice['acked'] * 1e6:.1f} µs an event. "
                    f"Goal: ratio ≥ {self.arguments.kafka_ratio}, pending at the end no more than half-way.")
        self.bench.sections.append({
            "title": f"Into three brokers on the same {self.bench.machine['cores']} cores, lz4, replication 3",
            "note": note,
            "head": ["producer", "events/s", "ratio", "CPU µs/event", f"pending at {seconds // 2} s",
                     f"pending at {seconds} s", "p99 of the answer ms"],
            "rows": rows})
