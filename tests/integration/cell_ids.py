"""What a client sends again to another zone."""

import itertools
import random

from tests.integration.dedupe_tools import Crowd, event, post
from tests.lib.report import expect, note
from tests.lib.waiting import until


# Waits of the product that are no part of what is asked here: only a peer's word ends them.
PATIENT = {"ha": {"ack_timeout": "60s", "peer_wait": "50s", "takeover_after": "10s"}}


def resend(stand):
    """Everything again to each other zone right after its acknowledgement, later, and after a death: no new record."""
    rounds = 60 if stand.long else 15
    with stand.cell("resend", config=PATIENT) as cell:
        cell.start()
        known, unknown, chance = [], 0, random.Random(1)
        for node in cell.nodes:
            cell.cut_kafka(node)  # a commit would be an answer as well
        for turn in range(rounds):
            first, *rest = chance.sample(cell.nodes, 3)
            batch = [event(f"r-{turn}-{i}", account_id=f"acc_{i % 7}", pad="x" * 300) for i in range(100)]
            expect(_counts(first, batch) == (100, 0), "new events are not accepted")
            for node in rest:
                counts = _counts(node, batch)
                expect(sum(counts) == 100, f"{counts}")
                unknown += counts[0]
            known.append(batch)
        note(f"{rounds * 100} events sent again to both others right after the acknowledgement: {unknown} of "
             f"{rounds * 200} were not known")
        known.append(_to_the_slower_peer(cell))
        cell.heal()
        for node in cell.nodes:
            _all_known(node, known, "later")
        _after_a_death(cell, known)
        _in_one_record_each(cell, known, unknown)
        expect(unknown == 0, f"{unknown} events, sent again to another zone after the acknowledgement, were new there")


def _to_the_slower_peer(cell):
    """One peer has them and the other does not: there is no answer. When there is one, that other knows them."""
    batch = [event(f"s-{i}") for i in range(100)]
    had = cell.a.held(cell.a.stream())
    cell.cut(cell.a, cell.c)
    waiting = Crowd(cell.a, "payments", [batch])
    until(lambda: cell.a.held(cell.a.stream()).get(cell.b.name, 0) >= had[cell.a.name] + 100,
          lambda: f"{cell.b.name} does not get them: {cell.a.held(cell.a.stream())}")
    expect(waiting.answered() == 0, f"answered before {cell.c.name} had them, which kept up until then")
    cell.cut(cell.a, cell.c, False, False)
    expect([answer.counts()[:2] for answer in waiting.answers()] == [(100, 0)], "new events are not accepted")
    _expect_known(cell.c, batch, "after the answer that waited for it")
    return batch


def _counts(node, batch):
    answer = post(node, "payments", batch)
    return answer.counts()[:2] if answer.status == 200 else answer


def _expect_known(node, batch, when):
    counts = _counts(node, batch)
    expect(counts == (0, len(batch)), f"sent to {node.name} {when}: (accepted, duplicates) {counts} of {len(batch)}")


def _all_known(node, batches, when):
    for batch in batches:
        _expect_known(node, batch, when)


def _after_a_death(cell, known):
    """The node that took it dies with its disk: the others know it, and so does it when it is back."""
    batch = [event(f"d-{i}") for i in range(100)]
    expect(_counts(cell.a, batch) == (100, 0), "new events are not accepted")
    cell.a.kill()
    cell.a.wipe()
    known.append(batch)
    for node in cell.nodes[1:]:
        until(lambda: _counts(node, batch) == (0, 100), lambda: f"{node.name} says {_counts(node, batch)}", pause_s=0.2)
    cell.start(cell.a)
    until(cell.is_whole, "it does not come back")
    _all_known(cell.a, known, "after it came back with an empty disk")


def _in_one_record_each(cell, known, twice):
    cell.wait_drained()
    ids = set(itertools.chain.from_iterable((each["event_id"] for each in batch) for batch in known))
    found = [record.event_id for record in cell.records()]
    expect(len(found) == len(set(found)) + twice, f"{len(found) - len(set(found)) - twice} records too many")
    expect(set(found) == ids, f"{len(ids - set(found))} lost")
    for node in cell.nodes:
        node.check_sums()
    cell.stop()


SCENARIOS = {"resend": resend}
