"""Local rewriting: rules that look at a node and a few of its operands, applied until none fits.

A rule sees a node whose operands are in normal form and returns its replacement, or None. Whether it fits
depends on nothing else (not on users, not on the graph), so a normal form once found holds for good, in every
graph: each node is looked at once, and the cost is linear in the number of nodes ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ....ir.build import Builder
from ....ir.errors import InternalError
from ....ir.graph import Graph
from ....ir.node import Node
from ....ir.opdef import Kind
from ..rewriting import has_bodies, map_bodies

Rule = Callable[[Builder, Node], "Node | None"]
Rules = Mapping[str, tuple[Rule, ...]]

ELEMENTWISE = "elementwise"  # key of the rules for every elementwise operator with operands

# A node that still changes after so many steps is in a cycle of rules.
_STEP_LIMIT = 100


def joined(*tables: Rules) -> Rules:
    """One table; the rules of earlier tables come first."""
    out: dict[str, tuple[Rule, ...]] = {}
    for table in tables:
        for name, rules in table.items():
            out[name] = out.get(name, ()) + rules
    return out


class Local:
    """Normal forms under a table of rules, remembered for all graphs it is given."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._general = rules.get(ELEMENTWISE, ())
        self._forms: dict[Node, Node] = {}

    def run(self, graph: Graph) -> Graph:
        """The graph with every node (of bodies too) in normal form."""
        for node in graph.nodes:
            self.form(node)
        outputs = tuple(self._forms[o] for o in graph.outputs)
        return graph if outputs == graph.outputs else graph.with_outputs(outputs)

    def form(self, root: Node) -> Node:
        """The normal form of a node."""
        found = self._forms.get(root)
        if found is not None:
            return found
        steps = [root]
        for _ in range(_STEP_LIMIT):
            node = steps[-1]
            inputs = tuple(self.form(i) for i in node.inputs)
            new = map_bodies(node, inputs, self.run) if has_bodies(node) else node.with_inputs(inputs)
            found = self._forms.get(new)
            if found is None:
                changed = self._step(new)
                found = new if changed is None else self._forms.get(changed)
                steps.append(new)
                if changed is not None:
                    steps.append(changed)
            if found is not None:
                for step in steps:
                    self._forms[step] = found
                self._forms[found] = found
                return found
        raise InternalError(f"rewrite rules of {root.op.name} do not come to an end",
                            location=root.place.location)

    def _step(self, node: Node) -> Node | None:
        rules = self._rules.get(node.op.name, ())
        if node.op.kind is Kind.ELEMENTWISE and node.inputs:
            rules = rules + self._general
        b = Builder(node.place)
        for rule in rules:
            new = rule(b, node)
            if new is not None and new is not node:
                if new.type != node.type:
                    raise InternalError(f"a rewrite of {node.op.name} gave {new.type} for {node.type}",
                                        location=node.place.location)
                return new
        return None
