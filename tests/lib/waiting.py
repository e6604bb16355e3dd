"""Waiting for a condition, with a deadline that names it."""

import time


class Late(Exception):
    """A condition did not come about in time."""


def until(condition, what, timeout_s=120, pause_s=0.05):
    """Calls condition() until it returns something true, and returns that. `what` may be a function. The deadline is
    for what never comes, and no verdict about how fast it comes: the machine may have other work."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise Late(f"{what() if callable(what) else what} (waited {timeout_s} s)")
        time.sleep(pause_s)
