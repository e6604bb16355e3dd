"""A gateway's certificate expires. Sessions that stand would stay, so they are broken: what is seen is the next
morning, when the link hiccups."""

from chaos.faults.base import cluster, need, proven
from chaos.stand import certificates
from chaos.stand.gateways import PEER_PORT
from chaos.stand.shell import run_in


def needs():
    return ["netns", "openssl", "iptables-reset"]


def _break_sessions(ours, zone):
    """Resets every connection of peers in that zone, until none is left."""
    rules = [["-p", "tcp", side, str(PEER_PORT), "-j", "REJECT", "--reject-with", "tcp-reset"]
             for side in ("--dport", "--sport")]
    for rule in rules:
        run_in(zone.netns, "iptables", "-w", "-I", "INPUT", *rule)
    try:
        proven(lambda: ours.peers_up(zone) == 0, f"{zone.gateway.name} keeps its sessions", 30)
    finally:
        for rule in rules:
            run_in(zone.netns, "iptables", "-w", "-D", "INPUT", *rule)


def expire(zone):
    """Both its peers stop taking it, and say why."""
    ours = cluster()
    need(ours, *needs())
    zone = ours.zone(zone)
    witness = ours.others(zone)[0]
    logs = {path: path.stat().st_size for path in (zone.gateway.log, *(each.gateway.log for each in ours.others(zone)))}
    certificates.issue(ours.dir / "keys", zone.gateway.name, begin_days=-10, end_days=-1)
    ours.injected.put(f"certificate {zone.name}", zone.name, "certificate expired")
    _break_sessions(ours, zone)

    def said():
        for path, size in logs.items():
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(size)
                for line in file:
                    if "expired" in line:
                        return line.strip()
        return None
    line = proven(said, f"neither {zone.gateway.name} nor {witness.gateway.name} says that it has expired", 30)
    return {"proof": line[:300], "zone": zone.name}


def renew(zone, wait_s=30):
    """A good one in its place; nothing is restarted."""
    ours = cluster()
    zone = ours.zone(zone)
    certificates.issue(ours.dir / "keys", zone.gateway.name)
    proven(lambda: ours.peers_up(zone) == 2, f"{zone.gateway.name} does not get its sessions back", wait_s)
    ours.injected.drop(f"certificate {zone.name}")
    return {"proof": "both peers are back", "zone": zone.name}
