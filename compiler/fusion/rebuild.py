"""From groups to a graph: every group of more than one node becomes a `fused` node."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.graph import Graph
from ...ir.node import Node
from ..lower import CannotLower, lower
from ..lower.group import UPDATE
from ..passes.rewriting import has_bodies, map_bodies
from .clusters import Clusters, Group


def rebuild(clusters: Clusters, inside: Callable[[Graph], Graph]) -> tuple[Graph, dict[Node, Group]]:
    """The graph of a clustering, and the group that each of its launches is.

    Args:
        inside: fuses the body graphs of control flow.
    """
    _split_uncovered(clusters)
    made = _Rebuild(clusters, inside)
    graph = clusters.graph.with_outputs(made.run())
    return graph, made.launches


def _has_loops(node: Node) -> bool:
    """Whether a node has bodies that are not kernels already."""
    return has_bodies(node) and node.op.name != "fused"


def _split_uncovered(clusters: Clusters) -> None:
    """Take apart the groups that cannot be lowered; the cheap checks of fusion let few of them through."""
    for group in clusters.groups():
        if len(group.members) == 1 and group.core is None:
            continue
        body, leaves = clusters.body(group)
        try:
            lower(_fused(group, clusters, body, leaves))
        except CannotLower:
            for n in group.members:
                alone = Group()
                clusters.own(n, alone)
                alone.outputs[n] = None


def _fused(group: Group, clusters: Clusters, body: Graph, leaves: list[Node]) -> Node:
    root = max(group.members, key=clusters.position.__getitem__)
    if group.core is not None:
        kind = "dot" if group.core.op.name == "dot" else "conv"
        root = group.core
    elif group.segments:
        kind = f"{UPDATE}{len(group.segments)}"
    elif group.reductions:
        kind = "reduce"
    else:
        kind = "map"
    return Node.make("fused", leaves, {"body": body, "kind": kind}, root.place)


class _Rebuild:
    def __init__(self, clusters: Clusters, inside: Callable[[Graph], Graph]) -> None:
        self.clusters, self._inside = clusters, inside
        self.mapped: dict[Node, Node] = {}
        self.launches: dict[Node, Group] = {}
        self._bodies: dict[Group, tuple[Graph, list[Node]]] = {}

    def run(self) -> list[Node]:
        """The new outputs."""
        outputs = self.clusters.graph.outputs
        stack = list(reversed(outputs))
        while stack:
            node = stack[-1]
            missing = [] if node in self.mapped else [n for n in self._needs(node) if n not in self.mapped]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            if node not in self.mapped:
                self._make(node)
        return [self.mapped[o] for o in outputs]

    def _group(self, node: Node) -> Group | None:
        return self.clusters.owner.get(node)

    def _body(self, group: Group) -> tuple[Graph, list[Node]]:
        if group not in self._bodies:
            self._bodies[group] = self.clusters.body(group)
        return self._bodies[group]

    def _needs(self, node: Node) -> list[Node]:
        group = self._group(node)
        return list(node.inputs) if group is None else self._body(group)[1]

    def _make(self, node: Node) -> None:
        group = self._group(node)
        if group is None:
            given = tuple(self.mapped[i] for i in node.inputs)
            self.mapped[node] = map_bodies(node, given, self._inside) if _has_loops(node) else node.with_inputs(given)
            return
        body, leaves = self._body(group)
        outputs = self.clusters.results(group)
        operands = [self.mapped[n] for n in leaves]
        if len(body.nodes) == 1 + sum(n.op.name in ("input", "constant") for n in body.nodes):
            self.mapped[node] = node.with_inputs(self._direct(i) for i in node.inputs)
            return
        fused = _fused(group, self.clusters, body, operands)
        self.launches[fused] = group
        if len(outputs) == 1:
            self.mapped[node] = fused
        else:
            for k, o in enumerate(outputs):
                self.mapped[o] = Node.make("result", (fused,), {"index": k}, o.place)

    def _direct(self, node: Node) -> Node:
        return node if node.op.name == "constant" else self.mapped[node]


