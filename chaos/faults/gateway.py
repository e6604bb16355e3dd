"""Gateways: killed, frozen, restarted one after the other as an upgrade does."""

import signal
import time

from chaos.faults import process
from chaos.faults.base import FaultNotApplied, cluster, proven
from chaos.stand import processes
from chaos.stand.gateways import PEER_PORT


def needs():
    return ["netns"]


def kill(zone):
    """SIGKILL."""
    ours = cluster()
    return process.kill("gateway", ours, ours.zone(zone), PEER_PORT)


def freeze(zone):
    """SIGSTOP: it keeps its connections and says nothing."""
    ours = cluster()
    return process.freeze("gateway", ours, ours.zone(zone))


def start(zone, wait_s=0):
    """Starts a dead gateway, thaws a frozen one. `wait_s`: waits so long until it is ready."""
    ours = cluster()
    zone = ours.zone(zone)
    process.start("gateway", ours, zone)
    if wait_s:
        ours.wait_ready([zone], wait_s)
    return process.runs("gateway", zone)


def stop(zone, timeout_s=60):
    """SIGTERM, and waits for the end of the drain."""
    ours = cluster()
    zone = ours.zone(zone)
    pid = process.running("gateway", zone)
    began = time.monotonic()
    ours.injected.put(f"gateway {zone.name}", zone.name, "gateway stopped")
    processes.send(pid, signal.SIGTERM)
    processes.wait_gone(pid, timeout_s)
    return {"proof": f"process {pid} ended by itself after {time.monotonic() - began:.1f} s", "zone": zone.name}


def rolling_restart(timeout_s=90):
    """One after the other, the next when the one before is ready and has both peers. Nothing is left to heal."""
    ours = cluster()
    found = []
    for zone in ours.zones:
        old = process.running("gateway", zone)
        ended = stop(zone.name, timeout_s)["proof"]
        start(zone.name, timeout_s)
        proven(lambda zone=zone: ours.peers_up(zone) == 2, f"{zone.gateway.name} does not find its peers", timeout_s)
        if zone.gateway.pid == old:
            raise FaultNotApplied(f"{zone.gateway.name} was not restarted")
        found.append(f"{zone.gateway.name}: {ended}, then {zone.gateway.pid}")
    return {"proof": "; ".join(found)}
