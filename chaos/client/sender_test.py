#!/usr/bin/env python3
"""sluice-sender against the small HTTP/2 server of bench/load_test.py: what it sends, when, and what it says of it.

usage: sender_test.py PATH-TO-SLUICE-SENDER [unittest arguments]
"""

import collections
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from bench.load_test import CLOSE, REFUSE, RESET, SILENCE, Server, crc32c, events_of  # noqa: E402  set first
from tests.history import checker  # noqa: E402
from tests.lib import waiting  # noqa: E402

SENDER = ""
DAY = datetime.timedelta(days=1)


def checksum_of(event):
    at = event.index(b'"checksum":"') + len(b'"checksum":"')
    return event[at:at + 8].decode(), f"{zlib.crc32(event[:at] + b'00000000' + event[at + 8:]):08x}"


class SenderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.history, self.live = os.path.join(folder.name, "history"), os.path.join(folder.name, "live")

    def serve(self, plan=lambda n: 200):
        server = Server(plan)
        self.addCleanup(server.close)
        return server

    def command(self, server, *options):
        # Nothing is repeated because the machine stood still, but where a test says so.
        return [SENDER, "--history", self.history, "--live", self.live, "--connections", "3", "--timeout", "60",
                *options, server.url]

    def send(self, server, *options):
        """(summary, lines of the history); the checker must find it whole and sound."""
        run = subprocess.run(self.command(server, *options), capture_output=True, timeout=100, check=False)
        self.assertIn(run.returncode, (0, 3), run.stderr.decode())
        checker.History().load(self.history)
        return json.loads(run.stdout), self.lines()

    def lines(self):
        with open(self.history, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.endswith("\n")]

    def last_live(self):
        """The last whole line of the live figures; {} before there is one."""
        if not os.path.exists(self.live):
            return {}
        with open(self.live, encoding="utf-8") as lines:
            whole = [line for line in lines if line.endswith("\n")]
        return json.loads(whole[-1]) if whole else {}

    @staticmethod
    def sent(server):
        """Every copy that arrived: (bytes, parsed)."""
        return [(event, json.loads(event)) for _, body in server.requests for event in events_of(body)]

    def test_every_event_is_what_it_says(self):
        server = self.serve()
        summary, history = self.send(server, "--events", "1500", "--rate", "6000", "--batch", "5", "--accounts", "60",
                                     "--drift-from", "500", "--duplicates", "0.05", "--reused", "0.1", "--late", "0.1")
        by_id, copies = {}, collections.Counter()
        for raw, event in self.sent(server):
            self.assertEqual(len(raw), 1048)
            self.assertEqual(*checksum_of(raw))
            self.assertEqual(by_id.setdefault(event["event_id"], raw), raw, "a copy has other bytes")
            copies[event["event_id"]] += 1
        self.assertEqual(len(by_id), summary["events"])
        self.assertEqual(sum(copies.values()) - len(by_id), summary["again"])
        self.assertTrue(0.02 < summary["again"] / summary["events"] < 0.09, summary)
        again = [line for line in history[1:-1] if line.get("x")]
        self.assertEqual(len(again), summary["again"])
        for line in history[1:-1]:
            self.assertEqual(line["c"], crc32c(by_id[line["id"]]))
            self.assertLessEqual(line["td"], line["t0"])
            self.assertIn(line["cn"], range(3))
            self.assertEqual(line["cs"], 1)
        self.check_payments([json.loads(raw) for raw in by_id.values()], summary)

    def check_payments(self, events, summary):
        accounts = collections.defaultdict(list)
        for event in events:
            accounts[event["account_id"]].append(event)
        after = {"AUTH": {None, "AUTH", "CAPTURE", "REFUND", "CHARGEBACK"}, "CAPTURE": {"AUTH"}, "REFUND": {"CAPTURE"},
                 "CHARGEBACK": {"CAPTURE"}}
        reused, types = 0, collections.Counter()
        for found in accounts.values():
            found.sort(key=lambda event: event["seq"])
            self.assertEqual([event["seq"] for event in found], list(range(1, len(found) + 1)))
            before = None
            for event in found:
                types[event["type"]] += 1
                self.assertIn(before and before["type"], after[event["type"]])
                if event["type"] != "AUTH":
                    for name in ("payment_id", "card_id", "merchant_id", "amount", "currency"):
                        self.assertEqual(event[name], before[name])
                elif before and before["payment_id"] == event["payment_id"]:
                    reused += 1
                    for name in ("card_id", "amount", "event_ts"):
                        self.assertEqual(event[name], before[name])
                if event["type"] == "CHARGEBACK":
                    late = (datetime.datetime.fromisoformat(before["event_ts"])
                            - datetime.datetime.fromisoformat(event["event_ts"]))
                    self.assertTrue(DAY * 0.99 < late < DAY * 1.01, late)
                before = event
        self.assertEqual(dict(types), {name: count for name, count in summary["types"].items() if count})
        self.assertGreater(types["CHARGEBACK"], 0)
        self.assertEqual(reused, summary["reused"])
        self.assertGreater(reused, 0)
        drifted = [event for event in events if "loyalty" in event]
        self.assertEqual(len(drifted), summary["drifted"])
        self.assertGreaterEqual(min(int(event["event_id"][-12:]) for event in drifted), 500)

    def test_the_same_seed_gives_the_same_payments(self):
        def payments(seed):
            server = self.serve()
            self.send(server, "--events", "400", "--rate", "4000", "--accounts", "200", "--run", "same", "--seed", seed,
                      "--duplicates", "0")
            return {event["event_id"]: {**event, "event_ts": None, "checksum": None}
                    for _, event in self.sent(server)}
        self.assertEqual(payments("7"), payments("7"))
        self.assertNotEqual(payments("7"), payments("8"))

    def test_the_shape_of_a_day(self):
        server = self.serve()
        summary, history = self.send(server, "--shape", "paywave", "--rate", "200", "--period", "4", "--seconds", "4",
                                      "--accounts", "500", "--duplicates", "0")
        due = sorted(line["td"] for line in history[1:-1])
        counts = collections.Counter(min(int((each - due[0]) / 4e9 * 100), 99) for each in due)
        self.assertAlmostEqual(len(due) + summary["not_sent"], 800, delta=3)  # what was due while nobody answered
        peak = sum(counts[part] for part in range(50, 58))
        low = sum(counts[part] for part in range(37, 45))
        self.assertAlmostEqual(peak / (0.08 * 800), 3.75, delta=0.15)
        self.assertAlmostEqual(low / (0.08 * 800), 0.589, delta=0.1)

    def test_retries_until_ok_and_an_order_for_each_account(self):
        plans = {5: 503, 6: CLOSE, 9: RESET, 12: REFUSE, 15: 429, 20: SILENCE}
        server = self.serve(lambda n: plans.get(n, 200))
        summary, history = self.send(server, "--events", "120", "--rate", "600", "--accounts", "4", "--timeout", "0.4",
                                     "--backoff", "0.05", "--duplicates", "0")
        self.assertEqual((summary["acked"], summary["open"], summary["refused"]), (120, 0, 0))
        self.assertGreaterEqual(summary["retries"], len(plans))
        attempts = collections.defaultdict(list)
        for line in history[1:-1]:
            attempts[line["id"]].append(line)
        self.assertTrue(all(found[-1]["o"] == "ok" for found in attempts.values()))
        self.assertTrue(all(len({line["td"] for line in found}) == 1 for found in attempts.values()))
        times = collections.defaultdict(list)
        for found in attempts.values():
            times[found[0]["k"]].append((found[0]["s"], found[0]["t0"], found[-1]["t1"]))
        for found in times.values():
            found.sort()
            for (_, _, ended), (_, began, _) in zip(found, found[1:]):
                self.assertLessEqual(ended, began)
        self.assertGreater(max(line["cs"] for line in history[1:-1]), 1)

    def test_retry_after_is_waited_for(self):
        server = self.serve(lambda n: 503 if n == 0 else 200)
        server.answer = self.with_retry_after(server.answer)
        _summary, history = self.send(server, "--events", "1", "--backoff", "0.01", "--backoff-max", "0.02")
        first, second = history[1:-1]
        self.assertGreaterEqual(second["t0"] - first["t1"], 10**9)

    @staticmethod
    def with_retry_after(answer):
        def changed(stream, status, count):
            if status == 200:
                return answer(stream, status, count)
            head = b"\x08\x03%d\x00\x0bretry-after\x011" % status  # a literal with a new name
            return Server.frame(1, 5, stream, head)
        return changed

    def test_a_deadline_leaves_the_outcome_unknown(self):
        server = self.serve(lambda n: 503 if n % 2 else RESET)
        summary, history = self.send(server, "--events", "5", "--retry-for", "0.5", "--backoff", "0.05")
        self.assertEqual((summary["acked"], summary["open"]), (0, 5))
        self.assertEqual({line["o"] for line in history[1:-1]}, {"unknown"})

    def test_a_killed_client_leaves_a_history_and_live_figures(self):
        server = self.serve()
        command = self.command(server, "--rate", "500", "--seconds", "60", "--accounts", "300")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
            waiting.until(lambda: sender.poll() is not None or self.last_live().get("acked"), "nothing is acknowledged")
            self.assertIsNone(sender.poll())
            sender.send_signal(signal.SIGKILL)
        history = checker.History().load(self.history)
        self.assertEqual(len(history.cut_runs), 1)
        self.assertGreater(history.outcomes["ok"], 0)
        row = self.last_live()
        self.assertGreater(row["acked"], 0)
        self.assertLessEqual({"at_s", "mono_ns", "retries", "failed", "unknown", "acked", "p99_ms"}, set(row))

    def test_what_cannot_be_sent_is_told(self):
        server = self.serve(lambda n: SILENCE)
        summary, history = self.send(server, "--rate", "200", "--seconds", "1", "--connections", "1", "--streams", "5",
                                     "--retry-for", "0", "--timeout", "30")
        # 200 were due; 5 found room; the last two came due less than 10 ms before the end (bench/load_request.c).
        self.assertEqual(summary["not_sent"], 193)
        self.assertEqual(history[-1]["not_sent"], summary["not_sent"])

    def test_usage(self):
        for options in (["--rate", "0"], ["--shape", "round"], ["--batch", "10", "--accounts", "5"],
                        ["--duplicates", "2"], ["--shape", "paywave", "--peak", "9"], ["--none"], ["--size", "100"]):
            run = subprocess.run([SENDER, *options, "http://127.0.0.1:1/x"], capture_output=True, check=False)
            self.assertEqual(run.returncode, 2, options)
        self.assertEqual(subprocess.run([SENDER], capture_output=True, check=False).returncode, 2)


if __name__ == "__main__":
    SENDER = sys.argv.pop(1)
    unittest.main()
