"""How well the service answered: availability, latency, and the time until it was steady again after a fault."""

from bisect import bisect_left

from chaos.judge.requests import NEVER

SECOND_NS = 1_000_000_000
SLOW_NS = SECOND_NS        # a request that took longer was not served steadily, even if its first attempt succeeded
STEADY_NS = 5 * SECOND_NS  # that long without trouble is steady
TOLERATED = 0.001          # share of requests due within a second


def quantile(ordered, q):
    """The nearest rank of sorted values; None of none."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


def _ms(ns):
    return None if ns is None else round(ns / 1e6, 3)


def latency(requests, start_ns=None, end_ns=None):
    """Of the requests due in [start, end) that were acknowledged, in ms from when they were due."""
    low = 0 if start_ns is None else bisect_left(requests.due, start_ns)
    high = len(requests) if end_ns is None else bisect_left(requests.due, end_ns)
    took = sorted(requests.done[each] - requests.due[each] for each in range(low, high) if requests.done[each] != NEVER)
    return {"count": len(took), "p50_ms": _ms(quantile(took, 0.5)), "p99_ms": _ms(quantile(took, 0.99)),
            "p999_ms": _ms(quantile(took, 0.999)), "max_ms": _ms(took[-1] if took else None)}


def availability(requests, not_sent=0):
    """Of all requests that were due: acknowledged by the first attempt, and in the end. Those that there was no room to
    send count as not served."""
    due = len(requests) + not_sent
    first, last = sum(requests.first_ok), sum(done != NEVER for done in requests.done)
    return {"due": due, "not_sent": not_sent, "ok_first": first, "ok": last,
            "before_retries": first / due if due else None, "after_retries": last / due if due else None}


def seconds(requests, start_ns):
    """One row for each second of [start, last request]: requests due in it, by what became of them."""
    rows, low = [], bisect_left(requests.due, start_ns)
    if low == len(requests):
        return rows
    for second in range((requests.due[-1] - start_ns) // SECOND_NS + 1):
        end = start_ns + (second + 1) * SECOND_NS
        high = bisect_left(requests.due, end, low)
        took = sorted(requests.done[each] - requests.due[each] for each in range(low, high)
                      if requests.done[each] != NEVER)
        first = sum(requests.first_ok[low:high])
        rows.append({"t": second, "due": high - low, "ok": len(took), "ok_first": first,
                     "failed": high - low - len(took), "retried": len(took) - first, "p50_ms": _ms(quantile(took, 0.5)),
                     "p99_ms": _ms(quantile(took, 0.99)), "max_ms": _ms(took[-1] if took else None)})
        low = high
    return rows


def nodes(requests, start_ns):
    """{gateway: [[t, events acknowledged in that second]]}"""
    found, base = {}, start_ns // SECOND_NS
    for (node, second), count in sorted(requests.acks.items()):
        found.setdefault(node, []).append([second - base, count])
    return found


def _bad(requests, index, slow_ns):
    return not requests.first_ok[index] or requests.done[index] - requests.due[index] > slow_ns


def recovery(requests, fault_ns, until_ns=None, slow_ns=SLOW_NS, steady_ns=STEADY_NS, tolerated=TOLERATED):
    """From the first request that a fault hurt to the moment from which the service was steady again.

    A request is hurt when its first attempt failed or it took longer than slow_ns; a second of due times is in trouble
    when more than `tolerated` of its requests are. A request may have been due before the fault and have been under way
    then; the clock starts at the fault in that case. Steady: steady_ns without a second in trouble. `rto_s` is 0 when
    nothing was hurt before until_ns, None when the requests end before it was steady.
    """
    low, end = bisect_left(requests.due, fault_ns - 60 * SECOND_NS), until_ns or float("inf")
    troubled, first = [], None
    for index in range(low, len(requests)):
        due, done = requests.due[index], requests.done[index]
        if due >= fault_ns:
            break
        if (done == NEVER or done > fault_ns) and _bad(requests, index, slow_ns):
            first = fault_ns  # under way when the fault came
    at = bisect_left(requests.due, fault_ns)
    while at < len(requests):
        stop = bisect_left(requests.due, fault_ns + ((requests.due[at] - fault_ns) // SECOND_NS + 1) * SECOND_NS, at)
        hurt = [requests.due[each] for each in range(at, stop) if _bad(requests, each, slow_ns)]
        if len(hurt) > tolerated * (stop - at):
            troubled.append((hurt[0], hurt[-1]))
        at = stop
    if first is None:
        if not troubled or troubled[0][0] >= end:
            return {"rto_s": 0.0, "first_hurt_s": None, "steady_s": None}
        first = troubled[0][0]
    last = first - 1
    for start, stop in troubled:
        if start - last > steady_ns:
            break
        last = max(last, stop)
    after = bisect_left(requests.due, last + 1)
    steady = after < len(requests) and requests.due[-1] - last >= steady_ns
    back = requests.due[after] if steady else None
    return {"rto_s": round((back - first) / 1e9, 3) if steady else None,
            "first_hurt_s": round((first - fault_ns) / 1e9, 3),
            "steady_s": round((back - fault_ns) / 1e9, 3) if steady else None}


def drained(samples, since_ns, baseline=0):
    """`samples`: [(mono_ns, pending)] in order. Seconds from `since_ns` until pending events were no more than
    `baseline`, and stayed so; None when they were not."""
    back = None
    for mono_ns, pending in samples:
        if mono_ns < since_ns:
            continue
        if pending > baseline:
            back = None
        elif back is None:
            back = mono_ns
    return None if back is None else round((back - since_ns) / 1e9, 3)
