#!/usr/bin/env python3
"""./quickstart as a newcomer meets it, and its comparison: it must see a loss and a double."""
import importlib.machinery
import importlib.util
import os
import re
import select
import signal
import subprocess
import sys
import time
import unittest
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The build is within these; a machine that lacks librdkafka builds that too.
FIRST_RUN_SECONDS = 1500
UP_SECONDS = 300


def load_script(name):
    sys.path.insert(0, str(ROOT / "scripts"))
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(ROOT / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Comparison(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.dont_write_bytecode = True
        cls.run_module = load_script("quickstart-run")

    def test_all_there_once(self):
        self.assertEqual(self.run_module.compare({b"a", b"b"}, [b"b", b"a"]), (2, 0, 0, 0))

    def test_lost(self):
        self.assertEqual(self.run_module.compare({b"a", b"b"}, [b"b"]), (1, 1, 0, 0))

    def test_doubled(self):
        self.assertEqual(self.run_module.compare({b"a", b"b"}, [b"b", b"a", b"b", b"b"]), (2, 0, 2, 0))

    def test_changed_on_the_way(self):
        self.assertEqual(self.run_module.compare({b"a"}, [b"A"]), (0, 1, 0, 1))


class Sample(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(ROOT / "scripts"))
        cls.sample = load_script("sample.py")

    def test_duplicates_repeat_earlier_events_byte_for_byte(self):
        events = [event for batch in self.sample.batches(2000, duplicates=100, seed=1) for event in batch]
        self.assertEqual(len(events), 2000)
        self.assertEqual(len(set(events)), 1900)
        self.assertEqual(len({self.sample.event_id(event) for event in events}), 1900)

    def test_no_duplicates_unless_asked(self):
        events = [event for batch in self.sample.batches(2000, seed=2) for event in batch]
        self.assertEqual(len(set(events)), 2000)


class Quickstart(unittest.TestCase):
    def test_exit(self):
        done = subprocess.run([ROOT / "quickstart", "--exit"], stdout=subprocess.PIPE, text=True, check=False,
                              timeout=FIRST_RUN_SECONDS)
        self.assertEqual(done.stdout.splitlines()[-1:],
                         ["sent 10000 accepted 9500 duplicates 500 in_kafka 9500 lost 0 doubled 0"])
        self.assertEqual(done.returncode, 0)

    def test_stays_until_interrupted(self):
        process = subprocess.Popen([ROOT / "quickstart"], stdout=subprocess.PIPE, start_new_session=True)
        self.addCleanup(self.end, process)
        shown = self.read_until(process, "Read them:.*\n")
        status = re.search(r"status +(\S+)", shown)[1]
        with urllib.request.urlopen(status, timeout=60) as page:
            self.assertEqual(page.status, 200)
        # The ready-made lines, as they stand.
        answer = subprocess.run(re.search(r"Send one: +(.*)", shown)[1], shell=True, stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.DEVNULL, timeout=60, check=True).stdout
        self.assertRegex(answer, r"^HTTP/1\.1 200 ")
        self.assertIn('"accepted":1', answer.replace(" ", ""))
        self.wait_in_kafka(re.search(r"Read them: +(.*)", shown)[1], '"hello-1"')
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(180), 0)

    @staticmethod
    def end(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()

    def read_until(self, process, pattern):
        text = b""
        give_up = time.monotonic() + UP_SECONDS
        while not re.search(pattern, text.decode()):
            ready, _, _ = select.select([process.stdout], [], [], max(0, give_up - time.monotonic()))
            self.assertTrue(ready, f"not up after {UP_SECONDS} s; shown so far: {text.decode()}")
            chunk = os.read(process.stdout.fileno(), 65536)
            self.assertTrue(chunk, f"ended early; shown: {text.decode()}")
            text += chunk
        return text.decode()

    def wait_in_kafka(self, command, text):
        give_up = time.monotonic() + 120
        while text not in subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                         text=True, timeout=120, check=True).stdout:
            self.assertLess(time.monotonic(), give_up, f"{text} is not in Kafka after 120 s")


if __name__ == "__main__":
    unittest.main(verbosity=2)
