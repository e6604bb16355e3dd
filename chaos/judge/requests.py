"""Requests as the client's user saw them, out of the attempts in a history.

A request is due at a time, has one or more attempts and ends acknowledged, refused or given up. Everything about time
counts from when it was due, not from when there was room to send it. Times are CLOCK_MONOTONIC in ns.
"""

from array import array
from collections import Counter

NEVER = 0  # of `done`: it was never acknowledged


class Requests:
    """Give `take` to checker.History as its observer, then call finish()."""

    def __init__(self):
        self.due, self.done = array("q"), array("q")
        self.first_ok = bytearray()
        self.failures = array("q")  # when each attempt without a 2xx ended
        self.acks = Counter()       # events by (gateway, second of CLOCK_MONOTONIC)
        self.mono_ns = self.wall_ns = 0  # read together, at the start of the first history
        self._open = {}

    def take(self, row, head):
        if not self.mono_ns or head["mono_ns"] < self.mono_ns:
            self.mono_ns, self.wall_ns = head["mono_ns"], head["wall_ns"]
        if row["i"] != 0:
            return
        due, ok = row.get("td", row["t0"]), row["o"] == "ok"
        if ok and row.get("sm"):
            self.acks[row["sm"].rpartition(".")[0], row["t1"] // 1_000_000_000] += row["n"]
        if not ok:
            self.failures.append(row["t1"])
        # The same event again on purpose is another request, due at another time. Without td an id is all there is.
        name = (row["id"], row.get("td"))
        if row["a"] == 1:
            if ok:
                self._add(due, row["t1"], True)
            else:
                self._open[name] = due
        elif ok and name in self._open:
            self._add(self._open.pop(name), row["t1"], False)

    def _add(self, due, done, first_ok):
        self.due.append(due)
        self.done.append(done)
        self.first_ok.append(first_ok)

    def finish(self):
        for due in self._open.values():
            self._add(due, NEVER, False)
        self._open = {}
        order = sorted(range(len(self.due)), key=self.due.__getitem__)
        self.due = array("q", (self.due[each] for each in order))
        self.done = array("q", (self.done[each] for each in order))
        self.first_ok = bytearray(self.first_ok[each] for each in order)
        self.failures = array("q", sorted(self.failures))
        return self

    def __len__(self):
        return len(self.due)
