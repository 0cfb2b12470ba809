"""Reverse-mode differentiation of nodes.

The rule of an ordinary operator is its record's `vjp`; operators with body graphs have theirs in
`control_vjp`. Everything here is symbolic: cotangents are nodes at the place of the forward node they belong
to.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.build import Builder
from ...ir.dtypes import DType
from ...ir.errors import AutogradError, InternalError
from ...ir.node import Node, postorder
from ...ir.opdef import Kind
from .activity import active_nodes, is_differentiable
from .control_vjp import CONTROL_RULES, Cotangent


def backward(outputs: Sequence[Node], cotangents: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """The gradients of `sum(output · cotangent)` with respect to `wrt`.

    Contributions to a node are added in reverse graph order. A node of `wrt` that does not reach any output
    gets zeros. Nodes of `wrt` may depend on each other; each gets its total derivative.

    Args:
        cotangents: one per output, of its type.

    Raises:
        AutogradError: for an operator without derivative on the way, or an integer `wrt`.
    """
    for x in wrt:
        if not x.dtype.is_float:
            raise AutogradError(f"only floating-point tensors have gradients, got {x.type}",
                                location=x.place.location)
    active = active_nodes(outputs, wrt)
    wanted = set(wrt)
    received: dict[tuple[Node, int], list[Node]] = {}
    for out, seed in zip(outputs, cotangents, strict=True):
        if out in active:
            received.setdefault((out, 0), []).append(seed)

    gradients: dict[Node, Node] = {}
    for node in reversed(postorder(outputs)):
        if node not in active:
            continue
        b = Builder(node.place)
        ct = _collect(b, node, received)
        if ct is None:
            continue
        if node in wanted and isinstance(ct, Node):
            gradients[node] = ct
        if not is_differentiable(node) or not any(i in active for i in node.inputs):
            continue
        if node.op.name == "result" and isinstance(ct, Node):
            received.setdefault((node.inputs[0], node.attrs.index), []).append(ct)
            continue
        needed = tuple(i in active for i in node.inputs)
        for x, contribution, wants in zip(node.inputs, _contributions(b, node, ct, needed), needed,
                                          strict=True):
            if wants and contribution is not None:
                received.setdefault((x, 0), []).append(_fitted(b, node, x, contribution))
    return [gradients.get(x) or _zeros(x) for x in wrt]


def _collect(b: Builder, node: Node, received: dict[tuple[Node, int], list[Node]]) -> Cotangent | None:
    """The node's whole cotangent: one sum, or one per result; None where nothing arrived."""
    types = node.result_types
    sums = tuple(_total(b, received.pop((node, i), ())) for i in range(len(types)))
    if all(s is None for s in sums):
        return None
    return sums if node.type is not types[0] else sums[0]


def _total(b: Builder, parts: Sequence[Node]) -> Node | None:
    """The sum in the order of arrival; sixteen-bit floats round once, at the end."""
    if not parts:
        return None
    dtype: DType = parts[0].dtype
    wide = dtype.compute
    if wide is not dtype and len(parts) > 2:
        parts = [b.cast(p, dtype=wide) for p in parts]
    total = parts[0]
    for part in parts[1:]:
        total = b.add(total, part)
    return total if total.dtype is dtype else b.cast(total, dtype=dtype)


def _contributions(b: Builder, node: Node, ct: Cotangent, needed: tuple[bool, ...]) -> Sequence[Node | None]:
    rule = CONTROL_RULES.get(node.op.name)
    if rule is not None:
        return rule(backward, b, node, ct, needed)
    if node.op.vjp is None:
        raise AutogradError(f"{node.op.name} is not differentiable", location=node.place.location,
                            hint="detach its operands if no gradient is wanted through it")
    found = node.op.vjp(b, node, ct, *node.inputs)
    if len(found) != len(node.inputs):
        raise InternalError(f"the vjp of {node.op.name} gave {len(found)} cotangents for {len(node.inputs)} "
                            "inputs",
                            location=node.place.location)
    return found


def _fitted(b: Builder, node: Node, x: Node, ct: Node) -> Node:
    """A contribution in x's type: those of repeated rank-0 operands are summed."""
    if x.type == ct.type:
        return ct
    if node.op.kind is Kind.ELEMENTWISE and not x.shape and ct.dtype is x.dtype:
        return b.sum(ct, axes=tuple(range(len(ct.shape))))
    raise InternalError(f"the vjp of {node.op.name} gave {ct.type} for an operand of type {x.type}",
                        location=node.place.location)


def _zeros(x: Node) -> Node:
    return Builder(x.place).full(0, x.dtype, x.shape)

