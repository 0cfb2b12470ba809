"""Merging of scans that run the same loop.

Differentiation leaves them: the forward scan, and versions of it with more stacked results.
"""

from __future__ import annotations

from typing import Any

from ...ir.build import Builder
from ...ir.graph import Graph
from ...ir.node import Node
from .rewriting import has_bodies, map_bodies, rewrite


def merge_loops(graph: Graph) -> Graph:
    """Scans with the same operands and the same carries become one with all their stacked results.

    Works inside bodies too. Linear in the size of the graph.
    """
    if not any(has_bodies(n) for n in graph.nodes):
        return graph
    graph = rewrite(graph, lambda n, i: map_bodies(n, i, merge_loops) if has_bodies(n) else None,
                    inside=False)
    groups: dict[Any, list[Node]] = {}
    for node in graph.nodes:
        if node.op.name == "scan":
            groups.setdefault(_loop_key(node), []).append(node)
    if all(len(members) == 1 for members in groups.values()):
        return graph
    merged = {key: _Merged(members) for key, members in groups.items() if len(members) > 1}

    def visit(node: Node, inputs: tuple[Node, ...]) -> tuple[Node, ...] | None:
        group = merged.get(_loop_key(node)) if node.op.name == "scan" else None
        return None if group is None else group.results(node, inputs)

    return rewrite(graph, visit, inside=False)


def _loop_key(scan: Node) -> Any:
    a = scan.attrs
    carried = tuple(o.digest for o in a.body.outputs[:a.n_carry])
    return (scan.inputs, carried, a.n_carry, a.n_xs, a.length, a.reverse)


class _Merged:
    """One scan in the place of several."""

    def __init__(self, members: list[Node]) -> None:
        first = members[0]
        body, n = first.attrs.body, first.attrs.n_carry
        outputs: list[Node] = list(body.outputs[:n])
        self._where: dict[bytes, int] = {}  # stacked value → result index
        for member in members:
            for out in member.attrs.body.outputs[n:]:
                if out.digest not in self._where:
                    self._where[out.digest] = len(outputs)
                    outputs.append(out)
        self._first = first
        self._attrs = first.attrs._replace(body=Graph(body.name, body.inputs, tuple(outputs)))

    def results(self, member: Node, inputs: tuple[Node, ...]) -> tuple[Node, ...]:
        """The results of a member, projected from the merged scan."""
        n = member.attrs.n_carry
        scan = Node.make(self._first.op, inputs, self._attrs, self._first.place)
        b = Builder(member.place)
        stacked = [self._where[out.digest] for out in member.attrs.body.outputs[n:]]
        return tuple(b.result(scan, index=i) for i in (*range(n), *stacked))
