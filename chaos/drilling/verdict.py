"""What a drill found, as the line of the contract and as JSON."""

from dataclasses import asdict, dataclass, field

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"


def _count(value):
    return "-" if value is None else str(int(value))


def _real(value, places):
    return "-" if value is None else f"{value:.{places}f}"


@dataclass
class Verdict:
    """`figures` are the judge's and the runner's; a figure that is missing there was not measured, shown as "-"."""

    name: str
    title: str = ""
    description: str = ""
    verdict: str = FAIL
    reasons: list = field(default_factory=list)   # of a FAIL or SKIP, one sentence each
    figures: dict = field(default_factory=dict)
    criteria: list = field(default_factory=list)  # criteria.check
    steps: list = field(default_factory=list)     # name, type, part, start_s, end_s, status, said
    fault_s: list = field(default_factory=list)   # [from, to] since the drill's start; empty: none was applied
    load: dict = field(default_factory=dict)
    started: str = ""                             # UTC, RFC 3339
    duration_s: float = 0
    machine: dict = field(default_factory=dict)
    note: str | None = None                       # about the machine, whatever the verdict: machine.note
    earlier: list = field(default_factory=list)   # sentences: runs of it before this one, which the machine spoiled
    runbook: str | None = None
    series: dict = field(default_factory=dict)    # chaos/drilling/series.py

    @property
    def line(self):
        figures = self.figures.get
        availability = figures("availability")
        # Rounded down: what is not reached must not be shown.
        percent = None if availability is None else int(availability * 1e5 + 1e-6) / 1e3
        return (f"{self.verdict} {self.name} acked={_count(figures('acked'))} lost={_count(figures('lost'))}"
                f" doubled={_count(figures('doubled'))} reordered={_count(figures('reordered'))}"
                f" availability={_real(percent, 3)}% p99={_real(figures('p99_ms'), 1)}ms"
                f" rto={_real(figures('rto_s'), 1)}s")

    def fail(self, why):
        self.verdict = FAIL
        self.reasons.append(" ".join(str(why).split()))

    def json(self):
        return {"version": 1, "line": self.line, **asdict(self)}
