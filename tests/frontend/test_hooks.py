"""Tensor hooks and custom functions."""

from __future__ import annotations

import pytest
import tracemill as tm
from tracemill.frontends.python.autograd import grad
from tracemill.frontends.python.function import Function, once_differentiable
from tracemill.ir.errors import AutogradError, CaptureError


def leaf(*data: float) -> tm.Tensor:
    return tm.tensor(list(data), requires_grad=True)


def test_hooks_see_and_replace_gradients() -> None:
    w = leaf(2.0)
    h = w * 3.0
    y = h * h + h
    seen = []
    h.register_hook(lambda g: seen.append(g) or g * 10.0)
    y.sum().backward()
    assert seen[0].item() == 13 and w.grad.item() == 390


def test_hooks_on_leaves_and_removal() -> None:
    w = leaf(2.0)
    handle = w.register_hook(lambda g: g + 1.0)
    (w * 3.0).sum().backward()
    assert w.grad.item() == 4
    handle.remove()
    w.grad = None
    (w * 3.0).sum().backward()
    assert w.grad.item() == 3


def test_hooks_may_look_at_values_and_come_in_order() -> None:
    w = leaf(2.0)
    a = w * 3.0
    b = a * a
    order = []
    a.register_hook(lambda g: order.append(("a", g.item())))
    b.register_hook(lambda g: order.append(("b", g.item())))
    (b * 2.0 + a).sum().backward()
    assert order == [("b", 2.0), ("a", 25.0)] and w.grad.item() == 75


def test_retain_grad_is_what_hooks_made_of_it() -> None:
    w = leaf(2.0)
    h = w * 3.0
    h.retain_grad()
    h.register_hook(lambda g: g * 2.0)
    h.sum().backward()
    assert h.grad.item() == 2 and w.grad.item() == 6


def test_post_accumulate_hook() -> None:
    w = leaf(2.0)
    seen = []
    w.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    (w * 3.0).sum().backward()
    assert seen == [3]
    with pytest.raises(AutogradError):
        (w * 2.0).register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(AutogradError):
        tm.ones(1).register_hook(lambda g: g)


class Cube(Function):
    @staticmethod
    def forward(ctx, x, scale):  # type: ignore[no-untyped-def]
        square = x * x
        ctx.save_for_backward(x, square)
        ctx.scale = scale
        return square * x * scale

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        _, square = ctx.saved_tensors
        return g * 3.0 * square * ctx.scale * 100.0, None


def test_custom_function_uses_its_own_backward() -> None:
    w = leaf(2.0, 3.0)
    y = Cube.apply(w, 2.0)
    assert y.tolist() == [16, 54] and y.requires_grad
    y.sum().backward()
    assert w.grad.tolist() == [2400, 5400]
    assert not Cube.apply(w.detach(), 2.0).requires_grad


def test_custom_function_of_several_with_context_setup() -> None:
    class Pair(Function):
        @staticmethod
        def forward(a, b, index):  # type: ignore[no-untyped-def]
            return a * b, index + 1, a - b

        @staticmethod
        def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(*inputs[:2])

        @staticmethod
        def backward(ctx, g, _, d):  # type: ignore[no-untyped-def]
            _, b = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False, False)
            return g * b + d, None, None

    a, b = leaf(2.0), tm.tensor([5.0])
    p, i, d = Pair.apply(a, b, tm.tensor([1]))
    assert p.item() == 10 and i.item() == 2 and not i.requires_grad
    (p * 2.0 + d).sum().backward()
    assert a.grad.item() == 11 and b.grad is None


def test_custom_function_reads_tensors_from_outside() -> None:
    table = leaf(3.0)

    class Scale(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x * table

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return g * table * 7.0

    x = leaf(2.0)
    Scale.apply(x).sum().backward()
    assert x.grad.item() == 21


def test_straight_through_estimator_and_double_backward() -> None:
    class Round(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x.round()

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return g

    x = leaf(1.4)
    y = Round.apply(x) * x
    (g,) = grad(y.sum(), x, create_graph=True)
    assert g.item() == pytest.approx(2.4)
    (h,) = grad(g.sum(), x)
    assert h.item() == 2


def test_custom_function_errors() -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x * 2.0

        @staticmethod
        @once_differentiable
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return g, g

    with pytest.raises(AutogradError, match="incorrect number of gradients"):
        Wrong.apply(leaf(1.0))

    class Peeks(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x * x.item()

    with pytest.raises(CaptureError, match=r"test_hooks.py.*item"):
        Peeks.apply(leaf(1.0))
