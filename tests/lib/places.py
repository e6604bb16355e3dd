"""Where tests put their files, and which ports they use."""

import os
import socket
import subprocess
import tempfile

_MEMORY = {"tmpfs", "ramfs"}


def _file_system(path):
    run = subprocess.run(["stat", "-f", "-c", "%T", path], stdout=subprocess.PIPE, text=True, check=False)
    return run.stdout.strip()


def disk_root():
    """A directory for temporary files that lies on a disk: durability shown on a memory file system shows nothing."""
    for path in (os.environ.get("SLUICE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/tmp", os.getcwd()):
        if path and os.access(path, os.W_OK) and _file_system(path) not in _MEMORY:
            return path
    raise RuntimeError("no writable directory on a disk; set SLUICE_TMPDIR")


def temporary_directory(prefix):
    return tempfile.mkdtemp(prefix=f"sluice-{prefix}-", dir=disk_root())


class ReservedPort:
    """A loopback port that the kernel picked and that stays ours while its user is dead.

    The socket is bound but never listens: with SO_REUSEADDR (as the JVM sets) or SO_REUSEPORT (as a server with a
    listener a thread does) on both sides the user may bind and listen beside it, a connection attempt meanwhile is
    refused as by a dead server, and the kernel gives the port to nobody else."""

    def __init__(self, host="127.0.0.1"):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((host, 0))
        self.port = self._socket.getsockname()[1]

    def close(self):
        self._socket.close()
