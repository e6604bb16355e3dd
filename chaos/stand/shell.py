"""Commands of the system, and code that runs inside a network namespace."""

import ctypes
import os
import subprocess
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


class StandError(Exception):
    """The stand could not do what was asked; the text says why. `answer`: the words of the program that failed,
    alone."""

    def __init__(self, text, answer=""):
        super().__init__(text)
        self.answer = answer


def run(*command, check=True, timeout_s=60, text=None):
    """Runs a command and returns it completed, with stdout and stderr as text; StandError when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=text, stdin=None if text is not None else subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise StandError(f"{words[0]} is not installed: scripts/setup chaos") from error
    except subprocess.TimeoutExpired as error:
        raise StandError(f"{' '.join(words)} did not end within {timeout_s} s") from error
    if check and done.returncode != 0:
        answer = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise StandError(f"{' '.join(words)}: {answer}", answer)
    return done


def netns_path(netns):
    return f"/run/netns/{netns}"


def entering(netns, command):
    """The command, run inside a namespace. Not `ip netns exec`: that makes a mount namespace, which would keep our
    disks mounted for as long as the process lives."""
    return ["nsenter", f"--net={netns_path(netns)}", "--", *map(str, command)] if netns else [*map(str, command)]


def run_in(netns, *command, **options):
    return run(*entering(netns, command), **options)


def within(netns, function):
    """Calls function() in a thread of its own inside the namespace: sockets that it opens are that zone's, however cut
    off the zone is. Returns what it returns, raises what it raises."""
    found = []

    def body():
        try:
            descriptor = os.open(netns_path(netns), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {netns}")
            finally:
                os.close(descriptor)
            found.append((True, function()))
        except BaseException as error:  # it is raised again in the thread that asked
            found.append((False, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    fine, value = found[0]
    if not fine:
        raise value
    return value


def need_root():
    if os.geteuid() != 0:
        raise StandError("needs root: network namespaces, loop devices and mounts are made")
