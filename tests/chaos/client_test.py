#!/usr/bin/env python3
"""The drills' client against a real gateway that is restarted under load, and the judge over what lies in Kafka.

The brokers are those that a second gateway embeds: they outlive the first. They show aborted records to everyone, so
the gateway is ended in order here; kills before real brokers are what the drills are for.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from chaos import judge  # noqa: E402  the path must be set first
from chaos.client import Load  # noqa: E402
from tests.lib import waiting  # noqa: E402
from tests.lib.client import environment_build  # noqa: E402
from tests.lib.gateway import Gateway  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402

SOURCE = {"payments": {"topic": "payments.events"}}


class ThroughARestart(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(temporary_directory("client"))
        self.addCleanup(shutil.rmtree, self.home)
        build, binary = environment_build()
        os.environ["SLUICE_BUILD"] = build  # for Load, whose default is the user's build
        broker = Gateway(binary, self.home / "brokers", "embedded", SOURCE)
        self.addCleanup(broker.close)
        broker.start()
        self.brokers = json.loads(broker.admin("/status")[1])["kafka"]["brokers"]
        self.gateway = Gateway(binary, self.home / "gateway", self.brokers, SOURCE)
        self.addCleanup(self.gateway.close)
        self.gateway.start()
        # What chaos.stand's Cluster says of itself, as far as the client and the judge ask.
        self.cluster = types.SimpleNamespace(balancer_url=self.gateway.url("").split("/v1/")[0], source="payments",
                                             topic="payments.events", bootstrap=self.brokers, warehouse=None,
                                             dir=self.home)

    def load(self, name, **settings):
        folder = self.home / name
        folder.mkdir()
        load = Load(self.cluster, folder, rate=400, accounts=500, connections=4, **settings)
        self.addCleanup(load.close)
        load.start()
        return load

    def progressed(self, load, events):
        goal = load.progress()["acked"] + events
        waiting.until(lambda: load.progress()["acked"] >= goal, lambda: f"{load.progress()} of {goal} acked")

    def test_nothing_is_lost_doubled_or_out_of_order(self):
        first = self.load("first")
        self.progressed(first, 200)
        first.stop()
        load = self.load("second", batch=3, duplicates=0.05)
        self.progressed(load, 300)
        self.gateway.stop()
        waiting.until(lambda: load.progress()["failed"] > 0, lambda: f"{load.progress()}: nobody noticed")
        self.gateway.start()
        self.progressed(load, 1500)
        summary = load.stop()
        self.gateway.wait_drained()
        result = judge.judge(self.cluster, load, load.folder)
        figures = result["figures"]
        self.assertTrue(result["passed"], result["why"])
        damage = ("lost", "doubled", "resent", "phantom", "reordered", "corrupt")
        self.assertEqual({figures[each] for each in damage}, {0})
        self.assertEqual(figures["acked"], summary["acked"])
        self.assertEqual(figures["open_found"] + figures["open_absent"], 0)
        self.assertEqual(figures["availability"], 1)
        self.assertLess(figures["availability_before_retries"], 1)
        self.assertGreaterEqual(result["events"]["earlier"], 200)
        self.assertGreater(summary["again"], 10)
        self.assertGreaterEqual(summary["duplicates"], summary["again"])
        self.assertEqual(json.loads((load.folder / "judge.json").read_text())["figures"], figures)

    def test_a_record_that_vanishes_is_seen(self):
        load = self.load("load")
        self.progressed(load, 300)
        load.stop()
        self.gateway.wait_drained()
        history = load.history.read_text()
        account = re.search(r'"k":"(acc_\d+)"', history)[1]
        load.history.write_text(history.replace(f'"k":"{account}"', '"k":"acc_99999999"'))
        result = judge.judge(self.cluster, load, load.folder)
        self.assertFalse(result["passed"])
        self.assertGreater(result["figures"]["corrupt"], 0)


if __name__ == "__main__":
    unittest.main()
