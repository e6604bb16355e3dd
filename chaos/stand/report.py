"""What the commands print."""

import json
import os

from chaos.stand import caps, gateways, monitoring, network, processes
from tests.kafka.wire import WireError


def addresses(cluster):
    for zone in cluster.zones:
        print(f"{zone.name}  {zone.address}  gateway {zone.gateway.name} (admin {zone.gateway.admin_url})  "
              f"broker {zone.broker.id}")
    print(f"kafka    {cluster.bootstrap}")
    print(f"balancer {cluster.balancer_status_url}")
    if cluster.warehouse:
        print(f"connect  {cluster.warehouse['connect_url']}/connectors")
        print(f'export SLUICE_WAREHOUSE="{cluster.warehouse["dsn"]}"')
    print(f"files    {cluster.dir} (logs/ has a file for each process)")
    print()
    print(f"send events to      {cluster.balancer_url}/v1/events/{cluster.source}")
    print(f"look at a gateway   {cluster.zones[0].gateway.admin_url}/")
    print(f"look at all of them {cluster.prometheus_url}/graph")


def _process(cluster, pid):
    if not pid:
        return "dead"
    return "frozen" if processes.stopped(pid) else "running"


def _gateway(cluster, zone):
    state = _process(cluster, zone.gateway.pid)
    if state != "running":
        return state
    fine, why = gateways.ready(zone)
    return "ready" if fine else f"not ready: {why[:60]}"


def _brokers(cluster):
    """{zone name: state}, asked of Kafka once."""
    try:
        short = cluster.out_of_sync()
    except WireError as error:
        short, trouble = None, str(error)
    found = {}
    for zone in cluster.zones:
        state = _process(cluster, zone.broker.pid)
        if state == "running":
            state = trouble if short is None else f"{short[zone.name]} out of sync" if short[zone.name] else "in sync"
        found[zone.name] = state
    return found


def _disk(disk):
    if not disk.mounted:
        return "gone"
    try:
        room = os.statvfs(disk.mount)
        return f"{100 - 100 * room.f_bavail // max(1, room.f_blocks)} %"
    except OSError as error:
        return error.strerror


def table(rows):
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())


def collect(cluster):
    brokers, balanced, injected = _brokers(cluster), cluster.balancer_states(), cluster.injected.all()
    zones = {}
    for zone in cluster.zones:
        zones[zone.name] = {
            "gateway": _gateway(cluster, zone), "balancer": balanced.get(zone.gateway.name, "unknown"),
            "broker": brokers[zone.name], "spool": _disk(zone.disk), "log": _disk(zone.broker.disk),
            "link": "up" if network.plugged(cluster.places, zone.name) else "down",
            "injected": cluster.injected.of(zone.name),
        }
    return {"zones": zones, "injected": [each["text"] for each in injected.values() if not each["zone"]],
            "warehouse": cluster.warehouse,
            "prometheus": _process(cluster, processes.find(cluster.places, monitoring.ROLE))}


def status(cluster, as_json=False):
    """Prints it; True when all is well and nothing is injected."""
    found = collect(cluster)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        rows = [("zone", "gateway", "balancer", "broker", "spool disk", "log disk", "link", "injected")]
        for name, each in found["zones"].items():
            rows.append((name, each["gateway"], each["balancer"], each["broker"], each["spool"], each["log"],
                         each["link"], "; ".join(each["injected"]) or "-"))
        table(rows)
        for text in found["injected"]:
            print(f"injected: {text}")
        print(f"warehouse: {'up' if found['warehouse'] else 'none'}")
    return not found["injected"] and all(
        (each["gateway"], each["balancer"], each["broker"], each["link"]) == ("ready", "UP", "in sync", "up")
        and not each["injected"] for each in found["zones"].values())


def capabilities(as_json=False):
    found = caps.probe()
    if as_json:
        print(json.dumps({name: {"there": each.there, "what": each.what, "reason": each.reason}
                          for name, each in found.items()}, indent=1))
        return
    table([("capability", "here", "for", "why not")] + [
        (each.name, "yes" if each.there else "no", each.what, each.reason) for each in found.values()])
