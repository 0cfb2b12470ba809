"""Second step: values that several kernels may as well compute for themselves.

A cheap chain over values that are in memory anyway (normalised activations from mean and deviation, the inner function
of a GELU that its gradient needs too) is recomputed by every reader instead of being written, kept and read.
"""

from __future__ import annotations

from ...ir.dims import evaluate, names
from ...ir.node import Node
from .absorb import repeated_in
from .clusters import Clusters, Group
from .roles import ALIASES, CHEAP, REPEATABLE, Role, checks, cost
from .shapes import size

# Full-size values that a recomputed one may be made of in the end.
_SOURCES = 2
# A value of less than this part of another (a mean, a scale) is small beside it.
_SMALL = 16
# Named sizes are compared as if they were all this; only ratios matter.
_TYPICAL = 64


def nbytes(node: Node) -> int:
    """Rough bytes of a value."""
    d = node.tensor_type.nbytes
    return evaluate(d, dict.fromkeys(names(d), _TYPICAL))


def inlinable(clusters: Clusters, small: bool = True) -> set[Node]:
    """The nodes that their readers should compute.

    Args:
        small: values that are small beside a result may stay in memory longer for it.
    """
    return _Inline(clusters, small).run()


class _Inline:
    def __init__(self, clusters: Clusters, small: bool) -> None:
        self.clusters, self.graph = clusters, clusters.graph
        self.share = _SMALL if small else 0
        self.chosen: set[Node] = set()
        self.costs: dict[Node, int] = {}
        self.sources: dict[Node, set[Node]] = {}  # values in memory, as large as the result, that each one is made of

    def run(self) -> set[Node]:
        for group in self.clusters.groups():
            if len(group.outputs) == 1 and group.core is None:
                self._consider(group)
        return self.chosen

    def _consider(self, group: Group) -> None:
        (result,) = group.outputs
        cone, border = self._cone(result, group)
        total = sum(map(cost, cone)) + sum(self.costs.get(n, 0) for n in border)
        sources = {s for n in border for s in (self.sources[n] if n in self.costs else {n}) if size(s) == size(result)}
        if cone and len(sources) <= _SOURCES and self._worth(result, group, border, total):
            self.costs[result], self.sources[result] = total, sources
            self.chosen.update(cone)

    def _cone(self, result: Node, group: Group) -> tuple[list[Node], list[Node]]:
        """The computing nodes of a group that lead to its result at full size, and the values they start from."""
        cone: dict[Node, None] = {}
        border: dict[Node, None] = {}
        stack = [result]
        while stack:
            node = stack.pop()
            if node in cone or node in border:
                continue
            kind = self.clusters.roles[node]
            if node in group.members and kind is Role.LOOP and size(node) == size(result):
                cone[node] = None
                stack.extend(node.inputs)
            elif kind is Role.VIEW and node.op.name not in ALIASES:
                stack.extend(node.inputs)
            elif node.op.name != "constant" or node.tensor_type.rank:
                border[node] = None
        return list(cone), list(border)

    def _worth(self, result: Node, group: Group, border: list[Node], total: int) -> bool:
        clusters = self.clusters
        if total > REPEATABLE or any(checks(n) or n.op.name == "random_bits" for n in group.members):
            return False
        if any(n in group.members and size(n) == size(result) for n in border):
            return False  # a reduction as large as its result
        groups, operand, wall = clusters.readers(result)
        if operand or wall or len(groups) < 2:
            return False
        if total > CHEAP and any(repeated_in(clusters, result, g) for g in groups):
            return False
        end = max(clusters.last(g) for g in groups)
        leaves = [n for n in border if n not in self.costs
                  and (not self.share or nbytes(n) * self.share > nbytes(result))]
        longer = [n for n in leaves if not self._alive(n, end, group)]
        return sum(map(nbytes, longer)) <= nbytes(result) + sum(nbytes(n) for n in longer if n in group.members)

    def _alive(self, node: Node, end: int, group: Group) -> bool:
        """Whether a value is in memory until `end` whatever happens to the group."""
        if self.clusters.roles[node] is Role.LEAF and node.op.name != "result":
            return True
        if node in self.clusters.required:
            return True
        return any(self.clusters.position[u] >= end for u in self.graph.users[node] if u not in group.members)
