"""Real Apache Kafka brokers for tests: `from tests.kafka import Cluster`.

    with Cluster(brokers=3) as kafka:
        kafka.create_topic("payments.events", partitions=4, replication=3)
        ... kafka.bootstrap ...
        kafka.stop(2); kafka.cont(2); kafka.kill(1); kafka.start(1)

The brokers end when the `with` block or the process that entered it ends, however it ends.
"""

from tests.kafka.cluster import Cluster, ClusterError
from tests.kafka.dist import DistError
from tests.kafka.wire import WireError

__all__ = ["Cluster", "ClusterError", "DistError", "WireError"]
