"""The kernel harness of tests/lower and the random graphs of tests/differential are importable by name."""

import sys
from pathlib import Path

for _folder in ("lower", "differential"):
    sys.path.insert(0, str(Path(__file__).parent.parent / _folder))
