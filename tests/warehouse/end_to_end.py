#!/usr/bin/python3
"""A real broker, Kafka Connect and PostgreSQL: what is committed in Kafka is in raw and curated, once, through kills of
the worker and of the database; a backfill fills a hole; nothing is left when the owner is killed. `--iceberg`: the same
records are in Iceberg, once."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT))

try:
    from confluent_kafka import Consumer, Producer, TopicPartition
    from warehouse import connect, database, kafka, stand
except ImportError as missing:
    print(f"skip warehouse - {missing}: scripts/setup chaos")
    sys.exit(0)

from chaos.stand import processes  # noqa: E402
from tests.kafka import Cluster  # noqa: E402
from tests.lib import report  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402
from tests.lib.report import expect, note  # noqa: E402
from tests.lib.waiting import until  # noqa: E402

TOPIC = "payments.events"
TOPICS = [TOPIC, TOPIC + ".dlq"]
OWNER = """
import sys, time
from warehouse import stand
handle = stand.start(sys.argv[1], sys.argv[2], ["payments.events"])
print(handle["pid"], *[each["pid"] for each in handle["processes"].values()], flush=True)
time.sleep(600)
"""


class Scenes:
    def __init__(self, brokers, directory):
        self.kafka, self.directory = brokers, directory
        for topic in TOPICS:
            brokers.create_topic(topic, partitions=2, replication=1)
        # Long enough to kill the database between the first file and its commit on a slow machine, too.
        self.handle = stand.start(directory, brokers.bootstrap, TOPICS, iceberg="--iceberg" in sys.argv,
                                  iceberg_commit_ms=30_000)
        self.producer = Producer({"bootstrap.servers": brokers.bootstrap, "transactional.id": "test", "log_level": 3})
        self.producer.init_transactions()
        self.sent, self.aborted = 0, 0

    def send(self, count, commit=True):
        """Events as the gateway puts them there, in one transaction."""
        self.producer.begin_transaction()
        for _ in range(count):
            number = self.sent if commit else f"never-{self.aborted}"
            event = {"event_id": f"e{number}", "event_type": "AUTH", "account_id": "a", "card_id": f"c{number}",
                     "amount": 100, "currency": "EUR", "event_ts": "2026-03-01T00:00:00Z"}
            self.producer.produce(TOPIC, json.dumps(event).encode(), key=b"a", partition=self.sent % 2, headers=[
                ("sluice-stream", b"gw.1"), ("sluice-seq", str(number).encode()), ("sluice-node", b"gw"),
                ("event_id", f"e{number}".encode())])
            self.sent, self.aborted = self.sent + commit, self.aborted + (not commit)
        self.producer.flush()
        (self.producer.commit_transaction if commit else self.producer.abort_transaction)()

    def state(self):
        connection = database.connect(self.handle["dsn"])
        try:
            return database.state(connection)
        finally:
            connection.close()

    def wait_curated(self, events, timeout_s=240):
        started = time.monotonic()
        until(lambda: self.state()["events"] >= events, lambda: f"curated has {self.state()}, wanted {events}",
              timeout_s)
        return time.monotonic() - started

    def command(self, *words):
        done = subprocess.run([str(ROOT / "warehouse" / "warehouse"), "--dsn", self.handle["dsn"], *words],
                              stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout

    def shut(self):
        """The closed gates that do not hold, with all of Kafka compared with raw. The exit code must say the same."""
        # A dead-letter topic that has had no record yet is not there.
        topics = [word for name in (*TOPICS, "other.events.dlq") for word in ("--topic", name)]
        code, text = self.command("quality", "--kafka", self.kafka.bootstrap, *topics, "--grace", "0 s", "--json")
        found = [(each["check_name"], each["value"], each["detail"])
                 for each in json.loads(text)["checks"] if each["shut"]]
        expect(code == bool(found), f"exit {code}, although these gates are shut: {found}")
        return found

    def committed(self, group, topic, partitions):
        """The offsets that a consumer group has committed, of partitions where it has."""
        asking = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": group, "log_level": 3})
        try:
            places = [TopicPartition(topic, part) for part in range(partitions)]
            return [each.offset for each in asking.committed(places, timeout=30) if each.offset >= 0]
        finally:
            asking.close()

    # ---- scenarios

    def iceberg_before_its_first_commit(self):
        """The catalogue's database dies when the first files are being written; the worker dies when it has told its
        coordinator of them and committed where it was, before any table has them."""
        self.send(500)
        files = pathlib.Path(self.handle["dir"]) / "connect" / "iceberg"
        until(lambda: list(files.rglob("*.parquet")), "the sink writes no file", timeout_s=120)
        self.handle = stand.tell(self.handle, "kill", "postgres")
        until(lambda: sum(self.committed("connect-raw-iceberg", TOPIC, 2)) >= 500,
              "the sink does not commit where it is", timeout_s=120)
        self.handle = stand.tell(self.handle, "kill", "connect")
        expect(not self.committed("connect-raw-iceberg-coord", connect.CONTROL, 1),
               "the coordinator's first commit was quicker than the database's death: nothing was tried")
        self.handle = stand.tell(self.handle, "start", "postgres")
        self.handle = stand.tell(self.handle, "start", "connect")
        self.iceberg()

    def kafka_to_curated(self):
        self.send(500)
        self.send(50, commit=False)
        self.producer.begin_transaction()
        # What no gateway writes, and what a gateway refused: kept, told of, and in nobody's way.
        self.producer.produce(TOPIC, b"\xff\x00", partition=0)
        self.producer.produce(TOPIC, None, partition=0)
        self.producer.produce(TOPICS[1], b'{"a":1}', partition=0, headers=[
            ("sluice-stream", b"gw.1"), ("sluice-seq", b"never"), ("event_id", b"\x00"), ("sluice-error", b"schema")])
        self.producer.commit_transaction()
        seconds = self.wait_curated(self.sent)
        until(lambda: self.state()["raw"] == self.sent + 3 and self.state()["quarantine"] == 3,
              lambda: str(self.state()))
        note(f"500 events in curated {seconds:.1f} s after the commit")
        expect(not self.shut(), f"gates are shut: {self.shut()}")

    def documented_put(self):
        """docs/warehouse.md: the connector is put to a worker that knows nothing of it, and goes on where it was."""
        given = json.loads((pathlib.Path(self.handle["dir"]) / "connect" / "raw-events.json").read_text())["config"]
        url = self.handle["connect_url"] + "/connectors/raw-events"
        connect.ask(self.handle["connect_url"], "/connectors/raw-events", "DELETE")
        self.send(100)
        port = re.search(r":(\d+)/", given["connection.url"]).group(1)
        secret = pathlib.Path(self.handle["dir"]) / "sink.password"
        secret.write_text(given["connection.password"] + "\n")
        done = subprocess.run(
            f"warehouse/warehouse connector raw-events tasks=1 topics={','.join(TOPICS)} pg_host=127.0.0.1 "
            f"pg_port={port} database=warehouse pg_user={given['connection.username']} "
            f"pg_password@{secret} dlq=warehouse.dlq replication=1 | "
            f"curl -fsS -X PUT -H 'Content-Type: application/json' -d @- {url}/config",
            shell=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        expect(done.returncode == 0, f"curl: {done.stderr} {done.stdout}")
        expect(json.loads(done.stdout)["config"] == {**given, "name": "raw-events"}, f"the worker has {done.stdout}")
        note(f"caught up {self.wait_curated(self.sent):.1f} s after the PUT")
        self.equal()

    def killed_worker(self):
        self.send(500)
        self.handle = stand.tell(self.handle, "kill", "connect")
        self.send(500)
        self.handle = stand.tell(self.handle, "start", "connect")
        note(f"caught up {self.wait_curated(self.sent):.1f} s after the start of the worker")
        self.equal()

    def killed_database(self):
        self.handle = stand.tell(self.handle, "kill", "postgres")
        self.send(500)
        worker = pathlib.Path(self.handle["dir"]) / "connect.log"
        until(lambda: "Connection" in worker.read_text() and "refused" in worker.read_text(),
              "the worker has not noticed that the database is gone", timeout_s=240)
        self.handle = stand.tell(self.handle, "start", "postgres")
        note(f"caught up {self.wait_curated(self.sent):.1f} s after the start of the database")
        self.equal()

    def equal(self):
        expect(not self.shut(), f"gates are shut: {self.shut()}")
        found = self.state()
        expect(found["events"] == self.sent and found["duplicates"] == 0, f"{self.sent} sent, curated has {found}")

    def backfill(self):
        connection = database.connect(self.handle["dsn_owner"])
        with connection.cursor() as cursor:
            # Only an owner can make a hole to fill.
            cursor.execute("ALTER TABLE raw.events DISABLE TRIGGER append_only")
            cursor.execute("DELETE FROM raw.events WHERE __connect_partition = 1 "
                           "AND __connect_offset BETWEEN 10 AND 19")
            lost = cursor.rowcount
            cursor.execute("ALTER TABLE raw.events ENABLE ALWAYS TRIGGER append_only")
        connection.close()
        expect("completeness-kafka-raw" in [name for name, _, _ in self.shut()], "the hole is not seen")
        said = self.command("backfill", "--kafka", self.kafka.bootstrap, "--topic", TOPIC, "--partition", "1",
                            "--from-offset", "5", "--to-offset", "30")[1].split()
        expect(said[:3] == ["read", "25", "added"] and int(said[3]) == lost > 0, f"{lost} lost, backfill said {said}")
        until(lambda: not self.state()["waiting_replay"], "the merge does not take what was filled in")
        self.equal()


    def iceberg(self):
        """After all that: what is committed in Kafka is in Iceberg, byte for byte, once."""
        made = subprocess.run([ROOT / "scripts" / "pyiceberg"], stdout=subprocess.PIPE, text=True, check=False)
        if made.returncode:
            raise report.Skip("scripts/pyiceberg did not get the reader of Iceberg's tables")
        wanted = {(each.topic(), each.partition(), each.offset()): each.value()
                  for each in kafka.read(self.kafka.bootstrap, kafka.ranges(self.kafka.bootstrap, TOPICS))}
        connection = database.connect(self.handle["dsn_owner"])
        with connection.cursor() as cursor:
            cursor.execute("SHOW port")
            port = cursor.fetchone()[0]
        connection.close()
        directory, found = pathlib.Path(self.handle["dir"]), []

        def all_there():
            command = [made.stdout.strip(), ROOT / "tests/warehouse/iceberg_rows.py", directory / "postgres", port,
                       directory / "connect" / "iceberg"]
            read = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[:] = [line.split(" ") for line in read.stdout.splitlines()]
            return len(found) >= len(wanted)

        until(all_there, lambda: f"Iceberg has {len(found)} rows, Kafka {len(wanted)}", 240, 2)
        rows = {(topic, int(part), int(off)): None if event == "-" else bytes.fromhex(event)
                for topic, part, off, event in found}
        note(f"Iceberg {len(found)} rows, {len(rows)} places; Kafka {len(wanted)} records")
        expect(len(rows) == len(found), f"{len(found) - len(rows)} rows are in Iceberg twice")
        expect(rows == wanted, "Iceberg has other bytes than Kafka")


def owner_killed(brokers):
    directory = temporary_directory("warehouse")
    with subprocess.Popen([sys.executable, "-c", OWNER, directory, brokers.bootstrap], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE) as owner:
        pids = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
    expect(len(pids) == 4, f"the owner started {pids}")
    until(lambda: all(map(processes.gone, pids)), "processes are left", timeout_s=60)
    shutil.rmtree(directory)


def processes_of(directory):
    """The pids of those that have the directory in their command line."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def owner_killed_while_it_starts(brokers):
    """The worker stands still, so that the start would go on for minutes."""
    directory = temporary_directory("warehouse")
    with subprocess.Popen([sys.executable, "-c", OWNER, directory, brokers.bootstrap], cwd=ROOT,
                          stdout=subprocess.DEVNULL) as owner:
        def worker():
            return [pid for pid in processes_of(directory)
                    if b"ConnectStandalone" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(until(worker, "no worker is started", timeout_s=120)[0], signal.SIGSTOP)
        owner.send_signal(signal.SIGKILL)
    until(lambda: not processes_of(directory), lambda: f"left: {processes_of(directory)}", timeout_s=90)
    shutil.rmtree(directory)


def main():
    directory, good = temporary_directory("warehouse"), True
    with Cluster(brokers=1, heap=256) as brokers:
        try:
            scenes = Scenes(brokers, directory)
            scenarios = [scenes.kafka_to_curated, scenes.documented_put, scenes.killed_worker, scenes.killed_database,
                         scenes.backfill]
            if "--iceberg" in sys.argv:
                scenarios = [scenes.iceberg_before_its_first_commit, *scenarios, scenes.iceberg]
            for scenario in scenarios:
                good = report.run(scenario.__name__.replace("_", "-"), scenario) and good
            stand.stop(scenes.handle)
            good = report.run("owner-killed", lambda: owner_killed(brokers)) and good
            good = report.run("owner-killed-while-it-starts", lambda: owner_killed_while_it_starts(brokers)) and good
        finally:
            if handle := stand.find(directory):
                stand.stop(handle)
            if not good:
                for log in pathlib.Path(directory).glob("*.log"):
                    print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
            shutil.rmtree(directory, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
