"""A real `sluice serve`: its configuration, its process, what it says about itself.

    gateway = Gateway(binary, home, kafka.bootstrap, {"payments": {"topic": "payments.events", "key": "/account_id"}})
    gateway.start(); ...; gateway.kill(); gateway.start(); ...; gateway.stop()

The home directory holds gateway.yaml, sources/, spool/ and gateway.log, which has the lines of all its processes.
"""

import http.client
import json
import os
import pathlib
import re
import signal
import time

from tests.lib import processes
from tests.lib.places import ReservedPort
from tests.lib.report import Failure
from tests.lib.waiting import until

_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


def yaml(value, indent=0):
    """Block-style YAML of dicts of dicts and scalars; lists in flow style. Enough for configurations."""
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict):
            lines.append(f"{' ' * indent}{key}:\n{yaml(inner, indent + 2)}")
        else:
            lines.append(f"{' ' * indent}{key}: {json.dumps(inner) if not isinstance(inner, str) else inner}\n")
    return "".join(lines)


def merge(base, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


class Gateway:
    def __init__(self, binary, home, brokers, sources, config=None, environment=None):
        self.binary, self.home = pathlib.Path(binary), pathlib.Path(home)
        self.spool, self.log_path = self.home / "spool", self.home / "gateway.log"
        self.environment = environment or {}
        self._ports = ReservedPort(), ReservedPort()
        self.ingest_port, self.admin_port = (each.port for each in self._ports)
        self.process = None
        self.exec_ns = 0  # CLOCK_MONOTONIC just before the last start
        (self.home / "sources").mkdir(parents=True, exist_ok=True)
        self.config = merge({
            "node": {"name": "gw-a1", "zone": "az-a", "cluster": "test"},
            "listen": {"ingest": [f"127.0.0.1:{self.ingest_port}"], "admin": f"127.0.0.1:{self.admin_port}"},
            "kafka": {"brokers": f'"{brokers}"', "properties": {"compression.type": "lz4"}},
            "spool": {"dir": str(self.spool), "segment": "16MiB", "max": "4GiB", "retain": "0s"},
            "dedupe": {"window": "24h", "memory": "64MiB"},
            "drain": {"accept_for": "200ms", "timeout": "60s"},
            "log": {"level": "info", "core_dumps": "true"},
            "sources": "sources/",
        }, config or {})
        for name, source in sources.items():
            self.write_source(name, source)
        self.write_config()

    # ---- configuration

    def write_config(self):
        (self.home / "gateway.yaml").write_text(yaml(self.config))

    def write_source(self, name, settings):
        full = {"source": name, "event_id": "/event_id", "key": "/account_id", **settings}
        aside = self.home / f"{name}.new"
        aside.write_text(yaml(full))
        aside.rename(self.home / "sources" / f"{name}.yaml")

    def remove_source(self, name):
        (self.home / "sources" / f"{name}.yaml").unlink()

    def url(self, source):
        return f"http://127.0.0.1:{self.ingest_port}/v1/events/{source}"

    # ---- the process

    def start(self, wait=True, timeout_s=180):
        if self.process and self.process.poll() is None:
            raise Failure("the gateway runs already")
        with open(self.log_path, "ab") as log:
            self.exec_ns = time.monotonic_ns()
            self.process = processes.spawn([self.binary, "serve", "-c", self.home / "gateway.yaml"], stdout=log,
                                           stderr=log, cwd=self.home, core=True,
                                           env={**os.environ, **self.environment})
        if wait:
            self.wait_ready(timeout_s)
        return self

    def wait_ready(self, timeout_s=180):
        until(self._is_ready, lambda: f"/readyz is not 200: {self._why()}", timeout_s, 0.01)

    def _why(self):
        try:
            return self.admin("/readyz")
        except OSError as error:
            return f"{error}; the log ends: {self.log_tail()}"

    def _is_ready(self):
        self.check_alive()
        try:
            return self.admin("/readyz")[0] == 200
        except OSError:
            return False

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """SIGKILL. A process that has ended already by itself is a failure: it was not told to."""
        self.check_alive()
        self.process.kill()
        self.process.wait()

    def wait_exit(self, timeout_s=180):
        until(lambda: self.process.poll() is not None, "the gateway does not end", timeout_s)
        return self.process.returncode

    def stop(self, timeout_s=180):
        """SIGTERM; the exit code must be 0."""
        self.signal(signal.SIGTERM)
        if self.wait_exit(timeout_s) != 0:
            self.check_alive()

    def close(self):
        """The end of a scenario, however it went."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for port in self._ports:
            port.close()

    # ---- what it says

    def log_lines(self):
        return self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []

    def log_tail(self, lines=6):
        return " | ".join(self.log_lines()[-lines:])

    def check_alive(self, grace_s=0.0):
        """Failure when the process has ended, or ends within the grace: a lost connection is its first sign."""
        end = time.monotonic() + grace_s
        while self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        code = self.process.poll()
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            print(processes.backtraces(self.binary, self.home), flush=True)
            raise Failure(f"the gateway {how}: {self.log_tail()}")

    def admin(self, path, method="GET"):
        """(status, body) of the admin endpoint. OSError when it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"admin endpoint: {type(error).__name__}") from error
        finally:
            connection.close()

    def ready_status(self):
        """The status of /readyz; 0 when the admin endpoint does not answer."""
        try:
            return self.admin("/readyz")[0]
        except OSError:
            return 0

    def accepted(self, source=None):
        """Events of one source, or of all, since the last start."""
        only = {"source": source} if source else {}
        return int(self.metric("sluice_events_total", outcome="accepted", **only))

    def metrics(self):
        """{name: {frozenset of (label, value): number}}."""
        try:
            status, text = self.admin("/metrics")
        except OSError:
            self.check_alive(2)
            raise
        if status != 200:
            raise Failure(f"/metrics answers {status}")
        found = {}
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if sample:
                labels = frozenset(_LABEL.findall(sample[2] or ""))
                found.setdefault(sample[1], {})[labels] = float(sample[3])
        return found

    def metric(self, name, **labels):
        """The sum of the samples that have these labels."""
        samples = self.metrics().get(name)
        if samples is None:
            raise Failure(f"/metrics has no {name}")
        return sum(value for found, value in samples.items() if set(labels.items()) <= found)

    def pending(self):
        return int(self.metric("sluice_spool_pending_events"))

    def wait_drained(self, timeout_s=300):
        """Until Kafka has everything: nothing pending, twice in a row with nothing in flight between."""
        def empty():
            self.check_alive()
            return self.pending() == 0
        until(empty, lambda: f"{self.pending()} events are still pending; {self.lanes()}", timeout_s, 0.1)

    def lanes(self):
        try:
            return json.dumps(json.loads(self.admin("/status")[1])["kafka"]["lanes"])
        except (OSError, ValueError):
            return "no /status"

    # ---- DESIGN.md 1.5

    def check_sums(self, nothing_pending=True):
        """The conservation sums, from /metrics. To be called when nothing is in flight."""
        metrics = self.metrics()

        def one(name, source):
            return int(metrics.get(name, {}).get(frozenset({("source", source)}), 0))

        wrong = [f"sluice_conservation_error is {value:g}"
                 for value in metrics["sluice_conservation_error"].values() if value != 0]
        outcomes = {}
        for labels, value in metrics["sluice_events_total"].items():
            label = dict(labels)
            outcomes.setdefault(label["source"], {})[label["outcome"]] = int(value)
        for source, found in outcomes.items():
            received, flying = one("sluice_received_events_total", source), one("sluice_in_flight_events", source)
            if received != sum(found.values()) + flying:
                wrong.append(f"{source}: received {received}, outcomes {found}, in flight {flying}")
            spooled, waiting = one("sluice_spooled_events_total", source), one("sluice_waiting_events", source)
            late = one("sluice_unavailable_after_append_total", source)
            if spooled != found["accepted"] + found["quarantined"] + late + waiting:
                wrong.append(f"{source}: spooled {spooled}, outcomes {found}, after append {late}, waiting {waiting}")
        pending = sum(metrics["sluice_spool_pending_events"].values())
        if nothing_pending and pending:
            wrong.append(f"{pending:g} events are pending")
        if wrong:
            raise Failure("sums: " + "; ".join(wrong))
        return outcomes
