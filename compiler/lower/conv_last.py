"""Lowering of convolutions whose channels come last."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from ...ir.dims import Dim, product
from ...ir.graph import Graph
from ...ir.node import Node
from ...ir.ops.contraction import channels_first
from ...ir.types import TensorType
from ..contract.conv_last import ConvLast, Geometry
from ..contract.conv_last_weight_grad import WeightGradFold, WeightGradSums
from .lowered import Launch, Lowered, Slot
from .product_tail import product_tail
from .source import module

_T = TypeVar("_T")

def lower_last(body: Graph, inputs: tuple[int, ...], core: Node, window: tuple[int, ...]) -> Lowered:
    """A body around one convolution, `channels_last`, of one or two spatial axes, as launches."""
    g = _geometry(core, window)
    sides = tuple(Slot("input", inputs[x.attrs.index]) for x in core.inputs)
    positions = g.source if g.transposed else g.target
    work = 2 * g.batch * g.groups * g.depth * g.filters * product([*positions, *window])
    if core.op.name == "conv_weight_grad":
        return _weight_grad(body, inputs, core, g, sides, work)
    tail = product_tail(body, inputs, core, batch=1, rows=len(window))
    spec = ConvLast.of(core.dtype, g.filters)
    source = spec.kernel(tail.epilogue)
    writes = body.outputs == (core,) and core.dtype is core.dtype.compute
    launch = Launch(
        replace(source, source=module(source.source, (f"convolution of {core.dtype}, channels last",))),
        (*sides, *tail.slots), (*spec.extents(g, writes), *tail.extents), spec.parallel_range(g), len(body.outputs),
        scratch=spec.scratch_bytes(g), work=work, ir=tail.text)
    return Lowered((launch,), in_place=tail.in_place)


def _weight_grad(body: Graph, inputs: tuple[int, ...], core: Node, g: Geometry, sides: tuple[Slot, ...],
                 work: Dim) -> Lowered:
    """Sums of blocks of images, then their total in the weights' order with what follows it."""
    compute = core.dtype.compute
    sums, fold = WeightGradSums.of(core.dtype, g), WeightGradFold(compute)
    tail = product_tail(body, inputs, core, batch=0, rows=1)
    between = Slot("temporary", 0)
    first, second = sums.kernel(), fold.kernel(tail.epilogue)
    comments = f"weight gradient of {core.dtype}, channels last: ", "sums of blocks", "total of blocks"
    launches = (
        Launch(replace(first, source=module(first.source, ("".join(comments[:2]),))), (*sides, between),
               sums.extents(g), sums.parallel_range(g), scratch=sums.scratch_bytes(g), work=work),
        Launch(replace(second, source=module(second.source, (comments[0] + comments[2],))), (between, *tail.slots),
               (*fold.extents(sums, g), *tail.extents), fold.parallel_range(g), len(body.outputs),
               scratch=fold.scratch_bytes(g), work=2 * sums.sums_size(g), ir=tail.text),
    )
    return Lowered(launches, (TensorType(compute, (sums.sums_size(g),)),), tail.in_place)


def _geometry(core: Node, window: tuple[int, ...]) -> Geometry:
    at, first, second = core.attrs, *(channels_first(core.attrs, x.shape) for x in core.inputs)
    match core.op.name:
        case "conv":
            image, positions, filters = first, channels_first(at, core.shape), core.shape[-1]
        case "conv_input_grad":
            image, positions, filters = channels_first(at, core.shape), first, first[1]
        case _:
            image, positions, filters = first, second, second[1]
    transposed = core.op.name == "conv_input_grad"
    inside = all(low == 0 and high == 0 for low, high in at.pads)
    depth, filters = image[1] // at.groups, filters // at.groups
    source, target = _two(image[2:], 1), _two(positions[2:], 1)
    if transposed:
        source, target, depth, filters = target, source, filters, depth
        inside = inside and all(k == 1 for k in window)
    return Geometry(
        batch=image[0], groups=at.groups, source=source, target=target, depth=depth, filters=filters,
        taps=_two(window, 1), stride=_two(at.stride, 1), dilation=_two(at.dilation, 1),
        low=_two(tuple(p[0] for p in at.pads), 0), padded=not inside, transposed=transposed)


def _two(values: tuple[_T, ...], fill: _T) -> tuple[_T, _T]:
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])
