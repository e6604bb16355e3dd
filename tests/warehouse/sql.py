#!/usr/bin/python3
"""The SQL of warehouse/ on a PostgreSQL of its own: the merge against a model, in any order and cut anywhere; what must
not change does not; each check turns red when it should. `sql.py sabotage`: the merge broken in a dozen ways,
each of which must be seen."""

import json
import pathlib
import random
import shutil
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT))

try:
    import psycopg2
    from psycopg2.extras import execute_values
    from warehouse import database, quality
    from warehouse.postgres import Postgres, binaries
    binaries()
except Exception as missing:  # ImportError, or PostgresError, which cannot be named without the import
    print(f"skip warehouse-sql - {missing}: scripts/setup test")
    sys.exit(0)

from tests.lib import report  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402
from tests.lib.report import Failure, expect, note  # noqa: E402
from tests.warehouse import connector, model  # noqa: E402
from tests.warehouse.stream import Stream  # noqa: E402

INSERT = """INSERT INTO raw.events (__connect_topic, __connect_partition, __connect_offset, event, received_ms,
                                    event_id, sluice_error) VALUES %s
            ON CONFLICT (__connect_topic, __connect_partition, __connect_offset) DO UPDATE
            SET event = excluded.event, received_ms = excluded.received_ms, event_id = excluded.event_id,
                sluice_error = excluded.sluice_error"""
SEEDS = range(1, 6)

# What is broken -> (function, its text, what stands there instead). Each must be seen by the model or by a check.
SABOTAGE = {
    "the last record wins, not the first":
        ("curated.parse_taken", "ORDER BY p.received, p.topic", "ORDER BY p.received DESC, p.topic"),
    "the place decides before the time":
        ("curated.parse_taken", "ORDER BY p.received, p.topic, p.part, p.off", "ORDER BY p.topic, p.part, p.off"),
    "an event is not moved to an earlier record":
        ("curated.merge_events", "WHEN MATCHED AND (", "WHEN MATCHED AND false AND ("),
    "conflicts count as copies":
        ("curated.merge_losers", "WHERE place > 1 AND same", "WHERE place > 1"),
    "a copy that became the event stays a copy":
        ("curated.merge_losers", "WHERE d.source = i.source", "WHERE false AND d.source = i.source"),
    "business keys without the account":
        ("stage.read", "r.kind, r.account_id, r.card_id", "r.kind, r.card_id"),
    "flags of keys that were left are kept":
        ("curated.flag_business", "nullif(first_value", "coalesce(first_value"),
    "refunds do not reach their payment":
        ("curated.collect", "e.payment_id IS NOT NULL", "e.payment_id IS NOT NULL AND e.kind = 'payment'"),
    "payments do not hear of flags":
        ("curated.flag_business", "e.payment_id IS NOT NULL", "e.payment_id IS NOT NULL AND false"),
    "a payment does not change any more":
        ("curated.merge_payments", "WHEN MATCHED AND (", "WHEN MATCHED AND false AND ("),
    "a batch takes what it does not merge":
        ("curated.merge_batch", "IF taken > 0 THEN", "IF taken > 3 THEN"),
    "merged without leaving the queue":
        ("curated.take", "WHERE ctid =", "WHERE lane = 1 AND ctid ="),
    "raw rows can be changed":
        ("raw.refuse_change", "RETURN NULL;", "RETURN NEW;"),
    "raw rows can be replaced":
        ("raw.refuse_change", "IS NOT DISTINCT FROM", "IS NOT NULL OR"),
}


def load(cursor, records):
    execute_values(cursor, INSERT, [(*each.place, each.value, each.received_ms, each.header_id, each.error)
                                    for each in records])


def tables(cursor, topic):
    """What the tables hold of one topic, in the model's shape."""
    def rows(text):
        cursor.execute(text, (topic,))
        return cursor.fetchall()
    return {
        "events": {row[0]: ((topic, row[1], row[2]), *row[3:]) for row in rows(
            "SELECT event_id, part, off, kind, amount, duplicate_of FROM curated.events WHERE source = %s")},
        "duplicates": {(topic, *row[:2]): row[2] for row in rows(
            "SELECT part, off, event_id FROM curated.duplicates WHERE source = %s")},
        "quarantine": {(topic, *row[:2]): row[2] for row in rows(
            "SELECT part, off, reason FROM curated.quarantine WHERE source = %s")},
        "payments": {row[0]: row[1:] for row in rows(
            "SELECT payment_id, event_id, amount, duplicate_of, refunds, chargebacks, net, state "
            "FROM curated.payments WHERE source = %s")},
    }


def compare(cursor, topic, records):
    want, have = model.curated(records), tables(cursor, topic)
    for name, rows in want.items():
        wrong = {key: (rows.get(key), have[name].get(key)) for key in {*rows, *have[name]}
                 if rows.get(key) != have[name].get(key)}
        expect(not wrong, f"{topic}: curated.{name}: {len(wrong)} rows differ, as (model, table): "
                          f"{dict(list(wrong.items())[:2])}")


def everything(cursor):
    """All rows of stage and curated, times of change included."""
    found = []
    for table in ("stage.parsed", "curated.events", "curated.duplicates", "curated.quarantine", "curated.payments",
                  "quality.fields"):
        cursor.execute(f"SELECT '{table}', t::text FROM {table} t ORDER BY 2")
        found += cursor.fetchall()
    return found


def pour(connection, records, seed):
    """Delivers records in any order, in pieces, some twice, and merges in between with cuts: at rollbacks and small
    batches. Ends merged."""
    rng = random.Random(seed)
    records = list(records)
    rng.shuffle(records)
    with connection.cursor() as cursor:
        while records:
            piece, records = records[:rng.randrange(1, 30)], records[rng.randrange(1, 30):] or []
            load(cursor, piece)
            chance = rng.random()
            if chance < 0.3:
                cursor.execute("BEGIN; SELECT curated.merge_batch(50); ROLLBACK")
            elif chance < 0.8:
                cursor.execute("SELECT curated.merge_batch(%s)", (rng.randrange(1, 40),))
    finish(connection)


def finish(connection, limit=2000):
    with connection.cursor() as cursor:
        for _ in range(limit):
            cursor.execute("SELECT curated.merge_batch(500)")
            if cursor.fetchone()[0] == 0:
                return
    raise Failure("the queue does not become empty")


class Suite:
    def __init__(self, server):
        self.server, self.count = server, 0
        server.create_database("model")
        connection = database.connect(server.dsn("model"))
        expect(database.install(connection), "not installed")
        expect(not database.install(connection), "installed twice")
        connection.close()

    def fresh(self):
        """A connection to an empty warehouse of its own."""
        self.count += 1
        name = f"w{self.count}"
        connection = self.server.connect("postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE model")
        connection.close()
        return database.connect(self.server.dsn(name))

    # ---- scenarios

    def any_order(self):
        connection = self.fresh()
        total = 0
        with connection.cursor() as cursor:
            for seed in SEEDS:
                stream = Stream(seed, f"t{seed}")
                seen = set()
                pour(connection, stream.records, seed)
                cursor.execute("SELECT part, off FROM raw.readable WHERE topic = %s", (stream.topic,))
                seen = {(stream.topic, *row) for row in cursor.fetchall()}
                compare(cursor, stream.topic, [each for each in stream.records if each.place in seen])
                load(cursor, stream.records)  # what was left out comes late, the rest a second time
                finish(connection)
                compare(cursor, stream.topic, stream.records)
                total += len(stream.records)
            cursor.execute("SELECT count(*) FROM quality.misplaced")
            expect(cursor.fetchone()[0] == 0, "a record is in no place or in two")
        note(f"{len(SEEDS)} streams, {total} records")
        connection.close()

    def twice_changes_nothing(self):
        connection, stream = self.fresh(), Stream(99, "t")
        with connection.cursor() as cursor:
            pour(connection, stream.records, 1)
            load(cursor, stream.records)
            finish(connection)
            before = everything(cursor)
            load(cursor, stream.records)
            expect(database.merge(connection) == 0, "records that were there were queued again")
            expect(database.remerge(connection) == len(stream.records), "a second reading leaves records out")
            expect(database.merge(connection, 7) == len(stream.records), "a second reading was not merged")
            expect(everything(cursor) == before, "a second reading changed rows")
        connection.close()

    def two_at_once(self):
        connection, stream = self.fresh(), Stream(5, "t", events=120)
        with connection.cursor() as cursor:
            load(cursor, stream.records)
            dsn, errors, taken = connection.dsn, [], []

            def worker():
                try:
                    taken.append(database.merge(database.connect(dsn), 20, wait_s=0.001))
                except psycopg2.Error as error:
                    errors.append(error)
            threads = [threading.Thread(target=worker) for _ in range(3)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            expect(not errors, f"a session failed: {errors}")
            expect(sum(taken) == len(stream.records), f"taken {taken} of {len(stream.records)}")
            compare(cursor, "t", stream.records)
        connection.close()

    def late_commit(self):
        """A transaction that began before the merge and commits after it: a watermark would step over it."""
        connection, stream = self.fresh(), Stream(6, "t")
        late = self.server.connect(connection.info.dbname)
        with connection.cursor() as cursor, late.cursor() as slow:
            load(slow, stream.records[:20])
            load(cursor, stream.records[20:])
            finish(connection)
            late.commit()
            finish(connection)
            compare(cursor, "t", stream.records)
        late.close()
        connection.close()

    def new_rules(self):
        """A second reading after a rule has changed gives what a first reading would have given."""
        connection = self.fresh()
        with connection.cursor() as cursor:
            read_twice(connection, Stream(7, "t"))
            cursor.execute("INSERT INTO stage.sources VALUES ('t', 'u')")
            database.remerge(connection)
            finish(connection)
            cursor.execute("SELECT count(*) FILTER (WHERE source <> 'u') FROM (SELECT source FROM curated.events "
                           "UNION ALL SELECT source FROM curated.duplicates UNION ALL SELECT source FROM "
                           "curated.quarantine UNION ALL SELECT source FROM curated.payments) s")
            expect(cursor.fetchone()[0] == 0, "rows of the old source are left")
            cursor.execute("SELECT count(*) FROM quality.misplaced")
            expect(cursor.fetchone()[0] == 0, "a record is in no place or in two")
        connection.close()

    def live_before_replay(self):
        connection, stream = self.fresh(), Stream(8, "t")
        with connection.cursor() as cursor:
            load(cursor, stream.records)
            finish(connection)
            database.remerge(connection, offsets=(3, 9), part=1)
            cursor.execute("SELECT count(*), bool_and(part = 1 AND off BETWEEN 3 AND 8) FROM stage.queue")
            queued, inside = cursor.fetchone()
            expect(queued and inside, "the range of a second reading is wrong")
            load(cursor, Stream(9, "live").records)
            cursor.execute("SELECT count(*) FROM stage.queue WHERE lane = 0")
            live = cursor.fetchone()[0]
            cursor.execute("SELECT curated.merge_batch(%s)", (live,))
            cursor.execute("SELECT count(*) FILTER (WHERE lane = 0), count(*) FILTER (WHERE lane = 1) FROM stage.queue")
            expect(cursor.fetchone() == (0, queued), "a second reading was taken before what is live")
        connection.close()

    def raw_is_append_only(self):
        connection, stream = self.fresh(), Stream(10, "t")
        append_only(connection, stream)
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE warehouse_loader")
            for text in ("DELETE FROM raw.events", "TRUNCATE raw.events", "DELETE FROM curated.events",
                         "ALTER TABLE raw.events DISABLE TRIGGER ALL"):
                refused(cursor, text)
            load(cursor, Stream(11, "more").records)
            cursor.execute("RESET ROLE; SET ROLE warehouse_merger")
            for text in ("INSERT INTO raw.events VALUES ('x', 0, 0)", "UPDATE raw.events SET event = ''"):
                refused(cursor, text)
            finish(connection)
            cursor.execute("RESET ROLE; SET session_replication_role = replica")
            refused(cursor, "DELETE FROM raw.events")
        connection.close()

    def checks_turn_red(self):
        for name, (sql, window) in BREAKS.items():
            connection = self.fresh()
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('warehouse.window', %s, false)", (window,))
                now_ms = int(time.time() * 1000)
                load(cursor, clean(now_ms))
                finish(connection)
                cursor.execute("UPDATE quality.fields SET announced = true")
                before = state_of(cursor, name)
                cursor.execute(sql.replace(NOW_MS, str(now_ms)))
                if not name.startswith(("freshness", "unique-event", "state", "completeness-curated")):
                    finish(connection)
                after = state_of(cursor, name)
                expect(before != "fail" and after == "fail", f"{name}: was {before}, is {after}")
                passed, rows, _ = quality.run(connection)
                mode = next(row["mode"] for row in rows if row["check_name"] == name)
                shut = [row["check_name"] for row in rows if row["shut"]]
                expect((name in shut) == (mode == "closed"), f"{name}: the gate is {mode}, shut are {shut}")
                expect(not passed, "a run without Kafka passed the closed gates of completeness")
            connection.close()

    def sabotage(self):
        for name, (function, old, new) in SABOTAGE.items():
            connection = self.fresh()
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_get_functiondef(%s::regproc)", (function,))
                text = cursor.fetchone()[0]
                expect(old in text, f"{name}: {function} does not say {old!r}")
                cursor.execute(text.replace(old, new))
            expect(caught(connection), f"not seen: {name}")
            connection.close()


def read_twice(connection, stream):
    """First without the rules that make money of REFUND and AUTH, and so with records that need no amount."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM stage.types WHERE type IN ('refund', 'auth')")
        load(cursor, stream.records)
        finish(connection, limit=100)
        cursor.execute("INSERT INTO stage.types VALUES ('refund', 'refund'), ('auth', 'payment')")
        database.remerge(connection, topic=stream.topic)
        finish(connection, limit=100)
        compare(cursor, stream.topic, stream.records)


def refused(cursor, text):
    try:
        cursor.execute(text)
    except (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.IntegrityConstraintViolation):
        return
    raise Failure(f"not refused: {text}")


def append_only(connection, stream):
    with connection.cursor() as cursor:
        load(cursor, stream.records)
        cursor.execute("SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM raw.events r")
        before = cursor.fetchone()
        load(cursor, stream.records)
        for text in ("UPDATE raw.events SET event = 'x'", "DELETE FROM raw.events", "TRUNCATE raw.events",
                     "UPDATE raw.events SET __connect_offset = __connect_offset + 100000"):
            refused(cursor, text)
        cursor.execute("UPDATE raw.events SET loaded_at = now()")
        cursor.execute("SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM raw.events r")
        expect(cursor.fetchone() == before, "raw has changed")


def caught(connection):
    try:
        append_only(connection, Stream(20, "raw"))
        with connection.cursor() as cursor:
            for seed in SEEDS[:3]:
                stream = Stream(seed, f"t{seed}")
                pour(connection, stream.records, seed)
                load(cursor, stream.records)
                finish(connection, limit=100)
                compare(cursor, stream.topic, stream.records)
            read_twice(connection, Stream(7, "again", events=250))
    except (Failure, psycopg2.Error):
        return True
    return False


def state_of(cursor, name):
    cursor.execute("SELECT state FROM quality.report WHERE check_name = %s", (name,))
    return cursor.fetchone()[0]


def _event(off, at_ms=0, **fields):
    document = {"event_id": f"e{off}", "type": "AUTH", "account_id": "a", "card_id": f"c{off}", "amount": 10,
                "currency": "EUR", "event_ts": "2026-03-01T00:00:00Z", **fields}
    return model.Record(("clean", 0, off), json.dumps(document).encode(), at_ms)


def clean(at_ms):
    return [_event(off, at_ms) for off in range(100)]


CLEAN = clean(0)
NOW_MS = "@now@"  # in what is run: when the clean records came, which the checks of freshness look at
_ADD = "INSERT INTO raw.events (__connect_topic, __connect_partition, __connect_offset, received_ms, event) VALUES "
_NEW = "('clean', 0, {}, {}, convert_to('{}', 'UTF8'))"


def _sql(*documents, at_ms=f"{NOW_MS} + 1"):
    return _ADD + ", ".join(_NEW.format(1000 + n, at_ms, json.dumps(each)) for n, each in enumerate(documents))


_REFUND = {"event_id": "r", "type": "REFUND", "account_id": "a", "card_id": "c", "amount": 1, "currency": "EUR",
           "event_ts": "2026-03-02T00:00:00Z", "payment_id": "e1"}
_STREAM = ("INSERT INTO raw.events SELECT 'streams', 0, n, convert_to('{{\"event_id\":\"s' || n || '\"}}', 'UTF8'), 1, "
           "'gw', ({})::text::bytea FROM generate_series(1, 9) n")
# Check -> (what turns it red, the window).
BREAKS = {
    "freshness-queue": (_sql(_REFUND) + "; UPDATE stage.queue SET queued_at = now() - interval '5 minutes'", "1 hour"),
    "freshness-curated": ("UPDATE curated.events SET received = merged_at - interval '1 day'", "1 hour"),
    "completeness-curated": ("DELETE FROM curated.events WHERE event_id = 'e5'", "1 hour"),
    "completeness-streams": (_STREAM.format("CASE WHEN n > 4 THEN n + 2 ELSE n END"), "1 hour"),
    "unique-stream-seq": (_STREAM.format("CASE WHEN n = 9 THEN 8 ELSE n END"), "1 hour"),
    "duplicates-id": (_sql(*(CLEAN[n].doc for n in range(9))), "1 hour"),
    "duplicates-business": (_sql(*({**CLEAN[n].doc, "event_id": f"b{n}"} for n in range(9))), "1 hour"),
    "references-orphans": (_sql({**_REFUND, "payment_id": "none"}, at_ms=f"{NOW_MS} - {2 * 86400 * 1000}"), "1 hour"),
    "references-account": (_sql({**_REFUND, "account_id": "b"}), "1 hour"),
    "references-overdrawn": (_sql({**_REFUND, "amount": 11}), "1 hour"),
    "payments-shared": (_sql({**CLEAN[1].doc, "event_id": "again", "payment_id": "e1", "amount": 3}), "1 hour"),
    "state-payments": ("UPDATE curated.payments SET net = 0 WHERE payment_id = 'e7'", "1 hour"),
    "quarantine-share": (_ADD + ", ".join(f"('clean', 1, {n}, 1, 'broken')" for n in range(9)), "1 hour"),
    "quarantine-conflicts": (_sql({**CLEAN[1].doc, "amount": 3}), "1 hour"),
    "nulls": ("UPDATE curated.events SET merged_at = now() - interval '2 hours';" +
              _sql(*({**CLEAN[n].doc, "event_id": f"n{n}", "card_id": None} for n in range(9))), "1 hour"),
    "drift-fields": (_sql({**CLEAN[1].doc, "event_id": "d", "amount": "3.00", "merchant": {"mcc": 1}}), "1 hour"),
    "types-unknown": (_sql({"event_id": "u", "type": "VOID"}), "1 hour"),
}


def main():
    directory = temporary_directory("warehouse")
    good = True
    try:
        with Postgres(directory, settings={"fsync": "off", "autovacuum_naptime": "1d"}) as server:
            suite = Suite(server)
            scenarios = (suite.any_order, suite.twice_changes_nothing, suite.two_at_once, suite.late_commit,
                         suite.new_rules, suite.live_before_replay, suite.raw_is_append_only, suite.checks_turn_red)
            if sys.argv[1:] == ["sabotage"]:
                scenarios = (suite.sabotage,)
            else:
                good = report.run("connector-settings", lambda: connector.settings(directory))
            for scenario in scenarios:
                good = report.run(scenario.__name__.replace("_", "-"), scenario) and good
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
