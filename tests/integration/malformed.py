#!/usr/bin/env python3
"""Every malformed input that we could think of: its status, a problem+json that names the place, nothing stored.

Runs against a sanitized build: a leak or a bad access ends the gateway with a code that is not 0, which fails the last
case.
"""

import gzip
import http.client
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.lib.client import environment_build  # noqa: E402
from tests.lib.gateway import Gateway  # noqa: E402
from tests.lib.places import temporary_directory  # noqa: E402
from tests.lib.report import Failure, expect, run  # noqa: E402

JSON, LINES = "application/json", "application/x-ndjson"
GOOD = b'{"event_id":"a-1","account_id":"k"}'
MIB = 1 << 20


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def deep(depth):
    return b'{"event_id":"a","x":' + b"[" * depth + b"]" * depth + b"}"


# name, content type, body, status, index of the event (None: none named), byte offset (None: any)
BODIES = [
    ("empty body", JSON, b"", 400, 0, 0),
    ("blank body", JSON, b" \n\t ", 400, 0, None),
    ("empty array", JSON, b"[]", 400, 0, None),
    ("only blank lines", LINES, b"\n\r\n \n", 400, 0, None),
    ("not json", JSON, b"event", 400, 0, 0),
    ("truncated object", JSON, GOOD[:-1], 400, 0, len(GOOD) - 1),
    ("bad byte inside", JSON, b'{"event_id":"a",,"x":1}', 400, 0, 16),
    ("bad byte in the third of an array", JSON, b"[" + GOOD + b"," + GOOD + b',{"event_id" 1}]', 400, 2, None),
    ("missing comma in an array", JSON, b"[" + GOOD + b" " + GOOD + b"]", 400, None, len(GOOD) + 2),
    ("array never closed", JSON, b"[" + GOOD, 400, None, None),
    ("trailing comma in an array", JSON, b"[" + GOOD + b",]", 400, None, None),
    ("garbage behind an object", JSON, GOOD + b"x", 400, 0, len(GOOD)),
    ("garbage behind an array", JSON, b"[" + GOOD + b"]]", 400, None, len(GOOD) + 2),
    ("two objects as one document", JSON, GOOD + GOOD, 400, 0, len(GOOD)),
    ("bad second line", LINES, GOOD + b"\n{]\n", 400, 1, len(GOOD) + 2),
    ("object over two lines", LINES, b'{"event_id":\n"a"}\n', 400, 0, None),
    ("byte order mark", JSON, b"\xef\xbb\xbf" + GOOD, 400, 0, 0),
    ("duplicate key", JSON, b'{"event_id":"a","x":1,"x":2}', 400, 0, 22),
    ("duplicate key, escaped", JSON, b'{"event_id":"a","x":1,"\\u0078":2}', 400, 0, 22),
    ("duplicate key, nested", JSON, b'{"event_id":"a","n":{"m":{"k":1,"k":1}}}', 400, 0, None),
    ("raw NUL in a string", JSON, b'{"event_id":"a\x00b"}', 400, 0, 14),
    ("raw NUL between", JSON, b'{"event_id":"a"\x00}', 400, 0, 15),
    ("raw newline in a string", JSON, b'{"event_id":"a\nb"}', 400, 0, 14),
    ("invalid UTF-8", JSON, b'{"event_id":"a\xff"}', 400, 0, 14),
    ("overlong UTF-8", JSON, b'{"event_id":"\xc0\xaf"}', 400, 0, 13),
    ("UTF-8 surrogate", JSON, b'{"event_id":"\xed\xa0\x80"}', 400, 0, 13),
    ("lone high surrogate", JSON, b'{"event_id":"\\ud800"}', 400, 0, None),
    ("lone low surrogate", JSON, b'{"event_id":"\\udc00"}', 400, 0, None),
    ("bad escape", JSON, b'{"event_id":"\\x41"}', 400, 0, None),
    ("depth 65", JSON, deep(64), 400, 0, None),
    ("depth 10,000", JSON, deep(10000), 400, 0, None),
    ("depth 10,000, never closed", JSON, b'{"event_id":"a","x":' + b"[" * 10000, 400, 0, None),
    ("number beyond a double", JSON, b'{"event_id":"a","n":1e999}', 400, 0, 20),
    ("integer beyond 64 bits", JSON, b'{"event_id":"a","n":18446744073709551616}', 400, 0, 20),
    ("integer of 21 digits as id", JSON, b'{"event_id":123456789012345678901}', 400, 0, 12),
    ("leading zero", JSON, b'{"event_id":"a","n":01}', 400, 0, None),
    ("plus sign", JSON, b'{"event_id":"a","n":+1}', 400, 0, 20),
    ("NaN", JSON, b'{"event_id":"a","n":NaN}', 400, 0, 20),
    ("single quotes", JSON, b"{'event_id':'a'}", 400, 0, 1),
    ("comment", JSON, b'{"event_id":"a"/*x*/}', 400, 0, 15),
    ("a string", JSON, b'"a"', 422, 0, 0),
    ("a number", JSON, b"12", 422, 0, 0),
    ("null", JSON, b"null", 422, 0, 0),
    ("a string in an array", JSON, b"[" + GOOD + b',"a"]', 422, 1, len(GOOD) + 2),
    ("an array in an array", JSON, b"[[" + GOOD + b"]]", 422, 0, 1),
    ("an array on a line", LINES, b"[" + GOOD + b"]\n", 422, 0, 0),
    ("no event_id", JSON, b'{"account_id":"k"}', 422, 0, None),
    ("event_id null", JSON, b'{"event_id":null}', 422, 0, None),
    ("event_id empty", JSON, b'{"event_id":""}', 422, 0, None),
    ("event_id of 257 bytes", JSON, b'{"event_id":"' + b"a" * 257 + b'"}', 422, 0, None),
    ("event_id true", JSON, b'{"event_id":true}', 422, 0, None),
    ("event_id 1.5", JSON, b'{"event_id":1.5}', 422, 0, None),
    ("event_id an object", JSON, b'{"event_id":{}}', 422, 0, None),
    ("key an object", JSON, b'{"event_id":"a","account_id":{}}', 422, 0, None),
    ("third of four lacks its id", LINES, b"\n".join([GOOD, GOOD, b'{"x":1}', GOOD]), 422, 2, None),
    ("an event of 1 MiB", JSON, b'{"event_id":"a","x":"' + b"x" * MIB + b'"}', 413, 0, None),
    ("a body of 17 MiB", LINES, (GOOD + b"\n") * (17 * MIB // (len(GOOD) + 1)), 413, None, None),
]

# name, headers, body, status
ENCODED = [
    ("truncated gzip", {"content-encoding": "gzip"}, gzip.compress(GOOD)[:-3], 400),
    ("gzip with a bad checksum", {"content-encoding": "gzip"}, gzip.compress(GOOD)[:-8] + b"\0" * 8, 400),
    ("not gzip", {"content-encoding": "gzip"}, GOOD, 400),
    ("empty gzip", {"content-encoding": "gzip"}, b"", 400),
    ("garbage behind gzip", {"content-encoding": "gzip"}, gzip.compress(GOOD) + b"xx", 400),
    ("gzip bomb", {"content-encoding": "gzip"}, gzip.compress(b" " * (64 * MIB)), 413),
    ("truncated zstd", {"content-encoding": "zstd"}, zstd(GOOD)[:-3], 400),
    ("not zstd", {"content-encoding": "zstd"}, GOOD, 400),
    ("zstd bomb", {"content-encoding": "zstd"}, zstd(b" " * (1024 * MIB)), 413),
    ("unknown encoding", {"content-encoding": "br"}, GOOD, 415),
    ("two encodings", {"content-encoding": "gzip, zstd"}, GOOD, 415),
    ("no media type", {"content-type": None}, GOOD, 415),
    ("form data", {"content-type": "application/x-www-form-urlencoded"}, b"a=b", 415),
    ("media type with a longer name", {"content-type": "application/jsonx"}, GOOD, 415),
    ("binary CloudEvent", {"ce-id": "1", "ce-specversion": "1.0", "ce-source": "s", "ce-type": "t"}, GOOD, 415),
]

# name, method, path, status
ROUTES = [
    ("unknown source", "POST", "/v1/events/nobody", 404),
    ("no source", "POST", "/v1/events/", 404),
    ("a path below", "POST", "/v1/events/payments/x", 404),
    ("another path", "POST", "/v2/events/payments", 404),
    ("root", "GET", "/", 404),
    ("GET", "GET", "/v1/events/payments", 405),
    ("PUT", "PUT", "/v1/events/payments", 405),
    ("DELETE", "DELETE", "/v1/events/payments", 405),
    ("an odd path", "POST", "/v1/events/%70ayments", 404),
]

TAKEN = [
    ("one object", JSON, GOOD, 1),
    ("charset", "application/json; charset=utf-8", GOOD, 1),
    ("upper case media type", "APPLICATION/JSON", GOOD, 1),
    ("array", JSON, b" [ " + GOOD + b" , " + GOOD + b" ] ", 2),
    ("blank lines and CRLF", LINES, b"\r\n" + GOOD + b"\r\n\r\n" + GOOD, 2),
    ("an integer id", JSON, b'{"event_id":12}', 1),
    ("the largest integer", JSON, b'{"event_id":18446744073709551615}', 1),
    ("escaped NUL in a string", JSON, b'{"event_id":"a\\u0000b"}', 1),
    ("id of 256 bytes", JSON, b'{"event_id":"' + b"a" * 256 + b'"}', 1),
    ("depth 64", JSON, deep(63), 1),
    ("very small number", JSON, b'{"event_id":"a","n":1e-999}', 1),
    ("surrogate pair", JSON, b'{"event_id":"\\ud83d\\ude00"}', 1),
]


class Stand:
    def __init__(self):
        self.home = pathlib.Path(temporary_directory("malformed"))
        _build, binary = environment_build()
        self.gateway = Gateway(binary, self.home, "embedded", {
            "payments": {"topic": "payments.events"},
            "hooks": {"topic": "hooks.events", "event_id": "header:Webhook-Id"}},
            {"dedupe": {"window": 0}})  # the good bodies are sent again and again
        self.taken = 0

    def ask(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.ingest_port, timeout=60)
        try:
            connection.putrequest(method, path)
            for name, value in headers.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(body)))
            connection.endheaders()
            try:
                connection.send(body)
            except OSError:
                pass  # an answer may come before the body has been read: it is read below
            response = connection.getresponse()
            raw = response.read()
            return response.status, dict((k.lower(), v) for k, v in response.getheaders()), raw
        finally:
            connection.close()

    def problem(self, status, answer):
        got, headers, raw = answer
        expect(got == status, f"status {got} instead of {status}: {raw[:300]!r}")
        expect(headers.get("content-type") == "application/problem+json", f"content-type {headers.get('content-type')}")
        problem = json.loads(raw)
        expect(problem.get("status") == status and problem.get("title") and problem.get("detail"), f"problem {problem}")
        return problem, headers

    def refused(self, content_type, body, status, index, offset):
        problem, _ = self.problem(status, self.ask("POST", "/v1/events/payments", body, {"content-type": content_type}))
        if index is None and offset is None:
            return
        error = problem["errors"][0]
        expect(index is None or error["index"] == index, f"index {error.get('index')}, expected {index}: {problem}")
        expect(offset is None or error.get("offset") == offset, f"offset, expected {offset}: {problem}")
        expect(status != 422 or "offset" in error or "pointer" in error, f"no place: {problem}")

    def accepted(self, content_type, body, count, path="/v1/events/payments", headers=None):
        status, _, raw = self.ask("POST", path, body, {"content-type": content_type, **(headers or {})})
        expect(status == 200, f"status {status}: {raw[:300]!r}")
        answer = json.loads(raw)
        taken = answer["last_seq"] - answer["first_seq"] + 1
        expect(answer["accepted"] == count and taken == count, f"answer {answer}")
        expect(answer["first_seq"] == self.taken + 1, f"first_seq {answer['first_seq']} after {self.taken} events")
        self.taken += count

    def nothing_stored(self):
        spooled = self.gateway.metric("sluice_spooled_events_total")
        expect(spooled == self.taken, f"{spooled:g} events are in the spool, {self.taken} were answered with 2xx")

    def errors_list(self):
        body = b"[" + b",".join([b"{}"] * 3 + [GOOD] + [b"{}"] * 20) + b"]"
        problem, _ = self.problem(422, self.ask("POST", "/v1/events/payments", body, {"content-type": JSON}))
        indices = [error["index"] for error in problem["errors"]]
        expect(indices == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10], f"indices {indices}")
        expect(all(error["pointer"] == "/event_id" for error in problem["errors"]), f"pointers: {problem}")

    def header_ids(self):
        self.problem(422, self.ask("POST", "/v1/events/hooks", GOOD, {"content-type": JSON}))
        self.problem(422, self.ask("POST", "/v1/events/hooks", GOOD, {"content-type": JSON, "webhook-id": "x" * 257}))
        self.accepted(JSON, GOOD, 1, "/v1/events/hooks", {"webhook-id": "msg_1"})

    def counted(self):
        """Refused events are counted one by one: a request of 24 events is 24."""
        before = self.gateway.metric("sluice_events_total", source="payments", outcome="rejected")
        self.errors_list()
        after = self.gateway.metric("sluice_events_total", source="payments", outcome="rejected")
        expect(after - before == 24, f"{after - before:g} counted instead of 24")
        unknown = self.gateway.metric("sluice_events_total", source="_unknown", outcome="rejected")
        expect(unknown > 0, "unknown sources uncounted")
        self.gateway.check_sums(nothing_pending=False)


def main():
    stand = Stand()
    good = True
    try:
        stand.gateway.start()
        for name, kind, body, status, index, offset in BODIES:
            good &= run(name, lambda: stand.refused(kind, body, status, index, offset))
        for name, headers, body, status in ENCODED:
            good &= run(name, lambda: stand.problem(
                status, stand.ask("POST", "/v1/events/payments", body, {"content-type": JSON, **headers})))
        for name, method, path, status in ROUTES:
            def case(method=method, path=path, status=status):
                _, headers = stand.problem(status, stand.ask(method, path, GOOD, {"content-type": JSON}))
                expect(status != 405 or "POST" in headers.get("allow", ""), f"allow: {headers.get('allow')}")
            good &= run(name, case)
        good &= run("nothing stored", stand.nothing_stored)
        for name, kind, body, count in TAKEN:
            good &= run(name + " is taken", lambda: stand.accepted(kind, body, count))
        for encoding, data in (("gzip", gzip.compress(GOOD)), ("zstd", zstd(GOOD))):
            headers = {"content-encoding": encoding}
            good &= run(f"{encoding} is taken", lambda: stand.accepted(JSON, data, 1, headers=headers))
        good &= run("every event is named, up to ten", stand.errors_list)
        good &= run("ids from a header", stand.header_ids)
        good &= run("refused events are counted", stand.counted)
        good &= run("only what was taken is stored", stand.nothing_stored)
        good &= run("no leak, no bad access, exit 0", stand.gateway.stop)
    except Failure as failure:
        print(f"not ok malformed - {failure}")
        good = False
    finally:
        stand.gateway.close()
        shutil.rmtree(stand.home, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
