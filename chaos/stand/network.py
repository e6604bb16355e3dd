"""Namespaces, links and addresses. The bridge stands in a namespace of its own, the hub, so that this machine's
firewall and routes are neither used nor changed; one link leads there from the outside.

    this machine ── hub: bridge, balancer, Prometheus ──┬── az-a      numbers in the /24: 1 this machine, 2 the hub,
                                                        ├── az-b      11–13 the zones, 20 and up what else is added
                                                        └── az-c
"""

import ipaddress
import json
import os

from chaos.stand import shell
from chaos.stand.shell import StandError, run

HUB, DEVICE, BRIDGE = "hub", "eth0", "br0"
OUTSIDE, INSIDE, FIRST_ZONE = 1, 2, 11


def _taken():
    """Networks that this machine has addresses in or routes to."""
    for route in json.loads(run("ip", "-j", "-4", "route", "show", "table", "all").stdout or "[]"):
        if route["dst"] != "default":
            yield ipaddress.ip_network(route["dst"], strict=False)
    for device in json.loads(run("ip", "-j", "-4", "addr").stdout or "[]"):
        for address in device.get("addr_info", ()):
            if "local" in address:
                yield ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network


def free_network(mark):
    """A /24 of 10.64.0.0/10 that overlaps with nothing here; the same one each time if it can be."""
    taken, start = list(_taken()), int(mark, 16)
    for step in range(64 * 256):
        number = (start + step) % (64 * 256)
        network = ipaddress.ip_network(f"10.{64 + number // 256}.{number % 256}.0/24")
        if not any(network.overlaps(each) for each in taken):
            return network
    raise StandError("no free /24 in 10.64.0.0/10")


def host(network, number):
    return str(ipaddress.ip_network(network)[number])


def _batch(netns, lines):
    run("ip", *(["-n", netns] if netns else []), "-batch", "-", text="".join(f"{line}\n" for line in lines))


def make(places, network):
    """The hub and the link to it."""
    hub = places.netns(HUB)
    run("ip", "netns", "add", hub)
    _batch(None, [f"link add {places.link} type veth peer name outside netns {hub}",
                  f"addr add {host(network, OUTSIDE)}/24 dev {places.link}", f"link set {places.link} up"])
    _batch(hub, ["link set lo up", f"link add {BRIDGE} type bridge", f"link set outside master {BRIDGE} up",
                 f"addr add {host(network, INSIDE)}/24 dev {BRIDGE}", f"link set {BRIDGE} up"])


def add(places, network, name, number):
    """One more namespace on the bridge. `name` is its port there, too. Returns its address."""
    netns, hub, address = places.netns(name), places.netns(HUB), host(network, number)
    run("ip", "netns", "add", netns)
    _batch(hub, [f"link add {name} type veth peer name {DEVICE} netns {netns}", f"link set {name} master {BRIDGE} up"])
    _batch(netns, ["link set lo up", f"addr add {address}/24 dev {DEVICE}", f"link set {DEVICE} up"])
    return address


def plug(places, name, up):
    """Puts the cable of a namespace in or out, at the bridge: its own addresses stay, nothing reaches it any more."""
    run("ip", "-n", places.netns(HUB), "link", "set", name, "up" if up else "down")


def plugged(places, name):
    text = run("ip", "-j", "-n", places.netns(HUB), "link", "show", name).stdout
    return "UP" in json.loads(text)[0]["flags"]


def remove(places):
    """Everything that carries the mark. A veth goes with either end, but only some time after its namespace."""
    if os.path.exists(f"/sys/class/net/{places.link}"):
        run("ip", "link", "del", places.link)
    try:
        names = [name for name in os.listdir("/run/netns") if name.startswith(places.prefix)]
    except FileNotFoundError:
        return
    for name in names:
        done = run("ip", "netns", "del", name, check=False)
        if done.returncode != 0 and os.path.exists(shell.netns_path(name)):
            os.unlink(shell.netns_path(name))  # `ip netns add` was killed between making the file and mounting on it
