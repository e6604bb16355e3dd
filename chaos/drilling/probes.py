"""Questions about the cluster, for hypotheses and methods of drills. Each waits for its answer within a time, because
after a heal a cluster needs a while; it says "yes", or a sentence about what is missing, which a tolerance refuses."""

import json
import time

from chaos.stand import Cluster, gateways

EVERY_S = 0.2


def _until(fine, within_s):
    """Calls fine() → None when all is well, else a sentence; "yes", or the last sentence."""
    end = time.monotonic() + within_s
    while True:
        try:
            lacking = fine()
        except OSError as error:
            lacking = f"{type(error).__name__}: {error}"
        if lacking is None:
            return "yes"
        if time.monotonic() > end:
            return f"{lacking} (after {within_s:g} s)"
        time.sleep(EVERY_S)


def _zones(cluster, names):
    return [cluster.zone(name) for name in names] if names else cluster.zones


def _lacking(cluster):
    for zone in cluster.zones:
        ready, why = gateways.ready(zone)
        if not ready:
            return f"the gateway in {zone.name} is not ready: {why}"
        if cluster.peers_up(zone) < len(cluster.zones) - 1:
            return f"the gateway in {zone.name} has not both its peers"
    down = [f"{name} is {state}" for name, state in cluster.balancer_states().items() if state != "UP"]
    if down:
        return "the balancer: " + ", ".join(down)
    short = {name: count for name, count in cluster.out_of_sync().items() if count}
    if short:
        return f"replicas out of sync: {short}"
    # A broker that leads nothing has few clients: what is broken there next would hurt nobody.
    led = {name: count for name, count in cluster.led_by_others().items() if count}
    return f"partitions led by others than their first replica: {led}" if led else None


def steady(within_s=90):
    """Gateways ready with both peers, all of them in the balancer, every replica in sync and led by its first, nothing
    injected: "yes"."""
    cluster = Cluster.load()

    def fine():
        left = [each["text"] for each in cluster.injected.all().values()]
        return "still injected: " + ", ".join(left) if left else _lacking(cluster)
    return _until(fine, within_s)


def metric(zone, name, labels=""):
    """The sum over what carries the name and, when given, this text in its labels."""
    text = gateways.ask(zone, "/metrics", timeout_s=1)[1]
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith((name + " ", name + "{")) and labels in line)


def metric_reaches(name, at_least, zones=None, labels="", within_s=30):
    """The sum of a metric over the gateways of these zones: "yes" when it reaches a value in time."""
    cluster = Cluster.load()

    def fine():
        value = sum(metric(zone, name, labels) for zone in _zones(cluster, zones))
        return None if value >= at_least else f"{name} is {value:g}, not {at_least:g}"
    return _until(fine, within_s)


def metric_falls(name, at_most, zones=None, labels="", within_s=30):
    cluster = Cluster.load()

    def fine():
        value = sum(metric(zone, name, labels) for zone in _zones(cluster, zones))
        return None if value <= at_most else f"{name} is {value:g}, not at most {at_most:g}"
    return _until(fine, within_s)


def ready(zones=None, within_s=30):
    """Their gateways are ready: what the balancer asks."""
    cluster = Cluster.load()

    def fine():
        for zone in _zones(cluster, zones):
            well, why = gateways.ready(zone)
            if not well:
                return f"the gateway in {zone.name} is not ready: {why}"
        return None
    return _until(fine, within_s)


def not_ready(zone, within_s=30):
    """The balancer is told to leave this gateway out, or gets no answer."""
    cluster = Cluster.load()
    return _until(lambda: "it is ready" if gateways.ready(cluster.zone(zone))[0] else None, within_s)


def out_of_balancer(zone, within_s=30):
    cluster = Cluster.load()
    name = cluster.zone(zone).gateway.name
    return _until(lambda: None if cluster.balancer_states().get(name) != "UP" else f"{name} is UP", within_s)


def acknowledged_since(seconds=3, at_least=100, within_s=12):
    """Events that the gateways that answer accept in so many seconds: what goes on during a fault. Such a stretch must
    come within the time: in another one the machine may have stood still, or nobody answered the question."""
    cluster = Cluster.load()

    def total():
        found = {}
        for zone in cluster.zones:
            try:
                found[zone.name] = metric(zone, "sluice_events_total", 'outcome="accepted"')
            except OSError:
                continue
        return found

    def enough():
        before = total()
        time.sleep(seconds)
        after = total()
        gained = sum(after[name] - before[name] for name in before if name in after)
        return None if gained >= at_least else f"{gained:g} in {seconds:g} s, wanted {at_least:g}"
    return _until(enough, within_s)


def status_says(zone, word, within_s=30):
    """The words are somewhere in the gateway's /status: what its operator reads."""
    cluster = Cluster.load()

    def fine():
        status = json.loads(gateways.ask(cluster.zone(zone), "/status")[1])
        return None if word in json.dumps(status) else f"/status of {zone} does not say {word!r}"
    return _until(fine, within_s)


def log_says(zone, words, within_s=60):
    """A line of the gateway's log, written from now on, has all these words."""
    log = Cluster.load().zone(zone).gateway.log
    read_to = log.stat().st_size

    def fine():
        with open(log, encoding="utf-8", errors="replace") as lines:
            lines.seek(read_to)
            return None if any(all(word in line for word in words) for line in lines) else f"no line with {words}"
    return _until(fine, within_s)


def sealed_segment(zone, within_s=120):
    """The gateway has filled a segment of its own."""
    from chaos.faults import disk
    cluster = Cluster.load()
    return _until(lambda: None if disk.segments(cluster.zone(zone)) else f"{zone} has no sealed segment", within_s)
