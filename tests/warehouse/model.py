"""What curated must say about a set of raw records, computed the plain way: all at once, in Python, from scratch."""

import datetime
import decimal
import json

KINDS = {"auth": "payment", "payment.authorised": "payment", "refund": "refund", "chargeback": "chargeback",
         "capture": "other"}


class Record:
    """One raw record. `place`: (topic, part, off)."""

    def __init__(self, place, value, received_ms, header_id=None, error=None):
        self.place, self.value, self.received_ms = place, value, received_ms
        self.header_id, self.error = header_id, error
        self.order = (received_ms, *place)
        self.reason = self._read()

    def _read(self):
        try:
            self.doc = json.loads(self.value.decode(), parse_float=decimal.Decimal)
        except UnicodeDecodeError:
            self.doc = None
            return "not-utf8"
        except ValueError:
            self.doc = None
            return "not-json"
        if not isinstance(self.doc, dict):
            self.doc = None
            return "not-an-object"
        self.event_id = (self.header_id.decode() if self.header_id else None) or self.doc.get("event_id")
        self.kind = KINDS.get(str(self.doc.get("type", self.doc.get("event_type"))).lower(), "other")
        self.account, self.card = self.doc.get("account_id"), self.doc.get("card_id")
        self.payment_id = self.doc.get("payment_id") or (self.event_id if self.kind == "payment" else None)
        if self.error:
            return "gateway: " + self.error.decode()
        if not self.event_id:
            return "no-event-id"
        return self._read_money()

    def _read_money(self):
        self.amount = self.at = None
        if self.doc.get("amount") is not None:
            try:
                self.amount = decimal.Decimal(self.doc["amount"])
            except decimal.InvalidOperation:
                return "bad-amount"
        if self.doc.get("event_ts") is not None:
            try:
                self.at = datetime.datetime.fromisoformat(self.doc["event_ts"].replace("Z", "+00:00"))
            except ValueError:
                return "bad-event-ts"
        if self.kind != "other" and self.amount is None:
            return "no-amount"
        if self.kind != "other" and self.account is None:
            return "no-account-id"
        if self.kind in ("refund", "chargeback") and self.payment_id is None:
            return "no-payment-id"
        return None

    @property
    def business_key(self):
        parts = (self.kind, self.account, self.card, self.amount, self.at)
        return None if None in parts else parts


def curated(records):
    """{"events", "duplicates", "quarantine", "payments"}: dicts, as sql.py reads them from the tables."""
    events, duplicates, quarantine = {}, {}, {}
    for record in sorted(records, key=lambda each: each.order):
        if record.reason:
            quarantine[record.place] = record.reason
        elif record.event_id not in events:
            events[record.event_id] = record
        elif events[record.event_id].doc == record.doc:
            duplicates[record.place] = record.event_id
        else:
            quarantine[record.place] = "id-conflict"
    first_of = {}
    for record in sorted(events.values(), key=lambda each: each.order):
        if record.business_key:
            first_of.setdefault(record.business_key, record.event_id)
    flag = {event_id: None if first_of.get(record.business_key, event_id) == event_id else first_of[record.business_key]
            for event_id, record in events.items()}
    return {
        "events": {event_id: (record.place, record.kind, record.amount, flag[event_id])
                   for event_id, record in events.items()},
        "duplicates": duplicates, "quarantine": quarantine, "payments": _payments(events, flag),
    }


def _payments(events, flag):
    found = {}
    for event_id, record in sorted(events.items(), key=lambda each: each[1].order):
        if record.kind == "payment" and record.payment_id not in found:
            moves = [other for other_id, other in events.items() if flag[other_id] is None
                     and other.kind in ("refund", "chargeback") and other.payment_id == record.payment_id]
            refunds = [abs(each.amount) for each in moves if each.kind == "refund"]
            backs = [abs(each.amount) for each in moves if each.kind == "chargeback"]
            state = ("charged-back" if sum(backs) > 0 else "paid" if not refunds else
                     "refunded" if sum(refunds) >= record.amount else "partly-refunded")
            net = record.amount - sum(refunds) - sum(backs)
            found[record.payment_id] = (event_id, record.amount, flag[event_id], len(refunds), len(backs), net, state)
    return found
