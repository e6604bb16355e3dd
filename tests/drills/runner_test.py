"""The runner: a good drill passes; each way to fail turns it red; rollbacks always run."""

import contextlib
import copy
import importlib
import inspect
import io
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from unittest import mock
from xml.etree import ElementTree

from chaos.drilling import criteria, drills, engine, machine, rollbacks, sampler, series
from chaos.drilling.main import ROOT, conduct, run_all
from chaos.drilling.stand import ClusterStand
from chaos.stand import caps, prepare
from tests.drills import local
from tests.drills.desk_stand import DeskStand, verdict_of

LINE = re.compile(r"(PASS|FAIL|SKIP) (\S+) acked=(\d+|-) lost=(\d+|-) doubled=(\d+|-) reordered=(\d+|-)"
                  r" availability=([\d.]+|-)% p99=([\d.]+|-)ms rto=([\d.]+|-)s")


def step(name, function, kind="action", **more):
    arguments = more.pop("arguments", {})
    return {"type": kind, "name": name, **more,
            "provider": {"type": "python", "module": "tests.drills.local", "func": function, "arguments": arguments}}


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def experiment(mark):
    return {
        "version": "1.0.0", "title": "The desk is killed", "description": "It comes back and has what it took.",
        "tags": ["test"],
        "steady-state-hypothesis": {"title": "it accepts", "probes": [step("accepts", "accepts", "probe",
                                                                           tolerance=True)]},
        "method": [step("before", "taken", "probe", arguments={"count": 25}),
                   step("kill", "kill", pauses={"after": 0.1}),
                   step("is down", "accepts_not", "probe", tolerance=True),
                   step("is seen", "looked_at", "probe"),
                   step("heal", "start"),
                   step("after", "taken", "probe", arguments={"count": 35})],
        "rollbacks": [step("start", "start"), step("mark", "leave_a_mark", arguments={"path": str(mark)})],
        "extensions": [{"name": "sluice", "load": {"rate": 200}, "criteria": {"acked_min": 20, "rto_s_max": 10},
                        "needs": ["kill"], "drain_s": 20}]}


class RunnerTest(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-drills-"))
        self.addCleanup(shutil.rmtree, self.home)
        self.mark, self.reports = self.home / "mark", self.home / "reports"
        self.experiment = experiment(self.mark)
        self.own = self.experiment["extensions"][0]
        # Only who is dead does not answer.
        for where, name, seconds in ((sampler, "EVERY_S", 0.1), (sampler, "ANSWER_S", 60), (machine, "EVERY_S", 0.1)):
            self.patch(where, name, seconds)
        # What its host does to this machine is not the subject here.
        self.patch(machine, "await_own", lambda say: None)
        self.patch(machine, "note", lambda rows: None)
        self.stand = DeskStand(self.home / "ledger")
        # Whoever starts this may have made it deaf to Ctrl-C.
        self.handlers = handlers()

    def patch(self, where, name, thing):
        patch = mock.patch.object(where, name, thing)
        patch.start()
        self.addCleanup(patch.stop)

    def tearDown(self):
        self.stand.down()

    def drill(self, name="kill"):
        return drills.Drill(name, copy.deepcopy(self.experiment))

    def run_drill(self, **ways):
        """(verdict as written to the reports, what was printed)"""
        out = io.StringIO()
        with contextlib.redirect_stderr(io.StringIO()):
            with contextlib.suppress(KeyboardInterrupt):
                run_all([self.drill()], self.stand, self.reports, out, **ways)
        found = json.loads((self.reports / "kill.json").read_text())
        self.assertEqual(found["line"], out.getvalue().splitlines()[0])
        self.assertRegex(found["line"], LINE)
        for page in ("kill.html", "index.html"):
            self.assertIn(found["verdict"], (self.reports / page).read_text())
        return found, out.getvalue()

    def expect_red(self, *words):
        found, printed = self.run_drill()
        self.assertEqual("FAIL", found["verdict"], found["reasons"])
        for word in words:
            self.assertIn(word, " | ".join(found["reasons"]))
            self.assertIn(word, printed)
        return found

    def expect_whole_page(self, page):
        """Nothing is fetched, and every plot is well-formed."""
        self.assertNotRegex(page, r'(src|href)="(?!index\.html|kill\.json)|@import|url\(|<script')
        drawn = [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
        plots = [each for each in drawn if each.get("role") == "img"]
        self.assertGreaterEqual(len(plots), 5)
        for plot in plots:
            self.assertIn("fault", "".join(each.get("class", "") for each in plot))

    def expect_rolled_back(self):
        self.assertEqual("rolled back", self.mark.read_text())

    def test_a_good_drill_passes(self):
        found, _ = self.run_drill()
        self.assertEqual(("PASS", []), (found["verdict"], found["reasons"]))
        self.expect_rolled_back()
        self.assertEqual(0, found["figures"]["lost"])
        self.assertGreater(found["figures"]["acked"], 20)
        kill = next(each for each in found["steps"] if each["name"] == "kill")
        self.assertIn("signal 9", kill["said"])
        self.assertLessEqual(found["fault_s"][0], kill["start_s"])
        states = [state for _from, _to, state in found["series"]["states"]["desk"]]
        self.assertEqual(["ready", "no answer", "ready"], states)
        self.assertEqual(["kill"], [each["name"] for each in self.stand.published])
        self.assertGreater(len(found["series"]["machine"]), 1)
        self.assertGreaterEqual(found["figures"]["stolen_worst"], 0)
        self.assertGreaterEqual(found["figures"]["disk_still_worst"], 0)
        figures = LINE.match(found["line"]).groups()
        self.assertEqual(str(found["figures"]["acked"]), figures[2])
        self.assertLessEqual(round(float(figures[6]) / 100, 9), found["figures"]["availability"])
        self.expect_whole_page((self.reports / "kill.html").read_text())

    def test_live_progress(self):
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            run_all([self.drill()], self.stand, self.reports, io.StringIO(), live=True)
        lines = shown.getvalue().split("\r")
        for words in ("method: kill", "pending 0", "/s · p99", " sent ", "judging"):
            self.assertIn(words, shown.getvalue())
        self.assertLessEqual(max(map(len, lines)), 160)
        self.assertEqual(("", ""), (lines[-1], lines[-2].strip()), "nothing is left on the line")

    def test_the_steady_state_is_not_met(self):
        self.experiment["steady-state-hypothesis"]["probes"][0]["tolerance"] = False
        found = self.expect_red("the steady state was not met before: accepts: True")
        self.expect_rolled_back()
        self.assertEqual([], [each for each in found["steps"] if each["part"] == "method"])

    def test_the_steady_state_does_not_return(self):
        left = self.home / "left behind"
        self.experiment["steady-state-hypothesis"]["probes"].append(
            step("nothing is left", "is_there", "probe", tolerance=False, arguments={"path": str(left)}))
        self.experiment["method"].append(step("leave", "leave_a_mark", arguments={"path": str(left)}))
        self.expect_red("the steady state did not return: nothing is left: True")

    def test_events_stay_pending(self):
        del self.experiment["method"][3:]
        self.own["drain_s"] = 0.5
        self.expect_red("after 0.5 s Kafka has not everything: no answer from desk")
        self.expect_rolled_back()

    def test_a_fault_that_was_not_applied(self):
        self.experiment["method"][1] = step("freeze", "freeze_a_dead_one")
        found = self.expect_red("freeze: ", "cannot freeze")
        self.expect_rolled_back()
        self.assertNotIn("is down", [each["name"] for each in found["steps"]])

    def test_a_fault_without_a_proof(self):
        self.experiment["method"][1] = step("boast", "boast")
        self.expect_red("boast: nothing proves that it was applied")
        self.expect_rolled_back()

    def test_no_fault_at_all(self):
        self.experiment["method"] = []
        self.expect_red("no fault was applied")

    def test_a_probe_of_the_method_that_fails(self):
        self.experiment["method"][2] = step("is down", "fail_to_roll_back", "probe")
        self.expect_red("is down: ", "the mount is busy")

    def test_a_probe_of_the_method_outside_its_tolerance(self):
        self.experiment["method"][2] = step("still takes", "accepts", "probe", tolerance=True)
        self.expect_red("still takes: False")
        self.expect_rolled_back()

    def test_what_is_only_late_when_a_method_ends_early_is_not_lost(self):
        self.stand = DeskStand(self.home / "ledger", late=26)
        self.experiment["method"] = [step("before", "taken", "probe", arguments={"count": 25}),
                                     step("more", "answered", "probe", arguments={"count": 30}),
                                     step("boast", "boast")]
        found = self.expect_red("boast: nothing proves that it was applied")
        self.assertGreaterEqual(found["figures"]["acked"], 30)
        self.assertEqual(0, found["figures"]["lost"])

    def test_a_missed_criterion(self):
        self.own["criteria"].update(acked_min=10**9, freshness_s_max=120)
        found = self.expect_red("acked is ", "wanted at least 1000000000", "freshness_s was not measured")
        self.assertFalse(next(each for each in found["criteria"] if each["name"] == "acked_min")["met"])

    def run_again(self, notes, words, **ways):
        """(verdict, what was printed, how often it ran) where the machine's notes of the runs are these."""
        ran, up = [], self.stand.up

        def up_anew(drill, say):
            self.stand.down()
            self.stand.ledger.unlink(missing_ok=True)
            up(drill, say)

        self.patch(self.stand, "up", up_anew)
        self.patch(machine, "await_own", ran.append)
        self.patch(machine, "note", lambda rows: notes[len(ran) - 1])
        found, printed = self.run_drill(**ways)
        for word in words:
            self.assertIn(word, printed)
        return found, printed, len(ran)

    def test_what_the_host_spoiled_runs_again(self):
        self.own["criteria"].update(rto_s_max=-1)
        found, printed, ran = self.run_again(["it took all", "it took half", "it took it"], [
            "(run before: rto_s is ", "; it took all)", "; it took half)", "    (it took it)",
            "    all but its times holds, and this machine cannot judge those: rto_s is "])
        self.assertEqual(("SKIP", 2, 3), (found["verdict"], len(found["earlier"]), ran))
        self.assertEqual(1, sum(bool(LINE.match(line)) for line in printed.splitlines()))
        self.assertEqual(0, found["figures"]["lost"])
        self.assertIn("Note: run before: rto_s is ", (self.reports / "kill.html").read_text())

    def test_what_is_not_about_time_fails_on_any_machine(self):
        self.own["criteria"].update(rto_s_max=-1, acked_min=10**9)
        found, _printed, ran = self.run_again(["all", "half", "it"], ["    acked is ", "    rto_s is "])
        self.assertEqual(("FAIL", 2, 3), (found["verdict"], len(found["earlier"]), ran))

    def test_what_was_not_measured_fails_on_any_machine(self):
        self.own["criteria"].update(freshness_s_max=120)
        found, _printed, ran = self.run_again(["all", "half", "it"], ["    freshness_s was not measured"])
        self.assertEqual(("FAIL", 3), (found["verdict"], ran))

    def test_once_is_once(self):
        self.own["criteria"].update(rto_s_max=-1)
        found, _printed, ran = self.run_again(["it took all"], ["    rto_s is ", "    (it took all)"], once=True)
        self.assertEqual(("FAIL", 0, 1), (found["verdict"], len(found["earlier"]), ran))

    def test_an_own_machine_is_no_excuse(self):
        self.own["criteria"].update(rto_s_max=-1)
        found, _printed, ran = self.run_again(["it took all", None], [])
        self.assertEqual(("FAIL", 1, 2), (found["verdict"], len(found["earlier"]), ran))

    def test_damage_is_no_machines_fault(self):
        self.own["criteria"].update(rto_s_max=-1, doubled=10**6)
        found, _printed, ran = self.run_again(["it took all"], ["doubled is "])
        self.assertEqual(("FAIL", 0, 1), (found["verdict"], len(found["earlier"]), ran))

    def test_refused_clients_are_no_machines_fault(self):
        self.own["criteria"].update(rto_s_max=-1, availability_min=0.9995)
        found, _printed, ran = self.run_again(["it took all"], ["availability is ", ", wanted at least 0.9995"])
        self.assertEqual(("FAIL", 0, 1), (found["verdict"], len(found["earlier"]), ran))

    def test_what_the_judge_says_is_no_machines_fault(self):
        self.stand.accuses = "a record without stream"
        found, _printed, ran = self.run_again(["it took all"], ["the judge: a record without stream"])
        self.assertEqual(("FAIL", 0, 1), (found["verdict"], len(found["earlier"]), ran))

    def test_a_missed_time_at_any_speed(self):
        self.own["criteria"].update(rto_s_max=-1)
        found, _printed = self.run_drill(speed=False)
        self.assertEqual("PASS", found["verdict"], found["reasons"])
        self.assertIn("not judged", (self.reports / "kill.html").read_text())
        self.expect_red("rto_s is ")

    def test_a_lost_event(self):
        self.stand = DeskStand(self.home / "ledger", forget=7)
        self.expect_red("lost is ", "wanted 0")

    def test_a_missing_judge(self):
        self.stand.judging = False
        found = self.expect_red("no judgement: ImportError", "lost was not measured")
        self.assertIn("lost=- ", found["line"])

    def test_a_judge_that_accuses(self):
        self.stand.accuses = "curated: 2 missing: event-9"
        self.expect_red("the judge: curated: 2 missing: event-9")

    def test_a_rollback_that_fails(self):
        self.experiment["rollbacks"].insert(0, step("unmount", "fail_to_roll_back"))
        self.expect_red("rollback unmount: ", "the mount is busy")
        self.expect_rolled_back()
        self.assertEqual(1, self.stand.downs, "a stand that was not cleaned up is not used again")

    def test_control_c(self):
        self.experiment["method"][1] = step("at the terminal", "control_c")
        self.expect_red("interrupted")
        self.expect_rolled_back()

    def test_killed_while_judging(self):
        self.stand.killed_while_judging = True
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(130, conduct([self.drill()], self.stand, self.reports, io.StringIO()))
        self.assertEqual(["interrupted"], verdict_of(self.reports, "kill")["reasons"])
        self.assertIsNone(local.desk, "the stand was closed")
        self.assertEqual(self.handlers, handlers())

    def test_terminated_while_a_fault_is_waited_for(self):
        self.experiment["method"][1] = step("kill", "terminated_while_it_waits")
        self.expect_red("interrupted")
        self.expect_rolled_back()
        self.assertEqual(self.handlers, handlers())

    def test_control_c_while_rolling_back(self):
        self.experiment["rollbacks"][0] = step("start", "control_c_in_rollback")
        self.expect_red("interrupted")
        self.expect_rolled_back()
        self.assertEqual(self.handlers, handlers())

    def test_the_load_does_not_come_about(self):
        self.own["load"] = {"no such setting": 1}
        self.expect_red("the load: ")
        self.expect_rolled_back()

    def test_a_capability_that_is_missing(self):
        self.stand.lacks = {"kill": "the kernel says no"}
        found, printed = self.run_drill()
        self.assertEqual(("SKIP", ["kill: the kernel says no"]), (found["verdict"], found["reasons"]))
        self.assertIn("SKIP kill acked=- lost=-", printed)
        self.assertEqual(0, self.stand.ups)

    def test_a_capability_that_is_found_missing_on_the_way(self):
        self.experiment["method"][1] = step("delay", "need_what_is_missing")
        found, _ = self.run_drill()
        self.assertEqual(("SKIP", ["CONFIG_NET_SCH_NETEM is not set"]), (found["verdict"], found["reasons"]))
        self.expect_rolled_back()

    def test_a_file_that_the_toolkit_refuses(self):
        self.experiment["method"][1]["provider"]["func"] = "no_such_function"
        self.expect_red("no_such_function")

    def test_a_key_that_nobody_knows(self):
        self.own["critera"] = {}
        with self.assertRaisesRegex(drills.BadDrill, "critera"):
            self.drill()

    def test_the_next_drill_gets_a_new_stand_after_a_dirty_one(self):
        self.experiment["rollbacks"].insert(0, step("unmount", "fail_to_roll_back"))
        with contextlib.redirect_stderr(io.StringIO()):
            run_all([self.drill("one"), self.drill("two")], self.stand, self.reports, io.StringIO())
        self.assertEqual(2, self.stand.ups)
        self.assertIn(">two</a>", (self.reports / "index.html").read_text())


class FiguresTest(unittest.TestCase):
    def test_a_counter_that_begins_anew(self):
        rows = [{"node": "a", "kind": "gateway", "state": "ready", "takeovers": value} for value in (3, 4, 0, 2)]
        rows.insert(2, {"node": "a", "kind": "gateway", "state": sampler.SILENT})
        self.assertEqual(3, series.gained(rows, "takeovers"))

    def test_quantiles_of_what_came_between(self):
        before, after = [[0.1, 50], [1.0, 50], ["inf", 50]], [[0.1, 148], [1.0, 150], ["inf", 150]]
        self.assertEqual(1000, series.quantile_ms(before, after))
        self.assertEqual(100, series.quantile_ms(before, after, 0.5))
        self.assertIsNone(series.quantile_ms(after, before), "the process began anew")
        self.assertIsNone(series.quantile_ms(after, after), "nothing was answered")

    def test_criteria(self):
        rows = criteria.check({"rto_s_max": 15, "acked_min": 5, "quarantined": 0, "lost": 1},
                              {"rto_s": 15.1, "acked": 5, "quarantined": 0, "lost": 1, "doubled": 0})
        met = {row["name"]: row["met"] for row in rows}
        self.assertEqual({"rto_s_max": False, "acked_min": True, "quarantined": True, "lost": True, "doubled": True,
                          "phantom": False, "reordered": False, "corrupt": False, "unseen": False}, met)

    def test_criteria_at_any_speed(self):
        wanted = {"rto_s_max": 15, "p99_ratio_max": 1.5, "p99_grown_max": 5, "availability_before_retries_min": 0.99,
                  "availability_min": 0.9995, "curated_missing": 0, "takeovers_min": 1}
        rows = criteria.check(wanted, {}, speed=False)
        judged = {row["name"] for row in rows if row["judged"]}
        self.assertEqual({"availability_min", "curated_missing", "takeovers_min", *criteria.ALWAYS}, judged)
        self.assertTrue(all(row["judged"] for row in criteria.check(wanted, {})))


class FilesTest(unittest.TestCase):
    def test_each_drill_of_the_tree_is_an_experiment(self):
        for drill in drills.every():
            with self.subTest(drill.name):
                engine.validate(drill)
                self.assertTrue(drill.experiment["rollbacks"], "what is broken must be healed whatever comes")
                self.assertIsNotNone(drill.runbook, "an operator must find what to do")

    def test_each_heal_of_the_rollback_is_there(self):
        for word, (module, function, arguments) in rollbacks.HEALS.items():
            with self.subTest(word):
                found = getattr(importlib.import_module(f"chaos.faults.{module}"), function)
                inspect.signature(found).bind("az-a", **arguments)

    def test_the_list_needs_nothing(self):
        listed = subprocess.run([sys.executable, ROOT / "chaos/drill", "--list", "--long"], stdout=subprocess.PIPE,
                                text=True, check=True, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})
        self.assertEqual([each.name for each in drills.every()],
                         [line.split()[0] for line in listed.stdout.splitlines()])

    def test_a_shim_that_is_not_built_yet_is_no_reason_to_skip(self):
        with tempfile.TemporaryDirectory() as build, mock.patch.dict("os.environ", SLUICE_BUILD=build), \
                mock.patch.object(prepare, "prepare", lambda: self.build_shims(pathlib.Path(build))):
            self.assertNotIn("not built", ClusterStand().missing(mock.Mock(needs=["preload-clock"])) or "")

    def test_what_the_cluster_stands_on_is_needed_by_each_drill(self):
        found = {name: caps.Capability(name, "", "" if name != "loop" else "no such device") for name in caps.STAND}
        with mock.patch.object(prepare, "prepare"), mock.patch.object(caps, "probe", return_value=found):
            self.assertEqual("loop: no such device", ClusterStand().missing(mock.Mock(needs=["netns"])))

    @staticmethod
    def build_shims(build):
        source, shim = ROOT / "chaos/faults/clock_shift.c", build / "chaos/faults/clock_shift.so"
        shim.parent.mkdir(parents=True)
        words = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-shared", "-fPIC", f"-I{ROOT}", "-o", shim, source]
        subprocess.run(words, check=True)

    def test_wrong_command_lines(self):
        for words, code in (([], 2), (["--nonsense"], 2), (["no-such-drill"], 1), (["--all", "x"], 2)):
            with self.subTest(words):
                run = subprocess.run([sys.executable, ROOT / "chaos/drill", *words], capture_output=True, check=False)
                self.assertEqual(code, run.returncode)
                self.assertTrue(run.stderr)


if __name__ == "__main__":
    unittest.main()
