#!/usr/bin/env python3
"""Killed processes, failing and full disks, with three real brokers behind."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
sys.path.remove(str(pathlib.Path(__file__).resolve().parent))

from tests.integration import disk, restarts, stand  # noqa: E402  the path must be set first

SCENARIOS = {
    "kill9": restarts.kill9,
    "restart_pending": restarts.restart_pending,
    "disk_budget": disk.disk_budget,
    "sync_error": disk.sync_error,
    "no_space_shim": disk.no_space_shim,
    "no_space_disk": disk.no_space_disk,
}

if __name__ == "__main__":
    sys.exit(stand.main(SCENARIOS, __doc__))
