"""Lowering of `attention` and `attention_grad`, with the views that lead to their operands and away from their results.

Operands are read, and results written, through strides: heads that are slices of one projection cost no copy, the
cotangents of queries, keys and values go into their parts of one tensor.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import NamedTuple

from ...ir.dims import Dim, product
from ...ir.graph import Graph
from ...ir.node import Node
from ..contract.attention import MaskKind
from ..contract.attention_backward import AttentionBackward
from ..contract.attention_forward import AttentionForward
from ..kernel import KernelSource
from .errors import CannotLower
from .lowered import Launch, Lowered, Slot
from .source import module
from .strided import Strided, source_of, targets_of

# Kind of the groups around an attention.
ATTENTION = "attention"
OPERATORS = frozenset({"attention", "attention_grad"})


class _Operand(NamedTuple):
    slot: Slot
    where: Strided

    def strides(self) -> list[Dim]:
        """Strides of the two innermost axes, then of the batch axes."""
        return [self.where.strides[-2], self.where.strides[-1], *self.where.strides[:-2]]


def lower_attention(body: Graph, inputs: tuple[int, ...]) -> Lowered:
    """A body around one attention (or its derivative) as one launch.

    Raises:
        CannotLower: a view in it is none that strides express.
    """
    (core,) = (n for n in body.nodes if n.op.name in OPERATORS)
    operands = [_input(x, inputs) for x in core.inputs]
    results = _results(body, core)
    return Lowered(((_forward if core.op.name == "attention" else _backward)(core, operands, results),))


def _input(node: Node, inputs: tuple[int, ...]) -> _Operand:
    base, where = source_of(node)
    if base.op.name != "input":
        raise CannotLower(f"{base.op.name} between an attention and its operand")
    return _Operand(Slot("input", inputs[base.attrs.index], where.offset * node.dtype.itemsize), where)


def _results(body: Graph, core: Node) -> list[_Operand]:
    """Where each result goes."""
    found: dict[int, _Operand] = {}
    for k, out in enumerate(body.outputs):
        for node, where in targets_of(out) or ():
            if node.op.name == "result" and node.inputs[0] is core:
                found[node.attrs.index] = _Operand(Slot("result", k, where.offset * out.dtype.itemsize), where)
    if len(found) != len(core.result_types):
        raise CannotLower("a result of an attention is not in memory")
    return [found[i] for i in range(len(found))]


def _bits(value: float) -> int:
    """A float64 as the int64 of the same bits: how numbers that are not sizes become arguments of a kernel."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _structure(core: Node, mask: Node | None) -> dict[str, object]:
    at, q = core.attrs, core.inputs[0]
    kind: MaskKind = "none" if mask is None else "bool" if mask.dtype.is_bool else "float"
    return {
        "dtype": q.dtype, "batch_rank": q.tensor_type.rank - 2, "causal": at.causal, "mask": kind,
        "mask_dtype": mask.dtype if mask is not None and kind == "float" else None,
        "visible": at.visible if kind == "bool" else True,
        "skips": kind == "bool" and at.hidden == float("-inf"),
    }  # fmt: skip


def _extents(core: Node, operands: list[_Operand]) -> list[Dim]:
    q, k, v = core.inputs[:3]
    at = core.attrs
    found: list[Dim] = [q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1], at.diagonal, _bits(at.scale),
                        _bits(at.hidden), *q.shape[:-2]]
    for operand in operands:
        found += operand.strides()
    return found


def _forward(core: Node, operands: list[_Operand], results: list[_Operand]) -> Launch:
    q, _, v = core.inputs[:3]
    mask = core.inputs[3] if len(core.inputs) > 3 else None
    spec = AttentionForward(**_structure(core, mask))  # type: ignore[arg-type]
    areas, scratch = spec.scratch(q.shape[-1], v.shape[-1])
    extents = [*_extents(core, [*operands[:3], results[0], *operands[3:]]), *areas]
    return _launch(core, spec.kernel(), [*operands, *results], 2, extents,
                   spec.parallel_range(q.shape[:-2], q.shape[-2]), scratch, 4)


def _backward(core: Node, operands: list[_Operand], results: list[_Operand]) -> Launch:
    q, k, v = core.inputs[:3]
    mask = core.inputs[6] if len(core.inputs) > 6 else None
    spec = AttentionBackward(**_structure(core, mask))  # type: ignore[arg-type]
    areas, scratch = spec.scratch(k.shape[-2], q.shape[-1], v.shape[-1])
    strided = [*operands[:4], operands[5], *results, *operands[6:]]
    return _launch(core, spec.kernel(), [*operands, *results], 3, [*_extents(core, strided), *areas],
                   spec.parallel_range(q.shape[:-2], q.shape[-2]), scratch, 10)


def _launch(core: Node, source: KernelSource, operands: list[_Operand], outputs: int,
            extents: list[Dim], steps: Dim, scratch: Dim, flops: int) -> Launch:
    q, k, v = core.inputs[:3]
    pairs = product(list(q.shape[:-1])) * k.shape[-2]
    text = module(source.source, (core.op.name,))
    return Launch(replace(source, source=text), tuple(o.slot for o in operands), tuple(extents), steps, outputs,
                  scratch=scratch, work=pairs * (q.shape[-1] + v.shape[-1]) * (flops // 2), ir=f"# {core.op.name}\n")
