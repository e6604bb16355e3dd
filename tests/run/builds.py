"""The build directories of tests/suites: the one that is needed now, and the others ahead of their turn.

While suites run that mostly wait, a thread builds what later ones need, with what they leave of the machine. Whoever
needs a directory waits for it. Nothing here touches the suites' processes, and `processes()` names the builders so that
they are not taken for what a suite left behind.
"""
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time

# Against a build that hangs. Ahead of its turn one gets what the suites leave of the processors.
BUILD_SECONDS = 7200


def environment(section):
    pairs = dict(word.split("=", 1) for word in shlex.split(section.get("env", "")))
    return {**os.environ, **pairs}


def _step_back():
    """In the child: everything else comes first, also where the kernel weighs whole sessions against each other."""
    os.nice(19)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as autogroup:
        autogroup.write("19")


class Builds:
    """`sections`: {directory: its section}. `logs`: where the logs go. Of the calls, only run_ahead's thread is not the
    caller's."""

    def __init__(self, sections, root, logs):
        self.sections, self.root, self.logs = sections, root, logs
        self.wrong = {}  # directory -> None or what went wrong; only directories that are done
        self._changed = threading.Condition()
        self._running = {}  # directory -> process
        self._ahead, self._thread, self._stopping = [], None, False

    def log(self, name):
        return self.logs / f"build-{name}.log"

    def processes(self):
        """The pids of the builders. The lock is held while one is started, so none is missing."""
        with self._changed:
            return {process.pid for process in self._running.values()}

    def run_ahead(self, names):
        """Builds these in the background, in that order."""
        self._ahead = [name for name in dict.fromkeys(names) if name not in self.wrong]
        self._thread = threading.Thread(target=self._build_ahead, daemon=True)
        self._thread.start()

    def need(self, name):
        """Waits until it is built, or builds it. None, or what went wrong."""
        with self._changed:
            if name in self._ahead:
                self._ahead.remove(name)
            mine = name not in self.wrong and name not in self._running
            while name in self._running:
                self._changed.wait()
        if mine:
            self._build(name)
        return self.wrong[name]

    def stop(self):
        with self._changed:
            self._ahead, self._stopping = [], True
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if self._thread:
            self._thread.join()

    def _build_ahead(self):
        while True:
            with self._changed:
                if not self._ahead:
                    return
                name = self._ahead.pop(0)
                process = self._start(name, _step_back)
            self._finish(name, process, "ahead of its turn, ")

    def _build(self, name):
        print(f"build {name} ...", flush=True)
        with self._changed:
            process = self._start(name, None)
        self._finish(name, process, "")

    def _start(self, name, prepare):
        section = self.sections[name]
        env = environment(section)
        if shutil.which("ccache"):
            env["CC"] = f"ccache {env.get('CC', 'gcc')}"
            env["CXX"] = f"ccache {env.get('CXX', 'g++')}"
        with self.log(name).open("wb") as log:
            command = section.get("command") or f"scripts/build {name} {section.get('options', '')}"
            process = subprocess.Popen(shlex.split(command), cwd=self.root, env=env, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                       preexec_fn=prepare)
        process.started = time.monotonic()
        self._running[name] = process
        return process

    def _finish(self, name, process, how):
        late = False
        try:
            process.wait(BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wrong = None
        if process.returncode != 0:
            wrong = f"{name} {'took too long to build' if late else 'does not build'}"
        with self._changed:
            del self._running[name]
            self.wrong[name] = wrong
            self._changed.notify_all()
            if not self._stopping:
                print(f"build {name}: {wrong or 'done'} ({how}{time.monotonic() - process.started:.0f} s)", flush=True)
