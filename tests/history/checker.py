"""Compares what a load client was told (bench/history.h) with what lies in Kafka, and says what is wrong.

| verdict   | rule |
|---|---|
lost       an event was acknowledged and is absent; or the record (stream, seq) that the answer named is, although
           another copy exists
doubled    a (stream, seq) more than once; or more copies of an event than attempts that can have stored it (with
           dedupe: than one; with dedupe "node": than gateways that have one)
resent     copies that came from sending again after no answer; no failure without dedupe, or at another gateway
phantom    an event that nobody sent, or whose every attempt was definitely refused, is present
reordered  within a stream and partition the sluice-seq goes backwards; or, in an ordered history, a key's events that
           one gateway accepted do
corrupt    the payload's CRC32C, or the Kafka key, is not what was sent
holes      a seq between the first and the last one of a stream is in no topic; a failure only where all topics of
           all lanes were read (`whole`)
unseen     acknowledged and absent, but the topics were not read to the end: fails the run, accuses nobody

An event that was sent once more on purpose after an "ok" (x in the history) is judged like any other, but only the
copies that its first answers named have a place in the order of its key.

A history without its last line is of a client that was killed: an event with its run's prefix that is missing in it may
be in Kafka, and is counted as `unlisted`.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field

SAMPLES = 10


class HistoryError(Exception):
    """The history contradicts itself: a bug of the client, or a damaged file."""


@dataclass(slots=True)
class Event:
    run: str
    key: str
    seq: int
    crc32c: int
    ordered: bool
    ok: int = 0
    fail: int = 0
    unknown: int = 0
    again: int = 0  # attempts on purpose after an "ok"
    again_at: list = field(default_factory=list)  # (stream, seq) that their answers named
    acked_at: list = field(default_factory=list)  # (stream, seq) that answers named
    found: list = field(default_factory=list)     # indices into the records


class History:
    """One or several histories together. `events` by id. `observe` is called with each attempt's line and the first
    line of its history, both as dicts."""

    def __init__(self, observe=None):
        self.observe = observe
        self.not_sent = 0  # requests, as the last lines say
        self.events = {}
        self.cut_runs = []  # of clients that were killed
        self.outcomes = Counter()
        self.oks = []  # (sent, answered) of each ok answer's events, ns of CLOCK_MONOTONIC

    def load(self, path):
        with open(path, "rb") as lines:
            self.load_lines(lines, str(path))
        return self

    def load_lines(self, lines, name="history"):
        head, tail = None, None
        counted, seen = Counter(), set()
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break  # a killed client's last write
            row = json.loads(line)
            if head is None:
                if row.get("v") != 1:
                    raise HistoryError(f"{name}:1: not a history of version 1")
                head = row
            elif tail is not None:
                raise HistoryError(f"{name}:{number}: a line after the last one")
            elif row.get("end"):
                tail = row
            else:
                self._attempt(row, head, f"{name}:{number}")
                counted[row["o"]] += 1
                seen.add(row["id"])
        if head is None:
            raise HistoryError(f"{name}: empty")
        self.outcomes.update(counted)
        self.not_sent += tail.get("not_sent", 0) if tail else 0
        if tail is None:
            self.cut_runs.append(head["run"] + "-")
            return
        self._compare_totals(tail, counted, seen, name)

    def _attempt(self, row, head, place):
        event = self.events.get(row["id"])
        if event is None:
            event = self.events[row["id"]] = Event(head["run"], row["k"], row["s"], row["c"],
                                                            bool(head.get("ordered")))
        elif (event.key, event.seq, event.crc32c) != (row["k"], row["s"], row["c"]):
            raise HistoryError(f"{place}: event {row['id']} was sent with other bytes before")
        if self.observe:
            self.observe(row, head)
        outcome, again = row["o"], bool(row.get("x"))
        event.again += again
        if outcome == "ok":
            event.ok += 1
            self.oks.append((row["t0"], row["t1"]))
            if row.get("sm") is not None and row.get("f") is not None and row.get("d") == 0:
                (event.again_at if again else event.acked_at).append((row["sm"], row["f"] + row["i"]))
        elif outcome == "fail":
            event.fail += 1
        elif outcome == "unknown":
            event.unknown += 1
        else:
            raise HistoryError(f"{place}: outcome {outcome!r}")

    def _compare_totals(self, tail, counted, seen, name):
        acked = sum(self.events[each].ok > 0 for each in seen)
        real = {"attempts": sum(counted.values()), "ok": counted["ok"], "fail": counted["fail"],
                "unknown": counted["unknown"], "events": len(seen), "acked": acked}
        for what, count in real.items():
            if tail[what] != count:
                raise HistoryError(f"{name}: the last line says {what} {tail[what]}, the lines before it {count}")

    def oks_by_window(self, start_ns, end_ns, window_s=1):
        """How many ok answers came in each whole window inside an interval of CLOCK_MONOTONIC."""
        length = int(window_s * 1_000_000_000)
        counts = [0] * ((end_ns - start_ns) // length)
        for _sent, answered in self.oks:
            index = (answered - start_ns) // length
            if 0 <= index < len(counts):
                counts[index] += 1
        return counts


class Verdict:
    COUNTS = ("lost", "doubled", "resent", "phantom", "reordered", "corrupt", "unseen", "holes", "unlisted")

    def __init__(self, whole):
        self.acked = self.attempts = self.records = self.streams = 0
        self.open_found = self.open_absent = 0  # events without an "ok" whose outcome is unknown
        self.counts = Counter()
        self.samples = defaultdict(list)
        self.problems = []  # of the run itself
        self.failing = {"lost", "doubled", "phantom", "reordered", "corrupt", "unseen", *(["holes"] if whole else [])}

    def add(self, what, sample, times=1):
        self.counts[what] += times
        if len(self.samples[what]) < SAMPLES:
            self.samples[what].append(sample)

    @property
    def passed(self):
        return not self.problems and not any(self.counts[each] for each in self.failing)

    def line(self):
        shown = " ".join(f"{each}={self.counts[each]}" for each in self.COUNTS[:6])
        extra = "".join(f" {each}={self.counts[each]}" for each in self.COUNTS[6:] if self.counts[each])
        return f"{'PASS' if self.passed else 'FAIL'} acked={self.acked} {shown}{extra}"

    def why(self):
        """One line for a report: the problems and one sample of each failing verdict."""
        return "; ".join(self.problems + [f"{each}: {self.samples[each][0]}" for each in sorted(self.failing)
                                          if self.counts[each]])

    def as_json(self):
        return {"passed": self.passed, "acked": self.acked, "attempts": self.attempts, "records": self.records,
                "streams": self.streams, "open_found": self.open_found, "open_absent": self.open_absent,
                **{each: self.counts[each] for each in self.COUNTS}, "problems": self.problems,
                "samples": {name: found for name, found in self.samples.items() if found}}


def check(history, records, dedupe=False, whole=False, complete=True, min_acked=1):
    """`records`: in the order of offsets within each partition. `complete`: read to the end, with nothing pending.
    `dedupe`: False, True, or "node": each gateway of a cell stores an event once."""
    records = list(records)
    verdict = Verdict(whole)
    verdict.records, verdict.attempts = len(records), sum(history.outcomes.values())
    for event in history.events.values():
        event.found = []
    places = _walk_records(history, records, verdict)
    for event_id, event in history.events.items():
        nodes = {_node(records[index].stream) for index in event.found}
        copies_max = len(nodes) if dedupe == "node" else 1 if dedupe else len(event.found)
        _judge_event(event_id, event, places, verdict, copies_max, complete)
    _check_keys(history, records, places, verdict)
    verdict.acked = sum(event.ok > 0 for event in history.events.values())
    if verdict.acked < min_acked:
        verdict.problems.append(f"only {verdict.acked} events were acknowledged, {min_acked} are needed")
    if not complete:
        verdict.problems.append("the topics were not read to the end")
    return verdict


def _walk_records(history, records, verdict):
    """What records say by themselves: order and uniqueness of seqs, content. Returns {(stream, seq): index}."""
    places, last = {}, {}
    for index, record in enumerate(records):
        where = f"{record.topic}[{record.partition}]@{record.offset}"
        place, repeated = (record.stream, record.seq), False
        if record.stream is None or record.seq is None:
            verdict.problems.append(f"{where} has no sluice-stream or sluice-seq")
        elif place in places:
            verdict.add("doubled", f"{record.stream}/{record.seq} at {where} and before")
            repeated = True
        else:
            places[place] = index
            line = (record.topic, record.partition, record.stream)
            if last.get(line, 0) >= record.seq:
                verdict.add("reordered", f"{where}: {record.stream}/{record.seq} after {last[line]}")
            last[line] = record.seq
        _match(history, record, None if repeated else index, where, verdict)
    _count_holes(places, verdict)
    return places


def _match(history, record, index, where, verdict):
    event = history.events.get(record.event_id)
    if event is None:
        if record.event_id and any(record.event_id.startswith(run) for run in history.cut_runs):
            verdict.add("unlisted", f"{record.event_id} at {where}")
        else:
            verdict.add("phantom", f"{record.event_id} at {where} was never sent")
        return
    if index is not None:  # a copy of its own, not the same record once more
        event.found.append(index)
    if record.crc32c != event.crc32c:
        verdict.add("corrupt", f"{record.event_id} at {where}: CRC32C {record.crc32c}, sent {event.crc32c}")
    elif record.key != event.key:
        verdict.add("corrupt", f"{record.event_id} at {where}: key {record.key!r}, sent {event.key!r}")


def _count_holes(places, verdict):
    seqs = defaultdict(list)
    for stream, seq in places:
        seqs[stream].append(seq)
    verdict.streams = len(seqs)
    for stream, found in seqs.items():
        missing = max(found) - min(found) + 1 - len(found)
        if missing:
            present = set(found)
            first = next(seq for seq in range(min(found), max(found)) if seq not in present)
            verdict.add("holes", f"{stream} lacks {missing} seqs, the first is {first}", missing)


def _judge_event(event_id, event, places, verdict, copies_max, complete):
    copies, possible = len(event.found), event.ok + event.unknown
    if event.ok and copies == 0:
        verdict.add("lost" if complete else "unseen", event_id)
    else:
        for place in event.acked_at + event.again_at:
            if place not in places:
                verdict.add("lost" if complete else "unseen", f"{event_id} was acknowledged as {place[0]}/{place[1]}")
    if event.unknown and not event.ok:
        verdict.open_found += copies > 0
        verdict.open_absent += copies == 0
    if copies and not possible:
        verdict.add("phantom", f"{event_id} was refused by every attempt")
    elif copies > 1:
        allowed = max(1, min(copies_max, possible))
        if copies > allowed:
            verdict.add("doubled", f"{event_id} is there {copies} times after {possible} attempts", copies - allowed)
        if allowed > 1:
            verdict.add("resent", event_id, allowed - 1)


def _node(stream):
    return (stream or "").rpartition(".")[0]


def _check_keys(history, records, places, verdict):
    """At most one event of a key was outstanding: the acknowledged copy of one lies before any copy of a later one.
    Order is promised among what one gateway accepted: with several, each one's copies are compared with each other."""
    keys = defaultdict(list)
    for event_id, event in history.events.items():
        if not event.ordered or not event.ok:
            continue
        named = {places[place] for place in event.acked_at if place in places}
        copies = defaultdict(list)
        for index in event.found if not event.again else named.intersection(event.found):
            copies[records[index].topic, records[index].partition, _node(records[index].stream)].append(index)
        for (topic, partition, node), found in copies.items():
            here = named.intersection(found)
            # A copy whose gateway never acknowledged it, of an event that another one did, may come at any time.
            acked = max(here) if here else -1 if len(copies) > 1 else min(found)
            keys[event.run, event.key, topic, partition, node].append((event.seq, min(found), acked, event_id))
    for (_run, key, topic, partition, _node_name), events in keys.items():
        events.sort()
        before = -1
        for _seq, first, acked, event_id in events:
            if first < before:
                here, there = records[first], records[before]
                verdict.add("reordered", f"key {key} in {topic}[{partition}]: {event_id} at {here.offset} before "
                                         f"{there.event_id} at {there.offset}")
            before = max(before, acked)
