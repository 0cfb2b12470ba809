"""Attention kernels against the interpreter: block edges, masks, element types, views, threads, long sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import Array, Split, assert_close_f64, assert_same_bits, compiled, in_python
from tracemill.compiler import driver
from tracemill.compiler.passes.autodiff import Autodiff
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, sym
from tracemill.ir.dims import evaluate as evaluate_dim
from tracemill.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType
from tracemill.runtime.plan import KernelCall

b = Builder()
Sizes = tuple[int, int, int, int, int]


def both_ways(shape: Sizes, dtype: DType = f32, mask: DType | None = None, **attrs: Any) -> Graph:
    """Result and logarithms, and the gradients of a weighted sum, of [batch, T, D] operands."""
    n, t, s, d, e = shape
    types = [TensorType(dtype, x) for x in ((n, t, d), (n, s, d), (n, s, e), (n, t, e))]
    if mask is not None:
        types.append(TensorType(mask, (t, s)))
    q, k, v, w, *rest = (input_node(i, x) for i, x in enumerate(types))
    wide = [b.broadcast(m, shape=(n, t, s), dims=(1, 2)) for m in rest]
    node = b.attention(q, k, v, *wide, scale=d**-0.5, **attrs)
    out, lse = b.results(node)
    grad = b.attention_grad(q, k, v, out, lse, w, *wide, scale=d**-0.5, **attrs)
    return Graph("attention", tuple(InputSpec(f"x{i}", x) for i, x in enumerate(types)), (out, lse, *b.results(grad)))


def draw(g: Graph, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.random(x.type.shape) < 0.6 if x.type.dtype.is_bool
            else rng.standard_normal(x.type.shape).astype(x.type.dtype.numpy) for x in g.inputs]


def check(g: Graph, arrays: list[Array], tolerance: float) -> None:
    for k, (f, w) in enumerate(zip(compiled(g, arrays), evaluate(g, arrays), strict=True)):
        assert_close_f64(f.astype(np.float64), w.astype(np.float64), f"result {k}", tolerance)


BLOCKS = [(2, 64, 64, 32, 32), (1, 1, 1, 1, 1), (2, 13, 30, 5, 3), (1, 65, 257, 16, 40), (1, 130, 300, 33, 64)]


@pytest.mark.parametrize("shape", BLOCKS)
@pytest.mark.parametrize("causal", [False, True])
def test_block_edges(shape: Sizes, causal: bool) -> None:
    g = both_ways(shape, causal=causal, diagonal=shape[2] - shape[1] if causal else 0)
    check(g, draw(g), 2e-6)


@pytest.mark.parametrize("attrs", [
    {"mask": boolean}, {"mask": boolean, "visible": False}, {"mask": boolean, "hidden": -3.0}, {"mask": f32},
    {"mask": boolean, "causal": True, "diagonal": 3},
], ids=str)
def test_masks(attrs: dict[str, Any]) -> None:
    g = both_ways((2, 70, 300, 8, 8), **attrs)
    arrays = draw(g)
    if "diagonal" in attrs or attrs["mask"] is boolean:
        arrays[4][:, 0] = attrs.get("visible", True)  # every row sees something
    check(g, arrays, 2e-6)


@pytest.mark.parametrize("visible", [True, False])
def test_a_mask_that_is_a_triangle_has_the_bits_of_a_causal_one(visible: bool) -> None:
    shape = (3, 70, 70, 8, 8)
    g = both_ways(shape, mask=boolean, visible=visible)
    arrays = draw(g)
    arrays[4] = np.tril(np.ones((70, 70), bool)) == visible
    causal = compiled(both_ways(shape, causal=True), arrays[:4])
    for k, (f, w) in enumerate(zip(compiled(g, arrays), causal, strict=True)):
        assert_same_bits([f], [w], f"result {k}")


def test_rows_that_see_nothing() -> None:
    g = both_ways((1, 5, 6, 4, 4), causal=True, diagonal=-2)
    out, lse, dq, dk, dv = compiled(g, draw(g))
    assert np.isnan(out[0, :2]).all() and np.isfinite(out[0, 2:]).all()
    assert (lse[0, :2] == -np.inf).all()
    assert (dq[0, :2] == 0).all() and np.isfinite(dk).all() and np.isfinite(dv).all()


def test_a_block_of_keys_that_a_row_does_not_see_yet() -> None:
    """Scores of -inf in the first block must not spoil the running maximum."""
    g = both_ways((1, 4, 600, 4, 4), mask=f32)
    arrays = draw(g)
    arrays[4][1:, :512] = -np.inf
    check(g, arrays, 2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(f64, 1e-13), (f16, 3e-3), (bf16, 3e-2)])
def test_element_types(dtype: DType, tolerance: float) -> None:
    for g in (both_ways((2, 66, 70, 8, 12), dtype, causal=True), both_ways((1, 9, 9, 3, 3), dtype, mask=dtype)):
        check(g, draw(g), tolerance)


@pytest.mark.parametrize("dtype", [f32, f64, f16])
def test_compiled_and_plain_python_have_the_same_bits(dtype: DType) -> None:
    for attrs in ({"causal": True}, {"mask": boolean}, {"mask": boolean, "hidden": -1.0}):
        g = both_ways((2, 14, 20, 3, 5), dtype, **attrs)
        arrays = draw(g)
        arrays[4:] = [np.ones_like(m) for m in arrays[4:]]
        assert_same_bits(compiled(g, arrays), in_python(g, arrays), str(attrs))


def test_threads_and_shares_do_not_show() -> None:
    g = both_ways((5, 130, 130, 16, 16), causal=True)
    arrays = draw(g)
    whole = compiled(g, arrays)
    split = Split(driver.compile_graph(g))
    for threads in (1, 2, 3):
        assert_same_bits(split.run(arrays, threads), whole, f"{threads} threads")


def heads(x: Node, part: int, shape: tuple[Dim, ...]) -> Node:
    """Queries, keys or values as a slice of one projection [n, t, 3·h·d], as [n, h, t, d]."""
    n, t, h, d = shape
    parts = b.permute(b.reshape(x, shape=(n, t, 3, h, d)), dims=(2, 0, 3, 1, 4))
    one = b.slice(parts, start=(part, 0, 0, 0, 0), size=(1, n, h, t, d), step=(1,) * 5)
    return b.reshape(one, shape=(n, h, t, d))


def block(n: Dim, t: Dim, h: int = 4, d: int = 8, dtype: DType = f32) -> Graph:
    """A causal self-attention between two projections as it is written by hand, and its gradients."""
    types = [TensorType(dtype, x) for x in ((n, t, h * d), (h * d, 3 * h * d), (h * d, h * d))]
    x, w, o = (input_node(i, u) for i, u in enumerate(types))
    qkv = b.dot(x, w, contract_a=(2,), contract_b=(0,))
    q, k, v = (heads(qkv, i, (n, t, h, d)) for i in range(3))
    scores = b.dot(q, k, contract_a=(3,), contract_b=(3,), batch_a=(0, 1), batch_b=(0, 1))
    scores = b.mul(scores, b.scalar(d**-0.5, dtype))
    row, column = (b.iota(shape=scores.shape, axis=a, dtype=i64) for a in (2, 3))
    scores = b.select(b.le(column, row), scores, b.scalar(-np.inf, dtype))
    top = b.broadcast(b.stop_gradient(b.max(scores, axes=(3,))), shape=scores.shape, dims=(0, 1, 2))
    powers = b.exp(b.sub(scores, top))
    weights = b.div(powers, b.broadcast(b.sum(powers, axes=(3,)), shape=scores.shape, dims=(0, 1, 2)))
    mixed = b.dot(weights, v, contract_a=(3,), contract_b=(2,), batch_a=(0, 1), batch_b=(0, 1))
    joined = b.reshape(b.permute(mixed, dims=(0, 2, 1, 3)), shape=(n, t, h * d))
    y = b.dot(joined, o, contract_a=(2,), contract_b=(0,))
    loss = b.sum(b.mul(y, y), axes=(0, 1, 2))
    grads = b.results(b.gradient(loss, b.scalar(1.0, dtype), x, w, o, n_outputs=1, n_wrt=3))
    return Graph("block", tuple(InputSpec(f"x{i}", u) for i, u in enumerate(types)), (loss, *grads))


def kernels_of(g: Graph) -> list[str]:
    _, emitted = driver.lower_to_plan(g)
    return [e.node for e in emitted.plan.entries if isinstance(e, KernelCall)]


def test_a_block_reads_and_writes_heads_where_they_lie() -> None:
    labels = kernels_of(block(2, 16))
    assert sum("attention" in label for label in labels) == 2
    rest = [label for label in labels if "attention" not in label]
    assert not any(word in label for label in rest for word in ("concat", "pad", "permute", "map")), rest


@pytest.mark.parametrize("dtype", [f32, f64])
def test_a_block_in_named_sizes(dtype: DType) -> None:
    """One plan for every batch size and length; gradients against those of the primitives in float64."""
    g = block(sym("N"), sym("T"), dtype=dtype)
    run, tolerance = driver.compile_graph(g), 3e-5 if dtype is f32 else 1e-12
    for n, t in ((2, 16), (1, 70), (3, 5)):
        rng = np.random.default_rng(n)
        arrays = [0.3 * rng.standard_normal(tuple(evaluate_dim(x, {"N": n, "T": t}) for x in s.type.shape))
                  for s in g.inputs]
        wanted = evaluate(Autodiff().run(block(sym("N"), sym("T"), dtype=f64)), arrays)
        found = run.run([a.astype(dtype.numpy) for a in arrays])
        for k, (f, w) in enumerate(zip(found, wanted, strict=True)):
            assert_close_f64(f.astype(np.float64), w, f"result {k}, sizes {n}, {t}", tolerance)


def test_long_sequences_need_no_square_of_their_length() -> None:
    n, t, d = 2, 1024, 16
    g = both_ways((n, t, t, d, d), causal=True)
    _, emitted = driver.lower_to_plan(g)
    scratch = max(evaluate_dim(e.scratch, {}) for e in emitted.plan.entries if isinstance(e, KernelCall))
    assert scratch < t * t * 4 / 8
    assert evaluate_dim(emitted.plan.arena, {}) < t * t * 4 / 8
    check(g, draw(g), 1e-5)
