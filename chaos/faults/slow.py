"""A broker behind a fault proxy, put there while everything runs: toxics by Toxiproxy's names.

    add("az-a", "latency", {"latency": 500, "jitter": 100})             a broker that answers late
    add("az-a", "bandwidth", {"rate": 100}, stream="upstream")          KB/s into it
    remove("az-a", "latency"); remove("az-a")                           one of them; all, and the proxy goes

Two rules in the zone's namespace send every new connection to the broker's port into the proxy, from outside and from
within; another resets the connections that stood. The proxy's own carry a mark that lets them through. Other brokers'
fetches go that way, too: it is the broker that is slow, not one client's way to it.
"""

import json
import sys

from chaos.faults.base import FaultNotApplied, cluster, need, proven
from chaos.stand import processes
from chaos.stand.brokers import CLIENT_PORT
from chaos.stand.network import DEVICE
from chaos.stand.places import replace
from chaos.stand.shell import ROOT, run_in

PROXY_PORT, MARK = 19092, 7211
ATTRIBUTES = {
    "latency": {"latency"}, "bandwidth": {"rate"}, "slow_close": {"delay"}, "timeout": {"timeout"},
    "reset_peer": {"timeout"}, "slicer": {"average_size"}, "limit_data": {"bytes"},
}


def needs():
    return ["netns", "iptables", "iptables-reset", "iptables-nat"]


def _rules(zone):
    """(table, chain, rule) of everything that leads into the proxy."""
    unmarked = ["-p", "tcp", "--dport", str(CLIENT_PORT), "-m", "mark", "!", "--mark", str(MARK)]
    aside = ["-j", "REDIRECT", "--to-ports", str(PROXY_PORT)]
    return [
        ("nat", "PREROUTING", ["-i", DEVICE, *unmarked, *aside]),
        ("nat", "OUTPUT", ["-d", zone.address, *unmarked, *aside]),
        ("filter", "INPUT", [*unmarked, "-j", "REJECT", "--reject-with", "tcp-reset"]),
    ]


def _control(ours, zone):
    return ours.dir / zone.name / "toxics.json"


def statistics(ours, zone):
    path = ours.dir / zone.name / "toxics.seen.json"
    return json.loads(path.read_text()) if path.exists() else {"connections": 0, "applied": {}}


def _role(zone):
    return f"fault-proxy-{zone.name}"


def _toxics(ours, zone):
    path = _control(ours, zone)
    return json.loads(path.read_text()) if path.exists() else []


def _put_proxy(ours, zone):
    if processes.find(ours.places, _role(zone)):
        return
    seen = ours.dir / zone.name / "toxics.seen.json"
    seen.unlink(missing_ok=True)
    command = [sys.executable, f"{ROOT}/chaos/faults/proxy.py", PROXY_PORT, zone.address, CLIENT_PORT,
               _control(ours, zone), seen, MARK]
    ours.spawn(_role(zone), command, netns=zone.netns)
    proven(seen.exists, f"the fault proxy in {zone.name} does not start", 10)
    for table, chain, rule in _rules(zone):
        run_in(zone.netns, "iptables", "-w", "-t", table, "-I", chain, *rule)


def add(zone, toxic, attributes=None, stream="downstream", toxicity=1.0):
    """`toxic`: its type, which is its name here as well: one of each for each stream."""
    ours = cluster()
    need(ours, *needs())
    zone, attributes = ours.zone(zone), attributes or {}
    missing = ATTRIBUTES[toxic] - set(attributes)
    if missing:
        raise ValueError(f"{toxic} needs {', '.join(sorted(missing))}")
    if stream not in ("upstream", "downstream"):
        raise ValueError(f"a stream is upstream or downstream, not {stream}")
    name = f"{toxic}_{stream}"
    before = statistics(ours, zone)["applied"].get(name, 0)
    others = [each for each in _toxics(ours, zone) if each["name"] != name]
    values = ", ".join(f"{key} {value}" for key, value in attributes.items())
    ours.injected.put(f"slow {zone.name} {name}", zone.name, f"broker {toxic} ({values}) {stream}")
    replace(_control(ours, zone), json.dumps([*others, {"name": name, "type": toxic, "stream": stream,
                                                        "toxicity": toxicity, "attributes": attributes}]))
    _put_proxy(ours, zone)
    if toxic == "slow_close":  # it is at work when somebody hangs up, which may be long after
        found = proven(lambda: statistics(ours, zone)["connections"], "no connection goes through the proxy", 30)
        return {"proof": f"{found} connections go through the proxy", "zone": zone.name}
    found = proven(lambda: statistics(ours, zone)["applied"].get(name, 0) - before, f"{toxic} touched nothing", 30)
    return {"proof": f"{toxic} was at work {found} times; {statistics(ours, zone)['connections']} connections",
            "zone": zone.name}


def remove(zone, toxic=None):
    """One type of toxic, or all; with the last one the proxy goes, and the connections through it with it."""
    ours = cluster()
    zone = ours.zone(zone)
    left = [each for each in _toxics(ours, zone) if toxic and each["type"] != toxic]
    for key in [key for key in ours.injected.all() if key.startswith(f"slow {zone.name} {toxic or ''}")]:
        ours.injected.drop(key)
    replace(_control(ours, zone), json.dumps(left))
    if left:
        return {"proof": f"{len(left)} toxics are left", "zone": zone.name}
    for table, chain, rule in _rules(zone):
        while run_in(zone.netns, "iptables", "-w", "-t", table, "-D", chain, *rule, check=False).returncode == 0:
            pass
    pid = processes.find(ours.places, _role(zone))
    if pid:
        processes.kill(pid)
    if "REDIRECT" in run_in(zone.netns, "iptables", "-w", "-t", "nat", "-S").stdout:
        raise FaultNotApplied(f"rules stay in {zone.name}")
    return {"proof": "the proxy and its rules are gone", "zone": zone.name}
