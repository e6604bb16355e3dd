#!/usr/bin/env python3
"""Exactly once and in order through kills, freezes and outages of three real brokers."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
sys.path.remove(str(pathlib.Path(__file__).resolve().parent))  # kafka.py must not hide anything of that name

from tests.integration import brokers, restarts, stand  # noqa: E402  the path must be set first

SCENARIOS = {
    "broker_kill": brokers.broker_kill,
    "broker_freeze": brokers.broker_freeze,
    "all_brokers_down": brokers.all_brokers_down,
    "all_brokers_frozen": brokers.all_brokers_frozen,
    "ack_kafka": brokers.ack_kafka,
    "lanes": brokers.lanes,
    "too_large": brokers.too_large,
    "sigterm": restarts.sigterm,
    "sigterm_twice": restarts.sigterm_twice,
    "sighup": restarts.sighup,
}

# all_brokers_frozen waits a minute and a half for a transaction's end; broker_freeze and all_brokers_down show most of
# it. broker_kill: ./test has it as a drill on the three-zone cluster.
LONG_ONLY = ("all_brokers_frozen", "broker_kill")

if __name__ == "__main__":
    short = [name for name in SCENARIOS if name not in LONG_ONLY]
    sys.exit(stand.main(SCENARIOS, __doc__, default=None if "--long" in sys.argv else short))
