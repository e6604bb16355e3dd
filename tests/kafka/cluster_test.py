#!/usr/bin/env python3
"""The tool itself: what it starts answers, faults are applied, and nothing is left when its owner is killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.kafka import Cluster, WireError, wire  # noqa: E402
from tests.lib.relay import Relays  # noqa: E402

OWNER = """
import sys, time
from tests.kafka import Cluster
kafka = Cluster(brokers=1)
print(kafka.directory, kafka.supervisor_pid, *[kafka.pid(node) for node in kafka.nodes], flush=True)
time.sleep(600)
"""


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def await_true(condition, timeout_s=120):
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class OneBroker(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Cluster(brokers=1)

    @classmethod
    def tearDownClass(cls):
        cls.kafka.down()

    def test_topics(self):
        self.kafka.create_topic("t.one", partitions=3, config={"max.message.bytes": 4000})
        self.assertEqual(self.kafka.high_watermarks("t.one"), {0: 0, 1: 0, 2: 0})
        with self.assertRaises(WireError):
            self.kafka.create_topic("t.one")
        self.kafka.create_partitions("t.one", 5)
        self.kafka.alter_topic("t.one", {"max.message.bytes": None})
        self.assertTrue(await_true(lambda: len(self.kafka.topics()["t.one"]["partitions"]) == 5))
        self.kafka.delete_topic("t.one")
        self.assertTrue(await_true(lambda: "t.one" not in self.kafka.topics()))

    def test_a_frozen_broker_says_nothing_and_a_dead_one_refuses(self):
        host, port = self.kafka.bootstrap.split(":")
        self.kafka.stop(1)
        with self.assertRaisesRegex(WireError, "timed out"):
            wire.metadata((host, int(port)), timeout_s=1)
        self.kafka.cont(1)
        self.kafka.heal()
        self.kafka.kill(1)
        with self.assertRaisesRegex(WireError, "refused"):
            wire.metadata((host, int(port)), timeout_s=1)
        self.kafka.heal()
        self.assertEqual(self.kafka.bootstrap, f"{host}:{port}")


class Listeners(unittest.TestCase):
    def test_clients_of_a_listener_are_sent_through_the_relay(self):
        with Relays() as relays:
            told = relays.add("a broker")
            with Cluster(brokers=1, listeners={"FAR": {1: told}}) as kafka:
                real = kafka.listener_port(1, "FAR")
                relays.target("a broker", real)
                self.assertEqual(wire.metadata(("127.0.0.1", told))["brokers"], {1: ("127.0.0.1", told)})
                host, port = kafka.bootstrap.split(":")
                self.assertEqual(wire.metadata((host, int(port)))["brokers"], {1: ("127.0.0.1", int(port))})
                relays.hold("a broker")
                with self.assertRaisesRegex(WireError, "timed out"):
                    wire.metadata(("127.0.0.1", told), timeout_s=1)


class Owner(unittest.TestCase):
    def test_kill_9_of_the_owner_leaves_nothing(self):
        with subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
            directory, *pids = owner.stdout.readline().split()
            os.kill(int(pids[1]), signal.SIGSTOP)  # a frozen broker must go as well
            owner.kill()
        self.assertTrue(await_true(lambda: all(gone(pid) for pid in pids)), "processes are left")
        self.assertTrue(await_true(lambda: not os.path.exists(directory)), "the directory is left")


if __name__ == "__main__":
    unittest.main()
