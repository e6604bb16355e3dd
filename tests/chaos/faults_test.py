#!/usr/bin/env python3
"""Every fault on one running cluster under load: it proves that it was applied, `status` shows it, and its heal
heals."""

import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from chaos.faults import Skip, broker, certificate, clock, disk, flood, gateway, partition  # noqa: E402
from chaos.faults import quorum, slow, zone  # noqa: E402
from chaos.stand import Cluster, gateways, report  # noqa: E402
from tests.kafka.wire import WireError  # noqa: E402
from tests.lib.client import Load, environment_build  # noqa: E402
from tests.lib.places import disk_root  # noqa: E402
from tests.lib.waiting import until  # noqa: E402

WAIT_S = 60


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-chaos-test-", dir=disk_root()))
        os.environ["SLUICE_CHAOS_DIR"] = str(cls.home / "cluster")  # where faults look for their cluster
        cls.addClassCleanup(cls.end)
        cls.load = None
        cls.cluster = Cluster.up(warehouse=False, tell=lambda _text: None)
        build, _binary = environment_build()
        cls.load = Load(build, f"{cls.cluster.balancer_url}/v1/events/payments", str(cls.home / "history"), "-c", "4",
                        "-m", "4", "-r", "300", "-t", "3600", "--retry", "--retry-for", "60", "--timeout", "5")

    @classmethod
    def end(cls):
        if cls.load:
            cls.load.close()
        Cluster.down()
        for path in cls.home.iterdir():
            path.unlink()
        cls.home.rmdir()
        del os.environ["SLUICE_CHAOS_DIR"]

    def setUp(self):
        self.a, self.b, self.c = self.cluster.zones

    def tearDown(self):
        """Each fault is healed by its own test; here is seen that nothing is left of it."""
        self.cluster.wait_ready(timeout_s=WAIT_S)
        self.cluster.wait_in_sync(WAIT_S)
        until(self.well, lambda: report.collect(self.cluster), WAIT_S, 0.2)

    def well(self):
        fine = "ready", "UP", "in sync"
        zones = report.collect(self.cluster)["zones"].values()
        return (not self.cluster.injected.all() and
                all((each["gateway"], each["balancer"], each["broker"]) == fine for each in zones) and
                all(self.cluster.peers_up(each) == 2 for each in self.cluster.zones))

    def applied(self, fault, *arguments, seen=None, **options):
        """Runs a fault; its proof and its line in `status` are there."""
        try:
            found = fault(*arguments, **options)
        except Skip as reason:
            self.skipTest(str(reason))
        print(f"    {fault.__module__.rsplit('.', 1)[-1]}.{fault.__name__}: {found['proof']}", flush=True)
        self.assertTrue(found["proof"])
        if seen:
            self.assertIn(seen, str(report.collect(self.cluster)))
        return found

    # ---- zones

    def test_zone_power(self):
        self.applied(zone.power_off, "az-b", seen="power off")
        self.assertIsNone(self.b.gateway.pid)
        self.assertFalse(self.b.disk.mounted)
        self.applied(zone.power_on, "az-b", wait_s=WAIT_S)

    def test_zone_power_and_its_disks(self):
        self.applied(zone.power_off, "az-c", disks="gone", seen="disks gone")
        self.assertFalse(self.c.disk.image.exists())
        self.applied(zone.power_on, "az-c", wait_s=WAIT_S)

    def test_zone_freeze(self):
        self.applied(zone.freeze, "az-a", seen="frozen")
        self.applied(zone.thaw, "az-a")

    def test_zone_network(self):
        self.applied(zone.network_off, "az-a", seen="network gone")
        self.applied(zone.network_on, "az-a")

    # ---- partitions

    def test_partition(self):
        self.applied(partition.cut, "az-a", seen="cut off: all, both")
        until(lambda: self.cluster.peers_up(self.a) == 0, "peers stay up across a partition", 30)
        self.applied(partition.heal, "az-a")

    def test_partition_one_way_and_one_link(self):
        self.applied(partition.cut, "az-a", direction="in", other="az-b")
        self.assertEqual(partition.dropped(self.a)["out"], 0)
        self.applied(partition.heal, "az-a")

    def test_partition_of_kafka_only(self):
        self.applied(partition.cut, "az-b", traffic="kafka", seen="kafka")
        self.assertEqual(self.cluster.peers_up(self.b), 2)
        self.applied(partition.heal, "az-b")

    def test_partition_of_peers_only(self):
        self.applied(partition.cut, "az-b", traffic="peers")
        until(lambda: self.cluster.peers_up(self.b) == 0, "peers stay up across a partition", 30)
        self.applied(partition.heal, "az-b")

    def test_partition_from_clients(self):
        self.applied(partition.cut, "az-c", traffic="clients")
        self.applied(partition.heal, "az-c")

    def test_loss(self):
        self.applied(partition.cut, "az-c", loss=0.1, seen="10% loss")
        self.applied(partition.heal, "az-c")

    # ---- brokers

    def test_broker_kill(self):
        self.applied(broker.kill, "az-a", seen="broker killed")
        self.applied(broker.start, "az-a", wait_s=WAIT_S)

    def test_broker_freeze(self):
        self.applied(broker.freeze, "az-c", seen="broker frozen")
        self.applied(broker.start, "az-c", wait_s=WAIT_S)

    def test_all_brokers(self):
        self.applied(broker.kill_all)
        with self.assertRaises(WireError):
            self.cluster.metadata()
        self.applied(broker.start_all, wait_s=WAIT_S)

    def test_controller(self):
        found = self.applied(broker.kill_controller)
        self.assertNotEqual(quorum.leader(self.cluster), self.cluster.zone(found["zone"]).broker.id)
        self.applied(broker.start, found["zone"], wait_s=WAIT_S)

    def test_min_isr(self):
        self.applied(broker.breach_min_isr)
        self.applied(broker.heal_min_isr, wait_s=WAIT_S)

    def test_toxics(self):
        for toxic, attributes in (("latency", {"latency": 300, "jitter": 50}), ("bandwidth", {"rate": 50}),
                                  ("slicer", {"average_size": 100}), ("limit_data", {"bytes": 20000}),
                                  ("reset_peer", {"timeout": 500}), ("timeout", {"timeout": 0}),
                                  ("slow_close", {"delay": 200})):
            with self.subTest(toxic):
                self.applied(slow.add, "az-b", toxic, attributes, seen=f"broker {toxic}")
                self.applied(slow.remove, "az-b")
        with self.assertRaises(ValueError):
            slow.add("az-b", "latency", {})

    # ---- gateways

    def test_gateway_kill(self):
        self.applied(gateway.kill, "az-a", seen="gateway killed")
        self.applied(gateway.start, "az-a", wait_s=WAIT_S)

    def test_gateway_freeze(self):
        self.applied(gateway.freeze, "az-b", seen="gateway frozen")
        self.applied(gateway.start, "az-b", wait_s=WAIT_S)

    def test_rolling_restart(self):
        self.applied(gateway.rolling_restart)

    def test_certificate(self):
        self.applied(certificate.expire, "az-a", seen="certificate expired")
        self.applied(certificate.renew, "az-a")

    def test_clock(self):
        for seconds in (7200, -7200):
            self.applied(clock.jump, "az-b", seconds=seconds, seen="clock off")
            self.assertTrue(gateways.ready(self.b)[0])
            self.applied(clock.back, "az-b")

    def test_reset_flood(self):
        self.applied(flood.start, "az-b", seen="flood of HTTP/2 resets")
        self.assertTrue(gateways.ready(self.b)[0])
        self.applied(flood.stop, "az-b")

    # ---- disks

    def test_slow_sync(self):
        self.applied(disk.slow_sync, "az-a", delay_ms=300, seen="every sync takes 300 ms more")
        self.applied(disk.heal, "az-a")

    def test_failing_sync(self):
        self.applied(disk.failing_sync, "az-b", seen="syncs fail")
        self.applied(disk.heal, "az-b", wait_s=WAIT_S)

    def test_torn_write(self):
        self.applied(disk.torn_write, "az-c", seen="torn write")
        self.applied(disk.heal, "az-c", wait_s=WAIT_S)

    def test_full_disk(self):
        self.applied(disk.fill, "az-a", seen="spool disk full")
        self.applied(disk.free, "az-a")

    def test_bit_rot(self):
        until(lambda: disk.segments(self.a), "no segment is sealed", 120)
        self.applied(disk.bit_rot, "az-a", seen="flipped")
        self.applied(disk.mend, "az-a")

    def test_disk_vanishes(self):
        self.applied(disk.vanish, "az-c", seen="spool disk gone")
        self.applied(disk.come_back, "az-c", wait_s=WAIT_S)
        self.applied(disk.vanish, "az-c")
        self.applied(disk.come_back, "az-c", empty=True, wait_s=WAIT_S)


if __name__ == "__main__":
    unittest.main(verbosity=2)
