"""Ends a PostgreSQL whose owner is gone. Without psycopg2: whoever only clears up needs no package for it."""

import os
import pathlib
import re
import signal
import subprocess
import time


def _noted(directory):
    """(the server's pid, the id of its System V shared memory), as it has noted them; None when it ended in order."""
    try:
        lines = (pathlib.Path(directory) / "data" / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), int(lines[6].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _is_server(pid, directory):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return str(pathlib.Path(directory) / "data").encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def end_server(directory, timeout_s=30):
    """Ends the server of a directory as in a crash. Does nothing when there is none."""
    pid, end = (_noted(directory) or (None,))[0], time.monotonic() + timeout_s
    while pid and _is_server(pid, directory) and time.monotonic() < end:
        for number in (signal.SIGQUIT, signal.SIGCONT):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
        time.sleep(0.05)


def remove_memory(directory):
    """Removes the piece of shared memory that a killed server leaves, once none of its processes has it any more."""
    pid, memory = _noted(directory) or (None, None)
    if pid and not _is_server(pid, directory):
        # The number may be somebody else's by now: the memory knows who made it.
        listed = subprocess.run(["ipcs", "-m", "-i", str(memory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                text=True, check=False).stdout
        if re.search(rf"\bcpid={pid}\b", listed) and re.search(r"\bnattch=0\b", listed):
            subprocess.run(["ipcrm", "-m", str(memory)], stderr=subprocess.DEVNULL, check=False)
