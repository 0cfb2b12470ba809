"""Lowering of the convolutions: the generated kernels in one and two dimensions, plain loops for everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...ir.dims import Dim, product
from ...ir.graph import Graph
from ...ir.node import Node
from ..contract.conv import ConvDims
from ..contract.conv_forward import ConvForward
from ..contract.conv_input_grad import ConvInputGrad
from ..contract.conv_weight_grad import ConvWeightGrad
from .conv_last import lower_last
from .errors import CannotLower
from .loop_conv import lower_loops
from .lowered import Launch, Lowered, Slot
from .product_tail import Tail, product_tail
from .source import module


def lower_convolution(body: Graph, inputs: tuple[int, ...], core: Node) -> Lowered:
    """A body around one convolution as launches."""
    spatial = core.tensor_type.rank - 2
    window = _window(core)
    taps = tuple(k for k in window if isinstance(k, int))
    if not core.dtype.is_float or spatial > 2 or len(taps) < len(window):
        if len(body.nodes) > 1 + len(core.inputs):
            raise CannotLower(f"{core.op.name} of {core.type} has no epilogue")
        return lower_loops(core, inputs)
    if core.attrs.channels_last:
        return lower_last(body, inputs, core, taps)
    return _Convolution(body, inputs, core, taps).lower()


def has_epilogue(core: Node) -> bool:
    """Whether work may be fused behind a convolution."""
    if not core.dtype.is_float or core.tensor_type.rank > 4 or not all(isinstance(k, int) for k in _window(core)):
        return False
    if core.attrs.channels_last or core.op.name == "conv":
        return True
    return core.op.name == "conv_input_grad" and all(s == 1 for s in core.attrs.stride)


def _window(core: Node) -> tuple[Dim, ...]:
    return tuple(core.attrs.window) if core.op.name == "conv_weight_grad" else core.inputs[1].shape[2:]


class _Convolution:
    def __init__(self, body: Graph, inputs: tuple[int, ...], core: Node, window: tuple[int, ...]) -> None:
        self.body, self.core = body, core
        at = core.attrs
        structure: dict[str, Any] = {"window": window, "strides": at.stride, "dilations": at.dilation}
        kinds = {"conv": ConvForward, "conv_input_grad": ConvInputGrad, "conv_weight_grad": ConvWeightGrad}
        self.spec: Any = kinds[core.op.name](core.dtype, **structure)
        self.dims = self._dims()
        if core.op.name == "conv_weight_grad":
            self.spec = replace(self.spec, few=self.spec.holds_all_taps(self.dims.channels))
        self.slots: dict[str, Slot] = {}
        self.inputs = inputs

    def _dims(self) -> ConvDims:
        core, groups = self.core, self.core.attrs.groups
        if core.op.name == "conv":
            image, filters, result = core.inputs[0].shape, core.inputs[1].shape[0], core.shape
        elif core.op.name == "conv_input_grad":
            image, filters, result = core.shape, core.inputs[1].shape[0], core.inputs[0].shape
        else:
            image, filters, result = core.inputs[0].shape, core.shape[0], core.inputs[1].shape
        low = tuple(p[0] for p in core.attrs.pads)
        return ConvDims(image[0], groups, image[1] // groups, filters // groups, *_two(image[2:], 1),
                        *_two(result[2:], 1), *_two(low, 0))

    def lower(self) -> Lowered:
        """One launch."""
        core, d = self.core, self.dims
        tail: Tail | None = None
        operands: tuple[Slot, ...] = (Slot("result", 0),)
        if self.body.outputs == (core,):
            source, text = self.spec.kernel(), f"# {core.op.name}\n"
        else:
            tail = product_tail(self.body, self.inputs, core, batch=1, rows=1)
            source = replace(self.spec, epilogue=tail.epilogue).kernel()
            operands, text = tail.slots, tail.text
        sides = tuple(Slot("input", self.inputs[x.attrs.index]) for x in core.inputs)
        work = 2 * d.batch * d.groups * d.channels * d.filters * d.out_h * d.out_w * product(list(_window(core)))
        launch = Launch(replace(source, source=module(source.source)), (*sides, *operands),
                        (*d, *(tail.extents if tail else ())), self.spec.parallel_range(d), len(self.body.outputs),
                        scratch=self.spec.scratch_bytes(d), work=work, ir=text)
        return Lowered((launch,), in_place=tail.in_place if tail else ())


def _two(values: tuple[Dim, ...], fill: Dim) -> tuple[Dim, Dim]:
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])
