#!/usr/bin/env python3
"""The checker is itself checked: a clean history passes, and each kind of damage, done on purpose, turns it red."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.history import checker, records  # noqa: E402  the path must be set first

RUN = "9f3a12bc"
EVENTS, KEYS, PARTITIONS = 120, 5, 3
STREAMS = ("gw-a1.1-aaaa", "gw-a1.2-bbbb")


def crc(counter):
    return (counter * 2654435761) % (1 << 32)


class World:
    """A run of 120 single events over five keys, with a restart in the middle; all is right until something is done."""

    def __init__(self, ordered=True):
        self.head = {"v": 1, "run": RUN, "source_url": "http://127.0.0.1/", "wall_ns": 0, "mono_ns": 0,
                     "events_per_request": 1, "ordered": ordered, "retry": True}
        self.attempts, self.records = [], []
        offsets = [0] * PARTITIONS
        for counter in range(EVENTS):
            stream, seq = STREAMS[counter * 2 // EVENTS], counter % (EVENTS // 2) + 1
            key = counter % KEYS
            self.attempts.append(self.attempt(counter, stream, seq))
            partition = key % PARTITIONS
            self.records.append(self.record(counter, partition, offsets[partition], stream, seq))
            offsets[partition] += 1

    @staticmethod
    def attempt(counter, stream=None, seq=None, outcome="ok", status=200, attempt=1):
        row = {"id": f"{RUN}-{counter:012}", "k": f"acc_{counter % KEYS:08}", "s": counter // KEYS + 1,
               "c": crc(counter), "a": attempt, "t0": counter * 10**8, "t1": counter * 10**8 + 1000, "o": outcome,
               "st": status, "i": 0, "n": 1}
        if outcome == "ok":
            row.update(sm=stream, f=seq, l=seq, d=0)
        return row

    @staticmethod
    def record(counter, partition, offset, stream, seq):
        return records.Record("payments.events", partition, offset, 1000, f"acc_{counter % KEYS:08}",
                              f"{RUN}-{counter:012}", stream, seq, crc(counter))

    def resend(self, counter):
        """The event of the first stream had no answer at its first attempt; the second one is acknowledged."""
        self.attempts[counter:counter + 1] = [self.attempt(counter, outcome="unknown", status=0),
                                              self.attempt(counter, STREAMS[0], counter + 1, attempt=2)]

    def lines(self, whole=True):
        rows = [self.head, *self.attempts]
        if whole:
            outcomes = [row["o"] for row in self.attempts]
            acked = {row["id"] for row in self.attempts if row["o"] == "ok"}
            events = {row["id"] for row in self.attempts}
            rows.append({"end": True, "attempts": len(outcomes), "ok": outcomes.count("ok"),
                         "fail": outcomes.count("fail"), "unknown": outcomes.count("unknown"), "events": len(events),
                         "acked": len(acked), "refused": 0, "open": 0})
        return [json.dumps(row).encode() + b"\n" for row in rows]

    def history(self, whole=True):
        history = checker.History()
        history.load_lines(self.lines(whole))
        return history

    def check(self, whole_history=True, **options):
        return checker.check(self.history(whole_history), self.records, **options)

    def at(self, counter):
        return next(index for index, record in enumerate(self.records) if record.event_id.endswith(f"{counter:012}"))


class Doctored(unittest.TestCase):
    def red(self, verdict, what, times=1):
        self.assertFalse(verdict.passed, verdict.line())
        self.assertEqual(verdict.counts[what], times, verdict.as_json())
        self.assertTrue(verdict.line().startswith("FAIL "))
        return verdict

    def test_clean_is_green(self):
        verdict = World().check(whole=True)
        self.assertTrue(verdict.passed, verdict.as_json())
        self.assertEqual(verdict.line(), "PASS acked=120 lost=0 doubled=0 resent=0 phantom=0 reordered=0 corrupt=0")

    def test_lost(self):
        world = World()
        del world.records[world.at(17)]
        self.red(world.check(), "lost")

    def test_the_last_event_of_a_stream_lost(self):
        world = World()
        del world.records[world.at(EVENTS - 1)]
        self.red(world.check(), "lost")

    def test_lost_although_another_copy_exists(self):
        world = World()
        index = world.at(3)
        world.attempts.append(world.attempt(3, STREAMS[1], 61, attempt=2))
        world.attempts[3] = world.attempt(3, outcome="unknown", status=0)
        verdict = self.red(world.check(), "lost")
        self.assertIn("61", verdict.why())
        self.assertEqual(world.records[index].seq, 4)

    def test_doubled_record(self):
        world = World()
        world.records.append(world.records[world.at(20)])
        self.red(world.check(), "doubled")

    def test_doubled_event_that_was_sent_once(self):
        world = World()
        world.records.append(World.record(20, 0, 999, STREAMS[1], 61))
        self.red(world.check(), "doubled")

    def test_more_copies_than_attempts(self):
        world = World()
        world.resend(20)
        for seq in (61, 62):
            world.records.append(World.record(20, 0, 900 + seq, STREAMS[1], seq))
        self.assertEqual(self.red(world.check(), "doubled").counts["resent"], 1)

    def test_resent_is_counted_apart(self):
        world = World()
        world.resend(20)
        world.records.append(World.record(20, 0, 900, STREAMS[1], 61))
        verdict = world.check()
        self.assertTrue(verdict.passed, verdict.as_json())
        self.assertEqual(verdict.counts["resent"], 1)
        self.red(world.check(dedupe=True), "doubled")

    def test_each_gateway_of_a_cell_stores_an_event_once(self):
        world = World()
        world.resend(20)
        world.records.append(World.record(20, 0, 900, "gw-b1.1-cccc", 1))
        self.assertTrue(world.check(dedupe="node").passed)
        self.red(world.check(dedupe=True), "doubled")
        world.records[-1].stream, world.records[-1].seq = STREAMS[1], 61
        self.red(world.check(dedupe="node"), "doubled")

    def test_order_is_judged_within_each_gateway(self):
        # Of one key, the events with even numbers went to another gateway, whose records come later.
        world = World()
        other = [record for record in world.records if int(record.event_id[-12:]) % 2]
        for seq, record in enumerate(other, 1):
            record.stream, record.seq = "gw-b1.1-cccc", seq
            world.attempts[int(record.event_id[-12:])].update(sm=record.stream, f=seq, l=seq)
        world.records = [record for record in world.records if record not in other] + other
        self.assertTrue(world.check().passed)
        one, another = world.at(21), world.at(31)
        for field in ("event_id", "crc32c"):
            mine, its = getattr(world.records[one], field), getattr(world.records[another], field)
            setattr(world.records[one], field, its)
            setattr(world.records[another], field, mine)
        for counter in (21, 31):
            record = world.records[world.at(counter)]
            world.attempts[counter].update(f=record.seq, l=record.seq)
        self.red(world.check(), "reordered")

    def test_a_copy_that_its_gateway_never_acknowledged_has_no_place(self):
        # A frozen gateway wakes and stores what another one has acknowledged meanwhile, behind later events of the key.
        world = World()
        world.resend(20)
        world.attempts[21].update(sm="gw-b1.1-cccc", f=1, l=1)
        place = world.at(20)
        old = world.records[place]
        world.records[place] = World.record(20, old.partition, old.offset, "gw-b1.1-cccc", 1)
        old.seq, old.offset = 61, 900
        world.records.append(old)
        world.records[-1].stream = STREAMS[1]
        self.assertTrue(world.check(dedupe="node").passed)

    def test_open_event_may_be_there_or_not(self):
        world = World()
        world.attempts[20] = World.attempt(20, outcome="unknown", status=503)
        self.assertTrue(world.check().passed)
        del world.records[world.at(20)]
        self.assertTrue(world.check().passed)

    def test_phantom_never_sent(self):
        world = World()
        world.records.append(World.record(999, 0, 900, STREAMS[1], 61))
        self.red(world.check(), "phantom")

    def test_phantom_refused(self):
        world = World()
        world.attempts[20] = World.attempt(20, outcome="fail", status=422)
        self.red(world.check(), "phantom")

    def test_reordered_in_a_stream(self):
        world = World()
        one, other = world.at(20), world.at(20 + PARTITIONS * KEYS)
        world.records[one], world.records[other] = world.records[other], world.records[one]
        verdict = world.check()
        self.assertFalse(verdict.passed)
        self.assertGreaterEqual(verdict.counts["reordered"], 1)

    def test_reordered_within_a_key_although_seqs_rise(self):
        # The gateway took them in the wrong order: the streams' seqs are in order, the client's are not.
        world = World()
        one, other = world.records[world.at(20)], world.records[world.at(25)]
        one.event_id, other.event_id, one.crc32c, other.crc32c = other.event_id, one.event_id, other.crc32c, one.crc32c
        world.attempts[20].update(f=26, l=26)
        world.attempts[25].update(f=21, l=21)
        self.red(world.check(), "reordered")
        world.head["ordered"] = False
        self.assertTrue(world.check().passed)

    def test_reordered_over_a_restart(self):
        # The older stream of a key's partition was drained after the newer one.
        world = World()
        old = [record for record in world.records if record.stream == STREAMS[0]]
        world.records = [record for record in world.records if record.stream == STREAMS[1]] + old
        verdict = world.check()
        self.assertGreater(verdict.counts["reordered"], 0)
        self.assertFalse(verdict.passed)

    def test_a_late_copy_of_a_resent_event_is_no_reordering(self):
        world = World()
        world.resend(20)
        world.records.append(World.record(20, 0, 900, STREAMS[1], 61))
        self.assertTrue(world.check().passed)

    def test_corrupt_payload_and_key(self):
        world = World()
        world.records[5].crc32c ^= 1
        self.red(world.check(), "corrupt")
        world = World()
        world.records[5].key = "acc_99999999"
        self.red(world.check(), "corrupt")

    def test_null_value_and_missing_key_are_corrupt(self):
        world = World()
        world.records[5].crc32c = None
        world.records[6].key = None
        self.red(world.check(), "corrupt", 2)

    def test_holes_count_only_when_all_was_read(self):
        world = World()
        world.attempts[20] = World.attempt(20, outcome="unknown", status=0)
        del world.records[world.at(20)]
        self.assertTrue(world.check().passed)
        self.red(world.check(whole=True), "holes")

    def test_unseen_accuses_nobody_but_fails_the_run(self):
        world = World()
        del world.records[world.at(17)]
        verdict = self.red(world.check(complete=False), "unseen")
        self.assertEqual(verdict.counts["lost"], 0)

    def test_nothing_acknowledged_concludes_nothing(self):
        world = World()
        world.attempts, world.records = [World.attempt(0, outcome="unknown", status=0)], []
        self.assertFalse(world.check().passed)

    def test_a_record_without_stream_fails(self):
        world = World()
        world.records[5].stream = None
        world.attempts[5].update(sm=None)
        self.assertFalse(world.check().passed)

    def test_killed_client(self):
        world = World()
        cut = world.attempts.pop(20)
        verdict = world.check(whole_history=False)
        self.assertTrue(verdict.passed, verdict.as_json())
        self.assertEqual(verdict.counts["unlisted"], 1)
        world.records[world.at(20)].event_id = "other-000000000001"
        self.red(world.check(whole_history=False), "phantom")
        self.assertTrue(cut)


class Input(unittest.TestCase):
    def test_totals_must_agree(self):
        lines = World().lines()
        with self.assertRaisesRegex(checker.HistoryError, "attempts"):
            checker.History().load_lines([line for index, line in enumerate(lines) if index != 7])

    def test_other_bytes_under_the_same_id(self):
        world = World()
        world.attempts.append({**world.attempts[3], "c": 1, "a": 2})
        with self.assertRaisesRegex(checker.HistoryError, "other bytes"):
            world.history()

    def test_cut_output_of_the_reader(self):
        line = b"t\t0\t5\t1000\tk\\tey\t\\N\tgw.1-a\t7\t12\n"
        found = list(records.parse([line, b"\\.\t1\n"]))
        self.assertEqual((found[0].key, found[0].event_id, found[0].seq), ("k\tey", None, 7))
        for lines in ([line], [line, b"\\.\t2\n"]):
            with self.assertRaises(records.CutError):
                list(records.parse(lines))

    def test_command(self):
        world = World()
        with tempfile.TemporaryDirectory() as scratch:
            history, topic = pathlib.Path(scratch) / "h", pathlib.Path(scratch) / "r"
            history.write_bytes(b"".join(world.lines()))
            rows = [f"{r.topic}\t{r.partition}\t{r.offset}\t1\t{r.key}\t{r.event_id}\t{r.stream}\t{r.seq}\t{r.crc32c}\n"
                    for r in world.records]
            topic.write_text("".join(rows) + f"\\.\t{len(rows)}\n")
            command = [sys.executable, str(HERE / "check"), "--history", str(history), "--records", str(topic)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            self.assertEqual((run.returncode, run.stdout.split()[0]), (0, "PASS"))
            topic.write_text("".join(rows))
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
            self.assertEqual((run.returncode, run.stdout.split()[0]), (1, "FAIL"))


if __name__ == "__main__":
    unittest.main()
