"""Headers of the PROXY protocol, written from its text (HAProxy's doc/proxy-protocol.txt) and not by the gateway's own
code."""

import ipaddress
import struct

from tests.lib.client import crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CRC32C, NOOP = 3, 4


def v1(client="192.0.2.7", destination="198.51.100.1", port=4660):
    family = "TCP4" if ipaddress.ip_address(client).version == 4 else "TCP6"
    return f"PROXY {family} {client} {destination} {port} 443\r\n".encode()


def v2(client="192.0.2.7", destination=None, port=4660, vectors=(), checksum=False):
    """client None: LOCAL. vectors: (type, value)."""
    command, family, addresses = 0x20, 0, b""
    if client is not None:
        address = ipaddress.ip_address(client)
        destination = destination or ("198.51.100.1" if address.version == 4 else "2001:db8::1")
        command, family = 0x21, 0x11 if address.version == 4 else 0x21
        addresses = address.packed + ipaddress.ip_address(destination).packed + struct.pack(">HH", port, 443)
    rest = addresses + b"".join(struct.pack(">BH", kind, len(value)) + value for kind, value in vectors)
    if checksum:
        rest += struct.pack(">BHI", CRC32C, 4, 0)
    header = SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest
    return header[:-4] + struct.pack(">I", crc32c(header)) if checksum else header
