"""Backfill: a range of Kafka into raw once more, beside the live path. What is there already stays untouched."""

from psycopg2 import Binary
from psycopg2.extras import execute_values

from warehouse import kafka

_ROWS = 2000
_INSERT = """INSERT INTO raw.events (__connect_topic, __connect_partition, __connect_offset, event, received_ms,
                                     sluice_stream, sluice_seq, event_id, sluice_error)
             VALUES %s ON CONFLICT DO NOTHING"""
HEADERS = ("sluice-stream", "sluice-seq", "event_id", "sluice-error")


def _bytes(value):
    return None if value is None else Binary(value)


def row_of(message):
    """A row of raw.events from a message: the same that the sink makes of it."""
    kind, at = message.timestamp()
    return (message.topic(), message.partition(), message.offset(), _bytes(message.value()), at if kind else None,
            *(_bytes(kafka.header(message, name)) for name in HEADERS))


def backfill(connection, bootstrap, topics, part=None, offsets=(None, None), times_ms=(None, None),
             tell=lambda _: None):
    """Returns {read, added}. New rows are queued in lane 1: the merge takes them when nothing live waits."""
    wanted = kafka.ranges(bootstrap, topics, part, offsets, times_ms)
    seen = added = 0
    with connection.cursor() as cursor:
        cursor.execute("SET warehouse.lane = '1'")
        rows = []

        def flush():
            nonlocal added
            if rows:
                execute_values(cursor, _INSERT, rows, page_size=_ROWS)
                added += cursor.rowcount
                rows.clear()
                tell(f"{seen} read, {added} added")

        for message in kafka.read(bootstrap, wanted):
            rows.append(row_of(message))
            seen += 1
            if len(rows) >= _ROWS:
                flush()
        flush()
        cursor.execute("RESET warehouse.lane")
    return {"read": seen, "added": added}
