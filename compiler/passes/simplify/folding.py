"""Constant folding, by the reference interpreter: only where it gives a kernel's very bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.attrs import Constant
from ....ir.build import Builder
from ....ir.graph import Graph
from ....ir.interp import evaluate
from ....ir.node import Node
from ....ir.opdef import Kind
from ....ir.types import TensorType
from .local import Local, Rule, Rules

_FOLDED_KINDS = frozenset({Kind.ELEMENTWISE, Kind.MOVEMENT})


def fold_rule(max_elements: int) -> Rule:
    """Evaluate an operator on constants, if its result has at most `max_elements`.

    Only exactly rounded operators. Repetitions (`broadcast`, `iota`) stay what they are: they cost nothing to
    read.
    """

    def fold(b: Builder, n: Node) -> Node | None:
        if n.op.kind not in _FOLDED_KINDS or not n.op.exact or not n.inputs or not isinstance(n.type,
                                                                                              TensorType):
            return None
        if any(i.op.name != "constant" for i in n.inputs):
            return None
        size = n.type.size
        if not isinstance(size, int) or size > max_elements:
            return None
        value, = evaluate(Graph("fold", (), (n,)), [])
        return Node.make("constant", (), {"value": Constant(value)}, n.place)

    return fold


def fold_rules(max_elements: int) -> Rules:
    """The rule for every operator it may fit."""
    from ....ir.opdef import table

    fold = (fold_rule(max_elements),)
    return {op.name: fold
            for op in table().values() if op.kind in _FOLDED_KINDS and op.exact and op.arity != 0}


@dataclass(frozen=True)
class Fold:
    """Evaluate operators on constants.

    Attributes:
        max_elements: results larger than this stay computed at run time.
    """

    max_elements: int = 4096

    name: ClassVar[str] = "fold"

    def run(self, graph: Graph) -> Graph:
        return Local(fold_rules(self.max_elements)).run(graph)
