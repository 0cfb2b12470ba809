"""Which masks are causal: conditions on row and column numbers alone."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

from ...ir.dims import Dim
from ...ir.node import Node
from ...ir.opdef import Kind
from .simplify.patterns import is_scalar_constant

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le,
}  # fmt: skip


class _Axis(NamedTuple):
    """The index along an axis of a tensor: `start + step · (index along `axis` of the scores)`; a fixed one has no
    axis."""

    axis: int | None
    step: int = 1
    start: Dim = 0


_Axes = tuple[_Axis, ...]


class _Linear(NamedTuple):
    """`row · r + column · c + rest`."""

    row: int
    column: int
    rest: Dim

    def minus(self, other: _Linear) -> _Linear:
        return _Linear(self.row - other.row, self.column - other.column, self.rest - other.rest)


def diagonal_of(condition: Node, row: int, column: int, hides: bool) -> Dim | None:
    """d if the condition says (or, with `hides`, denies) that row i takes part in column j exactly where j ≤ i + d.

    Args:
        condition: a boolean tensor of the scores' shape, in normal form.
        row, column: the scores' axes.
    """
    found = _Causal(row, column).bound(condition, tuple(_Axis(i) for i in range(len(condition.shape))))
    if found is None:
        return None
    # True where found ≥ 0: column − row − d − 1 ≥ 0 hides, row − column + d ≥ 0 shows.
    if hides and found[:2] == (-1, 1):
        return -found.rest - 1
    if not hides and found[:2] == (1, -1):
        return found.rest
    return None


class _Causal:
    def __init__(self, row: int, column: int) -> None:
        self.row, self.column = row, column

    def bound(self, node: Node, axes: _Axes) -> _Linear | None:
        """A linear form that is not negative exactly where the condition holds."""
        moved = _moved(node, axes)
        if moved is not None:
            return self.bound(node.inputs[0], moved)
        if node.op.name == "not":
            inner = self.bound(node.inputs[0], axes)
            return None if inner is None else _negated(inner)
        if node.op.name not in _COMPARE:
            return None
        x, y = node.inputs
        chosen = self._chosen(node, x, y, axes)
        if chosen is not None:
            return chosen
        left, right = self.value(x, axes), self.value(y, axes)
        if left is None or right is None or not (x.dtype.is_integer and y.dtype.is_integer):
            return None
        match node.op.name:
            case "ge":
                return left.minus(right)
            case "le":
                return right.minus(left)
            case "gt":
                return _negated(right.minus(left))
            case "lt":
                return _negated(left.minus(right))
            case _:
                return None

    def _chosen(self, node: Node, x: Node, y: Node, axes: _Axes) -> _Linear | None:
        """A comparison of a number with one of two others that a condition chooses: `tril(ones) == 0`."""
        limit = _number(y)
        while limit is not None and (moved := _moved(x, axes)) is not None:
            x, axes = x.inputs[0], moved
        if limit is None:
            return None
        if x.op.name == "select":
            first, second = map(_number, x.inputs[1:])
        elif x.op.name == "cast" and x.inputs[0].dtype.is_bool:
            first, second = 1.0, 0.0
        else:
            return None
        if first is None or second is None:
            return None
        holds = [_COMPARE[node.op.name](value, limit) for value in (first, second)]
        inner = self.bound(x.inputs[0], axes)
        if inner is None or holds[0] == holds[1]:
            return None
        return inner if holds[0] else _negated(inner)

    def value(self, node: Node, axes: _Axes) -> _Linear | None:
        """An integer tensor as a linear form."""
        moved = _moved(node, axes)
        if moved is not None:
            return self.value(node.inputs[0], moved)
        match node.op.name:
            case "iota":
                at = axes[node.attrs.axis]
                return _Linear(at.step if at.axis == self.row else 0, at.step if at.axis == self.column else 0,
                               at.start) if at.axis in (self.row, self.column, None) else None
            case "constant":
                number = _number(node)
                return None if number is None else _Linear(0, 0, int(number))
            case "extent":
                return _Linear(0, 0, node.attrs.value)
            case "cast" if node.inputs[0].dtype.is_integer:
                return self.value(node.inputs[0], axes)
            case "add" | "sub":
                left, right = (self.value(i, axes if i.shape else ()) for i in node.inputs)
                if left is None or right is None:
                    return None
                return left.minus(right if node.op.name == "sub" else _Linear(0, 0, 0).minus(right))
            case _:
                return None


def _negated(x: _Linear) -> _Linear:
    """Not negative exactly where x is: −x − 1."""
    return _Linear(-x.row, -x.column, -x.rest - 1)


def _number(node: Node) -> float | None:
    while node.op.kind is Kind.BROADCAST:
        node = node.inputs[0]
    return float(node.attrs.value.array) if is_scalar_constant(node) else None


def _moved(node: Node, axes: _Axes) -> _Axes | None:
    """The axes of a view's operand, or None for another node."""
    if not node.inputs:
        return None
    x = node.inputs[0]
    match node.op.name:
        case "broadcast":
            return tuple(_Axis(None) if d == 1 else axes[target]
                         for target, d in zip(node.attrs.dims, x.shape, strict=True))
        case "permute":
            order = node.attrs.dims
            return tuple(axes[order.index(i)] for i in range(len(order)))
        case "slice":
            return tuple(_Axis(a.axis, a.step * step, start + a.start * step)
                         for a, start, step in zip(axes, node.attrs.start, node.attrs.step, strict=True))
        case "reshape":
            kept = [a for a, d in zip(axes, node.shape, strict=True) if d != 1]
            if [d for d in x.shape if d != 1] != [d for d in node.shape if d != 1]:
                return None
            left = iter(kept)
            return tuple(_Axis(None) if d == 1 else next(left) for d in x.shape)
        case _:
            return None
