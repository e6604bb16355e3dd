"""Ends a PostgreSQL whose owner is gone. Without psycopg2: whoever only clears up needs no package for it."""

import os
import pathlib
import re
import signal
import subprocess
import time


def end_abandoned(directory, timeout_s=30):
    """Ends the server of a directory whose owner is gone, as in a crash, and removes its piece of System V shared
    memory, which outlives a killed server. Does nothing when there is none."""
    try:
        lines = (pathlib.Path(directory) / "data" / "postmaster.pid").read_text().splitlines()
        pid, memory = int(lines[0]), int(lines[6].split()[1])
    except (OSError, ValueError, IndexError):
        return  # it ended in order, or never got as far
    end = time.monotonic() + timeout_s
    while _is_server(pid, directory) and time.monotonic() < end:
        for number in (signal.SIGQUIT, signal.SIGCONT):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
        time.sleep(0.05)
    if not _is_server(pid, directory):
        # The number may be somebody else's by now: the memory knows who made it.
        listed = subprocess.run(["ipcs", "-m", "-i", str(memory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                text=True, check=False).stdout
        if re.search(rf"\bcpid={pid}\b", listed) and re.search(r"\bnattch=0\b", listed):
            subprocess.run(["ipcrm", "-m", str(memory)], stderr=subprocess.DEVNULL, check=False)


def _is_server(pid, directory):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return str(pathlib.Path(directory) / "data").encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
