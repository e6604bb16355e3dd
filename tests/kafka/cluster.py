"""A handle to a cluster of brokers: starts its supervisor, or joins one that runs."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from tests.kafka import dist, wire
from tests.lib.places import temporary_directory

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class ClusterError(Exception):
    """The cluster could not do what was asked; the text says why."""


class Cluster:
    def __init__(self, brokers=3, heap=400, directory=None, properties=None, detached=False, keep=False,
                 start_timeout_s=300, listeners=None):
        """`heap`: MiB a broker. `detached`: outlives this process, until down(). `keep`: logs and data stay.
        `listeners`: {NAME: {node: port}}: further listeners, whose clients are sent to these ports: of relays to
        listener_port(node, NAME)."""
        dist.libraries()
        self.directory = pathlib.Path(directory or temporary_directory("kafka"))
        self.directory.mkdir(parents=True, exist_ok=True)
        order = {"brokers": brokers, "heap": heap, "properties": properties or {}, "lifeline": not detached,
                 "keep": keep, "start_timeout_s": start_timeout_s, "listeners": listeners or {}}
        error_log = subprocess.DEVNULL if detached else None
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.kafka.supervisor", str(self.directory)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=error_log, start_new_session=True)
        # Should this process die right here, the supervisor reads end of file and ends.
        self._supervisor.stdin.write(json.dumps(order) + "\n")
        self._supervisor.stdin.flush()
        answer = json.loads(self._supervisor.stdout.readline() or '{"ok": false, "error": "the supervisor ended"}')
        if not answer["ok"]:
            self._supervisor.wait()
            raise ClusterError(answer["error"])
        self._take(answer)

    @classmethod
    def join(cls, directory):
        """A handle to a cluster that another process started."""
        self = cls.__new__(cls)
        self.directory, self._supervisor = pathlib.Path(directory), None
        self._ask("status")
        return self

    def _take(self, answer):
        self.bootstrap, self.cluster_id, self.supervisor_pid = answer["bootstrap"], answer["cluster"], answer["pid"]
        self._brokers = {each["node"]: each for each in answer["brokers"]}

    def _ask(self, operation, node=None):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
                control.settimeout(180)
                control.connect(str(self.directory / "control"))
                control.sendall(json.dumps({"op": operation, "node": node}).encode() + b"\n")
                answer = json.loads(control.makefile().readline() or "{}")
        except (OSError, ValueError) as error:
            raise ClusterError(f"no cluster in {self.directory}: {error}") from error
        if not answer.get("ok"):
            raise ClusterError(answer.get("error", "no answer from the supervisor"))
        self._take(answer)
        return answer

    # Processes. Each returns when the signal has been sent; kill and term when the broker is dead.

    @property
    def nodes(self):
        return sorted(self._brokers)

    def status(self):
        return self._ask("status")

    def pid(self, node):
        return self._brokers[node]["pid"]

    def listener_port(self, node, name):
        return self._brokers[node]["listeners"][name]

    def log_path(self, node):
        return self._brokers[node]["log"]

    def kill(self, node):
        """SIGKILL."""
        self._ask("kill", node)

    def term(self, node):
        """SIGTERM, and wait: a controlled shutdown, which hands leadership over first."""
        self._ask("term", node)

    def stop(self, node):
        """SIGSTOP: the broker keeps its connections and says nothing."""
        self._ask("stop", node)

    def cont(self, node):
        self._ask("cont", node)

    def start(self, node):
        """Starts a dead broker again on its old ports and data; does not wait until it serves."""
        self._ask("start", node)

    def revive(self):
        """Thaws and restarts whatever is down; does not wait until it serves."""
        for each in self.status()["brokers"]:
            if each["state"] == "frozen":
                self.cont(each["node"])
            elif each["state"] == "dead":
                self.start(each["node"])

    def heal(self, timeout_s=180):
        """revive(), and waits until every partition is fully in sync."""
        self.revive()
        self.wait_in_sync(timeout_s)

    def wait_in_sync(self, timeout_s=180):
        end = time.monotonic() + timeout_s
        while True:
            lacking = self._out_of_sync()
            if lacking is None:
                return
            down = [each["node"] for each in self.status()["brokers"] if each["state"] != "running"]
            if down or time.monotonic() > end:
                ends = "".join(f"\nbroker {node}: {self._log_tail(node)}" for node in down or self.nodes)
                raise ClusterError(f"not in sync{f', brokers {down} do not run' if down else ''}: {lacking}{ends}")
            time.sleep(0.2)

    def _log_tail(self, node):
        return pathlib.Path(self.log_path(node)).read_text(errors="replace")[-1000:]

    def _out_of_sync(self):
        for node, each in self._brokers.items():
            try:
                seen = wire.metadata((each["host"], each["port"]), timeout_s=3)
            except wire.WireError as error:
                return f"broker {node}: {error}"
            if len(seen["brokers"]) != len(self._brokers):
                return f"broker {node} sees {len(seen['brokers'])} brokers"
            for name, topic in seen["topics"].items():
                for partition in topic["partitions"]:
                    if len(partition["isr"]) < len(partition["replicas"]) or partition["leader"] < 0:
                        return f"{name}[{partition['partition']}] has {len(partition['isr'])} in sync"
        return None

    def down(self):
        if self._supervisor is None or self._supervisor.poll() is None:
            self._ask("down")
        if self._supervisor:
            self._supervisor.wait()
            self._supervisor.stdin.close()
            self._supervisor.stdout.close()
        else:
            self._await_end()

    def _await_end(self):
        while os.path.exists(f"/proc/{self.supervisor_pid}"):
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.down()

    # Topics.

    def _first(self, request, timeout_s=120):
        addresses = [(each["host"], each["port"]) for each in self._brokers.values() if each["state"] == "running"]
        return wire.first_answer(addresses, timeout_s, request)

    def create_topic(self, name, partitions=4, replication=None, config=None):
        """Returns when every partition has a leader that all running brokers know of, and that serves it."""
        factor = replication or min(3, len(self._brokers))
        self._first(lambda address: wire.create_topic(address, name, partitions, factor, config))
        end = time.monotonic() + 120
        while not (self._led(name, partitions) and self._served(name)):
            if time.monotonic() > end:
                raise ClusterError(f"topic {name} has no leader")
            time.sleep(0.05)

    def _served(self, name):
        """A broker tells who leads a partition before it has made the partition's log."""
        try:
            self.high_watermarks(name)
        except (wire.WireError, ClusterError):
            return False
        return True

    def _led(self, name, partitions):
        for each in self._brokers.values():
            if each["state"] != "running":
                continue
            try:
                topic = wire.metadata((each["host"], each["port"]), [name], timeout_s=3)["topics"][name]
            except (wire.WireError, KeyError):
                return False
            if topic["error"] or sum(found["leader"] >= 0 for found in topic["partitions"]) != partitions:
                return False
        return True

    def delete_topic(self, name):
        self._first(lambda address: wire.delete_topic(address, name))

    def alter_topic(self, name, config):
        self._first(lambda address: wire.alter_topic(address, name, config))

    def create_partitions(self, name, count):
        self._first(lambda address: wire.create_partitions(address, name, count))

    def topics(self):
        """{name: {'error', 'partitions': [...]}}, internal ones included."""
        return self._first(lambda address: wire.metadata(address))["topics"]

    def high_watermarks(self, name):
        """{partition: high watermark}: offsets, control records included."""
        partitions = [each["partition"] for each in self.topics()[name]["partitions"]]
        found = {}
        for each in self._brokers.values():
            if each["state"] == "running":
                found.update(wire.high_watermarks((each["host"], each["port"]), name, partitions))
        if len(found) != len(partitions):
            raise ClusterError(f"no leader for {sorted(set(partitions) - set(found))} of {name}")
        return found
