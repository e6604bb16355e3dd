"""One drill from its file to its verdict.

steady state → load → method (faults, probes, heals) → load ends → Kafka has the rest → steady again → rollbacks →
judge → criteria. Whatever fails on the way, the rollbacks run and the verdict says why.
"""

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import time

from chaos.drilling import criteria, engine, machine, series
from chaos.drilling.drills import BadDrill
from chaos.drilling.sampler import Sampler
from chaos.drilling.verdict import PASS, SKIP, Verdict
from chaos.report import page


ATTEMPTS = 3  # of a drill that the machine's host spoils


class Drilling:
    """One run; `stand` is a chaos.drilling.stand.Stand."""

    def __init__(self, drill, stand, reports, progress, speed=True, earlier=()):
        # `earlier`: what was seen of it in this run already, where the machine was not its own.
        self.drill, self.stand, self.progress, self.speed = drill, stand, progress, speed
        self.reports = pathlib.Path(reports)
        self.folder = self.reports / f"{drill.name}.run"
        self.start_ns = time.monotonic_ns()
        self.verdict = Verdict(drill.name, drill.title, drill.description, load=drill.load or {},
                               started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                               machine=machine.facts(), runbook=drill.runbook, earlier=list(earlier))
        self.last = len(self.verdict.earlier) + 1 == ATTEMPTS
        self.load = self.sampler = None
        self.settling = False
        self.figures = {}
        self.clean = True  # the stand may be used for another drill

    def run(self):
        """Returns the verdict; the reports are written."""
        try:
            engine.validate(self.drill)
            reason = self.stand.missing(self.drill)
            if reason:
                self.verdict.verdict = SKIP
                self.verdict.reasons.append(reason)
            else:
                self._run()
        except BadDrill as error:
            self.verdict.fail(error)
        except KeyboardInterrupt:
            self.clean = False
            self.verdict.fail("interrupted")
        except Exception as error:  # pylint: disable=broad-except
            self.clean = False
            self.verdict.fail(f"{type(error).__name__}: {error}")
        finally:
            self._end_load()
        self.verdict.duration_s = round(self._now_s(), 1)
        self._write()
        return self.verdict

    def _now_s(self):
        return (time.monotonic_ns() - self.start_ns) / 1e9

    def _run(self):
        self.stand.up(self.drill, self.progress.say)
        if self.speed or self.verdict.earlier:
            machine.await_own(self.progress.say)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.start_ns = time.monotonic_ns()
        course = engine.Course(self._now_s, self.progress.say, self._start_load, self._settle)
        with (Sampler(self.stand.nodes(), self.folder / "samples.jsonl", self.start_ns) as self.sampler,
              machine.Watch(self.start_ns, self.stand.place()) as watch):
            self.progress.watch(self.sampler)
            outcome = engine.run(self.drill, course)
            self._end_load()
            if self.load is not None and not (self.settling or outcome.skip or outcome.interrupted):
                # The method ended early. What is only late must not be called lost; nothing is gained by it otherwise.
                with contextlib.suppress(TimeoutError):
                    self._settle()
        (self.folder / "journal.json").write_text(json.dumps(outcome.journal, indent=1, default=str))
        self.clean = outcome.clean and not outcome.interrupted
        self.verdict.steps, self.verdict.fault_s = outcome.steps, outcome.fault_s
        self.figures["conservation_error"] = max(
            (each["conservation_error"] for each in self.sampler.samples if "conservation_error" in each), default=None)
        self.figures["takeovers"] = series.gained(self.sampler.samples, "takeovers")
        self.figures.update(machine.figures(watch.rows))
        self.verdict.note = machine.note(watch.rows)
        judged = self._judge(outcome)
        self.verdict.series = {**series.collect(self.sampler.samples, judged), "machine": watch.rows}
        self._decide(outcome)

    # ---- load

    def _start_load(self):
        if self.drill.load is None:
            return
        self.progress.say("load starts")
        self.load = self.stand.start_load(self.drill.load, self.folder)
        self.progress.watch(self.sampler, self.load)

    def _stop_load(self):
        if self.load is not None and not getattr(self.load, "stopped", False):
            self.load.stopped = True
            self.load.stop()

    def _end_load(self):
        """However it went, nothing is sent any more."""
        try:
            self._stop_load()
        except Exception as error:  # pylint: disable=broad-except
            self.verdict.fail(f"the load: {error}")
        if self.load is not None:
            self.load.close()

    def _settle(self):
        """The load ends, then Kafka gets the rest."""
        self.settling = True
        self._stop_load()
        began, since_s = time.monotonic(), self.sampler.now_s() + 0.001  # times of samples are rounded
        self.progress.say("Kafka gets the rest")
        while series.pending_now(self.sampler.latest(), since_s) != 0:
            if time.monotonic() - began > self.drill.drain_s:
                latest = self.sampler.latest()
                left = series.pending_now(latest, since_s)
                raise TimeoutError(f"after {self.drill.drain_s} s Kafka has not everything: " + (
                    f"no answer from {', '.join(series.silent_gateways(latest)) or 'a gateway'}" if left is None
                    else f"{left} events are pending"))
            time.sleep(0.1)
        self.figures["drain_s"] = round(time.monotonic() - began, 1)

    # ---- verdict

    def _judge(self, outcome):
        if self.drill.load is None or self.load is None or outcome.skip or outcome.interrupted:
            return {}
        self.progress.say("judging")
        window = [int(self.start_ns + each * 1e9) for each in outcome.fault_s]
        try:
            judged = self.stand.judge(self.load, self.folder, self.start_ns, window)
        except Exception as error:  # pylint: disable=broad-except
            self.verdict.reasons.append(engine.one_line(f"no judgement: {type(error).__name__}: {error}"))
            return {}
        self.figures.update(judged["figures"])
        if not judged.get("passed", True):
            self.verdict.reasons.append(engine.one_line(f"the judge: {judged['why']}"))
        return judged

    def _decide(self, outcome):
        verdict = self.verdict
        verdict.figures = self.figures
        if outcome.skip and outcome.clean:
            verdict.verdict = SKIP
            verdict.reasons.append(outcome.skip)
            return
        verdict.reasons += outcome.problems
        if outcome.interrupted:
            return
        rows = criteria.check({"conservation_error": 0, **self.drill.criteria} if self.sampler.samples else
                              self.drill.criteria, self.figures, self.drill.load is not None, self.speed)
        verdict.criteria = rows
        missed = [row for row in rows if row["judged"] and not row["met"]]
        if not verdict.fault_s:
            verdict.reasons.append("no fault was applied")
        if missed and not verdict.reasons and self._only_the_machine_missed(missed):
            verdict.verdict = SKIP
            verdict.reasons.append("all but its times holds, and this machine cannot judge those: " +
                                   "; ".join(map(criteria.reason, missed)))
            return
        verdict.reasons += map(criteria.reason, missed)
        if not verdict.reasons:
            verdict.verdict = PASS
            # Tens of megabytes each, and nothing to look for in them.
            for path in self.folder.glob("history*.jsonl"):
                path.unlink()
        else:
            with contextlib.suppress(OSError):
                self.stand.keep_logs(self.folder)

    def _only_the_machine_missed(self, missed):
        """It had its attempts, its host took too much of each, and what is missed depends on nothing else."""
        return (self.verdict.note is not None and self.last and
                all(criteria.tells_of_speed(row["name"]) and row["measured"] is not None for row in missed))

    def _write(self):
        self.reports.mkdir(parents=True, exist_ok=True)
        replace(self.reports / f"{self.drill.name}.json", json.dumps(self.verdict.json(), indent=1, default=str) + "\n")
        replace(self.reports / f"{self.drill.name}.html", page.render(self.verdict.json()))
        replace(self.reports / "index.html", page.render_index(read_all(self.reports)))


def replace(path, text):
    """Built aside: a reader sees the old file or the new one."""
    aside = path.with_suffix(path.suffix + ".new")
    aside.write_text(text, "utf-8")
    os.replace(aside, path)


def read_all(reports):
    found = []
    for path in sorted(pathlib.Path(reports).glob("*.json")):
        try:
            verdict = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
        if isinstance(verdict, dict) and "verdict" in verdict and "line" in verdict:
            found.append(verdict)
    return found
