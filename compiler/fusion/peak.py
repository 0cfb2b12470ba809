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
    return Liveness(graph, sizes).peak


class Liveness:
    """When each temporary of a graph is alive.

    Attributes:
        peak: greatest number of bytes alive at once.
        at: the step of the peak.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.order = schedule(graph, sizes).launches
        self.step = {n: i for i, n in enumerate(self.order)}
        kept = set(map(_cell, graph.outputs))
        self.last: dict[Cell, int] = {
            (n, k): self.step[n] for n in self.order for k in range(len(n.result_types)) if (n, k) not in kept}
        for n in self.order:
            for cell in map(_cell, n.inputs):
                if cell in self.last:
                    self.last[cell] = max(self.last[cell], self.step[n])
        change = [0] * (len(self.order) + 1)
        for (n, k), end in self.last.items():
            nbytes = evaluate(n.result_types[k].nbytes, sizes)
            change[self.step[n]] += nbytes
            change[end + 1] -= nbytes
        self.peak, self.at = 0, 0
        alive = 0
        for at, delta in enumerate(change):
            alive += delta
            if alive > self.peak:
                self.peak, self.at = alive, at

    def waiting(self) -> list[Node]:
        """The launches that read, after the peak, what is alive at it: had they run before, less might have been."""
        alive = {(n, k) for (n, k), end in self.last.items() if self.step[n] <= self.at < end}
        return [n for n in self.order[self.at + 1:] if any(_cell(i) in alive for i in n.inputs)]


def _cell(node: Node) -> Cell:
    """The launch behind a value, and which of its results."""
    node = root(node)
    return producer(node), node.attrs.index if node.op.name == "result" else 0
