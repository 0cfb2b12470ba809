"""Memory of a graph without running or planning it: what is alive at once, launch by launch."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.dims import evaluate
from ...ir.graph import Graph
from ...ir.node import Node
from ..schedule import producer, root, schedule

Cell = tuple[Node, int]


def peak_bytes(graph: Graph, sizes: Mapping[str, int]) -> int:
    """The greatest number of bytes of temporaries alive at once, in the order that launches will have.

    Args:
        sizes: values of the named sizes.
    """
    order = schedule(graph, sizes).launches
    step = {n: i for i, n in enumerate(order)}
    kept = set(map(_cell, graph.outputs))
    last: dict[Cell, int] = {(n, k): step[n] for n in order for k in range(len(n.result_types))}
    for n in order:
        for cell in map(_cell, n.inputs):
            if cell in last:
                last[cell] = max(last[cell], step[n])
    change = [0] * (len(order) + 1)
    for (n, k), end in last.items():
        if (n, k) not in kept:
            nbytes = evaluate(n.result_types[k].nbytes, sizes)
            change[step[n]] += nbytes
            change[end + 1] -= nbytes
    peak = alive = 0
    for delta in change:
        alive += delta
        peak = max(peak, alive)
    return peak


def _cell(node: Node) -> Cell:
    """The launch behind a value, and which of its results."""
    node = root(node)
    return producer(node), node.attrs.index if node.op.name == "result" else 0
