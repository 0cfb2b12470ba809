"""Which nodes take part in a differentiation, and what a backward pass reads of the forward pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...ir.node import Node, postorder
from ...ir.opdef import Kind
from .rewriting import depends_on

# Where differentiation ends without an error: what lies before is held constant.
CUTS = frozenset({"stop_gradient", "update"})

# Computing these again from their operand costs nothing, so backward passes keep the operand instead.
_VIEWS = frozenset({"reshape", "permute", "stop_gradient"})


def is_differentiable(node: Node) -> bool:
    """True if a cotangent may pass from the node to its inputs: it has a float result and is no cut."""
    return node.op.name not in CUTS and any(t.dtype.is_float for t in node.result_types)


def active_nodes(outputs: Sequence[Node], wrt: Sequence[Node]) -> set[Node]:
    """The nodes on a differentiable path from `wrt` to `outputs`: those that may get a cotangent."""
    return depends_on(outputs, wrt, is_differentiable)


def reached(outputs: Sequence[Node], wrt: Sequence[Node]) -> tuple[bool, ...]:
    """For every node of `wrt` whether an output depends on it by a differentiable path."""
    active = active_nodes(outputs, wrt)
    below: set[Node] = set()
    for node in reversed(postorder(outputs)):
        if node in active and (node in outputs or node in below):
            below.add(node)
            if is_differentiable(node):
                below.update(node.inputs)
    return tuple(x in below for x in wrt)


def forward_reads(gradients: Sequence[Node], forward: Collection[Node], cotangents: Sequence[Node], *,
                  loops: bool = True) -> list[Node]:
    """The forward values that `gradients` need: what a later backward pass has to find kept.

    Views, repeats and widening casts count as their operand, constants as nothing, and values that only the
    backward pass computes (`1 - n`) as the forward values they are computed from.

    Args:
        gradients: nodes made by `backward`.
        forward: the nodes of the forward pass that may be kept.
        cotangents: the nodes that stand for the incoming cotangents.
        loops: results of loops and branches that differentiation itself made count as forward values.
    """
    late = depends_on(gradients, cotangents, lambda _: True)
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    for reader in postorder(gradients):
        if reader in late:
            _walk([i for i in reversed(reader.inputs) if i not in late], forward, loops, seen, found)
    _walk([g for g in reversed(gradients) if g not in late], forward, loops, seen, found)
    return list(found)


def _walk(pending: list[Node], forward: Collection[Node], loops: bool, seen: set[Node],
          found: dict[Node, None]) -> None:
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op.name == "with_value":
            pending.append(node.inputs[1])
        elif _is_kept(node, forward, loops):
            found[node] = None
        else:
            pending.extend(reversed(node.inputs))


def _is_kept(node: Node, forward: Collection[Node], loops: bool) -> bool:
    if node.op.name == "input":
        return True
    if not node.inputs:
        return False
    if node.op.name == "result":
        return node.inputs[0] in forward or (loops and node.inputs[0].op.kind is Kind.CONTROL)
    return node in forward and not is_view(node)


def is_view(node: Node) -> bool:
    """True if the node costs nothing to compute again from its operand, and the operand is no larger."""
    if node.op.kind is Kind.BROADCAST or node.op.name in _VIEWS:
        return True
    return node.op.name == "cast" and bool(node.inputs[0].dtype.itemsize <= node.dtype.itemsize)
