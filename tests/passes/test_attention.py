"""Which attentions are recognised, and which are not; what is recognised means the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tracemill.compiler.passes.attention import Attention
from tracemill.compiler.passes.autodiff import Autodiff
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, sym
from tracemill.ir.dtypes import DType, boolean, f16, f32, f64, i64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()
N, H, T, S, D, E = 2, 3, 7, 7, 4, 5
Logits = Callable[[Node], Node]


def operand(i: int, *shape: Dim, dtype: DType = f32) -> Node:
    return input_node(i, TensorType(dtype, shape))


Q, K, V = operand(0, N, H, T, D), operand(1, N, H, S, D), operand(2, N, H, S, E)


def graph(*outputs: Node, sizes: tuple[tuple[str, int], ...] = ()) -> Graph:
    nodes = {n.attrs.index: n for n in Graph("g", (), outputs).nodes if n.op.name == "input"}
    return Graph("g", tuple(InputSpec(f"x{i}", nodes[i].tensor_type) for i in range(len(nodes))), outputs, sizes=sizes)


def dot(x: Node, y: Node, contract: tuple[int, int]) -> Node:
    return b.dot(x, y, contract_a=(contract[0],), contract_b=(contract[1],), batch_a=(0, 1), batch_b=(0, 1))


def softmax(x: Node, axis: int = 3) -> Node:
    def spread(r: Node) -> Node:
        kept = tuple(1 if i == axis else d for i, d in enumerate(x.shape))
        return b.broadcast(b.reshape(r, shape=kept), shape=x.shape, dims=tuple(range(len(x.shape))))

    powers = b.exp(b.sub(x, b.stop_gradient(spread(b.max(x, axes=(axis,))))))
    return b.div(powers, spread(b.sum(powers, axes=(axis,))))


def attend(logits: Logits, q: Node = Q, k: Node = K, v: Node = V) -> Node:
    return dot(softmax(logits(dot(q, b.permute(k, dims=(0, 1, 3, 2)), (3, 2)))), v, (3, 2))


def scaled(x: Node) -> Node:
    return b.div(x, b.scalar(2.0, x.dtype))


def late(x: Node, shift: int = 0) -> Node:
    row, column = (b.iota(shape=x.shape, axis=a, dtype=i64) for a in (2, 3))
    return b.gt(column, b.add(row, b.scalar(shift, i64)))


def low(x: Node, value: float = -math.inf) -> Node:
    return b.full(value, x.dtype, x.shape)


def attentions(g: Graph) -> list[Node]:
    return [n for n in Attention().run(g).nodes if n.op.name == "attention"]


def check_same(g: Graph, seed: int = 0) -> None:
    """The graph means the same with its attentions recognised."""
    rng = np.random.default_rng(seed)
    arrays = [rng.random(s.type.shape) < 0.7 if s.type.dtype.is_bool
              else rng.standard_normal(s.type.shape).astype(s.type.dtype.numpy) for s in g.inputs]
    wanted, found = evaluate(Autodiff().run(g), arrays), evaluate(Autodiff().run(Attention().run(g)), arrays)
    for w, f in zip(wanted, found, strict=True):
        np.testing.assert_allclose(f.astype(np.float64), w.astype(np.float64), rtol=2e-5, atol=2e-6)


MASK = operand(3, T, S, dtype=boolean)
ADDED = operand(3, N, 1, T, S)


def wide_mask(x: Node) -> Node:
    return b.broadcast(MASK, shape=x.shape, dims=(2, 3))


def triangle(x: Node) -> Node:
    row, column = (b.iota(shape=(T, S), axis=a, dtype=i64) for a in (0, 1))
    one = b.select(b.gt(column, row), b.full(-math.inf, f32, (T, S)), b.full(0.0, f32, (T, S)))
    return b.broadcast(one, shape=x.shape, dims=(2, 3))


RECOGNISED: dict[str, tuple[Logits, dict[str, object]]] = {
    "plain": (lambda x: x, {"scale": 1.0, "causal": False}),
    "divided": (scaled, {"scale": 0.5}),
    "multiplied": (lambda x: b.mul(b.scalar(3.0, f32), x), {"scale": 3.0}),
    "causal select": (lambda x: b.select(late(x), low(x), scaled(x)), {"causal": True, "diagonal": 0, "scale": 0.5}),
    "causal, other side": (lambda x: b.select(b.not_(late(x)), x, low(x)), {"causal": True, "diagonal": 0}),
    "shifted": (lambda x: b.select(late(x, 2), low(x), x), {"causal": True, "diagonal": 2}),
    "tril of ones": (lambda x: b.select(
        b.eq(b.select(late(x), low(x, 0.0), low(x, 1.0)), b.like(0.0, x)), low(x), x), {"causal": True, "diagonal": 0}),
    "added triangle": (lambda x: b.add(x, b.select(late(x), low(x), low(x, 0.0))), {"causal": True, "diagonal": 0}),
    "one triangle for all heads": (lambda x: b.add(x, triangle(x)), {"causal": True, "diagonal": 0}),
    "large negative": (lambda x: b.select(late(x), low(x, -3e38), x), {"causal": True}),
    "mask": (lambda x: b.select(wide_mask(x), low(x), scaled(x)), {"causal": False, "visible": False}),
    "mask of those that take part": (lambda x: b.select(wide_mask(x), x, low(x)), {"visible": True}),
    "mask with a number": (lambda x: b.select(wide_mask(x), low(x, -1e4), x), {"hidden": -1e4, "visible": False}),
    "mask and causal": (lambda x: b.select(late(x), low(x), b.select(wide_mask(x), x, low(x))), {"causal": True}),
    "added mask": (lambda x: b.add(scaled(x), b.broadcast(ADDED, shape=x.shape, dims=(0, 1, 2, 3))), {"scale": 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("name", RECOGNISED)
def test_is_recognised(name: str) -> None:
    logits, attrs = RECOGNISED[name]
    g = graph(attend(logits))
    (found,) = attentions(g)
    assert {key: getattr(found.attrs, key) for key in attrs} == attrs
    assert len(found.inputs) == (4 if "mask" in name else 3)
    check_same(g)


def test_gradients_read_no_probabilities() -> None:
    out = attend(lambda x: b.select(late(x), low(x), scaled(x)))
    loss = b.sum(b.mul(out, out), axes=(0, 1, 2, 3))
    g = graph(loss, *b.results(b.gradient(loss, b.scalar(1.0, f32), Q, K, V, n_outputs=1, n_wrt=3)))
    found = Autodiff().run(Attention().run(g))
    assert not any(n.shape == (N, H, T, S) for n in found.nodes if len(n.result_types) == 1)
    assert [n.op.name for n in found.nodes].count("attention_grad") == 1
    check_same(g)


def test_operands_in_any_order_of_axes() -> None:
    q, k, v = operand(0, N, T, H, D), operand(1, N, S, H, D), operand(2, H, S, E, N)
    scores = b.dot(k, q, contract_a=(3,), contract_b=(3,), batch_a=(2, 0), batch_b=(2, 0))  # [H, N, S, T]
    out = b.dot(v, softmax(scores, 2), contract_a=(1,), contract_b=(2,), batch_a=(3, 0), batch_b=(1, 0))
    g = graph(out)
    assert len(attentions(g)) == 1
    check_same(g)


def test_scaled_queries() -> None:
    g = graph(attend(lambda x: x, q=b.mul(Q, b.scalar(0.25, f32))))
    (found,) = attentions(g)
    assert found.attrs.scale == 0.25
    check_same(g)


def test_named_sizes() -> None:
    batch, length = sym("B"), sym("L")
    q, k, v = (operand(i, batch, H, length, D) for i in range(3))
    g = graph(attend(lambda x: b.select(late(x), low(x), x), q, k, v), sizes=(("B", 2), ("L", 5)))
    (found,) = attentions(g)
    assert found.attrs.causal and found.result_types[0].shape == (batch, H, length, D)


@pytest.mark.parametrize("dtype", [f16, f64])
def test_other_dtypes(dtype: DType) -> None:
    q, k, v = (operand(i, N, H, T, D, dtype=dtype) for i in range(3))
    wide = dtype.compute
    weights = softmax(b.cast(dot(q, b.permute(k, dims=(0, 1, 3, 2)), (3, 2)), dtype=wide))
    g = graph(dot(b.cast(weights, dtype=dtype), v, (3, 2)))
    (found,) = attentions(g)
    assert found.result_types[0].dtype is dtype


def test_batch_axes_that_were_merged_stay_apart() -> None:
    q, k, v = (b.reshape(x, shape=(N * H, *x.shape[2:])) for x in (Q, K, V))
    scores = b.dot(q, k, contract_a=(2,), contract_b=(2,), batch_a=(0,), batch_b=(0,))
    g = graph(b.dot(softmax(scores, 2), v, contract_a=(2,), contract_b=(1,), batch_a=(0,), batch_b=(0,)))
    (found,) = attentions(g)
    assert found.inputs == (Q, K, V)
    check_same(g)


def test_the_greatest_element_may_be_looked_up() -> None:
    """`x.max(dim, keepdim=True).values`."""
    scores = scaled(dot(Q, K, (3, 3)))
    where = b.reshape(b.argmax(scores, axes=(3,)), shape=(N, H, T, 1))
    top = b.broadcast(b.gather(scores, where, axis=3), shape=scores.shape, dims=(0, 1, 2, 3))
    powers = b.exp(b.sub(scores, top))
    total = b.broadcast(b.sum(powers, axes=(3,)), shape=scores.shape, dims=(0, 1, 2))
    g = graph(dot(b.div(powers, total), V, (3, 2)))
    assert len(attentions(g)) == 1
    check_same(g)


def test_two_layers() -> None:
    first = attend(scaled)
    q = b.slice(first, start=(0, 0, 0, 0), size=(N, H, T, D), step=(1, 1, 1, 1))
    g = graph(attend(scaled, q=q))
    assert len(attentions(g)) == 2
    check_same(g)


# -- what is none ------------------------------------------------------------------------------------------------


def weights_are_an_output() -> Graph:
    weights = softmax(scaled(dot(Q, K, (3, 3))))
    return graph(dot(weights, V, (3, 2)), weights)


def scores_are_read() -> Graph:
    scores = dot(Q, K, (3, 3))
    return graph(dot(softmax(scores), V, (3, 2)), b.sum(scores, axes=(0, 1, 2, 3)))


def dropped_out() -> Graph:
    weights = softmax(scaled(dot(Q, K, (3, 3))))
    return graph(dot(b.mul(weights, operand(3, N, H, T, S)), V, (3, 2)))


def softmax_over_heads() -> Graph:
    return graph(dot(softmax(dot(Q, K, (3, 3)), 1), V, (3, 2)))


def mixed_over_rows() -> Graph:
    """The product sums over rows of the weights, not over keys."""
    return graph(dot(softmax(dot(Q, K, (3, 3))), V, (2, 2)))


def other_total() -> Graph:
    scores = dot(Q, K, (3, 3))
    powers = b.exp(scores)
    total = b.sum(b.exp(b.neg(scores)), axes=(3,))
    return graph(dot(b.div(powers, b.broadcast(total, shape=powers.shape, dims=(0, 1, 2))), V, (3, 2)))


def scaled_by_a_tensor() -> Graph:
    scores = dot(Q, K, (3, 3))
    scale = b.broadcast(operand(3, H), shape=scores.shape, dims=(1,))
    return graph(dot(softmax(b.mul(scores, scale)), V, (3, 2)))


def learnt_mask() -> Graph:
    out = attend(lambda x: b.add(x, b.broadcast(ADDED, shape=x.shape, dims=(0, 1, 2, 3))))
    loss = b.sum(out, axes=(0, 1, 2, 3))
    return graph(loss, *b.results(b.gradient(loss, b.scalar(1.0, f32), Q, K, V, ADDED, n_outputs=1, n_wrt=4)))


@pytest.mark.parametrize("make", [weights_are_an_output, scores_are_read, dropped_out, softmax_over_heads,
                                  mixed_over_rows, other_total, scaled_by_a_tensor, learnt_mask])
def test_is_left_alone(make: Callable[[], Graph]) -> None:
    g = make()
    assert not attentions(g)
    assert Attention().run(g) == g


@pytest.mark.parametrize("condition", [
    lambda x: b.ge(b.iota(shape=x.shape, axis=3, dtype=i64), b.iota(shape=x.shape, axis=2, dtype=i64)),
    lambda x: b.gt(b.iota(shape=x.shape, axis=2, dtype=i64), b.iota(shape=x.shape, axis=3, dtype=i64)),
    lambda x: b.gt(b.iota(shape=x.shape, axis=3, dtype=i64), b.iota(shape=x.shape, axis=1, dtype=i64)),
    lambda x: b.gt(b.mul(b.iota(shape=x.shape, axis=3, dtype=i64), b.scalar(2, i64)),
                   b.iota(shape=x.shape, axis=2, dtype=i64)),
])  # fmt: skip
def test_conditions_that_only_look_causal_are_masks(condition: Callable[[Node], Node]) -> None:
    g = graph(attend(lambda x: b.select(condition(x), low(x, -9.0), x)))
    (found,) = attentions(g)
    assert not found.attrs.causal and len(found.inputs) == 4
    check_same(g)
