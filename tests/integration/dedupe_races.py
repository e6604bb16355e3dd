"""The same id on many connections at once, while the disk is slow or fails, or while Kafka does not commit."""

import contextlib

from tests.integration.dedupe_tools import WINDOW, Crowd, copies, event, finish, in_flight, outcome, post, wait_complete
from tests.integration.disk import fault_of, frozen
from tests.lib.report import expect, note
from tests.lib.waiting import until

CONNECTIONS = 48


@contextlib.contextmanager
def _slow_disk_scene(stand, name):
    """A scene whose gateway has two loops, a shim under its spool and all the time in the world."""
    fault = fault_of(stand, stand.home / f"fault-{name}")
    config = {"spool": {"dir": str(fault.prefix)}, "dedupe": WINDOW, "listen": {"threads": 2},
              "ha": {"ack_timeout": "4m"}}
    with stand.scene(name, config=config, environment=fault.environment()) as scene:
        scene.gateway.start()
        yield scene, fault


def _crowd_in_flight(gateway, fault, bodies, *rules):
    """All of them sent, while the disk hangs in the middle of the first one's commit."""
    fault.set(*rules)
    crowd = Crowd(gateway, "payments", bodies)
    until(lambda: in_flight(gateway) == len(bodies), lambda: f"{in_flight(gateway)} of {len(bodies)} are in flight")
    expect(fault.applied(), "the disk was not slow")
    return crowd


def race(stand):
    """One id on many connections, the disk hanging: nobody is answered before it is durable, one record is stored."""
    with _slow_disk_scene(stand, "race") as (scene, fault):
        gateway = scene.gateway
        one = [event("race-1", amount=1)] * CONNECTIONS
        crowd = _crowd_in_flight(gateway, fault, one, "fdatasync hang=1 path=.seg")
        expect(crowd.answered() == 0, "an answer came before the first event was durable")
        fault.off()
        counts = [answer.counts() for answer in crowd.answers()]
        expect(sorted(counts) == [(0, 1, 0)] * (CONNECTIONS - 1) + [(1, 0, 0)], f"{counts}")
        _batches_in_two_orders(gateway, fault)
        found = copies(scene)
        expect(all(count == 1 for count in found.values()), f"copies in Kafka: {found}")
        expect(len(found) == 1 + 20, f"{len(found)} ids in Kafka")
        finish(scene)


def _batches_in_two_orders(gateway, fault):
    """Requests that hold one another's originals do not wait for ever."""
    events = [event(f"cross-{i}") for i in range(20)]
    crowd = Crowd(gateway, "payments", [events, events[::-1]] * 8)
    counts = [answer.counts() for answer in crowd.answers()]
    expect(sum(each[0] for each in counts) == 20, f"{counts}")
    expect(sum(each[1] for each in counts) == 15 * 20, f"{counts}")
    del fault


def race_failing(stand):
    """The same with a disk that fails: nobody gets a 2xx, exit code 4; sent again after a restart it is there once."""
    # A write that failed left nothing behind: the retry is new. After a failed sync the bytes may be there or not.
    for name, accepted in (("pwritev", {1}), ("fdatasync", {0, 1})):
        operations = (name, "pwrite") if name == "pwritev" else (name,)
        rules = [f"{operation} hang=1 errno=EIO path=.seg" for operation in operations]
        with _slow_disk_scene(stand, f"race-{name}") as (scene, fault):
            gateway = scene.gateway
            crowd = _crowd_in_flight(gateway, fault, [event("race-1")] * CONNECTIONS, *rules)
            fault.set(*(rule.replace(" hang=1", "") for rule in rules))
            statuses = [answer.status for answer in crowd.answers()]
            expect(set(statuses) <= {0, 503}, f"{statuses}")
            note(f"{name}: {statuses.count(503)} of {CONNECTIONS} were told 503")
            expect(gateway.wait_exit() == 4, f"exit code {gateway.process.returncode}")
            fault.off()
            gateway.start()
            counts = post(gateway, "payments", event("race-1")).counts()
            expect(counts[0] in accepted and sum(counts) == 1, f"{counts} after a failed {name}")
            expect(copies(scene) == {"race-1": 1}, f"{copies(scene)}")
            finish(scene)


def ack_kafka(stand):
    """Level kafka, Kafka frozen: neither the first one nor its duplicates are answered; then all are, and it is there
    once."""
    config = {"dedupe": WINDOW, "ha": {"ack": "kafka", "ack_timeout": "4m"}}
    with stand.scene("dedupe-ack-kafka", config=config) as scene:
        gateway = scene.gateway.start()
        expect(post(gateway, "payments", event("before")).counts() == (1, 0, 0), "the first event is not accepted")
        with frozen(stand.kafka):
            crowd = Crowd(gateway, "payments", [event("slow")] * 8)
            until(lambda: in_flight(gateway) == 8, "not in flight")
            until(lambda: gateway.metric("sluice_waiting_events") == 1, "the first one is not stored")
            # Known to be in Kafka: needs nobody's commit now.
            expect(post(gateway, "payments", event("before")).counts() == (0, 1, 0), "a duplicate of what is in Kafka")
            expect(crowd.answered() == 0, "an answer although Kafka has committed nothing")
        counts = [answer.counts() for answer in crowd.answers()]
        expect(sorted(counts) == [(0, 1, 0)] * 7 + [(1, 0, 0)], f"{counts}")
        expect(copies(scene) == {"before": 1, "slow": 1}, f"{copies(scene)}")
        _older_stream_at_level_kafka(stand, scene)
        finish(scene)


def _older_stream_at_level_kafka(stand, scene):
    """Stored by a process that was killed before Kafka had it: its duplicate waits for the drain of the old stream."""
    gateway = scene.gateway
    gateway.config["ha"]["ack_timeout"] = "500ms"
    gateway.stop()
    gateway.write_config()
    gateway.start()
    with frozen(stand.kafka):
        expect(post(gateway, "payments", event("old")).status == 503, "a 2xx although Kafka is frozen")
        gateway.kill()
        gateway.start(wait=False)
        wait_complete(gateway)
        expect(post(gateway, "payments", event("old")).status == 503, "a duplicate is told 2xx before Kafka has it")
        expect(outcome(gateway, "unavailable") == 1, "the duplicate is not counted as unavailable")
    def known():
        answer = post(gateway, "payments", event("old"))
        return answer.status == 200 and answer.counts() == (0, 1, 0)
    until(known, "the duplicate is never answered", 300, 0.2)
    expect(copies(scene)["old"] == 1, f"{copies(scene)}")
