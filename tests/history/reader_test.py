#!/usr/bin/env python3
"""topic_read against a real broker: what read_committed means, and that "to the end" is proven."""

import pathlib
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.history import records  # noqa: E402  the path must be set first
from tests.kafka import Cluster  # noqa: E402


class Writer:
    """topic_write, driven line by line."""

    def __init__(self, brokers, transactional_id):
        self.process = subprocess.Popen([str(records.default_reader().with_name("topic_write")), "-b", brokers, "-t",
                                         transactional_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer("init")

    def _answer(self, what):
        answer = self.process.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(f"topic_write: {what}: {answer}")

    def do(self, *columns):
        self.process.stdin.write("\t".join(map(str, columns)) + "\n")
        self.process.stdin.flush()
        self._answer(columns[0])

    def put(self, topic, partition, seq, value="v", key="k", stream="gw-a1.1-aaaa"):
        self.do("put", topic, partition, key, f"id-{seq}", stream, seq, value)

    def transaction(self, topic, seqs, end="commit", partition=0):
        self.do("begin")
        for seq in seqs:
            self.put(topic, partition, seq)
        self.do("flush")
        if end:
            self.do(end)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Reader(unittest.TestCase):
    kafka = None
    number = 0

    @classmethod
    def setUpClass(cls):
        cls.kafka = Cluster(brokers=1)

    @classmethod
    def tearDownClass(cls):
        cls.kafka.down()

    def setUp(self):
        Reader.number += 1
        self.topic = f"read.{Reader.number}"
        self.kafka.create_topic(self.topic, partitions=2)

    def writer(self, name="one"):
        writer = Writer(self.kafka.bootstrap, f"{self.topic}.{name}")
        self.addCleanup(writer.close)
        return writer

    def read(self, **options):
        return records.read(self.kafka.bootstrap, [self.topic], options.pop("timeout_s", 120), **options)

    def test_empty(self):
        self.assertEqual(self.read(), [])

    def test_content(self):
        writer = self.writer()
        writer.do("begin")
        writer.put(self.topic, 0, 1, value="123456789")
        writer.put(self.topic, 1, 2, value="back\\slash", key="")
        writer.do("commit")
        first, second = sorted(self.read(values=True, headers=True), key=lambda record: record.partition)
        self.assertEqual((first.topic, first.partition, first.offset), (self.topic, 0, 0))
        self.assertEqual((first.key, first.event_id, first.stream, first.seq), ("k", "id-1", "gw-a1.1-aaaa", 1))
        self.assertEqual(first.crc32c, 0xE3069283)
        self.assertAlmostEqual(first.timestamp_ms / 1000, time.time(), delta=300)
        self.assertIsNone(second.key)
        self.assertEqual(second.rest[0], b"back\\slash")
        self.assertEqual(records.header(second, "sluice-seq"), b"2")

    def test_aborted_records_are_not_there_and_do_not_stop_it(self):
        writer = self.writer()
        writer.transaction(self.topic, range(1, 51))
        writer.transaction(self.topic, range(51, 101), end="abort")
        self.assertEqual([record.seq for record in self.read()], list(range(1, 51)))

    def test_only_control_records_after_the_last_message(self):
        writer = self.writer()
        writer.transaction(self.topic, [1, 2], end="abort")
        self.assertEqual(self.read(), [])

    def test_an_open_transaction_of_another_is_waited_for(self):
        # 50 committed, then another producer's open transaction, then 50 more committed behind it: a reader that trusts
        # end-of-partition sees 50.
        one, other = self.writer("one"), self.writer("other")
        one.transaction(self.topic, range(1, 51))
        other.transaction(self.topic, [1000], end=None)
        one.transaction(self.topic, range(51, 101))
        for timeout_s in (3, 9, 27):  # how long it takes to come to the open transaction is the machine's affair
            with self.assertRaisesRegex(records.CutError, f"not at the end after {timeout_s} s") as cut:
                self.read(timeout_s=timeout_s)
            if "[0] 51 of 103" in str(cut.exception):
                break
        self.assertIn("[0] 51 of 103", str(cut.exception))
        command = [str(records.default_reader()), "-b", self.kafka.bootstrap, "--timeout", "120", self.topic]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
            try:
                reader.wait(2)
                self.fail("it ended although a transaction is open")
            except subprocess.TimeoutExpired:
                other.do("abort")
            found = list(records.parse(reader.stdout))
        self.assertEqual([record.seq for record in found], list(range(1, 101)))

    def test_missing_topic(self):
        with self.assertRaisesRegex(records.CutError, "read.none"):
            records.read(self.kafka.bootstrap, ["read.none"], 60)
        self.assertEqual(records.read(self.kafka.bootstrap, ["read.none"], 60, missing_ok=True), [])

    def test_no_broker(self):
        with self.assertRaisesRegex(records.CutError, self.topic):
            records.read("127.0.0.1:1", [self.topic], 2)


if __name__ == "__main__":
    unittest.main()
