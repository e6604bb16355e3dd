"""Against a real gateway: the sampler reads its figures, and it shows the verdicts that are published to it."""

import http.client
import json
import os
import pathlib
import shutil
import tempfile
import time
import unittest
from unittest import mock

from chaos.drilling import sampler, series
from chaos.drilling.stand import LAST_DRILLS, publish_to
from chaos.drilling.verdict import FAIL, PASS, Verdict
from tests.lib.gateway import Gateway
from tests.lib.waiting import until

BINARY = os.environ.get("SLUICE_BINARY")


@unittest.skipUnless(BINARY, "SLUICE_BINARY names no gateway")
class GatewayTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-drills-"))
        cls.addClassCleanup(shutil.rmtree, cls.home)
        cls.gateway = Gateway(BINARY, cls.home, "embedded", {"payments": {"topic": "payments.events"}},
                              {"spool": {"segment": "1MiB", "max": "64MiB"}, "dedupe": {"memory": "16MiB"}})
        cls.enterClassContext(mock.patch.object(sampler, "ANSWER_S", 60))
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.kill)

    def send(self, count):
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", self.gateway.ingest_port, timeout=60)
            connection.request("POST", "/v1/events/payments",
                               json.dumps({"event_id": f"e{time.monotonic_ns()}", "account_id": "a"}),
                               {"content-type": "application/json"})
            self.assertEqual(200, connection.getresponse().status)
            connection.close()

    def drills(self):
        return json.loads(self.gateway.admin("/status")[1])["last_drills"]

    def publish(self, *verdicts):
        publish_to(self.gateway.spool, self.gateway.pid, [each.json() for each in verdicts])

    def test_the_sampler_sees_what_is_taken(self):
        node = sampler.Node("gw-a1", "az-a", "gateway", f"http://127.0.0.1:{self.gateway.admin_port}")
        before = sampler.look_at(node)
        self.send(20)
        after = sampler.look_at(node)
        self.assertEqual(("ready", 20), (after["state"], after["accepted"] - before["accepted"]))
        self.assertEqual(0, after["conservation_error"])
        self.assertGreater(series.quantile_ms(before["ack"], after["ack"]), 0)
        sample = {"node": "gw-a1", "kind": "gateway"}
        rows = series.seconds([{**sample, "t": 1.0, **before}, {**sample, "t": 2.0, **after}])
        self.assertEqual([20], [row["ok"] for row in rows])
        self.assertEqual(sampler.SILENT, sampler.look_at(sampler.Node("x", "z", "broker", "127.0.0.1:1"))["state"])

    def test_the_status_page_shows_the_last_drills(self):
        old = Verdict("zone-loss", verdict=PASS, started="2026-01-01T00:00:00+00:00")
        new = Verdict("disk-full", verdict=FAIL, started="2026-01-02T00:00:00+00:00", reasons=["lost is 3, wanted 0"])
        self.publish(old, new)
        until(lambda: len(self.drills()) == 2, "both verdicts are shown")
        self.assertEqual([("disk-full", "FAIL", "lost is 3, wanted 0"), ("zone-loss", "PASS", "")],
                         [(each["name"], each["verdict"], each["why"]) for each in self.drills()])
        self.gateway.kill()
        self.gateway.start()
        self.assertEqual(2, len(self.drills()), "they outlive the process")

    def test_a_damaged_file_changes_nothing(self):
        self.publish(Verdict("zone-loss", verdict=PASS, started="2026-01-01T00:00:00+00:00"))
        until(lambda: len(self.drills()) == 1, "the verdict is shown")
        (self.gateway.spool / LAST_DRILLS).write_text("{")
        self.assertEqual(202, self.gateway.admin("/reload", "POST")[0])
        until(lambda: any("drills' verdicts cannot be read" in line for line in self.gateway.log_lines()),
              "the log says so")
        self.assertEqual(1, len(self.drills()))


if __name__ == "__main__":
    unittest.main()
