"""A few programs on compiled kernels, against the reference interpreter: the seam between the two engines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tracemill as tm
from tracemill.frontends.python import program


def training() -> list:
    tm.manual_seed(1)
    w, b = tm.randn(3, 2, requires_grad=True), tm.zeros(2, requires_grad=True)
    losses = []
    for n in (8, 8, 5, 3):
        x = tm.randn(n, 3)
        loss = ((tm.tanh(x @ w + b) - x[:, :2]) ** 2).mean()
        w.grad = b.grad = None
        loss.backward()
        with tm.no_grad():
            for p in (w, b):
                p -= 0.1 * p.grad
        losses.append(loss.item())
    return [losses, w.tolist(), b.tolist()]


def sums_over_axes_of_equal_extents() -> list:
    a, b = tm.arange(12.0).view(3, 4).requires_grad_(), (tm.arange(12.0) ** 2).view(3, 4).requires_grad_()
    (a.unsqueeze(1) - b.unsqueeze(0)).tanh().sum().backward()
    return [a.grad.tolist(), b.grad.tolist()]


def history_over_flushes() -> list:
    w = tm.tensor([0.5, -1.0], requires_grad=True)
    h = (w * 2.0).exp()
    seen = [h.sum().item()]
    (h * h).sum().backward()
    return [seen, w.grad.tolist()]


def captured() -> list:
    total = tm.zeros(2)

    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        total.add_(x)
        return (total * x).sum()

    return [[f(tm.full((2,), float(i))).item() for i in range(4)], total.tolist()]


@pytest.mark.parametrize("run", [training, sums_over_axes_of_equal_extents, history_over_flushes, captured])
def test_engines_agree(run: Callable[[], list], monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for engine in ("interpret", "compiled"):
        monkeypatch.setenv("TRACEMILL_ENGINE", engine)
        program._families.clear()
        from tracemill.frontends.python import flush

        flush._layouts.clear()
        results.append(run())
    for want, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_an_index_out_of_range_names_the_users_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEMILL_ENGINE", "compiled")
    table = tm.randn(4, 2)
    picked = (table * 2.0).index_select(0, tm.tensor([1, 9]))
    with pytest.raises(IndexError, match=r"test_compiled\.py"):
        picked.tolist()
