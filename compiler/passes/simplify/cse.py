"""Common subexpressions: nodes that differ only in their place become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ....ir.graph import Graph
from ....ir.node import Node
from ..rewriting import has_bodies, map_bodies, rewrite
from .canonical import COMMUTATIVE


@dataclass(frozen=True)
class Cse:
    """Compute equal things once. The first in graph order stays, with its place."""

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph) -> Graph:
        first: dict[Any, Node] = {}
        number: dict[Node, int] = {}

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            new = map_bodies(node, inputs, self.run) if has_bodies(node) else node.with_inputs(inputs)
            operands = new.inputs
            if node.op.name in COMMUTATIVE:  # a + b is b + a: the key has the operands in graph order
                operands = tuple(sorted(operands, key=number.__getitem__))
            kept = first.setdefault((new.op, operands, new.attrs), new)
            number.setdefault(kept, len(number))
            return kept

        return rewrite(graph, visit, inside=False)
