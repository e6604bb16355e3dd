"""What is the same, what is a conflict, and what is answered."""

import uuid

from tests.history.records import header
from tests.integration.dedupe_tools import WINDOW, copies, event, finish, outcome, post
from tests.lib.report import expect


def sameness(stand):
    """UUIDs in any case; whitespace does not count, the form of a number does; ids belong to their source."""
    sources = {"payments": {}, "orders": {}, "joined": {"event_id": ["/tenant", "/id"]},
               "headers": {"event_id": '"header:x-id"'}}
    with stand.scene("sameness", sources=sources, config={"dedupe": WINDOW}) as scene:
        gateway = scene.gateway.start()
        name = str(uuid.uuid4())

        def counts(source, body, headers=None):
            return post(gateway, source, body, headers).counts()

        def conflicts(source, body):
            return post(gateway, source, body).status == 409

        first = f'{{"event_id":"{name}","account_id":"a","n":1}}'.encode()
        upper = first.replace(name.encode(), name.upper().encode())
        expect(counts("payments", first) == (1, 0, 0), "the first is not accepted")
        answer = post(gateway, "payments", first)
        expect(answer.counts() == (0, 1, 0), "the same bytes are not a duplicate")
        expect(answer.body["first_seq"] is None and answer.body["last_seq"] is None, f"{answer}")
        expect(counts("payments", b' { "event_id" : "%s",\t"account_id":"a", "n":1 }\n' % name.encode()) == (0, 1, 0),
               "whitespace counts")
        # Same id, and the id's own text is a part of the payload.
        expect(conflicts("payments", upper), "a UUID in upper case is another id")
        expect(conflicts("payments", first.replace(b'"n":1', b'"n":1.0')), "1 and 1.0 are the same")
        expect(conflicts("payments", first.replace(b'"a"', b'"a "')), "whitespace in a string does not count")
        expect(counts("orders", first) == (1, 0, 0), "an id is known beyond its source")

        expect(counts("joined", {"tenant": "a", "id": "b/c"}) == (1, 0, 0), "joined")
        expect(counts("joined", {"tenant": "a/b", "id": "c"}) == (1, 0, 0), "two tuples give one id")
        expect(counts("joined", {"tenant": "a", "id": "b/c"}) == (0, 1, 0), "joined, again")
        expect(counts("joined", {"tenant": "t", "id": name}) == (1, 0, 0), "joined with a UUID")
        expect(conflicts("joined", {"tenant": "t", "id": name.upper()}), "a UUID's case counts in a joined id")

        lower, higher = {"x-id": name}, {"x-id": name.upper()}
        expect(counts("headers", {"a": 1}, lower) == (1, 0, 0), "id from a header")
        expect(counts("headers", {"a": 1}, higher) == (0, 1, 0), "the case of a UUID in a header counts")
        expect(counts("headers", [{"a": 1}, {"a": 1}], lower) == (2, 0, 0), "a batch's ids are its indices")
        expect(counts("headers", [{"a": 1}, {"a": 1}], higher) == (0, 2, 0), "a batch again, in upper case")
        expect(outcome(gateway, "conflict") == 3, f"{outcome(gateway, 'conflict')} conflicts of payments are counted")
        expect(copies(scene) == {name: 1}, f"{copies(scene)}")
        finish(scene)


def conflicts(stand):
    """on_conflict: reject refuses the whole request; quarantine stores the conflict once, in the dead-letter topic."""
    sources = {"payments": {}, "open": {"on_conflict": "quarantine"}}
    with stand.scene("conflicts", sources=sources, config={"dedupe": WINDOW}) as scene:
        gateway = scene.gateway.start()
        expect(post(gateway, "payments", event("a", n=1)).counts() == (1, 0, 0), "the first is not accepted")
        answer = post(gateway, "payments", [event("b"), event("a", n=1), event("a", n=2), event("c")])
        expect(answer.status == 409, f"{answer}")
        expect(answer.headers["content-type"] == "application/problem+json", f"{answer.headers}")
        error = answer.body["errors"][0]
        expect(error["index"] == 2 and error["pointer"] == "/event_id", f"{answer}")
        expect(outcome(gateway, "conflict") == 4, "not all events of a refused request are counted as conflict")
        # Nothing of it was stored or is remembered.
        counts = post(gateway, "payments", [event("b", other=True), event("c")]).counts()
        expect(counts == (2, 0, 0), f"b or c is known: {counts}")

        expect(post(gateway, "open", event("a", n=1)).counts() == (1, 0, 0), "open: the first is not accepted")
        answer = post(gateway, "open", [event("b"), event("a", n=2), event("a", n=1), event("c")])
        expect(answer.counts() == (2, 1, 1), f"{answer}")
        expect(answer.body["last_seq"] - answer.body["first_seq"] == 2, f"{answer}")
        expect(post(gateway, "open", event("a", n=2)).counts() == (0, 1, 0), "the same conflict again is stored")
        expect(post(gateway, "open", event("a", n=3)).counts() == (0, 0, 1), "another payload is not stored")
        gateway.kill()
        gateway.start()
        expect(post(gateway, "open", event("a", n=2)).counts() == (0, 1, 0), "after a restart the conflict is new")
        expect(post(gateway, "open", event("a", n=4)).counts() == (0, 0, 1), "after a restart a conflict is none")
        expect(post(gateway, "payments", event("a", n=2)).status == 409, "after a restart a conflict is accepted")
        expect(copies(scene) == {"a": 1, "b": 1, "c": 1}, f"{copies(scene)}")
        expect(copies(scene, sources["open"]["topic"]) == {"a": 1, "b": 1, "c": 1}, "open's topic")
        dead = scene.records(f"{sources['open']['topic']}.dlq")
        expect(len(dead) == 3 and all(each.event_id == "a" for each in dead), f"{len(dead)} dead letters")
        expect(all(b"payload" in header(each, "sluice-error") for each in dead), "a dead letter does not say why")
        finish(scene)


def within_request(stand):
    """Duplicates and conflicts among the events of one request."""
    sources = {"payments": {}, "open": {"on_conflict": "quarantine"}}
    with stand.scene("within", sources=sources, config={"dedupe": WINDOW}) as scene:
        gateway = scene.gateway.start()
        answer = post(gateway, "payments", [event("a"), event("b"), event("a"), event("a"), event("c")])
        expect(answer.counts() == (3, 2, 0), f"{answer}")
        expect(answer.body["last_seq"] - answer.body["first_seq"] == 2, f"{answer}")
        answer = post(gateway, "payments", [event("d"), event("d", n=2)])
        expect(answer.status == 409 and answer.body["errors"][0]["index"] == 1, f"{answer}")
        expect(post(gateway, "payments", [event("d", n=2)]).counts() == (1, 0, 0), "a refused request is remembered")
        answer = post(gateway, "open", [event("a"), event("a", n=2), event("a", n=2), event("a")])
        expect(answer.counts() == (1, 2, 1), f"{answer}")
        many = [event(f"many-{i % 5000}") for i in range(10000)]
        expect(post(gateway, "payments", many).counts() == (5000, 5000, 0), "a large request")
        expect(post(gateway, "payments", many).counts() == (0, 10000, 0), "a large request again")
        found = copies(scene)
        expect(len(found) == 5004 and set(found.values()) == {1}, f"{len(found)} ids in Kafka")
        finish(scene)


def business_keys(stand):
    """The same business fields under another id: flagged, quarantined, dropped; also after a restart."""
    def key(action):
        return {"business_key": {"fields": ["/account_id", "/amount", "/deep/x"], "on_duplicate": action}}

    sources = {action: key(action) for action in ("flag", "quarantine", "drop")}
    with stand.scene("business", sources=sources, config={"dedupe": WINDOW}) as scene:
        gateway = scene.gateway.start()
        expected = {"flag": (1, 0, 0), "quarantine": (0, 0, 1), "drop": (0, 1, 0)}
        for source, second in expected.items():
            def counts(*events, source=source):
                return post(gateway, source, list(events)).counts()

            expect(counts(event("1", amount=5)) == (1, 0, 0), f"{source}: the first")
            expect(counts(event("1", amount=5)) == (0, 1, 0), f"{source}: the same id and fields")
            expect(counts(event("2", amount=5, more="x")) == second, f"{source}: another id")
            expect(counts(event("3", amount=5.0)) == (1, 0, 0), f"{source}: 5.0 is 5")
            expect(counts(event("4", amount=5, deep={"x": None})) == (1, 0, 0), f"{source}: null is missing")
            expect(counts(event("5", amount="5")) == (1, 0, 0), f"{source}: a string is a number")
            within = counts(event("6", amount=6), event("7", amount=6))
            expect(within == tuple(a + b for a, b in zip((1, 0, 0), second)), f"{source}: within one request: {within}")
            # No value of its own in one field, or none of the fields at all: no business key.
            expect(counts(event("8", amount=[1]), event("9", amount=[1])) == (2, 0, 0), f"{source}: an array")
            for name in ("10", "11"):
                expect(post(gateway, source, {"event_id": name}).counts() == (1, 0, 0), f"{source}: no fields")
            found = int(gateway.metric("sluice_business_duplicates_total", source=source))
            expect(found == 2, f"{source}: {found} business duplicates are counted")
        gateway.kill()
        gateway.start()
        for source, second in expected.items():
            expect(post(gateway, source, event("12", amount=5)).counts() == second, f"{source}: after a restart")
        gateway.wait_drained()
        _check_business_records(scene, sources)
        finish(scene)


def _check_business_records(scene, sources):
    found = scene.records(sources["flag"]["topic"])
    flags = {each.event_id: header(each, "sluice-business-duplicate") for each in found}
    flagged = {name for name, value in flags.items() if value == b"true"}
    expect(flagged == {"2", "7", "12"} and len(flags) == 12, f"flagged: {flagged} of {len(flags)}")
    for source in ("quarantine", "drop"):
        found = set(copies(scene, sources[source]["topic"]))
        expect(not found & {"2", "7", "12"} and len(found) == 9, f"{source}: {sorted(found)}")
    dead = {each.event_id for each in scene.records(f"{sources['quarantine']['topic']}.dlq")}
    expect(dead == {"2", "7", "12"}, f"dead letters: {dead}")
