"""Schedules against PyTorch's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill import nn, optim
from tracemill.optim import lr_scheduler as schedules


def optimizer() -> optim.Optimizer:
    p = nn.Parameter(tm.zeros(1))
    p.grad = tm.zeros(1)
    return optim.SGD([p], lr=1.0, momentum=0.9)


def rates(schedule: Any, opt: Any, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        schedule.step()
    return found


# schedule -> rates of eight steps as PyTorch 2.13 gives them
GOLDEN: dict[str, tuple[Any, list[float]]] = {
    "lambda": (lambda o: schedules.LambdaLR(o, lambda e: 1 / (e + 1)),
               [1.0, 0.5, 0.333333, 0.25, 0.2, 0.166667, 0.142857, 0.125]),
    "step": (lambda o: schedules.StepLR(o, 3, 0.5), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]),
    "multistep": (lambda o: schedules.MultiStepLR(o, [2, 5], 0.1), [1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
    "exponential": (lambda o: schedules.ExponentialLR(o, 0.5),
                    [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.007812]),
    "cosine": (lambda o: schedules.CosineAnnealingLR(o, 4, 0.1),
               [1.0, 0.868198, 0.55, 0.231802, 0.1, 0.231802, 0.55, 0.868198]),
    "restarts": (lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, 2, 0.1),
                 [1.0, 0.55, 1.0, 0.868198, 0.55, 0.231802, 1.0, 0.965746]),
    "onecycle": (lambda o: schedules.OneCycleLR(o, 2.0, total_steps=9),
                 [0.08, 1.302716, 1.988831, 1.797133, 1.411289, 0.925274, 0.45746, 0.121786]),
    "linear": (lambda o: schedules.LinearLR(o, 0.25, total_iters=3), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
    "constant": (lambda o: schedules.ConstantLR(o, 0.5, 3), [0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    "sequential": (lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.25, total_iters=3), schedules.ExponentialLR(o, 0.5)], [3]),
        [0.25, 0.5, 0.75, 1.0, 0.5, 0.25, 0.125, 0.0625]),
    "polynomial": (lambda o: schedules.PolynomialLR(o, 5, 2.0), [1.0, 0.64, 0.36, 0.16, 0.04, 0.0, 0.0, 0.0]),
    "cyclic": (lambda o: schedules.CyclicLR(o, 0.1, 1.0, 2), [0.1, 0.55, 1.0, 0.55, 0.1, 0.55, 1.0, 0.55]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_rates(name: str) -> None:
    make, wanted = GOLDEN[name]
    opt = optimizer()
    np.testing.assert_allclose(rates(make(opt), opt, 8), wanted, atol=1e-6)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_saved_schedule_continues(name: str) -> None:
    make, wanted = GOLDEN[name]
    opt = optimizer()
    schedule = make(opt)
    rates(schedule, opt, 4)
    other = optimizer()
    resumed = make(other)
    other.load_state_dict(opt.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    np.testing.assert_allclose(rates(resumed, other, 4), wanted[4:], atol=1e-6)


def test_momentum_cycles_against_the_rate() -> None:
    opt = optimizer()
    schedule = schedules.OneCycleLR(opt, 2.0, total_steps=9)
    assert opt.param_groups[0]["momentum"] == 0.95
    rates(schedule, opt, 2)
    assert opt.param_groups[0]["momentum"] == pytest.approx(0.85, abs=0.01)


def test_the_rate_falls_on_a_plateau() -> None:
    opt = optimizer()
    schedule = schedules.ReduceLROnPlateau(opt, factor=0.5, patience=1)
    found = []
    for metric in (1.0, 0.9, 0.95, 0.96, 0.97, 0.5, 0.6, tm.tensor(0.7)):
        schedule.step(metric)
        found.append(opt.param_groups[0]["lr"])
    assert found == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_stepping_in_the_wrong_order_warns() -> None:
    schedule = schedules.StepLR(optimizer(), 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="is not an Optimizer"):
        schedules.StepLR(None, 2)
    with pytest.raises(ValueError, match="Starting multiplicative factor"):
        schedules.LinearLR(optimizer(), 0.0)
    with pytest.raises(ValueError, match=r"Factor should be < 1\.0"):
        schedules.ReduceLROnPlateau(optimizer(), factor=1.0)
    with pytest.raises(ValueError, match="Tried to step 4 times"):
        opt = optimizer()
        rates(schedules.OneCycleLR(opt, 1.0, total_steps=3), opt, 5)
