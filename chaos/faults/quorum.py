"""Who is the active controller: Kafka's DescribeQuorum, the one flexible request that faults need."""

from chaos.stand.brokers import CONTROLLER_PORT
from chaos.stand.shell import within
from tests.kafka import wire

DESCRIBE_QUORUM = 55


def _unsigned(reader):
    value, shift = 0, 0
    while True:
        byte = reader.i8() & 0xFF
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7


def _compact_string(reader):
    length = _unsigned(reader) - 1
    reader.position += length


def _ask(address):
    """The active controller's node id, asked of one controller: only the active one answers without an error."""
    name = b"__cluster_metadata"
    topic = bytes([len(name) + 1]) + name + b"\x02" + b"\0\0\0\0" + b"\0" + b"\0"  # one partition, 0; no tagged fields
    body = b"\0" + b"\x02" + topic + b"\0"  # the header's tagged fields come first
    reader = wire.call(address, DESCRIBE_QUORUM, 0, body, 2.0)
    _unsigned(reader)  # the header's tagged fields: none
    code = reader.i16()
    if code:
        raise wire.WireError(f"DescribeQuorum: error {code}", code)
    _unsigned(reader)
    _compact_string(reader)
    _unsigned(reader)
    reader.i32()
    code, found = reader.i16(), reader.i32()
    if code:
        raise wire.WireError(f"DescribeQuorum: error {code}", code)
    return found


def leader(ours, zones=None):
    """The node id of the active controller; WireError while there is none. Asked of the controllers themselves: a
    broker would pass the question on to the controller that it last knew."""
    error = wire.WireError("no controller to ask")
    for zone in zones or ours.zones:
        if not zone.broker.pid:
            continue
        try:
            return within(zone.netns, lambda zone=zone: _ask((zone.address, CONTROLLER_PORT)))
        except (wire.WireError, OSError) as refused:
            error = refused
    raise error
