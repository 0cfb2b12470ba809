"""Lowering: a node of a fused graph → kernel launches.

`lower(node)` is the whole interface. Groups go through kernel IR (`group`, `kernel_ir`) and the loop templates
(`emit_map`, `emit_rows`, `emit_columns`, `emit_fold`); contractions and operators with a kernel of their own go to
their generators.
"""

from __future__ import annotations

from functools import lru_cache

from ...ir.graph import Graph, InputSpec
from ...ir.node import Node
from ...ir.opdef import Kind, OpDef
from .errors import CannotLower
from .lowered import Launch, Lowered, Rows, Slot
from .structure import Structure, structure

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
    from .group import body_of, inputs_of
    from .opaque import OPAQUE

    if node.op.name in OPAQUE:
        return OPAQUE[node.op.name](node)
    if node.op.name == "fused":
        body = node.attrs.body
        return _lower_fused(body.outputs, body.inputs, node.attrs.kind)
    if not is_loop(node.op) and node.op.kind is not Kind.CONTRACTION:
        raise CannotLower(f"{node.op.name} has no kernel")
    return _lower_body(body_of(node), inputs_of(node), "")


# The fusion pass tries a group by lowering it, and the planner lowers it again.
@lru_cache(maxsize=512)
def _lower_fused(outputs: tuple[Node, ...], inputs: tuple[InputSpec, ...], kind: str) -> Lowered:
    body = Graph("body", inputs, outputs)
    key = structure(body), kind
    found = _known.get(key)
    if found is None:
        found = _lower_body(body, tuple(range(len(inputs))), kind)
        if not any(launch.faults for launch in found.launches):  # which name lines of the script
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[key] = found
    return found


# Layers that repeat differ in their places alone: they are lowered once.
_known: dict[tuple[Structure, str], Lowered] = {}
_MOST_KNOWN = 1024


def _lower_body(body: Graph, inputs: tuple[int, ...], kind: str) -> Lowered:
    from .attention import ATTENTION, lower_attention
    from .group import lower_group

    if kind == ATTENTION:
        return lower_attention(body, inputs)

    cores = [n for n in body.nodes if n.op.kind is Kind.CONTRACTION]
    if len(cores) == 1:
        from .contraction import lower_contraction

        return lower_contraction(body, inputs, cores[0])
    return lower_group(body, inputs, kind)


__all__ = ["CannotLower", "Launch", "Lowered", "Rows", "Slot", "is_loop", "lower"]
