"""Streams of payment events with everything that goes wrong in them, from a seed."""

import datetime
import json
import random

from tests.warehouse.model import Record

START = datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc)
DAMAGED = (b"{", b"", b"\xff\xfe", b"[1,2]", b"7", b'{"amount":1}', b'{"event_id":""}',
           b'{"event_id":"x1","amount":"1,5"}',
           b'{"event_id":"x2","event_ts":"yesterday"}', b'{"event_id":"x3","type":"AUTH","account_id":"a"}',
           b'{"event_id":"x4","type":"AUTH","amount":3}',
           b'{"event_id":"x5","type":"REFUND","account_id":"a","amount":3}')


class Stream:
    def __init__(self, seed, topic, events=60):
        self.rng = random.Random(seed)
        self.topic, self.offsets, self.now_ms = topic, [0, 0, 0], 1_772_000_000_000
        self.records = []
        documents = []
        while len(documents) < events:
            documents += self._payment(len(documents))
        self.rng.shuffle(documents)  # refunds come before their payments as well as after
        for document in documents:
            self._send(document)
            self._trouble(document)

    def _payment(self, number):
        rng = self.rng
        at = START + datetime.timedelta(seconds=rng.randrange(10**6))
        base = {"account_id": f"a{rng.randrange(5)}", "card_id": f"c{rng.randrange(3)}", "currency": "EUR"}
        payment = {"event_id": f"p{number}", rng.choice(("type", "event_type")): "AUTH", **base,
                   "amount": rng.choice((rng.randrange(1, 500), f"{rng.randrange(100, 9999) / 100:.2f}")),
                   "event_ts": at.isoformat()}
        if rng.random() < 0.5:
            payment["payment_id"] = f"pay{number}"
        yield payment
        reference = payment.get("payment_id", payment["event_id"])
        for step in range(rng.choice((0, 0, 1, 2))):
            kind = rng.choice(("REFUND", "CHARGEBACK", "CAPTURE"))
            # Without a card there is no business key: nothing else leads from such a refund to its payment.
            money = {"event_id": f"p{number}-{step}", "type": kind, **base, "payment_id": reference,
                     "card_id": rng.choice((base["card_id"], base["card_id"], None)),
                     "amount": rng.randrange(-50, 50), "event_ts": (at + datetime.timedelta(days=step)).isoformat()}
            yield money
            if rng.random() < 0.3:
                yield {**money, "event_id": f"p{number}-{step}-again"}
        if rng.random() < 0.15:  # the same business key under another id
            yield {**payment, "event_id": f"p{number}-again"}
        if rng.random() < 0.1:  # the same card, amount and time on another account is no duplicate
            yield {**payment, "event_id": f"p{number}-other", "account_id": "b", "payment_id": f"p{number}-other"}
        if rng.random() < 0.1:  # a refund whose payment never comes
            yield {"event_id": f"p{number}-lost", "type": "REFUND", **base, "payment_id": "nowhere", "amount": 1}

    def _add(self, value, header_id=None, error=None):
        part = self.rng.randrange(len(self.offsets))
        self.offsets[part] += self.rng.choice((1, 1, 1, 2))  # a transaction's marker takes an offset
        self.now_ms += self.rng.choice((0, 0, 1, 40))  # equal times: the place decides
        self.records.append(Record((self.topic, part, self.offsets[part]), value, self.now_ms, header_id, error))

    def _send(self, document, **json_options):
        header = document["event_id"].encode() if self.rng.random() < 0.5 else None
        self._add(json.dumps(document, **json_options).encode(), header)

    def _trouble(self, document):
        chance = self.rng.random()
        if chance < 0.10:
            self._send(document, indent=1)
        elif chance < 0.15:
            self._send(dict(reversed(document.items())))
        elif chance < 0.22:
            self._send({**document, "amount": 777})  # a known id, other content
        elif chance < 0.30:
            self._add(self.rng.choice(DAMAGED))
        elif chance < 0.33:
            self._add(b'{"event_id":"r"}', error=b"schema")
