#!/usr/bin/env python3
"""run.py: the tests of chaos/drill, with the Python that has the Chaos Toolkit's library."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from chaos.drilling.main import with_library  # noqa: E402

if __name__ == "__main__":
    with_library([__file__])
    TESTS = sorted(pathlib.Path(__file__).parent.glob("*_test.py"))
    sys.exit(subprocess.run([sys.executable, ROOT / "tests/run/unittests.py", *TESTS], check=False).returncode)
