#!/usr/bin/env python3
"""The set-up scripts: the mirror they would use, what they call missing; a complete machine is left alone."""
import os
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIRROR = "http://mirror.example/debian/"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def codename():
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise unittest.SkipTest("/etc/os-release has no VERSION_CODENAME")


class ScriptsTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="sluice-scripts-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def common(self, command, **environment):
        """Standard output of a command after scripts/common.sh."""
        return subprocess.run(["bash", "-c", f"set -euo pipefail; . {ROOT}/scripts/common.sh; {command}"], check=True,
                              stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}).stdout

    def mirror(self, name, sources):
        parts = self.scratch / "parts"
        parts.mkdir()
        (parts / name).write_text(sources)
        config = self.scratch / "apt.conf"
        config.write_text(f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{parts}";\n')
        return self.common("own_mirror", APT_CONFIG=str(config)).strip()

    def test_mirror_of_deb822_sources(self):
        release = codename()
        self.assertEqual(MIRROR, self.mirror("debian.sources", (
            f"Types: deb\nURIs: http://other.example/debian-security\nSuites: {release}-security\nComponents: main\n\n"
            f"Types: deb deb-src\n# a comment\nURIs: {MIRROR}\nSuites: {release} {release}-updates\n"
            f"Components: main contrib\nSigned-By: {KEYRING}\n")))

    def test_mirror_of_one_line_sources(self):
        release = codename()
        self.assertEqual(MIRROR, self.mirror("debian.list", (
            f"# deb http://no.example/debian {release} main\n"
            f"deb http://other.example/debian-security {release}-security main\n"
            f"deb [arch=amd64 signed-by={KEYRING}] http://third.example/apt stable main\n"
            f"deb [ signed-by={KEYRING} ] {MIRROR} {release} main contrib\n")))

    def test_missing_packages_are_told_apart(self):
        lists = self.scratch / "scripts" / "packages"
        lists.mkdir(parents=True)
        (lists / "a.txt").write_text("# a comment\nbash\nno-such-package-a  # why\n\n")
        (lists / "b.txt").write_text("no-such-package-b\n")
        found = self.common(f"sluice_root={self.scratch}; missing_packages a b")
        self.assertEqual(found.split(), ["no-such-package-a", "no-such-package-b"])

    def test_a_complete_machine_is_left_alone(self):
        # ./test has installed everything before this runs; an apt-get that is called now says so and fails.
        trap = self.scratch / "apt-get"
        trap.write_text("#!/bin/sh\necho called >&2\nexit 1\n")
        trap.chmod(trap.stat().st_mode | stat.S_IXUSR)
        path = f"{self.scratch}:{os.environ['PATH']}"
        for command in (["setup", "test"], ["librdkafka"]):
            with self.subTest(command[0]):
                done = subprocess.run([ROOT / "scripts" / command[0], *command[1:]], check=False, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      env={**os.environ, "PATH": path})
                self.assertEqual((done.returncode, "called" in done.stdout), (0, False), done.stdout)

    def test_without_librdkafka_the_way_out_is_named(self):
        empty = str(self.scratch)
        done = subprocess.run([ROOT / "scripts" / "find-librdkafka", "libs"], check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "SLUICE_CACHE": empty, "PKG_CONFIG_LIBDIR": empty})
        self.assertEqual(done.returncode, 1)
        self.assertIn("run scripts/librdkafka", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
