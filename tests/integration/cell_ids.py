"""What a client sends again to another zone."""

import itertools
import random

from tests.integration.dedupe_tools import event, post
from tests.lib.report import expect, note
from tests.lib.waiting import until


def resend(stand):
    """Everything again to each other zone right after its acknowledgement, later, and after a death: no new record."""
    rounds = 60 if stand.long else 15
    with stand.cell("resend", config={"ha": {"ack_timeout": "60s"}}) as cell:
        cell.start()
        known, unknown, chance = [], 0, random.Random(1)
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
        for node in cell.nodes:
            _all_known(node, known, "later")
        _after_a_death(cell, known)
        _in_one_record_each(cell, known, unknown)
        expect(unknown == 0, f"{unknown} events, sent again to another zone after the acknowledgement, were new there")


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
