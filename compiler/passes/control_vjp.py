"""Derivatives of the operators with body graphs, and of the symbolic ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...ir.build import Builder
from ...ir.errors import AutogradError
from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node
from ...ir.types import TensorType, TupleType
from .rewriting import inline
from .scan_vjp import Backward, scan_vjp

# A node's cotangent: one node, or for several results one each (None where none arrived).
Cotangent = Node | tuple[Node | None, ...]
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
    return scan_vjp(backward, b, node, (ct,) if isinstance(ct, Node) else ct, needed)


def results_of(b: Builder, node: Node) -> tuple[Node, ...]:
    """The results of a node, be it one or several."""
    return b.results(node) if isinstance(node.type, TupleType) else (node,)


CONTROL_RULES: Mapping[str, Rule] = {
    "scan": _scan, "cond": _cond, "while": _while, "custom_vjp": _custom, "with_value": _with_value,
}
