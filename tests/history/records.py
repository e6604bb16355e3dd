"""The records of topics as topic_read prints them."""

import os
import pathlib
import re
import subprocess
from dataclasses import dataclass, field

_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_PLAIN = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"\\": b"\\"}


class CutError(Exception):
    """The output has no last line, or counts wrongly: nothing may be concluded from what it lacks."""


@dataclass(slots=True)
class Record:
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    event_id: str | None
    stream: str | None
    seq: int | None
    crc32c: int | None
    rest: list = field(default_factory=list)  # bytes: the value and headers, when asked for


def _unescape(column):
    if column == b"\\N":
        return None
    if b"\\" not in column:
        return column
    return _ESCAPE.sub(lambda found: bytes([int(found[1][1:], 16)]) if len(found[1]) == 3 else _PLAIN[found[1]], column)


def _text(column):
    raw = _unescape(column)
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def _number(column):
    return None if column == b"\\N" else int(column)


def parse(lines):
    """Yields Records from topic_read's lines (bytes); raises CutError when they do not end as they should."""
    count, ended = 0, False
    for line in lines:
        column = line.rstrip(b"\n").split(b"\t")
        if column[0] == b"\\.":
            if int(column[1]) != count:
                raise CutError(f"{count} records, but the last line says {int(column[1])}")
            ended = True
            continue
        yield Record(column[0].decode(), int(column[1]), int(column[2]), int(column[3]), _text(column[4]),
                     _text(column[5]), _text(column[6]), _number(column[7]), _number(column[8]),
                     [_unescape(each) for each in column[9:]])
        count += 1
    if not ended:
        raise CutError(f"the output ends after {count} records without its last line")


def default_reader():
    build = os.environ.get("SLUICE_BUILD") or pathlib.Path(__file__).resolve().parent.parent.parent / "build-test"
    return pathlib.Path(build) / "tests" / "history" / "topic_read"


def read(brokers, topics, timeout_s=60, values=False, headers=False, missing_ok=False, reader=None):
    """All records of the topics, to the proven end. Raises CutError with topic_read's own words otherwise."""
    command = [str(reader or default_reader()), "-b", brokers, "--timeout", str(timeout_s)]
    command += ["--values"] * values + ["--headers"] * headers + ["--missing-ok"] * missing_ok
    with subprocess.Popen([*command, *topics], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            found, cut = list(parse(process.stdout)), None
        except CutError as error:
            found, cut = [], error
        text = process.stderr.read().decode(errors="replace")
    if process.returncode != 0 or cut:
        raise CutError(text.strip() or str(cut))
    return found


def header(record, name):
    """The value (bytes) of the last header of that name; None without it. Needs headers=True."""
    prefix = name.encode() + b"="
    found = [each for each in record.rest if each is not None and each.startswith(prefix)]
    return found[-1][len(prefix):] if found else None
