"""A cell for scenarios: three gateways in three zones before three brokers, all connections between them by relays.

    with stand.cell("freeze") as cell:
        cell.start()
        cell.load()                              # over all three, resending at any of them
        cell.cut(cell.a, cell.b); cell.cut_kafka(cell.c); cell.heal()
        verdict = cell.settle()

The end is the same for every scenario (settle): faults healed, dead nodes started, everything in Kafka, the sums of
each gateway hold, each ends with code 0, and the topics agree with what the clients were told.
"""

import contextlib
import json
import secrets
import shutil
import signal
import time

from tests.history import checker, records
from tests.integration.stand import Stand
from tests.kafka import Cluster
from tests.lib.client import Client, Load
from tests.lib.gateway import Gateway, merge
from tests.lib.places import ReservedPort
from tests.lib.relay import Relays
from tests.lib.report import Failure, expect, note
from tests.lib.waiting import until

LETTERS = "abc"
BROKERS = (1, 2, 3)
SINGLES = ("-c", "6", "-m", "8", "-r", "1500")
BATCHES = ("-c", "3", "-m", "2", "-b", "20", "-r", "1000")


class CellStand(Stand):
    """Brokers with a listener for each gateway of a cell, whose clients go through relays of their own."""

    def __enter__(self):
        self.relays = Relays()
        try:
            listeners = {f"GW{letter.upper()}": {node: self.relays.add(kafka_link(letter, node)) for node in BROKERS}
                         for letter in LETTERS}
            self.kafka = Cluster(brokers=len(BROKERS), listeners=listeners)
        except BaseException:
            self.relays.close()
            shutil.rmtree(self.home, ignore_errors=True)
            raise
        self.bootstraps = {letter: ",".join(f"127.0.0.1:{port}" for port in listeners[f"GW{letter.upper()}"].values())
                           for letter in LETTERS}
        self._aim()
        return self

    def _aim(self):
        for letter in LETTERS:
            for node in BROKERS:
                self.relays.target(kafka_link(letter, node), self.kafka.listener_port(node, f"GW{letter.upper()}"))

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.relays.close()

    @contextlib.contextmanager
    def cell(self, name, **options):
        cell = Cell(self, f"{name}-{next(self._numbers)}", **options)
        try:
            yield cell
        finally:
            cell.close()


def kafka_link(letter, node):
    return f"{letter}>kafka-{node}"


def _accepted(node):
    """None: it does not run, or is not so far."""
    if not node.alive or node.frozen:
        return None
    try:
        return node.accepted()
    except OSError:
        return None


class Node(Gateway):
    """A gateway of a cell. `name`: its node.name."""

    def __init__(self, cell, letter, binary, brokers, sources, config, environment):
        self.cell, self.letter, self.zone = cell, letter, f"az-{letter}"
        self.name = f"gw-{letter}"
        self._peer_port = ReservedPort()
        self.peer_port = self._peer_port.port
        self.frozen = False
        super().__init__(binary, cell.home / self.name, brokers, sources,
                         merge({"node": {"name": self.name, "zone": self.zone}}, config), environment)

    def close(self):
        super().close()
        self._peer_port.close()

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def start(self, wait=True, timeout_s=180):
        self.frozen = False
        return super().start(wait, timeout_s)

    def freeze(self):
        self.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        self.signal(signal.SIGCONT)
        self.frozen = False

    def wipe(self):
        """Its disk is gone."""
        expect(not self.alive, "the disk of a process that runs")
        shutil.rmtree(self.spool)

    def status(self):
        """The part `cell` of /status."""
        return json.loads(self.admin("/status")[1])["cell"]

    def streams(self):
        """{stream id: what /status says of it}."""
        return {each["stream"]: each for each in self.status()["streams"]}

    def stream(self):
        """The stream that it writes now; None while it opens one."""
        return next((name for name, each in self.streams().items() if each["current"]), None)

    def held(self, stream):
        """{member: the last seq that it holds of the stream, 0 for nothing}, as far as this node knows."""
        found = self.streams().get(stream, {"holders": {}})
        return {name: held["end"] or 0 for name, held in found["holders"].items()}

    def logged(self, *words):
        """Its log lines that hold all the words."""
        return [line for line in self.log_lines() if all(word in line for word in words)]


class Cell:
    """`sources`: {name: settings}, each with a topic of its own. `config`: for all nodes. `environment`: {letter: {…}}.
    `tls`: {letter: the files of ha.tls}; None: plain. `missing`: sources whose topics are not made yet."""

    def __init__(self, stand, name, sources=None, config=None, environment=None, topic_config=None, tls=None,
                 missing=()):
        self.stand, self.kafka, self.relays, self.name = stand, stand.kafka, stand.relays, name
        self.home = stand.home / name
        self.home.mkdir()
        self.sources = sources or {"payments": {}}
        for source, settings in self.sources.items():
            settings.setdefault("topic", f"{name}.{source}")
            if source not in missing:
                self.make_topic(source, topic_config)
        self.key_file = self.home / "dedupe.key"
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(secrets.token_hex(16) + "\n")
        self.nodes = [Node(self, letter, stand.binary, stand.bootstraps[letter], self.sources,
                           merge({"node": {"cluster": name}}, config or {}), (environment or {}).get(letter))
                      for letter in LETTERS]
        self.a, self.b, self.c = self.nodes
        for node in self.nodes:
            self._join(node, tls)
        self.loads, self.clients, self.history = [], [], None
        self._stopped = False

    def make_topic(self, source, config=None):
        self.kafka.create_topic(self.sources[source]["topic"], partitions=6, replication=3, config=config)

    def link(self, dialling, answering):
        return f"{self.name}:{dialling.name}>{answering.name}"

    def _join(self, node, tls):
        peers = []
        for other in self.others(node):
            port = self.relays.add(self.link(node, other), other.peer_port)
            peers.append({"name": other.name, "zone": other.zone, "address": f"127.0.0.1:{port}"})
        ours = {"listen": f"127.0.0.1:{node.peer_port}", "peers": peers, "takeover_after": "5s"}
        if tls:
            ours["tls"] = {key: str(path) for key, path in tls[node.letter].items()}
        node.config = merge({"ha": ours, "dedupe": {"key_file": str(self.key_file)}}, node.config)
        node.write_config()

    def others(self, node):
        return [each for each in self.nodes if each is not node]

    # ---- the life of it

    def start(self, *nodes):
        for node in nodes or self.nodes:
            node.start(wait=False)
        for node in nodes or self.nodes:
            node.wait_ready()
        if not nodes:
            until(self.is_whole, "the peers do not find each other")
            # A cluster's first transactions wait for its coordinators to be made: no fault that is meant here.
            until(self.all_drain, lambda: f"not claimed: {[node.streams() for node in self.nodes]}", 240)
        return self

    def is_whole(self):
        """Every node says of both peers that they are there."""
        return all(node.metric("sluice_peer_up") == len(self.nodes) - 1 for node in self.nodes)

    def all_drain(self):
        """Every node has claimed all lanes of the stream that it writes."""
        streams = [node.streams().get(node.stream()) for node in self.nodes]
        return all(each and all(lane["step"] == "produces" for lane in each["lanes"].values()) for each in streams)

    def load(self, *options, nodes=None, source="payments"):
        """The load client over all nodes (or those named), ordered and retrying, with a history of its own."""
        first, *rest = [node.url(source) for node in nodes or self.nodes]
        load = Load(self.stand.build, first, self.home / f"load-{len(self.loads)}.history", "--ordered", "--retry",
                    "--retry-for", "120", "--timeout", "5", "-k", "400", "-t", "3600", *(options or SINGLES), *rest)
        self.loads.append(load)
        return load

    def client(self, node):
        client = Client(node, self.home / f"client-{len(self.clients)}.history")
        self.clients.append(client)
        return client

    def wait_load(self, events=1000):
        """Until so many more events are accepted, by those that run and say so."""
        seen, total = {node: _accepted(node) for node in self.nodes}, 0

        def enough():
            nonlocal total
            for node in self.nodes:
                now = _accepted(node)
                if now is None or node.frozen:
                    continue
                before = seen[node] or 0
                total += now - before if now >= before else now  # a process counts from 0
                seen[node] = now
            return total >= events
        until(enough, lambda: f"only {total} of {events} events were accepted", 240)

    def stop_loads(self):
        for load in self.loads:
            load.stop()
        return [load.wait() for load in self.loads]

    # ---- the network

    def cut(self, one, other, to_other=True, to_one=True):
        """Holds what `one` says to `other`, and what `other` says to `one`."""
        self.relays.hold(self.link(one, other), forth=to_other, back=to_one)
        self.relays.hold(self.link(other, one), forth=to_one, back=to_other)

    def isolate(self, node):
        for other in self.others(node):
            self.cut(node, other)

    def cut_kafka(self, node, to_kafka=True, from_kafka=True):
        for broker in BROKERS:
            self.relays.hold(kafka_link(node.letter, broker), forth=to_kafka, back=from_kafka)

    def heal(self):
        for node in self.nodes:
            for other in self.others(node):
                self.relays.release(self.link(node, other))
            self.cut_kafka(node, False, False)

    def passed(self, one, other):
        """Bytes that came from `one` to `other` so far."""
        return self.relays.stat(self.link(one, other))["forth"] + self.relays.stat(self.link(other, one))["back"]

    def expect_cut(self, one, other, seconds=1.5):
        """Nothing comes through in that time, although heartbeats would."""
        before = self.passed(one, other)
        time.sleep(seconds)
        expect(self.passed(one, other) == before, f"{one.name} still reaches {other.name}: the fault was not applied")

    # ---- the end

    def wait_drained(self, timeout_s=300):
        """Until Kafka has all that any node holds."""
        for node in self.nodes:
            node.wait_drained(timeout_s)
        until(lambda: not self._unproduced(), lambda: f"not produced: {self._unproduced()}", timeout_s, 0.2)

    def _unproduced(self):
        return {f"{node.name}: {name}": f"through {each['through']}, has {each['holders'][node.name]}"
                for node in self.nodes for name, each in node.streams().items()
                if (each["holders"].get(node.name, {}).get("end") or 0) > each["through"]}

    def settle(self, min_acked=1, whole=True, drain_s=300):
        """The end of a scenario. The verdict of the history; raises Failure when anything is wrong."""
        self.heal()
        self.kafka.revive()
        for node in self.nodes:
            if node.frozen:
                node.thaw()
            if not node.alive:
                node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        summaries = self.stop_loads()
        self.kafka.wait_in_sync()
        self.wait_drained(drain_s)
        for node in self.nodes:
            node.check_sums()
        self.stop()
        verdict = self.check(min_acked, whole)
        for summary in summaries:
            note(f"longest time without any answer {summary['longest_ack_gap_s']:.2f} s")
        return verdict

    def stop(self):
        """SIGTERM to all that run, together; each must end with code 0."""
        for node in self.nodes:
            if node.alive:
                node.signal(signal.SIGTERM)
        for node in self.nodes:
            if node.wait_exit() != 0:
                node.check_alive()

    def read_history(self):
        for client in self.clients:
            client.close()
        history = checker.History()
        for each in (*self.loads, *self.clients):
            history.load(each.history if isinstance(each, Load) else each.path)
        return history

    def topics(self):
        names = {settings["topic"] for settings in self.sources.values()}
        return sorted(names | {f"{name}.dlq" for name in names})

    def records(self):
        return records.read(self.kafka.bootstrap, self.topics(), 300, missing_ok=True, reader=self.stand.reader)

    def check(self, min_acked=1, whole=True):
        self.history, self.found = self.read_history(), self.records()
        verdict = checker.check(self.history, self.found, dedupe="node", whole=whole, min_acked=min_acked)
        note(f"{verdict.line()} records={verdict.records} streams={verdict.streams}")
        if not verdict.passed:
            raise Failure(f"{verdict.line()}: {verdict.why()}")
        return verdict

    def close(self):
        for each in (*self.loads, *self.clients):
            each.close()
        for node in self.nodes:
            node.close()
        self.heal()
        if not self.stand.keep:
            for node in self.nodes:
                shutil.rmtree(node.spool, ignore_errors=True)
