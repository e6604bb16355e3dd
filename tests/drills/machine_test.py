"""What the machine did during a drill: the counters' arithmetic, and what is said of it."""

import contextlib
import html
import io
import pathlib
import tempfile
import time
import unittest
from unittest import mock

from chaos.drilling import machine
from chaos.drilling.main import say
from chaos.drilling.verdict import Verdict
from chaos.report import page

BEFORE = "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 100 0 50 800 50 0 0 0 7 0\nintr 1\n"
AFTER = "cpu  160 5 70 830 60 2 3 70 9 0\ncpu0 160 5 70 830 60 2 3 70 9 0\nintr 2\n"
QUIET = [[1, 0.4, 0.01, 0.002, 0], [2, 0.5, 0.0, 0.3, 0.05], *([t, 0.5, 0.05, 0, 0] for t in range(3, 12)),
         [12, 0.5, 0.3, 0, 0.06]]
HERE = pathlib.Path(__file__).parent
DISK = " 254   0 vda {} 25 4529922 1627983 {} 23826 21427136 539940 {} 190728 2205354 16587 25 9568768 8779 {} 28600\n"


class MachineTest(unittest.TestCase):
    def test_shares_of_the_processors(self):
        busy, stolen = machine.shares(machine.ticks(BEFORE), machine.ticks(AFTER))
        self.assertAlmostEqual(90 / 200, busy)  # not idle, waiting for a disk or taken; guests are in it already
        self.assertAlmostEqual(70 / 200, stolen)

    def test_no_time_went_by(self):
        self.assertEqual((0, 0), machine.shares(machine.ticks(AFTER), machine.ticks(AFTER)))

    def test_what_is_no_stat_is_told(self):
        for text in ("", "cpu 1 2 3\n", "intr 5\ncpu 1 2 3 4 5 6 7 8\n"):
            with self.assertRaisesRegex(ValueError, "/proc/stat begins with"):
                machine.ticks(text)

    def test_this_machine_is_watched(self):
        with mock.patch.object(machine, "EVERY_S", 0.05), machine.Watch(time.monotonic_ns(), HERE) as watch:
            while len(watch.rows) < 3:
                time.sleep(0.01)
        times = [row[0] for row in watch.rows]
        self.assertEqual(sorted(times), times)
        for _t, busy, stolen, late_s, still in watch.rows:
            self.assertTrue(0 <= busy <= 1 and 0 <= stolen <= 1 and late_s >= 0 and 0 <= still <= 1, watch.rows)

    def test_counters_that_move_are_seen(self):
        with tempfile.TemporaryDirectory() as home:
            stat = pathlib.Path(home, "stat")
            stat.write_text(BEFORE)
            with (mock.patch.multiple(machine, EVERY_S=0.05, STAT=stat),
                  machine.Watch(time.monotonic_ns(), HERE) as watch):
                while not watch.rows:
                    time.sleep(0.01)
                aside = stat.with_suffix(".new")
                aside.write_text(AFTER)
                aside.replace(stat)
                while not any(row[2] for row in watch.rows):
                    time.sleep(0.01)
        self.assertEqual({0.0, 0.35}, {row[2] for row in watch.rows})
        self.assertEqual((0.35, 1), (machine.figures(watch.rows)["stolen_worst"],
                                     machine.figures(watch.rows)["stolen_seconds"]))

    def test_a_disk_that_stands_still_is_seen(self):
        lines = [DISK.format(1, 2, 3, 4), DISK.format(1, 2, 3, 4), DISK.format(1, 2, 0, 4), DISK.format(1, 2, 3, 4),
                 DISK.format(1, 2, 3, 5), DISK.format(1, 3, 3, 5), DISK.format(2, 3, 3, 5), DISK.format(2, 3, 1, 5)]
        still = []
        with tempfile.TemporaryDirectory() as home, mock.patch.object(machine, "DISKS", pathlib.Path(home, "disks")):
            disk, now = machine._Disk((254, 0)), iter(range(len(lines)))
            for line in lines:
                machine.DISKS.write_text("   7       0 loop0 9 0 8 7 6 5 4 3 2 1 0\n" + line)
                with mock.patch.object(machine.time, "monotonic", lambda: next(now)):
                    disk.look()
                still.append(disk.take())
        # Only between two looks with something on its way: the second, and the last.
        self.assertEqual([0, 1, 0, 0, 0, 0, 0, 1], still)

    def test_a_disk_is_found_by_its_number_whatever_its_kernel_counts(self):
        old = "   8       1 sda1 10 0 8 7 20 5 4 3 2 1 0\n"  # no discards, no flushes
        self.assertEqual((30, 2), machine.requests(DISK.format(1, 2, 3, 4) + old, (8, 1)))
        self.assertEqual((1 + 2 + 16587 + 4, 3), machine.requests(old + DISK.format(1, 2, 3, 4), (254, 0)))
        self.assertIsNone(machine.requests(old, (8, 2)))

    def test_no_disk_is_below_memory(self):
        self.assertIsNone(machine.disk_of("/dev/shm/not/there"))
        self.assertEqual(machine.disk_of(HERE), machine.disk_of(HERE / "not" / "there"))

    def test_a_disk_that_stood_still_gets_a_note(self):
        self.assertIsNone(machine.note([*QUIET, [13, 0.1, 0, 0, 0.01]]))
        self.assertEqual("this machine's disk completed nothing of what it was asked for during 1.5% of the time, "
                         "up to 8% of a second: its times are the machine's, too",
                         machine.note([*QUIET, [13, 0.1, 0, 0, 0.08]]))
        self.assertRegex(machine.note([*QUIET, [13, 0.1, 0.9, 0, 0.9]]), "^the host gave .*; this machine's disk .*")

    def test_a_machine_of_its_own_gets_no_note(self):
        self.assertIsNone(machine.note([]))
        self.assertIsNone(machine.note(QUIET))

    def test_a_note_says_how_much(self):
        said = machine.note([*QUIET, [3, 0.1, 0.9, 0, 0], [4, 0.1, 0.2, 0, 0], [5, 0.4, 0.1, 4.25, 0]])
        for words in ("up to 90% of", "20% or more in 3 of 15 seconds", "4.2 s for its turn"):
            self.assertIn(words, said)

    def test_a_tenth_of_the_seconds_half_of_the_processors_or_a_second_of_waiting(self):
        self.assertIsNotNone(machine.note([*QUIET, [13, 0.1, 0.2, 0, 0]]))
        self.assertIsNotNone(machine.note([*QUIET, [13, 0.1, 0.5, 0, 0]]))
        self.assertIsNotNone(machine.note([*QUIET, [13, 0.1, 0, 1.0, 0]]))
        self.assertIsNone(machine.note([*QUIET, [13, 0.1, 0.19, 0.9, 0]]))

    def test_a_host_that_gives_nothing_is_waited_for_and_not_for_ever(self):
        given, said = [0.9, 0.5, 0.21, 0.2], []
        with mock.patch.multiple(machine, ASK_AGAIN_S=0.001, stolen_when_asked=lambda: given.pop(0)):
            machine.await_own(said.append)
        self.assertEqual(([], 1), (given, len(said)))
        self.assertIn("the host gives 90% of the processors to others", said[0])
        with mock.patch.multiple(machine, ASK_AGAIN_S=0.001, WAIT_S=0.01, stolen_when_asked=lambda: 0.9):
            machine.await_own(said.append)

    def test_all_processors_are_asked_for(self):
        before = machine.ticks(machine.STAT.read_text())
        stolen = machine.stolen_when_asked()
        busy, _stolen = machine.shares(before, machine.ticks(machine.STAT.read_text()))
        self.assertTrue(0 <= stolen <= 1)
        self.assertGreater(busy + _stolen, 0.5, "nothing was asked for")

    def test_a_late_look_alone_gets_a_note(self):
        self.assertIn("waited up to 1.5 s", machine.note([*QUIET, [3, 1, 0, 1.5, 0]]))

    def test_a_note_is_shown_and_no_reason(self):
        out = io.StringIO()
        verdict = Verdict("kill", verdict="PASS", note=machine.note([[1, 0.1, 0.9, 0, 0]]), load={},
                          series={"machine": [[1, 0.1, 0.9, 0, 0.25], [2, 0.2, 0.5, 0, 0]]})
        with contextlib.redirect_stderr(io.StringIO()):
            say(verdict, out)
        self.assertEqual(verdict.line + f"\n    ({verdict.note})\n", out.getvalue())
        shown = page.render(verdict.json())
        self.assertIn(f"Note: {html.escape(verdict.note)}.", shown)
        self.assertIn("<desc>given to others: at most 90</desc>", shown)
        self.assertIn("<desc>disk stood still: at most 25</desc>", shown)
        self.assertEqual(2, len(verdict.json()["series"]["machine"]))


if __name__ == "__main__":
    unittest.main()
