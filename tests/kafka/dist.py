"""Apache Kafka's jars, from Maven Central into a cache outside the tree, once for all checkouts of this user.

The cache directory is named after the pom's digest, so that a changed pom never meets old jars. It is filled under a
lock and appears by rename: whoever sees it sees all of it.
"""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
POM = HERE / "pom.xml"


class DistError(Exception):
    """Kafka cannot be had on this machine; the text says why."""


def cache_root():
    named = os.environ.get("SLUICE_CACHE")
    if named:
        return pathlib.Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(home) / "sluice"


def version():
    tag = "{http://maven.apache.org/POM/4.0.0}"
    root = xml.etree.ElementTree.parse(POM).getroot()
    return root.find(f"{tag}properties/{tag}kafka.version").text


def java():
    """The Java runtime to use: $JAVA_HOME's, or the one on the path."""
    home = os.environ.get("JAVA_HOME")
    found = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if not found or not os.path.exists(found):
        raise DistError("no Java runtime: install openjdk-17-jre-headless, or set JAVA_HOME")
    return found


def libraries():
    """The directory with the jars; resolves them first when they are not there, which takes a minute at most."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    target = cache_root() / f"kafka-{version()}-{digest}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "kafka.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _resolve(target)
    return target


def _resolve(target):
    if not shutil.which("mvn"):
        raise DistError("no mvn: install the Debian package maven")
    print(f"kafka: resolving Apache Kafka {version()} into {target}", file=sys.stderr, flush=True)
    aside = pathlib.Path(tempfile.mkdtemp(prefix=".kafka-", dir=target.parent))
    try:
        run = subprocess.run(
            ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies",
             f"-DoutputDirectory={aside}", "-DincludeScope=runtime"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False)
        if run.returncode != 0:
            raise DistError(f"mvn could not resolve Apache Kafka:\n{run.stdout[-2000:]}")
        if not list(aside.glob("kafka_2.13-*.jar")):
            raise DistError("mvn resolved no kafka_2.13 jar")
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    print(libraries())
