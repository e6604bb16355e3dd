"""One experiment through the Chaos Toolkit's library: its order, its rules, and what is ours beside them.

The library runs hypothesis, method, hypothesis, rollbacks. Ours, as a control and an event handler:
- load starts after the first hypothesis and ends after the method;
- an action that failed, or that shows no proof, ends the method: what comes after a fault that was not applied proves
  nothing. Healing actions (their names begin with "heal") need no proof, only success;
- a probe of the method that fails, or that is outside its tolerance when it has one, fails the drill;
- rollbacks always run, whatever came before, and a second Ctrl-C does not cut them short.

Needs the library (scripts/chaostoolkit); everything here runs in the main thread, one drill at a time.
"""

import contextlib
import copy
import logging
import re
import signal
from dataclasses import dataclass, field

from chaoslib.exceptions import ChaosException, InterruptExecution
from chaoslib.experiment import ensure_experiment_is_valid, run_experiment
from chaoslib.hypothesis import within_tolerance
from chaoslib.run import RunEventHandler

from chaos.drilling.drills import BadDrill

_SKIP = re.compile(r"(?:^|[.: ])Skip: (.*)", re.DOTALL)
_SETTINGS = {"runtime": {"rollbacks": {"strategy": "always"}}}
_CONTROL = {"name": "sluice", "provider": {"type": "python", "module": "chaos.drilling.engine"}}
_course = None  # the Course that runs now; the library finds controls by module name


def validate(drill):
    """The library's own check. Imports what the drill names, so a missing function is found here."""
    try:
        ensure_experiment_is_valid(copy.deepcopy(drill.experiment))
    except ChaosException as error:
        raise BadDrill(f"{drill.name}: {error}") from error


@dataclass
class Outcome:
    steps: list = field(default_factory=list)
    fault_s: list = field(default_factory=list)
    problems: list = field(default_factory=list)  # sentences
    skip: str | None = None
    interrupted: bool = False
    clean: bool = True  # every rollback succeeded
    journal: dict = field(default_factory=dict)


class Course(RunEventHandler):
    """`before_method` starts the load, `after_method` ends it; both may raise. `now_s` is the drill's clock, `say` is
    told each part and step."""

    def __init__(self, now_s, say, before_method=None, after_method=None):
        self.now_s, self.say = now_s, say
        self.before_method, self.after_method = before_method, after_method
        self.outcome = Outcome()
        self.part = "steady state"
        self.stopped = False
        self._begun = {}
        self._handlers = None

    # ---- events of the library

    def start_hypothesis_before(self, experiment):
        self.part = "steady state"
        # The library's own raises an Exception, which whatever waits for a fault to show would take for one of its own.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))

    def start_method(self, experiment):
        self.part = "method"

    def start_hypothesis_after(self, experiment):
        self.part = "steady again"

    def start_rollbacks(self, experiment):
        self.part = "rollback"
        # The library would leave the rest of the rollbacks out.
        self._handlers = [(number, signal.signal(number, self._not_now)) for number in (signal.SIGINT, signal.SIGTERM)]

    def rollbacks_completed(self, experiment, journal):
        for number, handler in self._handlers or ():
            signal.signal(number, handler)
        self._handlers = None

    def _not_now(self, _number, _frame):
        self.outcome.interrupted = True
        self.say("rolling back first: what was broken is not left broken")

    def start_activity(self, activity):
        self._begun[activity["name"]] = round(self.now_s(), 3)
        self.say(f"{self.part}: {activity['name']}")

    def activity_completed(self, activity, run):
        said = run.get("output")
        proof = said.get("proof") if isinstance(said, dict) else None
        status = run.get("status", "failed")
        self.outcome.steps.append({
            "name": activity["name"], "type": activity["type"], "part": self.part,
            "start_s": self._begun.get(activity["name"], 0), "end_s": round(self.now_s(), 3), "status": status,
            "said": one_line(proof or (said if status == "succeeded" else why(run)))})

    # ---- the control

    def check(self, activity, run):
        """After an activity of the method."""
        if self.part != "method" or activity["type"] != "action":
            return
        name, skip = activity["name"], _SKIP.search(why(run))
        if run.get("status") != "succeeded":
            if skip:
                self.outcome.skip = one_line(skip.group(1))
                raise InterruptExecution(self.outcome.skip)
            self._stop(f"{name}: {why(run)}")
        output = run.get("output")
        if not is_heal(name) and not (isinstance(output, dict) and output.get("proof")):
            self._stop(f"{name}: nothing proves that it was applied")

    def _stop(self, sentence):
        self.outcome.problems.append(one_line(sentence))
        self.stopped = True
        raise InterruptExecution(sentence)

    def guard(self, what, function):
        """Our own steps between the library's: it would swallow their exceptions."""
        try:
            function()
        except Exception as error:  # pylint: disable=broad-except
            self._stop(f"{what}: {error}")


def is_heal(name):
    return name.lower().startswith("heal")


def one_line(text):
    return " ".join(str(text).split())[:500] if text is not None else ""


def why(run):
    """The sentence of a failed activity, without the library's own wrapping."""
    lines = "".join(run.get("exception") or []).strip()
    return re.sub(r"^(chaoslib\.exceptions\.)?ActivityFailed: ", "", lines.rpartition("chaoslib.exceptions.")[2])


# ---- what the library calls

def before_method_control(context, **_):
    if _course.before_method:
        _course.guard("the load", _course.before_method)


def after_method_control(context, **_):
    if _course.after_method and not (_course.stopped or _course.outcome.skip or _course.outcome.interrupted):
        _course.guard("the end of the load", _course.after_method)


def after_activity_control(context, state, **_):
    _course.check(context, state or {})


# ---- the run

def run(drill, course):
    """Runs one drill. Never raises for what the drill does; what went wrong is in the outcome."""
    global _course
    logger = logging.getLogger("chaostoolkit")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    experiment = copy.deepcopy(drill.experiment)
    experiment["controls"] = [*experiment.get("controls", []), copy.deepcopy(_CONTROL)]
    _course, outcome = course, course.outcome
    with _interrupts(outcome):
        outcome.journal = run_experiment(experiment, settings=copy.deepcopy(_SETTINGS), event_handlers=[course])
    _course = None
    _judge_journal(outcome)
    _fault_window(outcome)
    return outcome


@contextlib.contextmanager
def _interrupts(outcome):
    """Ctrl-C and SIGTERM as one KeyboardInterrupt, which the library answers with the rollbacks."""
    def interrupt(_number, _frame):
        outcome.interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _judge_journal(outcome):
    journal = outcome.journal
    for when, name in (("before", "the steady state was not met before"), ("after", "the steady state did not return")):
        state = journal["steady_states"][when]
        if state and not state["steady_state_met"]:
            last = state["probes"][-1]
            said = why(last) if last["status"] == "failed" else last.get("output")
            outcome.problems.append(f"{name}: {last['activity']['name']}: {one_line(said)}")
    for run_ in journal["run"]:
        activity = run_["activity"]
        if activity["type"] != "probe":
            continue
        if run_.get("status") != "succeeded":
            outcome.problems.append(f"{activity['name']}: {one_line(why(run_) or 'did not end')}")
        # The library looks at tolerances in hypotheses only.
        elif "tolerance" in activity and not within_tolerance(activity["tolerance"], run_.get("output")):
            outcome.problems.append(f"{activity['name']}: {one_line(run_.get('output'))}")
    for run_ in journal["rollbacks"]:
        if run_.get("status") != "succeeded":
            outcome.clean = False
            outcome.problems.append(f"rollback {run_['activity']['name']}: {one_line(why(run_))}")
    if len(journal["rollbacks"]) != len(journal["experiment"].get("rollbacks", [])):
        outcome.clean = False
        outcome.problems.append("not every rollback was run")
    if journal["status"] in ("interrupted", "aborted") and not (outcome.problems or outcome.skip):
        outcome.interrupted = True
    if outcome.interrupted:
        outcome.problems.append("interrupted")


def _fault_window(outcome):
    """From the start of the method's first action to the end of its last one."""
    actions = [each for each in outcome.steps if each["part"] == "method" and each["type"] == "action"]
    if actions:
        # An action that waits longest may not be the last in the file: some run in the background.
        outcome.fault_s = [min(each["start_s"] for each in actions), max(each["end_s"] for each in actions)]
