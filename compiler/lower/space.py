"""The iteration space of a group: axes, and where values of each shape lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.dims import Dim, product
from ...ir.node import Node
from ...ir.opdef import Kind
from .errors import CannotLower
from .index_maps import Vector, axis, flatten
from .kernel_ir import Axis
from .sizes import Dims, GroupSizes, factors


@dataclass(frozen=True)
class Space:
    """Axes of a group's loops.

    Attributes:
        kept, reduced: the axes; `reduced` is empty without reductions.
        orders: known row-major orders of axes; a shape is located by matching its extents with one of them.
        by_rows: the innermost axis of the reduced operands is among the reduced ones.
    """

    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    orders: tuple[tuple[Axis, ...], ...]
    by_rows: bool = False

    @property
    def extents(self) -> dict[str, Dim]:
        """Extent of each axis by name."""
        return {a.name: a.extent for a in self.kept + self.reduced}

    def locate(self, shape: Dims) -> Vector:
        """The coordinate in a tensor of this shape at the current point.

        Raises:
            CannotLower: the shape is no part of the space.
        """
        for order in self.orders:
            vector = _match(shape, order)
            if vector is not None:
                return vector
        raise CannotLower(f"a value of shape [{','.join(map(str, shape))}] does not lie in the group's loops")


def _match(shape: Dims, order: Sequence[Axis]) -> Vector | None:
    rest = list(order)
    vector: list[Dim] = []
    for extent in shape:
        if extent == 1:
            vector.append(0)
            continue
        taken: list[Axis] = []
        while rest and product([a.extent for a in taken]) != extent:
            taken.append(rest.pop(0))
        if product([a.extent for a in taken]) != extent:
            return None
        vector.append(flatten([axis(a.name) for a in taken], [a.extent for a in taken]))
    return None if rest else tuple(vector)


def extents_of(shape: Dims) -> list[Dim]:
    """The loop extents of a shape: its factors, without ones."""
    return [f for d in shape for f in factors(d) if f != 1]


def map_space(shape: Dims) -> Space:
    """The space of a group without reductions whose results have this shape."""
    axes = tuple(Axis(f"i{k}", extent) for k, extent in enumerate(extents_of(shape)))
    return Space(axes, (), (axes,))


def reduction_space(reductions: Sequence[Node], sizes: GroupSizes) -> Space:
    """The common space of the reductions of a group.

    Raises:
        CannotLower: they do not reduce alike.
    """
    kept: tuple[Axis, ...] = ()
    reduced: tuple[Axis, ...] = ()
    orders: list[tuple[Axis, ...]] = []
    by_rows = False
    for node in reductions:
        shape, axes = sizes.shape(node.inputs[0]), set(node.attrs.axes)
        rows = not shape or len(shape) - 1 in axes
        here_kept = [e for i, d in enumerate(shape) if i not in axes for e in extents_of((d,))]
        here_reduced = [e for i, d in enumerate(shape) if i in axes for e in extents_of((d,))]
        if not orders:
            kept = tuple(Axis(f"i{k}", e) for k, e in enumerate(here_kept))
            # All ones: a loop of one pass, so that every template has an axis to run over.
            reduced = tuple(Axis(f"r{k}", e) for k, e in enumerate(here_reduced)) or (Axis("r0", 1),)
            by_rows = rows
        elif (rows != by_rows or here_kept != [a.extent for a in kept]
              or (here_reduced or [1]) != [a.extent for a in reduced]):
            raise CannotLower("reductions over different axes in one group")
        take_kept, take_reduced = iter(kept), iter(reduced)
        order = tuple(next(take_reduced if i in axes else take_kept)
                      for i, d in enumerate(shape) for _ in extents_of((d,)))
        if order not in orders:
            orders.append(order)
    return Space(kept, reduced, (*orders, kept), by_rows)


def reductions_of(nodes: Sequence[Node]) -> list[Node]:
    """The reductions among nodes, in order."""
    return [n for n in nodes if n.op.kind is Kind.REDUCTION]
