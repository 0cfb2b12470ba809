"""Rows of products: several axes that the left operand has as one, and splits by rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import launch as run_launch
from harness import run_node
from tracemill.compiler.lower import Launch, lower
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, sym
from tracemill.ir.dtypes import f32, f64, i32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()
B, T, K, N = (sym(name) for name in "BTKN")


def inputs(*shapes: tuple[Dim, ...], dtype: Any = f32) -> list[Node]:
    return [input_node(i, TensorType(dtype, s)) for i, s in enumerate(shapes)]


def fused(output: Node, *xs: Node) -> Node:
    specs = tuple(InputSpec(f"x{k}", x.tensor_type) for k, x in enumerate(xs))
    return b.fused(*xs, body=Graph("body", specs, (output,)), kind="test")


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)  # sums of these are exact


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
def test_rows_that_only_the_result_has_in_another_order(order: tuple[int, int, int]) -> None:
    """One product with all rows, not one for each entry of an axis; its results land where they belong."""
    x, w, bias = inputs((B, T, 5, K), (N, K), (N,))
    y = b.dot(b.permute(x, dims=(*order, 3)), w, contract_a=(3,), contract_b=(1,))
    y = b.add(y, b.broadcast(bias, shape=y.shape, dims=(3,)))
    node = fused(y, x, w, bias)
    (step,) = lower(node).launches
    size_m, *_ = step.extents
    assert size_m == 5 * B * T
    a, c, d = draw(3, 7, 5, 9), draw(33, 9, seed=1), draw(33, seed=2)
    wanted = a.transpose(*order, 3) @ c.T + d
    for options in ({}, {"leg": "plain"}, {"cuts": 3}):
        (got,) = run_node(node, [a, c, d], {"B": 3, "T": 7, "K": 9, "N": 33}, **options)
        np.testing.assert_array_equal(got, wanted)


def test_axes_that_do_not_continue_each_other_stay_apart() -> None:
    x, w = inputs((B, T, K), (N, K))
    half = b.slice(x, start=(0, 1, 0), size=(B, 4, K), step=(1, 1, 1))
    node = fused(b.dot(b.permute(half, dims=(1, 0, 2)), w, contract_a=(2,), contract_b=(1,)), x, w)
    (step,) = lower(node).launches
    assert step.extents[0] in (B, 4)
    a, c = draw(3, 7, 9), draw(33, 9, seed=1)
    (got,) = run_node(node, [a, c], {"B": 3, "T": 7, "K": 9, "N": 33})
    np.testing.assert_array_equal(got, a[:, 1:5].transpose(1, 0, 2) @ c.T)


def by_rows(step: Launch) -> Launch:
    """The launch as it is when it is split by rows."""
    assert step.rows is not None
    return replace(step, range=step.rows.range, extents=step.rows.extents or step.extents)


@pytest.mark.parametrize("leg", ["plain", "compiled"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (2, 40, 3), (17, 33, 130), (29, 10, 600)])
def test_products_split_by_rows_have_the_same_bits(leg: str, m: int, n: int, k: int) -> None:
    x, w, bias = inputs((B, K), (K, N), (B, N))
    node = fused(b.add(b.dot(x, w, contract_a=(1,), contract_b=(0,)), bias), x, w, bias)
    (step,) = lower(node).launches
    assert step.rows is not None and step.rows.extent == B and step.rows.strides == (4 * K, None, 4 * N, 4 * N)
    sizes = {"B": m, "N": n, "K": k}
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n), (m, n))]
    (wanted,) = run_node(node, given, sizes)
    for cuts in (1, 2, 5):
        buffers = [a.reshape(-1) for a in given] + [np.full(m * n, np.nan, np.float32)]
        run_launch(by_rows(step), buffers, sizes, leg=leg, cuts=cuts)
        assert buffers[-1].tobytes() == wanted.tobytes()


def test_what_a_row_touches() -> None:
    x, y, v = inputs((B, N), (B, N), (N,), dtype=f64)
    wide = b.broadcast(v, shape=(B, N), dims=(1,))
    (step,) = lower(fused(b.mul(b.add(x, y), wide), x, y, v)).launches
    assert step.rows is not None and step.rows.extent == B
    assert step.rows.strides == (8 * N, 8 * N, None, 8 * N)
    (step,) = lower(fused(b.add(x, y), x, y)).launches  # all one line: any number of rows that comes out even
    assert step.rows is not None and step.rows.grouped(B * 2) is None
    rows = step.rows.grouped(B)
    assert rows is not None and rows.strides == (8 * N,) * 3 and rows.range == B * N
    (step,) = lower(fused(b.add(x, b.flip(y, axes=(0,))), x, y)).launches
    assert step.rows is None or step.rows.strides[1] is None  # another row than its own
    (step,) = lower(fused(b.add(x, b.flip(y, axes=(1,))), x, y)).launches
    assert step.rows is not None and step.rows.strides == (8 * N, 8 * N, 8 * N)
    (step,) = lower(fused(b.permute(b.add(x, y), dims=(1, 0)), x, y)).launches
    assert step.rows is None or step.rows.strides[0] is None


def test_parts_of_rows() -> None:
    """Slices and concatenations along a row stay in it; conditions on a coordinate are taken into account."""
    x, y = inputs((B, 12), (B, 4), dtype=i32)
    part = b.slice(x, start=(0, 8), size=(B, 4), step=(1, 1))
    (step,) = lower(fused(b.add(part, y), x, y)).launches
    assert step.rows is not None and step.rows.strides == (48, 16, 16)
    (step,) = lower(fused(b.concat(b.neg(part), y, axis=1), x, y)).launches
    assert step.rows is not None and step.rows.strides == (48, 16, 32)
