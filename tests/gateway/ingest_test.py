#!/usr/bin/env python3
"""When a request is answered, while the test says how far peers and Kafka are.

ingest_test.py INGEST_STAND [unittest arguments]
"""
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

STAND = ""
LONG_S = 60  # a bound on a busy machine; nothing waits for it when all is well


class Answer(threading.Thread):
    """One request with these ids, sent at once; result() waits for its answer."""

    def __init__(self, port, source, ids):
        super().__init__(daemon=True)
        self.arguments = (port, source, ids)
        self.start()

    def run(self):
        port, source, ids = self.arguments
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
        connection.request("POST", f"/v1/events/{source}", json.dumps([{"id": each} for each in ids]),
                           {"content-type": "application/json"})
        response = connection.getresponse()
        self.answer = (response.status, json.loads(response.read()))
        connection.close()

    def result(self):
        self.join(LONG_S)
        return self.answer


class Ingest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        place = Path(directory.name)
        (place / "sources").mkdir()
        for name, level, timeout in (("disk", "disk", "5m"), ("zones", "az2", "5m"), ("soon", "az2", "200ms"),
                                     ("kafka", "kafka", "5m")):
            (place / f"sources/{name}.yaml").write_text(
                f"source: {name}\ntopic: t\nevent_id: /id\nack: {level}\nack_timeout: {timeout}\n"
                f"lane: {'other' if name == 'kafka' else 'main'}\n")
        (place / "main.yaml").write_text(
            "node: { name: gw-a1, zone: az-a }\n"
            'listen: { ingest: "127.0.0.1:0", admin: off, threads: 2 }\n'
            'kafka: { brokers: "127.0.0.1:1" }\n'
            "spool: { dir: spool, segment: 1MiB, max: 256MiB }\n"
            "dedupe: { window: 0 }\n"
            'ha: { listen: "127.0.0.1:0", peers: [ { name: gw-b1, zone: az-b, address: "127.0.0.1:1" } ] }\n')
        self.stand = subprocess.Popen([STAND, str(place / "main.yaml")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True)
        self.port = int(self.stand.stdout.readline())

    def tearDown(self):
        rest, _ = self.stand.communicate("end\n", timeout=LONG_S)
        self.assertEqual((self.stand.returncode, rest), (0, "conservation 0\n"))

    def say(self, line):
        print(line, file=self.stand.stdin, flush=True)
        self.assertEqual(self.stand.stdout.readline(), "ok\n")

    def send(self, source, *ids):
        return Answer(self.port, source, ids)

    def stored(self, source, *ids):
        """The same, once its records are on disk: another request that is answered from the disk comes after it."""
        answer = self.send(source, *ids)
        answer.seq = 0
        while answer.seq < 1:
            _, marker = self.send("disk", f"marker-{self.markers}").result()
            self.markers += 1
            if marker["first_seq"] > self.last + 1:
                answer.seq = marker["first_seq"] - 1
            self.last = marker["first_seq"]
        return answer

    markers = 0
    last = 0

    def waits(self, *answers):
        # The loops are woken before this request is taken, and look at who waits before it is answered.
        self.send("disk", f"marker-{self.markers}").result()
        self.markers += 1
        self.last += 1
        for answer in answers:
            self.assertTrue(answer.is_alive(), "answered too early")

    def given(self, answer, **expected):
        status, body = answer.result()
        self.assertEqual(status, 200, body)
        for key, value in expected.items():
            self.assertEqual(body[key], value, body)
        return body

    def test_another_zone_or_kafka(self):
        one, two, three = (self.stored("zones", each) for each in ("a", "b", "c"))
        self.waits(one, two, three)
        self.say(f"peer 0 {two.seq}")
        self.given(one, ack="az2", accepted=1)
        self.given(two)
        self.waits(three)
        self.say(f"committed 0 other {three.seq}")  # another lane's progress says nothing
        self.waits(three)
        self.say(f"committed 0 main {three.seq}")
        self.given(three, first_seq=three.seq)

    def test_kafka_alone_gives_its_level(self):
        one = self.stored("kafka", "a")
        self.say(f"peer 0 {one.seq}")
        self.waits(one)
        self.say(f"committed 0 other {one.seq}")
        self.given(one, ack="kafka")

    def test_a_sealed_stream_keeps_its_requests(self):
        old = self.stored("zones", "a")
        stream = self.given(self.send("disk", "x"))["stream"]
        self.say("next")
        self.last = 0
        new = self.stored("zones", "b")
        again = self.send("zones", "a")
        self.say(f"peer 1 {new.seq + 1000}")
        body = self.given(new)
        self.assertNotEqual(body["stream"], stream)
        self.waits(old, again)
        self.say(f"committed 0 main {old.seq}")
        self.given(old, stream=stream, first_seq=old.seq)
        self.given(again, accepted=0, duplicates=1, stream=body["stream"], first_seq=None)

    def test_a_stream_that_is_long_gone(self):
        old = self.stored("zones", "a")
        for _ in range(9):
            self.say("next")
            self.given(self.send("disk", f"marker-{self.markers}"))
            self.markers += 1
        status, body = old.result()
        self.assertEqual(status, 503)
        self.assertIn("given up", body["detail"])

    def test_the_deadline(self):
        status, body = self.send("soon", "a").result()
        self.assertEqual(status, 503)
        self.assertIn("Neither another zone nor Kafka", body["detail"])
        # It is stored, and sent again it gets what the first one has come to meanwhile.
        self.say("peer 0 1")
        self.given(self.send("soon", "a"), accepted=0, duplicates=1)


if __name__ == "__main__":
    STAND = sys.argv.pop(1)
    unittest.main()
