#!/usr/bin/env python3
"""The dedupe window of a real gateway before three real brokers: races, conflicts, business keys, restarts."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
sys.path.remove(str(pathlib.Path(__file__).resolve().parent))

from tests.integration import dedupe_answers, dedupe_races, dedupe_restarts, stand  # noqa: E402  the path comes first

SCENARIOS = {
    "race": dedupe_races.race,
    "race_failing": dedupe_races.race_failing,
    "ack_kafka": dedupe_races.ack_kafka,
    "sameness": dedupe_answers.sameness,
    "conflicts": dedupe_answers.conflicts,
    "within_request": dedupe_answers.within_request,
    "business_keys": dedupe_answers.business_keys,
    "readiness": dedupe_restarts.readiness,
    "memory": dedupe_restarts.memory,
    "older_stream": dedupe_restarts.older_stream,
    "key_file": dedupe_restarts.key_file,
    "kills": dedupe_restarts.kills,
}

if __name__ == "__main__":
    sys.exit(stand.main(SCENARIOS, __doc__))
