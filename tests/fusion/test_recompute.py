"""Cheap values over what is in memory anyway are computed again by each reader; long chains of them are not."""

from __future__ import annotations

import numpy as np
from harness import run_graph
from tracemill.compiler.fusion import Fuse, peak_bytes
from tracemill.compiler.fusion.absorb import absorb
from tracemill.compiler.fusion.inline import inlinable
from tracemill.compiler.schedule import is_launch
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import f32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()


def fused(shapes: list[tuple[int, ...]], *outputs: Node) -> Graph:
    """The fused graph, after checks of its bits and its memory."""
    graph = Graph("test", tuple(InputSpec(f"x{k}", TensorType(f32, s)) for k, s in enumerate(shapes)), outputs)
    after = Fuse().run(graph)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for got, want in zip(run_graph(after, arrays), run_graph(graph, arrays), strict=True):
        assert got.tobytes() == want.tobytes()
    assert peak_bytes(after, {}) <= peak_bytes(graph, {})
    return after


def written(graph: Graph, shape: tuple[int, ...]) -> int:
    """Values of a shape that kernels write."""
    return sum(t.shape == shape for n in graph.nodes if is_launch(n) for t in n.result_types)


def var(k: int, *shape: int) -> Node:
    return input_node(k, TensorType(f32, shape))


def test_normalised_values_are_not_kept_for_the_gradient() -> None:
    """The product stays in memory instead; that a mean stays with it is no reason against it."""
    x, w, w2, dy = var(0, 40, 24), var(1, 24, 32), var(2, 32, 32), var(3, 40, 32)
    y = b.dot(x, w, contract_a=(1,), contract_b=(0,))

    def wide(v: Node) -> Node:
        return b.broadcast(v, shape=(40, 32), dims=(1,))

    gap = b.sub(y, wide(b.mul(b.sum(y, axes=(0,)), b.scalar(0.025, f32))))
    normal = b.mul(gap, wide(b.rsqrt(b.sum(b.mul(gap, gap), axes=(0,)))))
    z = b.dot(b.tanh(normal), w2, contract_a=(1,), contract_b=(0,))
    g = b.dot(b.mul(z, dy), w2, contract_a=(1,), contract_b=(1,))
    after = fused([(40, 24), (24, 32), (32, 32), (40, 32)], b.sum(b.mul(g, gap), axes=(0,)),
                  b.sum(b.mul(g, normal), axes=(0,)))
    assert written(after, (40, 32)) == 4  # both products with what follows them, the activation, the gradient


def test_a_chain_over_many_tensors_is_not_repeated() -> None:
    """Every link is cheap and reads one tensor more, but a reader of the last one would read them all."""
    shape, count = (64, 32), 5
    xs = [var(k, *shape) for k in range(count)]
    links, outputs = [xs[0]], []
    for x in xs[1:]:
        links.append(b.add(links[-1], x))
        outputs += [b.sum(links[-1], axes=(0,)), b.sum(links[-1], axes=(1,))]
    graph = Graph("test", tuple(InputSpec(f"x{k}", x.tensor_type) for k, x in enumerate(xs)), tuple(outputs))
    chosen = inlinable(absorb(graph, (), (), 64))
    assert links[1] in chosen and links[2] not in chosen and links[4] not in chosen
