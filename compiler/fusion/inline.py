"""Second step: values that several kernels may as well compute for themselves.

A cheap chain over values that are in memory anyway (normalised activations from mean and deviation, the inner function
of a GELU that its gradient needs too) is recomputed by every reader instead of being written, kept and read.
"""

from __future__ import annotations

from ...ir.dims import evaluate, names
from ...ir.node import Node
from .absorb import repeated_in
from .clusters import Clusters, Group
from .roles import CHEAP, REPEATABLE, Role, checks, cost
from .shapes import size

# Named sizes are compared as if they were all this; only ratios matter.
_TYPICAL = 64


def nbytes(node: Node) -> int:
    """Rough bytes of a value."""
    d = node.tensor_type.nbytes
    return evaluate(d, dict.fromkeys(names(d), _TYPICAL))


def inlinable(clusters: Clusters) -> set[Node]:
    """The nodes that their readers should compute."""
    return _Inline(clusters).run()


class _Inline:
    def __init__(self, clusters: Clusters) -> None:
        self.clusters, self.graph = clusters, clusters.graph
        self.chosen: set[Node] = set()
        self.costs: dict[Node, int] = {}

    def run(self) -> set[Node]:
        for group in self.clusters.groups():
            total = self._cost(group)
            if self._worth(group, total):
                (result,) = group.outputs
                self.costs[result] = total
                self.chosen.update(group.members)
        return self.chosen

    def _cost(self, group: Group) -> int:
        """Operations of one element, with those of inlined values it reads."""
        own = sum(cost(n) for n in group.members)
        return own + sum(self.costs.get(n, 0) for n in self.clusters.leaves(group))

    def _worth(self, group: Group, total: int) -> bool:
        clusters = self.clusters
        if len(group.outputs) != 1 or total > REPEATABLE or any(
                clusters.roles[n] is not Role.LOOP or checks(n) or n.op.name == "random_bits" for n in group.members):
            return False
        (result,) = group.outputs
        groups, operand, wall = clusters.readers(result)
        if operand or wall or len(groups) < 2:
            return False
        if total > CHEAP and any(repeated_in(clusters, result, g) for g in groups):
            return False
        leaves = [n for n in clusters.leaves(group) if n not in self.costs]
        if sum(size(n) == size(result) for n in leaves) > 2:
            return False
        end = max(clusters.last(g) for g in groups)
        longer = [n for n in leaves if not self._alive(n, end, group)]
        return sum(map(nbytes, longer)) <= nbytes(result)

    def _alive(self, node: Node, end: int, group: Group) -> bool:
        """Whether a value is in memory until `end` whatever happens to the group."""
        if self.clusters.roles[node] is Role.LEAF and node.op.name != "result":
            return True
        if node in self.clusters.required:
            return True
        return any(self.clusters.position[u] >= end for u in self.graph.users[node] if u not in group.members)


