"""Lowering of the convolutions: the generated kernels in one and two dimensions, plain loops for everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...ir.dims import Dim, product
from ...ir.graph import Graph
from ...ir.node import Node, postorder
from ..contract.conv import ConvDims
from ..contract.conv_forward import ConvForward
from ..contract.conv_input_grad import ConvInputGrad
from ..contract.conv_weight_grad import ConvWeightGrad
from ..kernel import KernelSource
from .collapse import collapse
from .epilogue import Tile, write_epilogue
from .errors import CannotLower
from .index_maps import Vector, axis, flatten
from .kernel_ir import Axis, Kernel, Load, Operand, dump
from .locate import forward
from .loop_conv import lower_loops
from .lowered import Launch, Lowered, Slot
from .overwrite import overwritable
from .sizes import GroupSizes
from .source import module
from .space import Space
from .values import Values

_RESULT = "product"


def lower_convolution(body: Graph, inputs: tuple[int, ...], core: Node) -> Lowered:
    """A body around one convolution as launches."""
    spatial = core.tensor_type.rank - 2
    window = _window(core)
    taps = tuple(k for k in window if isinstance(k, int))
    if not core.dtype.is_float or spatial > 2 or len(taps) < len(window) or core.attrs.channels_last:
        if len(body.nodes) > 1 + len(core.inputs):
            raise CannotLower(f"{core.op.name} of {core.type} has no epilogue")
        return lower_loops(core, inputs)
    return _Convolution(body, inputs, core, taps).lower()


def has_epilogue(core: Node) -> bool:
    """Whether work may be fused behind a convolution."""
    if core.op.name == "conv_weight_grad" or not core.dtype.is_float or core.tensor_type.rank > 4:
        return False
    if core.attrs.channels_last:
        return False
    if not all(isinstance(k, int) for k in _window(core)):
        return False
    return core.op.name == "conv" or all(s == 1 for s in core.attrs.stride)


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
        pairs: list[tuple[int, int]] = []
        extra: tuple[Dim, ...] = ()
        if self.body.outputs == (self.core,):
            source, operands = self.spec.kernel(), [Slot("result", 0)]
            text = f"# {self.core.op.name}\n"
        else:
            source, operands, extra, kernel = self._fused()
            text = dump(kernel)
            taken = {self.inputs[x.attrs.index] for x in self.core.inputs}
            pairs = [(int(r[1:]), self.inputs[int(x[1:])]) for r, x in overwritable(kernel)]
            pairs = [(r, x) for r, x in pairs if x not in taken]
        steps, scratch = self.spec.parallel_range(self.dims), self.spec.scratch_bytes(self.dims)
        sides = [Slot("input", self.inputs[x.attrs.index]) for x in self.core.inputs]
        d = self.dims
        work = 2 * d.batch * d.groups * d.channels * d.filters * d.out_h * d.out_w * product(list(_window(self.core)))
        outputs = sum(s.role == "result" for s in operands)
        launch = Launch(replace(source, source=module(source.source)), (*sides, *operands), (*self.dims, *extra), steps,
                        outputs, scratch=scratch, work=work, ir=text)
        return Lowered((launch,), in_place=tuple(pairs))

    def _fused(self) -> tuple[KernelSource, list[Slot], tuple[Dim, ...], Kernel]:
        nodes = postorder(self.body.outputs)
        sizes = GroupSizes(nodes, self.body.outputs)
        shape = sizes.shape(self.core)
        kept = tuple(Axis(f"{letter}0" if k < 2 else f"q{k - 2}", e)
                     for k, (letter, e) in enumerate(zip("bpqqq", shape, strict=False)))
        index: Vector = tuple(0 if e == 1 else axis(a.name) for a, e in zip(kept, shape, strict=True))
        space = Space(kept, (), (tuple(a for a in kept if a.extent != 1),))
        inputs = [n for n in nodes if n.op.name == "input"]
        buffers = {n: Operand(f"x{n.attrs.index}", n.dtype, sizes.shape(n)) for n in inputs}
        values = Values(sizes, space, buffers)
        values.assume(self.core, index, _RESULT)
        located = forward(nodes, {self.core: index}, sizes, space.extents)
        outputs = self.body.outputs
        targets = [Operand(f"y{k}", o.dtype, sizes.shape(o), output=True) for k, o in enumerate(outputs)]
        places = [located.get(o) or space.locate(t.extents) for o, t in zip(outputs, targets, strict=True)]
        values.store_all(outputs, places, targets)
        read = {i.operand for i in values.body if isinstance(i, Load)}
        extra = [o for o in buffers.values() if o.name in read]
        home = flatten(index, shape)
        marker = Load(_RESULT, "product", home, self.core.dtype.compute)  # stands for the contraction itself
        names = " ".join(n.op.name for n in nodes if n.op.name not in ("input", "constant", "broadcast"))
        comments = (f"{self.core.op.name}: {names}",)
        kernel = Kernel("conv", (*extra, *targets), kept, (), (marker, *values.body), comments)
        kernel = collapse(kernel, apart=("b0", "p0"))
        tile = Tile((kernel.kept[0],), kernel.kept[1], kernel.kept[2:], _RESULT)
        epilogue, extents = write_epilogue(kernel, kernel.body[1:], kernel.operands, tile, self.core.dtype.compute)
        slots = [Slot("input", self.inputs[int(o.name[1:])]) for o in extra]
        slots += [Slot("result", k) for k in range(len(targets))]
        real = sizes.sizes.real
        return (replace(self.spec, epilogue=epilogue).kernel(), slots, tuple(map(real, extents)), kernel)


def _two(values: tuple[Dim, ...], fill: Dim) -> tuple[Dim, Dim]:
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])
