"""A PostgreSQL cluster of one's own in a directory: Debian's server, never the system's instance.

    with Postgres(directory) as server:          initdb and start; stopped, and killed with its owner, at the end
        server.connect("warehouse")              psycopg2, over the unix socket in the directory, as superuser

As root the server runs as the user `postgres`, since it refuses to be root. It listens on the unix socket and, when a
port is given, on that port of one address with passwords (JDBC knows no unix sockets).
"""

import ctypes
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time

import psycopg2

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
START_SECONDS = 180


class PostgresError(Exception):
    """The server cannot be had or did not start; the text says why."""


def binaries():
    """The directory with initdb and postgres: 15 or later, since the merge is MERGE."""
    found = [path for path in glob.glob("/usr/lib/postgresql/*/bin/postgres") if int(path.split("/")[4]) >= 15]
    if not found:
        raise PostgresError("no PostgreSQL 15 or later: scripts/setup chaos")
    return pathlib.Path(max(found, key=lambda path: int(path.split("/")[4]))).parent


def _quick_end_with_parent():
    # SIGQUIT is the server's immediate shutdown: it takes its children and its shared memory along, SIGKILL would not.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Postgres:
    def __init__(self, directory, host=None, port=None, settings=None, environment=None):
        """`host`, `port`: where it listens besides the socket. `settings`: of postgresql.conf, on top of the small ones
        here. `environment`: of the server, all of it; None: ours. From the main thread only: the kernel watches the
        thread that starts the server."""
        self.directory = pathlib.Path(directory)
        self.data = self.directory / "data"
        self.host, self.port = host, port or 5432
        self.settings, self.environment = settings or {}, environment
        self.process = None
        self._user = "postgres" if os.geteuid() == 0 else None

    def _options(self):
        if not self._user:
            return {}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _make_room(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._user:
            return
        for place in (self.directory, *self.directory.parents):
            if not place.stat().st_mode & 0o001:
                if place.stat().st_uid != os.geteuid() or len(place.parts) < 4:
                    raise PostgresError(f"the user {self._user} cannot reach {self.directory}: {place} is closed to it")
                place.chmod(place.stat().st_mode | 0o011)
        shutil.chown(self.directory, self._user)

    def make(self):
        """initdb, when there is no cluster in the directory yet."""
        self._make_room()
        if (self.data / "PG_VERSION").exists():
            return
        run = subprocess.run(
            [str(binaries() / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth-local=trust",
             "--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            cwd="/", **self._options())
        if run.returncode:
            raise PostgresError(f"initdb: {run.stdout[-1000:]}")

    def start(self):
        self.make()
        settings = {
            "listen_addresses": self.host or "", "port": self.port, "unix_socket_directories": str(self.directory),
            "unix_socket_permissions": "0777", "shared_buffers": "32MB", "max_connections": 40, "timezone": "UTC",
            "dynamic_shared_memory_type": "mmap", "jit": "off", "logging_collector": "off",
            "log_min_messages": "warning", **self.settings,
        }
        command = [str(binaries() / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.directory / "postgres.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                            env=self.environment, preexec_fn=_quick_end_with_parent, **self._options())
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg2.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise PostgresError(f"PostgreSQL did not start: {error}\n{self.log()}") from error
            time.sleep(0.05)

    def log(self):
        path = self.directory / "postgres.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def dsn(self, database):
        return f"host={self.directory} port={self.port} user=postgres dbname={database}"

    def connect(self, database):
        return psycopg2.connect(self.dsn(database))

    def create_database(self, name):
        connection = self.connect("postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
        connection.close()

    def stop(self, how=signal.SIGINT):
        """SIGINT: ends sessions, then itself. SIGQUIT: as in a crash, its log is replayed at the next start."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGQUIT)
