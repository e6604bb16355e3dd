"""Processes of a cluster: started to outlive the command that starts them, found again by what they carry.

Each has SLUICE_CHAOS=<mark>/<role> in its environment. No pid file can go stale, and no process of anybody else is ever
taken for ours, its pid reused or not.
"""

import contextlib
import os
import select
import signal
import subprocess
import time

from chaos.stand import shell
from chaos.stand.shell import StandError

VARIABLE = "SLUICE_CHAOS"


def spawn(places, role, command, netns=None, environment=None, log=None, cwd=None):
    """Starts `command` as this role; it outlives us. Its output is appended to `log`."""
    if find(places, role):
        raise StandError(f"{role} runs already")
    log = log or places.dir / "logs" / f"{role}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        child = subprocess.Popen(
            shell.entering(netns, command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd,
            start_new_session=True, env={**os.environ, **(environment or {}), VARIABLE: f"{places.mark}/{role}"})
    _CHILDREN.append(child)
    return child.pid


_CHILDREN = []  # of this command: reaped when they die, so that a dead one is never seen as there


def _reap():
    for child in list(_CHILDREN):
        if child.poll() is not None:
            _CHILDREN.remove(child)


def _state(pid):
    """The kernel's letter (R, S, D, T …) and the parent; None when it has gone. A zombie has gone when its last thread
    has: until then its files and sockets are open, although the first thread has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX" and int(fields[17]) <= 1:
        return None
    return fields[0], int(fields[1])


def all_of(places):
    """{pid: role} of everything alive that carries the mark."""
    _reap()
    wanted, found = f"{VARIABLE}={places.mark}/".encode(), {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        for item in _environment(entry).split(b"\0"):
            if item.startswith(wanted):
                if _state(entry):
                    found[int(entry)] = item[len(wanted):].decode()
    return found


def _environment(pid):
    """Of a process whose first thread has ended while another is still inside the kernel, the other one's: the first
    one's is empty by then, and the process would be nobody's, with its files open."""
    environment = _read(f"/proc/{pid}/environ")
    if not environment and (_state(pid) or "?")[0] == "Z":
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                environment = environment or _read(f"/proc/{pid}/task/{thread}/environ")
    return environment


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def find(places, role):
    """The pid that plays the role, None when it is dead. Of a process and its children, the process."""
    playing = {pid for pid, name in all_of(places).items() if name == role}
    for pid in sorted(playing):
        state = _state(pid)
        if state and state[1] not in playing:
            return pid
    return None


def stopped(pid):
    state = _state(pid)
    return state is not None and state[0] in "Tt"


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def gone(pid):
    _reap()
    return _state(pid) is None


def wait_gone(pid, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not gone(pid):
        if time.monotonic() > end:
            raise StandError(f"process {pid} does not end within {timeout_s} s")
        time.sleep(0.02)


def kill(pid, timeout_s=10):
    send(pid, signal.SIGKILL)
    wait_gone(pid, timeout_s)


def in_namespaces(paths):
    """Pids whose network namespace is one of these."""
    inodes = {os.stat(path).st_ino for path in paths if os.path.exists(path)}
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    found.append(int(entry))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def kill_all(places, timeout_s=30):
    """SIGKILL to all of the cluster, until two looks in a row find nothing: one may be forking just now. Afterwards
    each has let go of its files: while the kernel takes a process down it carries no mark, but its disk is busy."""
    end, quiet, killed = time.monotonic() + timeout_s, 0, {}
    try:
        while quiet < 2:
            left = set(all_of(places)) | set(in_namespaces(_namespaces(places)))
            left.discard(os.getpid())
            for pid in left:
                if pid not in killed:
                    with contextlib.suppress(ProcessLookupError):
                        killed[pid] = os.pidfd_open(pid)
                send(pid, signal.SIGKILL)
            quiet = 0 if left else quiet + 1
            _past(end, left)
            time.sleep(0.02)
        for pid, descriptor in killed.items():
            while not select.select([descriptor], [], [], 0.02)[0]:  # readable when the last thread is gone
                _past(end, {pid})
    finally:
        for descriptor in killed.values():
            os.close(descriptor)


def _past(end, left):
    if left and time.monotonic() > end:
        raise StandError(f"these do not end by SIGKILL: {sorted(left)}")


def _namespaces(places):
    try:
        return [shell.netns_path(name) for name in os.listdir("/run/netns") if name.startswith(places.prefix)]
    except FileNotFoundError:
        return []
