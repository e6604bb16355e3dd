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
        one.builds.wrong["b"] = "b does not build"
        one.builds.log("b").write_text("undefined reference to life\n")
        with contextlib.redirect_stdout(io.StringIO()):
            one.run("it")
        self.assertEqual(one.total.failed, [("it: build", "b does not build")])

    def run_builds(self, builds, suites):
        """Suites before a scripts/build of our own. {title: lines of shell} for both; a suite [1-x-y] needs the builds
        x and y."""
        root = Path(self.scratch.name)
        (root / "scripts").mkdir()
        cases = "".join(f"{name})\n{lines}\n;;\n" for name, lines in builds.items())
        texts = [f"[build {name}]\n" for name in builds]
        programs = {"scripts/build": f"case $1 in\n{cases}esac\n", **suites}
        for name, lines in programs.items():
            (root / name).write_text(f"#!/bin/sh\ncd {root}\n{lines}\n")
            (root / name).chmod(0o755)
        texts += [f"[{name}]\nkind = script\nabout = x\nbuild = {name[2:].replace('-', ' ')}\n"
                  f"command = {root / name}\ntimeout = 30\n" for name in suites]
        (root / "suites").write_text("\n".join(texts))
        every = runner.Runner(runner.Suites(root / "suites"))
        every.builds.root = root
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            every.run_all(list(suites))
        return every.total, printed.getvalue()

    def test_builds_ahead_while_a_suite_runs(self):
        # The suite goes on when the build of the next one has begun, and that ends when the suite has: only both at
        # once can do it, and the end of the suite must not end the builder.
        wait = "while [ ! -e {} ]; do sleep 0.05; done"
        total, printed = self.run_builds(
            {"x": "touch x", "y": "touch begun\n" + wait.format("over") + "\nsleep 0.3; touch y"},
            {"1-x": wait.format("begun") + "; touch over; echo ok one", "2-y": "[ -e y ] && echo ok two"})
        self.assertEqual((total.passed, total.failed), (2, []), printed)
        self.assertIn("ahead of its turn", printed)
        self.assertEqual(runner.children(), [])

    def test_a_build_ahead_that_fails_fails_its_suites(self):
        total, printed = self.run_builds({"x": "true", "y": "echo undefined reference; exit 1"},
                                         {"1-x": "echo ok one", "2-y": "echo ok two", "3-y": "echo ok three"})
        self.assertEqual(total.failed, [("2-y: build", "y does not build"), ("3-y: build", "y does not build")])
        self.assertEqual(total.passed, 1)
        self.assertEqual(printed.count("undefined reference"), 1)

    def test_a_suite_that_needs_two_builds_has_both_and_the_name_of_the_first(self):
        total, printed = self.run_builds({"x": "touch x", "y": "touch y"}, {
            "1-x-y": '[ -e x ] && [ -e y ] && echo "ok ${SLUICE_BUILD##*/}"'})
        self.assertEqual((total.passed, total.failed), (1, []), printed)
        self.assertIn("ok x", printed)

    def test_the_real_list_is_sound(self):
        suites = runner.Suites(runner.ROOT / "tests" / "suites")
        for name, section in suites.suites.items():
            with self.subTest(name):
                self.assertGreater(section.getint("timeout"), 0)
                self.assertTrue(section["about"])
                self.assertLessEqual(set(section.get("build", "").split()), set(suites.builds))
                self.assertEqual("command" in section, section["kind"] == "script")


if __name__ == "__main__":
    unittest.main(verbosity=2)
