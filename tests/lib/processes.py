"""Child processes that never outlive the test."""

import ctypes
import signal
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(command, **options):
    """Popen whose child is killed when this process dies. From the main thread only: the kernel watches the thread."""
    return subprocess.Popen([str(word) for word in command], preexec_fn=_die_with_parent, stdin=subprocess.DEVNULL,
                            **options)


def resident_kib(pid, what="RssAnon"):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(what + ":"):
                return int(line.split()[1])
    return 0
