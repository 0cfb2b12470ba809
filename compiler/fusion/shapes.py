"""Iteration spaces as the fusion pass sees them: extents of the graph, compared as expressions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...ir.dims import Dim, product
from ...ir.node import Node

Extents = tuple[Dim, ...]


class ReductionSpace(NamedTuple):
    """What reductions must share to be computed in one kernel.

    `pattern` says of each extent other than 1 whether it is reduced: sums of one [3,3,4] over its first and over its
    second axis have equal extents but no common space.
    """

    kept: Extents
    reduced: Extents
    by_rows: bool
    pattern: tuple[bool, ...]
    orders: tuple[Extents, ...]

    @property
    def total(self) -> bool:
        """Nothing is kept."""
        return not self.kept and self.by_rows


def extents(shape: Iterable[Dim]) -> Extents:
    """Extents other than 1."""
    return tuple(d for d in shape if d != 1)


def reduction_space(node: Node) -> ReductionSpace:
    """The space of one reduction."""
    shape, axes = node.inputs[0].shape, set(node.attrs.axes)
    kept = extents(d for i, d in enumerate(shape) if i not in axes)
    reduced = extents(d for i, d in enumerate(shape) if i in axes)
    pattern = tuple(i in axes for i, d in enumerate(shape) if d != 1)
    return ReductionSpace(kept, reduced, not shape or len(shape) - 1 in axes, pattern, (extents(shape),))


def common_space(nodes: list[Node]) -> ReductionSpace | None:
    """The space of several reductions, or None if they have no common one."""
    spaces = [reduction_space(n) for n in nodes]
    first = spaces[0]
    if any(s[:4] != first[:4] for s in spaces):
        return None
    return first._replace(orders=tuple(dict.fromkeys(o for s in spaces for o in s.orders)))


def fits(node: Node, space: ReductionSpace) -> bool:
    """Whether a result can be written from a kernel over `space`."""
    own = extents(node.shape)
    if space.total:
        return not own
    return own == space.kept or own in space.orders


def size(node: Node) -> Dim:
    """Number of elements."""
    return product(node.shape)
