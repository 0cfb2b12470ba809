"""Convolutions as plain loops: any rank, integers, windows of symbolic size. Correct and slow."""

from __future__ import annotations

from ...ir.dims import Dim, product
from ...ir.dtypes import DType, boolean, i64
from ...ir.node import Node
from ...ir.ops.contraction import channels_first
from . import scalars
from .collapse import collapse
from .emit_rows import emit_rows
from .index_maps import Vector, axis, flatten
from .kernel_ir import Apply, Axis, Index, Instruction, Kernel, Load, Operand, Reduce, Store, dump
from .lowered import Launch, Lowered, Slot
from .sizes import Sizes


def lower_loops(core: Node, inputs: tuple[int, ...]) -> Lowered:
    """A convolution as one row-wise kernel: a guarded product at every (result element, term of its sum)."""
    return _Loops(core, inputs).lower()


class _Loops:
    def __init__(self, core: Node, inputs: tuple[int, ...]) -> None:
        self.core, self.inputs = core, inputs
        self.sizes = Sizes()
        self.body: list[Instruction] = []

    def _axes(self, letter: str, extents: tuple[Dim, ...]) -> tuple[Axis, ...]:
        return tuple(Axis(f"{letter}{k}", self.sizes.argument(e)) for k, e in enumerate(extents))

    def lower(self) -> Lowered:
        """One launch."""
        core, at = self.core, self.core.attrs
        image, weight, result = self._roles()
        spatial, groups = len(image) - 2, at.groups
        per_group, filters = image[1] // groups, weight[0] // groups
        g = self._axes("g", (groups,))
        batch, c, o = self._axes("b", (image[0],)), self._axes("c", (per_group,)), self._axes("o", (filters,))
        u, k, p = self._axes("u", image[2:]), self._axes("k", weight[2:]), self._axes("p", result[2:])
        last = at.channels_last
        roles = {"image": (*batch, *u, *g, *c) if last else (*batch, *g, *c, *u), "weight": (*g, *o, *c, *k),
                 "result": (*batch, *p, *g, *o) if last else (*batch, *g, *o, *p)}
        match core.op.name:
            case "conv":
                kept, reduced, free = roles["result"], (*c, *k), u
            case "conv_input_grad":
                kept, reduced, free = roles["image"], (*o, *k), p
            case _:
                kept, reduced, free = roles["weight"], (*batch, *p), u
        where: dict[str, Dim] = {a.name: axis(a.name) for a in (*kept, *reduced)}
        inside = self._places(spatial, u, k, p, free, where)

        def index(*axes: Axis) -> Vector:
            return tuple(where[a.name] for a in axes)

        coordinates = {role: (index(*axes), axes) for role, axes in roles.items()}
        names = {"conv": ("image", "weight", "result"), "conv_input_grad": ("result", "weight", "image"),
                 "conv_weight_grad": ("image", "result", "weight")}[core.op.name]
        operands = [Operand(name, core.dtype, tuple(a.extent for a in coordinates[role][1]), output=name == "y0")
                    for name, role in zip(("x0", "x1", "y0"), names, strict=True)]
        loads = [Load(f"v{o.name}", o.name, flatten(coordinates[role][0], o.extents), core.dtype, inside)
                 for o, role in zip(operands[:2], names, strict=False)]
        self.body += loads
        dtype = core.dtype.compute
        term = "vx0 * vx1" if dtype.is_float else f"{dtype}(vx0 * vx1)"
        self.body.append(Apply("term", term, ("vx0", "vx1"), dtype, 1, core.op.name))
        self.body.append(Reduce("total", "sum", "term", dtype))
        home = flatten([axis(a.name) for a in kept], [a.extent for a in kept])
        self.body.append(Store("y0", home, "total"))
        kernel = collapse(Kernel("row", tuple(operands), kept, reduced, tuple(self.body), (f"row: {core.op.name}",)))
        emitted = emit_rows(kernel)
        real = self.sizes.real
        slots = (Slot("input", self.inputs[0]), Slot("input", self.inputs[-1]), Slot("result", 0))
        work = real(product([a.extent for a in (*kept, *reduced)])) * 4
        return Lowered((Launch(emitted.source, slots, tuple(map(real, emitted.extents)), real(emitted.range),
                               scratch=real(emitted.scratch), work=work, ir=dump(kernel)),))

    def _roles(self) -> tuple[tuple[Dim, ...], tuple[Dim, ...], tuple[Dim, ...]]:
        """Shapes of the image, the weight and the convolution's result, whichever of them this operator computes;
        channels behind the batch."""
        core = self.core
        first, second = (x.shape for x in core.inputs)
        match core.op.name:
            case "conv":
                image, weight, result = first, second, core.shape
            case "conv_input_grad":
                image, weight, result = core.shape, second, first
            case _:
                image, weight, result = first, core.shape, second
        return channels_first(core.attrs, image), weight, channels_first(core.attrs, result)

    def _value(self, name: str, text: str, args: tuple[str, ...], dtype: DType) -> str:
        self.body.append(Apply(name, text, args, dtype, 1, self.core.op.name))
        return name

    def _number(self, name: str, d: Dim) -> str:
        self.body.append(Index(name, d))
        return name

    def _places(self, spatial: int, u: tuple[Axis, ...], k: tuple[Axis, ...], p: tuple[Axis, ...],
                free: tuple[Axis, ...], where: dict[str, Dim]) -> str:
        """Solve `u + low = p * stride + k * dilation` for the coordinates that are not loops; whether all exist."""
        at, conditions = self.core.attrs, []
        for s in range(spatial):
            low = self.sizes.argument(at.pads[s][0])
            tap = axis(k[s].name) * at.dilation[s]
            if free is u:
                place = self._number(f"v{s}0", axis(p[s].name) * at.stride[s] + tap - low)
            else:
                shifted = self._number(f"v{s}1", axis(u[s].name) + low - tap)
                step = scalars.literal(at.stride[s], i64)
                rest = self._value(f"v{s}2", f"floor_modulo({shifted}, {step})", (shifted,), i64)
                conditions.append(self._value(f"v{s}3", f"{rest} == 0", (rest,), boolean))
                place = self._value(f"v{s}0", f"floor_divide({shifted}, {step})", (shifted,), i64)
            limit = self._number(f"v{s}4", free[s].extent)
            text = f"({place} >= 0) & ({place} < {limit})"
            conditions.append(self._value(f"v{s}5", text, (place, limit), boolean))
            where[free[s].name] = axis(place)
        return self._value("inside", " & ".join(conditions), tuple(conditions), boolean)
