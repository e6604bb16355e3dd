"""What the stand needs before it can say what it can do: packages, and this tree's programs."""

import os
import subprocess
import sys

from chaos.stand.shell import ROOT


def prepare():
    """Installs what is missing and builds what has changed: next to nothing to do the second time. Not with
    SLUICE_BINARY or SLUICE_BUILD: whoever sets them has built."""
    subprocess.run([f"{ROOT}/scripts/setup", "chaos"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
    if not any(os.environ.get(name) for name in ("SLUICE_BINARY", "SLUICE_BUILD")):
        subprocess.run([f"{ROOT}/scripts/build"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
