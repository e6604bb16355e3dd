#!/usr/bin/env python3
"""A cell: three gateways in three zones before three real brokers, through deaths, cuts and freezes."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
sys.path.remove(str(pathlib.Path(__file__).resolve().parent))

from tests.integration import cell_deaths, cell_ids, cell_links, stand  # noqa: E402  the path must be set first
from tests.integration.cell_stand import CellStand  # noqa: E402

SCENARIOS = {**cell_ids.SCENARIOS, **cell_deaths.SCENARIOS, **cell_links.SCENARIOS}
# Need a build with the option `failpoints`: only when they are named.
TAKERS = {"taker_dies": cell_deaths.taker_dies, **cell_deaths.TAKERS}

if __name__ == "__main__":
    sys.exit(stand.main({**SCENARIOS, **TAKERS}, __doc__, CellStand, SCENARIOS))
