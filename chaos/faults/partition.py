"""Packets dropped without a word, by rules in a zone's own namespace: nothing of this machine's firewall is touched.

    cut("az-a")                                         the zone and the two others, both ways; clients still reach it
    cut("az-a", direction="in")                         it sends and hears nothing
    cut("az-a", traffic="kafka"), cut(…, traffic="peers"), cut(…, traffic="clients")
    cut("az-a", other="az-b")                           one link of three
    cut("az-a", other="all")                            from everything there is
    cut("az-a", loss=0.2)                               every fifth packet, at random
"""

import re

from chaos.faults.base import FaultNotApplied, cluster, need, proven
from chaos.stand import brokers, gateways, network
from chaos.stand.shell import run_in

PORTS = {
    "all": None,
    "kafka": (brokers.CLIENT_PORT, brokers.CONTROLLER_PORT),
    "brokers": (brokers.CLIENT_PORT,),
    "peers": (gateways.PEER_PORT,),
    "clients": (gateways.INGEST_PORT,),
}
CHAINS = {"in": "INPUT", "out": "OUTPUT"}


def needs():
    return ["netns", "iptables"]


def _matches(chain, address, ports):
    """The rules' match parts: packets from (or to) an address, of connections to these ports at either end."""
    side, device = ("-s", "-i") if chain == "INPUT" else ("-d", "-o")
    base = [device, network.DEVICE, *([side, address] if address else [])]
    if ports is None:
        return [base]
    listed = ",".join(map(str, ports))
    return [[*base, "-p", "tcp", "-m", "multiport", end, listed] for end in ("--dports", "--sports")]


def _comment(zone):
    return ["-m", "comment", "--comment", f"fault {zone.name}"]


def _addresses(ours, zone, other, traffic):
    if other == "all" or traffic == "clients":
        return [None]
    if other is None:
        return [each.address for each in ours.others(zone)]
    return [ours.zone(other).address]


def dropped(zone):
    """{"in": packets, "out": packets} that the rules of this zone have eaten so far."""
    found = {}
    for direction, chain in CHAINS.items():
        text = run_in(zone.netns, "iptables", "-w", "-L", chain, "-v", "-x", "-n").stdout
        found[direction] = sum(int(line.split()[0]) for line in text.splitlines() if f"fault {zone.name}" in line)
    return found


def cut(zone, traffic="all", direction="both", other=None, loss=1.0):
    ours = cluster()
    need(ours, *needs(), *(["iptables-statistic"] if loss < 1 else []))
    zone = ours.zone(zone)
    wanted = list(CHAINS) if direction == "both" else [direction]
    chance = ["-m", "statistic", "--mode", "random", "--probability", str(loss)] if loss < 1 else []
    before = dropped(zone)
    text = f"{'cut off' if loss == 1 else f'{loss:.0%} loss'}: {traffic}, {direction}, {other or 'the other zones'}"
    ours.injected.put(f"partition {zone.name} {traffic} {direction} {other}", zone.name, text)
    for each in wanted:
        for address in _addresses(ours, zone, other, traffic):
            for match in _matches(CHAINS[each], address, PORTS[traffic]):
                rule = [*match, *chance, *_comment(zone), "-j", "DROP"]
                run_in(zone.netns, "iptables", "-w", "-I", CHAINS[each], *rule)

    def eaten():
        now = dropped(zone)
        return all(now[each] > before[each] for each in wanted) and now
    # Heartbeats between peers, fetches of replicas, health checks: something is always on its way.
    now = proven(eaten, f"no packet of {traffic} was dropped in {zone.name}", 20, 0.2)
    counts = ", ".join(f"{now[each]} {each}" for each in wanted)
    return {"proof": f"packets dropped so far: {counts}", "zone": zone.name}


def heal(zone):
    """Takes away every rule of this zone."""
    ours = cluster()
    zone = ours.zone(zone)
    for chain in CHAINS.values():
        listed = run_in(zone.netns, "iptables", "-w", "-L", chain, "-n", "--line-numbers").stdout
        numbers = [int(found.group(1)) for line in listed.splitlines()
                   if f"fault {zone.name}" in line and (found := re.match(r"(\d+)", line))]
        for number in sorted(numbers, reverse=True):
            run_in(zone.netns, "iptables", "-w", "-D", chain, str(number))
    for key in [key for key in ours.injected.all() if key.startswith(f"partition {zone.name} ")]:
        ours.injected.drop(key)
    left = run_in(zone.netns, "iptables", "-w", "-S").stdout
    if f"fault {zone.name}" in left:
        raise FaultNotApplied(f"rules stay in {zone.name}")
    return {"proof": f"no rule is left in {zone.name}", "zone": zone.name}
