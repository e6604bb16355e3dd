"""Child processes that never outlive the test."""

import ctypes
import pathlib
import resource
import shutil
import signal
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _dump_core_and_die_with_parent():
    _die_with_parent()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def spawn(command, core=False, **options):
    """Popen whose child is killed when this process dies. From the main thread only: the kernel watches the thread.

    `core`: a crash may leave a core file, where the kernel puts it."""
    return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                            preexec_fn=_dump_core_and_die_with_parent if core else _die_with_parent, **options)


def backtraces(binary, directory):
    """What the core files in a directory say, as far as gdb is there; "" without any."""
    cores = sorted(pathlib.Path(directory).glob("core*"))
    if not cores or not shutil.which("gdb"):
        return f"{len(cores)} core file(s) in {directory}" if cores else ""
    run = subprocess.run(["gdb", "-batch", "-nx", "-ex", "thread apply all bt 12", str(binary), str(cores[-1])],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return run.stdout


def resident_kib(pid, what="RssAnon"):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(what + ":"):
                return int(line.split()[1])
    return 0
