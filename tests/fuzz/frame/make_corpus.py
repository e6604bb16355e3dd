#!/usr/bin/python3
"""Cuts the corpus from tests/spool/golden/v1.seg anew: after a change of the format. Inputs that once broke the target
stay as they are.

    make_corpus.py GOLDEN CORPUS_DIR
"""

import pathlib
import struct
import sys

BLOCK = 4096
HEADER = 128
SEGMENT_HEADER, FRAME_HEADER, RECORDS, SEGMENT, IDS = range(5)


def frames(golden):
    """Yields offset, kind and body of each frame."""
    at = BLOCK
    while at < len(golden):
        (kind,) = struct.unpack_from("<H", golden, at + 10)
        (length,) = struct.unpack_from("<I", golden, at + 32)
        yield at, kind, golden[at + HEADER : at + HEADER + length]
        at += (HEADER + length + BLOCK - 1) // BLOCK * BLOCK


def put(data, offset, *values):
    changed = bytearray(data)
    changed[offset : offset + len(values)] = bytes(values)
    return bytes(changed)


def zero(data, start, end):
    return data[:start] + bytes(end - start) + data[end:]


def main():
    golden = pathlib.Path(sys.argv[1]).read_bytes()
    out = pathlib.Path(sys.argv[2])
    found = list(frames(golden))
    first, last_data = found[0], [frame for frame in found if frame[1] == 1][-1]
    ids = next(frame for frame in found if frame[1] == 3)
    seal = next(frame for frame in found if frame[1] == 2)
    second = found[1][0]
    header = golden[first[0] : first[0] + HEADER]
    block = golden[:1368]
    inputs = {
        "segment_header": (SEGMENT_HEADER, block),
        "segment_header_empty": (SEGMENT_HEADER, b""),
        "segment_header_many_lanes": (SEGMENT_HEADER, put(block, 76, 0xFF, 0xFF)),
        "segment_header_version": (SEGMENT_HEADER, put(block, 8, 2)),
        "frame_header": (FRAME_HEADER, header),
        "frame_header_huge": (FRAME_HEADER, put(header, 32, 0xFF, 0xFF, 0xFF, 0xFF)),
        "frame_header_reserved": (FRAME_HEADER, put(header, 100, 1)),
        "frame_header_seal": (FRAME_HEADER, golden[seal[0] : seal[0] + HEADER]),
        "frame_header_ids": (FRAME_HEADER, golden[ids[0] : ids[0] + HEADER]),
        "records": (RECORDS, first[2]),
        "records_cut": (RECORDS, first[2][:-7]),
        "records_empty": (RECORDS, b""),
        "records_header_over": (RECORDS, put(first[2], 20, 0xFF, 0xFF)),
        "records_length_over": (RECORDS, put(first[2], 0, 0xFF, 0xFF, 0xFF, 0x7F)),
        "ids": (IDS, ids[2]),
        "ids_cut": (IDS, ids[2][:-5]),
        "ids_empty": (IDS, b""),
        "ids_count_over": (IDS, put(ids[2], 8, 0xFF, 0xFF, 0xFF, 0xFF)),
        "ids_index_twice": (IDS, ids[2][:-20] + ids[2][-40:-20]),
        "segment": (SEGMENT, golden),
        "segment_empty": (SEGMENT, b""),
        "segment_cut": (SEGMENT, golden[: second + 1000]),
        "segment_trimmed": (SEGMENT, golden[: seal[0]]),
        "segment_flip_header": (SEGMENT, put(golden, second + 10, 0)),
        "segment_flip_middle": (SEGMENT, put(golden, second + 700, golden[second + 700] ^ 1)),
        "segment_flip_ids": (SEGMENT, put(golden, ids[0] + 150, golden[ids[0] + 150] ^ 1)),
        "segment_flip_ids_header": (SEGMENT, put(golden, ids[0] + 10, 9)),
        "segment_torn_ids": (SEGMENT, zero(golden, ids[0], len(golden))[: ids[0]] + golden[ids[0] : ids[0] + 256]
                             + bytes(len(golden) - ids[0] - 256)),
        "segment_lost_header": (SEGMENT, zero(golden, 0, BLOCK)),
        "segment_headless": (SEGMENT, zero(golden, last_data[0], len(golden))),
        "segment_hole": (SEGMENT, zero(golden, first[0], second)),
        "segment_misdirected": (SEGMENT, golden[:second] + golden[first[0] : first[0] + BLOCK]
                                + golden[second + BLOCK :]),
        "segment_no_seal": (SEGMENT, zero(golden, seal[0], len(golden))),
        "segment_torn": (SEGMENT, zero(golden, second + 512, second + 1024)[: last_data[0]]),
    }
    for name, (picks, data) in inputs.items():
        (out / name).write_bytes(bytes([picks]) + data)
    print(len(inputs), "inputs")


if __name__ == "__main__":
    main()
