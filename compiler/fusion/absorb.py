"""First step of fusion: every value that only one group reads becomes part of that group.

Nothing extra is written, and no cycle can arise: all paths from an absorbed node lead through its group.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.graph import Graph
from ...ir.node import Node
from ..lower.contraction import has_epilogue
from .clusters import Clusters, Group
from .roles import CHEAP, Role, checks, cost, joins_apart, repeats, turns
from .shapes import common_space, fits, size


def absorb(graph: Graph, inlined: Iterable[Node], alone: Iterable[Node], max_nodes: int) -> Clusters:
    """Groups of a graph, built from the outputs backwards.

    Args:
        inlined: nodes that every reader computes for itself.
        alone: nodes that stay out of larger groups.
    """
    clusters = Clusters(graph, inlined, alone)
    for node in reversed(graph.nodes):
        kind = clusters.roles[node]
        if kind is Role.VIEW and turns(node) and _wants_copy(clusters, node):
            clusters.turn(node)
            _start(clusters, node)
        elif kind is Role.VIEW:
            if clusters.note_view(node):
                _start(clusters, node)
        elif kind in (Role.LOOP, Role.REDUCTION, Role.CORE):
            groups, operand, wall = clusters.readers(node)
            group = next(iter(groups)) if len(groups) == 1 and not operand and not wall else None
            if group is not None and _may_join(clusters, node, group, max_nodes):
                clusters.own(node, group)
            else:
                _start(clusters, node)
    return clusters


def _start(clusters: Clusters, node: Node) -> None:
    group = Group()
    clusters.own(node, group)
    group.outputs[node] = None


def _wants_copy(clusters: Clusters, node: Node) -> bool:
    """Whether a permute that turns the innermost axis is a kernel of its own.

    A loop that reads through it strides through memory. In a plain loop over its elements tiles make up for that; a
    reduction, a contraction's tile or a loop that reads elements again and again has none. For a contraction's operand
    strides do, unless axes that lie apart are joined behind the permute.
    """
    groups, operand, _ = clusters.readers(node)
    if operand and any(joins_apart(node, user) for user in clusters.graph.users[node]):
        return True
    return any(g.reductions or (g.core is not None and not operand) or repeated_in(clusters, node, g) for g in groups)


def _may_join(clusters: Clusters, node: Node, group: Group, max_nodes: int) -> bool:
    """Whether a group may compute a node that only it reads."""
    if len(group.members) >= max_nodes or node in clusters.alone or not clusters.is_open(group):
        return False
    repeated = repeated_in(clusters, node, group)
    match clusters.roles[node]:
        case Role.LOOP:
            if not node.tensor_type.rank and any(o.tensor_type.rank for o in group.outputs):
                return False  # a costly scalar: once for all kernels, not once in each thread and tile
            if (repeated and cost(node) > CHEAP) or (checks(node) and group.core is not None):
                return False
        case Role.REDUCTION:
            if group.core is not None:
                return False
            space = common_space([*group.reductions, node])
            if space is None or not all(fits(o, space) for o in group.outputs):
                return False
            if space.total and any(size(m) != 1 for m in group.members if clusters.roles[m] is not Role.REDUCTION
                                   and _behind(clusters, node, m)):
                return False
            repeated = False  # once a row
        case Role.CORE:
            if (group.core is not None or group.reductions or not has_epilogue(node)
                    or any(checks(m) for m in group.members) or any(size(o) != size(node) for o in group.outputs)
                    or repeated):
                return False
    if repeated:
        group.repeated.add(node)
    return True


def _behind(clusters: Clusters, node: Node, member: Node) -> bool:
    """Whether a member reads a node directly or through views."""
    stack = list(member.inputs)
    while stack:
        n = stack.pop()
        if n is node:
            return True
        if clusters.roles[n] is Role.VIEW:
            stack.extend(n.inputs)
    return False


def repeated_in(clusters: Clusters, node: Node, group: Group) -> bool:
    """Whether a group would evaluate a node more often than it has elements."""
    stack = [(node, user) for user in clusters.graph.users[node]]
    seen: set[Node] = set()
    while stack:
        source, user = stack.pop()
        if repeats(user, source):
            return True
        if user in group.members:
            if user in group.repeated:
                return True
        elif clusters.roles[user] is Role.VIEW and user not in seen:
            seen.add(user)
            stack.extend((user, u) for u in clusters.graph.users[user])
    return False
