"""What a body computes, apart from the places in a script that it comes from: equal for layers that repeat."""

from __future__ import annotations

from typing import Any

from ...ir.graph import Graph

# Operators with their attributes and their operands' numbers, and the results' numbers.
Structure = tuple[tuple[tuple[str, Any, tuple[int, ...]], ...], tuple[int, ...]]


def structure(body: Graph) -> Structure:
    """A hashable form of a body, without places and names."""
    number = {n: i for i, n in enumerate(body.nodes)}
    nodes = tuple((n.op.name, n.attrs, tuple(number[i] for i in n.inputs)) for n in number)
    return nodes, tuple(number[o] for o in body.outputs)
