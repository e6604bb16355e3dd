"""One process of a zone, killed, frozen, brought back: what brokers and gateways have in common. `kind` is "broker" or
"gateway"."""

import signal

from chaos.faults.base import FaultNotApplied, proven, reachable
from chaos.stand import processes


def running(kind, zone):
    pid = getattr(zone, kind).pid
    if not pid:
        raise FaultNotApplied(f"the {kind} in {zone.name} is dead already")
    return pid


def kill(kind, ours, zone, port):
    """SIGKILL; nothing listens on `port` any more."""
    pid = running(kind, zone)
    ours.injected.put(f"{kind} {zone.name}", zone.name, f"{kind} killed")
    processes.kill(pid)
    why = reachable(zone.address, port, zone.netns)
    if not why:
        raise FaultNotApplied(f"something still listens in {zone.name}")
    return {"proof": f"process {pid} is gone; its port: {why}", "zone": zone.name}


def freeze(kind, ours, zone):
    """SIGSTOP: it keeps its connections and says nothing."""
    pid = running(kind, zone)
    ours.injected.put(f"{kind} {zone.name}", zone.name, f"{kind} frozen")
    processes.send(pid, signal.SIGSTOP)
    proven(lambda: processes.stopped(pid), f"the {kind} in {zone.name} is not frozen", 5)
    return {"proof": f"process {pid} is stopped", "zone": zone.name}


def start(kind, ours, zone):
    """Starts a dead one, thaws a frozen one."""
    pid = getattr(zone, kind).pid
    if pid:
        processes.send(pid, signal.SIGCONT)
        proven(lambda: not processes.stopped(pid), f"the {kind} in {zone.name} is frozen still", 5)
    else:
        {"broker": ours.start_broker, "gateway": ours.start_gateway}[kind](zone)
    ours.injected.drop(f"{kind} {zone.name}")


def runs(kind, zone):
    return {"proof": f"process {getattr(zone, kind).pid} runs", "zone": zone.name}
