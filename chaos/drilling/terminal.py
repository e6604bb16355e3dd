"""Live progress: one line a second at most, rewritten in place on a terminal, and only changes of phase elsewhere."""

import sys
import threading

from chaos.drilling import series
from chaos.drilling.sampler import SILENT


class Progress:
    def __init__(self, name, out=None, live=None):
        self.name, self.out = name, out or sys.stderr
        self.live = self.out.isatty() if live is None else live
        self.phase, self._width = "starting", 0
        self._sampler = self._load = None
        self._end, self._thread = threading.Event(), None
        self._lock = threading.Lock()

    def say(self, phase):
        """A new phase: told at once."""
        with self._lock:
            self.phase = phase
            if not self.live:
                self.out.write(f"{self.name}: {phase}\n")
                self.out.flush()
            else:
                self._draw()

    def watch(self, sampler, load=None):
        self._sampler, self._load = sampler, load
        if self.live and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def close(self):
        self._end.set()
        if self._thread:
            self._thread.join()
        if self.live and self._width:
            self.out.write("\r" + " " * self._width + "\r")
            self.out.flush()

    def _run(self):
        while not self._end.wait(1):
            with self._lock:
                self._draw()

    def text(self):
        parts = [f"{self.name} {self._sampler.now_s():4.0f}s" if self._sampler else self.name, self.phase]
        if self._sampler:
            samples = self._sampler.samples[-60:]
            whole = series.seconds(samples)
            now = whole[-2] if len(whole) > 1 else whole[-1] if whole else None  # the newest second is not over yet
            if now:
                p99 = "–" if now["p99_ms"] is None else f"≤ {now['p99_ms']:.0f} ms"
                parts.append(f"{now['ok']:.0f}/s · p99 {p99}")
            latest = self._sampler.latest()
            pending = series.pending_now(latest)
            parts.append("pending ?" if pending is None else f"pending {pending}")
            silent = [each["node"] for each in latest.values() if each["state"] == SILENT]
            if silent:
                parts.append("silent: " + " ".join(sorted(silent)))
        progress = self._load.progress() if self._load else None
        if progress:
            parts.append(f"sent {progress.get('sent', 0)} failed {progress.get('failed', 0)}")
        return " · ".join(parts)

    def _draw(self):
        line = self.text()[:160]
        self.out.write("\r" + line.ljust(self._width))
        self.out.flush()
        self._width = len(line)
