"""The jars of the Connect worker and of its plugins, from Maven Central into the cache that tests/kafka uses as well.

`python3 -m warehouse.dist [worker] [jdbc] [iceberg]` fetches what is not there yet. Each directory is named after its
pom's digest, is filled under a lock, and appears by rename: whoever sees it sees all.
"""

import fcntl
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

from tests.kafka.dist import DistError, cache_root, java

HERE = pathlib.Path(__file__).resolve().parent / "connect"
__all__ = ["DistError", "java", "plugin", "worker"]


def worker():
    """The directory with the jars of the Connect runtime."""
    return _directory("worker")


def plugin(name):
    """A directory for `plugin.path` that holds one connector: "jdbc" or "iceberg"."""
    return _directory(name)


def _directory(name):
    pom = HERE / f"{name}-pom.xml"
    target = cache_root() / f"connect-{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "connect.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _resolve(name, pom, target)
    return target


def _resolve(name, pom, target):
    if not shutil.which("mvn"):
        raise DistError("no mvn: install the Debian package maven")
    print(f"warehouse: resolving Connect's {name} into {target}", file=sys.stderr, flush=True)
    aside = pathlib.Path(tempfile.mkdtemp(prefix=".connect-", dir=target.parent))
    try:
        inner = aside / name  # a connector is a directory of jars inside a directory of plugin.path
        run = subprocess.run(
            ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={inner}",
             "-DincludeScope=runtime"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False)
        if run.returncode != 0:
            raise DistError(f"mvn could not resolve Connect's {name}:\n{run.stdout[-2000:]}")
        for archive in inner.glob("*.tar.gz"):
            with tarfile.open(archive) as opened:
                opened.extractall(inner)  # Maven has checked its digest
            archive.unlink()
        if not list(inner.rglob("*.jar")):
            raise DistError(f"mvn resolved no jar for Connect's {name}")
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    for each in sys.argv[1:] or ("worker", "jdbc", "iceberg"):
        print(_directory(each))
