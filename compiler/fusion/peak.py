"""Memory of a graph: what its plan takes, and what is alive at once, launch by launch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product

from ...ir.dims import evaluate
from ...ir.graph import Graph
from ...ir.node import Node
from ...ir.opdef import Kind
from ..lower import lower
from ..memory import align
from ..schedule import Cell, cell_of, schedule


def peak_bytes(graph: Graph, sizes: Mapping[str, int]) -> int:
    """Bytes of temporaries that the plan of a graph takes.

    Args:
        sizes: values of the named sizes.
    """
    from ..emit import emit

    plan = emit(graph, sizes).plan
    return evaluate(plan.arena, plan.with_lets(sizes))


def least_bytes(graph: Graph, sizes: Mapping[str, int]) -> int:
    """What the plan of a graph cannot go below: with every result in the memory of an operand that is not needed any
    more, if there is one of its size."""
    return Liveness(graph, sizes, lambda n: product(range(len(n.result_types)), range(len(n.inputs)))).peak


def in_place(node: Node) -> Iterable[tuple[int, int]]:
    """The pairs (result, operand) of a launch that may be one buffer."""
    control = node.op.kind is Kind.CONTROL and node.op.name != "fused"
    return () if control else lower(node).in_place


class Liveness:
    """When each temporary of a graph is alive (those inside of loops left out).

    Args:
        pairs: the pairs (result, operand) of a launch that may be one buffer.

    Attributes:
        peak: greatest number of bytes alive at once.
        at: the step of the peak.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int],
                 pairs: Callable[[Node], Iterable[tuple[int, int]]] = in_place) -> None:
        chosen = schedule(graph, sizes)
        self.order = chosen.launches
        self.step = {n: i for i, n in enumerate(self.order)}
        kept = {cell_of(o) for k, (o, d) in enumerate(zip(graph.outputs, graph.donations, strict=True))
                if d is None or k in chosen.in_place}
        self.last: dict[Cell, int] = {
            (n, k): self.step[n] for n in self.order for k in range(len(n.result_types)) if (n, k) not in kept}
        for cell in map(cell_of, graph.outputs):
            if cell in self.last:  # copied over its input at the end
                self.last[cell] = len(self.order) - 1
        for n in self.order:
            for cell in map(cell_of, n.inputs):
                if cell in self.last:
                    self.last[cell] = max(self.last[cell], self.step[n])
        self._change = [0] * (len(self.order) + 1)
        self._sizes = sizes
        for (n, k), end in self.last.items():
            nbytes = self._bytes((n, k))
            self._change[self.step[n]] += nbytes
            self._change[end + 1] -= nbytes
        for n in self.order:
            self._take_over(n, pairs)
        self.peak, self.at = 0, 0
        alive = 0
        for at, delta in enumerate(self._change):
            alive += delta
            if alive > self.peak:
                self.peak, self.at = alive, at

    def _bytes(self, cell: Cell) -> int:
        return evaluate(align(cell[0].result_types[cell[1]].nbytes), self._sizes)

    def _take_over(self, node: Node, pairs: Callable[[Node], Iterable[tuple[int, int]]]) -> None:
        """Results that lie where an operand lay that is read for the last time: both count once."""
        step = self.step[node]
        cells = list(map(cell_of, node.inputs))
        free = {cell for cell in cells if self.last.get(cell) == step}
        if not free:
            return
        done: set[int] = set()
        for result, operand in pairs(node):
            cell, nbytes = cells[operand], self._bytes((node, result))
            if (node, result) in self.last and result not in done and cell in free and self._bytes(cell) == nbytes:
                free.remove(cell)
                done.add(result)
                self._change[step] -= nbytes
                self._change[step + 1] += nbytes

    def waiting(self) -> list[Node]:
        """The launches that read, after the peak, what is alive at it: had they run before, less might have been."""
        alive = {(n, k) for (n, k), end in self.last.items() if self.step[n] <= self.at < end}
        return [n for n in self.order[self.at + 1:] if any(cell_of(i) in alive for i in n.inputs)]

    def making(self) -> list[Node]:
        """The launches up to the peak whose results are alive at it."""
        return [n for n in self.order[:self.at + 1] if any(
            self.last.get((n, k), -1) >= self.at for k in range(len(n.result_types)))]

