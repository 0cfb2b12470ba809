"""Movement that copies: clones, joins, repeats, flips, rolls, triangles, diagonals, grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import boolean, i64
from ...ir.errors import ShapeError
from ...ir.node import Node
from .inplace import inplace
from .nodes import axes_of, axis_of, cast, common_dtype
from .nodes import expand as expand_node
from .ops_shape import diagonal as diagonal_of
from .ops_shape import eager, expand, ints, movedim, reshape, transpose
from .place import here
from .registry import METHODS, both, function, method
from .tensor import Tensor, from_array
from .trace import apply


def _identity(b: Builder, x: Node) -> Node:
    return x


@both()
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy."""
    if eager(input):
        return from_array(np.array(input._array("clone"), order="C", copy=True), input._dtype)
    return apply(_identity, (input,))  # type: ignore[no-any-return]


@method()
def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its memory is row-major, else a copy."""
    return self if self.is_contiguous() else clone(self)


def _concat(b: Builder, *args: Any) -> Node:
    *xs, axis = args
    d = common_dtype(xs)
    return b.concat(*[cast(b, x, d) for x in xs], axis=axis)


@function("cat", "concat", "concatenate")
def cat(tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None, out: Any = None) -> Tensor:
    """Tensors joined along an existing dimension."""
    dim = dim if axis is None else axis
    items = [x for x in tensors if x._shape != (0,)] or list(tensors)[:1]
    if not items:
        raise ShapeError("torch.cat(): expected a non-empty list of Tensors", location=here(2).location)
    rank = len(items[0]._shape)
    if any(not x._shape for x in items):
        raise ShapeError("zero-dimensional tensor (at position 0) cannot be concatenated", location=here(2).location)
    at = axis_of(dim, rank)
    for i, x in enumerate(items):
        if len(x._shape) != rank:
            raise ShapeError(f"Tensors must have same number of dimensions: got {rank} and {len(x._shape)}",
                             location=here(2).location)
        if any(a != c for k, (a, c) in enumerate(zip(x._shape, items[0]._shape, strict=True))
                                        if k != at):
            raise ShapeError(f"Sizes of tensors must match except in dimension {at}. Expected "
                             f"{list(items[0]._shape)} but got {list(x._shape)} for tensor number {i} in the list.",
                             location=here(2).location)
    if len(items) == 1:
        return clone(items[0])
    if eager(*items) and len({x._dtype for x in items}) == 1:
        return from_array(np.concatenate([x._array("cat") for x in items], axis=at), items[0]._dtype)
    return apply(_concat, tuple(items), (at,))  # type: ignore[no-any-return]


@function()
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Any = None) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    items = list(tensors)
    if not items:
        raise ShapeError("stack expects a non-empty TensorList", location=here(2).location)
    shape = items[0]._shape
    for i, x in enumerate(items):
        if x._shape != shape:
            raise ShapeError(f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                             f"{list(x._shape)} at entry {i}", location=here(2).location)
    at = axis_of(dim, len(shape) + 1)
    if eager(*items) and len({x._dtype for x in items}) == 1:
        return from_array(np.stack([x._array("stack") for x in items], axis=at), items[0]._dtype)
    return apply(_stack, tuple(items), (at,))  # type: ignore[no-any-return]


def _stack(b: Builder, *args: Any) -> Node:
    *xs, axis = args
    d = common_dtype(xs)
    rows = [b.reshape(cast(b, x, d), shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in xs]
    return b.concat(*rows, axis=axis) if len(rows) > 1 else rows[0]


def _at_least(rank: int) -> Any:
    def lift(x: Tensor) -> Tensor:
        while x.dim() < rank:
            x = x.unsqueeze(-1) if x.dim() == 2 else x.unsqueeze(0)
        return x

    def call(*tensors: Any) -> Any:
        items = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
        lifted = tuple([lift(x) for x in items])
        return lifted[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) else lifted

    call.__name__, call.__doc__ = f"atleast_{rank}d", f"Tensors with at least {rank} dimensions."
    return function(call.__name__)(call)


atleast_1d, atleast_2d, atleast_3d = _at_least(1), _at_least(2), _at_least(3)


@function("vstack", "row_stack")
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Rows on top of each other."""
    return cat(atleast_2d(list(tensors)), 0)


@function()
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors side by side."""
    items = atleast_1d(list(tensors))
    return cat(items, 0 if items[0].dim() == 1 else 1)


@function()
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the third dimension."""
    return cat(atleast_3d(list(tensors)), 2)


@function()
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as columns of a matrix."""
    return hstack([x.reshape(x.numel(), 1) if x.dim() <= 1 else x for x in tensors])


@method()
def repeat(self: Tensor, *repeats: Any) -> Tensor:
    """The whole tensor repeated along each dimension."""
    times = ints(repeats)
    if len(times) < len(self._shape):
        raise ShapeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    return apply(_repeat, (self,), (times,))  # type: ignore[no-any-return]


def _repeat(b: Builder, x: Node, times: tuple[int, ...]) -> Node:
    shape = (1,) * (len(times) - len(x.shape)) + tuple(x.shape)
    if all(k == 1 for k in times):
        return b.reshape(x, shape=shape)
    x = b.reshape(x, shape=shape)
    if all(k == 1 or d == 1 for k, d in zip(times, shape, strict=True)):
        return expand_node(b, x, tuple([k if d == 1 else d for k, d in zip(times, shape, strict=True)]))
    pairs = tuple([e for k, d in zip(times, shape, strict=True) for e in (k, d)])
    wide = b.broadcast(x, shape=pairs, dims=tuple(range(1, 2 * len(shape), 2)))
    return b.reshape(wide, shape=tuple([k * d for k, d in zip(times, shape, strict=True)]))


@both()
def tile(input: Tensor, *dims: Any) -> Tensor:
    """`repeat`, with missing leading repeats taken as 1."""
    times = ints(dims)
    return repeat(input, (1,) * (len(input._shape) - len(times)) + times)


@both()
def repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element repeated in place along a dimension (of the flattened tensor if none)."""
    if dim is None:
        input, dim = reshape(input, -1), 0
    axis = axis_of(dim, len(input._shape))
    if isinstance(repeats, Tensor):
        counts = np.broadcast_to(repeats._array("repeat_interleave"), (input._shape[axis],))
        index = from_array(np.repeat(np.arange(input._shape[axis], dtype=np.int64), counts))
        from .ops_index import index_select

        return index_select(input, axis, index)
    return apply(_interleave, (input,), (int(repeats), axis))  # type: ignore[no-any-return]


def _interleave(b: Builder, x: Node, times: int, axis: int) -> Node:
    shape = x.shape
    wide = b.broadcast(x, shape=(*shape[:axis + 1], times, *shape[axis + 1:]),
                       dims=tuple([i if i <= axis else i + 1 for i in range(len(shape))]))
    return b.reshape(wide, shape=(*shape[:axis], shape[axis] * times, *shape[axis + 1:]))


def _flip(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    return b.flip(x, axes=axes) if axes else x


@both()
def flip(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in reverse order."""
    wanted = ints(dims)
    return apply(_flip, (input,), (axes_of(wanted, len(input._shape)) if wanted else (),))  # type: ignore[no-any-return]


@both()
def fliplr(input: Tensor) -> Tensor:
    """Columns reversed."""
    return flip(input, 1)


@both()
def flipud(input: Tensor) -> Tensor:
    """Rows reversed."""
    return flip(input, 0)


def _roll(b: Builder, x: Node, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Node:
    for shift, axis in zip(shifts, axes, strict=True):
        extent = x.shape[axis]
        shift = shift % extent if extent else 0
        if not shift:
            continue
        rank = len(x.shape)
        parts = [b.slice(x, start=tuple([start if i == axis else 0 for i in range(rank)]),
                         size=tuple([size if i == axis else d for i, d in enumerate(x.shape)]), step=(1,) * rank)
                 for start, size in ((extent - shift, shift), (0, extent - shift))]
        x = b.concat(*parts, axis=axis)
    return x


@both()
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved along dimensions, re-entering at the other end."""
    moves = ints((shifts,)) if isinstance(shifts, (tuple, list)) else (int(shifts),)
    if dims is None:
        return reshape(apply(_roll, (reshape(input, -1),), (moves, (0,))), tuple(input._shape))
    axes = tuple([axis_of(d, len(input._shape)) for d in (dims if isinstance(dims, (tuple, list)) else [dims])])
    return apply(_roll, (input,), (moves, axes))  # type: ignore[no-any-return]


@both()
def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Rotated by quarter turns in a plane."""
    a, c = dims
    k %= 4
    if k == 1:
        return transpose(flip(input, c), a, c)
    if k == 2:
        return flip(input, a, c)
    return flip(transpose(input, a, c), c) if k == 3 else clone(input)


# --- triangles and diagonals ------------------------------------------------------------------------------------------
def triangle(b: Builder, rows: int, cols: int, diagonal: int, upper: bool) -> Node:
    """[rows, cols], true on and below (or above) a diagonal."""
    row, col = (b.iota(shape=(rows, cols), axis=axis, dtype=i64) for axis in (0, 1))
    edge = b.add(row, b.scalar(diagonal, i64)) if diagonal else row
    return b.ge(col, edge) if upper else b.le(col, edge)


def _tri(b: Builder, x: Node, diagonal: int, upper: bool) -> Node:
    if len(x.shape) < 2:
        raise ShapeError("tril/triu: input tensor must have at least 2 dimensions")
    mask = expand_node(b, triangle(b, x.shape[-2], x.shape[-1], diagonal, upper), x.shape)
    return b.select(mask, x, b.like(False if x.dtype is boolean else 0, x))


@both()
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices, zero elsewhere."""
    return apply(_tri, (input,), (diagonal, False))  # type: ignore[no-any-return]


@both()
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices, zero elsewhere."""
    return apply(_tri, (input,), (diagonal, True))  # type: ignore[no-any-return]


METHODS["tril_"], METHODS["triu_"] = inplace(tril), inplace(triu)


def _diag_embed(b: Builder, x: Node, offset: int) -> Node:
    n = x.shape[-1] + abs(offset)
    lead = x.shape[:-1]
    zero = b.like(0, x)
    column = b.reshape(x, shape=(*x.shape, 1))
    none = ((0, 0, 0),) * len(lead)
    # Element i at (i − min(offset, 0), i + max(offset, 0)): rows of n + 1 columns, cut to n × n.
    rows = b.pad(column, zero, pads=(*none, (0, 0, 0), (0, n, 0)))
    flat = b.reshape(rows, shape=(*lead, x.shape[-1] * (n + 1)))
    start = max(offset, 0) + max(-offset, 0) * n
    total = n * n
    flat = b.pad(flat, zero, pads=(*none, (start, total - start - x.shape[-1] * (n + 1), 0)))
    return b.reshape(flat, shape=(*lead, n, n))


@both()
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on a diagonal."""
    made = apply(_diag_embed, (input,), (offset,))
    return made if (dim1, dim2) == (-2, -1) else movedim(made, (-2, -1), (dim1, dim2))


@both()
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal matrix, or the diagonal of a matrix."""
    if len(input._shape) == 1:
        return diag_embed(input, diagonal)
    if len(input._shape) != 2:
        raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {len(input._shape)}D")
    return clone(diagonal_of(input, diagonal))


@both()
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """All elements on the diagonal of a matrix."""
    return diag_embed(reshape(input, -1), offset)


@both()
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    if len(input._shape) != 2:
        raise ShapeError("trace: expected a matrix")
    return diagonal_of(input).sum()  # type: ignore[no-any-return]


@function()
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of several vectors."""
    items = list(tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors)
    if indexing not in ("ij", "xy"):
        raise ValueError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    swap = indexing == "xy" and len(items) > 1
    if swap:
        items[0], items[1] = items[1], items[0]
    shape = tuple([x.numel() for x in items])
    grids = [expand(x.reshape(tuple([x.numel() if i == k else 1 for i in range(len(items))])), shape)
             for k, x in enumerate(items)]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


@function()
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of elements of vectors, one a row."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([g.reshape(-1) for g in meshgrid(*tensors)], 1)


@function()
def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a larger one."""
    from .nn.functional import pad

    items = [atleast_2d(x) for x in tensors]
    width = sum(x._shape[1] for x in items)
    rows, left = [], 0
    for x in items:
        rows.append(pad(x, (left, width - left - x._shape[1])))
        left += x._shape[1]
    return cat(rows, 0)
