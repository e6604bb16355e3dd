"""Series over time for the plots and the progress line, from the sampler's samples and the judge's seconds."""

from chaos.drilling.sampler import SILENT

QUANTILE = 0.99


def quantile_ms(before, after, quantile=QUANTILE):
    """Of the answers between two readings of a cumulative histogram, [[upper bound in s, count]]: the upper bound of
    the bucket in which the quantile lies; None when nothing was answered, or the process began anew in between."""
    earlier = dict(map(tuple, before))
    gained = [[bound, count - earlier.get(bound, 0)] for bound, count in after]
    if not gained or gained[-1][1] <= 0 or any(count < 0 for _bound, count in gained):
        return None
    finite = [bound for bound, _count in gained if bound != "inf"]
    for bound, count in gained:
        if count >= quantile * gained[-1][1]:
            return (finite[-1] if bound == "inf" else bound) * 1e3
    return None


def _gateways(samples):
    by_node = {}
    for sample in samples:
        if sample["kind"] == "gateway":
            by_node.setdefault(sample["node"], []).append(sample)
    return by_node


def _steps(samples):
    """Pairs of neighbouring samples of one gateway that answered both times and lived all the while."""
    for before, after in zip(samples, samples[1:]):
        if SILENT not in (before["state"], after["state"]) and after["accepted"] >= before["accepted"]:
            yield before, after


def seconds(samples):
    """[{t, ok, failed, p99_ms}] as the gateways saw it: events accepted and refused a second, all gateways together."""
    rows = {}
    for rows_of_one in _gateways(samples).values():
        for before, after in _steps(rows_of_one):
            length = max(after["t"] - before["t"], 1e-3)
            row = rows.setdefault(int(after["t"]), {"t": int(after["t"]), "ok": 0, "failed": 0, "p99_ms": None})
            row["ok"] += (after["accepted"] - before["accepted"]) / length
            row["failed"] += (after["unavailable"] - before["unavailable"]) / length
            p99 = quantile_ms(before["ack"], after["ack"])
            if p99 is not None:
                row["p99_ms"] = max(p99, row["p99_ms"] or 0)
    return [rows[second] for second in sorted(rows)]


def gained(samples, name):
    """By how much a counter rose during the drill, over all gateways; a process that began anew counts from 0."""
    total = 0
    for rows in _gateways(samples).values():
        seen = [each[name] for each in rows if name in each]
        total += sum(after - before if after >= before else after for before, after in zip(seen, seen[1:]))
    return int(total)


def states(samples):
    """{node: [[from, to, state]]}; a stretch reaches to the next sample of that node."""
    found = {}
    for sample in samples:
        stretches = found.setdefault(sample["node"], [])
        if stretches:
            stretches[-1][1] = sample["t"]
        if not stretches or stretches[-1][2] != sample["state"]:
            stretches.append([sample["t"], sample["t"], sample["state"]])
    return found


def collect(samples, judged):
    """What the report plots. `judged`: the judge's own series win over what the sampler saw."""
    gateways = _gateways(samples)
    answered = {node: [each for each in rows if each["state"] != SILENT] for node, rows in gateways.items()}
    return {
        "seconds": judged.get("seconds") or seconds(samples),
        "seconds_of": "the load client" if judged.get("seconds") else "the gateways",
        "pending": {node: [[each["t"], each["pending"]] for each in rows] for node, rows in answered.items()},
        "lag": {node: [[each["t"], max(each["lag"].values(), default=0)] for each in rows]
                for node, rows in answered.items()},
        "oldest_s": {node: [[each["t"], each["oldest_s"]] for each in rows] for node, rows in answered.items()},
        "freshness": judged.get("freshness") or [],
        "states": states(samples),
        "zones": {each["node"]: each["zone"] for each in samples},
    }


def pending_now(latest, since_s=0):
    """Events that Kafka has not, over all gateways; None as long as one does not answer. `since_s`: by looks that began
    then or later, None before there is one of each: an older one knows nothing of what was taken after it."""
    gateways = [each for each in latest.values() if each["kind"] == "gateway"]
    if not gateways or any(each["state"] == SILENT or each["t"] < since_s for each in gateways):
        return None
    return int(sum(each["pending"] for each in gateways))


def silent_gateways(latest):
    """Names of those that do not answer."""
    return sorted(each["node"] for each in latest.values() if each["kind"] == "gateway" and each["state"] == SILENT)
