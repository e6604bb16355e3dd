"""What a machine has at a moment, as far as a cluster could leave something of it behind."""

import os
import pathlib

from chaos.stand import processes
from chaos.stand.shell import run


def _netns():
    try:
        return set(os.listdir("/run/netns"))
    except FileNotFoundError:
        return set()


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        return {line.split(" ")[4] for line in table}


def _rules():
    """This machine's own firewall, without counters and times."""
    lines = run("iptables-save").stdout.splitlines()
    return {line.split(" [")[0] for line in lines if not line.startswith("#")}


def take(places):
    """{kind: set of names}. Equal before and after means that nothing is left."""
    return {
        "namespaces": _netns(),
        "mounts": _mounts(),
        "loop devices": set(run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").stdout.splitlines()),
        "links": set(os.listdir("/sys/class/net")),
        "rules": _rules(),
        "processes": set(processes.all_of(places)),
        "files": {str(path) for path in pathlib.Path(places.dir).glob("**/*")} | (
            {str(places.dir)} if places.dir.exists() else set()),
        "cgroups": {entry for entry in os.listdir("/sys/fs/cgroup") if "sluice" in entry},
    }


def difference(before, after):
    """{kind: what came or went}; {} when nothing did."""
    return {kind: sorted(map(str, before[kind] ^ after[kind])) for kind in before if before[kind] != after[kind]}
