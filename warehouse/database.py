"""What the commands do in the database: install the schema, merge, queue a second reading."""

import pathlib
import threading

import psycopg2
import psycopg2.errors

SQL = pathlib.Path(__file__).resolve().parent / "sql"
BATCH_ROWS = 2000


def connect(dsn, **settings):
    """A connection whose statements commit by themselves. `settings`: of this session, such as warehouse.window."""
    connection = psycopg2.connect(dsn, application_name="sluice-warehouse")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (f"warehouse.{name}", str(value)))
    return connection


def install(connection):
    """Makes the schemas in one transaction. Returns False when they are there already."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('raw.events') IS NOT NULL")
        if cursor.fetchone()[0]:
            return False
        cursor.execute("BEGIN;\n" + "\n".join(each.read_text() for each in sorted(SQL.glob("*.sql"))) + "\nCOMMIT;")
    return True


def merge(connection, batch_rows=BATCH_ROWS, wait_s=0.2, least_rows=1):
    """Merges until a batch takes fewer than `least_rows`: 1, until the queue is empty. Waits for another session that
    merges. Returns how many records it took."""
    total, pause = 0, threading.Event()
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT curated.merge_batch(%s)", (batch_rows,))
            taken = cursor.fetchone()[0]
            if taken < 0:
                pause.wait(wait_s)
                continue
            total += taken
            if taken < least_rows:
                return total


def follow(dsn, stop, batch_rows=BATCH_ROWS, idle_s=1.0, tell=print):
    """Merges for good, until `stop` (a threading.Event) is set. A database that is away is waited for.

    A batch that was not full is followed by a rest of idle_s: a batch costs some hundred milliseconds of a processor
    whatever it holds, and one after the other would keep the database busy at any load."""
    connection, away = None, False
    while not stop.is_set():
        try:
            connection = connection or connect(dsn)
            merge(connection, batch_rows, least_rows=batch_rows)
            if away:
                tell("the database is back")
            away = False
        except psycopg2.Error as error:
            # A server killed in the middle of a statement is a plain DatabaseError without SQLSTATE.
            if error.pgcode is not None and not isinstance(error, psycopg2.OperationalError):
                raise
            if not away:
                tell(f"the database is away: {str(error).strip()}")
            away = True
            if connection:
                connection.close()
            connection = None
        stop.wait(idle_s)


def remerge(connection, topic=None, part=None, offsets=(None, None), times=(None, None)):
    """Queues what lies in raw in a range of offsets or of times (ISO 8601) for a second reading. Returns how many."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT curated.remerge(%s, %s, %s, %s, %s, %s)", (topic, part, *offsets, *times))
        return cursor.fetchone()[0]


def state(connection):
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT (SELECT count(*) FROM raw.events), (SELECT count(*) FROM stage.queue WHERE lane = 0),
                   (SELECT count(*) FROM stage.queue WHERE lane > 0), (SELECT count(*) FROM curated.events),
                   (SELECT count(*) FROM curated.duplicates), (SELECT count(*) FROM curated.quarantine),
                   (SELECT count(*) FROM curated.payments), (SELECT count(*) FROM curated.orphans)""")
        names = ("raw", "waiting", "waiting_replay", "events", "duplicates", "quarantine", "payments", "orphans")
        return dict(zip(names, cursor.fetchone()))
