"""What an acknowledgement at az2 costs: a cell of three gateways on one machine, load on one of them, Kafka frozen.

Three servers in alternation: a gateway alone at level disk; one of a cell at level disk, whose peers store all of it as
well; the same at az2. Between the first two lies the work of two more gateways on the same cores, between the last two
what is waited for. Replication is plain TCP over loopback, without relays.
"""

import pathlib
import secrets
import shutil

from bench import report
from bench.servers import DEDUPE_OFF, DEDUPE_ON, Sluice, budget_mib, cpu_seconds
from tests.lib.gateway import Gateway
from tests.lib.places import ReservedPort, temporary_directory
from tests.lib.waiting import until

LETTERS = "abc"


class Cell:
    """Three gateways. As the other servers: `pid` and `url` are of the one that gets the load."""

    def __init__(self, binary, threads, spool_root, brokers, ack, dedupe):
        self.name = f"cell, {ack}"
        self._binary, self._threads, self._root, self._brokers = binary, threads, spool_root, brokers
        self._ack, self._dedupe = ack, dict(DEDUPE_ON if dedupe == "on" else DEDUPE_OFF)

    def __enter__(self):
        self._home = pathlib.Path(temporary_directory("bench") if self._root is None else self._root / "sluice-bench")
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        self._ports = {letter: ReservedPort() for letter in LETTERS}
        key = self._home / "dedupe.key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(16) + "\n")
        self.gateways = [self._gateway(letter, key) for letter in LETTERS]
        for each in self.gateways:
            each.start(wait=False)
        for each in self.gateways:
            each.wait_ready()
        until(lambda: all(each.metric("sluice_peer_up") == 2 for each in self.gateways), "the cell is not whole")
        self.gateway = self.gateways[0]
        self.pid, self.url = self.gateway.pid, self.gateway.url("payments")
        return self

    def _gateway(self, letter, key):
        peers = [{"name": f"gw-{other}", "zone": f"az-{other}", "address": f"127.0.0.1:{port.port}"}
                 for other, port in self._ports.items() if other != letter]
        return Gateway(self._binary, self._home / letter, self._brokers, {"payments": {"topic": "payments.events"}}, {
            "node": {"name": f"gw-{letter}", "zone": f"az-{letter}"},
            "listen": {"threads": self._threads},
            "spool": {"segment": "256MiB", "max": f"{budget_mib(self._home, len(LETTERS))}MiB", "retain": "0s"},
            "dedupe": {**self._dedupe, "key_file": str(key)},
            # A short takeover_after: on a new disk the start asks for that long what the peers know.
            "ha": {"listen": f"127.0.0.1:{self._ports[letter].port}", "peers": peers, "ack": self._ack,
                   "takeover_after": "2s"},
        })

    def __exit__(self, *_exception):
        for each in self.gateways:
            each.close()
        for port in self._ports.values():
            port.close()
        shutil.rmtree(self._home, ignore_errors=True)

    check = Sluice.check  # of the one that got the load

    def peers_cpu_s(self):
        return sum(cpu_seconds(each.pid) for each in self.gateways[1:])


class CellScenario:
    def __init__(self, bench):
        self.bench, self.arguments = bench, bench.arguments

    def servers(self, frozen):
        bench, arguments = self.bench, self.arguments
        alone = bench.sluice(frozen, arguments.dedupe)
        alone.name = "alone, disk"
        return [alone, *(Cell(bench.binary, arguments.threads, bench.spool_root, frozen.bootstrap, ack,
                              arguments.dedupe) for ack in ("disk", "az2"))]

    def measure(self, server, *options):
        """As Bench.measure_load, with what the peers used."""
        peers_s = getattr(server, "peers_cpu_s", lambda: 0.0)
        before = peers_s()
        found = self.bench.measure_load(server, *options)
        # The peers' share is for all events, those of the warm-up too: by what the gateway counted.
        accepted = server.gateway.metric("sluice_events_total", source="payments", outcome="accepted")
        found["peers_cpu_us"] = (peers_s() - before) / accepted * 1e6
        return found

    def section(self, name, title, note, *options):
        found = self.bench.alternate(name, lambda server: self.measure(server, *options), self.servers)
        names = list(found)
        disk = [report.median(found[each], "events_per_second") for each in names[:2]]
        rows = []
        for server, runs in found.items():
            rate = report.median(runs, "events_per_second")
            rows.append([server, report.number(rate), f"{rate / disk[0]:.2f}",
                         f"{rate / disk[1]:.2f}" if server != names[0] else "–",
                         report.spread(runs, "events_per_second"),
                         *(report.number(report.median(runs, field), 2) for field in ("p50_ms", "p99_ms", "p99_9_ms")),
                         report.number(report.median(runs, "cpu_us"), 2),
                         report.number(report.median(runs, "peers_cpu_us"), 2)])
        self.bench.sections.append({
            "title": title, "note": note, "rows": rows,
            "head": ["server", "events/s", "of alone", "of cell, disk", "least…most", "p50 ms", "p99 ms", "p99.9 ms",
                     "server CPU µs/event", "both peers' CPU µs/event"]})

    def run(self):
        self.section("az2", "Level az2, one event a request",
                     "`sluice-load -c64 -m10`, three gateways on these cores, load on one, plain replication, Kafka "
                     "frozen. Goal: az2 ≥ 0.6 of disk.", "-c", 64, "-m", 10)
        rate = self.arguments.rate
        self.section("az2-fixed", f"Level az2 at a fixed {rate:,} single events a second",
                     f"`sluice-load -c64 -m10 -r{rate}`, open loop, as before.", "-c", 64, "-m", 10, "-r", rate)

