"""The gateways: their configuration, their sources, starting them."""

import http.client
import json
import secrets

from chaos.stand import certificates, processes, shell
from chaos.stand.brokers import CLIENT_PORT
from chaos.stand.places import replace
from tests.lib.gateway import yaml

INGEST_PORT, ADMIN_PORT, PEER_PORT = 8080, 9464, 9470
SOURCE, TOPIC = "payments", "payments.events"
SPOOL_MAX = "2GiB"


def configuration(places, zone, zones):
    keys = places.dir / "keys"
    peers = [{"name": each.gateway.name, "zone": each.name, "address": f"{each.address}:{PEER_PORT}"}
             for each in zones if each is not zone]
    listen = {"ingest": [f"{zone.address}:{INGEST_PORT}"], "admin": f"0.0.0.0:{ADMIN_PORT}", "proxy_protocol": "v2"}
    brokers = ",".join(f"{each.address}:{CLIENT_PORT}" for each in zones)
    return {
        "node": {"name": zone.gateway.name, "zone": zone.name, "cluster": "chaos"},
        "listen": listen,
        "kafka": {"brokers": f'"{brokers}"', "properties": {"compression.type": "lz4"}},
        "spool": {"dir": str(zone.gateway.spool_dir), "segment": "4MiB", "max": SPOOL_MAX, "retain": "24h"},
        "dedupe": {"window": "24h", "memory": "128MiB", "key_file": str(keys / "dedupe.key")},
        "ha": {
            "ack": "az2", "listen": f"{zone.address}:{PEER_PORT}", "takeover_after": "5s", "peers": peers,
            "tls": {"certificate": f"{keys}/{zone.gateway.name}.pem", "key": f"{keys}/{zone.gateway.name}.key",
                    "ca": f"{keys}/ca.pem"},
        },
        "drain": {"accept_for": "2s", "timeout": "20s"},
        "log": {"level": "info"},
        "sources": str(places.dir / "sources"),
    }


def make_keys(places, zones):
    keys = places.dir / "keys"
    certificates.make_authority(keys)
    for zone in zones:
        certificates.issue(keys, zone.gateway.name)
    replace(keys / "dedupe.key", secrets.token_hex(16) + "\n", mode=0o600)


def write_source(places, name, settings):
    """A source of all three gateways. They read it when they start, or at a reload."""
    (places.dir / "sources").mkdir(exist_ok=True)
    full = {"source": name, "event_id": "/event_id", "key": "/account_id", **settings}
    replace(places.dir / "sources" / f"{name}.yaml", yaml(full))


def write_configuration(places, zone, zones):
    zone.gateway.config.parent.mkdir(parents=True, exist_ok=True)
    replace(zone.gateway.config, yaml(configuration(places, zone, zones)))


def environment(places, zone):
    """The shims that faults work through, when they were built: they do nothing until a fault says so."""
    shims = sorted((places.dir / "bin").glob("*.so"))
    if not shims:
        return {}
    scratch = zone.gateway.config.parent
    return {
        "LD_PRELOAD": ":".join(map(str, shims)),
        "SLUICE_FAULT_PREFIX": str(zone.disk.mount),
        "SLUICE_FAULT_CONTROL": str(scratch / "disk_fault.rules"),
        "SLUICE_FAULT_LOG": str(scratch / "disk_fault.log"),
        "SLUICE_CLOCK_SHIFT": str(scratch / "clock_shift"),
    }


def start(places, zone):
    """Does not wait until it is ready."""
    clock = zone.gateway.config.parent / "clock_shift"
    if not clock.exists():
        clock.write_bytes(bytes(16))  # faults/clock_shift.c: no shift, never read
    command = [places.dir / "bin" / "sluice", "serve", "-c", zone.gateway.config]
    return processes.spawn(places, zone.gateway.role, command, netns=zone.netns, environment=environment(places, zone),
                           cwd=zone.gateway.config.parent)


def ask(zone, path, method="GET", timeout_s=5):
    """(status, body) of the admin endpoint, asked from within the zone, so that no partition is in the way. OSError
    when there is no answer."""
    def body():
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"the admin endpoint in {zone.name}: {type(error).__name__}") from error
        finally:
            connection.close()
    return shell.within(zone.netns, body)


def ready(zone):
    """(True, "") or (False, why)."""
    try:
        status, text = ask(zone, "/readyz", timeout_s=2)
    except OSError as error:
        return False, str(error)
    return status == 200, "" if status == 200 else " ".join(text.split())[:200]


def status(zone):
    return json.loads(ask(zone, "/status")[1])


def log_tail(places, zone):
    path = places.dir / "logs" / f"{zone.gateway.role}.log"
    return path.read_text(errors="replace")[-1500:] if path.exists() else "(no log)"
