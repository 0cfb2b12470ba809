"""Loop-invariant code motion: what every step of a loop would compute alike is computed once, before the loop.

Views and broadcasts stay: they cost nothing where they are read, and memory if they were written down. There is one
exception, the right operand of a product whose contracted axis is the innermost: a matrix kernel would transpose it
again in each step, so it is transposed before the loop. Bits do not change: the order of the contracted elements stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.build import Builder
from ....ir.graph import Graph, InputSpec, bodies, input_node
from ....ir.node import Node
from ....ir.opdef import Kind
from ...schedule import is_fallible
from ..rewriting import has_bodies, map_bodies, rewrite, substitute

_LOOPS = frozenset({"scan", "while"})
_VIEWS = frozenset({Kind.INPUT, Kind.BROADCAST, Kind.MOVEMENT})


@dataclass(frozen=True)
class Hoist:
    """Move computations out of the bodies of scan and while that depend on their constant operands alone."""

    name: ClassVar[str] = "hoist"

    def run(self, graph: Graph) -> Graph:
        if not any(has_bodies(n) for n in graph.nodes):
            return graph

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            if not has_bodies(node):
                return None
            inner = map_bodies(node, inputs, self.run)
            return _hoisted(inner) if node.op.name in _LOOPS else inner

        return rewrite(graph, visit, inside=False)


def _hoisted(loop: Node) -> Node:
    """The loop with further constant operands for what its bodies need not compute."""
    a = loop.attrs
    first = a.n_carry + (a.n_xs if loop.op.name == "scan" else 0)
    names = [s.name for s in loop.op.attrs if s.kind == "graph"]
    found = [_Body(g, first) for g in bodies(loop)]
    inside = list(dict.fromkeys(n for body in found for n in body.worthwhile()))
    if not inside:
        return loop
    outer = {input_node(i, x.tensor_type): x for i, x in enumerate(loop.inputs) if i >= first}
    specs = [InputSpec(f"once{len(loop.inputs) + k}", n.tensor_type) for k, n in enumerate(inside)]
    replace = {n: input_node(len(loop.inputs) + k, n.tensor_type) for k, n in enumerate(inside)}
    changed = {
        name: Graph(body.graph.name, (*body.graph.inputs, *specs), substitute(body.graph.outputs, replace))
        for name, body in zip(names, found, strict=True)
    }
    return Node.make(loop.op, (*loop.inputs, *substitute(inside, outer)), a._replace(**changed), loop.place)


class _Body:
    """A loop's body with its right operands turned.

    Args:
        first: number of the first constant operand.

    Attributes:
        invariant: nodes that no carry and no slice of a sequence enters, and that cannot stop the run.
        turned: the permutes that were put before right operands.
    """

    def __init__(self, graph: Graph, first: int) -> None:
        self._first = first
        self.turned: set[Node] = set()
        self.invariant = self._invariant(graph)
        self.graph = rewrite(graph, self._turn, inside=False)
        self.invariant = self._invariant(self.graph)

    def _invariant(self, graph: Graph) -> set[Node]:
        found: set[Node] = set()
        for n in graph.nodes:
            if n.op.name == "input":
                fixed = n.attrs.index >= self._first
            else:
                fixed = not is_fallible(n) and all(i in found for i in n.inputs)
            if fixed:
                found.add(n)
        return found

    def _turn(self, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        """A product whose right operand has its free axes innermost."""
        a = node.attrs
        if node.op.name != "dot" or node.inputs[1] not in self.invariant:
            return None
        rank, lead = len(inputs[1].shape), len(a.batch_b) + len(a.contract_b)
        if rank == lead or rank - 1 not in a.contract_b:
            return None
        b = Builder(node.place)
        free = [i for i in range(rank) if i not in a.batch_b + a.contract_b]
        turned = b.permute(inputs[1], dims=(*a.batch_b, *a.contract_b, *free))
        self.turned.add(turned)
        return b.dot(inputs[0], turned, contract_a=a.contract_a, contract_b=tuple(range(len(a.batch_b), lead)),
                     batch_a=a.batch_a, batch_b=tuple(range(len(a.batch_b))))

    def worthwhile(self) -> list[Node]:
        """The largest invariant values that are worth their memory."""
        read = dict.fromkeys(self.graph.outputs)
        for n in self.graph.nodes:
            if n not in self.invariant:
                read.update(dict.fromkeys(n.inputs))
        found: set[Node] = set()
        seen: set[Node] = set()
        stack = list(read)
        while stack:
            n = stack.pop()
            if n in seen or n not in self.invariant:
                continue
            seen.add(n)
            if n in self.turned or _saves_work(n):
                found.add(n)
            else:
                stack.extend(n.inputs)
        return [n for n in self.graph.nodes if n in found]


def _saves_work(node: Node) -> bool:
    """Whether computing an invariant value once is worth keeping it."""
    if node.op.name == "result":
        return _saves_work(node.inputs[0])
    if node.op.kind in _VIEWS or not node.inputs:
        return False
    if node.op.kind is not Kind.ELEMENTWISE:
        return True
    # Numbers are computed where they are needed; repeated values take more room than what they repeat.
    return any(i.shape and i.op.kind is not Kind.BROADCAST for i in node.inputs)
