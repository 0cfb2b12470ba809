"""Lowering: a node of a fused graph → kernel launches.

`lower(node)` is the whole interface. Groups go through kernel IR (`group`, `kernel_ir`) and the loop templates
(`emit_map`, `emit_rows`, `emit_columns`, `emit_total`); contractions and operators with a kernel of their own go to
their generators.
"""

from __future__ import annotations

from ...ir.node import Node
from ...ir.opdef import Kind, OpDef
from .errors import CannotLower
from .lowered import Launch, Lowered, Slot

_LOOPS = frozenset({Kind.ELEMENTWISE, Kind.BROADCAST, Kind.MOVEMENT, Kind.REDUCTION, Kind.GATHER})
_LOOP_NAMES = frozenset({"random_bits", "random_advance"})


def is_loop(op: OpDef) -> bool:
    """Whether an operator is lowered as (part of) a group of loops."""
    return (op.kind in _LOOPS and op.name != "result") or op.name in _LOOP_NAMES


def lower(node: Node) -> Lowered:
    """The launches of one node that is legal after phase `fused`.

    Raises:
        CannotLower: no kernel covers the node; a bug of the fusion pass.
    """
    from .group import body_of, inputs_of, lower_group
    from .opaque import OPAQUE

    if node.op.name in OPAQUE:
        return OPAQUE[node.op.name](node)
    body = body_of(node)
    cores = [n for n in body.nodes if n.op.kind is Kind.CONTRACTION]
    if len(cores) == 1:
        from .contraction import lower_contraction

        return lower_contraction(body, inputs_of(node), cores[0])
    if node.op.name == "fused" or is_loop(node.op):
        return lower_group(node)
    raise CannotLower(f"{node.op.name} has no kernel")


__all__ = ["CannotLower", "Launch", "Lowered", "Slot", "is_loop", "lower"]
