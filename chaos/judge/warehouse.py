"""The warehouse against Kafka: raw must hold every record, byte for byte, once; curated every event id, once.

Rows come from PostgreSQL through psycopg2, or as tuples from a test. Only the records that are judged count: rows of
other topics or of earlier runs are left out.
"""

import re
import tempfile
import zlib
from collections import Counter, defaultdict

from chaos.judge.service import quantile

SAMPLES = 10
RAW = """COPY (SELECT __connect_topic, __connect_partition, __connect_offset, received_ms,
                      (extract(epoch FROM loaded_at) * 1000)::bigint, encode(event, 'hex')
               FROM raw.events WHERE __connect_topic = ANY (%s)) TO STDOUT"""
CURATED = """COPY (SELECT event_id, (extract(epoch FROM received) * 1000)::bigint,
                          (extract(epoch FROM merged_at) * 1000)::bigint
                   FROM curated.events WHERE topic = ANY (%s)) TO STDOUT"""
QUARANTINE = """COPY (SELECT coalesce(event_id, ''), reason FROM curated.quarantine WHERE topic = ANY (%s)) TO STDOUT"""
_ID = re.compile(rb'^\{"event_id":"([^"\\]*)"')
_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{8})"')


def checksum_fits(event):
    """Whether an event of sluice-sender carries its own CRC-32; None when it carries none."""
    found = _CHECKSUM.search(event)
    if not found:
        return None
    start, end = found.span(1)
    return f"{zlib.crc32(event[:start] + b'00000000' + event[end:]):08x}".encode() == found[1]


class Findings:
    def __init__(self):
        self.counts, self.samples = Counter(), defaultdict(list)

    def add(self, what, sample):
        self.counts[what] += 1
        if len(self.samples[what]) < SAMPLES:
            self.samples[what].append(sample)

    def as_json(self, *names):
        return {**{name: self.counts[name] for name in names},
                "samples": {name: found for name, found in self.samples.items() if found}}


def _quantiles(delays_ms):
    ordered = sorted(delays_ms)
    named = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99, "max_s": 1}
    return {name: None if not ordered else quantile(ordered, q) / 1000 for name, q in named.items()}


def judge_raw(rows, records, others=()):
    """`rows`: (topic, partition, offset, received_ms, loaded_ms, bytes). `records`: those of Kafka that are judged;
    `others`: those that are not. Returns (verdict, [(received_ms, delay_ms)])."""
    wanted = {(each.topic, each.partition, each.offset): each for each in records}
    known = {(each.topic, each.partition, each.offset) for each in others}
    seen, findings, delays, count = set(), Findings(), [], 0
    for topic, partition, offset, received_ms, loaded_ms, event in rows:
        place = (topic, partition, offset)
        if place not in wanted:
            if place not in known:
                findings.add("phantom", f"{topic}[{partition}]@{offset} is not in Kafka")
            continue
        count += 1
        if place in seen:
            findings.add("doubled", f"{topic}[{partition}]@{offset}")
            continue
        seen.add(place)
        found = _ID.match(event or b"")
        if not found or found[1].decode() != wanted[place].event_id or checksum_fits(event) is not True:
            findings.add("corrupt", f"{topic}[{partition}]@{offset} {wanted[place].event_id}")
        delays.append((received_ms, loaded_ms - received_ms))
    for place in wanted.keys() - seen:
        findings.add("missing", f"{place[0]}[{place[1]}]@{place[2]} {wanted[place].event_id}")
    return {"rows": count, **findings.as_json("missing", "doubled", "phantom", "corrupt"),
            "freshness": _quantiles(delay for _, delay in delays)}, delays


def judge_curated(rows, quarantined, records, ours):
    """`rows`: (event_id, received_ms, merged_ms); `quarantined`: (event_id, reason); `ours(event_id)`: is it of the
    runs that are judged. Every id in Kafka must be there once, in curated or, when it was put aside, in quarantine.
    Returns (verdict, [(received_ms, delay_ms)])."""
    wanted, seen, findings, delays, count = {each.event_id for each in records}, set(), Findings(), [], 0
    aside = {event_id: reason for event_id, reason in quarantined if ours(event_id)}
    for event_id, received_ms, merged_ms in rows:
        if not ours(event_id):
            continue
        count += 1
        if event_id in seen:
            findings.add("doubled", event_id)
            continue
        seen.add(event_id)
        if event_id not in wanted:
            findings.add("phantom", f"{event_id} is not in Kafka")
        delays.append((received_ms, merged_ms - received_ms))
    for event_id in wanted - seen:
        reason = aside.get(event_id)
        findings.add("quarantined" if reason else "missing", f"{event_id} {reason}" if reason else event_id)
    return {"rows": count, **findings.as_json("missing", "doubled", "phantom", "quarantined"),
            "freshness": _quantiles(delay for _, delay in delays)}, delays


def by_second(delays, start_wall_ms):
    """[[t, p95 in s]] of the events received in each second from start_wall_ms."""
    rows = defaultdict(list)
    for received_ms, delay_ms in delays:
        if received_ms >= start_wall_ms:
            rows[int(received_ms - start_wall_ms) // 1000].append(delay_ms)
    return [[second, quantile(sorted(found), 0.95) / 1000] for second, found in sorted(rows.items())]


def _copy(cursor, statement, topics):
    """Rows of text. Through a temporary file: psycopg2 pushes, the judge pulls."""
    with tempfile.TemporaryFile() as out:
        cursor.copy_expert(cursor.mogrify(statement, (topics,)), out)
        out.seek(0)
        for line in out:
            yield line.rstrip(b"\n").split(b"\t")


def _raw_rows(cursor, topics):
    for topic, partition, offset, received, loaded, event in _copy(cursor, RAW, topics):
        yield (topic.decode(), int(partition), int(offset), -1 if received == b"\\N" else int(received), int(loaded),
               None if event == b"\\N" else bytes.fromhex(event.decode()))


def judge(dsn, topics, records, others, ours, start_wall_ms):
    """`others`, `ours`: as above. {"raw", "curated", "freshness", "raw_freshness"} from the database."""
    import psycopg2
    connection = psycopg2.connect(dsn, application_name="sluice-judge")
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            raw, raw_delays = judge_raw(_raw_rows(cursor, topics), records, others)
            quarantined = [(event_id.decode(), reason.decode())
                           for event_id, reason in _copy(cursor, QUARANTINE, topics)]
            rows = ((event_id.decode(), int(received), int(merged))
                    for event_id, received, merged in _copy(cursor, CURATED, topics))
            curated, curated_delays = judge_curated(rows, quarantined, records, ours)
    finally:
        connection.close()
    return {"raw": raw, "curated": curated, "freshness": by_second(curated_delays, start_wall_ms),
            "raw_freshness": by_second(raw_delays, start_wall_ms)}
