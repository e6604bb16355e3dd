#!/usr/bin/python3
"""Driven drains against three real brokers: the steps of a takeover one by one, by several processes, which are killed,
frozen and fenced between them; what read_committed readers see is compared with what the spools took.

    tests/produce/driven_brokers.py [--seed N] [--join DIR] [SCENARIO ...]

Needs SLUICE_BUILD (a build directory with tests/produce/driven-tool) and kcat. Prints the runner's protocol.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.lib import report, waiting  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402
from tests.produce.real_brokers import arguments, read, run_all  # noqa: E402

TOOL = pathlib.Path(os.environ.get("SLUICE_BUILD", ROOT / "build-test")) / "tests/produce/driven-tool"


class Drainer:
    """One run of driven-tool. It ends when its stdin does, so it never outlives the test."""

    def __init__(self, stand, name, *arguments):
        self.stand, self.directory = stand, stand.directory(name)
        self.log = f"{stand.top}/{name}.log"
        self.out = open(self.log, "ab+")
        self.begin = self.out.seek(0, os.SEEK_END)
        self.tickets, self.offset, self.seen = 0, self.begin, []
        command = [TOOL, "-d", self.directory, "-b", stand.cluster.bootstrap, "-t", stand.topic, "-n", name, "-R",
                   stand.name, "-f", stand.counter, *arguments]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=self.out,
                                        stderr=self.out, text=True)
        stand.drainers.append(self)
        self.stream = self.until(lambda d: d.find("stream", lambda l: len(l) == 1), "the spool is open")["stream"]

    def lines(self):
        with open(self.log, "rb") as again:
            again.seek(self.offset)
            data = again.read()
        whole = data[:data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            try:
                self.seen.append(json.loads(line))
            except ValueError:
                pass
        return self.seen

    def find(self, key, fits=lambda _line: True):
        return next((line for line in reversed(self.lines()) if key in line and fits(line)), None)

    def until(self, condition, what, timeout_s=180):
        def met():
            found = condition(self)
            report.expect(found or self.process.poll() is None, f"driven-tool ended while waiting for: {what}")
            return found
        return waiting.until(met, lambda: f"{what}: {self.lines()[-3:]}", timeout_s)

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def append(self, count):
        before = self.stand.counter
        self.stand.counter += count
        self.send("append", count)
        end = self.until(lambda d: d.find("appended", lambda l: l["appended"] == before + count), "appended")["end"]
        self.stand.acked.extend(range(before, before + count))
        return end

    def order(self, step, stream, *numbers):
        self.tickets += 1
        self.send(step, stream, self.tickets, *numbers)
        return self.tickets

    def answer(self, ticket, timeout_s=180):
        return self.until(lambda d: d.find("done", lambda l: l["ticket"] == ticket), f"answer {ticket}", timeout_s)

    def do(self, step, stream, *numbers, result="ok", timeout_s=180):
        done = self.answer(self.order(step, stream, *numbers), timeout_s)
        report.expect(done["result"] == result and done["done"] == step, f"{step}: {done}")
        return done

    def claim(self, stream):
        """INIT, READ, CLAIM. Returns (through, claim)."""
        def init():
            """The first one of a cluster makes sluice.progress, and says so until all brokers have heard of it."""
            done = self.answer(self.order("init", stream))
            return None if "was created just now" in done["trouble"] else done
        done = self.until(lambda _: init(), "sluice.progress is there")
        report.expect(done["result"] == "ok", f"init: {done}")
        found = self.do("read", stream)
        self.do("claim", stream, found["at"], found["claim"] + 1)
        return found["at"], found["claim"] + 1

    def drain(self, stream, last):
        """All steps for a stream that is written no more."""
        through, claim = self.claim(stream)
        done = self.do("records", stream, through + 1, last)
        report.expect(done["through"] == last, done)
        self.do("close", stream, last, claim)
        self.send("release", stream)
        return through, claim

    def committed(self, stream, through, timeout_s=180):
        self.until(lambda d: d.find("committed", lambda l: l["stream"] == stream and l["committed"] >= through),
                   f"{stream} committed through {through}", timeout_s)

    def progress(self, stream):
        return [line for line in self.lines() if "progress" in line and line["stream"] == stream]

    def figures(self):
        count = len([line for line in self.lines() if "pending" in line])
        self.send("figures")
        self.until(lambda d: len([line for line in d.lines() if "pending" in line]) > count, "figures")
        return self.find("pending")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=0):
        self.send("stop", seconds)
        report.expect(self.process.wait(180) == 0, "driven-tool ended badly")
        report.expect(self.find("stopped"), "not stopped")


class Stand:
    """A topic, spool directories by node, and the counters of events that were durable."""

    def __init__(self, cluster, options, name, create=True):
        self.cluster, self.name, self.topic = cluster, name, f"{name}-{options.seed:x}"
        self.top = temporary_directory(f"driven-{name}")
        self.counter, self.acked, self.drainers = 0, [], []
        if create:
            cluster.create_topic(self.topic, 4)

    def directory(self, node):
        return f"{self.top}/{node}"

    def copy(self, stream, of, to):
        """A stream's files as another node's copy: it is found there as an older stream. Not what is being written:
        the owner may live, and its next look renames that."""
        shutil.copytree(f"{self.directory(of)}/{stream}", f"{self.directory(to)}/{stream}",
                        ignore=shutil.ignore_patterns("note-*", "progress", "*.tmp"))

    def check(self, complete=True):
        """Exactly once, every acknowledged event, each stream in its order within a partition."""
        seen, last = {}, {}
        records = read(self.cluster, self.topic)
        for partition, offset, headers, _length in sorted(records):
            place = headers["sluice-stream"], int(headers["sluice-seq"])
            report.expect(place not in seen, f"{place} twice: {seen.get(place)} and {(partition, offset)}")
            report.expect(headers["sluice-stream"].startswith(headers["sluice-node"] + "."), headers)
            seen[place] = partition, offset
            before = last.get((partition, place[0]), 0)
            report.expect(before < place[1], f"partition {partition}: {place} after {before}")
            last[partition, place[0]] = place[1]
        counters = [int(headers["event_id"].rsplit("-", 1)[1]) for _p, _o, headers, _l in records]
        missing = sorted(set(self.acked) - set(counters))
        report.expect(not complete or not missing, f"{len(missing)} events are missing, the first is {missing[:1]}")
        report.note(f"{len(self.acked)} acknowledged, {len(records)} read, {len(missing)} missing, 0 doubled")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_rest):
        for drainer in self.drainers:
            drainer.kill()
            drainer.out.close()
        if kind is None:
            shutil.rmtree(self.top)
        else:
            report.note(f"kept: {self.top}")


def life(cluster, options):
    """A stream from its first record to its tombstone: followed, left to the next process, closed, removed."""
    with Stand(cluster, options, "life") as stand:
        first = Drainer(stand, "gw-t1")
        stream = first.stream
        first.append(1500)
        through, claim = first.claim(".")
        report.expect((through, claim) == (0, 1), (through, claim))
        first.order("records", ".", 1, 0)
        first.committed(stream, 1500)
        end = first.append(1000)
        first.committed(stream, end)
        first.send("release", ".")
        found = first.do("look", ".")
        report.expect(found["at"] == end and found["drainer"] == stream and not found["closed"], found)
        end = first.append(500)
        first.stop()

        second = Drainer(stand, "gw-t1")
        report.expect(second.drain(stream, end) == (end - 500, 2), "the second process went on elsewhere")
        second.until(lambda d: d.progress(stream) and d.progress(stream)[-1]["closed"], "closed is seen")
        second.until(lambda d: d.figures()["pending"] == 0, "everything is counted")
        report.expect(second.figures()["conservation_error"] == 0, second.figures())
        seen = second.progress(stream)
        report.expect([line["claim"] for line in seen] == sorted(line["claim"] for line in seen), "claims went back")
        second.send("tombstone", stream)
        second.until(lambda d: d.progress(stream)[-1]["gone"], "the tombstone is seen")
        found = second.do("look", stream)
        report.expect(not found["found"] and found["at"] == 0, found)
        third = Drainer(stand, "gw-t2")
        third.until(lambda d: d.progress(stream) and d.progress(stream)[-1]["gone"], "seen by one who came later")
        stand.check()


def kills(cluster, options):
    """kill -9 behind every step; the next process goes on."""
    with Stand(cluster, options, "kills") as stand:
        # Short transactions and many records, so that a range takes several of them.
        process = Drainer(stand, "gw-t1", "-m", 20)
        stream, end, claims = process.stream, process.append(60000), []

        def begin():
            process.kill()
            return Drainer(stand, "gw-t1", "-m", 20)

        process = begin()
        process.do("init", stream)
        process = begin()
        process.do("init", stream)
        process.do("read", stream)
        process = begin()
        claims.append(process.claim(stream))
        for _turn in range(3):  # in the middle of a range
            process = begin()
            through, claim = process.claim(stream)
            claims.append((through, claim))
            if through == end:
                break  # before the kill came
            process.order("records", stream, through + 1, end)
            process.until(lambda d: d.find("committed", lambda l: l["committed"] > through), "something is committed")
        process = begin()
        through, claim = process.claim(stream)
        claims.append((through, claim))
        report.expect(any(0 < through < end for through, _claim in claims), "no kill was in the middle of a range")
        process.do("records", stream, through + 1, end)
        process = begin()
        through, claim = process.claim(stream)
        claims.append((through, claim))
        report.expect(through == end, f"{through} of {end}")
        process.do("close", stream, end, claim)
        process = begin()
        process.do("init", stream)
        found = process.do("read", stream)
        report.expect(found["at"] == end and found["closed"], found)
        process.send("release", stream)
        process.stop()
        report.note(f"(through, claim): {claims}")
        report.expect([claim for _through, claim in claims] == list(range(1, len(claims) + 1)), "claims have gaps")
        stand.check()


def rivals(cluster, options):
    """Two drainers of one stream: the later one fences, the earlier one is told so, and sees by whom."""
    with Stand(cluster, options, "rivals") as stand:
        owner = Drainer(stand, "gw-t1", "-m", 100)
        stream = owner.stream
        owner.append(3000)
        owner.claim(".")
        follow = owner.order("records", ".", 1, 0)
        owner.committed(stream, 3000)
        stand.copy(stream, "gw-t1", "gw-t2")
        rival = Drainer(stand, "gw-t2", "-m", 100)
        through, claim = rival.claim(stream)
        report.expect((through, claim) == (3000, 2), (through, claim))
        end = owner.append(500)  # beyond the rival's copy
        done = owner.answer(follow)
        report.expect(done["result"] == "fenced", done)
        owner.send("release", ".")
        found = owner.do("look", ".")
        report.expect(found["drainer"] == rival.stream and found["claim"] == 2, found)
        done = rival.do("records", stream, 3001, 3000)
        report.expect(done["through"] == 3000, done)
        # Whoever has more takes it back, and so on, each time the other one is fenced; the last one wins.
        through, claim = owner.claim(stream)
        follow = owner.order("records", ".", through + 1, 0)
        owner.committed(stream, end)
        found = rival.do("close", stream, 3000, 2, result="fenced")
        found = rival.do("look", stream)
        report.expect(found["drainer"] == stream and found["at"] == end, found)
        # A rival that has fenced and not claimed yet.
        rival.do("init", stream)
        owner.append(10)
        done = owner.answer(follow)
        report.expect(done["result"] == "fenced", done)
        found = owner.do("look", ".")
        report.expect(found["drainer"] == stream and found["claim"] == claim, found)
        rival.send("release", stream)
        through, claim = owner.claim(".")
        owner.order("records", ".", through + 1, 0)
        owner.committed(stream, end + 10)
        stand.check()


def foreign(cluster, options):
    """A dead node's stream, drained from a copy in another node's spool; then the node itself comes back."""
    with Stand(cluster, options, "foreign") as stand:
        owner = Drainer(stand, "gw-t1")
        stream = owner.stream
        through, claim = owner.claim(".")
        owner.order("records", ".", 1, 0)
        owner.append(2000)
        owner.committed(stream, 2000)
        owner.send("release", ".")
        owner.do("look", ".")
        end = owner.append(1500)
        owner.kill()
        stand.copy(stream, "gw-t1", "gw-t2")
        taker = Drainer(stand, "gw-t2")
        report.expect(taker.drain(stream, end) == (2000, 2), "it went on elsewhere")
        back = Drainer(stand, "gw-t1")
        # Nothing is left for it to do, and it knows by itself.
        back.until(lambda d: d.figures()["pending"] == 0, "what the taker produced is counted")
        report.expect(back.figures()["conservation_error"] == 0, back.figures())
        report.expect(back.do("look", stream)["drainer"] == taker.stream, "another drainer")
        stand.check()


def held(cluster, options):
    """A topic that is missing holds the lane up inside RECORDS; the claim stays, and the sign of life comes."""
    with Stand(cluster, options, "held", create=False) as stand:
        takeover_after_ms = 3000
        process = Drainer(stand, "gw-t1", "-T", takeover_after_ms)
        end = process.append(1000)
        process.claim(".")
        follow = process.order("records", ".", 1, 0)
        signs = process.until(lambda d: len(d.progress(d.stream)) >= 8 and d.progress(d.stream), "signs of life")
        gaps = [b["ms"] - a["ms"] for a, b in zip(signs, signs[1:])]
        report.note(f"gaps between signs of life, ms: {gaps}")
        report.expect({line["claim"] for line in signs} == {1} and {line["progress"] for line in signs} == {0}, signs)
        # Promised is a third; the commit and the reader's way to it come on top.
        report.expect(sorted(gaps)[len(gaps) // 2] <= takeover_after_ms / 3 + 500, gaps)
        cluster.create_topic(stand.topic, 4)
        process.committed(process.stream, end)
        # Idle on the current stream.
        count = len(process.progress(process.stream))
        process.until(lambda d: len(d.progress(d.stream)) >= count + 5, "signs of life while idle")
        report.expect(process.find("done", lambda l: l["ticket"] == follow) is None, "the order has ended")
        stand.check()


def frozen(cluster, options):
    """The coordinator times the transaction out: fenced, with one's own claim as the last."""
    with Stand(cluster, options, "frozen") as stand:
        process = Drainer(stand, "gw-t1", "-m", 1600, "-T", 60000)
        process.append(100)
        process.claim(".")
        follow = process.order("records", ".", 1, 0)
        process.committed(process.stream, 100)
        for _turn in range(200):  # a transaction is open, whenever it is
            process.append(100)
        os.kill(process.process.pid, signal.SIGSTOP)
        time.sleep(28)  # transaction.timeout.ms, and the coordinator's interval of looking for such
        os.kill(process.process.pid, signal.SIGCONT)
        end = process.append(100)
        done = process.answer(follow)
        report.note(f"{done['result']}: {done['trouble']}")
        report.expect(done["result"] in ("fenced", "failed"), done)
        process.send("release", ".")
        found = process.do("look", ".")
        report.expect(found["drainer"] == process.stream and found["claim"] == 1, found)
        through, claim = process.claim(".")
        report.expect((through, claim) == (found["at"], 2), (through, claim, found))
        process.order("records", ".", through + 1, 0)
        process.committed(process.stream, end)
        stand.check()


def released(cluster, options):
    """Release in the middle of a transaction: nothing is said after it, and the next producer goes on."""
    with Stand(cluster, options, "released") as stand:
        process = Drainer(stand, "gw-t1", "-m", 1600)
        through, claim = process.claim(".")
        for turn in range(6):
            process.order("records", ".", through + 1, 0)
            for _batch in range(20):
                end = process.append(100)
            process.send("release", ".")
            process.until(lambda d: len([l for l in d.lines() if "released" in l]) > turn, "released")
            lines = len(process.lines())
            through, claim = process.claim(".")
            said = [l for l in process.lines()[lines:] if "committed" in l and l["committed"] > through]
            report.expect(not said, said)
            report.expect(claim == turn + 2, (through, claim))
        process.order("records", ".", through + 1, 0)
        process.committed(process.stream, end)
        stand.check()


def feed(cluster, options):
    """The reader of all progress over a restart of each broker: nothing is missed, and the order is kept."""
    with Stand(cluster, options, "feed") as stand:
        writer, reader = Drainer(stand, "gw-t1", "-T", 1500, "-m", 50), Drainer(stand, "gw-t2")
        follow = 0

        def go_on():
            """Everything that is appended, whatever it takes. The reader of all progress tells what is committed."""
            nonlocal follow
            if follow and not writer.find("done", lambda l: l["ticket"] == follow):
                return
            for step in ("init", "read", "claim"):
                done = writer.answer(writer.order(step, ".", *((found["at"], found["claim"] + 1)
                                                               if step == "claim" else ())), 90)
                if done["result"] != "ok":
                    return
                found = done if step == "read" else {}  if step == "init" else found
            follow = writer.order("records", ".", found["at"] + 1, 0)

        def all_committed(end):
            go_on()
            return writer.find("committed", lambda l: l["stream"] == writer.stream and l["committed"] >= end)

        for node in cluster.nodes:
            cluster.kill(node)
            end = writer.append(200)
            writer.until(lambda d, end=end: all_committed(end), f"{end} committed", 100)
            cluster.heal()
            end = writer.append(200)
            writer.until(lambda d, end=end: all_committed(end), f"{end} committed", 100)
        writer.send("release", ".")
        last = writer.do("look", ".")["at"]
        report.expect(last == end, f"{last} of {end}")
        late = Drainer(stand, "gw-t3")
        for each in (writer, reader, late):
            each.until(lambda d: [l for l in d.progress(writer.stream) if l["progress"] == end], "the end")
        def told(drainer):
            return [(line["progress"], line["claim"]) for line in drainer.progress(writer.stream)]
        report.expect(told(reader) == told(late) == told(writer), "the readers were told different things")
        report.expect(told(reader) == sorted(told(reader)), "out of order")
        report.expect(reader.figures()["connected"], "not connected")
        report.note(f"{len(told(reader))} records of progress")
        stand.check()


def stopping(cluster, options):
    """A stop with a deadline finishes what was ordered; orders that make no sense are refused, not carried out."""
    with Stand(cluster, options, "stopping") as stand:
        process = Drainer(stand, "gw-t1")
        end = process.append(5000)
        process.do("read", ".", result="failed")
        process.do("init", "gw-t9.1-00000001", result="failed")
        process.do("init", ".")
        process.do("read", ".")
        process.do("claim", ".", 17, 1, result="failed")
        process.claim(".")
        process.do("records", ".", 900, 1000, result="failed")
        through, claim = process.claim(".")
        report.expect((through, claim) == (0, 2), (through, claim))
        done = process.do("records", ".", 1, 1234)  # in the middle of a frame
        report.expect(done["through"] == 1234, done)
        report.expect(len(read(cluster, stand.topic)) == 1234, "not exactly what was ordered")
        process.order("records", ".", 1235, 0)
        process.stop(30)
        report.expect(process.find("committed")["committed"] == end, "the stop did not finish it")
        stand.check()


SCENARIOS = [life, kills, rivals, foreign, held, frozen, released, stopping, feed]


def main():
    return run_all("produce/driven_", SCENARIOS, arguments(__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
