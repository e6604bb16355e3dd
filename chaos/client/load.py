"""sluice-sender against the cluster's balancer.

    load = Load(cluster, folder, rate=1500, batch=5)    settings: options of the sender, underscores for dashes
    load.start(); load.progress(); load.stop()

It sends until stop(). The folder then has history.jsonl, live.jsonl and summary.json. The name of each run is noted in
the cluster's directory, so that a judge can tell the events of earlier runs from events that nobody sent.
"""

import json
import os
import pathlib
import secrets
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = "load-runs"
FOR_GOOD_S = 86400
STOP_S = 150  # more than the 60 s after which a request is given up


class LoadError(Exception):
    """The client did not run as it should."""


def build_directory():
    return pathlib.Path(os.environ.get("SLUICE_BUILD") or ROOT / "build")


def runs(directory):
    """The names of all runs against the cluster in this directory."""
    path = pathlib.Path(directory) / RUNS
    return path.read_text().split() if path.exists() else []


class Load:
    def __init__(self, cluster, folder, **settings):
        self.folder, self.settings = pathlib.Path(folder), {"seconds": FOR_GOOD_S, **settings}
        self.run = self.settings.setdefault("run", secrets.token_hex(4))
        self.history, self.live, self.summary = self.folder / "history.jsonl", self.folder / "live.jsonl", None
        self.urls = self.settings.pop("urls", None) or [f"{cluster.balancer_url}/v1/events/{cluster.source}"]
        self.runs_path = pathlib.Path(cluster.dir) / RUNS
        self.process, self._offset, self._totals = None, 0, {"sent": 0, "acked": 0, "failed": 0, "unknown": 0}

    def start(self):
        """Returns when the first second has passed, or raises LoadError."""
        sender = build_directory() / "chaos" / "client" / "sluice-sender"
        words = [sender, "--history", self.history, "--live", self.live]
        for name, value in self.settings.items():
            words += [f"--{name.replace('_', '-')}", value]
        with open(self.runs_path, "a", encoding="ascii") as names:
            names.write(self.run + "\n")
        with open(self.folder / "sender.log", "wb") as log:
            self.process = subprocess.Popen([str(word) for word in words + self.urls], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=log)
        while not self.live.exists() or self.live.stat().st_size == 0:
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise LoadError(f"sluice-sender ended with {self.process.returncode}: {self._log()}")

    def _log(self):
        return " ".join((self.folder / "sender.log").read_text(errors="replace").split())[-400:]

    def progress(self):
        """Totals so far: requests sent, events acknowledged, events in attempts that were refused or had no answer.
        None before the first second has passed."""
        if self.live.exists():
            with open(self.live, "rb") as lines:
                lines.seek(self._offset)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    row = json.loads(line)
                    self._totals["sent"] += row["requests"]
                    self._totals["acked"] = row["acked"]
                    self._totals["failed"] += row["failed"] + row["unknown"]
                    self._totals["unknown"] += row["unknown"]
        return dict(self._totals) if self._offset else None

    def stop(self):
        """Ends sending and waits for what is outstanding. The summary; LoadError when the client failed."""
        if self.summary is not None or self.process is None:
            return self.summary
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            out, _ = self.process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise LoadError(f"sluice-sender did not end within {STOP_S} s") from None
        if self.process.returncode not in (0, 3):
            raise LoadError(f"sluice-sender ended with {self.process.returncode}: {self._log()}")
        self.summary = json.loads(out)
        (self.folder / "summary.json").write_text(json.dumps(self.summary, indent=1) + "\n")
        return self.summary

    def close(self):
        """However it went: no process stays."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
