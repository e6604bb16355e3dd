"""The cluster as an object: `from chaos.stand import Cluster; cluster = Cluster.load()`. See README.md."""

from chaos.stand.cluster import Broker, Cluster, Disk, Gateway, Zone
from chaos.stand.shell import StandError

__all__ = ["Broker", "Cluster", "Disk", "Gateway", "StandError", "Zone"]
