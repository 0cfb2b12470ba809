"""Derivatives of the operators with body graphs, and of the symbolic ones.

A scan's derivative is the scan in the other direction over what the forward loop kept (Griewank and Walther,
"Evaluating Derivatives", ch. 12): the forward loop gets extra stacked results for exactly the values that the
backward body reads. The cotangents of the carries are carried; those of loop-invariant operands are carried
sums; those of the scanned operands are stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...ir.build import Builder
from ...ir.errors import AutogradError
from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node
from ...ir.types import TensorType, TupleType
from .activity import active_nodes, forward_reads
from .loops import merge_loops
from .rewriting import depends_on, inline, substitute

# A node's cotangent: one node, or for several results one each (None where none arrived).
Cotangent = Node | tuple[Node | None, ...]
Backward = Callable[[Sequence[Node], Sequence[Node], Sequence[Node]], list[Node]]
# rule(backward, builder, node, cotangent, which inputs need one) -> one per input
Rule = Callable[[Backward, Builder, Node, Cotangent, tuple[bool, ...]], Sequence["Node | None"]]


def _zeros(b: Builder, t: TensorType) -> Node:
    return b.full(0, t.dtype, t.shape)


def _arguments(first: int, types: Sequence[TensorType]) -> list[Node]:
    """Input nodes number `first`, `first + 1`, …"""
    return [input_node(first + i, t) for i, t in enumerate(types)]


def _while(backward: Backward, b: Builder, node: Node, ct: Cotangent,
           needed: tuple[bool, ...]) -> Sequence[Node | None]:
    raise AutogradError("a while loop is not differentiable: how often it runs is known only while it runs",
                        location=node.place.location,
                        hint="use scan with a fixed length, masking the steps that come after the end")


def _with_value(backward: Backward, b: Builder, node: Node, ct: Cotangent,
                needed: tuple[bool, ...]) -> Sequence[Node | None]:
    assert isinstance(ct, Node)
    return [ct, None]


def _custom(backward: Backward, b: Builder, node: Node, ct: Cotangent,
            needed: tuple[bool, ...]) -> Sequence[Node | None]:
    results = results_of(b, node)
    given = (ct,) if isinstance(ct, Node) else ct
    cts = [_zeros(b, r.tensor_type) if c is None else c for r, c in zip(results, given, strict=True)]
    found = inline(node.attrs.backward, [*node.inputs, *results, *cts])
    return [g if x.dtype.is_float else None for g, x in zip(found, node.inputs, strict=True)]


def _cond(backward: Backward, b: Builder, node: Node, ct: Cotangent,
          needed: tuple[bool, ...]) -> Sequence[Node | None]:
    """A branch on the same predicate; each side computes its forward values again and differentiates them."""
    given = (ct,) if isinstance(ct, Node) else ct
    operands = node.inputs[1:]
    targets = [i for i, wanted in enumerate(needed[1:]) if wanted]
    arrived = [i for i, c in enumerate(given) if c is not None]
    cts = [c for c in given if c is not None]

    def side(body: Graph) -> Graph:
        places = _arguments(len(operands), [c.tensor_type for c in cts])
        found = backward([body.outputs[i] for i in arrived], places, [body.input_node(i) for i in targets])
        specs = [InputSpec(f"d{i}", c.tensor_type) for i, c in zip(arrived, cts, strict=True)]
        return Graph(f"{body.name}_vjp", (*body.inputs, *_fresh(specs, body.inputs)), tuple(found))

    vjp = b.cond(node.inputs[0], *operands, *cts, then=side(node.attrs.then), other=side(node.attrs.other))
    spread = dict(zip(targets, results_of(b, vjp), strict=True))
    return [None, *(spread.get(i) for i in range(len(operands)))]


def _fresh(specs: Sequence[InputSpec], taken: Sequence[InputSpec]) -> list[InputSpec]:
    """`specs` with names that are not among `taken`."""
    names = {s.name for s in taken}
    out = []
    for s in specs:
        name = s.name
        while name in names:
            name += "_"
        names.add(name)
        out.append(InputSpec(name, s.type))
    return out


def _scan(backward: Backward, b: Builder, node: Node, ct: Cotangent,
          needed: tuple[bool, ...]) -> Sequence[Node | None]:
    given = (ct,) if isinstance(ct, Node) else ct
    body, n_carry, n_xs = node.attrs.body, node.attrs.n_carry, node.attrs.n_xs
    inputs = [body.input_node(i) for i in range(len(body.inputs))]
    active = _active_operands(body, inputs, n_carry, needed)
    carries = [i for i in active if i < n_carry]
    scanned = [i for i in active if n_carry <= i < n_carry + n_xs]
    consts = [i for i in active if i >= n_carry + n_xs]

    # One step backwards, from the cotangents of active carries and of stacked results that received one.
    moved = active_nodes(body.outputs, [inputs[i] for i in active])
    entering = [i for i, out in enumerate(body.outputs)
                if (i in carries if i < n_carry else given[i] is not None and out in moved)]
    places = _arguments(len(inputs), [body.outputs[i].tensor_type for i in entering])
    step = backward([body.outputs[i] for i in entering], places, [inputs[i] for i in active])
    gradient = dict(zip(active, step, strict=True))
    sums = _arguments(len(inputs) + len(places), [inputs[i].tensor_type for i in consts])

    operands = _Operands()
    for i, place in zip(entering, places, strict=True):
        if i < n_carry:
            operands.carries.append((place, given[i] or _zeros(b, place.tensor_type)))
        else:
            operands.xs.append((place, given[i] or _zeros(b, node.result_types[i])))
    operands.carries += [(s, _zeros(b, s.tensor_type)) for s in sums]
    _add_reads(b, operands, node, inputs, step, places)

    outputs = [gradient[i] for i in carries]
    outputs += [b.add(s, gradient[i]) for s, i in zip(sums, consts, strict=True)]
    outputs += [gradient[i] for i in scanned]
    reverse = b.scan(*operands.nodes, body=operands.body(f"{body.name}_vjp", outputs),
                     n_carry=len(operands.carries),
                     n_xs=len(operands.xs), length=node.attrs.length, reverse=not node.attrs.reverse)
    spread = dict(zip([*carries, *consts, *scanned], results_of(b, reverse), strict=True))
    return [spread[i] if wanted else None for i, wanted in enumerate(needed)]


def _active_operands(body: Graph, inputs: Sequence[Node], n_carry: int, needed: Sequence[bool]) -> list[int]:
    """Operands with a cotangent: those that need one, and carries that depend on them in the loop."""
    active = {i for i, wanted in enumerate(needed) if wanted}
    while True:
        moved = active_nodes(body.outputs, [inputs[i] for i in sorted(active)])
        grown = {i for i in range(n_carry) if body.outputs[i] in moved} - active
        if not grown:
            return sorted(active)
        active |= grown


class _Operands:
    """The operands of the backward scan, each with the node that stands for its slice in the step."""

    def __init__(self) -> None:
        self.carries: list[tuple[Node, Node]] = []
        self.xs: list[tuple[Node, Node]] = []
        self.consts: list[tuple[Node, Node]] = []

    @property
    def nodes(self) -> list[Node]:
        return [operand for _, operand in (*self.carries, *self.xs, *self.consts)]

    def body(self, name: str, outputs: Sequence[Node]) -> Graph:
        """The graph of a step with its inputs numbered in operand order."""
        slices = [inner for inner, _ in (*self.carries, *self.xs, *self.consts)]
        numbered = _arguments(0, [s.tensor_type for s in slices])
        specs = tuple(InputSpec(f"a{i}", s.tensor_type) for i, s in enumerate(slices))
        return Graph(name, specs, substitute(outputs, dict(zip(slices, numbered, strict=True))))


def _add_reads(b: Builder, operands: _Operands, node: Node, inputs: Sequence[Node], step: Sequence[Node],
               places: Sequence[Node]) -> None:
    """Add what the step reads of the forward loop: operands as they are, the rest as more stacked results."""
    body, n_carry, n_xs = node.attrs.body, node.attrs.n_carry, node.attrs.n_xs
    # What depends on invariants alone is not stacked: the step computes it again.
    changing = depends_on(body.outputs, inputs[:n_carry + n_xs], lambda _: True)
    stacked = []
    for read in forward_reads(step, changing, places):
        i = read.attrs.index if read.op.name == "input" else -1
        if i < n_carry:
            stacked.append(read)
        elif i < len(inputs):  # the rest are cotangents that pass through as they are
            (operands.xs if i < n_carry + n_xs else operands.consts).append((read, node.inputs[i]))
    if stacked:
        kept = b.results(with_stacks(node, stacked))
        operands.xs += zip(stacked, kept[len(body.outputs):], strict=True)


def with_stacks(scan: Node, values: Sequence[Node]) -> Node:
    """The scan with more stacked results: `values` are nodes of its body (its inputs included)."""
    body = scan.attrs.body
    wider = merge_loops(Graph(body.name, body.inputs, (*body.outputs, *values)))
    return Node.make(scan.op, scan.inputs, scan.attrs._replace(body=wider), scan.place)


def results_of(b: Builder, node: Node) -> tuple[Node, ...]:
    """The results of a node, be it one or several."""
    return b.results(node) if isinstance(node.type, TupleType) else (node,)


CONTROL_RULES: Mapping[str, Rule] = {
    "scan": _scan, "cond": _cond, "while": _while, "custom_vjp": _custom, "with_value": _with_value,
}
