"""Where a cluster lives, the mark that everything of it carries, and the lock that keeps two commands apart.

The mark is a digest of the directory's path. It is in the names of the namespaces and of the link, and in the
environment of every process; images and mounts lie below the directory itself. So all of a cluster is found again
without any file.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import socket

from chaos.stand.shell import StandError

SIGN = "sluice-chaos"  # a file in the directory: without it, nothing there is ever removed


class Places:
    def __init__(self, directory=None):
        self.dir = pathlib.Path(directory or os.environ.get("SLUICE_CHAOS_DIR") or "/var/tmp/sluice-chaos").absolute()
        self.mark = hashlib.sha256(str(self.dir).encode()).hexdigest()[:6]
        self.state_path = self.dir / "cluster.json"
        self.prefix = f"sluice-{self.mark}-"  # of namespaces
        self.link = f"slc{self.mark}"  # this machine's end of the link to the bridge

    def netns(self, name):
        return self.prefix + name

    def image(self, zone, disk):
        return self.dir / "disks" / f"{zone}-{disk}.img"

    def mount(self, zone, disk):
        return self.dir / "mnt" / zone / disk

    def claim(self):
        """Makes the directory ours; StandError when it is somebody else's, or in use."""
        if self.dir.exists() and not (self.dir / SIGN).exists() and any(self.dir.iterdir()):
            raise StandError(f"{self.dir} is not empty and was not made by chaos/cluster: set SLUICE_CHAOS_DIR")
        if (self.dir / SIGN).exists():
            raise StandError(f"there is a cluster in {self.dir}, or what is left of one: chaos/cluster down")
        self.dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.dir / SIGN).write_text(f"{self.mark}\n")

    def read_state(self):
        try:
            return json.loads(self.state_path.read_text())
        except FileNotFoundError:
            raise StandError(f"no cluster is up in {self.dir}: chaos/cluster up") from None

    def write_state(self, state):
        replace(self.state_path, json.dumps(state, indent=1) + "\n")

    @contextlib.contextmanager
    def lock(self):
        """One `up` or `down` at a time. A name in the kernel, not a file: it goes with its process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
            try:
                held.bind(f"\0sluice-chaos-{self.mark}")
            except OSError:
                raise StandError(f"another chaos/cluster works on {self.dir}") from None
            yield


def replace(path, text, mode=0o644):
    """Writes a file so that whoever reads it sees the old or the new text."""
    aside = pathlib.Path(f"{path}.new")
    aside.write_text(text)
    aside.chmod(mode)
    aside.rename(path)
