"""scan, cond, while_loop."""

from __future__ import annotations

import numpy as np
import pytest
import tracemill as tm
from tracemill.frontends.python.flush import flush
from tracemill.ir.errors import CaptureError, ShapeError


def test_scan_carries_and_stacks() -> None:
    last, ys = tm.scan(lambda c, x: (c + x, c * x), tm.zeros(()), tm.arange(4.0))
    assert last.item() == 6 and ys.tolist() == [0, 0, 2, 9]
    last, ys = tm.scan(lambda c, x: (c * 2.0 + x, c), tm.zeros(()), tm.arange(3.0), reverse=True)
    assert last.item() == 10 and ys.tolist() == [5, 2, 0]
    last, none = tm.scan(lambda c, _: (c * 2.0, None), tm.ones(2), length=5)
    assert last.tolist() == [32, 32] and none is None


def test_scan_of_trees_and_outside_tensors_is_differentiable() -> None:
    w = tm.randn(3, 3, requires_grad=True)
    x = tm.randn(5, 3)

    def step(state: dict, row: tm.Tensor) -> tuple:
        h = tm.tanh(row @ w + state["h"])
        return {"h": h, "n": state["n"] + 1}, h.sum()

    state, sums = tm.scan(step, {"h": tm.zeros(3), "n": tm.tensor(0)}, x)
    sums.sum().backward()
    got, w.grad = w.grad, None
    h, total = tm.zeros(3), 0.0
    for i in range(5):
        h = tm.tanh(x[i] @ w + h)
        total = total + h.sum()
    total.backward()
    assert state["n"].item() == 5
    np.testing.assert_allclose(state["h"].detach().numpy(), h.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(got.numpy(), w.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_scan_draws_anew_in_every_step() -> None:
    tm.manual_seed(3)
    _, ys = tm.scan(lambda c, _: (c, tm.rand(2)), tm.zeros(()), length=3)
    tm.manual_seed(3)
    expected = [tm.rand(2).tolist() for _ in range(3)]
    assert ys.tolist() == expected
    after = tm.rand(2).tolist()
    tm.manual_seed(3)
    assert [tm.rand(2).tolist() for _ in range(4)][3] == after


def test_scan_after_an_update_starts_over() -> None:
    w = tm.ones(2, requires_grad=True)
    flush("test")
    with tm.no_grad():
        w += 1.0
    _, ys = tm.scan(lambda c, x: (c, (w * x).sum()), tm.zeros(()), tm.arange(2.0))
    ys.sum().backward()
    assert ys.tolist() == [0, 4] and w.grad.tolist() == [1, 1]


def test_scan_refuses_what_it_cannot_trace() -> None:
    with pytest.raises(CaptureError, match=r"test_control.py.*item"):
        tm.scan(lambda c, x: (c + x.item(), None), tm.zeros(()), tm.arange(3.0))
    with pytest.raises(ShapeError, match="carry 0"):
        tm.scan(lambda c, x: (c.expand(2), None), tm.zeros(()), tm.arange(3.0))
    total = tm.zeros(())
    with pytest.raises(CaptureError, match="written in the body"):
        tm.scan(lambda c, x: (c, total.add_(x)) and (c, None), tm.zeros(()), tm.arange(3.0))
    assert tm.scan(lambda c, x: (c + x, None), tm.zeros(()), tm.arange(3.0))[0].item() == 3


def test_cond_chooses_and_differentiates() -> None:
    w = tm.tensor([2.0, 3.0], requires_grad=True)
    for sign, expected in ((1.0, [4, 6]), (-1.0, [1, 1])):
        p = tm.tensor(sign) > 0
        y = tm.cond(p, lambda a: (a * a).sum(), lambda a: a.sum(), (w,))
        w.grad = None
        y.backward()
        assert w.grad.tolist() == expected
    y = tm.cond(tm.tensor(True), lambda: w * 2.0, lambda: w * 3.0)
    assert y.tolist() == [4, 6] and y.requires_grad
    assert tm.cond(True, lambda: 1, lambda: 2) == 1
    with pytest.raises(ShapeError, match="branches return"):
        tm.cond(tm.tensor(True), lambda: w * 2.0, lambda: w.sum())


def test_while_loop() -> None:
    i, x = tm.while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * 2.0), (tm.tensor(0), tm.ones(2)))
    assert i.item() == 5 and x.tolist() == [32, 32]
    limit = tm.tensor(100.0)
    (v,) = tm.while_loop(lambda v: v.sum() < limit, lambda v: (v + tm.ones(2),), (tm.zeros(2),))
    assert v.tolist() == [50, 50]
