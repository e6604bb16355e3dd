#!/usr/bin/env python3
"""The judge is judged: nothing is found in a sound run, and each kind of damage, planted on purpose, is."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zlib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
COMMAND = HERE.parent.parent / "chaos" / "judge" / "judge"

from chaos import judge  # noqa: E402  the path must be set first
from chaos.judge import service, verdict, warehouse  # noqa: E402
from chaos.judge.requests import Requests  # noqa: E402
from tests.history import checker, records  # noqa: E402

RUN, MS, SECOND = "9f3a12bc", 10**6, 10**9
START, WALL_MS = 1000 * SECOND, 1_700_000_000_000
RATE, SECONDS, KEYS, PARTITIONS = 10, 40, 7, 3
NODES = ("gw-a1", "gw-b1", "gw-c1")
TOPIC = "payments.events"


def event_of(counter):
    zero = f'{{"event_id":"{RUN}-{counter:012}","checksum":"00000000","memo":"{counter * 7919}"}}'.encode()
    return zero.replace(b"00000000\",\"memo", f"{zlib.crc32(zero):08x}\",\"memo".encode())


class World:
    """400 requests of one event, ten a second, each answered after 3 ms by one of three gateways."""

    def __init__(self):
        self.head = {"v": 1, "run": RUN, "source_url": "http://10.0.0.1/", "wall_ns": WALL_MS * MS, "mono_ns": START,
                     "events_per_request": 1, "ordered": True, "retry": True}
        self.attempts, self.records, self.not_sent, self.seqs = [], [], 0, {}
        self.offsets = [0] * PARTITIONS
        for counter in range(RATE * SECONDS):
            self.attempts.append([self.attempt(counter)])
            self.store(counter)

    def due(self, counter):
        return START + counter * SECOND // RATE

    def attempt(self, counter, outcome="ok", number=1, sent=0, took=3 * MS, status=200, **more):
        row = {"id": f"{RUN}-{counter:012}", "k": f"acc_{counter % KEYS:08}", "s": counter // KEYS + 1, "c": counter,
               "a": number, "t0": self.due(counter) + sent, "t1": self.due(counter) + sent + took, "o": outcome,
               "st": status, "i": 0, "n": 1, "td": self.due(counter), "cn": 0, "cs": 1}
        if outcome == "ok":
            row.update(sm=self.stream(counter), f=self.seq(counter), l=self.seq(counter), d=0)
        return {**row, **more}

    @staticmethod
    def stream(counter):
        return f"{NODES[counter % 3]}.1-aaaa"

    @staticmethod
    def seq(counter):
        return counter // 3 + 1

    def store(self, counter, stream=None, seq=None):
        partition = counter % KEYS % PARTITIONS
        self.records.append(records.Record(TOPIC, partition, self.offsets[partition], WALL_MS + counter * 100,
                                           f"acc_{counter % KEYS:08}", f"{RUN}-{counter:012}",
                                           stream or self.stream(counter), seq or self.seq(counter), counter))
        self.offsets[partition] += 1

    def retried(self, counter, after_ns, status=0, took=None):
        """The first attempt fails, the second is acknowledged `after_ns` after it was due."""
        took = after_ns - 2 * MS if took is None else took
        self.attempts[counter] = [self.attempt(counter, "unknown", 1, took=took, status=status, e="timeout"),
                                  self.attempt(counter, "ok", 2, sent=after_ns - MS, took=MS)]

    def given_up(self, counter):
        self.attempts[counter] = [self.attempt(counter, "unknown", 1, took=SECOND, status=503)]

    def lines(self, whole=True):
        rows = [row for attempts in self.attempts for row in attempts]
        out = [self.head, *rows]
        if whole:
            outcomes, ids = [row["o"] for row in rows], {row["id"] for row in rows}
            acked = {row["id"] for row in rows if row["o"] == "ok"}
            out.append({"end": True, "attempts": len(rows), **{each: outcomes.count(each) for each in
                                                               ("ok", "fail", "unknown")},
                        "events": len(ids), "acked": len(acked), "refused": 0, "open": len(ids - acked),
                        "not_sent": self.not_sent})
        return [json.dumps(row).encode() + b"\n" for row in out]

    def read(self, whole=True):
        requests = Requests()
        history = checker.History(observe=requests.take)
        history.load_lines(self.lines(whole))
        return history, requests.finish()

    def judge(self, **options):
        return verdict.judge(*self.read(), self.records, **options)

    def at(self, counter):
        return next(index for index, each in enumerate(self.records) if each.event_id.endswith(f"{counter:012}"))


class Events(unittest.TestCase):
    """Every damage that the checker knows comes through as a figure and turns the result red."""

    def red(self, world, what, times=1, **options):
        result = world.judge(**options)
        self.assertFalse(result["passed"], verdict.line(result))
        self.assertEqual(result["figures"][what], times, result["events"])
        others = set(verdict.DAMAGE) - {what, "resent"}
        self.assertEqual({each: result["figures"][each] for each in others}, dict.fromkeys(others, 0))
        self.assertTrue(verdict.line(result).startswith("FAIL "))
        return result

    def test_sound(self):
        result = World().judge()
        self.assertTrue(result["passed"], result["why"])
        self.assertEqual({result["figures"][each] for each in verdict.DAMAGE}, {0})
        self.assertEqual(verdict.line(result, "zone-loss"), "PASS zone-loss acked=400 lost=0 doubled=0 reordered=0 "
                                                            "availability=100.000% p99=3.0ms rto=-")

    def test_lost(self):
        world = World()
        del world.records[world.at(17)]
        self.red(world, "lost")

    def test_doubled(self):
        world = World()
        world.store(20, seq=200)
        self.red(world, "doubled")

    def test_resent_is_no_failure(self):
        world = World()
        world.retried(20, SECOND)
        world.store(20, "gw-b1.1-bbbb", 1)
        result = world.judge()
        self.assertTrue(result["passed"], result["why"])
        self.assertEqual((result["figures"]["resent"], result["figures"]["doubled"]), (1, 0))
        world.store(20, "gw-b1.1-bbbb", 2)
        self.red(world, "doubled")

    def test_phantom(self):
        world = World()
        world.records.append(records.Record(TOPIC, 0, 999, 0, "acc", "nobody-1", "gw-a1.9-eeee", 1, 7))
        self.red(world, "phantom")

    def test_refused_and_present(self):
        world = World()
        world.attempts[30] = [world.attempt(30, "fail", status=422)]
        world.store(31, "gw-b1.1-bbbb", 1)
        world.records.pop()
        self.red(world, "phantom")

    def test_reordered(self):
        world = World()
        first, second = world.at(21), world.at(42)  # one key, one gateway
        world.records[first], world.records[second] = world.records[second], world.records[first]
        result = world.judge()
        self.assertFalse(result["passed"])
        self.assertGreater(result["figures"]["reordered"], 0)

    def test_corrupt(self):
        world = World()
        world.records[world.at(5)].crc32c ^= 1
        self.red(world, "corrupt")

    def test_unread_topics_accuse_nobody(self):
        world = World()
        del world.records[world.at(17)]
        result = self.red(world, "unseen", complete=False, unread="no broker")
        self.assertIn("no broker", result["why"])

    def test_unknown_outcomes_are_counted_found_or_not(self):
        world = World()
        world.given_up(50)
        world.given_up(51)
        del world.records[world.at(51)]
        result = world.judge()
        self.assertTrue(result["passed"], result["why"])
        self.assertEqual((result["figures"]["open_found"], result["figures"]["open_absent"]), (1, 1))

    def again(self, duplicates):
        """Event 0 comes once more on purpose, much later."""
        world = World()
        extra = world.attempt(0, sent=20 * SECOND, x=1, d=duplicates, td=START + 20 * SECOND)
        if duplicates:
            extra.update(f=None, l=None)
        world.attempts.append([extra])
        return world

    def test_again_on_purpose(self):
        self.assertTrue(self.again(1).judge()["passed"])
        world = self.again(0)  # it was stored a second time, at the same gateway
        world.attempts[-1][0].update(f=500, l=500)
        world.store(0, seq=500)
        self.red(world, "doubled")

    def test_again_at_another_gateway_is_no_disorder(self):
        world = self.again(0)
        world.attempts[-1][0].update(sm="gw-b1.1-aaaa", f=500, l=500)
        world.store(0, "gw-b1.1-aaaa", 500)
        result = world.judge()
        self.assertTrue(result["passed"], result["why"])
        self.assertEqual(result["figures"]["resent"], 1)

    def test_again_acknowledged_and_absent(self):
        world = self.again(0)
        world.attempts[-1][0].update(f=500, l=500)
        self.red(world, "lost")

    def test_earlier_runs_are_left_out(self):
        world = World()
        world.records.append(records.Record(TOPIC, 0, 999, 0, "acc", "0ld-000000000001", "gw-a1.0-eeee", 1, 7))
        self.assertEqual(self.red(world, "phantom")["events"]["earlier"], 0)
        result = world.judge(earlier_runs=["0ld"])
        self.assertTrue(result["passed"], result["why"])
        self.assertEqual(result["events"]["earlier"], 1)


class Service(unittest.TestCase):
    def test_availability_before_and_after_retries(self):
        world = World()
        world.retried(100, SECOND)
        world.retried(101, SECOND, status=503)
        world.given_up(102)
        world.not_sent = 100
        result = world.judge()
        self.assertEqual(result["availability"], {"due": 500, "not_sent": 100, "ok_first": 397, "ok": 399,
                                                  "before_retries": 397 / 500, "after_retries": 399 / 500})
        row = result["seconds"][10]
        self.assertEqual((row["t"], row["due"], row["ok"], row["ok_first"], row["failed"], row["retried"]),
                         (10, 10, 9, 7, 1, 2))
        self.assertEqual(sum(row["due"] for row in result["seconds"]), 400)

    def test_a_refusal_is_no_service(self):
        world = World()
        world.attempts[30] = [world.attempt(30, "fail", status=429), world.attempt(30, "ok", 2, sent=SECOND)]
        served = world.judge()["availability"]
        self.assertEqual((served["ok_first"], served["ok"]), (399, 400))

    def test_latency_counts_from_when_it_was_due(self):
        world = World()
        for counter in range(100, 110):
            world.attempts[counter] = [world.attempt(counter, sent=700 * MS, took=100 * MS)]
        whole = world.judge()["latency"]["whole"]
        self.assertEqual((whole["p50_ms"], whole["p99_ms"], whole["p999_ms"], whole["max_ms"]), (3, 800, 800, 800))

    def test_phases(self):
        world = World()
        for counter in range(100, 200):
            world.attempts[counter] = [world.attempt(counter, took=6 * MS)]
        figures = world.judge(fault_ns=(START + 10 * SECOND, START + 20 * SECOND))["figures"]
        self.assertEqual((figures["p99_before_ms"], figures["p99_during_ms"], figures["p99_after_ms"],
                          figures["p99_ratio"], figures["p99_grown"]), (3, 6, 3, 2, 0.06))

    def test_quantile(self):
        self.assertIsNone(service.quantile([], 0.5))
        hundred = list(range(1, 101))
        self.assertEqual([service.quantile(hundred, q) for q in (0, 0.5, 0.99, 0.999, 1)], [1, 50, 99, 100, 100])

    def test_acks_by_gateway(self):
        nodes = World().judge()["nodes"]
        self.assertEqual(set(nodes), set(NODES))
        self.assertEqual(sum(count for found in nodes.values() for _, count in found), 400)


class Recovery(unittest.TestCase):
    FAULT = (START + 10 * SECOND, START + 20 * SECOND)

    def of(self, world):
        return world.judge(fault_ns=self.FAULT)["recovery"]

    def test_nothing_hurt(self):
        self.assertEqual(self.of(World())["rto_s"], 0)

    def test_from_the_first_hurt_request_until_steady(self):
        world = World()
        for counter in range(103, 141):  # due at 10.3 s to 14.0 s
            world.retried(counter, 5 * SECOND)
        self.assertEqual(self.of(world), {"rto_s": 3.8, "first_hurt_s": 0.3, "steady_s": 4.1})

    def test_hurt_long_after_the_fault(self):
        world = World()
        for counter in range(173, 184):  # due at 17.3 s to 18.3 s
            world.retried(counter, SECOND)
        self.assertEqual(self.of(world), {"rto_s": 1.1, "first_hurt_s": 7.3, "steady_s": 8.4})

    def test_a_request_that_was_under_way(self):
        world = World()
        world.retried(98, SECOND)  # due at 9.8 s, fails at 10.8 s
        self.assertEqual(self.of(world), {"rto_s": 0.0, "first_hurt_s": 0.0, "steady_s": 0.0})
        world.retried(130, SECOND)
        self.assertEqual(self.of(world)["rto_s"], 3.1)

    def test_slow_is_not_steady(self):
        world = World()
        for counter in range(100, 150):
            world.attempts[counter] = [world.attempt(counter, took=1500 * MS)]
        self.assertEqual(self.of(world)["rto_s"], 5.0)

    def test_a_pause_shorter_than_steady_is_none(self):
        world = World()
        world.retried(110, SECOND)
        world.retried(150, SECOND)
        self.assertEqual(self.of(world)["rto_s"], 4.1)
        world.retried(110, SECOND)
        world.attempts[150] = [world.attempt(150)]
        world.retried(190, SECOND)
        self.assertEqual(self.of(world)["rto_s"], 0.1)

    def test_never_steady_again(self):
        world = World()
        for counter in range(120, 400):
            world.given_up(counter)
        self.assertIsNone(self.of(world)["rto_s"])

    def test_too_short_a_run_proves_nothing(self):
        world = World()
        world.retried(370, SECOND)  # three seconds before the end
        late = (START + 35 * SECOND, START + 39 * SECOND)
        self.assertIsNone(world.judge(fault_ns=late)["recovery"]["rto_s"])

    def test_trouble_before_the_fault_is_not_its(self):
        world = World()
        world.retried(50, 100 * MS)
        self.assertEqual(self.of(world)["rto_s"], 0)

    def test_drained(self):
        samples = [(START + second * SECOND, pending) for second, pending in
                   enumerate([0, 5, 900, 800, 300, 4, 700, 3, 2, 0])]
        self.assertEqual(service.drained(samples, START + 3 * SECOND, baseline=5), 4)
        self.assertIsNone(service.drained(samples[:7], START + 3 * SECOND, baseline=5))
        lines = [json.dumps({"t": second, "kind": "gateway", "node": node, "pending": pending})
                 for second, pending in enumerate([2, 3, 50, 40, 1]) for node in ("a", "b")]
        lines.append(json.dumps({"t": 9, "kind": "gateway", "node": "a", "state": "no answer"}))
        fault = (START + int(1.5 * SECOND), START + 2 * SECOND)
        self.assertEqual(judge.backlog_drain_s(lines, START, fault), 2)


class Warehouse(unittest.TestCase):
    def setUp(self):
        self.kafka = World().records
        self.raw = [(each.topic, each.partition, each.offset, each.timestamp_ms, each.timestamp_ms + 1500,
                     event_of(int(each.event_id[-12:]))) for each in self.kafka]
        self.curated = [(each.event_id, each.timestamp_ms, each.timestamp_ms + 4000) for each in self.kafka]
        self.aside = []

    def find(self, *others):
        raw, _ = warehouse.judge_raw(self.raw, self.kafka, others)
        curated, delays = warehouse.judge_curated(self.curated, self.aside, self.kafka,
                                                  lambda event_id: event_id.startswith(RUN))
        found = {f"{table}.{what}": verdict_[what] for table, verdict_ in (("raw", raw), ("curated", curated))
                 for what in ("missing", "doubled", "phantom", "corrupt", "quarantined") if verdict_.get(what)}
        return found, raw, curated, delays

    def test_sound(self):
        found, raw, curated, delays = self.find()
        self.assertEqual(found, {})
        self.assertEqual((raw["rows"], curated["rows"]), (400, 400))
        self.assertEqual(raw["freshness"], {"p50_s": 1.5, "p95_s": 1.5, "p99_s": 1.5, "max_s": 1.5})
        self.assertEqual(curated["freshness"]["p95_s"], 4)
        series = warehouse.by_second(delays, WALL_MS)
        self.assertEqual((len(series), series[0]), (40, [0, 4]))

    def test_raw_damage(self):
        row = self.raw.pop(7)
        self.assertEqual(self.find()[0], {"raw.missing": 1})
        self.raw += [row, row]
        self.assertEqual(self.find()[0], {"raw.doubled": 1})
        self.raw[-1:] = [(TOPIC, 2, 5000, 0, 0, event_of(1))]
        self.assertEqual(self.find()[0], {"raw.phantom": 1})
        other = records.Record(TOPIC, 2, 5000, 0, None, "0ld-1", None, None, 0)
        self.assertEqual(self.find(other)[0], {})

    def test_raw_with_other_bytes(self):
        for index, change in enumerate((lambda event: event.replace(b"memo", b"MEMO"), lambda event: None,
                                        lambda event: event_of(399), lambda event: event.replace(b"checksum", b"sum"))):
            self.raw[index] = (*self.raw[index][:5], change(self.raw[index][5]))
            self.assertEqual(self.find()[0], {"raw.corrupt": index + 1})

    def test_curated_damage(self):
        row = self.curated.pop(9)
        self.assertEqual(self.find()[0], {"curated.missing": 1})
        self.aside.append((row[0], "bad-amount"))
        self.assertEqual(self.find()[0], {"curated.quarantined": 1})
        self.curated += [row, row]
        self.assertEqual(self.find()[0], {"curated.doubled": 1})
        self.curated[-1] = (f"{RUN}-999999999999", 0, 0)
        self.assertEqual(self.find()[0], {"curated.phantom": 1})
        self.curated[-1] = ("0ld-000000000001", 0, 0)
        self.assertEqual(self.find()[0], {})


class Command(unittest.TestCase):
    def run_with(self, world):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "history").write_bytes(b"".join(world.lines()))
            rows = [f"{each.topic}\t{each.partition}\t{each.offset}\t{each.timestamp_ms}\t{each.key}\t{each.event_id}\t"
                    f"{each.stream}\t{each.seq}\t{each.crc32c}\n" for each in world.records]
            (path / "records").write_text("".join(rows) + f"\\.\t{len(rows)}\n")
            run = subprocess.run([str(COMMAND), "--history", str(path / "history"), "--records",
                                  str(path / "records"), "--json", str(path / "out.json"), "--name", "x"],
                                 capture_output=True, text=True, check=False)
            return run, json.loads((path / "out.json").read_text())

    def test_exit_code_line_and_result(self):
        world = World()
        run, result = self.run_with(world)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue(run.stdout.startswith("PASS x acked=400 lost=0 "), run.stdout)
        self.assertTrue(result["passed"])
        del world.records[world.at(9)]
        run, result = self.run_with(world)
        self.assertEqual(run.returncode, 1)
        self.assertIn("lost: 9f3a12bc-000000000009", run.stderr)
        self.assertEqual(result["figures"]["lost"], 1)


if __name__ == "__main__":
    unittest.main()
