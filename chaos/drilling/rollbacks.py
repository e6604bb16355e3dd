"""The rollback of every drill: whatever the cluster's list of injected faults still has is healed.

The list is kept by the faults themselves, so this also heals what an interrupted fault left half done; with an empty
list nothing is touched, and a rollback after a good drill does nothing.
"""

import importlib

from chaos.stand import Cluster, processes

WAIT_S = 90
# First word of the list's key -> (module of chaos.faults, function, its further arguments).
HEALS = {
    "power": ("zone", "power_on", {"wait_s": WAIT_S}),
    "frozen": ("zone", "thaw", {}),
    "cable": ("zone", "network_on", {}),
    "partition": ("partition", "heal", {}),
    "broker": ("broker", "start", {"wait_s": WAIT_S}),
    "gateway": ("gateway", "start", {"wait_s": WAIT_S}),
    "slow": ("slow", "remove", {}),
    "disk": ("disk", "heal", {"wait_s": WAIT_S}),
    "full": ("disk", "free", {}),
    "rot": ("disk", "mend", {}),
    "vanished": ("disk", "come_back", {"wait_s": WAIT_S}),
    "clock": ("clock", "back", {}),
    "certificate": ("certificate", "renew", {}),
    "flood": ("flood", "stop", {}),
    "warehouse": ("warehouse", "heal", {}),
}


def _heal(cluster, key):
    words = key.split()
    if words[0] not in HEALS:
        raise KeyError(f"nobody knows how to heal {key!r}")
    module, function, more = HEALS[words[0]]
    if words[0] == "vanished" and cluster.zone(words[1]).gateway.pid:
        processes.kill(cluster.zone(words[1]).gateway.pid)  # it may not have noticed yet
    # The second word is a zone, or a part of the warehouse.
    return getattr(importlib.import_module(f"chaos.faults.{module}"), function)(words[1], **more)["proof"]


def heal_all():
    """In the order opposite to injection. Goes on after a failure and raises the first one at the end."""
    cluster = Cluster.load()
    proofs, errors = [], []
    for key in reversed(cluster.injected.all()):
        if key not in cluster.injected.all():
            continue
        try:
            proofs.append(f"{key}: {_heal(cluster, key)}")
        except Exception as error:  # pylint: disable=broad-except
            errors.append(f"{key}: {type(error).__name__}: {error}")
    if errors:
        raise RuntimeError("; ".join(errors))
    return {"proof": "; ".join(proofs) or "nothing was left"}
