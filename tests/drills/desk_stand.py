"""A stand of one local process, with a load that sends real requests and a judge that reads the real ledger."""

import http.client
import json
import os
import pathlib
import signal
import threading
import time
from collections import Counter

from chaos.drilling.sampler import Node
from chaos.drilling.stand import Stand, publish_to
from tests.drills import local


class Load:
    def __init__(self, rate):
        self._pause_s = 1 / rate
        self.acked, self.sent, self.failed, self.stopped = [], 0, 0, False
        self._oks = []  # (monotonic ns, ms)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._end.wait(self._pause_s):
            identity = f"event-{self.sent}"
            self.sent += 1
            while not self._send(identity) and not self._end.wait(self._pause_s):
                self.failed += 1

    def _send(self, identity):
        began = time.monotonic_ns()
        connection = http.client.HTTPConnection("127.0.0.1", local.desk.port, timeout=60)
        try:
            connection.request("POST", "/events", identity)
            if connection.getresponse().status != 200:
                return False
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        self.acked.append(identity)
        self._oks.append((time.monotonic_ns(), (time.monotonic_ns() - began) / 1e6))
        return True

    def progress(self):
        return {"sent": self.sent, "failed": self.failed}

    def stop(self):
        self._end.set()
        self._thread.join()

    def close(self):
        self._end.set()

    def seconds(self, start_ns):
        rows = {}
        for at_ns, took_ms in self._oks:
            second = (at_ns - start_ns) // 10**9
            row = rows.setdefault(second, {"t": second, "ok": 0, "failed": 0, "p50_ms": took_ms, "p99_ms": took_ms})
            row["ok"] += 1
            row["p99_ms"] = max(row["p99_ms"], took_ms)
        return [rows[second] for second in sorted(rows)]

    def longest_gap_s(self):
        times = [at_ns for at_ns, _ms in self._oks]
        return max((after - before for before, after in zip(times, times[1:])), default=0) / 1e9


class DeskStand(Stand):
    """`judging`: False when the judge is missing. `published` is what publish() was told."""

    def __init__(self, ledger, judging=True, lacks=None, spool=None, **ways):
        self.ledger, self.judging, self.lacks, self.spool = ledger, judging, lacks, spool
        self.ups = self.downs = 0
        self._ways = ways  # of the desk
        self.killed_while_judging = False
        self.accuses = ""  # what the judge says beyond its figures
        self.published = []

    def missing(self, drill):
        return next((f"{need}: {self.lacks[need]}" for need in drill.needs if need in (self.lacks or {})), None)

    def up(self, drill, say):
        if local.desk is None:
            say("the desk starts")
            self.ups += 1
            local.desk = local.DeskProcess(self.ledger, **self._ways)

    def down(self):
        if local.desk is not None:
            self.downs += 1
            if local.desk.alive:
                local.desk.end()
            local.desk = None

    def close(self):
        self.down()

    def nodes(self):
        return [DeskNode()]

    def place(self):
        return pathlib.Path(self.ledger).parent

    def start_load(self, settings, folder):
        return Load(**settings)

    def judge(self, load, folder, start_ns, fault_ns):
        if self.killed_while_judging:
            os.kill(os.getpid(), signal.SIGTERM)
        if not self.judging:
            raise ImportError("No module named 'chaos.judge'")
        with open(self.ledger, encoding="utf-8") as lines:
            found = Counter(line.strip() for line in lines)
        sent = {f"event-{number}" for number in range(load.sent)}
        attempts = load.sent + load.failed
        return {"seconds": load.seconds(start_ns), "passed": not self.accuses, "why": self.accuses, "figures": {
            "acked": len(load.acked), "lost": sum(not found[each] for each in load.acked), "unseen": 0,
            "doubled": sum(count > 1 for count in found.values()) - self._unanswered(found, load), "reordered": 0,
            "phantom": sum(each not in sent for each in found), "corrupt": 0, "p99_ms": 5.0,
            "availability": len(load.acked) / max(attempts, 1), "rto_s": load.longest_gap_s()}}

    @staticmethod
    def _unanswered(found, load):
        """The desk has no dedupe: an event whose answer was lost in the kill may be there twice."""
        return min(load.failed, sum(count > 1 for count in found.values()))

    def publish(self, verdicts):
        self.published = verdicts
        if self.spool:
            publish_to(self.spool, local.desk.process.pid, verdicts)


class DeskNode(Node):
    """Its address moves when the desk is started again. Who looks at it asks for it."""

    def __init__(self):
        super().__init__("desk", "az-a", "gateway", "")

    def __getattribute__(self, name):
        if name != "address" or local.desk is None:
            return super().__getattribute__(name)
        local.looks += 1
        return local.desk.url


def verdict_of(reports, name):
    return json.loads((reports / f"{name}.json").read_text())
