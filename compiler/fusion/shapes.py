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

    Attributes:
        grid: the reductions fold rows, columns or both of one grid; `kept` are its rows, `reduced` its columns.
    """

    kept: Extents
    reduced: Extents
    pattern: tuple[bool, ...]
    orders: tuple[Extents, ...]
    grid: bool = False

    @property
    def total(self) -> bool:
        """Nothing is kept."""
        return all(self.pattern)

    @property
    def by_rows(self) -> bool:
        """The innermost axis is reduced."""
        return not self.pattern or self.pattern[-1]


def extents(shape: Iterable[Dim]) -> Extents:
    """Extents other than 1."""
    return tuple(d for d in shape if d != 1)


def reduction_space(node: Node) -> ReductionSpace:
    """The space of one reduction."""
    axes = set(node.attrs.axes)
    present = [(d, i in axes) for i, d in enumerate(node.inputs[0].shape) if d != 1]
    kept, reduced = (tuple(d for d, r in present if r is wanted) for wanted in (False, True))
    return ReductionSpace(kept, reduced, tuple(r for _, r in present), (tuple(d for d, _ in present),))


def common_space(nodes: list[Node]) -> ReductionSpace | None:
    """The space of several reductions that fold and keep the same axes, or None."""
    spaces = [reduction_space(n) for n in nodes]
    first = spaces[0]
    if any(s[:3] != first[:3] for s in spaces):
        return None
    return first._replace(orders=tuple(dict.fromkeys(o for s in spaces for o in s.orders)))


def grid_space(nodes: list[Node]) -> ReductionSpace | None:
    """The grid whose rows, columns, or both, several reductions fold, or None. Rows come first; only the last axis
    is a column where everything is folded."""
    spaces = [reduction_space(n) for n in nodes]
    first = next((s for s in spaces if not s.total), spaces[0])
    (full,) = first.orders
    if not any(first.pattern):
        return None
    split = max(len(full) - 1, 0) if first.total else first.pattern.index(not first.pattern[0])
    for s in spaces:
        wanted = (True,) * len(full) if s.total else (s.pattern[0],) * split + (not s.pattern[0],) * (len(full) - split)
        if s.orders != first.orders or s.pattern != wanted or (s.total and split != len(full) - 1):
            return None
    return ReductionSpace(full[:split], full[split:], first.pattern, first.orders, grid=True)


def fits(node: Node, space: ReductionSpace) -> bool:
    """Whether a result can be written from a kernel over `space`."""
    own = extents(node.shape)
    if space.grid:
        return own in (space.kept, space.reduced, (), *space.orders)
    if space.total:
        return not own
    return own == space.kept or own in space.orders


def size(node: Node) -> Dim:
    """Number of elements."""
    return product(node.shape)
