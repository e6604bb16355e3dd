#!/usr/bin/env python3
"""Sample payment events, and a sender for them: NDJSON over HTTP/1.1, resent while the answer is 429 or 503.

    scripts/sample.py --to http://127.0.0.1:8080/v1/events/payments --events 1000 [--duplicates 50] [--seed N]

Python's standard library only: ./quickstart must run where nothing but a shell and apt was.
"""
import argparse
import http.client
import json
import random
import sys
import time
import urllib.parse
import uuid
from dataclasses import dataclass

BATCH = 100
ACCOUNTS = 500
GIVE_UP_SECONDS = 60
MERCHANTS = ("Corner Bakery", "Harbour Books", "Café Müller", "Northwind Grocers", "Vélo & Co", "寿司 Kenji")


def payment(rng, at):
    """One payment, as the bytes that are sent. Several per account, so that order within a key means something."""
    return json.dumps({
        "event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "event_ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
        "type": "payment.authorised",
        "account_id": f"acct-{rng.randrange(ACCOUNTS):05}",
        "card_id": f"card-{rng.randrange(10**9):09}",
        "amount": f"{rng.randrange(100, 50000) / 100:.2f}",
        "currency": rng.choice(("EUR", "USD", "JPY", "PLN")),
        "merchant": {"name": rng.choice(MERCHANTS), "mcc": rng.randrange(1000, 9999),
                     "country": rng.choice(("DE", "US", "JP", "PL"))},
        "channel": rng.choice(("pos", "ecommerce", "atm", "wallet")),
        "risk": {"score": rng.randrange(1000), "rules": rng.sample(range(100), 3)},
        "reference": f"{rng.getrandbits(160):040x}",
    }, ensure_ascii=False, separators=(",", ":")).encode()


def batches(events, duplicates=0, seed=None, batch=BATCH):
    """Lists of payments, `events` in all, of which `duplicates` repeat an earlier one byte for byte."""
    if duplicates >= events > 0:
        raise ValueError("more duplicates than events")
    rng = random.Random(seed)
    repeats = set(rng.sample(range(1, events), duplicates))
    seen = []
    current = []
    for index in range(events):
        one = rng.choice(seen) if index in repeats else payment(rng, time.time())
        if index not in repeats and repeats:
            seen.append(one)
        current.append(one)
        if len(current) == batch:
            yield current
            current = []
    if current:
        yield current


def event_id(event):
    return json.loads(event)["event_id"]


class SendError(Exception):
    """An answer that is no success and is not worth repeating, or none at all."""


@dataclass
class Totals:
    sent: int = 0
    accepted: int = 0
    duplicates: int = 0


class Sender:
    """One connection to one source's URL."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.path = parts.path
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=GIVE_UP_SECONDS)
        self.totals = Totals()

    def close(self):
        self.connection.close()

    def send(self, events):
        """Sends one batch until it is acknowledged. Raises SendError, OSError or http.client.HTTPException."""
        body = b"\n".join(events) + b"\n"
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while True:
            self.connection.request("POST", self.path, body, {"Content-Type": "application/x-ndjson"})
            response = self.connection.getresponse()
            answer = response.read()
            if response.status == 200:
                break
            # A refusal that is worth repeating says when. The ids are the same, so the events stay the same ones.
            if response.status not in (429, 503) or time.monotonic() > give_up:
                raise SendError(f"answer {response.status}: {answer.decode('utf-8', 'replace')}")
            time.sleep(min(float(response.headers.get("Retry-After", "1")), 5))
        counts = json.loads(answer)
        self.totals.sent += len(events)
        self.totals.accepted += counts["accepted"]
        self.totals.duplicates += counts["duplicates"]


def main():
    parser = argparse.ArgumentParser(description="Sends sample payment events.")
    parser.add_argument("--to", required=True, metavar="URL", help="http://host:port/v1/events/SOURCE")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--duplicates", type=int, default=0, help="how many of them repeat an earlier one")
    parser.add_argument("--seed", type=int, help="the same seed gives the same events, but for their times")
    arguments = parser.parse_args()
    sender = Sender(arguments.to)
    for batch in batches(arguments.events, arguments.duplicates, arguments.seed):
        sender.send(batch)
    totals = sender.totals
    print(f"sent {totals.sent} accepted {totals.accepted} duplicates {totals.duplicates}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SendError, OSError, http.client.HTTPException) as error:
        sys.exit(f"sample: {error}")
