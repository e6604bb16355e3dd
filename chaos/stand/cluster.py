"""The cluster: what it is made of, and bringing it up and down.

`up` claims the directory, then makes everything in an order in which each step finds what it needs; nothing is
remembered that `down` would depend on. `down` looks for what carries the mark: processes, mounts, loop devices,
namespaces, the link, the directory; so it also clears up after an `up` that was killed at any point.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import threading
import time

from chaos.stand import balancer, brokers, disks, gateways, monitoring, network, processes
from chaos.stand.injected import Injected
from chaos.stand.places import SIGN, Places
from chaos.stand.shell import ROOT, StandError, need_root, run, within
from tests.kafka import dist, wire
from warehouse import stand as warehouse_stand

LETTERS = "abc"
SHIMS = "tests/preload/disk_fault.so", "chaos/faults/clock_shift.so"  # in the build directory


class Disk:
    """`image`: a sparse file, `mount`: where it is seen."""

    def __init__(self, places, zone, kind):
        self.kind, self.image, self.mount = kind, places.image(zone, kind), places.mount(zone, kind)

    @property
    def mounted(self):
        return disks.mounted(self.mount)

    def make(self):
        """A new, empty disk."""
        disks.make(self.image, disks.SIZE_BYTES[self.kind])
        disks.mount(self.image, self.mount)

    def attach(self):
        disks.mount(self.image, self.mount)

    def unmount(self):
        """Waits until nothing uses it any more."""
        disks.unmount(self.mount)

    def cut_power(self):
        """Every call on it fails from now on, and what was not synced is lost; unmount(), attach() bring it back."""
        disks.cut_power(self.mount)


class Gateway:
    """`ingest_url`: to this one alone, through the balancer's port for it."""

    def __init__(self, places, zone, address, ingest_url):
        self._places = places
        self.name, self.role = f"gw-{zone[-1]}1", f"gateway-{zone}"
        self.ingest_url = ingest_url
        self.admin_url = f"http://{address}:{gateways.ADMIN_PORT}"
        self.config = places.dir / zone / "gateway.yaml"
        self.spool_dir = places.mount(zone, disks.SPOOL) / "spool"
        self.log = places.dir / "logs" / f"{self.role}.log"

    @property
    def pid(self):
        """None when it does not run."""
        return processes.find(self._places, self.role)


class Broker:
    def __init__(self, places, zone, address, number):
        self._places = places
        self.id, self.role = number, f"broker-{zone}"
        self.bootstrap = f"{address}:{brokers.CLIENT_PORT}"
        self.log_dir = places.mount(zone, disks.KAFKA) / "logs"
        self.properties = places.dir / zone / "server.properties"
        self.log = places.dir / "logs" / f"{self.role}.log"
        self.disk = Disk(places, zone, disks.KAFKA)

    @property
    def pid(self):
        """None when it does not run."""
        return processes.find(self._places, self.role)


class Zone:
    """`disk`: the spool's; the broker has its own, `broker.disk`."""

    def __init__(self, places, letter, subnet):
        number = LETTERS.index(letter)
        self.letter, self.name = letter, f"az-{letter}"
        self.netns, self.address = places.netns(self.name), network.host(subnet, network.FIRST_ZONE + number)
        direct = f"http://{network.host(subnet, network.INSIDE)}:{balancer.DIRECT_PORT + number}"
        self.gateway = Gateway(places, self.name, self.address, direct)
        self.broker = Broker(places, self.name, self.address, number + 1)
        self.disk = Disk(places, self.name, disks.SPOOL)


class Cluster:
    """What is up: made from the state file, so each command has its own."""

    def __init__(self, places, state):
        self.places, self.state, self.dir, self.mark = places, state, places.dir, places.mark
        self.network = state["network"]
        self.zones = [Zone(places, letter, self.network) for letter in LETTERS]
        self.address = network.host(self.network, network.INSIDE)
        self.balancer_url = f"http://{self.address}:{balancer.PORT}"
        self.balancer_status_url = f"http://{self.address}:{balancer.STATISTICS_PORT}/"
        self.prometheus_url = f"http://{self.address}:{monitoring.PORT}"
        self.bootstrap = ",".join(zone.broker.bootstrap for zone in self.zones)
        self.source, self.topic = gateways.SOURCE, gateways.TOPIC
        self.injected = Injected(places)

    @classmethod
    def load(cls, directory=None):
        """The cluster that is up; StandError without one."""
        places = Places(directory)
        state = places.read_state()
        if not state["complete"]:
            raise StandError(f"the cluster in {places.dir} did not come up whole: chaos/cluster down")
        return cls(places, state)

    @property
    def warehouse(self):
        """What the warehouse told at `up` ({"dsn": …, "connect_url": …}); None without one."""
        return self.state["warehouse"]

    def zone(self, name):
        """By "az-a" or "a"."""
        for zone in self.zones:
            if name in (zone.name, zone.letter):
                return zone
        raise StandError(f"no zone {name}: there are {', '.join(zone.name for zone in self.zones)}")

    def others(self, zone):
        return [each for each in self.zones if each.name != zone.name]

    # ---- processes

    def spawn(self, role, command, netns=None, **options):
        """Another process of the cluster, which `down` ends: see processes.spawn. `netns`: a zone's, or
        add_host()'s."""
        return processes.spawn(self.places, role, command, netns=netns, **options)

    def add_host(self, name, number):
        """Another namespace on the bridge, 20 and up: (netns, address)."""
        address = network.add(self.places, self.network, name, number)
        return self.places.netns(name), address

    def start_gateway(self, zone):
        gateways.start(self.places, zone)

    def start_broker(self, zone):
        brokers.format_disk(self.places, zone)
        brokers.start(self.places, ROOT, zone)

    # ---- questions

    def metadata(self, zones=None, topics=None, timeout_s=2):
        """Kafka's metadata, of the first broker (of these zones) that answers, asked in its own zone; WireError if
        none."""
        error = wire.WireError("no broker to ask")
        for zone in zones or self.zones:
            try:
                return self.ask_broker(zone, lambda address: wire.metadata(address, topics, timeout_s=timeout_s))
            except (wire.WireError, OSError) as refused:
                error = refused if isinstance(refused, wire.WireError) else wire.WireError(str(refused))
        raise error

    def ask_broker(self, zone, request):
        """request((host, port)) from within the zone."""
        return within(zone.netns, lambda: request((zone.address, brokers.CLIENT_PORT)))

    def wait_ready(self, zones=None, timeout_s=60):
        """Until those gateways answer /readyz with 200."""
        for zone in zones or self.zones:
            end = time.monotonic() + timeout_s
            while True:
                fine, why = gateways.ready(zone)
                if fine:
                    break
                if not zone.gateway.pid:
                    raise StandError(f"the gateway in {zone.name} ended: {gateways.log_tail(self.places, zone)}")
                if time.monotonic() > end:
                    raise StandError(f"the gateway in {zone.name} is not ready after {timeout_s} s: {why}")
                time.sleep(0.05)

    def out_of_sync(self):
        """{zone name: partitions that have it as a replica and not in sync}; all of them for a broker that is not
        there."""
        seen = self.metadata()
        short = {zone.name: 0 for zone in self.zones}
        for topic in seen["topics"].values():
            for partition in topic["partitions"]:
                for zone in self.zones:
                    if zone.broker.id in partition["replicas"] and zone.broker.id not in partition["isr"]:
                        short[zone.name] += 1
        return short

    def led_by_others(self):
        """{zone name: partitions that its broker should lead, as their first replica, and does not}"""
        first = {zone.broker.id: zone.name for zone in self.zones}
        found = dict.fromkeys(first.values(), 0)
        for topic in self.metadata()["topics"].values():
            for partition in topic["partitions"]:
                if partition["leader"] != partition["replicas"][0]:
                    found[first[partition["replicas"][0]]] += 1
        return found

    def wait_in_sync(self, timeout_s=90):
        """Until every replica of every partition is in sync; StandError at once when a broker does not run."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                lacking = {name: count for name, count in self.out_of_sync().items() if count}
            except wire.WireError as error:
                lacking = str(error)
            if not lacking:
                return
            for zone in self.zones:
                if not zone.broker.pid:
                    raise StandError(f"the broker in {zone.name} does not run: {brokers.log_tail(self.places, zone)}")
            if time.monotonic() > end:
                raise StandError(f"replicas out of sync after {timeout_s} s: {lacking}")
            time.sleep(0.2)

    # ---- sources

    def add_source(self, name, settings, partitions=6):
        """A source of all gateways with its topic (`topic` in the settings); they take it at once."""
        self._create_topic(settings["topic"], partitions)
        gateways.write_source(self.places, name, settings)
        for zone in self.zones:
            if zone.gateway.pid:
                gateways.ask(zone, "/reload", method="POST")

    def _create_topic(self, name, partitions):
        addresses = [(zone.address, brokers.CLIENT_PORT) for zone in self.zones]
        try:
            wire.first_answer(addresses, 30, lambda address: wire.create_topic(address, name, partitions, 3))
        except wire.WireError as error:
            if error.code != 36:  # it exists
                raise

    # ---- up

    @classmethod
    def up(cls, warehouse=True, tell=print, directory=None, binary=None):
        need_root()
        places = Places(directory)
        binary, shims = _built(binary)
        dist.libraries()
        with places.lock():
            places.claim()
            subnet = network.free_network(places.mark)
            cluster = cls(places, {"complete": False, "mark": places.mark, "network": str(subnet), "warehouse": None,
                                   "cluster_id": brokers.new_id()})
            places.write_state(cluster.state)
            cluster._take_programs(binary, shims)
            cluster._bring_up(tell)
            cluster._bring_up_warehouse(warehouse, tell)
            cluster.state["complete"] = True
            places.write_state(cluster.state)
        return cluster

    def _take_programs(self, binary, shims):
        """Copies: a build meanwhile changes nothing in this cluster."""
        (self.dir / "bin").mkdir()
        shutil.copy2(binary, self.dir / "bin" / "sluice")
        for shim in shims:
            shutil.copy2(shim, self.dir / "bin")

    def _bring_up(self, tell):
        tell(f"network {self.network}, disks, certificates")
        formatting = _Aside(lambda: brokers.format_template(self.places, ROOT, self.zones[0], self.zones,
                                                            self.state["cluster_id"]))
        network.make(self.places, self.network)
        for number, zone in enumerate(self.zones):
            network.add(self.places, self.network, zone.name, network.FIRST_ZONE + number)
            zone.disk.make()
            zone.broker.disk.make()
            brokers.write_properties(zone, self.zones)
            gateways.write_configuration(self.places, zone, self.zones)
        gateways.write_source(self.places, self.source, {"topic": self.topic})
        gateways.make_keys(self.places, self.zones)
        tell("three brokers")
        formatting.join()
        for zone in self.zones:
            self.start_broker(zone)
        monitoring.start(self.places, self.address, self.zones)
        balancer.start(self.places, self.address, self.zones)
        brokers.wait_whole(self.places, self.zones)
        self._create_topic(self.topic, 6)
        tell("three gateways")
        for zone in self.zones:
            self.start_gateway(zone)
        self.wait_ready()
        self._wait_joined()

    def _wait_joined(self, timeout_s=30):
        """Until every gateway has both its peers, and the balancer all of them."""
        end = time.monotonic() + timeout_s
        while True:
            lacking = [zone.name for zone in self.zones if self.peers_up(zone) < 2]
            lacking += [name for name, state in self.balancer_states().items() if state != "UP"]
            if not lacking:
                return
            if time.monotonic() > end:
                raise StandError(f"not whole after {timeout_s} s: {lacking}")
            time.sleep(0.1)

    def peers_up(self, zone):
        """How many peers that gateway has a session with."""
        text = gateways.ask(zone, "/metrics")[1]
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("sluice_peer_up{"))

    def balancer_states(self):
        """{gateway name: "UP", "DOWN", …} as the balancer sees them; {} when it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.settimeout(2)
                admin.connect(str(self.dir / "balancer.sock"))
                admin.sendall(b"show stat -1 4 -1\n")
                text = admin.makefile().read()
        except OSError:
            return {zone.gateway.name: "no balancer" for zone in self.zones}
        rows = [line.split(",") for line in text.splitlines() if line]
        column = rows[0].index("status")
        return {row[1]: row[column] for row in rows[1:] if row[0] == "gateways"}

    def _bring_up_warehouse(self, wanted, tell):
        if wanted:
            tell("the warehouse")
            try:
                self.state["warehouse"] = warehouse_stand.up(self)
            except warehouse_stand.StandError as error:
                raise StandError(str(error)) from error

    # ---- down

    @staticmethod
    def down(directory=None):
        """Removes everything that carries the mark. True when there was anything."""
        need_root()
        places = Places(directory)
        with places.lock():
            found = (places.dir / SIGN).exists() or bool(processes.all_of(places))
            with contextlib.suppress(StandError):
                warehouse_stand.down(places)  # in order as far as it goes; what is left then is killed
            processes.kill_all(places)
            disks.remove(places)
            network.remove(places)
            if (places.dir / SIGN).exists():
                _remove_directory(places.dir)
        return found


def _remove_directory(directory):
    """The sign goes last: while it is there, another `down` goes on."""
    for entry in directory.iterdir():
        if entry.name != SIGN:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (directory / SIGN).unlink()
    directory.rmdir()


def _built(binary):
    """(the gateway, the shims that there are): SLUICE_BINARY, or in SLUICE_BUILD, or in build/."""
    build = pathlib.Path(os.environ.get("SLUICE_BUILD") or os.path.join(ROOT, "build"))
    found = pathlib.Path(binary or os.environ.get("SLUICE_BINARY") or build / "sluice")
    if not found.exists():
        raise StandError(f"{found} is not there: scripts/build, or set SLUICE_BUILD")
    run(found, "version")
    return found, [build / shim for shim in SHIMS if (build / shim).exists()]


class _Aside:
    """Something that goes on beside; join() raises what it raised."""

    def __init__(self, function):
        self._error = None

        def body():
            try:
                function()
            except Exception as error:  # raised again by join()
                self._error = error

        self._thread = threading.Thread(target=body)
        self._thread.start()

    def join(self):
        self._thread.join()
        if self._error:
            raise self._error
