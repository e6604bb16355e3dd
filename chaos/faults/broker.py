"""Brokers: killed, frozen, all of them, the active controller, fewer in sync than Kafka needs to take anything."""

from chaos.faults import partition, process, quorum
from chaos.faults.base import FaultNotApplied, cluster, need, proven
from chaos.stand import brokers, processes
from tests.kafka.wire import WireError


def needs():
    return ["netns"]


def kill(zone):
    """SIGKILL."""
    ours = cluster()
    return process.kill("broker", ours, ours.zone(zone), brokers.CLIENT_PORT)


def start(zone, wait_s=0):
    """Starts a dead broker, thaws a frozen one. `wait_s`: waits so long until all replicas are in sync."""
    ours = cluster()
    zone = ours.zone(zone)
    process.start("broker", ours, zone)
    if wait_s:
        ours.wait_in_sync(wait_s)
    return process.runs("broker", zone)


def freeze(zone):
    """SIGSTOP: it keeps its connections and says nothing."""
    ours = cluster()
    zone = ours.zone(zone)
    frozen = process.freeze("broker", ours, zone)
    try:
        ours.metadata([zone], [], timeout_s=1)
        raise FaultNotApplied(f"the broker in {zone.name} still answers")
    except WireError as error:
        frozen["proof"] += f"; asked: {error}"
    return frozen


def kill_all():
    """No Kafka at all."""
    found = [kill(zone.name)["proof"] for zone in cluster().zones if zone.broker.pid]
    return {"proof": "; ".join(found)}


def freeze_all():
    found = [freeze(zone.name)["proof"] for zone in cluster().zones if zone.broker.pid]
    return {"proof": "; ".join(found)}


def start_all(wait_s=0):
    """Starts or thaws all that are not running."""
    ours = cluster()
    found = [start(zone.name)["proof"] for zone in ours.zones
             if not zone.broker.pid or processes.stopped(zone.broker.pid)]
    if wait_s:
        ours.wait_in_sync(wait_s)
    return {"proof": "; ".join(found) or "all run"}


def kill_controller():
    """SIGKILL to the broker that is the active controller; another must be elected."""
    ours = cluster()
    old = quorum.leader(ours)
    zone = next(each for each in ours.zones if each.broker.id == old)
    killed = kill(zone.name)
    new = proven(lambda: _other_leader(ours, zone), "no other controller is elected", 30, 0.1)
    return {"proof": f"{killed['proof']}; the controller was {old} and is {new}", "zone": zone.name}


def _other_leader(ours, zone):
    try:
        found = quorum.leader(ours, ours.others(zone))
    except (WireError, OSError):
        return None
    return found if found > 0 and found != zone.broker.id else None


def breach_min_isr(keep="az-a", wait_s=60):
    """The brokers of two zones lose each other and `keep`, on Kafka's own port only, while the controllers still meet:
    the leaders drop them from the in-sync set until that is smaller than min.insync.replicas, and nothing can be
    produced."""
    ours = cluster()
    need(ours, *partition.needs())
    for zone in ours.others(ours.zone(keep)):
        partition.cut(zone.name, traffic="brokers")

    def short():
        # Any topic: a replica falls behind only when there is something to fetch, and when the state of transactions
        # is the first to be short, nothing reaches the events' topic any more.
        try:
            topics = ours.metadata([ours.zone(keep)])["topics"]
        except WireError:
            return None
        return {name: partitions for name, topic in topics.items()
                if (partitions := [each["partition"] for each in topic["partitions"] if len(each["isr"]) < 2])}
    found = proven(short, "there are still two in sync everywhere", wait_s, 0.2)
    return {"proof": "fewer than two in sync: " + "; ".join(f"{name} {found[name]}" for name in sorted(found))}


def heal_min_isr(keep="az-a", wait_s=0):
    ours = cluster()
    for zone in ours.others(ours.zone(keep)):
        partition.heal(zone.name)
    if wait_s:
        ours.wait_in_sync(wait_s)
    return {"proof": "no rule is left"}
