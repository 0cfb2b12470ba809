"""Reshapes sink through elementwise chains to buffers, where they cost nothing.

`f(reshape(g(x)))` is two kernels as long as a reshape stands between them; as `f(g(reshape(x)))` it is one,
and a reshape of x's buffer is another name for it. A chain of elementwise operators is moved as a whole or
not at all: half a chain in the new shape would cost a kernel more. Chains that begin at a contraction or
another kernel of its own stay: they are that kernel's epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ....ir.build import Builder
from ....ir.graph import Graph
from ....ir.node import Node
from ....ir.opdef import Kind
from ....ir.types import Shape
from ..rewriting import has_bodies, map_bodies, rewrite
from .shapes import reshaped_broadcast

_BUFFERS = frozenset({Kind.INPUT, Kind.REDUCTION})
_TAKERS = frozenset({Kind.REDUCTION, Kind.BROADCAST})


@dataclass(frozen=True)
class SinkReshapes:
    """Move reshapes from the end of elementwise chains to their beginnings, where that saves a kernel."""

    name: ClassVar[str] = "sink-reshapes"

    def run(self, graph: Graph) -> Graph:
        moved = _movable(graph)

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            if has_bodies(node):
                return map_bodies(node, inputs, self.run)
            if node.op.name == "reshape" and node.inputs[0] in moved:
                return inputs[0]
            shape = moved.get(node)
            if shape is None:
                return None
            b = Builder(node.place)
            return Node.make(node.op, [_in_shape(b, i, shape) for i in inputs], node.attrs, node.place)

        return rewrite(graph, visit, inside=False)


def _in_shape(b: Builder, x: Node, shape: Shape) -> Node:
    return x if not x.shape or x.shape == shape else b.reshape(x, shape=shape)


def _movable(graph: Graph) -> dict[Node, Shape]:
    """Elementwise nodes to compute in another shape, with that shape."""
    wanted: dict[Node, Shape] = {}
    for node in reversed(graph.nodes):
        shape = _wanted_shape(graph, node, wanted)
        if shape is not None:
            wanted[node] = shape
    chain = _chains(graph, wanted)
    refused: set[Node] = set()
    gaining: set[Node] = set()
    for node in wanted:
        if not all(_can_begin(i, wanted[node]) for i in _boundary(node, wanted)):
            refused.add(chain[node])
        if any(_gains(graph, u) for u in graph.users[node] if u.op.name == "reshape"):
            gaining.add(chain[node])
    return {n: s for n, s in wanted.items() if chain[n] in gaining and chain[n] not in refused}


def _wanted_shape(graph: Graph, node: Node, wanted: dict[Node, Shape]) -> Shape | None:
    """The one shape in which all users want an elementwise node, if it is not its own."""
    if not _is_elementwise(node) or node in graph.outputs:
        return None
    shapes = {u.shape if u.op.name == "reshape" else wanted.get(u) for u in graph.users[node]}
    shape = shapes.pop() if len(shapes) == 1 else None
    return None if shape == node.shape else shape


def _is_elementwise(node: Node) -> bool:
    return node.op.kind is Kind.ELEMENTWISE and bool(node.inputs) and bool(node.shape)


def _boundary(node: Node, wanted: dict[Node, Shape]) -> Iterator[Node]:
    """Operands of the node's shape that stay as they are."""
    return (i for i in node.inputs if i.shape and i not in wanted)


def _can_begin(x: Node, shape: Shape) -> bool:
    """True if a reshape of `x` is free."""
    if x.op.name == "broadcast":
        return reshaped_broadcast(x.inputs[0].shape, x.attrs.dims, x.shape, shape) is not None
    while x.op.name == "reshape":
        x = x.inputs[0]
    return x.op.kind in _BUFFERS


def _gains(graph: Graph, reshape: Node) -> bool:
    """True if a kernel that begins at the reshape could take the chain before it in."""
    return any(_is_elementwise(u) or u.op.kind in _TAKERS for u in graph.users[reshape])


def _chains(graph: Graph, wanted: dict[Node, Shape]) -> dict[Node, Node]:
    """For every node the representative of the connected nodes that move together."""
    parent = {n: n for n in wanted}

    def root(n: Node) -> Node:
        while parent[n] is not n:
            parent[n] = n = parent[parent[n]]
        return n

    for node in wanted:
        for i in node.inputs:
            if i in parent:
                parent[root(i)] = root(node)
    return {n: root(n) for n in wanted}
