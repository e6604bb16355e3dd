"""chaos/drill NAME... | --tag TAG | --list | --all [--long]: runs drills, prints a line for each, writes reports.

Exit code: 0 when none failed, 1 when one did, 2 for a wrong command line, 130 after Ctrl-C."""

import argparse
import os
import pathlib
import signal
import subprocess
import sys

from chaos.drilling import criteria, drills

ROOT = pathlib.Path(__file__).resolve().parents[2]
FEW = 6


def arguments(words):
    parser = argparse.ArgumentParser(
        prog="chaos/drill", description="Runs drills against the three-zone cluster (chaos/cluster), which is started "
        "when it is not up, and ended afterwards when it was started here.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a drill of --list, or a file that ends in .json")
    parser.add_argument("--list", action="store_true", help="the drills that there are; needs nothing")
    parser.add_argument("--all", action="store_true", help="every drill but the long ones")
    parser.add_argument("--tag", help="every drill that has this tag: short, zone, kafka, disk, warehouse, ...")
    parser.add_argument("--long", action="store_true", help="with --all or --list: the long ones, too")
    parser.add_argument("--any-speed", action="store_true", help="show criteria that are times, or depend on them, and "
                        "do not judge by them: for a machine that has other work")
    parser.add_argument("--once", action="store_true", help="do not run a drill again that the machine's host spoiled")
    parser.add_argument("--check", action="store_true", help="only check the drill files, as the Chaos Toolkit does")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    parser.add_argument("--reports", metavar="DIR", default=os.environ.get("SLUICE_CHAOS_REPORTS", "chaos-reports"),
                        help="where the reports go (default: $SLUICE_CHAOS_REPORTS or ./chaos-reports)")
    options = parser.parse_args(words)
    if not (options.names or options.tag or options.all or options.list or options.check):
        parser.error("name a drill, or --tag, --list or --all")
    if bool(options.names) + bool(options.tag) + options.all > 1:
        parser.error("either names, --tag or --all")
    return options


def chosen(options):
    if options.names:
        return [drills.named(name) for name in options.names]
    every = drills.every()
    if options.tag:
        every = [drill for drill in every if options.tag in drill.tags]
        if not every:
            raise drills.BadDrill(f"no drill has the tag {options.tag!r}")
    which = every if options.long or options.check else [drill for drill in every if not drill.long]
    return which if options.list else in_one_go(which)


def in_one_go(which):
    """So that a cluster is started once for many: a few drills run on one with the warehouse, if one of them needs it;
    of many, those that need it come last, the others have the processors for themselves."""
    return sorted(which, key=lambda drill: drill.warehouse, reverse=len(which) <= FEW)


def show_list(which):
    for drill in which:
        mark = " (long)" if drill.long else ""
        print(f"{drill.name:28} {drill.minutes:4g} min  {drill.title}{mark}")


def with_library(command):
    """Runs this command again with the Python that has the Chaos Toolkit's library, unless it is here."""
    try:
        import chaoslib  # noqa: F401 pylint: disable=unused-import
        return
    except ImportError:
        pass
    if os.environ.get("SLUICE_CHAOS_PYTHON"):
        sys.exit("chaos/drill: scripts/chaostoolkit gave a Python without the library")
    found = subprocess.run([ROOT / "scripts" / "chaostoolkit"], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode != 0:
        sys.exit("chaos/drill: the Chaos Toolkit's library could not be installed")
    python = found.stdout.strip()
    os.execve(python, [python, *map(str, command)], {**os.environ, "SLUICE_CHAOS_PYTHON": python})


def say(verdict, out):
    out.write(verdict.line + "\n")
    for reason in verdict.reasons:
        out.write(f"    {reason}\n")
    for remark in (verdict.note, *verdict.earlier):
        if remark:
            out.write(f"    ({remark})\n")
    out.flush()


def spoiled(verdict):
    """Red, and it may be the machine's: its host took much of it, and nothing is damaged, nobody was refused."""
    inexcusable = any(row["name"] in criteria.INEXCUSABLE and row["measured"] is not None and not row["met"]
                      for row in verdict.criteria)
    accused = any(reason.startswith(("the judge: ", "interrupted")) for reason in verdict.reasons)
    return verdict.verdict == "FAIL" and verdict.note is not None and not (inexcusable or accused)


def run_one(drill, stand, reports, live=None, speed=True, once=False):
    """A drill, again when it was spoiled, run.ATTEMPTS in all; (verdict of the last one, may the stand be used)."""
    from chaos.drilling.run import Drilling
    from chaos.drilling.terminal import Progress
    earlier = []
    while True:
        progress = Progress(drill.name, live=live)
        drilling = Drilling(drill, stand, reports, progress, speed, earlier)
        try:
            verdict = drilling.run()
        finally:
            progress.close()
        if once or drilling.last or not spoiled(verdict):
            return verdict, drilling.clean
        earlier.append(f"run before: {'; '.join(verdict.reasons)}; {verdict.note}")
        sys.stderr.write(f"{drill.name}: again: {'; '.join(verdict.reasons)}; {verdict.note}\n")
        if not drilling.clean:
            stand.down()


def run_all(which, stand, reports, out=None, live=None, **ways):
    """Runs drills one after the other on one stand; [Verdict]. A drill that could not clean up behind it costs the
    stand: the next one gets a new one. `ways`: speed and once of run_one."""
    from chaos.drilling.run import read_all
    verdicts = []
    for drill in which:
        verdict, clean = run_one(drill, stand, reports, live, **ways)
        verdicts.append(verdict)
        say(verdict, out or sys.stdout)
        if not clean:
            stand.down()
        else:
            publish(stand, read_all(reports))
        if "interrupted" in verdict.reasons:
            raise KeyboardInterrupt
    return verdicts


def publish(stand, verdicts):
    try:
        stand.publish(verdicts)
    except OSError as error:
        sys.stderr.write(f"chaos/drill: the gateways could not be told the verdicts: {error}\n")


def main(words):
    options = arguments(words)
    try:
        which = chosen(options)
    except drills.BadDrill as error:
        sys.exit(f"chaos/drill: {error}")
    if options.list:
        show_list(which)
        return 0
    if not options.check and os.geteuid() != 0:
        sys.exit("chaos/drill: needs root, for network namespaces and loop mounts")
    with_library([ROOT / "chaos" / "drill", *words])
    if options.check:
        return check(which)
    from chaos.drilling.stand import ClusterStand
    return conduct(which, ClusterStand(options.keep), options.reports, speed=not options.any_speed, once=options.once)


def conduct(which, stand, reports, out=None, **ways):
    """Runs drills and sums up; the exit code. However it ends, the stand is closed. `ways`: of run_all."""
    # As Ctrl-C: what was started is ended. The library has a handler of its own while it runs.
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        verdicts = run_all(which, stand, reports, out, **ways)
    except KeyboardInterrupt:
        return 130
    finally:
        before.append((signal.SIGINT, signal.getsignal(signal.SIGINT)))
        for number, _handler in before:
            signal.signal(number, signal.SIG_IGN)
        stand.close()
        for number, handler in before:
            signal.signal(number, handler)
    counts = ", ".join(f"{sum(each.verdict == verdict for each in verdicts)} {word}"
                       for verdict, word in (("PASS", "passed"), ("FAIL", "failed"), ("SKIP", "skipped")))
    print(f"{counts}; {pathlib.Path(reports, 'index.html').resolve()}", file=out or sys.stdout)
    return 1 if any(each.verdict == "FAIL" for each in verdicts) else 0


def check(which):
    from chaos.drilling.engine import validate
    wrong = 0
    for drill in which:
        try:
            validate(drill)
            print(f"ok {drill.name}")
        except drills.BadDrill as error:
            print(f"not ok {error}")
            wrong += 1
    return 1 if wrong else 0
