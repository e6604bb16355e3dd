#!/usr/bin/env python3
"""`chaos/cluster down` leaves nothing, whatever happened before: the machine is compared before and after."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from chaos.stand import Cluster, StandError, disks, network, processes  # noqa: E402
from chaos.stand.places import Places  # noqa: E402
from chaos.stand.shell import run  # noqa: E402
from tests.chaos import snapshot  # noqa: E402
from tests.lib.places import disk_root  # noqa: E402
from tests.lib.waiting import until  # noqa: E402

COMMAND = ROOT / "chaos" / "cluster"


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Down(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-chaos-test-", dir=disk_root()))
        self.places = Places(self.home / "cluster")
        self.environment = {**os.environ, "SLUICE_CHAOS_DIR": str(self.places.dir)}
        self.before = snapshot.take(self.places)

    def tearDown(self):
        Cluster.down(self.places.dir)
        os.rmdir(self.home)

    def command(self, *words):
        return subprocess.run([COMMAND, *words], env=self.environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=150, check=False)

    def assert_nothing_left(self):
        self.assertEqual(self.command("down").returncode, 0)
        self.assertEqual(snapshot.difference(self.before, snapshot.take(self.places)), {})

    def killed_up(self, reached):
        """Kills `up` when reached() is true for the first time."""
        with subprocess.Popen([COMMAND, "up", "--without-warehouse"], env=self.environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as child:
            def there():
                if child.poll() is not None:
                    raise AssertionError(f"up ended by itself: {child.stderr.read()}")
                return reached()
            until(there, "up does not get that far", 100, 0.002)
            child.kill()

    def test_killed_when_it_has_only_its_directory(self):
        self.killed_up(lambda: (self.places.dir / "sluice-chaos").exists())
        self.assert_nothing_left()

    def test_killed_amid_namespaces_and_disks(self):
        self.killed_up(lambda: self.places.image("az-b", "spool").exists())
        self.assertNotEqual(snapshot.take(self.places)["mounts"], self.before["mounts"])
        self.assert_nothing_left()

    def test_killed_while_brokers_start(self):
        self.killed_up(lambda: processes.find(self.places, "broker-az-b"))
        again = self.command("up")
        self.assertEqual(again.returncode, 1)
        self.assertIn("chaos/cluster down", again.stdout)  # what is left is not built upon
        self.assert_nothing_left()

    def test_a_whole_one_with_everything_broken(self):
        up = self.command("up", "--without-warehouse")
        self.assertEqual(up.returncode, 0, up.stdout)
        self.assertEqual(self.command("status").returncode, 0)
        cluster = Cluster.load(self.places.dir)
        processes.send(cluster.zones[0].broker.pid, signal.SIGSTOP)  # frozen processes must go as well
        processes.send(cluster.zones[1].gateway.pid, signal.SIGKILL)
        network.plug(self.places, "az-c", up=False)
        os.unlink(cluster.zones[2].disk.image)  # its loop device has lost its name
        status = self.command("status")
        self.assertEqual(status.returncode, 3)
        for word in ("frozen", "dead", "down"):
            self.assertIn(word, status.stdout)
        self.places.state_path.unlink()
        self.assert_nothing_left()

    def test_strangers_are_left_alone(self):
        self.places.dir.mkdir()
        precious = self.places.dir / "precious"
        precious.write_text("not ours")
        run("ip", "netns", "add", "sluice-chaos-test-stranger")
        try:
            self.assertIn("nothing was up", self.command("down").stdout)
            self.assertIn("was not made by", self.command("up").stdout)
            self.assertTrue(precious.exists())
            self.assertTrue(os.path.exists("/run/netns/sluice-chaos-test-stranger"))
        finally:
            run("ip", "netns", "del", "sluice-chaos-test-stranger")
            precious.unlink()
            self.places.dir.rmdir()


# Its first thread ends, another one goes on with a file open.
HALF_DEAD = """
import ctypes, sys, threading, time
held = open(sys.argv[1] + "/held", "w")
threading.Thread(target=time.sleep, args=(60,)).start()
open(sys.argv[2], "w").close()
ctypes.CDLL(None).pthread_exit(None)
"""


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Busy(unittest.TestCase):
    """A disk is taken away when the last who uses it has gone, and not before."""

    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-chaos-test-", dir=disk_root()))
        self.places = Places(self.home)
        self.point = self.places.mount("az-a", "spool")
        disks.make(self.places.image("az-a", "spool"), 16 << 20)
        disks.mount(self.places.image("az-a", "spool"), self.point)

    def tearDown(self):
        processes.kill_all(self.places)
        disks.remove(self.places)
        shutil.rmtree(self.home)

    def test_a_process_whose_first_thread_has_ended(self):
        pid = processes.spawn(self.places, "half", [sys.executable, "-c", HALF_DEAD, self.point, self.home / "there"])
        stat = pathlib.Path(f"/proc/{pid}/stat")
        until(lambda: (self.home / "there").exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z",
              "its first thread does not end", 20, 0.02)
        self.assertEqual(processes.all_of(self.places), {pid: "half"})
        processes.kill_all(self.places)
        disks.unmount(self.point, timeout_s=0)

    def test_a_stranger_is_named_and_left(self):
        with open(self.point / "precious", "w", encoding="ascii"):
            with self.assertRaisesRegex(StandError, rf"busy.*used by .*\b{os.getpid()} \("):
                disks.unmount(self.point, timeout_s=0)
        disks.unmount(self.point, timeout_s=0)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Without(unittest.TestCase):
    def test_nobody_but_root(self):
        command = ["setpriv", "--reuid", "65534", "--clear-groups", COMMAND, "up"]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                              check=False)
        self.assertEqual((done.returncode, len(done.stdout.splitlines())), (1, 1), done.stdout)
        self.assertIn("needs root", done.stdout)

    def test_no_cluster(self):
        with self.assertRaisesRegex(StandError, "no cluster is up"):
            Cluster.load("/nonexistent/cluster")

    def test_the_network_avoids_what_is_there(self):
        taken = network.free_network("000000")
        run("ip", "link", "add", "slctest", "type", "veth", "peer", "name", "slctest2")
        try:
            run("ip", "addr", "add", f"{taken[9]}/28", "dev", "slctest")
            self.assertFalse(network.free_network("000000").overlaps(taken))
        finally:
            run("ip", "link", "del", "slctest")


if __name__ == "__main__":
    unittest.main()
