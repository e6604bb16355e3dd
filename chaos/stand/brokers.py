"""Kafka brokers, one a zone: broker and controller in one process, unchanged, with the settings that Sluice's promise
needs.

The storage is formatted once, by Kafka's own tool; each broker's disk, and each new disk that one gets later, then
takes the bootstrap records from there and a meta.properties of its own, which saves a JVM each time.
"""

import base64
import shutil
import time
import uuid

from chaos.stand import processes
from chaos.stand.shell import StandError, run
from tests.kafka import dist, wire

CLIENT_PORT, CONTROLLER_PORT = 9092, 9093
HEAP_MIB = 256
LOG4J = "tests/kafka/log4j2.properties"


def new_id():
    while True:  # Kafka refuses ids that start with a dash: they look like options
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def java(root, heap_mib, *arguments):
    return [dist.java(), f"-Xms{heap_mib // 2}m", f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-XX:MaxDirectMemorySize=64m", "-XX:ReservedCodeCacheSize=64m", "-XX:MaxMetaspaceSize=128m",
            "-XX:-UsePerfData", "-Xshare:auto", "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={root}/{LOG4J}", "-cp", f"{dist.libraries()}/*", *map(str, arguments)]


def properties(zone, zones, log_dir):
    voters = ",".join(f"{each.broker.id}@{each.address}:{CONTROLLER_PORT}" for each in zones)
    listeners = f"PLAINTEXT://{zone.address}:{CLIENT_PORT},CONTROLLER://{zone.address}:{CONTROLLER_PORT}"
    return {
        "process.roles": "broker,controller",
        "node.id": zone.broker.id,
        "broker.rack": zone.name,
        "controller.quorum.voters": voters,
        "listeners": listeners,
        "advertised.listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": log_dir,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "default.replication.factor": 3,
        "min.insync.replicas": 2,
        "offsets.topic.replication.factor": 3,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 3,
        "transaction.state.log.min.isr": 2,
        "transaction.state.log.num.partitions": 8,
        "replica.lag.time.max.ms": 10000,  # a third of Kafka's own, so that drills see the in-sync set shrink
        # Kafka's own is five minutes: until then a broker that was away leads nothing, and a fault of it hurts nobody.
        "leader.imbalance.check.interval.seconds": 10,
        "group.initial.rebalance.delay.ms": 0,
        # Small: three of these share one machine with all the rest.
        "num.network.threads": 2, "num.io.threads": 4, "background.threads": 2, "num.replica.fetchers": 1,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
        "log.index.size.max.bytes": 1 << 20,
        "log.segment.bytes": 128 << 20,
    }


def write_properties(zone, zones):
    lines = properties(zone, zones, zone.broker.log_dir)
    zone.broker.properties.parent.mkdir(parents=True, exist_ok=True)
    zone.broker.properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))


def format_template(places, root, zone, zones, cluster_id):
    """What Kafka's tool writes into a new log directory, kept aside for all brokers."""
    aside = places.dir / "format"
    aside.mkdir()
    lines = properties(zone, zones, aside / "logs")
    (aside / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    run(*java(root, 64, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", aside / "server.properties"))


def format_disk(places, zone):
    """Makes an empty log directory one that the broker starts on. Does nothing to one that was used."""
    template, log_dir = places.dir / "format" / "logs", zone.broker.log_dir
    if (log_dir / "meta.properties").exists():
        return
    log_dir.mkdir(parents=True, exist_ok=True)
    shutil.copy(template / "bootstrap.checkpoint", log_dir)
    own = {"node.id": zone.broker.id, "directory.id": new_id()}
    lines = []
    for line in (template / "meta.properties").read_text().splitlines():
        key = line.partition("=")[0]
        lines.append(f"{key}={own[key]}" if key in own else line)
    (log_dir / "meta.properties").write_text("\n".join(lines) + "\n")
    run("sync", "--file-system", log_dir)  # a power cut right after `up` would take it along, and the broker with it


def start(places, root, zone):
    """Does not wait until it serves."""
    scratch = places.dir / zone.name / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    command = java(root, HEAP_MIB, "kafka.Kafka", zone.broker.properties)
    command.insert(1, f"-Djava.io.tmpdir={scratch}")
    return processes.spawn(places, zone.broker.role, command, netns=zone.netns)


def lacking(zones, timeout_s=2):
    """Why the brokers are not whole yet; None when each sees all, and transactions have a replicated coordinator."""
    try:
        for zone in zones:
            seen = wire.metadata((zone.address, CLIENT_PORT), [], timeout_s=timeout_s)["brokers"]
            if len(seen) != len(zones):
                return f"the broker in {zone.name} sees {len(seen)} of {len(zones)}"
        address = zones[0].address, CLIENT_PORT
        wire.find_transaction_coordinator(address, "sluice-chaos", timeout_s=timeout_s)
        topic = wire.metadata(address, ["__transaction_state"], timeout_s=timeout_s)["topics"]["__transaction_state"]
        short = [each for each in topic["partitions"] if len(each["isr"]) < len(each["replicas"])]
        return "the coordinator's topic is not replicated yet" if short or not topic["partitions"] else None
    except (wire.WireError, KeyError) as error:
        return str(error)


def wait_whole(places, zones, timeout_s=90):
    end = time.monotonic() + timeout_s
    while True:
        why = lacking(zones)
        if why is None:
            return
        for zone in zones:
            if not processes.find(places, zone.broker.role):
                raise StandError(f"the broker in {zone.name} ended: {log_tail(places, zone)}")
        if time.monotonic() > end:
            raise StandError(f"the brokers are not ready after {timeout_s} s: {why}")
        time.sleep(0.2)


def log_tail(places, zone):
    path = places.dir / "logs" / f"{zone.broker.role}.log"
    return path.read_text(errors="replace")[-1500:] if path.exists() else "(no log)"
