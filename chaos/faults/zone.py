"""A whole zone: its power, its breath.

Power off, in this order: the cable comes out, so that nobody hears a goodbye; the processes are frozen, so that none
runs on against a dead disk; the disks lose their power, and with it whatever was not synced; the processes are killed.
"""

import signal

from chaos.faults.base import FaultNotApplied, answers, cluster, need, proven, reachable
from chaos.stand import network, processes
from chaos.stand.gateways import PEER_PORT

CANARY = "written-and-not-synced"


def needs():
    return ["netns", "bridge", "loop", "ext4", "power-cut"]


def _pids(zone):
    return [pid for pid in (zone.gateway.pid, zone.broker.pid) if pid]


def power_off(zone, disks="keep"):
    """`disks`: "keep", or "gone": they burn with the zone, and it comes back with empty ones."""
    ours = cluster()
    need(ours, *needs())
    zone = ours.zone(zone)
    pids = _pids(zone)
    if not pids or not zone.disk.mounted:
        raise FaultNotApplied(f"{zone.name} has no power as it is")
    ours.injected.put(f"power {zone.name}", zone.name, "power off" + (", disks gone" if disks == "gone" else ""))
    network.plug(ours.places, zone.name, up=False)
    for pid in pids:
        processes.send(pid, signal.SIGSTOP)
    for disk in (zone.disk, zone.broker.disk):
        (disk.mount / CANARY).write_bytes(b"x" * 65536)
        disk.cut_power()
    for pid in pids:
        processes.kill(pid)
    dropped = [_after_power_cut(disk) for disk in (zone.disk, zone.broker.disk)]
    if disks == "gone":
        for disk in (zone.disk, zone.broker.disk):
            disk.image.unlink()
    witness = ours.others(zone)[0]
    why = reachable(zone.address, PEER_PORT, witness.netns)
    if not why:
        raise FaultNotApplied(f"{witness.name} still reaches {zone.name}")
    proof = f"{len(pids)} processes killed; from {witness.name}: {why}; {'; '.join(dropped)}"
    return {"proof": proof, "zone": zone.name}


def _after_power_cut(disk):
    """Looks at the disk as the next mount will find it; what is looked for was written right before the cut."""
    disk.unmount()
    disk.attach()
    lost = not (disk.mount / CANARY).exists()
    disk.unmount()
    if not lost:
        raise FaultNotApplied(f"what was not synced is on {disk.image} all the same")
    return f"unsynced data of the {disk.kind} disk is gone"


def power_on(zone, wait_s=0):
    """`wait_s`: waits so long for the gateway to be ready and the broker in sync; 0: returns at once."""
    ours = cluster()
    zone = ours.zone(zone)
    for disk in (zone.disk, zone.broker.disk):
        if disk.image.exists() and not disk.mounted:
            disk.attach()
        elif not disk.image.exists():
            disk.make()
    network.plug(ours.places, zone.name, up=True)
    if not zone.broker.pid:
        ours.start_broker(zone)
    if not zone.gateway.pid:
        ours.start_gateway(zone)
    ours.injected.drop(f"power {zone.name}")
    if wait_s:
        ours.wait_ready([zone], wait_s)
        ours.wait_in_sync(wait_s)
    return {"proof": f"gateway {zone.gateway.pid} and broker {zone.broker.pid} run", "zone": zone.name}


def freeze(zone):
    """Everything in the zone stops where it is: a paused virtual machine."""
    ours = cluster()
    zone = ours.zone(zone)
    pids = _pids(zone)
    ours.injected.put(f"frozen {zone.name}", zone.name, "frozen")
    for pid in pids:
        processes.send(pid, signal.SIGSTOP)
    proven(lambda: pids and all(processes.stopped(pid) for pid in pids), f"{zone.name} is not frozen", 5)
    return {"proof": f"processes {pids} are stopped", "zone": zone.name}


def thaw(zone):
    ours = cluster()
    zone = ours.zone(zone)
    pids = _pids(zone)
    for pid in pids:
        processes.send(pid, signal.SIGCONT)
    proven(lambda: pids and not any(processes.stopped(pid) for pid in pids), f"{zone.name} is still frozen", 5)
    ours.injected.drop(f"frozen {zone.name}")
    return {"proof": f"processes {pids} run", "zone": zone.name}


def network_off(zone):
    """The cable comes out; everything in the zone runs on alone."""
    ours = cluster()
    need(ours, "netns", "bridge")
    zone = ours.zone(zone)
    ours.injected.put(f"cable {zone.name}", zone.name, "network gone")
    network.plug(ours.places, zone.name, up=False)
    witness = ours.others(zone)[0]
    why = proven(lambda: reachable(zone.address, PEER_PORT, witness.netns), f"{witness.name} reaches {zone.name}", 10)
    return {"proof": f"from {witness.name} to {zone.name}: {why}", "zone": zone.name}


def network_on(zone):
    ours = cluster()
    zone = ours.zone(zone)
    network.plug(ours.places, zone.name, up=True)
    witness = ours.others(zone)[0]
    proven(lambda: answers(zone.address, PEER_PORT, witness.netns), f"{witness.name} does not reach {zone.name}", 20)
    ours.injected.drop(f"cable {zone.name}")
    return {"proof": f"{zone.address} answers {witness.name}", "zone": zone.name}
