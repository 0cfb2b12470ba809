"""Pooling without overlap as slices: the bits of the windows' own references, also for ties, zeros and NaNs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tracemill.compiler.passes.windows import Windows
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, sym
from tracemill.ir.dtypes import DType, bf16, f16, f32, f64, i32, i64, u8
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType
from tracemill.ir.verify import verify

b = Builder()
B, H = sym("B"), sym("H")
SIZES = {"B": 2, "H": 7}
OPS = ("window_max", "window_argmax", "window_sum", "window_take", "window_spread", "window_put")


def over(*window: int, stride: tuple[int, ...] = (), pads: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    n = len(window)
    return {"window": window, "stride": stride or window, "pads": pads or ((0, 0),) * n, "dilation": (1,) * n}


def make(op: str, shape: tuple[Dim, ...], dtype: DType, at: dict[str, Any]) -> Graph:
    """A window operator as a graph of its inputs."""
    lead = len(shape) - len(at["window"])
    out = b.window_sum(input_node(0, TensorType(f32, shape)), **at).shape
    values = TensorType(dtype, out if op in ("window_spread", "window_put") else shape)
    types = [values, *[TensorType(u8, out)] * (op in ("window_take", "window_put"))]
    spatial = {"spatial": shape[lead:]} if values.shape is out else {}
    node = getattr(b, op)(*(input_node(i, t) for i, t in enumerate(types)), **at, **spatial)
    specs = tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types))
    return Graph("g", specs, (node,), sizes=tuple(SIZES.items()))


def draw(t: TensorType, taps: int) -> np.ndarray[Any, Any]:
    shape = tuple(d if isinstance(d, int) else d.evaluate(SIZES) for d in t.shape)
    rng = np.random.default_rng(3)
    if t.dtype is u8:
        return rng.integers(0, taps + 1, shape).astype(np.uint8)
    x = rng.integers(-2, 3, shape).astype(t.dtype.numpy)  # ties
    if t.dtype.is_float:
        x.reshape(-1)[rng.integers(0, x.size, x.size // 3)] = [np.nan, -0.0, -np.inf, np.inf] * (x.size // 12) + [
            0.0] * (x.size // 3 - x.size // 12 * 4)
    return x


@pytest.mark.parametrize("dtype", [f32, f64, f16, bf16, i32, i64], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_same_values(op: str, dtype: DType) -> None:
    for shape, at in (((2, 6, 4, 5), over(2, 2, 1)), ((B, H, 5, 3), over(2, 3, 1)), ((3, 9, 4), over(4, 1)),
                      ((2, 4, 6, 2, 3), over(2, 1, 2, 1)), ((2, 4, 3), over(1, 1))):
        g = make(op, shape, dtype, at)
        found = Windows().run(g)
        verify(found)
        assert not any(n.op.name.startswith("window") for n in found.nodes)
        values = [draw(i.type, int(np.prod(at["window"]))) for i in g.inputs]
        (old,), (new,) = evaluate(g, values, SIZES), evaluate(found, values, SIZES)
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new.astype(np.float64), old.astype(np.float64))


@pytest.mark.parametrize("at", [
    over(2, 2), over(2, 2, 1, stride=(1, 2, 1)), over(3, 3, 1, stride=(2, 2, 1)),
    over(2, 2, 1, pads=((1, 0), (0, 0), (0, 0))), over(5, 5, 1),
], ids=["along the last axis", "overlap", "overlap by one", "padding", "many taps"])
@pytest.mark.parametrize("op", OPS)
def test_others_keep_their_kernels(op: str, at: dict[str, Any]) -> None:
    g = make(op, (2, 7, 7, 5), f32, at)
    assert Windows().run(g) is g


def test_gaps_between_windows_stay_zero() -> None:
    g = make("window_spread", (1, 7, 1), f32, over(3, 1))
    (dx,) = evaluate(Windows().run(g), [np.array([[[1], [2]]], np.float32)])
    assert dx.ravel().tolist() == [1, 1, 1, 2, 2, 2, 0]


def test_inside_bodies() -> None:
    x = input_node(0, TensorType(f32, (4, 6, 3)))
    pooled = b.window_max(x, **over(2, 2, 1))
    spec = (InputSpec("x", x.tensor_type),)
    then = Graph("then", spec, (pooled,))
    other = Graph("other", spec, (b.neg(pooled),))
    p: Node = b.gt(b.sum(x, axes=(0, 1, 2)), b.scalar(0.0, f32))
    g = Graph("g", spec, (b.result(b.cond(p, x, then=then, other=other), index=0),))
    found = Windows().run(g)
    (node,) = [n for n in found.nodes if n.op.name == "cond"]
    for body in (node.attrs.then, node.attrs.other):
        assert not any(n.op.name == "window_max" for n in body.nodes)
    values = [np.arange(72, dtype=np.float32).reshape(4, 6, 3)]
    np.testing.assert_array_equal(evaluate(found, values)[0], evaluate(g, values)[0])
