"""Reads ranges of topics as a read_committed consumer of its own: no group is joined, no offset is committed, so that
the live path (Kafka Connect's consumer) neither waits nor moves."""

import time
import uuid
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition


class KafkaUnavailable(Exception):
    """The brokers did not answer in time; the text says which question."""


@dataclass
class Range:
    """Offsets of one partition. `until` is not included; after read(): the offset up to which all was seen."""
    topic: str
    part: int
    first: int
    until: int
    low: int                     # the first offset that the broker still has
    records: int = field(default=0)

    @property
    def whole(self):
        return self.first == 0 and self.low == 0


def _is_absent(topic):
    return topic.error is not None and topic.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def _consumer(bootstrap):
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"sluice-warehouse-{uuid.uuid4()}", "enable.auto.commit": False,
        "isolation.level": "read_committed", "auto.offset.reset": "error", "enable.partition.eof": True,
        "socket.timeout.ms": 10000, "log_level": 3,
    })


def _partitions(consumer, topic, timeout_s):
    found = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if topic.endswith(".dlq") and (found is None or _is_absent(found)):
        return []  # a dead-letter topic comes with its first record; any other that is not there is a wrong name
    if found is None or found.error or not found.partitions:
        raise KafkaUnavailable(f"{topic}: {found.error.str() if found and found.error else 'no such topic'}")
    return sorted(found.partitions)


def ranges(bootstrap, topics, part=None, offsets=(None, None), times_ms=(None, None), timeout_s=20):
    """What lies in the topics now, cut to offsets or to times (of receipt); bounds that are None do not cut."""
    consumer, found = _consumer(bootstrap), []
    try:
        for topic in topics:
            for each in _partitions(consumer, topic, timeout_s):
                if part is not None and each != part:
                    continue
                place = TopicPartition(topic, each)
                low, high = consumer.get_watermark_offsets(place, timeout=timeout_s)
                first, until = low, high
                for index, at in enumerate(times_ms):
                    if at is None:
                        continue
                    answer = consumer.offsets_for_times([TopicPartition(topic, each, int(at))], timeout=timeout_s)[0]
                    at_offset = answer.offset if answer.offset >= 0 else high
                    first, until = (max(first, at_offset), until) if index == 0 else (first, min(until, at_offset))
                first = first if offsets[0] is None else max(first, offsets[0])
                until = until if offsets[1] is None else min(until, offsets[1])
                found.append(Range(topic, each, first, max(first, until), low))
        return found
    except KafkaException as error:
        raise KafkaUnavailable(str(error)) from error
    finally:
        consumer.close()


def read(bootstrap, wanted, idle_s=20):
    """Yields the committed messages of the ranges. An open transaction ends its range early; `until` then says so."""
    open_ranges = {(each.topic, each.part): each for each in wanted if each.first < each.until}
    if not open_ranges:
        return
    consumer = _consumer(bootstrap)
    try:
        consumer.assign([TopicPartition(each.topic, each.part, each.first) for each in open_ranges.values()])
        heard = time.monotonic()
        while open_ranges:
            message = consumer.poll(0.5)
            if message is None:
                if time.monotonic() - heard > idle_s:
                    raise KafkaUnavailable(f"nothing came for {idle_s} s; {len(open_ranges)} partitions are not read")
                continue
            heard = time.monotonic()
            one = open_ranges.get((message.topic(), message.partition()))
            if message.error():
                if message.error().code() == KafkaError._PARTITION_EOF:
                    if one:
                        one.until = min(one.until, message.offset())
                        del open_ranges[one.topic, one.part]
                    continue
                if message.error().fatal() or not message.error().retriable():
                    raise KafkaUnavailable(message.error().str())
                continue
            if not one:
                continue
            if message.offset() < one.until:
                one.records += 1
                yield message
            if message.offset() + 1 >= one.until:
                del open_ranges[one.topic, one.part]
                consumer.incremental_unassign([TopicPartition(one.topic, one.part)])
    finally:
        consumer.close()


def header(message, name):
    """The last header of that name, as bytes; None without one."""
    values = [value for key, value in message.headers() or [] if key == name]
    return values[-1] if values else None
