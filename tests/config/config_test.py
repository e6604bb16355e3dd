#!/usr/bin/env python3
"""Tests of the configuration: config_test.py CONFIG_TOOL [--update] [unittest arguments].

Golden cases: each cases/NAME.yaml, and each cases/NAME/main.yaml with what lies beside it, is loaded; what the tool prints is
cases/NAME.expected. --update writes those files anew: read the difference before it is committed.
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CASES = HERE / "cases"
TOOL = ""
UPDATE = False

ENVIRONMENT = {
    "SLUICE_TEST_NODE": "gw-from-env",
    "SLUICE_TEST_SECRET": "Pa$$w0rd",
    "SLUICE_TEST_EMPTY": "",
}
MINIMAL = {"node.name": "gw-a1", "kafka.brokers": "b1:9092"}
MINIMAL_SOURCE = {"source": "payments", "topic": "payments.events", "event_id": "/event_id"}

# For each key a value that must be taken and one that must be refused. {file} is a readable file.
VALUES = {
    "node.name": ("gw-b2", "Gw"),
    "node.zone": ("az-b", "az_b"),
    "node.cluster": ("0", "a.b"),
    "listen.ingest": ('["127.0.0.1:0", "unix:/run/x"]', '["127.0.0.1"]'),
    "listen.admin": ("off", "9464"),
    "listen.proxy_protocol": ("v2", "v3"),
    "listen.threads": ("64", "0"),
    "tls.certificate": ("{file}", "/nonexistent/c.pem"),
    "tls.key": ("{file}", "/nonexistent/k.pem"),
    "tls.client_ca": (None, "{file}"),
    "kafka.brokers": ("embedded", "b1:0"),
    "kafka.properties": ("{ linger.ms: 5 }", "{ acks: 1 }"),
    "kafka.mode": ("idempotent", "fast"),
    "kafka.embedded_partitions": ("5", "3"),
    "spool.dir": ("spool", "[a]"),
    "spool.segment": ("1MiB", "1MB"),
    "spool.max": ("1GiB", "1"),
    "spool.retain": ("0", "1"),
    "spool.prepared": ("1", "17"),
    "spool.archive_command": (None, "cp"),
    "spool.encryption_key": (None, "key"),
    "dedupe.window": ("0", "31d"),
    "dedupe.memory": ("2MiB", "1"),
    "dedupe.key_file": ("key", "{}"),
    "dedupe.snapshot_every": ("1s", "0"),
    "ha.ack": ("kafka", "az2"),
    "ha.ack_timeout": ("10ms", "9ms"),
    "ha.tls": ("off", "on"),
    "ha.listen": ("0.0.0.0:9470", "0.0.0.0"),
    "ha.peers": ("[]", "gw-b1"),
    "ha.peer_wait": ("1ms", "61s"),
    "ha.takeover_after": ("1s", "1h5m"),
    "ha.turn": ("100ms", "2"),
    "ha.let_go_after": ("1h", "0"),
    "ha.order_wait": ("1s", "2d"),
    "ha.replica_bytes": ("1MiB", "1000000"),
    "sources": ("./sources/", "/nonexistent/sources"),
    "log.format": ("text", "logfmt"),
    "log.level": ("error", "fatal"),
    "log.core_dumps": ("true", "1"),
    "drain.accept_for": ("0", "5"),
    "drain.timeout": ("1m", "0"),
    "limits.body": ("1KiB", "1"),
    "limits.decoded": ("1KiB", "2GiB"),
    "limits.event": ("1KiB", "1000KiB"),
    "limits.depth": ("1024", "1025"),
    "limits.append": ("16MiB", "15MiB"),
    "limits.unfinished": ("32MiB", "31MiB"),
    "limits.unfinished_per_connection": ("128MiB", "129MiB"),
    "limits.header_block": ("1024", "1023"),
    "limits.headers": ("16", "15"),
    "limits.connections": ("1", "0"),
    "limits.connections_per_address": ("1000000", "1000001"),
    "limits.resets_per_minute": ("1", "-1"),
    "limits.control_frames_per_minute": ("100", "99"),
    "limits.request_timeout": ("100ms", "99ms"),
    "limits.response_timeout": ("1h", "61m"),
    "limits.idle_timeout": ("1d", "2d"),
    "limits.handshake_timeout": ("5s", "5sec"),
    "limits.connection_age": ("1h", "31d"),
    "limits.transaction_time": ("5s", "6s"),
    "limits.kafka_queue": ("1MiB", "1MB"),
    "limits.kafka_queue_events": ("100", "99"),
    "source": ("a", "a/b"),
    "topic": ("A._-z", "a/b"),
    "event_id": ('["header:X-Id", /a]', "id"),
    "key": ("/a/0", "a"),
    "time": ("/ts", '"header:date"'),
    "auth": (None, "{ api_keys: a }"),
    "schema": (None, "s.json"),
    "on_invalid": ("reject", "quarantine"),
    "on_drift": ("accept", "reject"),
    "on_conflict": ("quarantine", "drop"),
    "business_key.fields": ("[/a, /b/0]", "[a]"),
    "business_key.on_duplicate": ("drop", "reject"),
    "protect": (None, "[]"),
    "quota": (None, "{ burst: 2s }"),
    "priority": ("low", "lowest"),
    "lane": ("bulk", "Bulk"),
    "ack": ("disk", "az2"),
    "ack_timeout": ("5m", "6m"),
}


def tool(*arguments, cwd, **options):
    return subprocess.run([TOOL, *arguments], cwd=cwd, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, **options)


def schema():
    run = tool("schema", cwd=HERE)
    assert run.returncode == 0, run.stderr
    names = ("which", "path", "kind", "default", "least", "most", "reload")
    return [dict(zip(names, line.split("|"))) for line in run.stdout.splitlines()]


def as_yaml(values):
    """{'a.b': '1'} as YAML text, one key a line, and the line of each key."""
    blocks, lines, text = {}, {}, []
    for path, value in values.items():
        blocks.setdefault(path.rpartition(".")[0], []).append((path, value))
    for block, entries in blocks.items():
        if block:
            text.append(f"{block}:")
        for path, value in entries:
            text.append(("  " if block else "") + f"{path.rpartition('.')[2]}: {value}")
            lines[path] = len(text)
    return "\n".join(text) + "\n", lines


def normalised(output, directory):
    threads = max(1, min(64, os.sysconf("SC_NPROCESSORS_ONLN") // 2))
    return output.replace(str(directory), "{here}").replace(f"listen.threads = {threads}\n", "listen.threads = {half}\n")


class Golden(unittest.TestCase):
    maxDiff = None

    def check(self, directory, name, expected):
        run = tool("load", name, cwd=directory)
        self.assertEqual(run.stderr, "", "nothing on stderr: sanitizers and assertions write there")
        self.assertIn(run.returncode, (0, 1))
        output = normalised(run.stdout, directory)
        self.assertNotIn(ENVIRONMENT["SLUICE_TEST_SECRET"], output)
        for line in output.splitlines():
            if line.startswith("failed: "):
                break
            if run.returncode == 1:
                self.assertRegex(line, r"^[^:]+:[1-9][0-9]*: ")
        if UPDATE:
            expected.write_text(output)
        self.assertEqual(output, expected.read_text())

    def test_files(self):
        files = sorted(CASES.glob("*.yaml"))
        self.assertGreater(len(files), 40)
        for file in files:
            with self.subTest(case=file.name):
                self.check(CASES, file.name, file.with_suffix(".expected"))

    def test_directories(self):
        mains = sorted(CASES.glob("*/main.yaml"))
        self.assertGreater(len(mains), 4)
        for main in mains:
            with self.subTest(case=main.parent.name):
                self.check(main.parent, "main.yaml", CASES / (main.parent.name + ".expected"))

    def test_the_examples_load_without_a_warning(self):
        run = tool("load", "deploy/sluice.example.yaml", cwd=ROOT)
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)
        self.assertNotIn("warning:", run.stdout)
        self.assertIn("source = payments", run.stdout)
        self.assertIn("  file = deploy/sources/payments.example.yaml", run.stdout)

    def test_the_example_with_its_tls_lines(self):
        text = (ROOT / "deploy/sluice.example.yaml").read_text()
        text = re.sub(r'^( *)# (- "0|tls:|  certificate:|  key:)', r"\1\2", text, flags=re.MULTILINE)
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            (place / "sources").mkdir()
            for file in ("cert.pem", "key.pem"):
                (place / file).touch()
            (place / "sluice.yaml").write_text(text.replace("/etc/sluice/tls/", ""))
            run = tool("load", "sluice.yaml", cwd=place)
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)
        self.assertIn("0.0.0.0:8443 tls", run.stdout)
        self.assertIn(f"tls.key_file = {place}/key.pem", run.stdout)


class EveryKey(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # One process for some hundred loads: starting a sanitized one takes longer than they do.
        cls.process = subprocess.Popen([TOOL, "each"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)

    @classmethod
    def tearDownClass(cls):
        _, errors = cls.process.communicate(timeout=60)
        if errors or cls.process.returncode != 0:
            raise AssertionError(errors)

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        (self.place / "sources").mkdir()
        self.readable = self.place / "readable.pem"
        self.readable.touch()

    def write(self, which, path, value):
        values = dict(MINIMAL if which == "main" else MINIMAL_SOURCE)
        values[path] = value.replace("{file}", str(self.readable))
        if path in ("tls.certificate", "tls.key"):  # one is refused without the other
            values.setdefault("tls.certificate", str(self.readable))
            values.setdefault("tls.key", str(self.readable))
        if path == "business_key.on_duplicate":  # means nothing without the other
            values["business_key.fields"] = "/a"
        text, lines = as_yaml(values)
        main = text if which == "main" else as_yaml(MINIMAL)[0]
        (self.place / "main.yaml").write_text(main)
        if which == "source":
            (self.place / "sources/s.yaml").write_text(text)
        file = self.place / ("main.yaml" if which == "main" else "sources/s.yaml")
        return file, lines[path]

    def load(self, which, path, value):
        """(status, output, the beginning of a message about the key)"""
        file, line = self.write(which, path, value)
        print(self.place / "main.yaml", file=self.process.stdin, flush=True)
        output = []
        for text in self.process.stdout:
            if text.startswith("end "):
                return int(text.split()[1]), "".join(output), f"{file}:{line}: "
            output.append(text)
        self.fail(f"the tool has ended: {self.process.stderr.read()}")

    def test_the_table_covers_the_schema(self):
        self.assertEqual({row["path"] for row in schema()}, set(VALUES))

    def test_a_good_and_a_bad_value(self):
        for row in schema():
            good, bad = VALUES[row["path"]]
            with self.subTest(key=row["path"]):
                if good is not None:
                    status, output, _ = self.load(row["which"], row["path"], good)
                    self.assertEqual(status, 0, output)
                else:
                    self.assertEqual(row["kind"], "unsupported")
                status, output, place = self.load(row["which"], row["path"], bad)
                self.assertEqual(status, 1, output)
                errors = [line for line in output.splitlines() if "warning:" not in line]
                self.assertTrue(errors[0].startswith(place), output)
                self.assertIn(row["path"], errors[0])
                self.assertEqual(len(errors), 2, output)  # the one problem, and `failed:`

    def test_both_ends_of_every_range(self):
        for row in schema():
            if row["kind"] not in ("size", "count", "duration"):
                continue
            with self.subTest(key=row["path"]):
                for end in (row["least"], row["most"]):
                    _, output, _ = self.load(row["which"], row["path"], end)
                    self.assertNotIn(f"{row['path']} must be between", output)
                for beyond in self.beyond(row):
                    _, output, place = self.load(row["which"], row["path"], beyond)
                    self.assertIn(f"{place}{row['path']} must be between {row['least']} and {row['most']}, "
                                  f"is \"{beyond}\"", output)

    @staticmethod
    def beyond(row):
        units = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
                 "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
        step = "ms" if row["kind"] == "duration" else ""

        def number(text):
            digits, unit = re.fullmatch(r"(\d+)(\D*)", text).groups()
            return int(digits) * units[unit]

        values = [f"{number(row['most']) + 1}{step}"]
        least = number(row["least"])
        if least > 0:
            # A duration of nothing is written without a unit.
            values.append("0" if least == 1 else f"{least - 1}{step}")
        return values

    def test_empty_and_wrongly_shaped_values(self):
        for row in schema():
            if row["kind"] == "unsupported":
                continue
            for value, shape in (("", "empty"), ("null", "empty"), ("~", "empty"), ("[ [ a ] ]", "list"),
                                 ("{ a: { b: c } }", "block")):
                with self.subTest(key=row["path"], value=value):
                    status, output, place = self.load(row["which"], row["path"], value)
                    self.assertEqual(status, 1, output)
                    self.assertIn(place, output)
                    if shape == "empty" and row["path"] != "kafka.properties":
                        self.assertIn(f"{row['path']} must not be empty", output)

    def test_every_key_takes_its_value_from_a_file_or_the_environment(self):
        for row in schema():
            good, _ = VALUES[row["path"]]
            if good is None or good[0] in "[{" or row["kind"] == "unsupported":
                continue
            value = good.replace("{file}", str(self.readable))
            (self.place / "value").write_text(value + "\n")
            (self.place / "sources/value").write_text(value + "\n")
            os.environ["SLUICE_TEST_VALUE"] = value
            self.write(row["which"], row["path"], good)
            direct = tool("load", "main.yaml", cwd=self.place)
            self.assertEqual(direct.returncode, 0, direct.stdout)
            for reference in ('"file:value"', '"env:SLUICE_TEST_VALUE"'):
                with self.subTest(key=row["path"], reference=reference):
                    self.write(row["which"], row["path"], reference)
                    run = tool("load", "main.yaml", cwd=self.place)
                    self.assertEqual((run.stdout, run.stderr), (direct.stdout, ""))


class Document(unittest.TestCase):
    def test_every_key_is_documented_and_nothing_else(self):
        documented = {}
        which = None
        for line in (ROOT / "docs/configuration.md").read_text().splitlines():
            if line.startswith("## "):
                which = "source" if "source" in line.lower() else "main"
            row = re.match(r"\| `([a-z_.]+)` \|(.*)\|$", line)
            if row:
                key = (which, row[1])
                self.assertNotIn(key, documented)
                documented[key] = [cell.strip() for cell in row[2].split("|")]
        rows = {(row["which"], row["path"]): row for row in schema()}
        self.assertEqual(set(documented), set(rows))
        for key, row in rows.items():
            with self.subTest(key=key[1]):
                meaning, default, extent, when = documented[key]
                self.assertTrue(meaning)
                if row["kind"] == "unsupported":
                    self.assertEqual(when, "not supported yet")
                    continue
                self.assertEqual(default.replace("`", ""), row["default"] or "none")
                self.assertEqual(when, row["reload"])
                if row["kind"] in ("size", "count", "duration"):
                    self.assertEqual(extent.split(",")[0], f"{row['least']}–{row['most']}")


class Reloading(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        (self.place / "sources").mkdir()
        self.main = self.place / "main.yaml"
        self.source = self.place / "sources/s.yaml"

    def reload(self, change, main=None, source=None):
        """Loads, lets `change` edit the files, reloads. (status, text of the first load, text of the reload)"""
        self.main.write_text(as_yaml(main or MINIMAL)[0])
        self.source.write_text(as_yaml(source or MINIMAL_SOURCE)[0])
        with subprocess.Popen([TOOL, "reload", str(self.main)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT) as process:
            before = []
            for line in process.stdout:
                if line == "loaded\n":
                    break
                before.append(line)
            change()
            after, errors = process.communicate("go\n", timeout=60)
        self.assertEqual(errors, "")
        return process.returncode, "".join(before), after


class Reload(Reloading):
    def test_nothing_changed(self):
        status, before, after = self.reload(lambda: None)
        self.assertEqual((status, after), (0, before))

    def test_sources_change(self):
        def change():
            self.source.write_text(as_yaml(MINIMAL_SOURCE | {"topic": "new", "lane": "bulk"})[0])
            (self.place / "sources/t.yaml").write_text(as_yaml(MINIMAL_SOURCE | {"source": "more", "ack": "kafka"})[0])

        status, _, after = self.reload(change)
        self.assertEqual(status, 0)
        self.assertNotIn("warning", after)
        self.assertIn("  topic = new\n", after)
        self.assertIn("source = more\n", after)
        self.assertIn("lane = bulk\nlane = main\n", after)

    def test_a_lane_that_runs_stays(self):
        status, _, after = self.reload(lambda: self.source.write_text(as_yaml(MINIMAL_SOURCE)[0]),
                                       source=MINIMAL_SOURCE | {"lane": "bulk"})
        self.assertEqual(status, 0)
        self.assertIn("lane = bulk\nlane = main\n", after)
        self.assertIn("  lane = main\n", after)

    def test_lanes_that_run_count(self):
        def write(numbers, prefix):
            for number in numbers:
                (self.place / f"sources/{prefix}{number}.yaml").write_text(
                    as_yaml(MINIMAL_SOURCE | {"source": f"{prefix}{number}", "lane": f"{prefix}{number}"})[0])

        write(range(14), "a")
        status, _, after = self.reload(lambda: write(range(1), "b"))
        self.assertEqual(status, 0, after)
        status, _, after = self.reload(lambda: write(range(1, 2), "b"))
        self.assertEqual(status, 1, after)
        self.assertIn("one more than the 16", after)

    def test_every_other_key_keeps_its_value(self):
        readable = self.place / "readable.pem"
        readable.touch()
        other = self.place / "other.pem"
        other.touch()
        base = MINIMAL | {"tls.certificate": str(readable), "tls.key": str(readable),
                          "listen.ingest": '"127.0.0.1:8443 tls"', "kafka.properties": "{ linger.ms: 7 }",
                          "dedupe.window": "0", "spool.max": "99GiB"}
        changed_to = {"tls.certificate": str(other), "tls.key": str(other), "listen.ingest": '"127.0.0.1:8444 tls"',
                      "dedupe.window": "48h", "spool.segment": "128MiB"}
        tried = 0
        for row in schema():
            path = row["path"]
            stored_nowhere = ("ha.listen", "ha.peers", "ha.tls")  # ha: Cell, below
            if row["which"] != "main" or row["kind"] == "unsupported" or row["reload"] == "reload" or path in stored_nowhere:
                continue
            value = changed_to.get(path, VALUES[path][0])
            text, lines = as_yaml(base | {path: value})
            with self.subTest(key=path):
                status, before, after = self.reload(lambda: self.main.write_text(text), main=base)
                warning, _, values = after.partition("\n")
                self.assertEqual(warning, f"{self.main}:{lines[path]}: warning: {path} takes effect at restart")
                # The running value was read from another line of the file; all else is as it was.
                self.assertEqual(self.without_lines(values), self.without_lines(before))
                self.assertEqual(status, 0)
                tried += 1
        self.assertGreater(tried, 40)

    @staticmethod
    def without_lines(text):
        return re.sub(r"^(kafka\.properties\[\d+\]) = \d+", r"\1", text, flags=re.MULTILINE)

    def test_a_source_inherits_the_running_level(self):
        text = as_yaml(MINIMAL | {"ha.ack": "kafka", "ha.ack_timeout": "9s"})[0]
        status, _, after = self.reload(lambda: self.main.write_text(text))
        self.assertEqual(status, 0)
        self.assertIn("  ack = disk\n  ack_timeout_ns = 5000000000\n", after)

    def test_errors_leave_the_old_one(self):
        for text in ("node: [\n", as_yaml(MINIMAL | {"spool.dirr": "/x"})[0], ""):
            with self.subTest(text=text):
                status, _, after = self.reload(lambda: self.main.write_text(text))
                self.assertEqual(status, 1)
                self.assertRegex(after, r"main\.yaml:\d+: (?s:.*)\nfailed: ")
        status, _, after = self.reload(lambda: self.source.write_text("source: x\n"))
        self.assertEqual(status, 1)
        self.assertIn("s.yaml:1: topic is missing", after)
        status, _, after = self.reload(lambda: self.main.unlink())
        self.assertEqual(status, 1)
        self.assertIn("main.yaml:1: the file cannot be opened", after)


class Cell(Reloading):
    """ha.peers with everything that a node of a cell needs."""

    def setUp(self):
        super().setUp()
        self.key = self.place / "cell.key"
        self.key.write_text("0123456789abcdef" * 2 + "\n")
        self.key.chmod(0o600)
        for name in ("a.pem", "b.pem"):
            (self.place / name).touch()
        self.cell = MINIMAL | {
            "node.zone": "az-a", "dedupe.key_file": "cell.key", "ha.listen": '"0.0.0.0:9470"',
            "ha.tls": "{ certificate: a.pem, key: a.pem, ca: a.pem }",
            "ha.peers": '[ { name: gw-b1, zone: az-b, address: "gw-b1:9470" } ]'}

    def load(self, mode="load"):
        (self.place / "sources/s.yaml").write_text(as_yaml(MINIMAL_SOURCE)[0])
        self.main.write_text(as_yaml(self.cell)[0])
        return tool(mode, "main.yaml", cwd=self.place)

    def test_the_level_is_az2_by_itself(self):
        run = self.load()
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("\nha.ack = az2\n", run.stdout)
        self.assertIn("  ack = az2\n", run.stdout)
        self.assertNotIn("warning", run.stdout)

    def test_a_key_that_others_can_read(self):
        self.key.chmod(0o644)
        run = self.load()
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stdout.count("dedupe.key_file"), 2, run.stdout)  # the one problem, and `failed:`

    def test_what_runs_stays(self):
        changes = {"ha.tls": "{ certificate: a.pem, key: b.pem, ca: a.pem }",
                   "ha.peers": '[ { name: gw-b1, zone: az-b, address: "gw-b1:9471" } ]',
                   "ha.listen": '"0.0.0.0:9471"', "ha.ack": "disk"}
        for path, value in changes.items():
            text, lines = as_yaml(self.cell | {path: value})
            with self.subTest(key=path):
                status, before, after = self.reload(lambda: self.main.write_text(text), main=self.cell)
                self.assertEqual(status, 0, after)
                warning, _, values = after.partition("\n")
                self.assertEqual(warning, f"{self.main}:{lines[path]}: warning: {path} takes effect at restart")
                self.assertEqual(values, before)


class Files(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        (self.place / "main.yaml").write_text(as_yaml(MINIMAL)[0])

    def load(self, name="main.yaml"):
        run = tool("load", name, cwd=self.place)
        self.assertEqual(run.stderr, "")
        return run

    def test_missing_directory_and_too_large(self):
        self.assertIn("none.yaml:1: the file cannot be opened: No such file", self.load("none.yaml").stdout)
        self.assertIn(".:1: the file is a directory", self.load(".").stdout)
        (self.place / "large.yaml").write_text("# \n" * 400_000)
        self.assertIn("large.yaml:1: the file is larger than 1024 KiB", self.load("large.yaml").stdout)

    def test_no_sources_directory_is_a_warning(self):
        run = self.load()
        self.assertEqual(run.returncode, 0)
        self.assertIn("main.yaml:1: warning: there are no sources: sources does not exist", run.stdout)

    def test_a_pipe_or_directory_among_the_sources_does_not_hang(self):
        (self.place / "sources").mkdir()
        os.mkfifo(self.place / "sources/pipe.yaml")
        (self.place / "sources/folder.yaml").mkdir()
        run = self.load()
        self.assertEqual(run.returncode, 1)
        self.assertIn("main.yaml:1: sources/pipe.yaml is not a regular file", run.stdout)
        self.assertIn("main.yaml:1: sources/folder.yaml is a directory", run.stdout)

    def test_dangling_link_among_the_sources(self):
        (self.place / "sources").mkdir()
        (self.place / "sources/a.yaml").symlink_to("nowhere")
        self.assertIn("main.yaml:1: sources/a.yaml cannot be opened", self.load().stdout)

    def test_as_kubernetes_mounts_it(self):
        data = self.place / "sources/..2026_01_01"
        data.mkdir(parents=True)
        (data / "s.yaml").write_text(as_yaml(MINIMAL_SOURCE)[0])
        (self.place / "sources/..data").symlink_to("..2026_01_01")
        (self.place / "sources/s.yaml").symlink_to("..data/s.yaml")
        run = self.load()
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertEqual(run.stdout.count("source = "), 1)

    def test_large_values_and_many_entries(self):
        (self.place / "big").write_bytes(b"x" * 70_000)
        (self.place / "main.yaml").write_text(as_yaml(MINIMAL | {"node.zone": '"file:big"'})[0])
        self.assertIn("node.zone: file:big is larger than 64 KiB", self.load().stdout)
        (self.place / "main.yaml").write_text("a: 1\n" * 2 + "".join(f"k{i}: 1\n" for i in range(1100)))
        self.assertIn("main.yaml:1002: more than 1000 keys in one block", self.load().stdout)
        (self.place / "main.yaml").write_text("a: [" + "[1,2,3,4,5,6,7,8,9],\n" * 20_000 + "]\n")
        self.assertIn("more than 100000 values in one file", self.load().stdout)

    def test_the_main_file_may_be_a_pipe(self):
        run = tool("load", "/dev/stdin", cwd=self.place, input=as_yaml(MINIMAL | {"spool.retain": "x"})[0])
        self.assertIn("/dev/stdin:", run.stdout)
        self.assertIn("spool.retain must be a duration", run.stdout)


if __name__ == "__main__":
    TOOL = str(Path(sys.argv.pop(1)).resolve())
    if "--update" in sys.argv:
        UPDATE = True
        sys.argv.remove("--update")
    unittest.main()
