"""Runs the checks of sql/60-checks.sql: looks at what lies outside of the database, then asks it for the report."""

import json
import re
import urllib.request

from psycopg2.extras import execute_values

from warehouse import kafka

_SAMPLE = re.compile(r'^(\w+)(?:\{(.*)\})? ([0-9.eE+-]+)$')
_ROWS = 5000


def _samples(url, timeout_s):
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        for line in answer.read().decode().splitlines():
            if match := _SAMPLE.match(line):
                yield match.group(1), match.group(2) or "", float(match.group(3))


def gateway_counts(urls, timeout_s=5):
    """{accepted, pending} over all gateways: what they took for Kafka, and what is still on its way there."""
    accepted = pending = 0
    for url in urls:
        for name, labels, value in _samples(url, timeout_s):
            if name == "sluice_events_total" and re.search(r'outcome="(accepted|quarantined)"', labels):
                accepted += value
            elif name == "sluice_spool_pending_events":
                pending += value
    return {"accepted": accepted, "pending": pending}


def note_gateways(cursor, urls):
    cursor.execute("DELETE FROM quality.gateway_counts")
    if urls:
        try:
            counts = gateway_counts(urls)
        except (OSError, ValueError) as error:
            return f"gateways: {error}"
        execute_values(cursor, "INSERT INTO quality.gateway_counts VALUES %s", list(counts.items()))
    return None


def note_kafka(cursor, bootstrap, topics, times_ms=(None, None)):
    cursor.execute("DELETE FROM quality.kafka_ranges; DELETE FROM quality.kafka_records")
    if not bootstrap:
        return None
    try:
        wanted, rows = kafka.ranges(bootstrap, topics, times_ms=times_ms), []
        insert = "INSERT INTO quality.kafka_records VALUES %s"
        for message in kafka.read(bootstrap, wanted):
            rows.append((message.topic(), message.partition(), message.offset(), message.timestamp()[1]))
            if len(rows) >= _ROWS:
                execute_values(cursor, insert, rows, page_size=_ROWS)
                rows.clear()
        if rows:
            execute_values(cursor, insert, rows, page_size=_ROWS)
    except kafka.KafkaUnavailable as error:
        return f"kafka: {error}"
    execute_values(cursor, "INSERT INTO quality.kafka_ranges VALUES %s",
                   [(each.topic, each.part, each.first, each.until, each.records, each.whole) for each in wanted])
    return None


def run(connection, bootstrap=None, topics=(), metrics_urls=(), times_ms=(None, None)):
    """(passed, rows, notes): the report of this run, which is also kept in quality.runs."""
    with connection.cursor() as cursor:
        # The time of the database: events that are merged while the checks run have not been checked.
        cursor.execute("SELECT clock_timestamp()")
        started = cursor.fetchone()[0]
        notes = [note_gateways(cursor, metrics_urls), note_kafka(cursor, bootstrap, topics, times_ms)]
        cursor.execute("SELECT check_name, state, mode, value, limit_is, unit, shut, detail, about FROM quality.report "
                       "ORDER BY check_name")
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor.fetchall()]
        for row in rows:
            row["value"] = None if row["value"] is None else float(row["value"])
            row["limit_is"] = float(row["limit_is"])
        passed = not any(row["shut"] for row in rows)
        cursor.execute("INSERT INTO quality.runs VALUES (%s, %s, %s)", (started, passed, json.dumps(rows)))
    return passed, rows, [note for note in notes if note]


def table(rows):
    """The report for people, worst first within a gate."""
    order = {"fail": 0, "unknown": 1, "ok": 2}
    lines = [f"{'check':<24} {'gate':<7} {'state':<8} {'value':>10} {'limit':>7} unit      detail"]
    for row in sorted(rows, key=lambda each: (not each["shut"], order[each["state"]], each["check_name"])):
        value = "-" if row["value"] is None else f"{row['value']:g}"
        lines.append(f"{row['check_name']:<24} {row['mode']:<7} {row['state']:<8} {value:>10} {row['limit_is']:>7g} "
                     f"{row['unit']:<9} {row['detail'][:100]}".rstrip())
    return "\n".join(lines)
