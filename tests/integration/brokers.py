"""Brokers that die, freeze and come back; topics in trouble; level `kafka`."""

import time

from tests.history import records
from tests.lib.report import expect, note
from tests.lib.waiting import until

SINGLES = ("-c", "3", "-m", "8", "-r", "2500")
BATCHES = ("-c", "2", "-m", "2", "-b", "20", "-r", "2000")
FLOW_WINDOW_S = 5  # of two busy cores; how many single seconds were without an answer is printed


def _state(kafka, node):
    return next(each["state"] for each in kafka.status()["brokers"] if each["node"] == node)


def _through_a_fault(scene, apply, seconds):
    """Load at level disk through so many seconds of a fault: acknowledgements go on, all of it arrives exactly once."""
    gateway = scene.gateway.start()
    scene.load(*SINGLES), scene.load(*BATCHES)
    until(lambda: gateway.accepted() > 5000, "no load arrives")
    until(lambda: gateway.metric("sluice_produced_total") > 0, "nothing is produced before the fault")
    apply()
    start_ns = time.monotonic_ns()
    time.sleep(seconds)
    end_ns = time.monotonic_ns()
    pending, accepted, produced = gateway.pending(), gateway.accepted(), gateway.metric("sluice_produced_total")
    scene.kafka.revive()
    until(lambda: gateway.accepted() > accepted + 5000, "no load arrives after the fault")
    scene.stop_loads()  # brokers on a busy machine may take a minute to serve again
    until(lambda: gateway.metric("sluice_produced_total") > produced,
          lambda: f"nothing is produced after the fault; {gateway.lanes()}", 300)
    _verdict, history = scene.settle(min_acked=5000)
    each_second = history.oks_by_window(start_ns, end_ns)
    note(f"{seconds} s of fault: {sum(each_second)} acknowledged, {each_second.count(0)} seconds without any, "
         f"{pending} pending at its end")
    expect(all(history.oks_by_window(start_ns, end_ns, FLOW_WINDOW_S)),
           f"no acknowledgement in {FLOW_WINDOW_S} s of the fault")


def broker_kill(stand):
    """SIGKILL of one broker after the other, each restarted before the next, under load."""
    with stand.scene("broker-kill") as scene:
        def apply():
            for node in stand.kafka.nodes if stand.long else stand.kafka.nodes[:1]:
                stand.kafka.heal()
                stand.kafka.kill(node)
                expect(_state(stand.kafka, node) == "dead", "the broker lives")
        _through_a_fault(scene, apply, 45 if stand.long else 15)


def broker_freeze(stand):
    """SIGSTOP of the broker that leads a partition of the topic, under load."""
    with stand.scene("broker-freeze") as scene:
        def apply():
            topic = scene.sources["payments"]["topic"]
            leader = stand.kafka.topics()[topic]["partitions"][0]["leader"]
            stand.kafka.stop(leader)
            expect(_state(stand.kafka, leader) == "frozen", "the broker runs on")
        _through_a_fault(scene, apply, 45 if stand.long else 20)


def all_brokers_down(stand):
    """SIGKILL of all three at once, under load."""
    with stand.scene("all-down") as scene:
        def apply():
            for node in stand.kafka.nodes:
                stand.kafka.kill(node)
        _through_a_fault(scene, apply, 60 if stand.long else 15)


def all_brokers_frozen(stand):
    """SIGSTOP of all three for longer than a transaction may last (15 s): its outcome is unknown, then an abort."""
    with stand.scene("all-frozen") as scene:
        def apply():
            for node in stand.kafka.nodes:
                stand.kafka.stop(node)
        _through_a_fault(scene, apply, 60 if stand.long else 25)


def _posted(client):
    """The answer to one event, or None when it was refused."""
    status, _headers, answer = client.post("payments", client.make())
    expect(status in (200, 503), f"{status} {answer}")
    return answer if status == 200 else None


def ack_kafka(stand):
    """Level kafka: an answer comes after the commit, without brokers 503; what was answered before is there."""
    with stand.scene("ack-kafka", sources={"payments": {"ack": "kafka", "ack_timeout": "2s"}}) as scene:
        gateway, client = scene.gateway.start(), scene.client()
        # Brokers that were just started may take longer for their first commit than the answer may.
        answer = until(lambda: _posted(client), "nothing is acknowledged")
        expect(answer["ack"] == "kafka", f"{answer}")
        scene.load("-c", "2", "-m", "8", "-r", "300")
        until(lambda: gateway.accepted() > 300, "no load arrives")
        for node in stand.kafka.nodes:
            stand.kafka.stop(node)
        frozen_ns = time.monotonic_ns()
        for _ in range(3):
            status, headers, answer = client.post("payments", client.make())
            expect(status == 503, f"{status} {answer} with all brokers frozen")
            expect("retry-after" in headers, f"503 without Retry-After: {headers}")
            kind = headers.get("content-type", "")
            expect(kind.startswith("application/problem+json"), f"503 is {kind}")
        # What is not answered 200 any more must not look ready to the balancer either: no other source is there.
        until(lambda: gateway.ready_status() == 503, "/readyz stays 200 although nothing can be acknowledged")
        thawed_ns = time.monotonic_ns()
        stand.kafka.heal()
        until(lambda: client.post("payments", client.make())[0] == 200, "it does not recover by itself")
        _verdict, history = scene.settle(min_acked=300)
        early = sum(frozen_ns < sent and answered < thawed_ns for sent, answered in history.oks)
        expect(early == 0, f"{early} events were acknowledged at level kafka while no broker could commit")


def lanes(stand):
    """A missing topic holds up its own lane only; when it appears, the lane drains in order."""
    with stand.scene("lanes", sources={"payments": {}, "orders": {"lane": "side"}}, make_topics=False) as scene:
        topics = {source: settings["topic"] for source, settings in scene.sources.items()}
        scene.make_topic(topics["payments"])
        gateway = scene.gateway.start()
        scene.load(*SINGLES)
        held = scene.load("-c", "1", "-m", "4", "-r", "500", source="orders")
        until(lambda: gateway.accepted("orders") > 1000, "orders are not accepted")
        held.stop()
        held.wait()
        waiting = gateway.accepted("orders")
        produced = gateway.metric("sluice_produced_total", topic=topics["payments"])
        until(lambda: gateway.metric("sluice_produced_total", topic=topics["payments"]) > produced + 5000,
              lambda: f"the other lane does not flow; {gateway.lanes()}")
        expect(gateway.pending() >= waiting,
               f"{gateway.pending()} events pending, {waiting} were accepted for a missing topic")
        until(lambda: gateway.metric("sluice_lane_state", lane="side", state="held") == 1,
              lambda: f"the lane is not called held; {gateway.lanes()}")
        gateway.kill()  # and the held lane of an older stream must not hold up the new one of the other
        gateway.start()
        produced = gateway.metric("sluice_produced_total", topic=topics["payments"])
        until(lambda: gateway.metric("sluice_produced_total", topic=topics["payments"]) > produced + 1000,
              lambda: f"after a restart the other lane does not flow; {gateway.lanes()}")
        scene.make_topic(topics["orders"])
        scene.settle(min_acked=waiting + 5000)


def too_large(stand):
    """A record that the topic refuses for its size goes to the dead-letter topic; its batch and its lane go on."""
    with stand.scene("too-large", topic_config={"max.message.bytes": 20000}) as scene:
        gateway, client = scene.gateway.start(), scene.client()
        scene.load("-c", "2", "-m", "8", "-r", "1500")  # batches of them are over the limit as well, none of them alone
        until(lambda: gateway.accepted() > 500, "no load arrives")
        large = []
        for index in range(40):
            event = client.make(key=f"acc_poison_{index % 4}", size=60000 if index % 10 == 5 else 300)
            status, _headers, answer = client.post("payments", event)
            expect(status == 200, f"{status} {answer}")
            if index % 10 == 5:
                large.append(event)
        accepted = gateway.accepted()
        until(lambda: gateway.accepted() > accepted + 1000, "no load arrives any more")
        scene.settle(min_acked=1500)
        topic = scene.sources["payments"]["topic"]
        dead = {record.event_id: record for record in scene.records(f"{topic}.dlq", values=True)}
        expect(set(dead) == {event["id"] for event in large},
               f"{len(dead)} records in {topic}.dlq, {len(large)} are over the topic's limit")
        for event in large:
            record = dead[event["id"]]
            expect(record.rest[0] == event["body"], "the dead letter is not the original bytes")
            expect(records.header(record, "sluice-source") == b"payments", f"sluice-source: {record.rest[1:]}")
            expect(records.header(record, "sluice-error"), f"no sluice-error: {record.rest[1:]}")
