"""What random graphs have found, in its smallest form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from compare import assert_same_bits, in_python, reference
from random_graphs import with_sizes
from tracemill.compiler import driver
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import boolean, f32, f64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()


def graph(build: Callable[..., Sequence[Node]], *shapes: tuple[int, ...]) -> Graph:
    """A graph over float64 inputs of these shapes, its last input a truth value."""
    types = [*(TensorType(f64, s) for s in shapes), TensorType(boolean, ())]
    nodes = [input_node(k, t) for k, t in enumerate(types)]
    return Graph("found", tuple(InputSpec(f"x{k}", t) for k, t in enumerate(types)), tuple(build(*nodes)))


def opaque(x: Node) -> Node:
    """A value in memory of its own: never part of another kernel."""
    return b.cumsum(x, axis=0)


def branch_over_a_value_that_is_needed_later(x: Node, flag: Node) -> Sequence[Node]:
    """A branch may not put its result where its operand lies: the graph around it reads that again."""
    value = opaque(x)
    t = x.tensor_type
    arg, spec = input_node(0, t), (InputSpec("x", t),)
    then, other = Graph("", spec, (b.sin(b.cos(arg)),)), Graph("", spec, (b.neg(arg),))
    chosen = b.result(b.cond(flag, value, then=then, other=other), index=0)
    return [opaque(chosen), opaque(b.add(value, chosen))]


def two_results_and_the_memory_of_one_operand(x: Node, y: Node, flag: Node) -> Sequence[Node]:
    """The first result lies where the second one's operand was: all loads come before the first store."""
    first, second = opaque(x), opaque(y)
    one = b.exp(first)
    two = b.mul(b.add(second, one), first)
    return [opaque(one), opaque(two), first]


def sum_of_two_concatenations(x: Node, y: Node, flag: Node) -> Sequence[Node]:
    """Their extents, n0+n1 and n2+n3, are equal, and neither is a product of names."""
    halves = [b.slice(v, start=(0, 0), size=(2, 4), step=(1, 1)) for v in (x, y)]
    joined = [b.concat(v, h, axis=0) for v, h in zip((x, y), halves, strict=True)]
    return [b.tanh(b.mul(joined[0], b.add(joined[1], joined[0])))]


CASES = [(branch_over_a_value_that_is_needed_later, ((5, 4),)),
         (two_results_and_the_memory_of_one_operand, ((5, 4), (5, 4))),
         (sum_of_two_concatenations, ((3, 4), (3, 4)))]


@pytest.mark.parametrize(("build", "shapes"), CASES, ids=lambda c: c.__name__ if callable(c) else "")
def test_values(build: Callable[..., Sequence[Node]], shapes: Sequence[tuple[int, ...]]) -> None:
    g, rng = graph(build, *shapes), np.random.default_rng(0)
    for flag in (True, False):
        arrays = [*(rng.standard_normal(s) for s in shapes), np.array(flag)]
        wanted = reference(g, arrays)
        fused, unfused = in_python(g, arrays, fuse=True), in_python(g, arrays, fuse=False)
        assert_same_bits(fused, unfused, "fused and unfused")
        for actual, value in zip(fused, wanted, strict=True):
            np.testing.assert_allclose(actual, value, rtol=1e-12, atol=1e-12)


def test_a_number_of_repetitions_is_no_literal() -> None:
    """The sum over a broadcast batch is its extent times the value, by the same kernel for every batch."""
    t = TensorType(f32, (3,))
    wide = b.broadcast(input_node(0, t), shape=(sym("B"), 3), dims=(1,))
    total = b.sum(b.mul(wide, input_node(1, TensorType(f32, (sym("B"), 3)))), axes=(0,))
    repeated = b.sum(wide, axes=(0,))
    specs = (InputSpec("x", t), InputSpec("y", TensorType(f32, (sym("B"), 3))))
    named = Graph("repeated", specs, (b.add(total, repeated),))
    kernels = [set(driver.lower_to_plan(g)[1].kernels)
               for g in (named, with_sizes(named, {"B": 128}), with_sizes(named, {"B": 7}))]
    assert kernels[0] == kernels[1] == kernels[2]
