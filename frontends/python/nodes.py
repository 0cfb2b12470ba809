"""Node-level helpers that recorded functions share: promotion, broadcasting, axes, means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from ...ir.build import Builder
from ...ir.dtypes import DType, boolean, i64
from ...ir.errors import ShapeError
from ...ir.node import Node
from . import dtypes

Shape = tuple[int, ...]


@lru_cache(maxsize=8192)
def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape by NumPy's rules. Raises ShapeError in PyTorch's words."""
    rank = max(map(len, shapes), default=0)
    out = [1] * rank
    for shape in shapes:
        for axis, extent in enumerate(shape, rank - len(shape)):
            have = out[axis]
            if have == extent or extent == 1:
                continue
            if have != 1:
                raise ShapeError(f"The size of tensor a ({have}) must match the size of tensor b ({extent}) at "
                                 f"non-singleton dimension {axis}: shapes {', '.join(str(list(s)) for s in shapes)}")
            out[axis] = extent
    return tuple(out)


def expand(b: Builder, x: Node, shape: Shape) -> Node:
    """x repeated to `shape` (its axes align with the last ones)."""
    if x.shape == shape:
        return x
    lead = len(shape) - len(x.shape)
    made: Node = b.broadcast(x, shape=shape, dims=tuple(range(lead, len(shape))))
    return made


def align(b: Builder, *xs: Node) -> tuple[Node, ...]:
    """Operands of one shape for an elementwise operator; rank-0 ones stay (the IR splats them)."""
    first = xs[0].shape
    if all(x.shape == first for x in xs):
        return xs
    shape = broadcast_shapes(*[x.shape for x in xs])
    if not shape:
        return xs
    return tuple([x if not x.shape else expand(b, x, shape) for x in xs])


def cast(b: Builder, x: Node, dtype: DType) -> Node:
    """x as `dtype`."""
    return x if x.dtype is dtype else b.cast(x, dtype=dtype)


def promote(b: Builder, *xs: Node) -> tuple[Node, ...]:
    """Operands cast to their common dtype."""
    dtype = common_dtype(xs)
    return tuple([cast(b, x, dtype) for x in xs])


def common_dtype(xs: Sequence[Node]) -> DType:
    """The promoted dtype of several operands: ranked ones first, then 0-dim ones of a higher category."""
    full = [x.dtype for x in xs if x.shape]
    zero = [x.dtype for x in xs if not x.shape]
    result: DType | None = None
    for d in full:
        result = d if result is None else dtypes.promote_types(result, d)
    for d in zero:
        result = d if result is None else dtypes.promote_ranked(result, not full, d, True)
    assert result is not None
    return result


def floating(b: Builder, x: Node) -> Node:
    """x as a float: integers and bools become the default dtype."""
    return x if x.dtype.is_float else cast(b, x, dtypes.default())


def axis_of(dim: int, rank: int) -> int:
    """A dimension number as an axis. Raises IndexError in PyTorch's words."""
    span = max(rank, 1)
    if not -span <= dim < span:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got {dim})")
    return dim % span


def axes_of(dim: Any, rank: int) -> tuple[int, ...]:
    """A `dim` argument (None, an int, a sequence) as sorted axes. Raises on repeats."""
    if dim is None:
        return tuple(range(rank))
    if isinstance(dim, (tuple, list)):
        if not dim:
            return tuple(range(rank))
        axes = [axis_of(int(d), rank) for d in dim]
        if len(set(axes)) != len(axes):
            twice = next(a for a in axes if axes.count(a) > 1)
            raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
        return tuple(sorted(axes)) if rank else ()
    axis = axis_of(int(dim), rank)
    return (axis,) if rank else ()


def keep(b: Builder, reduced: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduction's result with its axes back as extents of 1."""
    if not axes:
        return reduced
    made: Node = b.reshape(reduced, shape=tuple([1 if i in axes else d for i, d in enumerate(shape)]))
    return made


def spread(b: Builder, reduced: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduction's result repeated along its axes."""
    return b.expand(reduced, shape, axes) if axes else reduced


def count_of(b: Builder, x: Node, axes: tuple[int, ...], dtype: DType) -> Node:
    """The number of elements under a reduction, as an expression of sizes."""
    total: Any = 1
    for a in axes:
        total = total * x.shape[a]
    made: Node = b.cast(b.extent(value=total), dtype=dtype)
    return made


def mean(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """The average over axes, which are dropped."""
    if not axes:
        return x
    wide = x.dtype.compute
    total = b.sum(cast(b, x, wide), axes=axes)
    return cast(b, b.div(total, count_of(b, x, axes, wide)), x.dtype)


def zeros(b: Builder, dtype: DType, shape: Shape) -> Node:
    """A tensor of zeros."""
    return b.full(False if dtype is boolean else 0, dtype, shape)


def index_of(b: Builder, idx: Node, extent: int) -> Node:
    """A tensor of Python-style indices: negative ones count from the end."""
    idx = cast(b, idx, i64)
    wrapped = b.add(idx, b.cast(b.extent(value=extent), dtype=i64))
    made: Node = b.select(b.lt(idx, b.scalar(0, i64)), wrapped, idx)
    return made


Recorded = Callable[..., Any]
