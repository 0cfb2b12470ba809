"""Differentiation: expands `gradient` nodes, and what later backward passes need of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from ...ir.errors import AutogradError
from ...ir.graph import Graph, input_node
from ...ir.node import Node
from .activity import forward_reads
from .loops import merge_loops
from .reverse import backward
from .rewriting import Replacement, has_bodies, inline, map_bodies, rewrite, rewrite_nodes

# Symbols of differentiation: none is left after this pass.
SYMBOLS = frozenset({"gradient", "with_value", "stop_gradient", "custom_vjp"})


@dataclass(frozen=True)
class Autodiff:
    """Expand gradient nodes by reverse mode, inner ones first, and drop the symbols that only steer it."""

    name: ClassVar[str] = "autodiff"

    def run(self, graph: Graph) -> Graph:
        """Raises AutogradError at the user's line for what has no derivative."""
        return _strip(merge_loops(rewrite(graph, _expand)), _kept(graph))


def _expand(node: Node, inputs: tuple[Node, ...]) -> Replacement:
    if node.op.name != "gradient":
        return None
    n = node.attrs.n_outputs
    try:
        return tuple(backward(inputs[:n], inputs[n:2 * n], inputs[2 * n:]))
    except AutogradError as error:
        error.location = error.location or node.place.location
        raise


def _kept(graph: Graph) -> dict[Node, Node]:
    """The nodes whose value is an input or constant, by `with_value`."""
    return {n.inputs[0]: n.inputs[1] for n in graph.nodes if n.op.name == "with_value" and not n.inputs[1].inputs}


def _strip(graph: Graph, kept: Mapping[Node, Node] = MappingProxyType({})) -> Graph:
    """`graph` without the symbols that differentiation has read.

    A node with a kept value is not computed again: its derivative may read it where no `with_value` stands,
    as in a graph whose `with_value` nodes only stood below the outputs of gradients (`kept` has those).
    """
    kept = {**kept, **_kept(graph)}

    def visit(node: Node, inputs: tuple[Node, ...]) -> Replacement:
        if node in kept:
            return kept[node]
        match node.op.name:
            case "with_value":
                return inputs[1]
            case "stop_gradient":
                return inputs[0]
            case "custom_vjp":
                return inline(_strip(node.attrs.forward), inputs)
            case _:
                return map_bodies(node, inputs, _strip) if has_bodies(node) else None

    return rewrite(graph, visit, inside=False)


def residuals(graph: Graph, outputs: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """The nodes of `graph` whose values a later backward pass of `outputs` with respect to `wrt` would read.

    Keeping their values (and handing them to the later graph by `with_value`) makes the forward pass run
    once. Graph inputs among them are listed too: the backward pass reads their values of this run. Where
    `graph` itself holds gradient nodes, values inside their expansion count as the forward values they are
    computed from. What a scan's derivative needs of its steps is no node of `graph`: a later backward pass
    runs such a loop again.

    Args:
        outputs, wrt: nodes below the graph's outputs.

    Returns:
        Nodes with a single result each, in graph order.
    """
    order = graph.nodes
    image = dict(zip(order, rewrite_nodes(order, _expand), strict=True))
    origin: dict[Node, Node] = {}
    for node in order:
        if node.op.name != "gradient":
            origin.setdefault(image[node], node)
    heads = [image[o] for o in outputs]
    cotangents = [input_node(len(graph.inputs) + i, h.tensor_type) for i, h in enumerate(heads)]
    gradients = backward(heads, cotangents, [image[x] for x in wrt])
    reads = {origin[r] for r in forward_reads(gradients, origin, cotangents, loops=False) if r in origin}
    return [n for n in order if n in reads]
