"""The servers that are compared, and what they cost: started as child processes, measured from /proc."""

import os
import pathlib
import shutil
import socket
import subprocess
import threading

from tests.lib import processes
from tests.lib.gateway import Gateway
from tests.lib.places import temporary_directory
from tests.lib.waiting import until

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement could not be made; the text says why."""


def cpu_seconds(pid):
    """User and system time of all threads of a process, ended ones included (proc(5), fields 14 and 15)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


class Usage:
    """What a process used between `with` and its end: cpu_s, and the peak of RssAnon, sampled ten times a second."""

    def __init__(self, pid):
        self.pid, self.cpu_s, self.rss_anon_mib = pid, 0.0, 0.0
        self._end = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while True:
            try:
                self.rss_anon_mib = max(self.rss_anon_mib, processes.resident_kib(self.pid) / 1024)
            except OSError:
                return
            if self._end.wait(0.1):
                return

    def __enter__(self):
        self._before = cpu_seconds(self.pid)
        self._sampler.start()
        return self

    def __exit__(self, *_exception):
        self._end.set()
        self._sampler.join()
        try:
            self.cpu_s = cpu_seconds(self.pid) - self._before
        except OSError as error:
            raise BenchError("the server ended during the measurement") from error


class Bare:
    """bare-h2o: the same answer, nothing else done."""

    name = "bare h2o"

    def __init__(self, build, threads):
        self._command = [build / "bench" / "bare-h2o", "-t", threads]

    def __enter__(self):
        self._process = processes.spawn(self._command, stdout=subprocess.PIPE, text=True)
        words = self._process.stdout.readline().split()
        if len(words) != 2 or words[0] != "port":
            raise BenchError("bare-h2o does not start")
        self.pid, self.url = self._process.pid, f"http://127.0.0.1:{words[1]}/v1/events/payments"
        return self

    def __exit__(self, *_exception):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def check(self, acked):
        """Nothing can be wrong with a server that does nothing."""


def budget_mib(directory, shares=1):
    """For a spool that is one of so many on this disk."""
    return min(shutil.disk_usage(directory).free * 2 // 3 // shares, 64 << 30) >> 20


DEDUPE_ON, DEDUPE_OFF = {"window": "24h", "memory": "1GiB"}, {"window": 0}


class Sluice:
    """sluice serve with one source; a fresh spool each time, on the disk that is measured. `dedupe`: "on" or "off"."""

    name = "Sluice"

    def __init__(self, binary, threads, spool_root, brokers, topic="payments.events", properties=None, dedupe="off"):
        self._dedupe = dict(DEDUPE_ON if dedupe == "on" else DEDUPE_OFF)
        self._binary, self._threads, self._root = binary, threads, spool_root
        self._brokers, self._topic, self._properties = brokers, topic, properties or {}

    def __enter__(self):
        self._home = pathlib.Path(temporary_directory("bench") if self._root is None else self._root / "sluice-bench")
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        os.sync()  # the blocks that the run before has freed are not to be paid for by this one
        self.gateway = Gateway(self._binary, self._home, self._brokers, {"payments": {"topic": self._topic}}, {
            "listen": {"threads": self._threads},
            "kafka": {"properties": self._properties} if self._properties else {},
            "spool": {"segment": "256MiB", "max": f"{budget_mib(self._home)}MiB", "retain": "0s"},
            "dedupe": self._dedupe,
        })
        self.gateway.start()
        self.pid, self.url = self.gateway.pid, self.gateway.url("payments")
        if self._dedupe["window"]:
            # It takes the window's memory from the system in its first second, which is no part of an event's cost.
            until(lambda: processes.resident_kib(self.pid) > 1000 << 10, "the window's memory is not taken", 60)
        return self

    def __exit__(self, *_exception):
        # Not stop(): it would wait for a Kafka that is frozen on purpose.
        self.gateway.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def check(self, acked):
        """What was acknowledged is what Sluice has counted; its own sums hold."""
        accepted = self.gateway.metric("sluice_events_total", source="payments", outcome="accepted")
        if accepted < acked:
            raise BenchError(f"{acked} events were acknowledged, Sluice counts {accepted:.0f} as accepted")
        wrong = self.gateway.metric("sluice_conservation_error")
        if wrong != 0:
            raise BenchError(f"sluice_conservation_error is {wrong:g}")


class FrozenKafka:
    """Kafka that never answers: a listener that accepts and says nothing, as a broker under SIGSTOP does, without the
    memory and the start-up of one."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._held = []
        self.bootstrap = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        while True:
            try:
                self._held.append(self._listener.accept()[0])
            except OSError:
                return

    def __exit__(self, *_exception):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._held:
            each.close()


class StoppedBrokers:
    """The same with three real brokers under SIGSTOP."""

    def __enter__(self):
        from tests.kafka import Cluster
        self._cluster = Cluster(3)
        try:
            self._cluster.create_topic("payments.events", 12, 3, {"min.insync.replicas": "2"})
            for node in self._cluster.nodes:
                self._cluster.stop(node)
        except BaseException:
            self._cluster.down()
            raise
        self.bootstrap = self._cluster.bootstrap
        return self

    def __exit__(self, *_exception):
        for node in self._cluster.nodes:
            self._cluster.cont(node)
        self._cluster.down()
