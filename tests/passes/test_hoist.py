"""Loop-invariant code motion: what leaves a loop, what stays, and the same bits either way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tracemill.compiler.passes.simplify import Hoist, Simplify
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import f32, i64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType
from tracemill.ir.verify import verify

b = Builder()
T = sym("T")
STATE, WEIGHT, BIAS = TensorType(f32, (2, 3)), TensorType(f32, (3, 3)), TensorType(f32, (3,))
H, X, W, V = (input_node(i, t) for i, t in enumerate((STATE, STATE, WEIGHT, BIAS)))
BODY = tuple(InputSpec(n, x.tensor_type) for n, x in zip(("h", "x", "w", "v"), (H, X, W, V), strict=True))
OUTER = (BODY[0], InputSpec("xs", TensorType(f32, (T, 2, 3))), *BODY[2:])


def scanned(*outputs: Node) -> Graph:
    """A scan over state h and rows x with constants w, v."""
    loop = b.scan(H, input_node(1, OUTER[1].type), W, V, body=Graph("body", BODY, outputs), n_carry=1, n_xs=1, length=T)
    return Graph("g", OUTER, b.results(loop))


def hoisted(graph: Graph) -> tuple[list[str], list[str]]:
    """Names of the operators before the loop and in its body, once both are known to compute the same bits."""
    after = Hoist().run(graph)
    verify(after)
    for length in (1, 3):
        rng = np.random.default_rng(length)
        shapes = [tuple(d if isinstance(d, int) else length for d in s.type.shape) for s in graph.inputs]
        given = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        for old, new in zip(evaluate(graph, given), evaluate(after, given), strict=True):
            np.testing.assert_array_equal(old, new)
    assert Hoist().run(after) == after
    loop = next(n for n in after.nodes if n.op.name in ("scan", "while"))
    return names(loop.inputs), names(loop.attrs.body.outputs)


def names(outputs: Any) -> list[str]:
    return [n.op.name for n in Graph("g", (), tuple(outputs)).nodes if n.op.name != "input"]


def times(x: Node, w: Node, axis: int = 0) -> Node:
    return b.dot(x, w, contract_a=(1,), contract_b=(axis,))


def test_what_no_step_changes_is_computed_before_the_loop() -> None:
    outside, inside = hoisted(scanned(b.add(times(H, b.exp(W)), X)))
    assert outside == ["exp"] and inside == ["dot", "add"]


def test_a_right_operand_is_transposed_before_the_loop() -> None:
    outside, inside = hoisted(scanned(b.add(times(H, W, axis=1), X)))
    assert outside == ["permute"] and inside == ["dot", "add"]
    loop = next(n for n in Simplify().run(scanned(times(H, W, axis=1))).nodes if n.op.name == "scan")
    assert names(loop.attrs.body.outputs) == ["dot"]  # and simplification leaves it there


def test_views_and_repeated_values_stay_where_they_are_read() -> None:
    wide = b.broadcast(V, shape=(2, 3), dims=(1,))
    assert hoisted(scanned(b.mul(H, wide))) == ([], ["broadcast", "mul"])
    outside, inside = hoisted(scanned(b.mul(H, b.broadcast(b.tanh(V), shape=(2, 3), dims=(1,)))))
    assert outside == ["tanh"] and inside == ["broadcast", "mul"]
    first = b.slice(b.reshape(W, shape=(9,)), start=(0,), size=(3,), step=(1,))
    outside, inside = hoisted(scanned(b.add(H, b.broadcast(first, shape=(2, 3), dims=(1,)))))
    assert outside == [] and "slice" in inside


def test_what_depends_on_state_or_rows_stays() -> None:
    assert hoisted(scanned(times(H, W)))[0] == []
    assert hoisted(scanned(b.add(H, b.exp(X))))[0] == []


def test_what_can_fail_stays() -> None:
    """A loop of no steps must not report an index that it never read."""
    at = b.constant(np.array([0, 2, 1]), i64)
    graph = scanned(b.add(H, b.broadcast(b.index_select(V, at, axis=0), shape=(2, 3), dims=(1,))))
    assert hoisted(graph)[0] == []


def test_a_value_leaves_every_loop_around_it() -> None:
    inner = Graph("inner", (BODY[0], BODY[2]), (times(H, b.exp(input_node(1, WEIGHT))),))
    step = b.result(b.scan(H, W, body=inner, n_carry=1, n_xs=0, length=2), index=0)
    outside, inside = hoisted(scanned(b.add(step, X)))
    assert outside == ["exp"] and inside == ["scan", "result", "add"]


@pytest.mark.parametrize("limit", [0.0, 5.0])
def test_while(limit: float) -> None:
    specs = (InputSpec("h", STATE), InputSpec("w", WEIGHT))
    w = input_node(1, WEIGHT)
    total = b.sum(b.abs(H), axes=(0, 1))
    test = Graph("test", specs, (b.lt(total, b.add(b.sum(b.exp(w), axes=(0, 1)), b.scalar(limit, f32))),))
    body = Graph("body", specs, (b.add(b.add(H, H), times(b.abs(H), b.exp(w))),))
    loop = b.while_(H, w, cond=test, body=body, n_carry=1)
    outside, inside = hoisted(Graph("g", specs, (b.result(loop, index=0),)))
    assert outside == ["exp", "sum"] and "exp" not in inside
