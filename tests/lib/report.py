"""The runner's protocol (tests/suites): `ok NAME`, `not ok NAME - why`, `skip NAME - reason`, a line each."""

import sys
import time
import traceback


class Failure(Exception):
    """The scenario's own verdict: what was promised did not hold."""


class Skip(Exception):
    """This machine cannot run the scenario; the text says what is missing."""


def one_line(text):
    return " ".join(str(text).split())[:600]


def note(text):
    """A figure or an event worth reading in the log; no verdict."""
    print(f"    {one_line(text)}", flush=True)


def expect(truth, why):
    if not truth:
        raise Failure(why)


def run(name, scenario):
    """Runs scenario() and prints its verdict. True unless it failed."""
    started = time.monotonic()
    try:
        scenario()
    except Skip as reason:
        print(f"skip {name} - {one_line(reason)}", flush=True)
        return True
    except Exception as error:  # whatever it is, the other scenarios still run
        if not isinstance(error, Failure):
            traceback.print_exc(file=sys.stdout)
        why = error if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        print(f"not ok {name} - {one_line(why)}", flush=True)
        return False
    print(f"ok {name} - {time.monotonic() - started:.0f} s", flush=True)
    return True
