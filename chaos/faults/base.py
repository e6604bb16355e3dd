"""What all faults share: the cluster, what the machine can do, waiting for a proof."""

import json
import os
import socket

from chaos.stand import Cluster, caps
from chaos.stand.places import replace
from chaos.stand.shell import within
from tests.lib.waiting import Late, until


class FaultNotApplied(Exception):
    """The fault was ordered, and nothing shows that it is there. Or the heal, and it is there still."""


class Skip(Exception):
    """This machine cannot do that; the text is the kernel's reason."""


def cluster():
    return Cluster.load()


def need(ours, *names):
    """Skip unless the machine has all of these capabilities. They are tried once for each cluster."""
    path = ours.dir / "caps.json"
    if not path.exists():
        found = {name: each.reason for name, each in caps.probe().items()}
        # What the running gateways were started with decides, not what lies in the build directory now.
        for name, shim in (("preload-disk", "disk_fault.so"), ("preload-clock", "clock_shift.so")):
            loaded = os.path.exists(ours.dir / "bin" / shim)
            found[name] = "" if loaded else f"the cluster came up without {shim}: {found[name] or 'it was not built'}"
        replace(path, json.dumps(found, indent=1) + "\n")
    found = json.loads(path.read_text())
    for name in names:
        if found[name]:
            raise Skip(f"{name}: {found[name]}")


def proven(condition, what, timeout_s=20, pause_s=0.05):
    """Waits until condition() is true and returns it; FaultNotApplied with `what` at the deadline."""
    try:
        return until(condition, what, timeout_s, pause_s)
    except Late as late:
        raise FaultNotApplied(str(late)) from None


def reachable(address, port, netns=None, timeout_s=1.0):
    """"" when a connection can be made from that namespace, else why not."""
    def dial():
        try:
            socket.create_connection((address, port), timeout=timeout_s).close()
            return ""
        except OSError as error:
            return str(error) or type(error).__name__
    return within(netns, dial) if netns else dial()


def answers(address, port, netns=None, timeout_s=1.0):
    """Whether the machine there says anything: a connection refused is an answer."""
    return reachable(address, port, netns, timeout_s) in ("", "[Errno 111] Connection refused")
