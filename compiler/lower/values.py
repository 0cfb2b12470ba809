"""From a group's body to scalar instructions, by index substitution.

`Values.value(node, index)` is the name of the node's element at a coordinate. Movement only changes the coordinate,
elementwise operators combine names, inputs become loads, reductions are met at their own kept point. Every
(node, coordinate) is computed once, and equal instructions share a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ir.dims import Dim, names, sym
from ...ir.dtypes import DType, boolean, i64, u32
from ...ir.node import Node
from ...ir.opdef import Kind
from . import scalars
from .errors import CannotLower
from .index_maps import Vector, flatten, split
from .kernel_ir import Apply, Bound, Check, Index, Instruction, Load, Operand, Reduce, Store
from .sizes import GroupSizes, reshape_groups, whole_axis
from .space import Space

PHILOX_COST = 60


class Values:
    """Builds the instructions of one kernel.

    Args:
        operands: the buffer that holds each node computed outside the kernel (inputs, a contraction's result).
        space: the loops; its axes are what coordinates are made of.
        numbers: pass floating-point constants as arguments (their bits) instead of writing them into the text: for
            groups that a model has many of, alike but for such numbers.
    """

    def __init__(self, sizes: GroupSizes, space: Space, operands: dict[Node, Operand], numbers: bool = False) -> None:
        self.sizes, self.space, self.operands, self.numbers = sizes, space, operands, numbers
        self.body: list[Instruction] = []
        self.sites: list[Node] = []
        self._guard = ""
        self._values: dict[tuple[Node, Vector, str], str] = {}
        self._known: dict[Any, str] = {}

    def value(self, node: Node, index: Vector) -> str:
        """The name (or literal text) of an element, in the compute dtype."""
        key = (node, index, self._guard)
        found = self._values.get(key)
        if found is None:
            found = self._values[key] = self._compute(node, index)
        return found

    def assume(self, node: Node, index: Vector, name: str) -> None:
        """Take the node's element at a coordinate from outside, under a name (rounded to the node's dtype)."""
        text = scalars.rounded(node.dtype, name)
        self._values[node, index, ""] = name if text == name else self.apply(text, (name,), node.dtype.compute, 2,
                                                                              "round")

    def store_all(self, outputs: Sequence[Node], places: Sequence[Vector], targets: Sequence[Operand]) -> None:
        """Compute the outputs at the current point, then write them: a result may lie in the memory of an operand
        that another result is made of."""
        for out, where in zip(outputs, places, strict=True):
            self.value(out, where)
        for out, where, target in zip(outputs, places, targets, strict=True):
            self.store(out, where, target)

    def store(self, node: Node, index: Vector, operand: Operand) -> None:
        """Write an element to an output."""
        value = self.value(node, index)
        if not value.isidentifier():
            value = self.apply(value, (), node.dtype.compute, 0, "constant")
        self.body.append(Store(operand.name, flatten(index, operand.extents), value))

    # -- instructions ---------------------------------------------------------------------------------------------

    def apply(self, text: str, args: Sequence[str], dtype: DType, cost: int, label: str) -> str:
        """A scalar expression as a value; arguments that are literals take no part in the dependences."""
        used = tuple(a for a in args if a.isidentifier())
        return self._define(("apply", text), lambda name: Apply(name, text, used, dtype, cost, label))

    def number(self, d: Dim) -> str:
        """An index expression as an int64 value."""
        if isinstance(d, int):
            return f"i64({d})"
        return self._define(("index", d), lambda name: Index(name, d))

    def load(self, operand: Operand, address: Dim) -> str:
        """An element of a buffer."""
        guard = self._guard
        return self._define(("load", operand.name, address, guard),
                            lambda name: Load(name, operand.name, address, operand.dtype, guard))

    def _define(self, key: Any, make: Callable[[str], Instruction]) -> str:
        name = self._known.get(key)
        if name is None:
            name = self._known[key] = f"v{len(self._known)}"
            self.body.append(make(name))
        return name

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _compute(self, node: Node, index: Vector) -> str:
        operand = self.operands.get(node)
        if operand is not None:
            return self.load(operand, flatten(index, operand.extents))
        rule = _RULES.get(node.op.name)
        if rule is not None:
            return rule(self, node, index)
        if node.op.kind is Kind.REDUCTION:
            return self._reduction(node, index)
        if node.op.kind is Kind.ELEMENTWISE:
            args = tuple(self.value(i, index if i.tensor_type.rank else ()) for i in node.inputs)
            return self._elementwise(node, args)
        raise CannotLower(f"{node.op.name} cannot be part of a fused loop")

    def _elementwise(self, node: Node, args: tuple[str, ...]) -> str:
        text = scalars.apply(node, args)
        if text.isidentifier():  # a cast to the same compute dtype, stop_gradient
            return text
        return self.apply(text, args, node.dtype.compute, scalars.cost(node), node.op.name)

    def _reduction(self, node: Node, index: Vector) -> str:
        (x,) = node.inputs
        point = self.space.points[node]
        if index != point.own:
            raise CannotLower(f"{node.op.name} is read at another point than its own")
        arg = self.value(x, point.operand)
        if not arg.isidentifier():
            arg = self.apply(arg, (), x.dtype.compute, 0, "constant")
        name = self._define(("reduce", node.op.name, arg, node.dtype.compute, point.fold),
                            lambda name: Reduce(name, node.op.name, arg, node.dtype.compute, point.fold))
        text = scalars.rounded(node.dtype, name)
        return name if text == name else self.apply(text, (name,), node.dtype.compute, 2, "round")

    def _constant(self, node: Node, index: Vector) -> str:
        if node.tensor_type.rank:
            raise CannotLower("a constant tensor inside a group")
        dtype = node.dtype.compute
        if not (self.numbers and dtype.is_float):
            return scalars.constant(node)
        bits = node.attrs.value.array.astype(dtype.numpy).view(f"i{dtype.bits // 8}")
        number = self.number(self.sizes.argument(node, "value", 0, int(bits)))
        return self.apply(f"bits_{dtype}({number})", (number,), dtype, 0, "constant")

    def _extent(self, node: Node, index: Vector) -> str:
        return self.number(self.sizes.argument(node, "value", 0, node.attrs.value))

    def _broadcast(self, node: Node, index: Vector) -> str:
        (x,) = node.inputs
        own = [0 if x.shape[i] == 1 else index[target] for i, target in enumerate(node.attrs.dims)]
        return self.value(x, tuple(own))

    def _permute(self, node: Node, index: Vector) -> str:
        own: list[Dim] = [0] * len(index)
        for at, source in zip(index, node.attrs.dims, strict=True):
            own[source] = at
        return self.value(node.inputs[0], tuple(own))

    def _reshape(self, node: Node, index: Vector) -> str:
        (x,) = node.inputs
        source, target = self.sizes.shape(x), self.sizes.shape(node)
        own: list[Dim] = [0] * len(source)
        for ins, outs in reshape_groups(x.shape, node.shape):
            position = flatten([index[o] for o in outs], [target[o] for o in outs])
            for i, at in zip(ins, split(position, [source[i] for i in ins], self.space.extents), strict=True):
                own[i] = at
        return self.value(x, tuple(own))

    def _slice(self, node: Node, index: Vector) -> str:
        (x,) = node.inputs
        own = list(index)
        for axis, (start, step) in enumerate(zip(node.attrs.start, node.attrs.step, strict=True)):
            if not whole_axis(node, axis):
                own[axis] = index[axis] * step + self.sizes.argument(node, "start", axis, start)
        return self.value(x, tuple(own))

    def _flip(self, node: Node, index: Vector) -> str:
        (x,) = node.inputs
        shape, axes = self.sizes.shape(x), set(node.attrs.axes)
        return self.value(x, tuple(shape[i] - 1 - at if i in axes and shape[i] != 1 else at
                                   for i, at in enumerate(index)))

    def _pad(self, node: Node, index: Vector) -> str:
        x, fill = node.inputs
        shape, own, conditions = self.sizes.shape(x), list(index), []
        for axis, (low, high, interior) in enumerate(node.attrs.pads):
            if low == high == interior == 0:
                continue
            at = index[axis] - self.sizes.argument(node, "pads", axis, low)
            if interior != 0:
                gap = self.number(self.sizes.argument(node, "interior", axis, interior + 1))
                position = self.number(at)
                rest = self.apply(f"floor_modulo({position}, {gap})", (position, gap), i64, 4, "pad")
                conditions.append(self.apply(f"{rest} == 0", (rest,), boolean, 1, "pad"))
                at = sym(self.apply(f"floor_divide({position}, {gap})", (position, gap), i64, 4, "pad"))
            conditions.append(self._within(at, 0, shape[axis]))
            own[axis] = 0 if shape[axis] == 1 else at
        inside = self._all(conditions)
        return self._choose(inside, self._guarded(inside, x, tuple(own)), self.value(fill, ()), node)

    def _concat(self, node: Node, index: Vector) -> str:
        axis, at = node.attrs.axis, index[node.attrs.axis]
        start: Dim = 0
        chosen = scalars.literal(0, node.dtype.compute)
        for x in node.inputs:
            extent = self.sizes.shape(x)[axis]
            inside = self._within(at, start, start + extent)
            own = (*index[:axis], 0 if extent == 1 else at - start, *index[axis + 1:])
            chosen = self._choose(inside, self._guarded(inside, x, own), chosen, node)
            start = start + extent
        return chosen

    def _guarded(self, condition: str, node: Node, index: Vector) -> str:
        """An element that exists only under a condition: nothing is loaded without it."""
        outer = self._guard
        self._guard = self._all([outer, condition]) if outer and condition else outer or condition
        value = self.value(node, index)
        self._guard = outer
        return value

    def _within(self, at: Dim, low: Dim, high: Dim) -> str:
        """The condition `low <= at < high` as a value."""
        start = None if low == 0 and _never_negative(at) else low
        return self._define(("bound", at, start, high), lambda name: Bound(name, at, start, high))

    def _all(self, conditions: list[str]) -> str:
        if len(conditions) < 2:
            return conditions[0] if conditions else ""
        return self.apply(" & ".join(conditions), conditions, boolean, 1, "bound")

    def _choose(self, condition: str, value: str, other: str, node: Node) -> str:
        if not condition:
            return value
        return self.apply(f"select({condition}, {value}, {other})", (condition, value, other), node.dtype.compute, 1,
                          node.op.name)

    def _iota(self, node: Node, index: Vector) -> str:
        at = self.number(index[node.attrs.axis])
        if node.dtype is i64:
            if at.isidentifier():
                return at
            return self.apply(at, (), i64, 0, "iota")
        return self.apply(scalars.cast(i64, node.dtype, at), (at,), node.dtype.compute, 1, "iota")

    def _checked(self, index_value: str, dtype: DType, extent: Dim, node: Node) -> Dim:
        """A loaded index as a coordinate, after a check of its range."""
        name = index_value
        if dtype is not i64 or not name.isidentifier():
            name = self.apply(f"i64({index_value})", (index_value,), i64, 0, "index")
        check = Check(name, extent, len(self.sites), self._guard)
        if ("check", name, extent, self._guard) not in self._known:
            self._known["check", name, extent, self._guard] = name
            self.body.append(check)
            self.sites.append(node)
        return sym(name)

    def _gather(self, node: Node, index: Vector) -> str:
        x, where = node.inputs
        axis = node.attrs.axis
        at = self._checked(self.value(where, index), where.dtype, self.sizes.shape(x)[axis], node)
        return self.value(x, (*index[:axis], at, *index[axis + 1:]))

    def _index_select(self, node: Node, index: Vector) -> str:
        x, where = node.inputs
        axis, rank = node.attrs.axis, where.tensor_type.rank
        chosen = self.value(where, index[axis:axis + rank])
        at = self._checked(chosen, where.dtype, self.sizes.shape(x)[axis], node)
        return self.value(x, (*index[:axis], at, *index[axis + rank:]))

    def _scatter(self, node: Node, index: Vector) -> str:
        """A scatter of one slice is a comparison: the slice lands where the coordinate equals its index."""
        x, where, update = node.inputs
        axis = node.attrs.axis
        if any(d != (1 if i == axis else x.shape[i]) for i, d in enumerate(where.shape)):
            raise CannotLower(f"{node.op.name} of other than one whole slice")
        source = (*index[:axis], 0, *index[axis + 1:])
        at = self._checked(self.value(where, source), where.dtype, self.sizes.shape(x)[axis], node)
        here, chosen = self.number(index[axis]), str(at)
        hit = self.apply(f"{here} == {chosen}", (here, chosen), boolean, 1, node.op.name)
        old, new = self.value(x, index), self.value(update, source)
        if node.op.name == "scatter_add":
            text = f"{old} + {new}"
            text = scalars.rounded(node.dtype, text) if node.dtype.is_float else f"{node.dtype}({text})"
            new = self.apply(text, (old, new), node.dtype.compute, 1, node.op.name)
        return self._choose(hit, new, old, node)

    def _random_bits(self, node: Node, index: Vector) -> str:
        # However often the state has moved on before: the blocks passed over are one argument, and all draws of a
        # kind (say the first values of all parameters) are one kernel.
        (state,) = node.inputs
        passed: Dim = 0
        while state.op.name == "random_advance" and state not in self.operands:
            passed = passed + (state.attrs.count + 3) // 4
            (state,) = state.inputs
        seed, counter = self.value(state, (0,)), self.value(state, (1,))
        start = self.number(self.sizes.argument(node, "state", 0, passed))
        element = self.number(flatten(index, self.sizes.shape(node)))
        return self.apply(f"philox({seed}, i64({counter} + {start}), {element})", (seed, counter, start, element), u32,
                          PHILOX_COST, "random_bits")

    def _random_advance(self, node: Node, index: Vector) -> str:
        (state,) = node.inputs
        old = self.value(state, index)
        blocks = self.number((self.sizes.argument(node, "count", 0, node.attrs.count) + 3) // 4)
        here = self.number(index[0])
        return self.apply(f"select({here} == 1, i64({old} + {blocks}), {old})", (here, old, blocks), i64, 1,
                          "random_advance")

    def _with_value(self, node: Node, index: Vector) -> str:
        return self.value(node.inputs[1], index)


def _never_negative(at: Dim) -> bool:
    """Whether a coordinate is a sum of axes (and not shifted down)."""
    return isinstance(at, int) or (all(c > 0 for _, c in at.terms) and not any(n[0] == "v" for n in names(at)))


_RULES: dict[str, Callable[[Values, Node, Vector], str]] = {
    "constant": Values._constant, "extent": Values._extent, "broadcast": Values._broadcast,
    "permute": Values._permute, "reshape": Values._reshape, "slice": Values._slice, "flip": Values._flip,
    "pad": Values._pad, "concat": Values._concat, "iota": Values._iota, "gather": Values._gather,
    "index_select": Values._index_select, "scatter": Values._scatter, "scatter_add": Values._scatter,
    "random_bits": Values._random_bits, "random_advance": Values._random_advance,
    "with_value": Values._with_value,
}  # fmt: skip
