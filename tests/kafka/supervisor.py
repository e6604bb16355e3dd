"""The process that owns the brokers of one cluster: `python3 -m tests.kafka.supervisor DIR` with a request on stdin.

Happy path: reads its order (JSON, one line) from stdin, formats the storage, starts the brokers, waits until each of
them sees all others, writes DIR/cluster.json, then serves one-line JSON requests on the socket DIR/control.

How it ends: a `down` request, SIGTERM, or, when the order says so, end of file on stdin, which is how the death of
whoever started it is noticed, kill -9 included. It kills its brokers (frozen ones too) and removes DIR. Should it be
killed itself, PDEATHSIG takes the brokers along; DIR is then left.
"""

import ctypes
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
import base64

from tests.kafka import dist, wire
from tests.lib.places import ReservedPort

HOST = "127.0.0.1"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kafka_uuid():
    while True:  # Kafka refuses ids that start with a dash: they look like options
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _listeners(ports):
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


class Broker:
    """One combined broker and controller. States: new, running, frozen, dead."""

    def __init__(self, node, directory, settings):
        self.node = node
        self.directory = directory / f"broker-{node}"
        self.directory.mkdir()
        self.settings = settings
        self.client_port, self.controller_port = ReservedPort(HOST), ReservedPort(HOST)
        # Further listeners, each told to its clients under another port: where a relay of the test stands.
        self.told = {name: ports[str(node)] for name, ports in settings.get("listeners", {}).items()}
        self.ports = {name: ReservedPort(HOST) for name in self.told}
        self.process = None
        self.state = "new"

    @property
    def address(self):
        return HOST, self.client_port.port

    def java(self, *arguments, heap):
        here = pathlib.Path(__file__).resolve().parent
        return [dist.java(), f"-Xms{heap // 2}m", f"-Xmx{heap}m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=64m",
                "-XX:ReservedCodeCacheSize=64m", "-XX:MaxMetaspaceSize=128m", "-XX:-UsePerfData", "-Xshare:auto",
                "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={here / 'log4j2.properties'}",
                f"-Djava.io.tmpdir={self.directory}", "-cp", str(dist.libraries()) + "/*", *arguments]

    def write_properties(self, voters):
        count = len(voters.split(","))
        replicas = min(3, count)
        real = {"PLAINTEXT": self.client_port.port, **{name: port.port for name, port in self.ports.items()}}
        lines = {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.voters": voters,
            "listeners": _listeners({**real, "CONTROLLER": self.controller_port.port}),
            "advertised.listeners": _listeners({**real, **self.told}),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*real, "CONTROLLER")),
            "log.dirs": self.directory / "logs",
            "auto.create.topics.enable": "false",
            "unclean.leader.election.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": min(2, count),
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": min(2, count),
            "transaction.state.log.num.partitions": 8,
            "group.initial.rebalance.delay.ms": 0,
            # Small: three of these share a test machine with what is tested.
            "num.network.threads": 2, "num.io.threads": 4, "background.threads": 2, "num.replica.fetchers": 1,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
            "log.index.size.max.bytes": 1 << 20,
            **self.settings.get("properties", {}),
        }
        path = self.directory / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        return path

    def format(self, cluster):
        command = self.java("kafka.tools.StorageTool", "format", "-t", cluster, "-c",
                            str(self.directory / "server.properties"), heap=64)
        command[1:1] = ["-XX:TieredStopAtLevel=1"]
        with open(self.directory / "format.log", "wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    preexec_fn=_die_with_parent)

    def start(self):
        if self.state == "running":
            raise RuntimeError(f"broker {self.node} runs already")
        if self.state == "frozen":
            raise RuntimeError(f"broker {self.node} is frozen: cont it")
        command = self.java("kafka.Kafka", str(self.directory / "server.properties"), heap=self.settings["heap"])
        with open(self.directory / "broker.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=_die_with_parent)
        self.state = "running"

    def signal(self, number, state):
        if self.state not in ("running", "frozen"):
            raise RuntimeError(f"broker {self.node} is {self.state}")
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait()
        self.state = state

    def reap(self):
        if self.process and self.process.poll() is not None:
            self.state = "dead"

    def tail(self):
        for name in ("broker.log", "format.log"):
            path = self.directory / name
            if path.exists() and path.stat().st_size:
                return path.read_text(errors="replace")[-2000:]
        return "(no log)"

    def describe(self):
        return {"node": self.node, "state": self.state, "host": HOST, "port": self.client_port.port,
                "pid": self.process.pid if self.process else None, "log": str(self.directory / "broker.log"),
                "listeners": {name: port.port for name, port in self.ports.items()}}


class Supervisor:
    def __init__(self, directory, order):
        self.directory = pathlib.Path(directory)
        self.order = order
        self.cluster = _kafka_uuid()
        self.brokers = {node: Broker(node, self.directory, order) for node in range(1, order["brokers"] + 1)}
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ending = False

    def bring_up(self):
        voters = ",".join(f"{each.node}@{HOST}:{each.controller_port.port}" for each in self.brokers.values())
        for broker in self.brokers.values():
            broker.write_properties(voters)
        formats = [(broker, broker.format(self.cluster)) for broker in self.brokers.values()]
        for broker, process in formats:
            if process.wait() != 0:
                raise RuntimeError(f"StorageTool failed for broker {broker.node}:\n{broker.tail()}")
        for broker in self.brokers.values():
            broker.start()
        self.wait_whole(self.order["start_timeout_s"])

    def wait_whole(self, timeout_s):
        """Until every broker sees all of them, and transactions have a coordinator (asking creates its topic)."""
        end = time.monotonic() + timeout_s
        while True:
            lacking = self.whole()
            if lacking is None:
                return
            for broker in self.brokers.values():
                broker.reap()
                if broker.state == "dead":
                    raise RuntimeError(f"broker {broker.node} ended while starting:\n{broker.tail()}")
            if time.monotonic() > end:
                raise RuntimeError(f"not ready after {timeout_s} s: {lacking}")
            time.sleep(0.1)

    def whole(self):
        try:
            for broker in self.brokers.values():
                seen = wire.metadata(broker.address, [], timeout_s=2)["brokers"]
                if len(seen) != len(self.brokers):
                    return f"broker {broker.node} sees {len(seen)} brokers"
            address = next(iter(self.brokers.values())).address
            wire.find_transaction_coordinator(address, "sluice-tests", timeout_s=2)
            internal = wire.metadata(address, ["__transaction_state"], timeout_s=2)["topics"]["__transaction_state"]
            short = [each for each in internal["partitions"] if len(each["isr"]) < min(3, len(self.brokers))]
            return "the coordinator's topic is not replicated yet" if short or not internal["partitions"] else None
        except (wire.WireError, KeyError) as error:
            return str(error)

    def describe(self):
        for broker in self.brokers.values():
            broker.reap()
        addresses = ",".join(f"{HOST}:{each.client_port.port}" for each in self.brokers.values())
        return {"pid": os.getpid(), "dir": str(self.directory), "bootstrap": addresses, "cluster": self.cluster,
                "brokers": [each.describe() for each in self.brokers.values()]}

    def publish(self):
        aside = self.directory / "cluster.json.new"
        aside.write_text(json.dumps(self.describe(), indent=1) + "\n")
        aside.rename(self.directory / "cluster.json")

    def handle(self, request):
        operation = request["op"]
        if operation == "down":
            self.ending = True
        elif operation != "status":
            broker = self.brokers[int(request["node"])]
            broker.reap()
            {"kill": lambda: broker.signal(signal.SIGKILL, "dead"),
             "term": lambda: broker.signal(signal.SIGTERM, "dead"),
             "stop": lambda: broker.signal(signal.SIGSTOP, "frozen"),
             "cont": lambda: broker.signal(signal.SIGCONT, "running"),
             "start": broker.start}[operation]()
            self.publish()
        return self.describe()

    def serve_one(self):
        connection, _ = self.control.accept()
        with connection:
            connection.settimeout(30)
            try:
                request = json.loads(connection.makefile().readline())
                answer = {"ok": True, **self.handle(request)}
            except (RuntimeError, KeyError, ValueError, OSError) as error:
                answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            try:
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass  # the asker has gone; what it asked for is done

    def serve(self):
        lifeline = [sys.stdin] if self.order["lifeline"] else []
        while not self.ending:
            readable, _, _ = select.select([self.control, *lifeline], [], [], 1.0)
            if self.control in readable:
                self.serve_one()
            if lifeline and sys.stdin in readable and not os.read(sys.stdin.fileno(), 4096):
                self.ending = True

    def listen(self):
        self.control.bind(str(self.directory / "control"))
        self.control.listen(16)

    def tear_down(self):
        for broker in self.brokers.values():
            if broker.process and broker.process.poll() is None:
                broker.process.kill()
        for broker in self.brokers.values():
            if broker.process:
                broker.process.wait()
        if not self.order.get("keep"):
            shutil.rmtree(self.directory, ignore_errors=True)


def _end(_number, _frame):
    raise SystemExit(0)


def main():
    directory = sys.argv[1]
    order = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us; we follow by the lifeline
    supervisor = Supervisor(directory, order)
    answer = {"ok": True}
    try:
        try:
            supervisor.bring_up()
            supervisor.listen()
            supervisor.publish()
            answer.update(supervisor.describe())
        except (RuntimeError, OSError, dist.DistError) as error:
            answer = {"ok": False, "error": str(error)}
        print(json.dumps(answer), flush=True)
        if answer["ok"]:
            supervisor.serve()
    finally:
        supervisor.tear_down()


if __name__ == "__main__":
    main()
