"""What the scenarios of the dedupe window share: plain requests, and the end of a scene without histories."""

import concurrent.futures
import http.client
import json

from tests.integration.stand import Stand  # noqa: F401  names the type of `stand`
from tests.lib.report import expect
from tests.lib.waiting import until

WINDOW = {"window": "24h", "memory": "64MiB"}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def counts(self):
        """(accepted, duplicates, quarantined) of a 200."""
        expect(self.status == 200, f"{self.status} {self.body}")
        return tuple(self.body[each] for each in ("accepted", "duplicates", "quarantined"))

    def __repr__(self):
        return f"{self.status} {self.body}"


def post(gateway, source, body, headers=None, timeout_s=240):
    """One request on a connection of its own. `body`: bytes, or what json.dumps takes, or a list of these: NDJSON."""
    kind = "application/json"
    if isinstance(body, list):
        kind = "application/x-ndjson"
        body = b"".join(_bytes(each) + b"\n" for each in body)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ingest_port, timeout=timeout_s)
    try:
        connection.request("POST", f"/v1/events/{source}", _bytes(body), {"content-type": kind, **(headers or {})})
        response = connection.getresponse()
        raw = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, json.loads(raw))
    finally:
        connection.close()


def _bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


class Crowd:
    """Many requests at once, each on a connection of its own."""

    def __init__(self, gateway, source, bodies):
        self._pool = concurrent.futures.ThreadPoolExecutor(len(bodies))
        self._futures = [self._pool.submit(self._post, gateway, source, body) for body in bodies]

    @staticmethod
    def _post(gateway, source, body):
        try:
            return post(gateway, source, body)
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {}, type(error).__name__)

    def answered(self):
        return sum(future.done() for future in self._futures)

    def answers(self, timeout_s=300):
        found = [future.result(timeout_s) for future in self._futures]
        self._pool.shutdown()
        return found


def in_flight(gateway):
    return int(gateway.metric("sluice_in_flight_events"))


def event(name, **fields):
    return {"event_id": name, "account_id": "acc_1", **fields}


def outcome(gateway, name, source="payments"):
    return int(gateway.metric("sluice_events_total", source=source, outcome=name))


def copies(scene, topic=None):
    """{event id: how many records} of a topic, when nothing is pending."""
    scene.gateway.wait_drained()
    found = {}
    for record in scene.records(topic or scene.sources["payments"]["topic"]):
        found[record.event_id] = found.get(record.event_id, 0) + 1
    return found


def finish(scene):
    """Sums, and an orderly end."""
    scene.kafka.revive()
    scene.gateway.wait_drained()
    scene.gateway.check_sums()
    scene.gateway.stop()


def wait_complete(gateway):
    """The rebuild has ended; with level kafka /readyz may still be 503."""
    def complete():
        gateway.check_alive()
        try:
            return json.loads(gateway.admin("/status")[1])["dedupe"]["complete"]
        except OSError:
            return False
    until(complete, "the dedupe window is not rebuilt", pause_s=0.01)


def status(gateway):
    return json.loads(gateway.admin("/status")[1])["dedupe"]
