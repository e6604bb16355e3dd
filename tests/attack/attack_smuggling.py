"""Requests over HTTP/1.1 that two parsers may read as different ones."""

import h2raw
from registry import attack, check, check_honest

HOST, LENGTH, ENCODING = "Host: t\r\n", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"
HIDDEN = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

# Each must be refused with 400, and nothing behind it may be read as a request.
SHAPES = {
    "Content-Length and Transfer-Encoding": f"{HOST}{LENGTH}{ENCODING}\r\n0\r\n\r\n{HIDDEN}",
    "Transfer-Encoding and Content-Length": f"{HOST}{ENCODING}{LENGTH}\r\n0\r\n\r\n{HIDDEN}",
    "two different lengths": f"{HOST}Content-Length: 0\r\nContent-Length: {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "two equal lengths": f"{HOST}Content-Length: 0\r\nContent-Length: 0\r\n\r\n{HIDDEN}",
    "a list of lengths": f"{HOST}Content-Length: 0, 0\r\n\r\n{HIDDEN}",
    "a signed length": f"{HOST}Content-Length: +0\r\n\r\n{HIDDEN}",
    "a hexadecimal length": f"{HOST}Content-Length: 0x0\r\n\r\n{HIDDEN}",
    "a negative length": f"{HOST}Content-Length: -1\r\n\r\n{HIDDEN}",
    "an empty length": f"{HOST}Content-Length:\r\n\r\n{HIDDEN}",
    "a length too long for 64 bits": f"{HOST}Content-Length: 18446744073709551616\r\n\r\n{HIDDEN}",
    "two encodings": f"{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a list of encodings": f"{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "an unknown encoding": f"{HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "an encoding with a parameter": f"{HOST}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a folded encoding": f"{HOST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a folded line": f"{HOST}X: a\r\n b\r\nContent-Length: 0\r\n\r\n{HIDDEN}",
    "a space before the colon": f"{HOST}Content-Length : 0\r\n\r\n{HIDDEN}",
    "a tab before the colon": f"{HOST}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a line that ends with LF": f"{HOST}X: a\nContent-Length: 0\r\n\r\n{HIDDEN}",
    "a head that ends with LF": f"{HOST}Content-Length: 0\r\n\n{HIDDEN}",
    "a carriage return within a line": f"{HOST}X: a\rContent-Length: 5\r\n\r\n{HIDDEN}",
    "a NUL within a line": f"{HOST}X: a\0b\r\nContent-Length: 0\r\n\r\n{HIDDEN}",
    "no Host": f"Content-Length: 0\r\n\r\n{HIDDEN}",
    "two Hosts": f"{HOST}Host: u\r\nContent-Length: 0\r\n\r\n{HIDDEN}",
    "a line without a colon": f"{HOST}nonsense\r\n\r\n{HIDDEN}",
    "a header without a name": f"{HOST}: x\r\n\r\n{HIDDEN}",
}
CHUNKED = f"{HOST}Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = {
    "a chunk size that is none": f"{CHUNKED}xyz\r\n\r\n{HIDDEN}",
    "a signed chunk size": f"{CHUNKED}+1\r\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk size with 0x": f"{CHUNKED}0x1\r\nx\r\n0\r\n\r\n{HIDDEN}",
    "an empty chunk size": f"{CHUNKED}\r\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk size with a space": f"{CHUNKED}1 \r\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk size of 17 digits": f"{CHUNKED}00000000000000001\r\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk size beyond 64 bits": f"{CHUNKED}fffffffffffffffff\r\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk size that ends with LF": f"{CHUNKED}1\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk extension that ends with LF": f"{CHUNKED}1;a\nx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk longer than its size": f"{CHUNKED}1\r\nxy\r\n0\r\n\r\n{HIDDEN}",
    "a chunk that ends with LF": f"{CHUNKED}1\r\nx\n0\r\n\r\n{HIDDEN}",
    "a chunk that ends with CR CR LF": f"{CHUNKED}1\r\nx\r\r\n0\r\n\r\n{HIDDEN}",
    "a trailer that ends with LF": f"{CHUNKED}0\r\nX: y\n\r\n{HIDDEN}",
    "an endless chunk extension": f"{CHUNKED}1;{'a' * 500}\r\nx\r\n0\r\n\r\n{HIDDEN}",
}


def check_refused(target, name, request):
    with target.h1() as client:
        client.send(f"POST {target.path} HTTP/1.1\r\n{request}".encode("latin-1"))
        answer = client.answer()
        check(answer is not None and answer.status == 400, f"{name}: {answer and answer.status}")
        check(answer.is_problem(), f"{name}: no problem+json")
        check(client.answer() is None and client.closed, f"{name}: a second answer came")


@attack(sabotage=("smuggling",))
def smuggling_in_the_head(target):
    for name, shape in SHAPES.items():
        check_refused(target, name, shape)
    with target.h1() as client:
        client.send(f"POST {target.path} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}".encode())
        check(client.answer().status == 400, "Transfer-Encoding in HTTP/1.0")
    for garbage in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello tls", b"nonsense\r\n\r\n", b"GET /\r\n\r\n":
        with target.h1() as client:
            client.send(garbage)
            answer = client.answer()
            check(answer is not None and answer.status == 400 and answer.is_problem(), f"{garbage!r}")


@attack(sabotage_limits={"body-bytes": 1, "unfinished": 1000, "unfinished-connection": 1000})
def smuggling_in_the_chunks(target):
    for name, shape in CHUNKS.items():
        check_refused(target, name, shape)
    # The decoder is not just refusing everything:
    good = f"POST {target.path} HTTP/1.1\r\n{CHUNKED}3;name=value\r\nabc\r\n0A\r\n0123456789\r\n000\r\nX: y\r\n\r\n"
    with target.h1() as client:
        client.send(good.encode() * 2)
        for _ in range(2):
            answer = client.answer()
            check(answer is not None and answer.status == 200, "a good chunked body was refused")


@attack(sabotage=("content-length",))
def length_without_a_body_http2(target):
    with target.h2() as client:
        client.request(1, path=target.path, fields=[("content-length", "5")])
        check(client.wait_answer(1).status == 400, f"a length without a body got {client.stream(1).status}")
        for number, fields in (3, [("transfer-encoding", "chunked")]), (5, [("connection", "close")]):
            client.request(number, path=target.path, fields=fields)
        check(client.pump(lambda: client.closed or client.stream(3).status == 400),
              "a connection header was taken over HTTP/2")
    check_honest(target)


@attack(sabotage=("upgrade",))
def upgrade_with_frames_behind_it(target):
    """Frames in the same packet as the upgrade would pass the armour: the upgrade is ignored, they are garbage."""
    with target.h1() as client:
        upgrade = f"GET {target.path} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        client.send(f"{upgrade}HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".encode() + h2raw.PREFACE + h2raw.settings())
        answer = client.answer()
        check(answer is not None and answer.status == 200, f"{answer and answer.status}")
    check_honest(target)
