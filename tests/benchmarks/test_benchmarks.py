"""The benchmarks' own parts: workloads train, the models of their limits are sane, the table says what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tracemill as tm

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import report  # noqa: E402
import roofline  # noqa: E402
import workloads  # noqa: E402


@pytest.mark.parametrize(("name", "size"), [("W1", 100), ("W2", 4), ("W7", 8)])
def test_workload_trains(name: str, size: int) -> None:
    w = workloads.build(name, tm, size=size)
    losses = [w.step(*w.args).item() for _ in range(4)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", workloads.NAMES)
def test_same_weights_for_every_system(name: str) -> None:
    model = workloads.build(name, tm, size=2).model
    for key, p in model.named_parameters():
        assert np.array_equal(p.detach().numpy(), workloads.weight(key, tuple(p.shape)))


@pytest.mark.parametrize("name", workloads.NAMES)
def test_jax_has_the_same_parameters(name: str) -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    import jax_workloads

    model = workloads.build(name, tm, size=2).model
    assert jax_workloads.shapes(name) == {k: tuple(p.shape) for k, p in model.named_parameters()}


def _regression_by_numpy(steps: int) -> float:
    x, y = (v.astype(np.float64) for v in workloads.batch("W1"))
    weight, bias = workloads.weight("weight", (1, 1)).item(), workloads.weight("bias", (1,)).item()
    for _ in range(steps):
        rest = weight * x + bias - y
        weight, bias = weight - 0.02 * float((rest * x).mean()), bias - 0.02 * float(rest.mean())
    return float((rest**2).mean())


def test_measure_prints_figures() -> None:
    command = [sys.executable, str(FOLDER / "measure.py"), "W1", "tracemill", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["loss"] == pytest.approx(_regression_by_numpy(20), rel=1e-5)
    assert figures["step_us"] > 0
    assert figures["first_s"] > 0


def test_limits_count_the_multiply_adds() -> None:
    rows = 128
    forward = rows * (784 * 512 + 512 * 512 + 512 * 10)
    first = rows * 784 * 512  # has no input gradient
    assert roofline.model("W2").flops == 2 * (3 * forward - first)
    roof = roofline.Roof(1e12, 1e11)
    assert roofline.Model(2e12, 3e11).seconds(roof) == pytest.approx(5.0)
    limits = [roofline.model(n) for n in workloads.NAMES]
    assert all(m.flops > 0 and m.bytes > 0 for m in limits)


def _figures(step: float, loss: float) -> dict[str, float]:
    return {"step_us": step, "first_s": 0.1, "import_s": 0.1, "loss": loss, "memory": 1e6}


@pytest.mark.parametrize(("loss", "said"), [(0.5, "agree"), (0.6, "differ")])
def test_table(loss: float, said: str) -> None:
    about: dict[str, Any] = {"cpu": "c", "cores": 2, "threads": 2, "python": "3", "gflops": 1.0, "gbytes": 1.0}
    found = {"tracemill": _figures(100, 0.5), "torch": _figures(300, 0.5), "torch-nhwc": _figures(250, loss)}
    text = report.table({"W3": found}, {"W3": 50e-6}, about | {"versions": {"numpy": "2"}}, 1e-3)
    row = next(line for line in text.splitlines() if line.startswith("| W3 CNN"))
    assert row.split(" | ")[-3:] == ["2.50", "", "2.00 |"]
    assert f"20 steps {said}" in text or f"Losses {said}" in text
