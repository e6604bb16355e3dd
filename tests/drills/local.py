"""The activities of the test drills: a real process is killed, frozen and started. `desk` is the one that runs."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from tests.lib.waiting import until

DESK = pathlib.Path(__file__).with_name("desk.py")
desk = None
looks = 0  # how often the sampler asked for its address: once or twice a look


class FaultNotApplied(Exception):
    pass


class Skip(Exception):
    pass


class DeskProcess:
    """Keeps its ledger over restarts; `url` changes with each. `ways`: what desk.py takes, as forget=3."""

    def __init__(self, ledger, **ways):
        self.ledger, self.ways, self.process, self.port = ledger, ways, None, None
        self.start()

    def start(self):
        words = [sys.executable, DESK, self.ledger, *(str(word) for way in self.ways.items() for word in way)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    url = property(lambda self: f"http://127.0.0.1:{self.port}")
    alive = property(lambda self: self.process.poll() is None)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def _accepts():
    try:
        socket.create_connection(("127.0.0.1", desk.port), 60).close()
        return True
    except OSError:
        return False


def kill():
    desk.end()
    if _accepts():
        raise FaultNotApplied("the port still accepts")
    return {"proof": f"process {desk.process.pid} ended by signal {-desk.process.returncode}, its port refuses"}


def start():
    """Heals; does nothing when it runs."""
    if not desk.alive:
        desk.start()
    return {"proof": f"port {desk.port} accepts" if until(_accepts, "the desk accepts") else ""}


def freeze_a_dead_one():
    """A fault that cannot be applied: there is no process any more."""
    pid = desk.process.pid
    desk.end()
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError as error:
        raise FaultNotApplied(f"cannot freeze {pid}: {error.strerror}") from error


def boast():
    """Says that it did something, without a proof."""
    return {"done": True}


def need_what_is_missing():
    raise Skip("CONFIG_NET_SCH_NETEM is not set")


def control_c(seconds=5):
    """As a person at the terminal, in the middle of the method."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(seconds)


def terminated_while_it_waits(seconds=5):
    """As a fault that is waited for: whatever goes wrong is tried again."""
    os.kill(os.getpid(), signal.SIGTERM)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except Exception:  # pylint: disable=broad-except
            continue
    return {"proof": "went on all the same"}


def control_c_in_rollback():
    os.kill(os.getpid(), signal.SIGINT)
    return start()


def fail_to_roll_back():
    raise OSError("the mount is busy")


def taken(count):
    """Waits until the ledger has so many lines."""
    return until(lambda: pathlib.Path(desk.ledger).read_bytes().count(b"\n") >= count, f"{count} are taken")


def looked_at():
    """Waits for a whole look of the sampler: the first that is counted may be the second half of an older one, and the
    third comes when what the second found has been noted."""
    before = looks
    return until(lambda: looks >= before + 3, "the sampler looks")


def answered(count):
    """Waits until so many events are taken, written or not."""
    def told():
        with urllib.request.urlopen(desk.url + "/metrics", timeout=5) as metrics:
            return int(re.search(rb'"accepted"} (\d+)', metrics.read()).group(1))
    return until(lambda: told() >= count, f"{count} are answered", 30)


def accepts():
    return _accepts()


def accepts_not():
    return not _accepts()


def leave_a_mark(path):
    pathlib.Path(path).write_text("rolled back")
    return {"proof": path}


def is_there(path):
    return pathlib.Path(path).exists()
