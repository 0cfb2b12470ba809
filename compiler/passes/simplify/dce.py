"""Dead code in control flow.

Nodes that no output reads are gone by construction. What is left to prune: results of loops and branches that
nobody reads, carries that only feed themselves, operands that no body reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ....ir.build import Builder
from ....ir.graph import Graph, input_node
from ....ir.node import Node, postorder
from ..rewriting import Replacement, has_bodies, map_bodies, rewrite, substitute


@dataclass(frozen=True)
class Dce:
    """Drop unused results, carries and operands of scan, while and cond."""

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> Graph:
        if not any(has_bodies(n) for n in graph.nodes):
            return graph
        read = _read_results(graph)

        def visit(node: Node, inputs: tuple[Node, ...]) -> Replacement:
            if not has_bodies(node):
                return None
            prune = _PRUNERS.get(node.op.name)
            if prune is not None:
                pruned = prune(node, inputs, read.get(node, frozenset()))
                if pruned is not None:
                    return pruned
            return map_bodies(node, inputs, self.run)

        # Pruning a body can leave results of loops inside it unread: look once more, from the outside in.
        pruned = rewrite(graph, visit, inside=False)
        return pruned if pruned.outputs == graph.outputs else self.run(pruned)


def _read_results(graph: Graph) -> dict[Node, frozenset[int]]:
    found: dict[Node, set[int]] = {}
    for node in graph.nodes:
        if node.op.name == "result":
            found.setdefault(node.inputs[0], set()).add(node.attrs.index)
    return {n: frozenset(s) for n, s in found.items()}


def _inputs_below(outputs: Sequence[Node]) -> set[int]:
    return {n.attrs.index for n in postorder(outputs) if n.op.name == "input"}


def _narrowed(body: Graph, outputs: Sequence[int], inputs: Sequence[int]) -> Graph:
    """The body with only some outputs and some inputs, renumbered."""
    replace = {body.input_node(old): input_node(new, body.inputs[old].type) for new, old in enumerate(inputs)}
    return Graph(body.name, tuple(body.inputs[i] for i in inputs),
                 substitute([body.outputs[i] for i in outputs], replace))


def _spread(b: Builder, node: Node, kept: Sequence[int], total: int) -> tuple[Node, ...]:
    """One node per old result. Results that were dropped are read by nobody; any node can stand for them."""
    where = {old: new for new, old in enumerate(kept)}
    return tuple(b.result(node, index=where[i]) if i in where else node for i in range(total))


def _scan(node: Node, inputs: tuple[Node, ...], read: frozenset[int]) -> Replacement:
    a = node.attrs
    body, n = a.body, a.n_carry
    carries = _live_carries(body.outputs, n, read)
    stacks = [i for i in range(n, len(body.outputs)) if i in read]
    outputs = [*carries, *stacks]
    if not outputs:
        return None
    used = _inputs_below([body.outputs[i] for i in outputs])
    xs = [i for i in range(n, n + a.n_xs) if i in used]
    consts = [i for i in range(n + a.n_xs, len(inputs)) if i in used]
    keep = [*carries, *xs, *consts]
    if len(keep) == len(inputs) and len(outputs) == len(body.outputs):
        return None
    b = Builder(node.place)
    scan = b.scan(*(inputs[i] for i in keep), body=_narrowed(body, outputs, keep), n_carry=len(carries),
                  n_xs=len(xs), length=a.length, reverse=a.reverse)
    return _spread(b, scan, outputs, len(body.outputs))


def _live_carries(outputs: Sequence[Node], n_carry: int, read: frozenset[int]) -> list[int]:
    """Carries whose last value is read, or that something read depends on."""
    live = [i for i in range(len(outputs)) if i in read]
    while True:
        below = _inputs_below([outputs[i] for i in live])
        more = [i for i in range(n_carry) if i in below and i not in live]
        if not more:
            return sorted(i for i in live if i < n_carry)
        live += more


def _while(node: Node, inputs: tuple[Node, ...], read: frozenset[int]) -> Replacement:
    a = node.attrs
    n = a.n_carry
    test = _inputs_below(a.cond.outputs)
    carries = _live_carries(a.body.outputs, n, read | {i for i in test if i < n})
    used = _inputs_below([a.body.outputs[i] for i in carries]) | test
    consts = [i for i in range(n, len(inputs)) if i in used]
    keep = [*carries, *consts]
    if len(keep) == len(inputs) or not carries:
        return None
    b = Builder(node.place)
    loop = b.while_(*(inputs[i] for i in keep), cond=_narrowed(a.cond, [0], keep),
                    body=_narrowed(a.body, carries, keep), n_carry=len(carries))
    return _spread(b, loop, carries, n)


def _cond(node: Node, inputs: tuple[Node, ...], read: frozenset[int]) -> Replacement:
    then, other = node.attrs.then, node.attrs.other
    outputs = [i for i in range(len(then.outputs)) if i in read]
    if not outputs:
        return None
    used = _inputs_below([body.outputs[i] for body in (then, other) for i in outputs])
    keep = [i for i in range(len(inputs) - 1) if i in used]
    if len(keep) == len(inputs) - 1 and len(outputs) == len(then.outputs):
        return None
    b = Builder(node.place)
    branch = b.cond(inputs[0], *(inputs[1 + i] for i in keep), then=_narrowed(then, outputs, keep),
                    other=_narrowed(other, outputs, keep))
    return _spread(b, branch, outputs, len(then.outputs))


_PRUNERS: dict[str, Callable[[Node, tuple[Node, ...], frozenset[int]], Replacement]] = {
    "scan": _scan, "while": _while, "cond": _cond,
}
