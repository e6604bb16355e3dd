"""Clients that remember what they were told: the load client, and a small one for single requests.

Both write histories as bench/history.h describes them."""

import base64
import http.client
import json
import os
import random
import signal
import subprocess
import time

from tests.lib import processes
from tests.lib.report import Failure

_TABLE = []
for _index in range(256):
    _value = _index
    for _ in range(8):
        _value = (_value >> 1) ^ (0x82F63B78 if _value & 1 else 0)
    _TABLE.append(_value)


def crc32c(data):
    """Some five MB a second: for the small client's events, not for load."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


class Load:
    """bench's sluice-load in the background."""

    def __init__(self, build, url, history, *options):
        self.history, self.lines_path, self.summary = history, f"{history}.lines", None
        with open(self.lines_path, "wb") as lines:
            command = [f"{build}/bench/sluice-load", "--history", history, "--interval", "1", *options, url]
            self.process = processes.spawn(command, stdout=subprocess.PIPE, stderr=lines)

    @property
    def running(self):
        return self.process.poll() is None

    def stop(self):
        """Ends sending; does not wait for what is outstanding, wait() does."""
        if self.running:
            self.process.send_signal(signal.SIGINT)

    def wait(self):
        """The summary. Exit codes other than 0 and 3 (no 2xx at all) are failures of the client."""
        if self.summary is not None:
            return self.summary
        out, _ = self.process.communicate()
        if self.process.returncode not in (0, 3):
            with open(self.lines_path) as lines:
                raise Failure(f"sluice-load ended with {self.process.returncode}: {lines.read()[-500:]}")
        self.summary = json.loads(out)
        return self.summary

    def close(self):
        if self.running:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Client:
    """One connection of HTTP/1.1, one request at a time; every attempt becomes a line of history."""

    def __init__(self, gateway, history, ordered=True):
        self.gateway, self.path = gateway, str(history)
        self.run = f"{random.getrandbits(32):08x}"
        self.counter, self.seqs = 0, {}
        self.totals, self.ids = {"attempts": 0, "ok": 0, "fail": 0, "unknown": 0}, {}
        self._connection = None
        self._file = open(self.path, "w", encoding="utf-8")
        self._line({"v": 1, "run": self.run, "source_url": gateway.url("*"), "wall_ns": time.time_ns(),
                    "mono_ns": time.monotonic_ns(), "events_per_request": 1, "ordered": ordered, "retry": False})

    def _line(self, row):
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()

    def make(self, key="acc_00000001", size=200, namespace=""):
        """An event of that size. `namespace` keeps the sequences of sources apart that share keys."""
        self.counter += 1
        seq = self.seqs[namespace, key] = self.seqs.get((namespace, key), 0) + 1
        event = {"event_id": f"{self.run}-{self.counter:012}", "account_id": key, "seq": seq, "pad": ""}
        room = max(0, size - len(json.dumps(event)))
        event["pad"] = base64.b64encode(random.randbytes(room))[:room].decode()  # compression must not make it small
        body = json.dumps(event).encode()
        return {"id": event["event_id"], "key": key, "seq": seq, "body": body, "crc": crc32c(body), "attempt": 0,
                "namespace": namespace}

    def post(self, source, event, timeout_s=60):
        """(status, headers, answer); status 0 when there was no answer."""
        event["attempt"] += 1
        started = time.monotonic_ns()
        status, headers, answer, cause = 0, {}, None, "lost"
        try:
            if self._connection is None:
                cause = "connect"
                self._connection = http.client.HTTPConnection("127.0.0.1", self.gateway.ingest_port, timeout=timeout_s)
                self._connection.connect()
                cause = "lost"
            self._connection.request("POST", f"/v1/events/{source}", event["body"],
                                     {"content-type": "application/json"})
            response = self._connection.getresponse()
            raw = response.read()
            status, headers = response.status, {name.lower(): value for name, value in response.getheaders()}
            answer = json.loads(raw) if "json" in headers.get("content-type", "") else raw
        except (OSError, http.client.HTTPException) as error:
            cause = "timeout" if isinstance(error, TimeoutError) else cause
            self.disconnect()
        self._remember(event, started, status, cause, answer)
        return status, headers, answer

    def _remember(self, event, started, status, cause, answer):
        outcome = "ok" if 200 <= status < 300 else "fail" if 400 <= status < 500 else "unknown"
        row = {"id": event["id"], "k": event["key"], "s": event["seq"], "c": event["crc"], "a": event["attempt"],
               "t0": started, "t1": time.monotonic_ns(), "o": outcome, "st": status, "i": 0, "n": 1}
        if status == 0:
            row["e"] = cause
        if outcome == "ok":
            row.update(sm=answer["stream"], f=answer["first_seq"], l=answer["last_seq"], d=answer["duplicates"])
        self._line(row)
        self.totals["attempts"] += 1
        self.totals[outcome] += 1
        self.ids.setdefault(event["id"], set()).add(outcome)

    def disconnect(self):
        if self._connection:
            self._connection.close()
            self._connection = None

    def close(self):
        """Ends the history with its totals."""
        self.disconnect()
        if self._file.closed:
            return
        fates = ["acked" if "ok" in found else "open" if "unknown" in found else "refused"
                 for found in self.ids.values()]
        self._line({"end": True, **self.totals, "events": len(fates),
                    **{fate: fates.count(fate) for fate in ("acked", "refused", "open")}})
        self._file.close()


def first_answer_ns(gateway, client, source, timeout_s=180):
    """Posts one event until the first 200; returns CLOCK_MONOTONIC then."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        status, _headers, _answer = client.post(source, client.make(key="acc_first"))
        if status == 200:
            return time.monotonic_ns()
        gateway.check_alive()
        time.sleep(0.002)
    raise Failure(f"no 200 within {timeout_s} s: {gateway.log_tail()}")


def environment_build():
    """(build directory, gateway binary) as the runner names them."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    build = os.environ.get("SLUICE_BUILD") or os.path.join(root, "build-test")
    return build, os.environ.get("SLUICE_BINARY") or os.path.join(build, "sluice")
