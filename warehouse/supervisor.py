"""The process that owns one warehouse: `python3 -m warehouse.supervisor DIR`, with its order in DIR/order.json.

Happy path: starts PostgreSQL, installs the schema, starts the Connect worker and the merge, waits until the connector's
tasks run, writes DIR/warehouse.json, then looks after them: a failed task is started again, one-line JSON requests on
the socket DIR/control are served.

How it ends: a `down` request, SIGTERM, or, when the order says so, end of file on stdin, which is how the death of
whoever started it is noticed, kill -9 included. It takes its processes along. Should it be killed itself, the kernel
ends them (PDEATHSIG). The directory belongs to whoever named it.

What it does not do: start a worker, a merge or a server that died. Drills kill them and want to see it; `start` does.
"""

import ctypes
import json
import os
import pathlib
import secrets
import select
import signal
import socket
import subprocess
import sys
import time

import psycopg2

from warehouse import connect, database
from warehouse.postgres import Postgres

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATABASE = "warehouse"
LOOK_SECONDS = 2.0
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_MARK = "SLUICE_CHAOS"


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment(role):
    """A mark that the environment carries (chaos/ finds its processes by it) names each of our processes."""
    mark = os.environ.get(_MARK)
    return {**os.environ, **({_MARK: f"{mark}-{role}"} if mark else {})}


def _free_port(host):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, 0))
        return one.getsockname()[1]


class Supervisor:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.order = json.loads((self.directory / "order.json").read_text())
        host = self.order["host"]
        self.server = Postgres(self.directory / "postgres", host, _free_port(host), {
            # All that is not on loopback comes through pg_hba.conf with a password.
            "max_wal_size": "256MB", "checkpoint_timeout": "120s", "autovacuum_naptime": "15s"},
            _environment("postgres"))
        self.connect_port = _free_port(host)
        self.connect_url = f"http://{host}:{self.connect_port}"
        self.passwords = {"sink": secrets.token_hex(16), "warehouse": secrets.token_hex(16)}
        self.processes, self.frozen = {}, set()
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.lifeline = [sys.stdin] if self.order["lifeline"] else []
        self.ending = False
        self.paths = None

    # ---- up

    def bring_up(self):
        end = time.monotonic() + self.order["start_timeout_s"]
        replicas = min(3, connect.brokers(self.order["bootstrap"]))
        connect.make_topics(self.order["bootstrap"], replicas)
        self.server.start()
        self._allow_passwords()
        self._make_database()
        (self.directory / "connect").mkdir(exist_ok=True)
        self.paths = connect.write_configuration(self.directory / "connect", self.order["connectors"], {
            "bootstrap": self.order["bootstrap"], "host": self.order["host"], "port": self.connect_port,
            "topics": ",".join(self.order["topics"]), "tasks": self.order["tasks"], "pg_host": self.order["host"],
            "pg_port": self.server.port, "database": DATABASE, "pg_user": "sink", "pg_password": self.passwords["sink"],
            "dlq": connect.DLQ, "control": connect.CONTROL, "replication": replicas,
            "commit_ms": self.order["iceberg_commit_ms"]})
        self.start("connect")
        self.start("merge")
        self._wait_connectors(end)

    def _allow_passwords(self):
        with open(self.server.data / "pg_hba.conf", "a", encoding="ascii") as hba:
            hba.write("host all all all scram-sha-256\n")
        self.server.process.send_signal(signal.SIGHUP)

    def _make_database(self):
        for name in (DATABASE, "iceberg"):
            self.server.create_database(name)
        connection = database.connect(self.server.dsn(DATABASE))
        database.install(connection)
        with connection.cursor() as cursor:
            for name, roles in (("sink", "warehouse_loader"),
                                ("warehouse", "warehouse_loader, warehouse_merger, warehouse_reader")):
                cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD %s", (self.passwords[name],))
                cursor.execute(f"GRANT {roles} TO {name}")
            cursor.execute("ALTER DATABASE iceberg OWNER TO sink")
        connection.close()

    def _wait_connectors(self, end):
        while True:
            if self.processes["connect"].poll() is not None:
                raise RuntimeError(f"the Connect worker ended:\n{self._tail('connect')}")
            try:
                states = connect.states(self.connect_url)
                running = [states.get(name) for name in self.order["connectors"]]
                if all(tasks and set(tasks) == {"RUNNING"} for tasks in running):
                    return
                if time.monotonic() > end:
                    raise RuntimeError(f"connectors: {states}\n{self._tail('connect')}")
            except connect.ConnectError as error:
                if time.monotonic() > end:
                    raise RuntimeError(f"{error}\n{self._tail('connect')}") from error
            if self._let_go(select.select(self.lifeline, [], [], 0.2)[0]):
                raise RuntimeError("whoever started it has gone")

    def _tail(self, role):
        path = self.directory / f"{role}.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else "(no log)"

    # ---- processes

    def start(self, role):
        if role == "postgres":
            if self.server.process.poll() is None:
                raise RuntimeError("postgres runs already")
            self.server.start()
            return
        if self.processes.get(role) and self.processes[role].poll() is None:
            raise RuntimeError(f"{role} runs already")
        command = connect.command(self.paths, self.directory / "connect")
        if role == "merge":
            command = [sys.executable, str(ROOT / "warehouse" / "warehouse"), "--dsn", self.server.dsn(DATABASE),
                       "merge", "--follow"]
        with open(self.directory / f"{role}.log", "ab") as log:
            self.processes[role] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, preexec_fn=_die_with_parent,
                env=_environment(role))

    def process(self, role):
        return self.server.process if role == "postgres" else self.processes[role]

    def _group(self, role):
        """The process and, of PostgreSQL, its children: frozen or killed, all of it is."""
        pid = self.process(role).pid
        if role != "postgres":
            return [pid]
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return [pid, *map(int, children.read().split())]

    def signal(self, role, number):
        process = self.process(role)
        if process.poll() is not None:
            raise RuntimeError(f"{role} is dead")
        if role == "postgres" and number == signal.SIGKILL:
            # As a power cut, but for what only SIGQUIT gives back: shared memory. The log is replayed either way.
            for pid in self._group(role):
                os.kill(pid, signal.SIGCONT)
            number = signal.SIGQUIT
        for pid in self._group(role) if number in (signal.SIGSTOP, signal.SIGCONT) else [process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # one of PostgreSQL's children has ended meanwhile
        (self.frozen.add if number == signal.SIGSTOP else self.frozen.discard)(role)
        if number in (signal.SIGKILL, signal.SIGQUIT, signal.SIGTERM):
            process.wait(timeout=60)

    def state(self, role):
        if self.process(role).poll() is not None:
            return "dead"
        return "frozen" if role in self.frozen else "running"

    # ---- serve

    def describe(self):
        host = self.order["host"]
        return {
            "pid": os.getpid(), "dir": str(self.directory), "connect_url": self.connect_url,
            "dsn": f"host={host} port={self.server.port} dbname={DATABASE} user=warehouse "
                   f"password={self.passwords['warehouse']}",
            "dsn_owner": self.server.dsn(DATABASE), "topics": self.order["topics"],
            "connectors": self.order["connectors"],
            "processes": {role: {"pid": self.process(role).pid, "state": self.state(role)}
                          for role in ("postgres", "connect", "merge")},
        }

    def publish(self):
        aside = self.directory / "warehouse.json.new"
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(self.describe(), indent=1) + "\n")
        aside.rename(self.directory / "warehouse.json")

    def handle(self, request):
        operation, role = request["op"], request.get("role")
        if operation == "down":
            self.ending = True
        elif operation != "status":
            numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP, "cont": signal.SIGCONT}
            if operation == "start":
                self.start(role)
            else:
                self.signal(role, numbers[operation])
            self.publish()
        return self.describe()

    def serve_one(self):
        connection, _ = self.control.accept()
        with connection:
            connection.settimeout(5)
            try:
                answer = {"ok": True, **self.handle(json.loads(connection.makefile().readline()))}
            except Exception as error:  # whatever one request met, the warehouse stays up
                answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            try:
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass  # the asker has gone; what it asked for is done

    def look_after(self):
        if self.state("connect") == "running":
            try:
                if count := connect.restart_failed(self.connect_url):
                    print(f"{count} failed tasks started again", file=sys.stderr, flush=True)
            except connect.ConnectError:
                pass  # it is starting, or busy: the next look is soon

    def _let_go(self, readable):
        return sys.stdin in readable and not os.read(sys.stdin.fileno(), 4096)

    def serve(self):
        due = time.monotonic()
        while not self.ending:
            readable, _, _ = select.select([self.control, *self.lifeline], [], [], max(0.0, due - time.monotonic()))
            if self.control in readable:
                self.serve_one()
            if self._let_go(readable):
                self.ending = True
            if time.monotonic() >= due:
                self.look_after()
                due = time.monotonic() + LOOK_SECONDS

    def listen(self):
        path = self.directory / "control"
        path.unlink(missing_ok=True)
        self.control.bind(str(path))
        self.control.listen(16)

    def tear_down(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        if self.server.process:
            if self.server.process.poll() is None and "postgres" in self.frozen:
                self.signal("postgres", signal.SIGCONT)
            self.server.stop(signal.SIGQUIT)
        for process in self.processes.values():
            process.wait()
        for name in ("warehouse.json", "control"):
            (self.directory / name).unlink(missing_ok=True)


def _end(_number, _frame):
    raise SystemExit(0)


def main():
    signal.signal(signal.SIGTERM, _end)
    supervisor = Supervisor(sys.argv[1])
    try:
        supervisor.listen()
        supervisor.bring_up()
        supervisor.publish()
        supervisor.serve()
    except (RuntimeError, OSError, ValueError, psycopg2.Error, connect.ConnectError) as error:
        print(f"warehouse: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        supervisor.tear_down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
