#!/usr/bin/env python3
"""disk_fault_test.py SHIM: does the shim do to a real process what the fault tests rely on?

Each case runs in a Python child with the shim preloaded; the child makes the calls, this parent sets the rules.
"""
import errno
import os
import select
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from disk_fault import DiskFault  # noqa: E402

SHIM = sys.argv.pop(1)

# Evaluates one expression a line in the child and prints its value, or the errno's name.
CHILD = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    # The names that Python itself does not use, or not without the suffix 64.
    function = getattr(libc, name)
    function.restype = ctypes.c_ssize_t if 'write' in name or 'read' in name else ctypes.c_int
    ctypes.set_errno(0)
    value = function(*arguments)
    if value == -1:
        raise OSError(ctypes.get_errno(), name)
    return value
off = ctypes.c_int64
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


class DiskFaultTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="sluice-preload-")
        self.addCleanup(scratch.cleanup)
        self.spool = Path(scratch.name, "spool")
        self.outside = Path(scratch.name, "outside")
        self.spool.mkdir()
        self.outside.mkdir()
        self.fault = DiskFault(SHIM, self.spool, scratch.name)
        self.child = None
        self.start()

    def start(self):
        self.child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env={**os.environ, **self.fault.environment()})
        self.addCleanup(self.stop, self.child)

    @staticmethod
    def stop(child):
        child.kill()
        child.communicate()

    def ask(self, expression):
        self.child.stdin.write(expression + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip()

    def open(self, directory, name="a.seg"):
        return int(self.ask(f"os.open({str(directory / name)!r}, os.O_RDWR | os.O_CREAT, 0o600)"))

    def test_nothing_without_rules(self):
        fd = self.open(self.spool)
        self.assertEqual(self.ask(f"os.pwrite({fd}, b'abcd', 0)"), "4")
        self.assertEqual(self.ask(f"os.pread({fd}, 9, 0)"), "b'abcd'")
        self.assertEqual(self.ask(f"os.fdatasync({fd})"), "None")
        self.assertEqual(self.fault.applied(), [])

    def test_every_operation_fails_as_told(self):
        fd = self.open(self.spool)
        path = str(self.spool / "a.seg")
        calls = {
            "pwrite": [f"os.pwrite({fd}, b'abcd', 0)", f"call('pwrite', {fd}, b'abcd', 4, off(0))",
                       f"call('pwrite64', {fd}, b'abcd', 4, off(0))"],
            "pwritev": [f"os.pwritev({fd}, [b'ab', b'cd'], 0)", f"os.pwritev({fd}, [b'ab'], 0, os.RWF_DSYNC)",
                        f"call('pwritev', {fd}, None, 0, off(0))", f"call('pwritev64', {fd}, None, 0, off(0))",
                        f"call('pwritev2', {fd}, None, 0, off(0), 0)"],
            "fdatasync": [f"os.fdatasync({fd})"],
            "fsync": [f"os.fsync({fd})"],
            "sync_file_range": [f"call('sync_file_range', {fd}, off(0), off(0), 2)"],
            "fallocate": [f"call('fallocate', {fd}, 0, off(0), off(4096))",
                          f"call('fallocate64', {fd}, 0, off(0), off(4096))", f"os.posix_fallocate({fd}, 0, 4096)"],
            "create": [f"os.open({path!r}, os.O_RDWR | os.O_CREAT)",
                       f"call('open', {path.encode()!r}, os.O_CREAT, 384)",
                       f"call('openat', -100, {path.encode()!r}, os.O_CREAT, 384)",
                       f"call('creat', {path.encode()!r}, 384)"],
            "pread": [f"os.pread({fd}, 4, 0)", f"call('pread', {fd}, bytes(4), 4, off(0))"],
            "preadv": [f"os.preadv({fd}, [bytearray(4)], 0)", f"call('preadv', {fd}, None, 0, off(0))"],
            "ftruncate": [f"os.ftruncate({fd}, 0)", f"call('ftruncate', {fd}, off(0))"],
            "rename": [f"os.rename({path!r}, {path!r})", f"call('renameat2', -100, {path.encode()!r}, -100, "
                                                        f"{path.encode()!r}, 0)"],
        }
        for operation, expressions in calls.items():
            for expression in expressions:
                with self.subTest(expression):
                    before = len(self.fault.applied(operation))
                    self.fault.set(f"{operation} errno=ENOSPC")
                    self.assertEqual(self.ask(expression), "ENOSPC")
                    self.assertEqual(len(self.fault.applied(operation)), before + 1)
                    self.fault.off()
                    self.assertNotIn(self.ask(expression), errno.errorcode.values())
                    self.assertEqual(len(self.fault.applied(operation)), before + 1)

    def test_scope_is_the_prefix(self):
        inside, outside = self.open(self.spool), self.open(self.outside)
        self.fault.set("all errno=EIO")
        self.assertEqual(self.ask(f"os.fsync({outside})"), "None")
        self.assertEqual(self.ask(f"os.fsync({inside})"), "EIO")
        self.assertEqual(self.ask(f"os.open({str(self.outside / 'b')!r}, os.O_CREAT)").isdigit(), True)
        self.assertEqual(self.ask(f"os.open({str(self.spool / 'b')!r}, os.O_CREAT)"), "EIO")
        self.assertFalse((self.spool / "b").exists())

    def test_scope_follows_rename_dup_and_openat(self):
        fd = self.open(self.outside)
        os.rename(self.outside / "a.seg", self.spool / "moved.seg")
        self.fault.set("fsync errno=EIO", "create errno=EROFS")
        self.assertEqual(self.ask(f"os.fsync(os.dup({fd}))"), "EIO")
        directory = self.ask(f"os.open({str(self.spool)!r}, os.O_DIRECTORY)")
        self.assertEqual(self.ask(f"os.open('c', os.O_CREAT, 384, dir_fd={directory})"), "EROFS")
        self.assertEqual(self.ask(f"os.chdir({str(self.spool)!r})"), "None")
        self.assertEqual(self.ask("os.open('d', os.O_CREAT)"), "EROFS")

    def test_after_and_count(self):
        fd = self.open(self.spool)
        self.fault.set("fdatasync errno=EIO after=2 count=1")
        self.assertEqual([self.ask(f"os.fdatasync({fd})") for _ in range(5)], ["None", "None", "EIO", "None", "None"])
        self.assertEqual([fault.call for fault in self.fault.applied()], [3])

    def test_path_and_the_next_rule(self):
        seg, other = self.open(self.spool, "a.seg"), self.open(self.spool, "a.idx")
        self.fault.set("fsync errno=EIO path=.seg count=1", "fsync errno=ENOSPC")
        self.assertEqual(self.ask(f"os.fsync({other})"), "ENOSPC")
        self.assertEqual(self.ask(f"os.fsync({seg})"), "EIO")
        self.assertEqual(self.ask(f"os.fsync({seg})"), "ENOSPC")

    def test_short_transfers_are_real(self):
        fd = self.open(self.spool)
        self.fault.set("pwritev short=3", "pwrite short=1", "pread short=2")
        self.assertEqual(self.ask(f"os.pwritev({fd}, [b'ab', b'cd', b'ef'], 0)"), "3")
        self.assertEqual((self.spool / "a.seg").read_bytes(), b"abc")
        self.assertEqual(self.ask(f"os.pwrite({fd}, b'xyz', 3)"), "1")
        self.assertEqual((self.spool / "a.seg").read_bytes(), b"abcx")
        self.assertEqual(self.ask(f"os.pread({fd}, 4, 0)"), "b'ab'")

    def test_a_hanging_call_goes_on_when_the_rules_change(self):
        fd = self.open(self.spool)
        self.fault.set("fdatasync hang=1")
        self.child.stdin.write(f"os.fdatasync({fd})\n")
        self.child.stdin.flush()
        self.assertTrue(self.fault.wait_applied("fdatasync")[0].hang)
        self.assertEqual(select.select([self.child.stdout], [], [], 0)[0], [])
        self.fault.off()
        self.assertEqual(self.child.stdout.readline().strip(), "None")

    def test_delay_is_applied_and_carried_out(self):
        fd = self.open(self.spool)
        self.fault.set("pwrite delay_ms=20")
        self.assertEqual(self.ask(f"(t := __import__('time').monotonic(), os.pwrite({fd}, b'a', 0), "
                                  "__import__('time').monotonic() - t >= 0.02)[1:]"), "(1, True)")

    def test_a_rule_that_makes_no_sense_ends_the_process(self):
        for rule in ("fdatasink errno=EIO", "fsync errno=EOOPS", "fsync delay=3", "fsync after=1", "fsync short=1"):
            with self.subTest(rule):
                self.start()
                fd = self.open(self.spool)
                self.fault.set(rule)
                self.ask(f"os.fsync({fd})")
                self.assertEqual(self.child.wait(), 99)
                self.assertIn("disk_fault:", self.child.stderr.read())
                self.fault.off()


if __name__ == "__main__":
    unittest.main(verbosity=2)
