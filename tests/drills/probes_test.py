"""What the steady state asks of Kafka: who leads what."""

import types
import unittest
from unittest import mock

from chaos.drilling import probes
from chaos.stand import Cluster


def zone(number):
    return types.SimpleNamespace(name=f"az-{number}", broker=types.SimpleNamespace(id=number))


def partition(leader, *replicas):
    return {"leader": leader, "replicas": list(replicas), "isr": list(replicas)}


class Kafka:
    """What Cluster's questions need of it."""

    def __init__(self, *partitions):
        self.zones, self.partitions = [zone(1), zone(2), zone(3)], partitions
        self.peers_up = lambda _zone: 2
        self.balancer_states = dict

    def metadata(self):
        return {"topics": {"one": {"partitions": self.partitions[:1]}, "other": {"partitions": self.partitions[1:]}}}

    out_of_sync, led_by_others = Cluster.out_of_sync, Cluster.led_by_others


class LeadersTest(unittest.TestCase):
    def setUp(self):
        patched = mock.patch.object(probes.gateways, "ready", lambda _zone: (True, ""))
        patched.start()
        self.addCleanup(patched.stop)

    def test_every_partition_is_led_by_its_first_replica(self):
        kafka = Kafka(partition(1, 1, 2, 3), partition(2, 2, 3, 1), partition(3, 3, 1, 2))
        self.assertEqual({"az-1": 0, "az-2": 0, "az-3": 0}, kafka.led_by_others())
        self.assertIsNone(probes._lacking(kafka))

    def test_a_broker_that_was_away_leads_nothing_yet(self):
        kafka = Kafka(partition(1, 1, 2, 3), partition(3, 2, 3, 1), partition(1, 2, 1, 3), partition(-1, 3, 1, 2))
        self.assertEqual({"az-1": 0, "az-2": 2, "az-3": 1}, kafka.led_by_others())
        self.assertEqual("partitions led by others than their first replica: {'az-2': 2, 'az-3': 1}",
                         probes._lacking(kafka))


if __name__ == "__main__":
    unittest.main()
