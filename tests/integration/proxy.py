#!/usr/bin/env python3
"""The gateway behind a balancer that speaks the PROXY protocol: by hand over clear text and TLS, and behind a real
HAProxy, with its health checks.

    tests/integration/proxy.py [SCENARIO ...]
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import shutil
import signal
import socket
import ssl
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "attack")]
import h2raw  # noqa: E402
from attack_connections import make_certificate  # noqa: E402
from tests.lib import processes, proxy_header  # noqa: E402
from tests.lib.client import environment_build  # noqa: E402
from tests.lib.gateway import Gateway  # noqa: E402
from tests.lib.places import ReservedPort, temporary_directory  # noqa: E402
from tests.lib.report import Failure, Skip, expect, run  # noqa: E402
from tests.lib.waiting import until  # noqa: E402

PATH = "/v1/events/payments"
REFUSED = "sluice_http_connections_refused_total"
CAP = 4


class Stand:
    """One gateway with the embedded cluster, whose addresses are clear text, TLS and a unix socket."""

    def __init__(self, version, accept_for="200ms"):
        self.home = pathlib.Path(temporary_directory("proxy"))
        make_certificate(self.home)
        self.tls_port, self.counter = ReservedPort(), 0
        sources = {"payments": {"topic": "payments.events"}}
        self.gateway = Gateway(environment_build()[1], self.home, "embedded", sources,
                               {"tls": {"certificate": "cert.pem", "key": "key.pem"},
                                "drain": {"accept_for": accept_for, "timeout": "120s"},
                                "limits": {"connections_per_address": CAP}})
        self.gateway.config["listen"].update({
            "ingest": [f"127.0.0.1:{self.gateway.ingest_port}", f"127.0.0.1:{self.tls_port.port} tls",
                       f"unix:{self.home}/ingest.sock"],
            "proxy_protocol": version})
        self.gateway.write_config()
        self.gateway.start()

    def secure(self, plain):
        context = ssl.create_default_context(cafile=str(self.home / "cert.pem"))
        return context.wrap_socket(plain, server_hostname="localhost")

    def post(self, connected):
        """One event over this connection; it must be taken. The connection stays."""
        self.counter += 1
        event = json.dumps({"event_id": f"e-{self.counter}", "account_id": "k"}).encode()
        connection = http.client.HTTPConnection("gateway", timeout=60)
        connection.sock = connected
        connection.request("POST", PATH, event, {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        expect(response.status == 200, f"status {response.status}: {answer[:300]!r}")
        return connected

    def refused(self, reason="proxy_header"):
        return int(self.gateway.metric(REFUSED, reason=reason))

    def close(self):
        self.gateway.close()
        self.tls_port.close()
        shutil.rmtree(self.home, ignore_errors=True)


def connect(port, *pieces, source=None):
    connected = socket.create_connection(("127.0.0.1", port), 60, (source, 0) if source else None)
    for piece in pieces:
        connected.sendall(piece)
    return connected


def is_closed(connected, request=b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"):
    connected.settimeout(60)
    try:
        connected.sendall(request)
        return connected.recv(1) == b""
    except ConnectionError:
        return True


def check_by_hand(version, header):
    stand = Stand(version)
    try:
        clear, tls = stand.gateway.ingest_port, stand.tls_port.port
        kept = [stand.post(connect(clear, header("192.0.2.7")[:9], header("192.0.2.7")[9:])) for _ in range(CAP - 1)]
        kept.append(stand.post(stand.secure(connect(tls, header("192.0.2.7")))))
        expect(is_closed(connect(clear, header("192.0.2.7"))), "the client is over its cap and was served")
        expect(stand.refused("connections_per_address") == 1, "the refusal was not counted")
        for _ in range(CAP + 2):  # each client for itself; the balancer's own address has no cap
            stand.counter += 1
            kept.append(stand.post(connect(clear, header(f"198.51.100.{stand.counter}"))))
        expect(stand.refused() == 0, "good headers were counted as refused")
        plain = socket.socket(socket.AF_UNIX)
        plain.connect(f"{stand.home}/ingest.sock")
        kept.append(stand.post(plain))
        expect(is_closed(connect(clear)), "no header, and it was served")
        expect(is_closed(connect(clear, b"\r\n\r\n\0\r\nQUIT\n\x31")), "a wrong version was served")
        expect(stand.refused() == 2, f"{stand.refused()} refusals were counted instead of 2")
        lines = [json.loads(line) for line in stand.gateway.log_lines() if "wants a header first" in line]
        expect(lines and lines[0]["peer"] == "127.0.0.1" and lines[0]["why"] == "no PROXY header",
               f"the log says {lines}")
        for each in kept:
            each.close()
        stand.gateway.stop()
    finally:
        stand.close()


def version_1():
    check_by_hand("v1", proxy_header.v1)


def version_2():
    check_by_hand("v2", lambda client: proxy_header.v2(client, checksum=True))


# ---- behind HAProxy


class HAProxy:
    """In front of one gateway: `port` for clear text, `tls_port` passes TLS on. `words`: of its server lines."""

    def __init__(self, stand, words, checks=()):
        self.home, self._ports = stand.home, (ReservedPort(), ReservedPort())
        self.port, self.tls_port = (each.port for each in self._ports)
        lines = ["global", f"  stats socket {self.home}/haproxy.sock level admin", "defaults", "  mode tcp",
                 "  timeout connect 5s", "  timeout client 60s", "  timeout server 60s", "  timeout check 5s"]
        for name, port, to in (("clear", self.port, stand.gateway.ingest_port),
                               ("tls", self.tls_port, stand.tls_port.port)):
            lines += [f"listen {name}", f"  bind 127.0.0.1:{port}", *(f"  {check}" for check in checks),
                      f"  server gateway 127.0.0.1:{to} {words}"]
        (self.home / "haproxy.cfg").write_text("\n".join(lines) + "\n")
        with open(self.home / "haproxy.log", "wb") as log:
            self.process = processes.spawn(["haproxy", "-db", "-f", self.home / "haproxy.cfg"], stdout=log, stderr=log)

    def ask(self, command):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connected:
            connected.connect(str(self.home / "haproxy.sock"))
            connected.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connected.recv(65536), b"")).decode()

    def servers(self):
        """{listen section: (status, how the last check ended)}; {} until it runs."""
        if self.process.poll() is not None:
            raise Failure(f"haproxy ended: {(self.home / 'haproxy.log').read_text()[-600:]}")
        try:
            rows = self.ask("show stat").lstrip("# ").splitlines()
        except OSError:
            return {}
        names = rows[0].split(",")
        stats = [dict(zip(names, row.split(","))) for row in rows[1:] if row]
        return {row["pxname"]: (row["status"], row["check_status"]) for row in stats if row["svname"] == "gateway"}

    def wait(self, status, check, timeout_s=180):
        wanted = {"clear": (status, check), "tls": (status, check)}
        until(lambda: self.servers() == wanted, lambda: f"haproxy says {self.servers()} and not {wanted}", timeout_s)

    def close(self):
        self.process.terminate()
        self.process.wait()
        for port in self._ports:
            port.close()


@contextlib.contextmanager
def behind_haproxy(words, checks=(), version="v2", **options):
    """`words` may name the gateway's {admin} port."""
    if not shutil.which("haproxy"):
        raise Skip("no haproxy (Debian package haproxy)")
    with contextlib.ExitStack() as held:
        stand = Stand(version, **options)
        held.callback(stand.close)
        haproxy = HAProxy(stand, words.format(admin=stand.gateway.admin_port), checks)
        held.callback(haproxy.close)
        yield stand, haproxy


def post_over_http2(stand, connected):
    stand.counter += 1
    client = h2raw.Connection(connected)
    client.request(1, end=False, path=PATH, method="POST", fields=[("content-type", "application/json")])
    client.send(h2raw.data(1, json.dumps({"event_id": f"e-{stand.counter}", "account_id": "k"}).encode(), end=True))
    answer = client.wait_answer(1)
    expect(answer.status == 200, f"over HTTP/2 status {answer.status}")
    client.close()


def serve_through(stand, haproxy):
    """The cap is each client's own, although the balancer has one address; and every way in works."""
    kept = [stand.post(connect(haproxy.port, source="127.0.0.2")) for _ in range(CAP - 1)]
    kept.append(stand.post(stand.secure(connect(haproxy.tls_port, source="127.0.0.2"))))
    expect(is_closed(connect(haproxy.port, source="127.0.0.2")), "the client is over its cap and was served")
    expect(stand.refused("connections_per_address") == 1, "the refusal was not counted")
    for last in range(3, 3 + 2 * CAP):
        kept.append(stand.post(connect(haproxy.port, source=f"127.0.0.{last}")))
    post_over_http2(stand, connect(haproxy.port, source="127.0.0.100"))
    expect(stand.refused() == 0, f"{stand.refused()} of HAProxy's headers were refused: {stand.gateway.log_tail()}")
    for each in kept:
        each.close()


def readyz():
    """As it is meant: PROXY v2 with its checksum; health checks on the admin endpoint's /readyz, without a header."""
    words = "send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 300ms fall 2 rise 1 port {admin}"
    checks = "option httpchk GET /readyz", "http-check expect status 200"
    with behind_haproxy(words, checks, accept_for="60s") as (stand, haproxy):
        haproxy.wait("UP", "L7OK")
        serve_through(stand, haproxy)
        stand.gateway.signal(signal.SIGTERM)  # /readyz turns to 503 while requests are still taken
        haproxy.wait("DOWN", "L7STS")
        stand.gateway.signal(signal.SIGTERM)
        expect(stand.gateway.wait_exit() == 128 + signal.SIGTERM, "a second SIGTERM ends at once")


def connect_checks():
    """HAProxy's own checks: it connects, sends a LOCAL header and goes."""
    with behind_haproxy("send-proxy-v2 proxy-v2-options crc32c check inter 300ms") as (stand, haproxy):
        haproxy.wait("UP", "L4OK")
        serve_through(stand, haproxy)
        seen = "sluice_http_connections_accepted_total"
        before = stand.gateway.metric(seen)
        until(lambda: stand.gateway.metric(seen) >= before + 5, "no check has arrived as a connection")
        expect(stand.refused() == 0, f"{stand.refused()} checks were refused: {stand.gateway.log_tail()}")
        haproxy.wait("UP", "L4OK")
        stand.gateway.stop()


def haproxy_version_1():
    with behind_haproxy("send-proxy check inter 300ms", version="v1") as (stand, haproxy):
        haproxy.wait("UP", "L4OK")
        serve_through(stand, haproxy)
        stand.gateway.stop()


def balancer_without_headers():
    """The mistake that will be made: nothing is served, it is counted, and the log says what is wrong."""
    with behind_haproxy("check inter 300ms") as (stand, haproxy):
        haproxy.wait("UP", "L4OK")  # its check is no more than a connection
        expect(stand.refused() == 0, "a look at the port was counted as a refusal")
        expect(is_closed(connect(haproxy.port)), "without a header, and it was served")
        expect(stand.refused() == 1, f"{stand.refused()} refusals instead of 1")
        expect(any("no PROXY header" in line for line in stand.gateway.log_lines()),
               f"the log ends: {stand.gateway.log_tail()}")
        stand.gateway.stop()


SCENARIOS = {each.__name__: each for each in (version_1, version_2, readyz, connect_checks, haproxy_version_1,
                                              balancer_without_headers)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help=f"default: all of {', '.join(SCENARIOS)}")
    options = parser.parse_args()
    unknown = set(options.scenario) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return 0 if all([run(name, SCENARIOS[name]) for name in options.scenario or SCENARIOS]) else 1


if __name__ == "__main__":
    sys.exit(main())
