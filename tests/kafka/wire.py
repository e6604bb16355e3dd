"""The few administrative requests of Kafka's protocol that tests need, without a client library and without a JVM each.

Only versions before the flexible encoding are used; Kafka 4.1 still takes them all. Every call opens its own connection
to the first broker that answers, with one deadline for all of it: brokers come and go in these tests.
"""

import socket
import struct
import time

METADATA, LIST_OFFSETS, FIND_COORDINATOR = 3, 2, 10
CREATE_TOPICS, DELETE_TOPICS, CREATE_PARTITIONS, INCREMENTAL_ALTER_CONFIGS = 19, 20, 37, 44

ERRORS = {
    3: "UNKNOWN_TOPIC_OR_PARTITION", 5: "LEADER_NOT_AVAILABLE", 6: "NOT_LEADER_OR_FOLLOWER", 7: "REQUEST_TIMED_OUT",
    14: "COORDINATOR_LOAD_IN_PROGRESS", 15: "COORDINATOR_NOT_AVAILABLE", 17: "INVALID_TOPIC",
    36: "TOPIC_ALREADY_EXISTS", 38: "INVALID_REPLICATION_FACTOR", 40: "INVALID_CONFIG", 41: "NOT_CONTROLLER",
    44: "POLICY_VIOLATION",
}


class WireError(Exception):
    """A broker said no. `code` is Kafka's error code, 0 when there was no answer at all."""

    def __init__(self, text, code=0):
        super().__init__(text)
        self.code = code


def _string(text):
    if text is None:
        return struct.pack(">h", -1)
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


class _Reader:
    def __init__(self, data):
        self.data, self.position = data, 0

    def take(self, layout):
        values = struct.unpack_from(layout, self.data, self.position)
        self.position += struct.calcsize(layout)
        return values[0]

    def i8(self):
        return self.take(">b")

    def i16(self):
        return self.take(">h")

    def i32(self):
        return self.take(">i")

    def i64(self):
        return self.take(">q")

    def string(self):
        length = self.i16()
        if length < 0:
            return None
        self.position += length
        return self.data[self.position - length:self.position].decode()

    def array(self, element):
        return [element() for _ in range(self.i32())]


def _receive(sock, length):
    parts = bytearray()
    while len(parts) < length:
        part = sock.recv(length - len(parts))
        if not part:
            raise WireError("connection closed by the broker")
        parts += part
    return bytes(parts)


def call(address, key, version, body, timeout_s=20.0):
    """One request to one broker. `address` is (host, port). Returns a reader of the answer's body."""
    try:
        with socket.create_connection(address, timeout=timeout_s) as sock:
            head = struct.pack(">hhi", key, version, 1) + _string("sluice-tests")
            sock.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
            length = struct.unpack(">i", _receive(sock, 4))[0]
            answer = _receive(sock, length)
    except OSError as error:
        raise WireError(f"{address[0]}:{address[1]}: {error}") from error
    reader = _Reader(answer)
    reader.i32()  # correlation id: there is one request a connection
    return reader


def _name(code):
    return ERRORS.get(code, f"error {code}")


def metadata(address, topics=None, timeout_s=20.0):
    """{'brokers': {id: (host, port)}, 'cluster': id, 'topics': {name: {'error', 'partitions': [...]}}}; None: all."""
    names = struct.pack(">i", -1) if topics is None else _array([_string(name) for name in topics])
    reader = call(address, METADATA, 5, names + b"\0", timeout_s)
    reader.i32()

    def broker():
        return reader.i32(), (reader.string(), reader.i32(), reader.string())[:2]

    def partition():
        return {
            "error": reader.i16(), "partition": reader.i32(), "leader": reader.i32(),
            "replicas": reader.array(reader.i32), "isr": reader.array(reader.i32), "offline": reader.array(reader.i32),
        }

    def topic():
        error, name, _internal = reader.i16(), reader.string(), reader.i8()
        partitions = sorted(reader.array(partition), key=lambda each: each["partition"])
        return name, {"error": error, "partitions": partitions}

    brokers = dict(reader.array(broker))
    cluster, _controller = reader.string(), reader.i32()
    return {"brokers": brokers, "cluster": cluster, "topics": dict(reader.array(topic))}


def find_transaction_coordinator(address, transactional_id, timeout_s=20.0):
    """The coordinator's node id. The first call on a fresh cluster makes the broker create __transaction_state."""
    reader = call(address, FIND_COORDINATOR, 2, _string(transactional_id) + b"\x01", timeout_s)
    reader.i32()
    code, text, node = reader.i16(), reader.string(), reader.i32()
    if code:
        raise WireError(f"transaction coordinator: {text or _name(code)}", code)
    return node


def high_watermarks(address, topic, partitions, timeout_s=20.0):
    """{partition: high watermark}, for those partitions whose leader this broker is; the others are left out."""
    wanted = [struct.pack(">iq", partition, -1) for partition in partitions]
    body = struct.pack(">ib", -1, 0) + _array([_string(topic) + _array(wanted)])
    reader = call(address, LIST_OFFSETS, 2, body, timeout_s)
    reader.i32()
    found = {}

    def one():
        partition, code, _time, offset = reader.i32(), reader.i16(), reader.i64(), reader.i64()
        if code == 0:
            found[partition] = offset

    reader.array(lambda: (reader.string(), reader.array(one)))
    return found


def _raise_first(results):
    for name, code, text in results:
        if code:
            raise WireError(f"{name}: {text or _name(code)}", code)


def create_topic(address, name, partitions, replication, config=None, timeout_s=60.0):
    configs = [_string(key) + _string(str(value)) for key, value in (config or {}).items()]
    topic = _string(name) + struct.pack(">ih", partitions, replication) + _array([]) + _array(configs)
    body = _array([topic]) + struct.pack(">ib", int(timeout_s * 1000), 0)
    reader = call(address, CREATE_TOPICS, 4, body, timeout_s)
    reader.i32()
    _raise_first(reader.array(lambda: (reader.string(), reader.i16(), reader.string())))


def delete_topic(address, name, timeout_s=20.0):
    body = _array([_string(name)]) + struct.pack(">i", int(timeout_s * 1000))
    reader = call(address, DELETE_TOPICS, 3, body, timeout_s)
    reader.i32()
    _raise_first(reader.array(lambda: (reader.string(), reader.i16(), None)))


def create_partitions(address, name, count, timeout_s=20.0):
    topic = _string(name) + struct.pack(">ii", count, -1)
    body = _array([topic]) + struct.pack(">ib", int(timeout_s * 1000), 0)
    reader = call(address, CREATE_PARTITIONS, 1, body, timeout_s)
    reader.i32()
    _raise_first(reader.array(lambda: (reader.string(), reader.i16(), reader.string())))


def alter_topic(address, name, config, timeout_s=20.0):
    """Sets topic settings; a value of None resets one to the broker's default."""
    changes = [_string(key) + (b"\1" + _string(None) if value is None else b"\0" + _string(str(value)))
               for key, value in config.items()]
    resource = struct.pack(">b", 2) + _string(name) + _array(changes)
    reader = call(address, INCREMENTAL_ALTER_CONFIGS, 0, _array([resource]) + b"\0", timeout_s)
    reader.i32()

    def result():
        code, text, _kind, resource_name = reader.i16(), reader.string(), reader.i8(), reader.string()
        return resource_name, code, text

    _raise_first(reader.array(result))


def first_answer(addresses, deadline_s, request):
    """Runs request(address) on one broker after another until one answers with success; the last error at the deadline.

    An error that asking elsewhere does not change (a topic that exists already, a wrong setting) is raised at once."""
    final = {17, 36, 38, 40, 44}
    end = time.monotonic() + deadline_s
    while True:
        error = WireError("no broker to ask")
        for address in addresses:
            try:
                return request(address)
            except WireError as refused:
                if refused.code in final:
                    raise
                error = refused
        if time.monotonic() >= end:
            raise error
        time.sleep(0.1)
