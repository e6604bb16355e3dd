"""What a load client was told against what is there. See README.md."""

import json
import pathlib
import re
import time

from chaos.judge import service, verdict
from tests.history import records as topics

READ_S = 120
MERGE_S = 600  # an outage's backlog; one core merges some 2,000 records a second


def read_topics(brokers, names, reader, timeout_s=READ_S):
    """(records, why they were not read to the end or None)"""
    try:
        return topics.read(brokers, names, timeout_s, missing_ok=True, reader=reader), None
    except topics.CutError as error:
        return [], str(error)


def _dsn(warehouse):
    if not warehouse:
        return None
    return warehouse if isinstance(warehouse, str) else warehouse.get("dsn") or warehouse.get("postgres")


def wait_caught_up(dsn, wanted, timeout_s=MERGE_S):
    """Until curated and what it put aside have all places [(topic, partition, offset)] that are the last of their
    partitions, and nothing waits to be merged. Seconds it took; None when they were not there in time."""
    import psycopg2
    began, place = time.monotonic(), "topic = %s AND part = %s AND off = %s"
    connection = psycopg2.connect(dsn, application_name="sluice-judge")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            while time.monotonic() - began < timeout_s:
                cursor.execute("SELECT NOT EXISTS (SELECT FROM stage.queue)")
                empty = cursor.fetchone()[0]
                if empty and all(_is_there(cursor, place, each) for each in wanted):
                    return round(time.monotonic() - began, 1)
                time.sleep(0.2)
    finally:
        connection.close()
    return None


def _is_there(cursor, place, where):
    cursor.execute(f"SELECT EXISTS (SELECT FROM stage.parsed WHERE {place})", where)
    return cursor.fetchone()[0]


def judge(cluster, load, folder, start_ns=None, fault_ns=()):
    """A drill's run: what chaos.client.Load did against the cluster, once the load has ended and Kafka has the rest.
    The result is also written to judge.json in the folder."""
    from chaos.client import load as client
    reader = client.build_directory() / "tests" / "history" / "topic_read"
    history, requests = verdict.read_histories([load.history])
    names = [cluster.topic, f"{cluster.topic}.dlq"]
    found, unread = read_topics(cluster.bootstrap, names, reader)
    last = {}
    for each in found:
        last[each.topic, each.partition] = each.offset
    dsn = _dsn(cluster.warehouse)
    catch_up_s = wait_caught_up(dsn, [(*where, offset) for where, offset in last.items()]) if dsn else None
    earlier = [run for run in client.runs(cluster.dir) if run != load.run]
    result = verdict.judge(history, requests, found, complete=unread is None, start_ns=start_ns,
                           fault_ns=tuple(fault_ns), earlier_runs=earlier, dsn=dsn, topics=names, unread=unread)
    if dsn:
        result["figures"]["catch_up_s"] = catch_up_s
    samples = pathlib.Path(folder) / "samples.jsonl"
    if samples.exists() and fault_ns:
        result["figures"]["backlog_drain_s"] = backlog_drain_s(samples.read_bytes().splitlines(), start_ns, fault_ns)
    write(result, pathlib.Path(folder) / "judge.json")
    return result


def backlog_drain_s(lines, start_ns, fault_ns):
    """From the heal until all gateways together had no more pending than ever before the fault. `lines`: samples of
    the drill, {"t", "kind": "gateway", "node", "pending"}; a gateway that says nothing has what it said last."""
    pending, totals = {}, []
    for line in lines:
        sample = json.loads(line)
        if sample.get("kind") == "gateway" and "pending" in sample:
            pending[sample["node"]] = sample["pending"]
            totals.append((start_ns + int(sample["t"] * 1e9), sum(pending.values())))
    baseline = max((total for at, total in totals if at < fault_ns[0]), default=0)
    return service.drained(totals, fault_ns[1], baseline)


def write(result, path):
    # One row of numbers a line: the series are long.
    text = json.dumps(result, indent=1)
    text = re.sub(r"\[\s+(-?[\d.]+),\s+(-?[\d.]+)\s+\]", r"[\1, \2]", text)
    pathlib.Path(path).write_text(text + "\n", encoding="utf-8")
