"""Headers: bombs, floods, and fields where none belong."""

import h2raw
from registry import attack, check, check_honest


@attack(sabotage=("hpack", "continuation"), alone=True)
def hpack_bomb(target):
    """A block of one-byte references to a long entry of the dynamic table: 16 KB become megabytes."""
    before = target.rss()
    with target.h2() as client:
        entry = h2raw.hpack_field("bomb", "x" * 4000, first=0x40)
        reference = b"\xbe"  # index 62: the newest of the dynamic table
        client.send(h2raw.frame(h2raw.HEADERS, h2raw.END_HEADERS, 1, h2raw.block(fields=[]) + entry))
        for number in range(3, 200, 2):
            bomb = h2raw.block() + reference * 12000
            if not client.send(h2raw.frame(h2raw.HEADERS, h2raw.END_HEADERS, number, bomb)):
                break
        check(client.wait_closed(), "a header block of 12,000 fields was taken")
        grown = target.rss() - before
        check(grown < 8 << 20, f"memory grew by {grown >> 20} MiB")
    check_honest(target)


@attack(sabotage=("header-count",))
def too_many_header_fields_http2(target):
    with target.h2() as client:
        client.request(1, path=target.path, fields=[(f"x-{i}", "v") for i in range(300)])
        check(client.wait_answer(1).status == 431, f"300 fields got {client.stream(1).status}")
        client.request(3, path=target.path)
        check(client.wait_answer(3).status == 200, "the connection is to live on, and its compression with it")


@attack(sabotage_limits={"header-count": 100, "header-block": 100000})
def too_many_header_fields_http1(target):
    fields = "".join(f"X-{i}: v\r\n" for i in range(150))
    with target.h1() as client:
        client.send(f"GET {target.path} HTTP/1.1\r\nHost: t\r\n{fields}\r\n".encode())
        answer = client.answer()
        refused = answer is not None and answer.status == 431 and answer.is_problem()
        check(refused, "150 fields were not answered with 431")
        check(client.wait_closed(), "the connection was not closed")
    with target.h1() as client:  # one long one, that never ends
        client.send(f"GET {target.path} HTTP/1.1\r\nHost: t\r\nX: ".encode() + b"v" * 20000)
        answer = client.answer()
        check(answer is not None and answer.status == 431, "20,000 bytes of header were not answered with 431")
    check_honest(target)


@attack(sabotage=("hpack", "continuation"))
def header_block_too_long(target):
    with target.h2() as client:
        blob = h2raw.block(fields=[("x-long", "v" * 20000)])
        client.send(h2raw.frame(h2raw.HEADERS, h2raw.END_STREAM, 1, blob[:16384]))
        client.send(h2raw.frame(h2raw.CONTINUATION, h2raw.END_HEADERS, 1, blob[16384:]))
        check(client.wait_closed(), "a block of 20,000 bytes was taken")
        check(client.goaway_code() == h2raw.ENHANCE_YOUR_CALM, f"GOAWAY with {client.goaway_code()}")
    check_honest(target)


def continuation_flood(target, piece, most):
    """A block that never ends; `most` frames may be taken. A few more are sent, and then nothing: closed is what they
    alone lead to."""
    with target.h2() as client:
        client.send(h2raw.frame(h2raw.HEADERS, 0, 1, h2raw.block()))
        client.send(h2raw.frame(h2raw.CONTINUATION, 0, 1, piece) * (most + 100))
        check(client.wait_closed(), f"{most + 100} CONTINUATION frames were taken")
    check_honest(target)


@attack(sabotage=("continuation",))
def continuation_flood_empty(target):
    continuation_flood(target, b"", 64)


@attack(sabotage=("continuation",))
def continuation_flood_long(target):
    continuation_flood(target, h2raw.hpack_field("x-more", "v" * 400), 64)


@attack(sabotage=("trailers",))
def trailers_are_no_headers(target):
    with target.h2() as client:
        client.request(1, end=False, path=target.path)
        client.send(h2raw.data(1, b"{}"))
        trailer = h2raw.hpack_field("x-extra", "smuggled")
        client.send(h2raw.frame(h2raw.HEADERS, h2raw.END_HEADERS | h2raw.END_STREAM, 1, trailer))
        answer = client.wait_answer(1)
        check(answer.status == 200, f"trailers got {answer.status}")
        check(b"smuggled" not in answer.body, "a trailer was taken for a header")
