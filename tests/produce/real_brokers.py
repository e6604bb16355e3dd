#!/usr/bin/python3
"""The drain against three real brokers: killed, frozen, fenced, with topics in trouble; what read_committed readers see
is compared with what the spool took.

    tests/produce/real_brokers.py [--long] [--seed N] [SCENARIO ...]

Needs SLUICE_BUILD (a build directory with tests/produce/drain-tool) and kcat. Prints the runner's protocol.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.kafka import Cluster  # noqa: E402
from tests.lib import report, waiting  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402
from tests.lib.processes import spawn  # noqa: E402

UNCOMPRESSED = ["-X", "compression.type=none", "-S"]  # and with a status each second
TOOL = pathlib.Path(os.environ.get("SLUICE_BUILD", ROOT / "build-test")) / "tests/produce/drain-tool"


class Drain:
    """One run of drain-tool on a spool directory."""

    def __init__(self, stand, topics, *arguments):
        command = [TOOL, "-d", stand.directory, "-b", stand.cluster.bootstrap]
        for topic in topics:
            command += ["-t", topic]
        self.out = open(stand.log, "ab+")
        self.begin = self.out.seek(0, os.SEEK_END)
        self.process = spawn(command + list(arguments), stdout=self.out, stderr=self.out)

    def lines(self):
        with open(self.out.name, "rb") as again:
            again.seek(self.begin)
            for line in again.read().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    pass

    def last(self, key):
        found = [line for line in self.lines() if key in line]
        return found[-1] if found else None

    def lane(self, name="main"):
        found = [line for line in self.lines() if line.get("lane") == name and "committed" in line]
        return found[-1] if found else {"state": "unknown", "committed": 0, "transactions": 0}

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait(self, timeout_s=120):
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise report.Failure(f"not drained in {timeout_s} s: {self.lane()}") from None
        report.expect(code == 0, f"drain-tool ended with {code}: {self.lane()}, {self.last('done')}")
        done = self.last("done")
        report.expect(done["conservation_error"] == 0, f"conservation_error {done}")
        return done

    def until(self, condition, what, timeout_s=60):
        def met():
            report.expect(self.process.poll() is None, f"drain-tool ended while waiting for: {what}")
            return condition(self)
        return waiting.until(met, lambda: f"{what}: {self.lane()}", timeout_s)


class Stand:
    """A spool directory and the cluster."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.top = temporary_directory(f"drain-{name}")
        self.directory, self.log = f"{self.top}/spool", f"{self.top}/log"

    def drain(self, topics, *arguments):
        return Drain(self, [topics] if isinstance(topics, str) else topics, "-R", self.name, *map(str, arguments))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_rest):
        if kind is None:
            shutil.rmtree(self.top)
        else:
            report.note(f"kept: {self.top}")


def read(cluster, topic):
    """[(partition, offset, {header: value}, length)] as a read_committed reader sees it."""
    run = subprocess.run(["kcat", "-b", cluster.bootstrap, "-C", "-e", "-q", "-t", topic, "-o", "beginning", "-X",
                          "isolation.level=read_committed", "-f", "%p\t%o\t%S\t%h\n"],
                         stdout=subprocess.PIPE, check=True, timeout=120)
    found = []
    for line in run.stdout.decode().splitlines():
        partition, offset, length, headers = line.split("\t")
        fields = {}
        for field in headers.split(",sluice-") if headers else []:
            name, _, value = field.partition("=")
            fields[name if name.startswith("sluice-") else "sluice-" + name] = value
        last = headers.split(",event_id=")
        if len(last) == 2:
            fields["event_id"] = last[1].split(",")[0]
            fields["sluice-node"] = fields["sluice-node"].split(",")[0]
        found.append((int(partition), int(offset), fields, int(length)))
    return found


def check(records, acked, gaps=False):
    """Exactly once, in order. acked: counters that were durable. Every seq of a stream must be there, unless gaps."""
    seen, per_stream, last = {}, {}, {}
    for partition, offset, headers, _length in sorted(records):
        place = headers["sluice-stream"], int(headers["sluice-seq"])
        report.expect(place not in seen, f"{place} twice: {seen.get(place)} and {(partition, offset)}")
        seen[place] = partition, offset
        per_stream.setdefault(place[0], set()).add(place[1])
        # gw-t1.<counter>-<random>: streams of a node follow each other in a partition, records within a stream too.
        order = int(place[0].split(".")[1].split("-")[0]), place[1]
        before = last.get(partition, (0, 0))
        report.expect(before < order, f"partition {partition}: {order} after {before}")
        last[partition] = order
    for stream, seqs in per_stream.items():
        report.expect(gaps or len(seqs) == max(seqs), f"{stream}: {len(seqs)} of {max(seqs)} seqs")
    counters = {int(headers["event_id"].rsplit("-", 1)[1]) for _p, _o, headers, _l in records}
    missing = sorted(set(acked) - counters)
    report.expect(not missing, f"{len(missing)} acknowledged events are missing, the first is {missing[:1]}")


def kills(cluster, options):
    """kill -9 at random moments; the next incarnation drains what is left."""
    cluster.create_topic(options.topic("kills"), 4)
    rounds = 50 if options.long else 10
    with Stand(cluster, "kills") as stand:
        acked, first = [], 0
        for _round in range(rounds):
            events = options.random.randrange(500, 20000)
            drain = stand.drain(options.topic("kills"), "-a", events, "-f", first, "-D", 600, "-m", 200, "-S")
            waiting.until(lambda: drain.last("appended"), "appended", 60)
            acked.extend(range(first, first + events))
            first += events
            # Somewhere in the takeover of older streams, in an open transaction, in a commit, or after it all.
            time.sleep(options.random.random() * options.random.choice([0.2, 1, 3, 6]))
            drain.kill()
        done = stand.drain(options.topic("kills"), "-a", 100, "-f", first, "-D", 240).wait(280)
        acked.extend(range(first, first + 100))
        report.note(f"{rounds} kills, {len(acked)} events; the last run: {done}")
        check(read(cluster, options.topic("kills")), acked)


def broker_killed(cluster, options):
    cluster.create_topic(options.topic("broker-killed"), 6)
    with Stand(cluster, "brokerkilled") as stand:
        # Enough for as many kills as there are: one takes some 15 s of drain.
        events = 800000 if options.long else 120000
        drain = stand.drain(options.topic("broker-killed"), "-a", events, "-r", 8000, "-D", 180, "-S")
        for _turn in range(3 if options.long else 1):
            drain.until(lambda d: d.lane()["transactions"] > 3, "some transactions")
            victim = options.random.choice(cluster.nodes)
            cluster.kill(victim)
            before = drain.lane()["committed"]
            drain.until(lambda d: d.lane()["committed"] > before + 8000, "going on without a broker", 90)
            cluster.heal()
        report.note(drain.wait(240))
        check(read(cluster, options.topic("broker-killed")), range(events))


def broker_frozen(cluster, options):
    cluster.create_topic(options.topic("broker-frozen"), 6)
    with Stand(cluster, "brokerfrozen") as stand:
        events = 200000
        drain = stand.drain(options.topic("broker-frozen"), "-a", events, "-r", 5000, "-D", 240, "-S")
        drain.until(lambda d: d.lane()["transactions"] > 3, "some transactions")
        victim = options.random.choice(cluster.nodes)
        cluster.stop(victim)
        frozen_until = time.monotonic() + 45
        before = drain.lane()["committed"]
        drain.until(lambda d: d.lane()["committed"] > before + 5000, "going on beside a frozen broker", 90)
        report.note(f"went on {45 - (frozen_until - time.monotonic()):.0f} s after the freeze")
        time.sleep(max(0, frozen_until - time.monotonic()))
        cluster.heal()
        report.note(drain.wait(300))
        check(read(cluster, options.topic("broker-frozen")), range(events))


def drain_frozen(cluster, options):
    """The coordinator times the transaction out: fenced without a rival."""
    cluster.create_topic(options.topic("drain-frozen"), 4)
    with Stand(cluster, "drainfrozen") as stand:
        events = 60000
        drain = stand.drain(options.topic("drain-frozen"), "-a", events, "-r", 3000, "-D", 180, "-m", 2000, "-S")
        drain.until(lambda d: d.lane()["transactions"] > 3, "some transactions")
        os.kill(drain.process.pid, signal.SIGSTOP)
        # transaction.timeout.ms and the coordinator's interval of looking for such.
        time.sleep(28)
        os.kill(drain.process.pid, signal.SIGCONT)
        report.note(drain.wait(240))
        lane = drain.lane()
        report.note(lane)
        report.expect(lane["producers"] >= 2 or lane["aborts"] >= 1, f"nothing of the freeze was noticed: {lane}")
        check(read(cluster, options.topic("drain-frozen")), range(events))


def missing_topic(cluster, options):
    """A missing topic holds up its own lane and no other, and its lane goes on by itself."""
    cluster.create_topic(options.topic("here"), 4)
    with Stand(cluster, "missing") as stand:
        topics = [options.topic("here") + "@main", options.topic("absent") + "@slow"]
        drain = stand.drain(topics, "-a", 4000, "-D", 120, "-S")
        drain.until(lambda d: d.lane("slow")["state"] == "held", "the lane is held up")
        report.expect(options.topic("absent") + " does not exist" in drain.lane("slow")["trouble"], drain.lane("slow"))
        drain.until(lambda d: d.lane("main")["committed"] >= 3999, "the other lane goes on")
        cluster.create_topic(options.topic("absent"), 4)
        report.note(drain.wait())
        check(read(cluster, options.topic("here")), range(0, 4000, 2), gaps=True)
        check(read(cluster, options.topic("absent")), range(1, 4000, 2), gaps=True)


def few_replicas(cluster, options):
    """min.insync.replicas not met: held up, named, and on when it is met again."""
    cluster.create_topic(options.topic("few"), 2, config={"min.insync.replicas": "3"})
    with Stand(cluster, "few") as stand:
        cluster.kill(cluster.nodes[-1])
        drain = stand.drain(options.topic("few"), "-a", 2000, "-D", 180, "-S")
        drain.until(lambda d: d.lane()["state"] == "held", "the lane is held up", 90)
        report.expect("replicas" in drain.lane()["trouble"] or "leader" in drain.lane()["trouble"], drain.lane())
        cluster.heal()
        report.note(drain.wait(200))
        check(read(cluster, options.topic("few")), range(2000))


def too_large(cluster, options):
    """Records that the topic refuses are found by bisection and dead-lettered; all others arrive, in order."""
    cluster.create_topic(options.topic("small"), 4, config={"max.message.bytes": "20000"})
    with Stand(cluster, "toolarge") as stand:
        events, every = 6000, 997
        drain = stand.drain(options.topic("small"), "-a", events, "-L", f"{every}:40000", "-D", 240, *UNCOMPRESSED)
        done = drain.wait(280)
        lane = drain.lane()
        report.note(f"{done} {lane}")
        large = set(range(0, events, every))
        check(read(cluster, options.topic("small")), set(range(events)) - large, gaps=True)
        dead = read(cluster, options.topic("small") + ".dlq")
        check(dead, large, gaps=True)
        report.expect(len(dead) == len(large) == lane["dead_lettered"], f"{len(dead)} dead letters, {lane}")
        for _partition, _offset, headers, length in dead:
            report.expect(length == 40000, f"{length} bytes")
            report.expect("too large" in headers["sluice-error"].lower(), headers)
            report.expect(headers["sluice-source"].startswith("payments"), headers)


def invalid_records(cluster, options):
    """A compacted topic takes no null keys: the broker names each record."""
    cluster.create_topic(options.topic("compacted"), 2, config={"cleanup.policy": "compact"})
    with Stand(cluster, "invalid") as stand:
        drain = stand.drain(options.topic("compacted"), "-a", 12, "-N", "-B", 4, "-D", 120, "-S")
        report.note(drain.wait(150))
        report.expect(not read(cluster, options.topic("compacted")), "records without a key in a compacted topic")
        check(read(cluster, options.topic("compacted") + ".dlq"), range(12))


def refused_by_both(cluster, options):
    """What even the dead-letter topic refuses is set aside in refused/ and blocks nothing."""
    for name in (options.topic("tiny"), options.topic("tiny") + ".dlq"):
        cluster.create_topic(name, 2, config={"max.message.bytes": "20000"})
    with Stand(cluster, "refused") as stand:
        drain = stand.drain(options.topic("tiny"), "-a", 400, "-L", "200:40000", "-D", 120, *UNCOMPRESSED)
        report.note(drain.wait(150))
        check(read(cluster, options.topic("tiny")), set(range(400)) - {0, 200}, gaps=True)
        report.expect(drain.lane()["refused"] == 2, drain.lane())
        kept = sorted(path.stat().st_size for path in pathlib.Path(stand.directory, "refused").glob("*.bin"))
        report.expect(kept == [40000, 40000], f"refused/ holds {kept}")


def quarantined(cluster, options):
    cluster.create_topic(options.topic("guarded"), 2)
    with Stand(cluster, "quarantined") as stand:
        stand.drain(options.topic("guarded"), "-a", 1000, "-Q", 10, "-D", 60).wait()
        check(read(cluster, options.topic("guarded")), {i for i in range(1000) if i % 10}, gaps=True)
        dead = read(cluster, options.topic("guarded") + ".dlq")
        check(dead, range(0, 1000, 10), gaps=True)
        report.expect(all("amount is missing" in headers["sluice-error"] for _p, _o, headers, _l in dead), dead[:1])


def progress_lost(cluster, options):
    """sluice.progress deleted: the drain stops with an alarm until it is adopted, and then doubles nothing."""
    cluster.create_topic(options.topic("lost"), 2)
    with Stand(cluster, "lost") as stand:
        drain = stand.drain(options.topic("lost"), "-a", 100000, "-r", 2500, "-D", 600, "-S")
        drain.until(lambda d: d.lane().get("verified", 0) > 2000, "something is verified")
        drain.kill()
        cluster.delete_topic("sluice.progress")
        waiting.until(lambda: "sluice.progress" not in cluster.topics(), "the topic is gone")
        drain = stand.drain(options.topic("lost"), "-D", 600, "-S")
        drain.until(lambda d: d.lane()["state"] == "stopped", "the lane is stopped")
        report.note(drain.lane()["trouble"])
        drain.kill()
        stand.drain(options.topic("lost"), "-A", "-D", 60).wait()
        records = read(cluster, options.topic("lost"))
        seqs = [int(headers["sluice-seq"]) for _p, _o, headers, _l in records]
        # Committed but not yet verified when it was killed: a few seconds of events may double, none may be missing.
        report.expect(len(set(seqs)) == max(seqs), f"{len(set(seqs))} of {max(seqs)} seqs")
        report.note(f"{len(seqs) - len(set(seqs))} of {len(seqs)} doubled by the loss")


def idempotent(cluster, options):
    """Without transactions: at least once across kills, exactly once without."""
    cluster.create_topic(options.topic("idempotent"), 4)
    with Stand(cluster, "idempotent") as stand:
        for first in range(0, 30000, 10000):
            drain = stand.drain(options.topic("idempotent"), "-i", "-a", 10000, "-f", first, "-D", 600, "-S")
            waiting.until(lambda: drain.last("appended"), "appended", 60)
            drain.kill()
        stand.drain(options.topic("idempotent"), "-i", "-D", 120).wait(150)
        records = read(cluster, options.topic("idempotent"))
        counters = [int(headers["event_id"].rsplit("-", 1)[1]) for _p, _o, headers, _l in records]
        report.expect(set(counters) == set(range(30000)), f"{len(set(counters))} of 30000")
        report.note(f"{len(counters) - 30000} doubled")


SCENARIOS = [kills, missing_topic, quarantined, too_large, invalid_records, refused_by_both, few_replicas,
             broker_killed, broker_frozen, drain_frozen, idempotent, progress_lost]


def arguments(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--join", metavar="DIR", help="use brokers that run already")
    parser.add_argument("scenarios", nargs="*")
    return parser


def run_all(prefix, scenarios, options):
    """Those that are named, or all, against one cluster. The exit status."""
    print(f"    seed {options.seed}", flush=True)
    chosen = [each for each in scenarios if not options.scenarios or each.__name__ in options.scenarios]
    cluster = Cluster.join(options.join) if options.join else Cluster()
    good = True
    try:
        for scenario in chosen:
            good &= report.run(f"{prefix}{scenario.__name__}", lambda s=scenario: s(cluster, options))
            cluster.heal()
    finally:
        if not options.join:
            cluster.down()
    return 0 if good else 1


def main():
    parser = arguments(__doc__)
    parser.add_argument("--long", action="store_true")
    options = parser.parse_args()
    options.random = random.Random(options.seed)
    options.topic = lambda name: f"{name}-{options.seed:x}"
    return run_all("produce/", SCENARIOS, options)


if __name__ == "__main__":
    sys.exit(main())
