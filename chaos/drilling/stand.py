"""What a drill runs on: the three-zone cluster of this machine, its load client and its judge.

A Stand is anything with these methods; the tests have another one, of local processes.
"""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess

from chaos.drilling.run import replace
from chaos.drilling.sampler import Node

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAST_DRILLS = "last-drills.json"  # in each gateway's spool directory; the gateway's half is gateway/drills.c
SHOWN_MAX = 64


class Stand:
    def missing(self, drill):
        """A sentence when this machine cannot run the drill (the kernel's reason), else None."""
        raise NotImplementedError

    def up(self, drill, say):
        """Everything runs afterwards. `say` is told what takes time."""
        raise NotImplementedError

    def down(self):
        raise NotImplementedError

    def close(self):
        """The end of the run, however it came."""
        raise NotImplementedError

    def nodes(self):
        """[sampler.Node]"""
        raise NotImplementedError

    def place(self):
        """The directory below which it writes."""
        raise NotImplementedError

    def start_load(self, settings, folder):
        """An object with progress() → {"sent", "failed"} or None, stop(), which waits for its end, and close(), which
        sees to it that nothing is left. It may raise when the load did not come about."""
        raise NotImplementedError

    def judge(self, load, folder, start_ns, fault_ns):
        """{"figures": {...}, "seconds": [{t, ok, failed, p50_ms, p99_ms}], "freshness": [[t, s]], "passed", "why"};
        t from start_ns."""
        raise NotImplementedError

    def keep_logs(self, folder):
        """Copies what a look at a failure needs, before the next drill writes to it."""

    def publish(self, verdicts):
        """Shows the verdicts where operators look."""


class ClusterStand(Stand):
    """chaos/cluster. `keep`: it is left up at the end."""

    def __init__(self, keep=False):
        self.keep, self.ours, self._cluster, self._caps = keep, False, None, None

    # The other parts are imported where they are needed: --list works without them.

    def missing(self, drill):
        from chaos.stand import caps, prepare
        if self._caps is None:
            prepare.prepare()  # what is only not built yet is not missing
            self._caps = caps.probe()
        for need in (*caps.STAND, *drill.needs):
            if need not in self._caps:
                raise ValueError(f"{drill.name} needs {need!r}, which `chaos/cluster caps` does not know")
            if not self._caps[need].there:
                return f"{need}: {self._caps[need].reason}"
        return None

    def up(self, drill, say):
        from chaos.stand import Cluster, StandError
        try:
            cluster = Cluster.load()
            alarm = self._alarm(cluster)
            if not alarm and (not drill.warehouse or cluster.warehouse):
                self._cluster = cluster
                return
            say(alarm or "the cluster is up without its warehouse: it is ended first")
            self.ours = True
        except StandError:
            pass
        Cluster.down()
        say("the cluster starts")
        self.ours = True
        words = [ROOT / "chaos" / "cluster", "up", *([] if drill.warehouse else ["--without-warehouse"])]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the cluster did not come up: {done.stdout.strip()[-400:]}")
        self._cluster = Cluster.load()

    @staticmethod
    def _alarm(cluster):
        """An alarm that lasts as long as its process would be this drill's, too; None without one."""
        from chaos.drilling import probes
        for zone in cluster.zones:
            with contextlib.suppress(OSError):
                if probes.metric(zone, "sluice_conservation_error"):
                    return f"{zone.gateway.name} carries the alarm of an earlier drill: the cluster is ended first"
        return None

    def down(self):
        if self._cluster is not None:
            self._cluster.down()
            self._cluster, self.ours = None, True

    def close(self):
        # What was started here is ended, unless it is to be kept.
        if self.ours and not self.keep:
            self.down()

    def nodes(self):
        from chaos.stand import gateways, shell
        found = []
        for zone in self._cluster.zones:
            within = functools.partial(shell.within, zone.netns)
            found += [Node(zone.gateway.name, zone.name, "gateway", f"http://127.0.0.1:{gateways.ADMIN_PORT}", within),
                      Node(f"broker-{zone.broker.id}", zone.name, "broker", zone.broker.bootstrap, within)]
        return found

    def place(self):
        return self._cluster.dir

    def start_load(self, settings, folder):
        from chaos.client import Load
        load = Load(self._cluster, folder, **settings)
        load.start()
        return load

    def judge(self, load, folder, start_ns, fault_ns):
        from chaos.judge import judge
        return judge(self._cluster, load, folder, start_ns=start_ns, fault_ns=fault_ns)

    def keep_logs(self, folder):
        shutil.copytree(self._cluster.dir / "logs", folder / "logs", dirs_exist_ok=True)

    def publish(self, verdicts):
        if self._cluster is None:
            return
        for zone in self._cluster.zones:
            if zone.gateway.pid and zone.gateway.spool_dir.is_dir():
                publish_to(zone.gateway.spool_dir, zone.gateway.pid, verdicts)


def publish_to(spool_dir, pid, verdicts):
    """The last verdicts for a gateway's status page: a file beside its spool, and SIGHUP, on which it is read."""
    newest = sorted(verdicts, key=lambda each: each["started"], reverse=True)[:SHOWN_MAX]
    rows = [{"name": each["name"], "verdict": each["verdict"], "at": each["started"], "line": each["line"],
             "why": "; ".join(each["reasons"])[:200]} for each in newest]
    replace(spool_dir / LAST_DRILLS, json.dumps({"version": 1, "drills": rows}) + "\n")
    os.kill(pid, signal.SIGHUP)
