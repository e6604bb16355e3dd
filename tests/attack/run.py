#!/usr/bin/env python3
"""Attacks on the HTTP engine. Prints "ok NAME", "not ok NAME - why" or "skip NAME - reason"; exit 1 when one is not ok.

  run.py                              as --server and then as --sabotage, with the servers in $SLUICE_BUILD/tests/http
  run.py --server PATH                starts the test server for each attack, with the limits that it wants
  run.py --server PATH --sabotage     the same the other way round: with the armour (or its limits) switched off for it,
                                      each attack must turn red. PATH: the server built with SLUICE_HTTP_SABOTAGE
  run.py --url HOST:PORT --pid PID    attacks a server that runs already; --path answers 200 to a POST of {}, and
                                      --limits NAME=VALUE says what it was configured with. Attacks that need other
                                      limits, or the test server's own paths, are skipped
  --only NAME[,NAME]                  just these
"""

import argparse
import concurrent.futures
import inspect
import os
import re
import shutil
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import attack_bodies  # noqa: E402, F401  (they register their attacks)
import attack_connections  # noqa: E402, F401
import attack_headers  # noqa: E402, F401
import attack_resets  # noqa: E402, F401
import attack_slow  # noqa: E402, F401
import attack_smuggling  # noqa: E402, F401
import patience  # noqa: E402
from registry import ATTACKS, Failed, Skip  # noqa: E402
from target import LIMITS, Running, Started  # noqa: E402

AT_ONCE = 10


def with_extra(attack):
    """Flags beside the limits, and a directory to remove."""
    return attack.extra() if callable(attack.extra) else (None, attack.extra)


def run_started(attack, options):
    directory, extra = with_extra(attack)
    limits, sabotage = attack.limits, ()
    if options.sabotage:
        limits, sabotage = {**attack.limits, **(attack.sabotage_limits or {})}, attack.sabotage
    try:
        with Started(options.server, limits, extra, sabotage) as target:
            attack.function(target)
            alive = target.is_alive()
            code = target.stop(signal.SIGINT)
            if not alive or code != 0:
                raise Failed(f"the server ended with {code}: {target.log_text()[-2000:]}")
    finally:
        if directory is not None:
            shutil.rmtree(directory)


def run_running(attack, options):
    limits = {**LIMITS, **dict(pair.split("=") for pair in options.limits)}
    limits = {name: float(value) for name, value in limits.items()}
    for name, value in attack.limits.items():
        if limits[name] > value:
            raise Skip(f"needs {name} {value}")
    source = inspect.getsource(attack.function)
    if attack.extra or "/big" in source or "/hold" in source or "stats" in source or "wait_stats" in source:
        raise Skip("needs the test server")
    host, port = options.url.rsplit(":", 1)
    attack.function(Running(host, int(port), options.pid, limits, options.path))


def verdict(attack, options):
    """(line, bad)"""
    try:
        if options.server:
            run_started(attack, options)
        else:
            run_running(attack, options)
    except Skip as skip:
        return f"skip {attack.name} - {skip}", False
    except (Failed, OSError, AttributeError, ValueError) as failure:
        why = " ".join(str(failure).split()) or type(failure).__name__
        if not isinstance(failure, Failed):
            why = f"{type(failure).__name__}: {why}"
        if options.sabotage:
            return f"ok {attack.name} turns red: {why[:200]}", False
        return f"not ok {attack.name} - {why}", True
    if options.sabotage:
        return f"not ok {attack.name} - stays green though the armour is off", True
    return f"ok {attack.name}", False


def prove_the_proof(options):
    """With any one hook not reached, the server refuses to start and names it. [(line, bad)]"""
    verdicts = []
    with open(os.path.join(HERE, "..", "..", "gateway", "http_internal.h"), encoding="utf-8") as header:
        listed = header.read().split("#define HTTP_HOOKS(X)")[1].split("enum http_hook")[0]
    for hook in re.findall(r"X\((\w+)\)", listed):
        try:
            with Started(options.server, {}, (), (f"hook-{hook}",)):
                verdicts.append((f"not ok proof of {hook} - the server starts without it", True))
        except RuntimeError as refusal:
            named = f"not reached: {hook}" in str(refusal)
            verdicts.append((f"ok proof of {hook}" if named else f"not ok proof of {hook} - {refusal}", not named))
    return verdicts


def run_all(chosen, options):
    """The number of attacks that are not ok."""
    bad = 0
    patience.seconds = patience.SHORT_S if options.sabotage else patience.LONG_S
    # Most of them wait for a time limit: several at once, but one at a time where memory is measured.
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE if options.server else 1) as pool:
        futures = [pool.submit(verdict, attack, options) for attack in chosen if not attack.alone]
        for future in concurrent.futures.as_completed(futures):
            line, failed = future.result()
            bad += failed
            print(line, flush=True)
    for attack in chosen:
        if attack.alone:
            line, failed = verdict(attack, options)
            bad += failed
            print(line, flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server")
    parser.add_argument("--sabotage", action="store_true")
    parser.add_argument("--url")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--path", default="/echo")
    parser.add_argument("--limits", nargs="*", default=[])
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    build = os.environ.get("SLUICE_BUILD")
    both = options.server is None and options.url is None and build is not None
    if not both and (options.server is None) == (options.url is None):
        parser.error("either --server or --url, or SLUICE_BUILD in the environment")
    only = set(filter(None, options.only.split(",")))
    chosen = [attack for attack in ATTACKS if not only or attack.name in only]
    if only - {attack.name for attack in chosen}:
        parser.error(f"no such attack: {', '.join(only - {attack.name for attack in chosen})}")
    bad = 0
    if both:
        options.server = os.path.join(build, "tests", "http", "http_test_server")
        bad += run_all(chosen, options)
        options.server, options.sabotage = options.server + "_sabotage", True
    if options.sabotage:
        for line, failed in prove_the_proof(options):
            bad += failed
            print(line, flush=True)
    sys.exit(1 if run_all(chosen, options) + bad else 0)


if __name__ == "__main__":
    main()
