"""A warehouse on this machine, for drills and tests.

    handle = start(directory, bootstrap, ["payments.events"])     {"dsn", "connect_url", "processes", …}
    tell(handle, "kill", "connect"); tell(handle, "start", "connect")
    stop(handle)

up(cluster) and down(places) are the same for chaos/stand. State: DIRECTORY/warehouse.json, which find() reads, so that
another process can go on with what one left. All calls from any process; start() from the main thread.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from warehouse import abandoned, dist

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"  # whose modules are Debian's packages
HOST_NUMBER = 20  # of 10.x.y.0/24: see chaos/stand
START_SECONDS = 180
ICEBERG_COMMIT_MS = 10_000


class StandError(Exception):
    """The warehouse could not do what was asked; the text says why."""


def _command(directory):
    return [PYTHON, "-m", "warehouse.supervisor", str(directory)]


def _order(directory, bootstrap, topics, host, lifeline, iceberg, tasks, start_timeout_s,
           iceberg_commit_ms=ICEBERG_COMMIT_MS):
    # Here, not in the supervisor: a network namespace need not reach Maven Central.
    dist.worker()
    for name in ("jdbc", *(["iceberg"] if iceberg else [])):
        dist.plugin(name)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "warehouse.json").unlink(missing_ok=True)
    (directory / "order.json").write_text(json.dumps({
        "bootstrap": bootstrap, "topics": list(topics), "host": host, "lifeline": lifeline, "tasks": tasks,
        "connectors": ["raw-events", *(["raw-iceberg"] if iceberg else [])], "iceberg_commit_ms": iceberg_commit_ms,
        "start_timeout_s": start_timeout_s}))


def _wait(directory, alive, log, start_timeout_s):
    end = time.monotonic() + start_timeout_s + 10
    while not (directory / "warehouse.json").exists():
        if not alive() or time.monotonic() > end:
            raise StandError(f"the warehouse did not start: {log.read_text(errors='replace')[-3000:].strip()}")
        time.sleep(0.1)
    return find(directory)


def start(directory, bootstrap, topics, host="127.0.0.1", owned=True, iceberg=False, tasks=1,
          start_timeout_s=START_SECONDS, iceberg_commit_ms=ICEBERG_COMMIT_MS):
    """Returns the handle when the connectors run: 10–15 s. `owned`: it ends with this process, however that ends."""
    directory = pathlib.Path(directory).resolve()
    _order(directory, bootstrap, topics, host, owned, iceberg, tasks, start_timeout_s, iceberg_commit_ms)
    log = directory / "supervisor.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(_command(directory), cwd=ROOT, start_new_session=True, stdout=output, stderr=output,
                                   stdin=subprocess.PIPE if owned else subprocess.DEVNULL)
    try:
        handle = _wait(directory, lambda: process.poll() is None, log, start_timeout_s)
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    _OWN[handle["pid"]] = process
    return handle


_OWN = {}  # pid -> the process that start() made here: its stdin is what keeps it up


def find(directory):
    """The handle of the warehouse in a directory; None when none is up there."""
    try:
        handle = json.loads((pathlib.Path(directory) / "warehouse.json").read_text())
        return tell(handle, "status")
    except (FileNotFoundError, ValueError, StandError):
        return None


def tell(handle, operation, role=None, timeout_s=90):
    """status; kill, term, stop (freeze), cont, start of "postgres", "connect" or "merge". Returns the new handle; kill
    and term when it is dead, start of postgres when it answers, of the others at once."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(timeout_s)
            control.connect(str(pathlib.Path(handle["dir"]) / "control"))
            control.sendall(json.dumps({"op": operation, "role": role}).encode() + b"\n")
            answer = json.loads(control.makefile().readline() or "{}")
    except (OSError, ValueError) as error:
        raise StandError(f"no warehouse in {handle['dir']}: {error}") from error
    if not answer.pop("ok", False):
        raise StandError(answer.get("error", "no answer from the supervisor"))
    return answer


def stop(handle, timeout_s=60):
    """Ends all of it. What it wrote stays in its directory."""
    try:
        tell(handle, "down")
    except StandError:
        pass  # it is gone, or going: waited for below
    own, end = _OWN.pop(handle["pid"], None), time.monotonic() + timeout_s
    if own:
        if own.stdin:
            own.stdin.close()
        own.wait(timeout=timeout_s)
        return
    while os.path.exists(f"/proc/{handle['pid']}") and (pathlib.Path(handle["dir"]) / "control").exists():
        if time.monotonic() > end:
            raise StandError(f"the warehouse in {handle['dir']} does not end")
        time.sleep(0.05)


# ---- chaos/stand

def up(cluster):
    """For chaos/stand: in a host of its own on the cluster's network, outliving the command. SLUICE_WAREHOUSE_ICEBERG=1
    adds the Iceberg sink."""
    topics = (cluster.topic, f"{cluster.topic}.dlq")
    directory = pathlib.Path(cluster.dir) / "warehouse"
    netns, address = cluster.add_host("warehouse", HOST_NUMBER)
    iceberg = os.environ.get("SLUICE_WAREHOUSE_ICEBERG") == "1"
    _order(directory, cluster.bootstrap, topics, address, False, iceberg, 1, START_SECONDS)
    pid = cluster.spawn("warehouse", ["env", f"PYTHONPATH={ROOT}", *_command(directory)], netns)
    log = pathlib.Path(cluster.dir) / "logs" / "warehouse.log"
    return _wait(directory, lambda: os.path.exists(f"/proc/{pid}"), log, START_SECONDS)


def down(places):
    """Ends what up() made in a cluster's places (chaos/stand/places.py), from whatever is left: an `up` that was cut
    short, a supervisor or a server that was killed or is frozen."""
    from chaos.stand import processes, shell
    server = places.dir / "warehouse" / "postgres"
    if pid := processes.find(places, "warehouse"):
        processes.send(pid, signal.SIGCONT)
        processes.send(pid, signal.SIGTERM)
        processes.wait_gone(pid, 60)
    abandoned.end_server(server)
    for pid in processes.in_namespaces([shell.netns_path(places.netns("warehouse"))]):
        processes.kill(pid)
    abandoned.remove_memory(server)
