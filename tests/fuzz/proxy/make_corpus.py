#!/usr/bin/env python3
"""Makes the corpus: headers of both versions, whole and damaged. Run in its folder."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.lib.proxy_header import CRC32C, NOOP, SIGNATURE, v1, v2  # noqa: E402

ONE, TWO, RIGHT = b"\1", b"\2", b"\3"  # the version; RIGHT: version 2, and the target puts the checksum right


def inputs():
    full = v2(vectors=[(NOOP, b""), (0xEA, b"\1vpce-08d2bf15fac5001c9"), (0x20, b"\1\0\0\0\0\x21\0\7TLSv1.3")],
              checksum=True)
    return {
        "v1_tcp4": ONE + v1() + b"GET / HTTP/1.1\r\n",
        "v1_tcp6": ONE + v1("2001:db8::7", "2001:db8::1"),
        "v1_tcp6_mapped": ONE + v1("::ffff:192.0.2.7", "::1"),
        "v1_unknown": ONE + b"PROXY UNKNOWN\r\n",
        "v1_unknown_longest": ONE + b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n",
        "v1_without_end": ONE + b"PROXY UNKNOWN " + b"f" * 120,
        "v1_nul": ONE + b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n",
        "v1_port": ONE + b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "v1_one_more": ONE + b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "v1_is_v2": ONE + v2(),
        "v2_is_v1": TWO + v1(),
        "v2_tls": TWO + b"\x16\x03\x01\x02\x00\x01",
        "v2_inet": TWO + v2() + b"PRI * HTTP/2.0\r\n\r\n",
        "v2_inet6": TWO + v2("2001:db8::7"),
        "v2_unix": TWO + SIGNATURE + b"\x21\x31\0\xd8" + b"/run/client.sock".ljust(108, b"\0") * 2,
        "v2_local": TWO + v2(None, checksum=True),
        "v2_unspecified": TWO + SIGNATURE + b"\x21\0\0\4junk",
        "v2_vectors": TWO + full,
        "v2_checksum_wrong": TWO + full[:-1] + b"\0",
        "v2_checksum_twice": RIGHT + v2(vectors=[(CRC32C, b"\0\0\0\0")], checksum=True),
        "v2_checksum_short": RIGHT + v2(vectors=[(CRC32C, b"\0\0")]),
        "v2_checksum_put_right": RIGHT + v2(vectors=[(CRC32C, b"\0\0\0\0"), (NOOP, b"padding")]),
        "v2_vector_beyond": TWO + SIGNATURE + b"\x21\x11\0\x10" + bytes(12) + b"\4\0\2x",
        "v2_too_long": TWO + SIGNATURE + b"\x21\x11\x0f\xf1" + bytes(4100),
        "v2_longest": TWO + v2(vectors=[(NOOP, bytes(4096 - 16 - 12 - 3))]),
        "v2_family": TWO + SIGNATURE + b"\x21\x41\0\0",
        "v2_short": TWO + SIGNATURE + b"\x21\x21\0\x23",
    }


if __name__ == "__main__":
    folder = Path(__file__).resolve().parent / "corpus"
    folder.mkdir(exist_ok=True)
    for name, content in inputs().items():
        (folder / name).write_bytes(content)
