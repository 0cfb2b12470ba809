"""Third step: groups that read what another group computes, or the same tensors, become one.

What others need as well is written as an additional result; nothing is computed twice. A merge needs a common iteration
space that a kernel template covers, and no way from one group to the other through a third.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ...ir.node import Node
from ...ir.opdef import Kind
from ..lower.contraction import has_epilogue
from ..lower.errors import CannotLower
from ..lower.group import build, has_plain_strides
from ..lower.structure import Structure, structure
from .clusters import Clusters, Group, current
from .roles import CHEAP, Role, checks, cost
from .shapes import common_space, extents, fits, grid_space, size

if TYPE_CHECKING:
    import networkx as nx

    from ...ir.graph import Graph


class Merger:
    """Merges groups of a clustering, in graph order, until nothing fits any more.

    Args:
        covered: which bodies a template covers, by structure: layers that repeat are asked for once.
    """

    def __init__(self, clusters: Clusters, max_nodes: int, covered: dict[Structure, bool]) -> None:
        self.clusters, self.max_nodes, self.covered = clusters, max_nodes, covered
        self.flow = self._flow()
        self._refused: set[tuple[Group, Group]] = set()

    def run(self) -> None:
        """Merge producers into consumers, then reductions that read the same tensors."""
        changed = True
        while changed:
            changed = False
            for group in self.clusters.groups():
                if group in self.flow:
                    changed |= self._with_producers(group)
            changed |= self._siblings()

    # -- the graph of groups --------------------------------------------------------------------------------------

    def _flow(self) -> nx.DiGraph:
        """Groups and the other nodes that run, with an edge from whatever is computed to whatever reads it."""
        import networkx as nx

        clusters = self.clusters
        flow: nx.DiGraph = nx.DiGraph()
        for group in clusters.groups():
            flow.add_node(group, leaves=clusters.leaves(group))
        for node in clusters.graph.nodes:
            if clusters.roles[node] is Role.WALL:
                flow.add_node(node, leaves=list(node.inputs))
        for unit, data in list(flow.nodes(data=True)):
            for leaf in data["leaves"]:
                source = self._unit(leaf)
                if source is not None and source is not unit:
                    flow.add_edge(source, unit)
        return flow

    def _unit(self, node: Node) -> Group | Node | None:
        """The group or wall that a value in memory comes from."""
        while True:
            if node in self.clusters.owner:
                return self.clusters.owner[node]
            if self.clusters.roles[node] is Role.WALL:
                return node
            if not node.inputs:
                return None
            node = node.inputs[0]  # a result of a wall, or an alias

    def _end(self, unit: Group | Node) -> int:
        return self.clusters.last(unit) if isinstance(unit, Group) else self.clusters.position[unit]

    def _start(self, unit: Group | Node) -> int:
        position = self.clusters.position
        return min(position[n] for n in unit.members) if isinstance(unit, Group) else position[unit]

    def _around(self, a: Group, b: Group) -> bool:
        """Whether a path leads from a to b through something else."""
        end = self._end(b)
        stack = [s for s in self.flow.successors(a) if s is not b]
        seen = set(stack)
        while stack:
            unit = stack.pop()
            for s in self.flow.successors(unit):
                if s is b:
                    return True
                if s not in seen and self._start(s) <= end:
                    seen.add(s)
                    stack.append(s)
        return False

    # -- merging --------------------------------------------------------------------------------------------------

    def _with_producers(self, group: Group) -> bool:
        changed = False
        while True:
            producers = [p for p in self.flow.predecessors(group) if isinstance(p, Group)]
            producers.sort(key=self._end, reverse=True)
            if not any(self._merge(p, group) for p in producers):
                return changed
            group, changed = current(group), True

    def _siblings(self) -> bool:
        """Reductions over the same space that read a tensor in common."""
        readers: dict[Node, list[Group]] = {}
        for group in self.clusters.groups():
            for leaf in self.flow.nodes[group]["leaves"]:
                readers.setdefault(leaf, []).append(group)
        for groups in readers.values():
            with_reductions = [g for g in groups if g.reductions and g in self.flow]
            for a, b in itertools.pairwise(with_reductions):
                if a in self.flow and b in self.flow and not self._around(b, a) and self._merge(a, b):
                    return True
        return False

    def merge_unrelated(self, a: Group, b: Group) -> Group | None:
        """The union of two groups that need not read each other, or None if there is none."""
        first, second = (a, b) if not self.flow.has_edge(b, a) else (b, a)
        if self._around(second, first) or not self._merge(first, second):
            return None
        return current(first)

    def _merge(self, first: Group, second: Group) -> bool:
        """Merge two groups, `first` before `second`, if that is legal. The result replaces `second`."""
        if (first, second) in self._refused:
            return False
        merged = self._joined(first, second)
        if merged is None or self._around(first, second) or not self._lowers(merged):
            self._refused.add((first, second))
            return False
        self._replace(first, second, merged)
        return True

    def _joined(self, first: Group, second: Group) -> Group | None:
        """The union of two groups, or None if no template can cover it."""
        if len(first.members) + len(second.members) > self.max_nodes:
            return None
        if first.core is not None and second.core is not None:
            return None
        if not (self.clusters.is_open(first) and self.clusters.is_open(second)):
            return None
        if is_scalar(first) and not is_scalar(second):
            return None
        merged = Group(first.members | second.members, {}, first.repeated | second.repeated,
                       first.core or second.core, [*first.reductions, *second.reductions])
        if merged.core is not None and (merged.reductions or any(checks(m) for m in merged.members)
                                        or second.core is not None or not has_epilogue(merged.core)):
            return None
        merged.outputs = {o: None for o in (first.outputs | second.outputs) if self._needed(o, merged, (first, second))}
        outputs = list(merged.outputs)
        if merged.core is not None:
            return merged if all(size(o) == size(merged.core) for o in outputs) else None
        if merged.reductions:
            spaces = (common_space(merged.reductions), grid_space(merged.reductions))
            return merged if any(s is not None and all(fits(o, s) for o in outputs) for s in spaces) else None
        return merged if len({extents(o.shape) for o in outputs}) == 1 else None

    def _needed(self, output: Node, merged: Group, parts: tuple[Group, Group]) -> bool:
        """Whether something outside the merged group reads a result."""
        groups, operand, wall = self.clusters.readers(output)
        return operand or wall or any(g not in parts for g in groups)

    def _lowers(self, group: Group) -> bool:
        """Whether a template covers the group, with plain strides and hardly any value computed twice."""
        if group.core is not None:
            return True  # checked when all is done
        body, leaves = self.clusters.body(group)
        key = structure(body)
        if key not in self.covered:
            self.covered[key] = _is_covered(body, len(leaves))
        return self.covered[key]

    def _replace(self, first: Group, second: Group, merged: Group) -> None:
        clusters, flow = self.clusters, self.flow
        for n in merged.members:
            clusters.owner[n] = merged
        first.replaced = second.replaced = merged
        parts = (first, second)
        sources = dict.fromkeys(s for part in parts for s in flow.predecessors(part) if s not in parts)
        targets = dict.fromkeys(t for part in parts for t in flow.successors(part) if t not in parts)
        flow.remove_nodes_from(parts)
        flow.add_node(merged, leaves=clusters.leaves(merged))
        flow.add_edges_from((s, merged) for s in sources)
        flow.add_edges_from((merged, t) for t in targets)


def _is_covered(body: Graph, leaves: int) -> bool:
    try:
        kernel = build(body, range(leaves)).kernel
    except CannotLower:
        return False
    # Views and inlined values count for what they cost; more than that is the same value at several places.
    once = sum(cost(n) for n in body.nodes if n.op.kind is not Kind.INPUT)
    return has_plain_strides(kernel) and kernel.cost <= 2 * once + CHEAP


def is_scalar(group: Group) -> bool:
    """Whether a group computes single values from single values."""
    return not group.reductions and group.core is None and not any(n.tensor_type.rank for n in group.members)
