"""The iteration space of a group: axes, and where values of each shape lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...ir.dims import Dim, product
from ...ir.node import Node
from ...ir.opdef import Kind
from .errors import CannotLower
from .index_maps import Vector, axis, flatten
from .kernel_ir import Axis, Fold
from .sizes import Dims, GroupSizes, factors


class Point(NamedTuple):
    """Where a reduction lies: its own coordinate, its operand's, and which axes it folds."""

    own: Vector
    operand: Vector
    fold: Fold


@dataclass(frozen=True)
class Space:
    """Axes of a group's loops.

    Attributes:
        kept, reduced: the axes; `reduced` is empty without reductions.
        orders: known row-major orders of axes; a shape is located by matching its extents with one of them.
        template: the loops that walk the space.
        points: the reductions.
    """

    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    orders: tuple[tuple[Axis, ...], ...]
    template: str = "map"
    points: Mapping[Node, Point] = field(default_factory=dict)

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


class _Shape(NamedTuple):
    """A reduction's operand: the extents of its axes other than 1, dim by dim, and which dims are reduced."""

    dims: tuple[tuple[Dim, ...], ...]
    reduced: tuple[bool, ...]

    def part(self, reduced: bool) -> list[Dim]:
        return [e for dim, r in zip(self.dims, self.reduced, strict=True) if r is reduced for e in dim]

    @property
    def fold(self) -> Fold:
        """What it folds of a grid: the innermost dim decides. Nothing reduced (but ones) is a row of one element."""
        if all(self.reduced):
            return "all"
        return "reduced" if self.reduced[-1] or not any(self.reduced) else "kept"

    @property
    def split(self) -> int:
        """How many leading dims are rows, if it is reduced in a grid."""
        return max(len(self.dims) - 1, 0) if self.fold == "all" else self.reduced.index(not self.reduced[0])

    @property
    def is_grid(self) -> bool:
        """Whether rows come first and columns last."""
        return self.fold == "all" or (any(self.reduced) and len(set(self.reduced[self.split:])) == 1)


def _shape(node: Node, sizes: GroupSizes) -> _Shape:
    axes = set(node.attrs.axes)
    dims = [(tuple(extents_of((d,))), i in axes) for i, d in enumerate(sizes.shape(node.inputs[0]))]
    present = [(e, r) for e, r in dims if e]
    return _Shape(tuple(e for e, _ in present), tuple(r for _, r in present))


def reduction_space(reductions: Sequence[Node], sizes: GroupSizes) -> Space:
    """The common space of the reductions of a group.

    Raises:
        CannotLower: there is none.
    """
    shapes = {r: _shape(r, sizes) for r in reductions}
    folds = {s.fold for s in shapes.values()}
    if folds == {"reduced"} or (folds == {"kept"} and not all(s.is_grid for s in shapes.values())):
        return _uniform(shapes, sizes)
    return _grid(shapes, sizes)


def _grid(shapes: Mapping[Node, _Shape], sizes: GroupSizes) -> Space:
    """Rows and columns, each of which some reductions fold."""
    first = next((s for s in shapes.values() if s.fold != "all"), next(iter(shapes.values())))
    if not first.is_grid:
        raise CannotLower("reductions of columns and of rows that do not lie behind one another")
    dims, split = first.dims, first.split
    for s in shapes.values():
        if not (s.is_grid and s.dims == dims and s.split == split):
            raise CannotLower("reductions over different rows and columns in one group")
    rows, columns = ([e for dim in part for e in dim] for part in (dims[:split], dims[split:]))
    kept = tuple(Axis(f"i{k}", e) for k, e in enumerate(rows))
    # All ones: a loop of one pass, so that there is an axis to run over.
    reduced = tuple(Axis(f"r{k}", e) for k, e in enumerate(columns)) or (Axis("r0", 1),)
    points = {}
    for node, s in shapes.items():
        operand = _coordinate(sizes.shape(node.inputs[0]), (*kept, *reduced))
        points[node] = Point(_own(node, operand), operand, s.fold)
    # Where rows and columns have the same extents a shape does not tell them apart.
    parts = (kept, reduced) if rows != columns else ()
    orders = tuple(dict.fromkeys(((*kept, *reduced), *parts, ())))
    return Space(kept, reduced, orders, "grid", points)


def _uniform(shapes: Mapping[Node, _Shape], sizes: GroupSizes) -> Space:
    """Reductions that fold and keep the same axes, in whatever order these lie."""
    first = next(iter(shapes.values()))
    kept = tuple(Axis(f"i{k}", e) for k, e in enumerate(first.part(False)))
    reduced = tuple(Axis(f"r{k}", e) for k, e in enumerate(first.part(True))) or (Axis("r0", 1),)
    orders: list[tuple[Axis, ...]] = []
    points = {}
    for node, s in shapes.items():
        if s.fold != first.fold or s.part(False) != first.part(False) or s.part(True) != first.part(True):
            raise CannotLower("reductions over different axes in one group")
        take_kept, take_reduced = iter(kept), iter(reduced)
        order = tuple(next(take_reduced if r else take_kept)
                      for dim, r in zip(s.dims, s.reduced, strict=True) for _ in dim)
        operand = _coordinate(sizes.shape(node.inputs[0]), order)
        points[node] = Point(_own(node, operand), operand, "reduced")
        orders.append(order)
    template = "row" if first.fold == "reduced" else "column"
    return Space(kept, reduced, (*dict.fromkeys(orders), kept), template, points)


def _coordinate(shape: Dims, order: Sequence[Axis]) -> Vector:
    """The coordinate of a point in a tensor whose axes lie in this order."""
    rest = iter(order)
    vector: list[Dim] = []
    for extent in shape:
        taken = [next(rest) for _ in extents_of((extent,))]
        vector.append(flatten([axis(a.name) for a in taken], [a.extent for a in taken]) if taken else 0)
    return tuple(vector)


def _own(node: Node, operand: Vector) -> Vector:
    axes = set(node.attrs.axes)
    return tuple(at for i, at in enumerate(operand) if i not in axes)


def reductions_of(nodes: Sequence[Node]) -> list[Node]:
    """The reductions among nodes, in order."""
    return [n for n in nodes if n.op.kind is Kind.REDUCTION]
