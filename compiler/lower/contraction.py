"""Lowering of contractions: `dot` and the three convolutions, with their epilogues."""

from __future__ import annotations

from ...ir.graph import Graph
from ...ir.node import Node
from .convolution import has_epilogue as _conv_has_epilogue
from .convolution import lower_convolution
from .dot import lower_dot
from .lowered import Lowered


def lower_contraction(body: Graph, inputs: tuple[int, ...], core: Node) -> Lowered:
    """A body around one contraction as launches."""
    return (lower_dot if core.op.name == "dot" else lower_convolution)(body, inputs, core)


def has_epilogue(core: Node) -> bool:
    """Whether elementwise work may be fused behind a contraction."""
    return core.dtype.is_float if core.op.name == "dot" else _conv_has_epilogue(core)
