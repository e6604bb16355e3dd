#!/usr/bin/env python3
"""Makes the corpus: each kind of message as docs/protocol-ha.md describes it, whole and damaged. Run in its folder."""
import struct
from pathlib import Path

RIGHT, AS_IS = 1, 0  # whether the target puts checksums right
HELLO, WELCOME, HEARTBEAT, FRAME, DURABLE, REFUSED, ASK_IDS, IDS = range(1, 9)


def text(value):
    return bytes([len(value)]) + value.encode()


def message(kind, content, body=b""):
    return struct.pack("<IIII", len(content) + len(body), 0, len(content), kind) + content + body


def hello(version=1, members=("gw-a1", "gw-b1", "gw-c1"), own=0, rest=bytes(16)):
    pairs = b"".join(text(name) + text("az-" + name[3:4]) for name in members)
    return message(HELLO, b"SLUICEHA" + struct.pack("<I", version) + text("payments") + bytes([len(members), own])
                   + pairs + rest)


def entry(stream, flags=0, base=1, end=9, lanes=1, predecessor=""):
    ids = b"".join(struct.pack("<I", 1000 + i) for i in range(lanes))
    return (text(stream) + struct.pack("<BQQB", flags, base, end, lanes) + ids + text(predecessor)
            + struct.pack("<Q", 4))


def heartbeat(entries, members=3, kafka=1):
    silence = b"".join(struct.pack("<q", 1000 * i) for i in range(members))
    return message(HEARTBEAT, bytes([kafka, members]) + silence + struct.pack("<QB", 7, len(entries))
                   + b"".join(entries))


def ids(count, business, body, end=0, stream="gw-a1.3-00c0ffee"):
    numbers = struct.pack("<QIIQqqI", 5, count, business, 2**64 - 1, 1, 2, 0)
    return message(IDS, bytes([end]) + text(stream) + numbers, body)


def record(length):
    return struct.pack("<I", length) + bytes(length)


def frame(body, first=1, last=2, flags=0, stream="gw-a1.3-00c0ffee", lanes=("payments",), predecessor=""):
    names = b"".join(text(lane) for lane in lanes)
    content = (text(stream) + struct.pack("<BQQQQqB", flags, first, last, 5, 6, 1700000000000000000, len(lanes))
               + names + text(predecessor) + struct.pack("<QI", 3, 0))
    return message(FRAME, content, body)


def inputs():
    two = record(60) + record(0)
    long_entry = entry("gw-c1.999999999999999999-ffffffff", 15, 5, 2**62 - 1, 16, "gw-c1.999999999999999998-00000001")
    durable = message(DURABLE, text("gw-b1.7-0000beef") + struct.pack("<Q", 12))
    return {
        "hello": hello(),
        "hello_two_members": hello(members=("gw-a1", "gw-b1"), own=1),
        "hello_other_version": hello(version=2, rest=bytes(30)),
        "hello_own_beyond_members": hello(own=3),
        "hello_no_members": hello(members=()),
        "hello_long": hello(rest=bytes(17)),
        "hello_magic": hello().replace(b"SLUICEHA", b"SLUICEHB"),
        "welcome": message(WELCOME, b""),
        "welcome_long": message(WELCOME, b"x"),
        "heartbeat_empty": heartbeat([]),
        "heartbeat": heartbeat([entry("gw-a1.3-00c0ffee", 3), entry("gw-b1.1-00000001", 8, 10, 9)]),
        "heartbeat_full": heartbeat([long_entry] * 64),
        "heartbeat_too_full": heartbeat([entry("gw-a1.3-00c0ffee")] * 65),
        "heartbeat_two_members": heartbeat([], members=2),
        "heartbeat_kafka_2": heartbeat([], kafka=2),
        "heartbeat_flags": heartbeat([entry("gw-a1.3-00c0ffee", 32)]),
        "heartbeat_lanes": heartbeat([entry("gw-a1.3-00c0ffee", lanes=17)]),
        "heartbeat_end": heartbeat([entry("gw-a1.3-00c0ffee", end=2**64 - 1)]),
        "heartbeat_stranger": heartbeat([entry("gw-x1.3-00c0ffee")]),
        "heartbeat_no_stream": heartbeat([entry("")]),
        "frame": frame(two),
        "frame_repair": frame(two, flags=1, predecessor="gw-a1.2-0000000f", lanes=("a", "b", "payments")),
        "frame_flags": frame(two, flags=2),
        "frame_no_lanes": frame(two, lanes=()),
        "frame_lane_without_name": frame(two, lanes=("",)),
        "frame_lane_with_blank": frame(two, lanes=("a b",)),
        "frame_17_lanes": frame(two, lanes=[f"lane{i}" for i in range(17)]),
        "frame_from_0": frame(two, first=0, last=1),
        "frame_backwards": frame(two, first=3, last=2),
        "frame_4_billion": frame(two, first=1, last=2**32),
        "frame_one_more": frame(two, last=3),
        "frame_one_less": frame(two, last=1),
        "frame_record_beyond_end": frame(record(60)[:-1], last=1),
        "frame_empty": frame(b"", last=1),
        "durable": durable,
        "durable_two_spellings": message(DURABLE, text("gw-b1.07-0000beef") + struct.pack("<Q", 12)),
        "durable_short": message(DURABLE, text("gw-b1.7-0000beef") + bytes(7)),
        "durable_with_body": message(DURABLE, text("gw-b1.7-0000beef") + struct.pack("<Q", 12), b"body"),
        "refused": message(REFUSED, text("gw-c1.1-00000000")),
        "kind_9": message(9, b""),
        "ask_nothing": message(ASK_IDS, struct.pack("<H", 0)),
        "ask_two": message(ASK_IDS, struct.pack("<H", 2) + text("gw-a1.3-00c0ffee") + struct.pack("<QQ", 1, 9)
                           + text("gw-b1.7-0000beef") + struct.pack("<QQ", 4, 4)),
        "ask_too_many": message(ASK_IDS, struct.pack("<H", 257)),
        "ids": ids(2, 1, bytes(2 * 24 + 20)),
        "ids_short": ids(2, 1, bytes(2 * 24)),
        "ids_more_business": ids(1, 2, bytes(24 + 40)),
        "ids_of_nobody": ids(2, 0, bytes(48), stream=""),
        "ids_end": ids(0, 0, b"", end=1, stream=""),
        "ids_end_with_some": ids(1, 0, bytes(24), end=1),
        "content_beyond_length": struct.pack("<IIII", 4, 0, 8, DURABLE) + bytes(8),
        "length_4_gib": struct.pack("<IIII", 2**32 - 1, 0, 16, FRAME) + bytes(16),
        "header_cut": durable[:15],
    }


def main():
    out = Path(__file__).resolve().parent / "corpus"
    out.mkdir(exist_ok=True)
    made = inputs()
    for name, data in made.items():
        (out / name).write_bytes(bytes([RIGHT]) + data)
    (out / "frame_checksum_wrong").write_bytes(bytes([AS_IS]) + made["frame"])
    print(len(made) + 1, "inputs")


if __name__ == "__main__":
    main()
