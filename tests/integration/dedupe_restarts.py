"""The window over restarts: rebuilt before the node is ready, from a snapshot or without one, through kills."""

import json
import random
import threading
import time

from tests.integration.dedupe_tools import WINDOW, copies, event, finish, post, status, wait_complete
from tests.integration.disk import fault_of
from tests.lib.report import Failure, expect, note
from tests.lib.waiting import until


def readiness(stand):
    """Until the window is rebuilt /readyz and every request are 503 and say why; then what was known is known."""
    fault = fault_of(stand, stand.home / "fault-readiness")
    config = {"spool": {"dir": str(fault.prefix)}, "dedupe": WINDOW}
    with stand.scene("readiness", config=config, environment=fault.environment()) as scene:
        gateway = scene.gateway.start()
        expect(post(gateway, "payments", event("a")).counts() == (1, 0, 0), "the first is not accepted")
        gateway.stop()
        fault.set("pread hang=1 path=dedupe/snapshot")
        gateway.start(wait=False)
        fault.wait_applied("pread")
        code, text = until(lambda: _ready(gateway), "no /readyz")
        expect(code == 503 and "rebuil" in text and "rebuild" in json.loads(text), f"/readyz: {code} {text}")
        answer = until(lambda: _try_post(gateway, event("a")), "the ingest endpoint does not listen")
        expect(answer.status == 503 and "rebuilt" in answer.body["detail"], f"{answer}")
        expect(answer.headers.get("retry-after", "").isdigit(), f"{answer.headers}")
        fault.off()
        gateway.wait_ready()
        expect(post(gateway, "payments", event("a")).counts() == (0, 1, 0), "what the snapshot holds is not known")
        expect(copies(scene) == {"a": 1}, f"{copies(scene)}")
        finish(scene)


def _ready(gateway):
    try:
        return gateway.admin("/readyz")
    except OSError:
        return None


def _try_post(gateway, body):
    try:
        return post(gateway, "payments", body)
    except OSError:
        return None


def memory(stand):
    """A budget too small for the window warns with its arithmetic, alarms while it lasts, warns at the next start."""
    config = {"dedupe": {"window": "30d", "memory": "2MiB", "snapshot_every": "1s"}}
    with stand.scene("memory", config=config) as scene:
        gateway = scene.gateway.start()

        def warnings():
            return [line for line in gateway.log_lines() if "dedupe.memory is too small" in line]

        def send():
            name = f"m-{random.getrandbits(64):x}"
            counts = post(gateway, "payments", [event(f"{name}-{i}") for i in range(500)]).counts()
            expect(counts == (500, 0, 0), f"{counts}")
            return status(gateway)["alarm"]

        alarm = until(send, "no alarm on /status", pause_s=0.3)
        expect("new ids/s" in alarm and "MiB" in alarm, alarm)
        expect(gateway.metric("sluice_dedupe_memory_too_small") == 1, "the metric is 0")
        expect(len(warnings()) == 1 and '"level":"warn"' in warnings()[0], f"{len(warnings())} warnings")
        gateway.stop()
        gateway.start()
        until(lambda: len(warnings()) == 2, "no warning from the last observed rate at the next start")
        expect("before the restart" in warnings()[1], warnings()[1])
        finish(scene)


def older_stream(stand):
    """kill -9 before any snapshot, retention at work: known from the spool alone; then from both."""
    config = {"spool": {"segment": "1MiB", "retain": "0s"}, "dedupe": WINDOW}
    with stand.scene("older", config=config) as scene:
        gateway = scene.gateway.start()
        batches = [[event(f"o-{turn}-{i}", pad="x" * 400) for i in range(500)] for turn in range(20)]
        for number, end in ((5, "kill"), (10, "stop"), (15, "kill"), (20, "kill")):
            for batch in batches[number - 5:number]:
                expect(post(gateway, "payments", batch).counts() == (500, 0, 0), "new events are not accepted")
            if end == "stop":  # what is in Kafka goes from the disk, its ids stay
                gateway.wait_drained()
            getattr(gateway, end)()
            gateway.start()
            for batch in batches[:number]:
                expect(post(gateway, "payments", batch).counts() == (0, 500, 0), f"not known after {end}")
        found = copies(scene)
        expect(len(found) == 20 * 500 and set(found.values()) == {1}, f"{len(found)} ids in Kafka")
        finish(scene)


def key_file(stand):
    """Another key forgets what was remembered, and nothing worse; a key that others can read is refused."""
    with stand.scene("key", config={"dedupe": WINDOW}) as scene:
        gateway = scene.gateway.start()
        expect(post(gateway, "payments", event("a")).counts() == (1, 0, 0), "the first is not accepted")
        gateway.stop()
        key = gateway.spool / "dedupe.key"
        expect(key.stat().st_mode & 0o777 == 0o600, f"the key's mode is {key.stat().st_mode & 0o777:o}")
        key.chmod(0o644)
        gateway.start(wait=False)
        expect(gateway.wait_exit() == 1, f"exit code {gateway.process.returncode} with a key that all can read")
        key.unlink()
        gateway.start()
        expect(post(gateway, "payments", event("a")).counts() == (1, 0, 0), "known under another key")
        expect(post(gateway, "payments", event("a")).counts() == (0, 1, 0), "not known under its own key")
        finish(scene)


class _Sender(threading.Thread):
    """Batches of 20 events, one of twenty a duplicate; keeps what was acknowledged, and what it must send again."""

    def __init__(self, gateway, name, stop):
        super().__init__(daemon=True)
        self.gateway, self.stop_event, self.label = gateway, stop, name
        self.random, self.number = random.Random(name), 0
        self.acked, self.open, self.wrong = [], None, None

    def _batch(self):
        batch = []
        for _ in range(20):
            if self.acked and self.random.random() < 0.05:
                batch.append(self.random.choice(self.acked))
                continue
            self.number += 1
            batch.append(event(f"{self.label}-{self.number}", pad="y" * 100))
        return batch

    def run(self):
        while not self.stop_event.is_set():
            batch = self.open or self._batch()
            try:
                answer = post(self.gateway, "payments", batch, timeout_s=20)
            except OSError:
                answer = None
            except Exception as error:  # noqa: BLE001  a half-written answer of a killed process
                answer = None if "IncompleteRead" in repr(error) or "BadStatus" in repr(error) else error
            if answer is None or getattr(answer, "status", 0) == 503:
                self.open = batch  # unknown: the same ids again
                time.sleep(0.01)
                continue
            if getattr(answer, "status", 0) != 200:
                self.wrong = repr(answer)
                return
            self.acked += [each for each in batch if each not in self.acked[-40:]]
            self.open = None


def kills(stand):
    """kill -9 under load with duplicates among it: after each restart, all that was acknowledged is still known."""
    rounds = 30 if stand.long else 5
    chance = random.Random()
    config = {"dedupe": {**WINDOW, "snapshot_every": "1s"}, "spool": {"segment": "4MiB", "retain": "0s"}}
    with stand.scene("kills", config=config) as scene:
        gateway = scene.gateway.start()
        acked = {}
        for turn in range(rounds):
            _load_and_kill(gateway, f"t{turn}", chance, acked)
            started = time.monotonic()
            gateway.start()
            took_s = time.monotonic() - started
            _resend(gateway, list(acked.values()))
            note(f"kill {turn + 1} of {rounds}: {len(acked)} acknowledged are known, ready after {took_s:.2f} s")
        found = copies(scene)
        missing = sorted(set(acked) - set(found))
        doubled = [name for name, count in found.items() if count > 1]
        expect(not missing and not doubled,
               f"{len(missing)} lost, {len(doubled)} doubled: {missing[:3]} {doubled[:3]}")
        finish(scene)


def _load_and_kill(gateway, label, chance, acked):
    stop = threading.Event()
    senders = [_Sender(gateway, f"{label}-{i}", stop) for i in range(4)]
    for sender in senders:
        sender.start()
    until(lambda: all(each.wrong or len(each.acked) > 100 for each in senders), "no load arrives")
    time.sleep(chance.uniform(0, 1.5))
    gateway.kill()
    stop.set()
    for sender in senders:
        sender.join(60)
        if sender.wrong:
            raise Failure(f"an answer under load: {sender.wrong}")
        acked.update({each["event_id"]: each for each in sender.acked})


def _resend(gateway, events):
    for start in range(0, len(events), 1000):
        batch = events[start:start + 1000]
        counts = post(gateway, "payments", batch).counts()
        expect(counts == (0, len(batch), 0), f"acknowledged before the kill, and now {counts} of {len(batch)}")
