"""Sums of disjoint parts: what the cotangents of slices of one tensor add up to.

The gradient of a slice is the slice's cotangent padded with zeros, and a tensor that is taken apart (`chunk`, `split`,
`unbind`, `x[..., 0]`, `x[..., 1]`) gets the sum of such pads. Where no two parts overlap, that sum is a concatenation.
"""

from __future__ import annotations

from typing import NamedTuple

from ....ir.build import Builder
from ....ir.dims import Dim
from ....ir.node import Node
from .patterns import is_scalar_constant


class _Part(NamedTuple):
    """Elements `[start, stop)` along an axis of a sum; all others are zero."""

    start: Dim
    stop: Dim
    node: Node


class _Parts(NamedTuple):
    axis: int
    parts: tuple[_Part, ...]


def joined_parts(b: Builder, n: Node) -> Node | None:
    """A sum of operands that are zero but for disjoint parts along one axis → the concatenation of the parts.

    Zeros are not added any more: a −0.0 stays one. What no part covers is filled with zeros; a concatenation says so
    by parts that are broadcast zeros, so that further terms of the sum find the room. Views that both operands are
    read through (one tensor, taken apart behind a permute) come behind the concatenation.
    """
    first, second = n.inputs
    views: list[Node] = []
    while _same_view(first, second):
        views.append(first)
        first, second = first.inputs[0], second.inputs[0]
    joined = _joined(b, first, second)
    if joined is None:
        return None
    for view in reversed(views):
        joined = view.with_inputs((joined,))
    return joined


def _same_view(x: Node, y: Node) -> bool:
    """Whether two nodes move the elements of equally shaped operands alike, each to one place."""
    same_kind = x.op.name in ("permute", "reshape") and x.op is y.op and x.attrs == y.attrs
    return same_kind and bool(x.inputs[0].shape == y.inputs[0].shape)


def _joined(b: Builder, x: Node, y: Node) -> Node | None:
    """The sum of two nodes as a concatenation, if they are disjoint parts."""
    first, second = _parts(x), _parts(y)
    if first is None or second is None or first.axis != second.axis:
        return None
    axis, extent = first.axis, x.shape[first.axis]
    ordered = _in_order([*first.parts, *second.parts])
    if ordered is None:
        return None
    pieces: list[Node] = []
    at = ordered[0].start
    for part in ordered:
        if part.start != at:
            pieces.append(_zeros(b, x, axis, part.start - at))
        pieces.append(part.node)
        at = part.stop
    joined = b.concat(*pieces, axis=axis)
    low, high = ordered[0].start, extent - at
    if low == 0 and high == 0:
        return joined
    pads: list[tuple[Dim, Dim, int]] = [(0, 0, 0)] * len(x.shape)
    pads[axis] = (low, high, 0)
    return b.pad(joined, b.like(0, x), pads=tuple(pads))


def _zeros(b: Builder, n: Node, axis: int, extent: Dim) -> Node:
    return b.full(0, n.dtype, (*n.shape[:axis], extent, *n.shape[axis + 1:]))


def _parts(n: Node) -> _Parts | None:
    """What a term consists of, or None if it is not known to be zero anywhere."""
    if n.op.name == "pad":
        axis = _padded_axis(n)
        if axis is None:
            return None
        low = n.attrs.pads[axis][0]
        inner = _concatenated(n.inputs[0], low)
        if inner is not None and inner.axis == axis:
            return inner
        return _Parts(axis, (_Part(low, low + n.inputs[0].shape[axis], n.inputs[0]),))
    found = _concatenated(n, 0)
    return found if found is not None and len(found.parts) < len(n.inputs) else None


def _padded_axis(n: Node) -> int | None:
    """The one axis along which a pad adds zeros around its operand, and nothing between its elements."""
    if not _is_zero(n.inputs[1]):
        return None
    axes = [i for i, pad in enumerate(n.attrs.pads) if pad != (0, 0, 0)]
    if len(axes) != 1:
        return None
    low, high, interior = n.attrs.pads[axes[0]]
    return axes[0] if interior == 0 and not (_is_negative(low) or _is_negative(high)) else None


def _concatenated(n: Node, start: Dim) -> _Parts | None:
    """The operands of a concatenation that begins at `start`, zeros left out."""
    if n.op.name != "concat":
        return None
    axis = n.attrs.axis
    parts = []
    for x in n.inputs:
        stop = start + x.shape[axis]
        if not (x.op.name == "broadcast" and _is_zero(x.inputs[0])):
            parts.append(_Part(start, stop, x))
        start = stop
    return _Parts(axis, tuple(parts))


def _is_zero(n: Node) -> bool:
    return is_scalar_constant(n) and bool(n.attrs.value.array == 0)


def _is_negative(d: Dim) -> bool:
    return isinstance(d, int) and d < 0


def _in_order(parts: list[_Part]) -> list[_Part] | None:
    """The parts by position, or None where two overlap or their order cannot be told."""
    rest, ordered = list(parts), list[_Part]()
    while rest:
        first = [p for p in rest if all(q is p or _not_after(p.stop, q.start) for q in rest)]
        if len(first) != 1:
            return None
        ordered += first
        rest.remove(first[0])
    return ordered


def _not_after(a: Dim, c: Dim) -> bool:
    """Whether a ≤ c for every value of the named sizes, all of which are positive."""
    room = c - a
    if isinstance(room, int):
        return room >= 0
    return all(k > 0 and all(isinstance(atom, str) for atom in m) for m, k in room.terms)
