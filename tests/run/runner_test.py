#!/usr/bin/env python3
"""The runner must go red when a suite does: each way in which one can fail is run once, for real."""
import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import runner  # noqa: E402


class RunnerTest(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory(dir=runner.ROOT / "tests" / "run", prefix=".scratch-")
        self.addCleanup(self.scratch.cleanup)
        self.logs, runner.LOGS = runner.LOGS, Path(self.scratch.name)
        self.addCleanup(setattr, runner, "LOGS", self.logs)
        runner.become_subreaper()

    def run_script(self, script, timeout=30):
        """One script suite made of these shell lines; returns the totals and what was printed."""
        program = Path(self.scratch.name) / "program"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        suites = Path(self.scratch.name) / "suites"
        suites.write_text(f"[it]\nkind = script\nabout = x\ncommand = {program}\ntimeout = {timeout}\n")
        one = runner.Runner(runner.Suites(suites))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            one.run("it")
        return one.total, printed.getvalue()

    def test_counts_lines(self):
        total, _ = self.run_script("echo ok a - fast; echo 'not ok b - it broke'; echo skip c - no disk; echo okay\n")
        self.assertEqual(total.passed, 1)
        self.assertEqual(total.failed, [("it: b", "it broke")])
        self.assertEqual(total.skipped, [("it: c", "no disk")])

    def test_exit_code_without_a_line_is_a_failure(self):
        total, printed = self.run_script("echo ok a; echo cause of death; exit 3\n")
        self.assertEqual(total.failed, [("it: suite", "exit code 3")])
        self.assertIn("cause of death", printed)

    def test_death_by_signal_is_named(self):
        total, _ = self.run_script("echo ok a; kill -SEGV $$\n")
        self.assertEqual(total.failed, [("it: suite", "killed by SIGSEGV")])

    def test_silence_is_a_failure(self):
        total, _ = self.run_script("true\n")
        self.assertEqual(total.failed, [("it: suite", "no test ran")])

    def test_missing_command_is_a_failure(self):
        suites = Path(self.scratch.name) / "suites"
        suites.write_text("[it]\nkind = script\nabout = x\ncommand = tests/run/.no-such\ntimeout = 5\n")
        one = runner.Runner(runner.Suites(suites))
        with contextlib.redirect_stdout(io.StringIO()):
            one.run("it")
        self.assertEqual(len(one.total.failed), 1)

    def test_timeout_kills_even_what_left_the_group(self):
        total, _ = self.run_script("echo ok a\nsetsid sleep 1000 &\nsleep 1000\n", timeout=1)
        self.assertEqual(total.failed, [("it: suite", "killed after 1 s")])
        self.assertEqual(runner.children(), [])

    def test_what_stays_behind_is_a_failure(self):
        total, _ = self.run_script("echo ok a\nsetsid sleep 1000 >/dev/null 2>&1 &\n")
        self.assertEqual(total.failed, [("it: suite", "left 1 process(es) running")])
        self.assertEqual(runner.children(), [])

    def test_a_build_that_fails_fails_its_suites(self):
        suites = Path(self.scratch.name) / "suites"
        suites.write_text("[it]\nkind = script\nabout = x\nbuild = b\ncommand = true\ntimeout = 5\n")
        one = runner.Runner(runner.Suites(suites))
        one.built["b"] = "b does not build"
        with contextlib.redirect_stdout(io.StringIO()):
            one.run("it")
        self.assertEqual(one.total.failed, [("it: build", "b does not build")])

    def test_the_real_list_is_sound(self):
        suites = runner.Suites(runner.ROOT / "tests" / "suites")
        for name, section in suites.suites.items():
            with self.subTest(name):
                self.assertGreater(section.getint("timeout"), 0)
                self.assertTrue(section["about"])
                self.assertIn(section.get("build", "build-test"), suites.builds)
                self.assertEqual("command" in section, section["kind"] == "script")


if __name__ == "__main__":
    unittest.main(verbosity=2)
