"""`tracemill run --profile` and `--trace`."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from tracemill.compiler.cli.roof import Roof
from tracemill.runtime.profile import EntryTiming

from .conftest import Command

SCRIPT = """\
import tracemill as tm
model = tm.nn.Linear(64, 32)
optimizer = tm.optim.SGD(model.parameters(), lr=0.1)
x, y = tm.randn(16, 64), tm.randn(16, 32)

@tm.compile
def step(x, y):
    optimizer.zero_grad()
    loss = tm.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

for _ in range(5):
    step(x, y).item()
print("done")
"""


def test_profile_and_trace_of_a_script(tmp_path: Path, process: Command) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    result = process("run", "--profile", "--trace", "trace.json", "train.py")
    assert result.code == 0, result.err
    assert result.out == "done\n"  # the table goes to stderr: a script's output stays its own
    for part in ("passes", "Numba", "LLVM", "running", "GFLOP/s", "dot"):
        assert part in result.err
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    work = [e for e in events if e["ph"] == "X" and e["name"] != "barrier"]
    assert any("dot" in e["name"] for e in work)
    assert all(e["dur"] > 0 for e in work)
    for process_number in {e["pid"] for e in work}:  # one after the other
        mine = [e for e in events if e["ph"] == "X" and e["pid"] == process_number]
        assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-6 for a, b in pairwise(mine))


def test_profile_of_a_failing_script_is_still_printed(tmp_path: Path, process: Command) -> None:
    (tmp_path / "train.py").write_text(SCRIPT + "raise SystemExit(3)\n")
    result = process("run", "--profile", "train.py")
    assert result.code == 3
    assert "Where the time went" in result.err


def test_trace_into_a_missing_folder_is_refused_before_the_run(tmp_path: Path, process: Command) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    result = process("run", "--trace", "nowhere/trace.json", "train.py")
    assert result.code == 2
    assert "done" not in result.out
    assert "--trace" in result.err


def test_rates_and_shares() -> None:
    t = EntryTiming(0, "kernel", calls=4, wait_ns=100, work_ns=2000, operations=1000, nbytes=500)
    assert (t.gops, t.gbytes, t.total_ns) == (2.0, 1.0, 2100)
    roof = Roof(gops=4.0, gbytes=10.0)
    assert roof.share(4000, 2000, 2000e-9) == pytest.approx(0.5)
    assert roof.share(0, 0, 0.0) == 0.0
