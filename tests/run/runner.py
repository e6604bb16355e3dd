#!/usr/bin/env python3
"""Runs the suites that tests/suites describes; ./test is its front door.

The suites run one after the other: on two cores, suites that run side by side would only make each other's timeouts
lie. What later ones need is built meanwhile (builds.py), each directory once. A directory that does not build is one
failure of each suite that needs it.
"""
import argparse
import configparser
import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from builds import Builds, environment  # noqa: E402  the path must be set first

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 4  # meson.build says how long a test may take on a quiet machine; the limit is for one that hangs
LOGS = ROOT / "build-test" / "logs"
TAIL_LINES = 40
KILL_GRACE_SECONDS = 10
# Lines of a script suite's protocol. The reason comes after the first " - ".
VERDICT = re.compile(r"^(ok|not ok|skip) (\S.*?)(?: - (.*))?$")


@dataclass
class Result:
    passed: int = 0
    failed: list = field(default_factory=list)  # (name, why)
    skipped: list = field(default_factory=list)  # (name, reason)


class Suites:
    def __init__(self, path):
        parser = configparser.ConfigParser(interpolation=None, strict=True)
        parser.read_string(path.read_text())
        self.builds = {}
        self.suites = {}
        for title in parser.sections():
            section = parser[title]
            if title.startswith("build "):
                self.builds[title.removeprefix("build ")] = section
                continue
            if section["kind"] not in ("meson", "script"):
                raise SystemExit(f"{path}: [{title}] unknown kind {section['kind']}")
            self.suites[title] = section

    def choose(self, names):
        if not names:
            return [n for n, s in self.suites.items() if not s.getboolean("long", False)]
        chosen = []
        for name in names:
            if name == "long":
                chosen += [n for n, s in self.suites.items() if s.getboolean("long", False)]
            elif name == "all":
                chosen += list(self.suites)
            elif name in self.suites:
                chosen.append(name)
            else:
                raise SystemExit(f"test: no suite {name!r}; there are: {', '.join(self.suites)}, long, all")
        return list(dict.fromkeys(chosen))


def become_subreaper():
    """Orphans of a suite become our children, so that what it left behind can be found and ended."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def children():
    mine = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == os.getpid():
                mine.append(int(entry.name))
    return mine


def end_leftovers(builders=frozenset):
    """Kills and reaps what a finished suite left running: how many lived. `builders`: those that are no suite's."""
    def leftovers():
        before = builders()  # one may end, and another begin, while the processes are looked through
        found = children()
        return [pid for pid in found if pid not in before | builders()]

    alive = 0
    while pids := leftovers():
        for pid in pids:
            done, _ = os.waitpid(pid, os.WNOHANG)
            if done == 0:
                alive += 1
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return alive


def signal_group(pgid, number):
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:  # nobody is left in it
        pass


def run_logged(command, log, env, timeout, on_line, builders=frozenset):
    """Runs command in a process group of its own, every output line to `log` and to on_line.

    Returns (exit code, timed out, processes that it left running and that were killed).
    """
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    reader = threading.Thread(target=pump, args=(process.stdout, log, on_line), daemon=True)
    reader.start()
    late = False
    left = 0
    try:
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
            signal_group(process.pid, signal.SIGTERM)
            try:
                process.wait(KILL_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
    finally:
        # Also after Ctrl-C. Whoever is left holds the pipe open, so only then does the reader see its end.
        if process.poll() is None:
            signal_group(process.pid, signal.SIGKILL)
            process.wait()
        left = end_leftovers(builders)
        reader.join()
    return process.returncode, late, left


def pump(stream, log, on_line):
    for raw in stream:
        log.write(raw)
        log.flush()
        on_line(raw.decode("utf-8", "replace").rstrip("\n"))


def show_tail(path):
    lines = path.read_text("utf-8", "replace").splitlines()
    print(f"    --- the end of {path.relative_to(ROOT)}")
    for line in lines[-TAIL_LINES:]:
        print(f"    {line}")
    print("    ---", flush=True)


class Runner:
    def __init__(self, suites):
        self.suites = suites
        self.builds = Builds(suites.builds, ROOT, LOGS)
        self.ahead, self.shown = [], set()  # directories: to be built ahead, whose failure has been shown
        self.total = Result()

    def build(self, name):
        wrong = self.builds.need(name)
        if self.ahead:
            ahead, self.ahead = self.ahead, []
            self.builds.run_ahead(ahead)
        if wrong and name not in self.shown:
            self.shown.add(name)
            show_tail(self.builds.log(name))
        return wrong

    def run_all(self, names):
        self.ahead = list(dict.fromkeys(build for name in names for build in self.builds_of(name)))
        try:
            for name in names:
                self.run(name)
        finally:
            self.builds.stop()

    def builds_of(self, name):
        return self.suites.suites[name].get("build", "").split()

    def run(self, name):
        section = self.suites.suites[name]
        started = time.monotonic()
        wrong = next(filter(None, map(self.build, self.builds_of(name))), None)
        if wrong:
            result = Result(failed=[("build", wrong)])
        else:
            print(f"suite {name}: {section['about']}", flush=True)
            run = self.run_meson if section["kind"] == "meson" else self.run_script
            result = run(name, section)
        if not result.passed and not result.failed and not result.skipped:
            result.failed.append(("suite", "no test ran"))
        print(f"suite {name}: {result.passed} passed, {len(result.failed)} failed"
              + (f", {len(result.skipped)} skipped" if result.skipped else "")
              + f" ({time.monotonic() - started:.0f} s)", flush=True)
        self.total.passed += result.passed
        self.total.failed += [(f"{name}: {test}", why) for test, why in result.failed]
        self.total.skipped += [(f"{name}: {test}", why) for test, why in result.skipped]

    def run_script(self, name, section):
        result = Result()
        path = LOGS / f"{name}.log"
        env = environment(section)
        build = next(iter(self.builds_of(name)), "build")
        env["SLUICE_BUILD"] = str(ROOT / build)
        env["SLUICE_BINARY"] = str(ROOT / build / "sluice")
        env["PYTHONUNBUFFERED"] = "1"

        def on_line(line):
            match = VERDICT.match(line)
            if not match:
                return
            print(f"  {line}", flush=True)
            verdict, test, why = match.groups()
            if verdict == "ok":
                result.passed += 1
            elif verdict == "skip":
                result.skipped.append((test, why or "no reason given"))
            else:
                result.failed.append((test, why or "no reason given"))

        timeout = section.getint("timeout")
        try:
            with path.open("wb") as log:
                code, late, left = run_logged(shlex.split(section["command"]), log, env, timeout, on_line,
                                              self.builds.processes)
        except OSError as error:
            result.failed.append(("suite", f"cannot run {section['command']}: {error.strerror}"))
            return result
        return self.finish(result, path, code, late, left, timeout)

    def run_meson(self, name, section):
        result = Result()
        path = LOGS / f"{name}.log"
        build = ROOT / section["build"]
        records = build / "meson-logs" / f"{name}.json"
        records.unlink(missing_ok=True)
        named = [word for suite in section.get("only", "").split() for word in ("--suite", suite)]
        named += [word for suite in section.get("except", "").split() for word in ("--no-suite", suite)]
        # One more than there are cores: some tests wait most of their time.
        command = ["meson", "test", "-C", str(build), "--no-rebuild", *named, "--logbase", name,
                   "--num-processes", str((os.cpu_count() or 1) + 1), "--timeout-multiplier", str(PATIENCE)]
        # GCC 12's ThreadSanitizer cannot start where the kernel randomises mappings with more than 28 bits.
        if "thread" in self.suites.builds[section["build"]].get("options", "") and can_fix_addresses():
            command = ["setarch", "-R", *command]
        timeout = section.getint("timeout")

        def on_line(line):
            if re.match(r"^\s*\d+/\d+ ", line):
                print(f"  {line.strip()}", flush=True)

        with path.open("wb") as log:
            code, late, left = run_logged(command, log, environment(section), timeout, on_line,
                                          self.builds.processes)
            log.write(b"\n")
            if records.exists():
                for line in records.read_text("utf-8", "replace").splitlines():
                    self.count_meson(json.loads(line), result, log)
        return self.finish(result, path, code, late, left, timeout)

    @staticmethod
    def finish(result, path, code, late, left, timeout):
        if late:
            result.failed.append(("suite", f"killed after {timeout} s"))
        elif code != 0 and not result.failed:
            result.failed.append(("suite", exit_text(code)))
        elif left:
            result.failed.append(("suite", f"left {left} process(es) running"))
        if result.failed:
            show_tail(path)
        return result

    @staticmethod
    def count_meson(record, result, log):
        verdict = record["result"]
        output = record.get("stdout", "") + record.get("stderr", "")
        name = record["name"].split(" / ")[-1]
        if verdict in ("OK", "EXPECTEDFAIL"):
            result.passed += 1
        elif verdict == "SKIP":
            lines = [line for line in output.splitlines() if line.strip()]
            result.skipped.append((name, lines[-1].strip() if lines else "no reason given"))
        else:
            result.failed.append((name, f"{verdict.lower()} ({exit_text(record['returncode'])})"))
            log.write(f"=== {name}: {verdict}\n{output}\n".encode())


def exit_text(code):
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def can_fix_addresses():
    return shutil.which("setarch") is not None and subprocess.run(
        ["setarch", "-R", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def main():
    parser = argparse.ArgumentParser(prog="./test", description="Builds and runs test suites.")
    parser.add_argument("--list", action="store_true", help="name the suites")
    parser.add_argument("suite", nargs="*", help="default: all but the long ones; long: these; all: everything")
    arguments = parser.parse_args()
    suites = Suites(ROOT / "tests" / "suites")
    if arguments.list:
        for name, section in suites.suites.items():
            mark = " (long)" if section.getboolean("long", False) else ""
            print(f"{name:<14} {section['about']}{mark}")
        return 0
    names = suites.choose(arguments.suite)
    LOGS.mkdir(parents=True, exist_ok=True)
    become_subreaper()
    runner = Runner(suites)
    started = time.monotonic()
    runner.run_all(names)
    total = runner.total
    print(f"\n{len(names)} suites in {(time.monotonic() - started) / 60:.1f} minutes")
    for test, why in total.skipped:
        print(f"skipped {test} - {why}")
    for test, why in total.failed:
        print(f"FAILED {test} - {why}")
    print(f"{total.passed} passed, {len(total.failed)} failed"
          + (f", {len(total.skipped)} skipped" if total.skipped else ""), flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
