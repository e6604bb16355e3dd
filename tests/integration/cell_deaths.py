"""Gateways of a cell that die, with and without their disks, freeze, come back; takers that die at it."""

import datetime
import functools
import json
import os
import re
import signal
import statistics
import time

from tests.integration.cell_stand import BATCHES, SINGLES
from tests.integration.disk import fault_of
from tests.lib.report import Failure, Skip, expect, note
from tests.lib.waiting import until

# The broker's clock in each record, and not the time of receipt: when a dead node's tail came.
APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}
TAIL_BUDGET_S = 10
KEEPS_UP = 3000  # events of a node that wait for Kafka: a few seconds of the load
# With room for brokers, gateways and clients on two cores: it is the takeover that is timed.
MEASURED = (("-c", "6", "-m", "8", "-r", "600"), ("-c", "3", "-m", "2", "-b", "20", "-r", "400"))
STEPS_LOGGED = {"log": {"level": "debug"}}
STEPS = ("init", "read", "claim", "fence", "produce", "close")


def _produced(observers, stream):
    """Whether one of them says that all that any of them holds of the stream is in Kafka."""
    owner, ends, through = stream.rpartition(".")[0], [], 0
    for node in observers:
        found = node.streams().get(stream)
        if found:
            ends += [held["end"] or 0 for name, held in found["holders"].items() if name != owner]
            through = max(through, found["through"])
    return ends and through > 0 and through >= max(ends)  # what was produced may be gone from their disks already


def _takeovers(nodes):
    return sum(int(node.metric("sluice_takeovers_total")) for node in nodes)


def _why_not(observers, stream):
    return lambda: f"{stream} is not taken over: " + "; ".join(
        f"{node.name}: {node.streams().get(stream)}" for node in observers)


def _wait_taken(observers, stream, died, timeout_s=240):
    """Seconds from the death until the survivors have read in Kafka that the whole tail is there."""
    until(lambda: _produced(observers, stream), _why_not(observers, stream), timeout_s, 0.05)
    return time.monotonic() - died


def _counter(stream):
    return int(re.fullmatch(r".*\.(\d+)-[0-9a-f]+", stream)[1])


# ---- a node dies, and its disk with it


def _kill_and_wipe(cell, victim):
    """Seconds until its tail is in Kafka; then it comes back with nothing."""
    observers, stream = cell.others(victim), victim.stream()
    before = _takeovers(observers)
    victim.kill()
    died, died_ms = time.monotonic(), time.time() * 1000
    victim.wipe()
    took = _wait_taken(observers, stream, died)
    # All of it may have been there before, and /metrics is a copy, a little older than what was read.
    until(lambda: _takeovers(observers) > before, "its tail is in Kafka, but nobody took it over")
    cell.wait_load(500)  # the others go on meanwhile
    victim.start()
    until(cell.is_whole, f"{victim.name} does not come back")
    new = until(victim.stream, "it writes no stream")
    expect(_counter(new) > _counter(stream), f"{new} comes after {stream}: numbers went back")
    return stream, died_ms, took


def lost_disk(stand):
    """kill -9 under load, its spool directory deleted: nothing lost, nothing doubled; its tail is in Kafka soon."""
    rounds = int(os.environ.get("CELL_DEATHS", 10 if stand.long else 1))
    measured = rounds > 1
    with stand.cell("lost-disk", topic_config=APPEND_TIME, config=STEPS_LOGGED) as cell:
        cell.start()
        for load in MEASURED if measured else (SINGLES, BATCHES):
            cell.load(*load)
        cell.wait_load(3000)
        deaths = []
        if measured:  # the first one is for the brokers, which have never ended another's transaction
            note(f"warming up: {_kill_and_wipe(cell, cell.c)[2]:.1f} s")
        for turn in range(rounds):
            cell.wait_load(1500)
            if measured:
                _wait_keeping_up(cell)
            victim = cell.nodes[turn % len(cell.nodes)]
            until(lambda: victim.accepted() > 0, f"no load arrives at {victim.name}")
            deaths.append(_kill_and_wipe(cell, victim))
            _note_steps(cell, victim, *deaths[-1])
        cell.settle(min_acked=3000)
        _note_tails(cell, deaths)
        worst = max(took for _stream, _died, took in deaths)
        expect(not measured or worst <= TAIL_BUDGET_S, f"a tail took {worst:.1f} s")


def _wait_keeping_up(cell):
    """Until Kafka takes what is sent: with brokers that were just started a tail is as long as their warming up."""
    calm = 0

    def keeps_up():
        nonlocal calm
        calm = calm + 1 if all(node.pending() < KEEPS_UP for node in cell.nodes) else 0
        return calm >= 3
    until(keeps_up, lambda: f"Kafka does not keep up: {[node.pending() for node in cell.nodes]}", 90, 1)


def _note_steps(cell, victim, stream, died_ms, took):
    """When each step of the takeover was, in seconds after the death, by the takers' logs."""
    steps = []
    for node in cell.others(victim):
        for line in node.logged(stream, "step"):
            said = json.loads(line)
            if said["message"] in ("step of a drain", "answer to a step"):
                at = datetime.datetime.fromisoformat(said["time"].replace("Z", "+00:00")).timestamp() - died_ms / 1000
                steps.append((at, f"{node.name[-1]}:{said['step']}{'=' + said['result'] if 'result' in said else ''}"))
    note(f"{victim.name} died: its tail was read in Kafka {took:.1f} s later ("
         + " ".join(f"{what}@{at:.2f}" for at, what in sorted(steps)) + ")")


def _note_tails(cell, deaths):
    appended = {}
    for record in cell.found:
        appended[record.stream] = max(appended.get(record.stream, 0), record.timestamp_ms)
    tails = [(appended[stream] - died_ms) / 1000 for stream, died_ms, _took in deaths if stream in appended]
    note("last record appended after death, s: " + " ".join(f"{tail:.1f}" for tail in tails))
    note(f"median of {len(deaths)}: {statistics.median(took for *_, took in deaths):.1f} s until it was read back, "
         f"{statistics.median(tails):.1f} s until it was appended")


# ---- a node that stands still and wakes


def frozen(stand):
    """SIGSTOP, taken over meanwhile, SIGCONT: fenced, a new stream, goes on; nothing lost or doubled."""
    with stand.cell("frozen") as cell:
        cell.start()
        cell.load(*SINGLES)
        cell.wait_load(2000)
        for turn in range(3 if stand.long else 1):
            _freeze_once(cell, cell.nodes[turn], 30)
        cell.settle(min_acked=4000)


def _freeze_once(cell, victim, seconds):
    observers, stream = cell.others(victim), victim.stream()
    taken = _takeovers(observers)
    victim.freeze()
    froze = time.monotonic()
    took = _wait_taken(observers, stream, froze)
    until(lambda: _takeovers(observers) > taken, "nobody took it over")
    time.sleep(max(0, froze + seconds - time.monotonic()))
    victim.thaw()
    woke = time.monotonic()
    new = until(lambda: (found := victim.stream()) != stream and found, "it goes on with its old stream")
    accepted = victim.accepted()
    until(lambda: victim.accepted() > accepted + 200, "it takes nothing any more after it woke")
    note(f"{victim.name}: taken over after {took:.1f} s; awake, it writes {new} after {time.monotonic() - woke:.1f} s")


# ---- two of three


def two_dead(stand):
    """Two die at once: the third drains both and goes on by Kafka's commits. Then again, the disks gone one by one."""
    with stand.cell("two-dead") as cell:
        cell.start()
        cell.load(*SINGLES)
        cell.wait_load(2000)
        survivor, dead = cell.a, [cell.b, cell.c]
        streams = [node.stream() for node in dead]
        for node in dead:
            node.kill()
        died = time.monotonic()
        tails = [_wait_taken([survivor], stream, died) for stream in streams]
        note("tails in Kafka after " + ", ".join(f"{tail:.1f} s" for tail in tails))
        cell.wait_load(100)  # each by a commit
        cell.start(*dead)
        until(cell.is_whole, "they do not come back", 60)
        if stand.long:
            _one_disk_after_the_other(cell)
        cell.settle(min_acked=2500)


def _one_disk_after_the_other(cell):
    for first, second, third in ((cell.a, cell.b, cell.c), (cell.b, cell.c, cell.a)):
        streams = first.stream(), second.stream()
        cell.wait_load(1000)
        first.kill()
        first.wipe()
        _wait_taken([second, third], streams[0], time.monotonic())
        cell.wait_load(500)  # by the two
        second.kill()
        second.wipe()
        _wait_taken([third], streams[1], time.monotonic())
        cell.wait_load(100)
        cell.start(first, second)
        until(cell.is_whole, "they do not come back", 60)


# ---- takers


def taker_dies(stand):
    """The one that takes over dies at each step of it: the other, or itself after a restart, brings it to its end."""
    for step in STEPS if stand.long else ("claim", "produce"):
        _taker_dies_at(stand, step)


def _taker_dies_at(stand, step):
    taker_environment = {"SLUICE_FAILPOINT": f"takeover.{step}:exit"}
    with stand.cell(f"taker-{step}", environment={"b": taker_environment}) as cell:
        cell.start()
        victim, taker, other = cell.nodes  # the member behind the dead one comes first
        cell.load("-c", "4", "-m", "4", "-r", "600")
        cell.wait_load(1000)
        stream = victim.stream()
        victim.kill()
        died = time.monotonic()
        victim.wipe()
        try:
            until(lambda: not taker.alive, "", 30)
        except Exception as error:
            if not any("failpoint" in line for line in taker.log_lines()) and _produced([other], stream):
                raise Skip(f"{taker.name} did not come to takeover.{step}: no build with failpoints?") from error
            raise
        expect(taker.process.returncode == -signal.SIGKILL, f"the taker ended with {taker.process.returncode}")
        expect(taker.logged("failpoint", step), f"the taker died of something else: {taker.log_tail()}")
        took = _wait_taken([other], stream, died)
        taker.environment.clear()
        cell.start(taker)
        cell.start(victim)
        note(f"{step}: {took:.1f} s after the first death the third one had brought it to its end")
        cell.wait_load(500)
        cell.settle(min_acked=1000)


def two_takers(stand):
    """Both survivors take the same stream, unable to hear each other: the one has claimed it and stands before its
    records when it loses Kafka; the other claims it, too, and drains it; the first finds itself fenced. All of it is
    there once."""
    for turn in range(3 if stand.long else 1):
        # A turn that is longer than a claim takes on a busy machine, or the second fences the first before it claims.
        with stand.cell("two-takers", sources={"payments": {}, "late": {}}, missing=("late",),
                        config={"ha": {"turn": "8s"}}) as cell:
            cell.start()
            cell.load(*SINGLES)
            _both_take(cell, cell.nodes[turn])
            cell.settle(min_acked=2000)


def _claims(node, stream):
    """The numbers of the claims that it committed on the stream, one for each lane and try."""
    return [json.loads(line)["claim"] for line in node.logged("stream claimed", stream)]


def _both_take(cell, victim):
    survivors = cell.others(victim)
    cell.wait_load(1000)
    # No topic, so nothing behind this event is produced by anybody before there is one.
    client = cell.client(victim)
    expect(client.post("late", client.make(namespace="late"))[0] == 200, "az2 without Kafka is no 200")
    cell.wait_load(2000)
    stream, before = victim.stream(), {node: _takeovers([node]) for node in survivors}
    cell.cut(*survivors)
    victim.kill()
    died = time.monotonic()
    first = until(lambda: next((node for node in survivors if _claims(node, stream)), None), "nobody claims it", 90)
    second, = [node for node in survivors if node is not first]
    expect(not _claims(second, stream), "both at once")
    cell.cut_kafka(first)
    until(lambda: _claims(second, stream), f"{second.name} does not claim it, though {first.name} is silent", 90)
    for node in survivors:  # /metrics is a copy, a little older than the log
        until(lambda: _takeovers([node]) > before[node], f"{node.name} has not counted its claim", 30)
    cell.expect_cut(first, second)
    cell.make_topic("late")
    took = _wait_taken([second], stream, died)
    cell.heal()
    # It may read the other's claim first, and let go: then Kafka says so to its last abort.
    until(lambda: first.logged(stream, "fenced by a newer instance"), f"{first.name} does not notice its fence", 90)
    numbers = {node.name: _claims(node, stream) for node in survivors}
    expect(min(numbers[second.name]) > max(numbers[first.name][:1]), f"claims do not go up: {numbers}")
    note(f"claims: {numbers}, of {stream} all in Kafka {took:.1f} s after the death; {first.name} was fenced")
    cell.start(victim)
    until(cell.is_whole, "they do not find each other", 60)


# ---- orderly ends, and a disk that has less than the peers


def rolling(stand):
    """SIGTERM and start of one after the other, under load: no answer lost, each ends with code 0."""
    with stand.cell("rolling") as cell:
        cell.start()
        cell.load(*SINGLES), cell.load(*BATCHES)
        cell.wait_load(2000)
        for _ in range(3 if stand.long else 1):
            for node in cell.nodes:
                started = time.monotonic()
                node.stop()
                ended = time.monotonic()
                node.start()
                until(cell.is_whole, f"{node.name} does not come back")
                note(f"{node.name}: ended in {ended - started:.1f} s, back after {time.monotonic() - ended:.1f} s")
                until(lambda: node.accepted() > 200, f"no load arrives at {node.name}")
        cell.settle(min_acked=3000)


def behind(stand):
    """A node whose disk has less of its own stream than its peers have: what they have comes first, and once."""
    fault = fault_of(stand, stand.home / "fault-behind")
    cell_options = {"environment": {"a": fault.environment()}}
    with stand.cell("behind", **cell_options) as cell:
        node = cell.a
        node.config["spool"]["dir"] = str(fault.prefix)
        node.spool = fault.prefix
        node.write_config()
        cell.start()
        cell.load("-c", "4", "-m", "8", "-r", "800", nodes=[node])
        cell.wait_load(1500)
        stream = node.stream()
        _write_ahead_of_the_disk(cell, node, fault, stream)
        node.kill()
        fault.off()
        longest = max(other.held(stream)[other.name] for other in cell.others(node))
        node.start()
        found = node.streams().get(stream)
        note(f"ready again; of {stream} the peers had {longest}, it has {found and found['holders']}")
        cell.wait_load(500)
        cell.settle(min_acked=1500)
        ends = [record.seq for record in cell.found if record.stream == stream]
        expect(max(ends) == longest, f"{stream} ends at {max(ends)} in Kafka, the peers had {longest}")


def _write_ahead_of_the_disk(cell, node, fault, stream):
    """The disk hangs before anything is written; the peers get the frame and sync it."""
    fault.set("pwritev hang=1 path=.seg", "pwrite hang=1 path=.seg")

    def ahead():
        if not fault.applied():
            return False
        theirs = max(each.held(stream).get(each.name, 0) for each in cell.others(node))
        return theirs > node.held(stream)[node.name]
    try:
        until(ahead, "", 15)
    except Exception as error:
        raise Failure("with the disk hanging no peer has more than the disk: frames are not sent in parallel, or the "
                      "writer does not hang") from error


SCENARIOS = {"lost_disk": lost_disk, "frozen": frozen, "two_dead": two_dead, "two_takers": two_takers,
             "rolling": rolling, "behind": behind}
TAKERS = {f"taker_dies_{step}": functools.partial(_taker_dies_at, step=step) for step in STEPS}
