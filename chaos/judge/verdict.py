"""Everything together: README.md has the fields of the result."""

from chaos.judge import service, warehouse
from chaos.judge.requests import Requests
from tests.history import checker

# What a table of the warehouse may not have.
TABLE_DAMAGE = (("raw", "missing"), ("raw", "doubled"), ("raw", "phantom"), ("raw", "corrupt"),
                ("curated", "missing"), ("curated", "doubled"), ("curated", "phantom"))
DAMAGE = ("lost", "doubled", "resent", "phantom", "reordered", "corrupt", "unseen")
HARDLY_MS = 100  # a p99 below this tells of the machine, not of what was done to it


def read_histories(paths):
    """(checker.History, Requests)"""
    requests = Requests()
    history = checker.History(observe=requests.take)
    for path in paths:
        history.load(path)
    return history, requests.finish()


def split_runs(records, earlier):
    """(records to judge, those of `earlier`: names of runs that are not judged)."""
    prefixes = tuple(f"{run}-" for run in earlier)
    kept, others = [], []
    for each in records:
        (others if (each.event_id or "").startswith(prefixes) else kept).append(each)
    return kept, others


def _phases(requests, start_ns, fault_ns):
    """Latency before, during and after the fault."""
    if not fault_ns:
        return {"before": service.latency(requests, start_ns)}
    began, healed = fault_ns
    return {"before": service.latency(requests, start_ns, began), "during": service.latency(requests, began, healed),
            "after": service.latency(requests, healed)}


def _figures(result):
    """Flat names for criteria."""
    figures = {name: result["events"][name] for name in ("acked", *DAMAGE)}
    served, whole, phases = result["availability"], result["latency"]["whole"], result["latency"]
    figures.update(availability=served["after_retries"], availability_before_retries=served["before_retries"],
                   p50_ms=whole["p50_ms"], p99_ms=whole["p99_ms"], p999_ms=whole["p999_ms"],
                   rto_s=result["recovery"]["rto_s"], not_sent=served["not_sent"],
                   requests=served["due"], open_found=result["events"]["open_found"],
                   open_absent=result["events"]["open_absent"])
    for phase in ("before", "during", "after"):
        if phase in phases:
            figures[f"p99_{phase}_ms"] = phases[phase]["p99_ms"]
    if figures.get("p99_before_ms") and figures.get("p99_during_ms"):
        before, during = figures["p99_before_ms"], figures["p99_during_ms"]
        figures["p99_ratio"] = round(during / before, 3)
        figures["p99_grown"] = round(during / max(before, HARDLY_MS), 3)
    for table in ("raw", "curated"):
        for name, value in (result["warehouse"] or {}).get(table, {}).items():
            if isinstance(value, int):
                figures[f"{table}_{name}"] = value
            elif name == "freshness":
                figures.update({f"{table}_{each}": seconds for each, seconds in value.items()})
    return figures


def judge(history, requests, records, *, complete=True, dedupe="node", start_ns=None, fault_ns=(), earlier_runs=(),
          dsn=None, topics=(), unread=None):
    """The result as a dict for JSON. `records`: in the order of offsets within each partition. `fault_ns`: () or (from,
    to), CLOCK_MONOTONIC as start_ns (default: the start of the history). `unread`: why the topics were not read to
    their end."""
    start_ns = start_ns or requests.mono_ns
    records, others = split_runs(records, earlier_runs)
    found = checker.check(history, records, dedupe=dedupe, complete=complete)
    if unread:
        found.problems.append(unread)
    start_wall_ms = (requests.wall_ns + start_ns - requests.mono_ns) // 1_000_000
    stored = None
    if dsn:
        runs = {event.run for event in history.events.values()}
        prefixes = tuple(f"{run}-" for run in runs)
        stored = warehouse.judge(dsn, list(topics), records, others, lambda event_id: event_id.startswith(prefixes),
                                 start_wall_ms)
    result = {"version": 1, "passed": found.passed, "why": found.why(),
              "events": {**found.as_json(), "earlier": len(others)},
              "availability": service.availability(requests, history.not_sent),
              "latency": {"whole": service.latency(requests), **_phases(requests, start_ns, fault_ns)},
              "recovery": service.recovery(requests, *fault_ns) if fault_ns else {"rto_s": None},
              "seconds": service.seconds(requests, start_ns), "nodes": service.nodes(requests, start_ns),
              "warehouse": stored, "freshness": stored["freshness"] if stored else []}
    if stored and any(stored[table][what] for table, what in TABLE_DAMAGE):
        result["passed"] = False
        result["why"] = "; ".join(filter(None, [result["why"], *_why_tables(stored)]))
    result["figures"] = _figures(result)
    return result


def _why_tables(stored):
    for table, what in TABLE_DAMAGE:
        if stored[table][what]:
            yield f"{table}: {stored[table][what]} {what}: {stored[table]['samples'][what][0]}"


def line(result, name="load"):
    figures = result["figures"]
    percent = figures["availability"]
    shown = {"availability": "-" if percent is None else f"{int(percent * 1e5 + 1e-6) / 1e3:.3f}%",
             "p99": "-" if figures["p99_ms"] is None else f"{figures['p99_ms']:.1f}ms",
             "rto": "-" if figures["rto_s"] is None else f"{figures['rto_s']:.1f}s"}
    counts = " ".join(f"{each}={figures[each]}" for each in ("acked", "lost", "doubled", "reordered"))
    return f"{'PASS' if result['passed'] else 'FAIL'} {name} {counts} " + " ".join(f"{k}={v}" for k, v in shown.items())
