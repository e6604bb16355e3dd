"""The warehouse: its database gone, its Connect worker killed, the way to it slow. Kafka and the gateways must not
notice; what was missed is caught up afterwards."""

import re

from chaos.faults.base import FaultNotApplied, Skip, cluster, need, proven
from chaos.stand.network import HUB
from chaos.stand.shell import StandError, run_in

PORT = "warehouse"  # of its host at the bridge
BUFFERED = re.compile(r"dropped (\d+), overlimits (\d+)")


def needs():
    return ["netns", "tbf"]


def _tell(operation, role):
    """The role's state afterwards: running, stopped, dead …"""
    ours = cluster()
    if not ours.warehouse:
        raise Skip("the cluster is up without its warehouse")
    from warehouse import stand
    return stand.tell(ours.warehouse, operation, role)["processes"][role]["state"]


def _kill(role):
    ours = cluster()
    state = _tell("kill", role)
    if state == "running":
        raise FaultNotApplied(f"{role} runs on")
    ours.injected.put(f"warehouse {role}", None, f"the warehouse's {role} killed")
    return {"proof": f"{role} is {state}"}


def database_down():
    """SIGKILL to PostgreSQL with all its backends."""
    return _kill("postgres")


def connect_kill():
    """SIGKILL to the Connect worker."""
    return _kill("connect")


def slow(kbit=300):
    """What goes to the warehouse passes at so many kilobits a second."""
    ours = cluster()
    need(ours, *needs())
    hub = ours.places.netns(HUB)
    run_in(hub, "tc", "qdisc", "replace", "dev", PORT, "root", "tbf", "rate", f"{kbit}kbit", "burst", "32k", "latency",
           "400ms")
    ours.injected.put("warehouse slow", None, f"{kbit} kbit/s to the warehouse")

    def held_back():
        found = BUFFERED.search(run_in(hub, "tc", "-s", "qdisc", "show", "dev", PORT).stdout)
        return int(found.group(2)) if found else 0
    held = proven(held_back, "nothing had to wait on its way to the warehouse: is there any load?", 30, 0.2)
    return {"proof": f"{held} packets had to wait"}


def heal(what):
    """`what`: postgres, connect or slow. Does nothing to what is well."""
    ours = cluster()
    if what == "slow":
        try:
            run_in(ours.places.netns(HUB), "tc", "qdisc", "del", "dev", PORT, "root")
        except StandError as error:
            if "No such file" not in str(error) and "zero" not in str(error):
                raise
        state = "unlimited"
    else:
        state = _tell("status", what)
        if state != "running":
            state = _tell("start", what)
    ours.injected.drop(f"warehouse {what}")
    return {"proof": f"{what}: {state}"}
