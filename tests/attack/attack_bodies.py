"""Bodies: too long, too many, and in the wrong shape."""

import socket
import ssl
import time

import h1raw
import h2raw
from attack_connections import tls_flags
from registry import attack, check, check_honest
from target import Honest

BODY = {"body-bytes": 100000, "unfinished": 1000000, "unfinished-connection": 1000000}


def check_413(client, number, what):
    answer = client.wait_answer(number)
    check(answer.reset != h2raw.REFUSED_STREAM, f"{what}: REFUSED_STREAM, which asks for a repetition")
    check(answer.status == 413 and answer.ended, f"{what}: {answer.status}, reset {answer.reset}")


@attack(limits=BODY, sabotage=("answer-413",))
def oversized_body_http2(target):
    piece = b"x" * 16384
    with target.h2() as client:
        client.request(1, end=False, path=target.path, fields=[("content-length", "100001")])
        check_413(client, 1, "content-length")
        client.request(3, end=False, path=target.path)
        for _ in range(10):
            client.send(h2raw.data(3, piece))
        client.send(h2raw.data(3, b"", end=True))
        check_413(client, 3, "without content-length")
        client.request(5, end=False, path=target.path, fields=[("content-length", "200000")])
        for _ in range(13):
            client.send(h2raw.data(5, piece))
        check_413(client, 5, "content-length, sent all the same")
        client.request(7, end=False, path=target.path)  # exactly as long as is taken
        for _ in range(6):
            client.send(h2raw.data(7, piece))
        client.send(h2raw.data(7, b"x" * (100000 - 6 * 16384), end=True))
        check(client.wait_answer(7).status == 200, "a body of exactly the limit was refused")
        check(client.pump(lambda: client.window_returned > 20 * 16384),
              "thrown away bytes were not given back to the connection's window")


@attack(limits=BODY, sabotage_limits={"body-bytes": 1000000, "unfinished": 4000000, "unfinished-connection": 4000000})
def oversized_body_http1(target):
    for length, status in (100000, 200), (100001, 413):
        for chunked in False, True:
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
            body = b"x" * length
            with target.h1() as client:
                client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n".encode())
                client.send(b"%x\r\n%s\r\n0\r\n\r\n" % (length, body) if chunked else body)
                answer = client.answer()
                got = answer and answer.status
                check(got == status, f"{framing}, {length} bytes: {got}")
                if status == 413:
                    check(answer.is_problem(), "no problem+json")
                    check(client.wait_closed(), "the connection was not closed")


@attack(limits=BODY, sabotage=("linger",), alone=True)
def answer_arrives_before_the_reset(target):
    """A client that is still sending must be able to read why it was refused: no TCP reset on its answer."""
    for _ in range(20):
        with target.h1() as client:
            client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999\r\n\r\n".encode())
            for _ in range(30):
                client.send(b"x" * 65536)
            answer = client.answer()
            check(answer is not None and answer.status == 413, "the answer was lost")
            check(not client.reset_by_peer, "the connection was reset")


@attack(limits=BODY, sabotage=("linger",))
def answer_waits_for_a_slow_client(target):
    """The same over a slow line: as long as something comes, the connection is not reset."""
    with target.h1() as client:
        client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999\r\n\r\n".encode())
        for _ in range(16):
            client.send(b"x" * 1000)
            time.sleep(0.3)
        answer = client.answer()
        check(answer is not None and answer.status == 413, "the answer was lost")
        check(not client.reset_by_peer, "the connection was reset")


UPLOADS = 100
PIECE = 4 << 20
BUDGET = {"unfinished": 32 << 20, "unfinished-connection": 16 << 20, "body-bytes": 8 << 20}
# What is in flight while a connection is refused, and what the allocator keeps of what was freed: an arena a loop.
SLACK, SLACK_LOOP = 16 << 20, 8 << 20


def check_memory(target, clients, send_one):
    """Every client sends PIECE bytes of a body that it does not finish, a little each, all at once."""
    before, most = target.rss(), 0
    with Honest(target) as honest:
        for _ in range(PIECE // 65536):
            for client in clients:
                send_one(client)
            most = max(most, target.rss())
        # Whatever is left: the last of it has been read when an answer comes.
        check_honest(target)
        most = max(most, target.rss())
    check(honest.failure is None, honest.failure)
    check(honest.count > 0, "no honest request was answered during the attack")
    allowed = target.limits["unfinished"] + SLACK + target.loops * SLACK_LOOP
    check(most - before < allowed, f"memory grew by {(most - before) >> 20} MiB; {allowed >> 20} are allowed")
    if hasattr(target, "stats"):
        held = target.stats()["body_bytes"]
        check(held <= target.limits["unfinished"], f"{held >> 20} MiB of bodies are held")


@attack(limits=BUDGET, sabotage=("budget", "connection-budget"), alone=True)
def uploads_over_http1(target):
    clients = [target.h1() for _ in range(UPLOADS)]
    for client in clients:
        client.socket.settimeout(5)
        client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\nContent-Length: {8 << 20}\r\n\r\n".encode())
    check_memory(target, clients, lambda client: client.send(b"x" * 65536))
    for client in clients:
        client.close()


@attack(limits=BUDGET, extra=tls_flags, sabotage=("budget", "connection-budget"), alone=True)
def uploads_over_tls(target):
    """There the library reads by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    clients = []
    for _ in range(UPLOADS):
        plain = socket.create_connection((target.host, target.ports[1]), 10)
        client = h1raw.Connection(context.wrap_socket(plain))
        client.socket.settimeout(5)
        client.send(f"POST {target.path} HTTP/1.1\r\nHost: t\r\nContent-Length: {8 << 20}\r\n\r\n".encode())
        clients.append(client)
    check_memory(target, clients, lambda client: client.send(b"x" * 65536))
    for client in clients:
        client.close()


@attack(limits=BUDGET, sabotage=("budget", "connection-budget"), alone=True)
def uploads_over_http2(target):
    """A connection each."""
    clients = [target.h2() for _ in range(UPLOADS)]
    for client in clients:
        client.send(h2raw.window_update(0, 1 << 30))
        client.request(1, end=False, path=target.path)
    check_memory(target, clients, lambda client: client.send(h2raw.data(1, b"x" * 16384) * 4))
    for client in clients:
        client.close()


@attack(limits=BUDGET, sabotage=("budget", "connection-budget"), alone=True)
def uploads_over_one_connection(target):
    """100 streams of one connection: the connection's own budget; streams are refused, the connection lives."""
    with target.h2() as client:
        for number in range(1, 2 * UPLOADS, 2):
            client.request(number, end=False, path=target.path)
        numbers = list(range(1, 2 * UPLOADS, 2))

        def send_one(number):
            client.send(h2raw.data(number, b"x" * 16384) * 4)
            client.pump(lambda: False, 0)

        check_memory(target, numbers, send_one)
        for pongs in 1, 2:  # the first says that all is read, the second that what it led to is written
            client.send(h2raw.frame(h2raw.PING, 0, 0, b"all read"))
            check(client.pump(lambda: client.pongs == pongs), "the connection was not kept")
        refused = sum(client.stream(number).status == 503 for number in numbers)
        check(refused > 0, "no stream was refused with 503")
        left = next(number for number in numbers if client.stream(number).status is None)
        client.send(h2raw.data(left, b"", end=True))
        check(client.wait_answer(left).status == 200, "a stream that was within the budget was not served")


@attack(limits={**BUDGET, "connections-address": 5000}, sabotage=("budget",), extra=("--loops", "3"), alone=True)
def uploads_over_many_loops(target):
    """The budget holds for all loops together."""
    target.loops = 3
    uploads_over_http2(target)
