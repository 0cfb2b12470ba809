"""Permutes that turn the innermost axis: a copy of their own where reading through them would stride, else a view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import run_graph
from tracemill.compiler.fusion import Fuse
from tracemill.compiler.fusion.roles import joins_apart, turns
from tracemill.compiler.schedule import is_launch
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import f32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()
LAST_FIRST = (0, 3, 1, 2)


class Model:
    """Builds a graph with inputs by shape."""

    def __init__(self) -> None:
        self.specs: list[InputSpec] = []

    def input(self, *shape: int) -> Node:
        self.specs.append(InputSpec(f"x{len(self.specs)}", TensorType(f32, shape)))
        return input_node(len(self.specs) - 1, self.specs[-1].type)

    def launches(self, *outputs: Node) -> list[str]:
        """What runs after fusion, by operators, when it gives the same bits as unfused."""
        graph = Graph("test", tuple(self.specs), outputs)
        fused = Fuse().run(graph)
        rng = np.random.default_rng(1)
        arrays: list[Any] = [rng.standard_normal(s.type.shape).astype(np.float32) for s in self.specs]
        for got, want in zip(run_graph(fused, arrays, cuts=2), run_graph(graph, arrays), strict=True):
            assert got.tobytes() == want.tobytes()
        return sorted(names(n) for n in fused.nodes if is_launch(n))


def names(launch: Node) -> str:
    if launch.op.name != "fused":
        return launch.op.name
    return "+".join(n.op.name for n in launch.attrs.body.nodes if n.op.name not in ("input", "constant"))


def test_which_permutes_turn() -> None:
    m = Model()
    x, thin = m.input(2, 3, 4, 5), m.input(2, 3, 4, 1)
    assert turns(b.permute(x, dims=LAST_FIRST)) and not turns(b.permute(x, dims=(1, 0, 2, 3)))
    assert turns(b.permute(thin, dims=(0, 2, 1, 3))) and not turns(b.permute(thin, dims=(0, 1, 3, 2)))
    assert not turns(b.permute(m.input(), dims=())) and not turns(x)


@pytest.mark.parametrize(("dims", "shape", "apart"), [
    (LAST_FIRST, (2, 60), True), (LAST_FIRST, (10, 12), True), (LAST_FIRST, (2, 5, 12), False),
    ((3, 0, 1, 2), (5, 24), False), (LAST_FIRST, (2, 1, 5, 3, 4), False)])
def test_which_reshapes_join_axes_that_lie_apart(dims: tuple[int, ...], shape: tuple[int, ...], apart: bool) -> None:
    turned = b.permute(Model().input(2, 3, 4, 5), dims=dims)
    assert joins_apart(turned, b.reshape(turned, shape=shape)) is apart


def test_a_flatten_for_two_products_is_copied_once() -> None:
    m = Model()
    x, w, g = m.input(6, 3, 3, 20), m.input(7, 180), m.input(6, 7)
    flat = b.reshape(b.permute(b.tanh(x), dims=LAST_FIRST), shape=(6, 180))
    outputs = (b.dot(flat, w, contract_a=(1,), contract_b=(1,)), b.dot(g, flat, contract_a=(0,), contract_b=(0,)))
    assert m.launches(*outputs) == ["dot", "dot", "permute", "tanh"]


def test_a_reduction_reads_a_copy() -> None:
    m = Model()
    x, y = m.input(4, 20, 3, 3), m.input(4, 3, 3, 20)
    z = b.mul(b.permute(x, dims=(0, 2, 3, 1)), y)
    assert m.launches(b.sum(z, axes=(0, 1, 2))) == ["mul+sum", "permute"]


def test_a_plain_loop_reads_through_it() -> None:
    m = Model()
    x, y = m.input(4, 20, 3, 3), m.input(4, 3, 3, 20)
    z = b.tanh(b.mul(b.permute(x, dims=(0, 2, 3, 1)), y))
    assert m.launches(z) == ["permute+mul+tanh"]


def test_a_products_operand_needs_none() -> None:
    m = Model()
    x, w = m.input(6, 5, 8), m.input(6, 5, 7)
    turned = b.permute(x, dims=(0, 2, 1))
    z = b.dot(turned, w, contract_a=(2,), contract_b=(1,), batch_a=(0,), batch_b=(0,))
    assert len(m.launches(z)) == 1
