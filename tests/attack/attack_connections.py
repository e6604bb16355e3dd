"""Too many connections, handshakes and PROXY headers that do not come."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile

import patience
from registry import Skip, attack, check, check_honest

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import proxy_header  # noqa: E402

CAP = 20


def open_many(target, count):
    """How many of so many connections are served."""
    clients = [target.h1() for _ in range(count)]
    for client in clients:
        client.send(f"GET {target.path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    served = sum(client.answer() is not None for client in clients)
    return clients, served


def check_cap(target):
    clients, served = open_many(target, CAP + 10)
    check(served == CAP, f"{served} of {CAP + 10} connections were served; the cap is {CAP}")
    for client in clients:
        client.close()


@attack(limits={"connections-address": CAP}, sabotage=("address-cap",))
def connections_of_one_address(target):
    check_cap(target)
    stats = target.wait_stats(lambda stats: stats["connections"] == 1)
    check(stats["refused_connections"] >= 10, "refusals were not counted")
    check_honest(target)
    target.wait_stats(lambda stats: stats["connections"] == 1)
    again, served = open_many(target, CAP)  # those that were closed do not count any more
    check(served >= CAP - 1, f"only {served} of {CAP} were served later")
    for client in again:
        client.close()


@attack(limits={"connections": CAP}, sabotage_limits={"connections": 1000})
def connections_in_all(target):
    check_cap(target)
    target.wait_stats(lambda stats: stats["connections"] == 1)
    check_honest(target)


@attack(limits={"connections-address": CAP}, extra=("--proxy-protocol", "v2"), sabotage=("address-cap",))
def connections_of_one_client_behind_a_balancer(target):
    target.preface = proxy_header.v2("192.0.2.7")
    clients, served = open_many(target, CAP + 10)
    check(served == CAP, f"{served} of {CAP + 10} connections of one client were served; the cap is {CAP}")
    target.preface = proxy_header.v2("2001:db8::7")
    check(target.stats()["refused_connections"] == 10, "refusals were not counted")
    check_honest(target)  # another client of the same balancer
    target.preface = proxy_header.v2("2001:db8::8")  # the same /64
    others, served = open_many(target, CAP + 10)
    check(served == CAP, f"{served} of {CAP + 10} connections of one /64 were served; the cap is {CAP}")
    for client in clients + others:
        client.close()


@attack(limits={"handshake-timeout": 3}, extra=("--proxy-protocol", "v2"), sabotage_limits={"handshake-timeout": 1000})
def proxy_header_that_does_not_come(target):
    header = proxy_header.v2()
    with target.h1() as silent, target.h1() as partial:
        partial.send(header[:-1])
        check(silent.wait_closed(), "a connection without its header stays open")
        check(partial.wait_closed(), "a connection with a part of its header stays open")
    target.preface = header
    check(target.stats()["refused_proxy"] == 2, "refusals were not counted")
    check_honest(target)


SOCKET = os.path.join(tempfile.gettempdir(), f"sluice-attack-{os.getpid()}.sock")


@attack(limits={"connections-address": CAP}, extra=("--listen", f"unix:{SOCKET}"), sabotage_limits={"connections": CAP})
def unix_sockets_have_no_address(target):
    def connect(receive_buffer=None):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(patience.seconds)
        connected.connect(SOCKET)
        return connected

    target.connect = connect
    clients, served = open_many(target, CAP + 10)
    check(served == CAP + 10, f"only {served} of {CAP + 10} connections over a unix socket were served")
    for client in clients:
        client.close()


def make_certificate(directory):
    if shutil.which("openssl") is None:
        raise Skip("no openssl to make a certificate with")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    words += ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tls_flags():
    directory = tempfile.mkdtemp(prefix="sluice-attack-")
    make_certificate(directory)
    files = ("--certificate", f"{directory}/cert.pem", "--key", f"{directory}/key.pem")
    return directory, ("--listen-tls", "127.0.0.1:0", *files)


@attack(limits={"handshake-timeout": 3}, extra=tls_flags, sabotage_limits={"handshake-timeout": 1000})
def tls_handshake_that_does_not_come(target):
    target.port = target.ports[1]
    with target.h1() as silent, target.h1() as partial:
        partial.send(b"\x16\x03\x01\x02\x00\x01")
        check(silent.wait_closed(), "a connection without a handshake stays open")
        check(partial.wait_closed(), "a connection with half a handshake stays open")
    target.port = target.ports[0]
    check_honest(target)
