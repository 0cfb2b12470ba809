"""Lowering of contractions: `dot` and the three convolutions, with their epilogues."""

from __future__ import annotations

from ...ir.graph import Graph
from ...ir.node import Node
from .dot import lower_dot
from .errors import CannotLower
from .lowered import Lowered


def lower_contraction(body: Graph, inputs: tuple[int, ...], core: Node) -> Lowered:
    """A body around one contraction as launches."""
    if core.op.name == "dot":
        return lower_dot(body, inputs, core)
    raise CannotLower(f"{core.op.name} has no generator")
