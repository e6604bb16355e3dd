"""Once a second during a drill: what each gateway says about itself, and whether each broker takes connections.

One thread a node, so that a frozen one delays only its own samples. Each sample is a line of samples.jsonl:
{"t": seconds since the start, "node", "zone", "kind": "gateway" | "broker", "state", ...figures of the gateway}.
A node that does not answer within a second has the state "no answer"; that is a finding, no error.
"""

import json
import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

EVERY_S = 1.0
ANSWER_S = 0.9
SILENT = "no answer"
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Node:
    """`address`: of a gateway the admin endpoint's URL, of a broker host:port. `within`: calls a function where the
    node can be reached whatever is cut (in its network namespace); None: from here."""

    name: str
    zone: str
    kind: str
    address: str
    within: Callable | None = None


def parse(text):
    """[(name, labels, value)] of the Prometheus text format."""
    return [(name, dict(_LABEL.findall(labels or "")), float(value)) for name, labels, value in _SAMPLE.findall(text)]


def figures(samples):
    """What the plots need of one gateway's metrics."""
    outcomes, buckets, lag, peers, single = {}, {}, {}, {}, {}
    for name, labels, value in samples:
        if name == "sluice_events_total":
            outcomes[labels["outcome"]] = outcomes.get(labels["outcome"], 0) + value
        elif name == "sluice_ack_seconds_bucket":
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0) + value
        elif name == "sluice_peer_lag_events":
            lag[labels["peer"]] = value
        elif name == "sluice_peer_up":
            peers[labels["peer"]] = value
        elif not labels:
            single[name] = value
    return {"accepted": outcomes.get("accepted", 0), "unavailable": outcomes.get("unavailable", 0),
            "throttled": outcomes.get("throttled", 0), "pending": single.get("sluice_spool_pending_events", 0),
            "oldest_s": single.get("sluice_spool_oldest_pending_seconds", 0),
            "kafka": single.get("sluice_kafka_connected", 0),
            "takeovers": single.get("sluice_takeovers_total", 0),
            "conservation_error": single.get("sluice_conservation_error", 0),
            "peers_up": sum(value > 0 for value in peers.values()), "lag": lag,
            "ack": [["inf" if math.isinf(bound) else bound, count] for bound, count in sorted(buckets.items())]}


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def look_at_gateway(node):
    status = json.loads(_get(node.address + "/status"))
    return {"state": status["state"], **figures(parse(_get(node.address + "/metrics").decode()))}


def look_at_broker(node):
    host, _, port = node.address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    return {"state": "ready"}


LOOKS = {"gateway": look_at_gateway, "broker": look_at_broker}


def look_at(node):
    try:
        if node.within:
            return node.within(lambda: LOOKS[node.kind](node))
        return LOOKS[node.kind](node)
    except Exception as error:  # pylint: disable=broad-except  a dying process answers with anything
        return {"state": SILENT, "why": f"{type(error).__name__}: {error}"[:200]}


class Sampler:
    """with Sampler(nodes, file, start_ns) as sampler: ...; sampler.latest(), afterwards sampler.samples."""

    def __init__(self, nodes, path, start_ns):
        self.nodes, self._path, self._start_ns = nodes, path, start_ns
        self.samples = []
        self._latest = {}
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = []
        self._out = None

    def __enter__(self):
        self._out = open(self._path, "w", encoding="utf-8")
        self._threads = [threading.Thread(target=self._watch, args=(node,), daemon=True) for node in self.nodes]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._end.set()
        for thread in self._threads:
            thread.join(3 * ANSWER_S)
        with self._lock:
            self._out.close()
            self._out = None

    def now_s(self):
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def latest(self):
        """{node name: its last sample}"""
        with self._lock:
            return dict(self._latest)

    def _watch(self, node):
        due = time.monotonic()
        while not self._end.is_set():
            sample = {"t": round(self.now_s(), 3), "node": node.name, "zone": node.zone, "kind": node.kind,
                      **look_at(node)}
            with self._lock:
                if self._out is None:
                    return
                self.samples.append(sample)
                self._latest[node.name] = sample
                self._out.write(json.dumps(sample, separators=(",", ":")) + "\n")
                self._out.flush()
            due = max(due + EVERY_S, time.monotonic())
            self._end.wait(due - time.monotonic())


def read(path):
    """The samples of an earlier run; a line that was cut off by the end of the process is left out."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]
