"""Gathers and scatters as functions: `gather`, `index_select`, `scatter_`, `nonzero`, `take`, …

Index tensors count from the front; negative or too large ones stop the run with the user's line, as the operators
check them. Basic and advanced `x[…]` indexing is in `indexing.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import boolean, i64
from ...ir.errors import DTypeError, ShapeError
from ...ir.node import Node
from .inplace import check_leaf, inplace, store
from .nodes import axis_of, cast, common_dtype, expand
from .place import here
from .registry import METHODS, both, function, method
from .tensor import Tensor, from_array
from .trace import TRACE, apply, apply_mixed, need_values


def _integer(x: Node, what: str) -> None:
    if not x.dtype.is_integer:
        raise DTypeError(f"{what}: Expected dtype int32/int64 for index, got {x.dtype.long_name}")


def _window(b: Builder, x: Node, shape: tuple[int, ...], axis: int) -> Node:
    """x cut to the index's extents in all dimensions but `axis` (what torch's gather reads)."""
    size = tuple([d if i == axis else min(d, n) for i, (d, n) in enumerate(zip(x.shape, shape, strict=True))])
    if size == x.shape:
        return x
    rank = len(size)
    return b.slice(x, start=(0,) * rank, size=size, step=(1,) * rank)


def _gather(b: Builder, x: Node, index: Node, axis: int) -> Node:
    _integer(index, "gather()")
    if len(x.shape) != len(index.shape):
        if not x.shape or not index.shape:
            x = x if x.shape else b.reshape(x, shape=(1,))
            flat = index if index.shape else b.reshape(index, shape=(1,))
            return b.reshape(b.gather(x, flat, axis=0), shape=index.shape)
        raise ShapeError("Index tensor must have the same number of dimensions as input tensor")
    if not x.shape:
        return x
    for i, (d, n) in enumerate(zip(x.shape, index.shape, strict=True)):
        if i != axis and n > d:
            raise ShapeError(f"Size does not match at dimension {i} expected index {list(index.shape)} to be no larger "
                             f"than self {list(x.shape)} apart from dimension {axis}")
    return b.gather(_window(b, x, index.shape, axis), index, axis=axis)


@both()
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Elements of `input` at the positions that `index` gives along a dimension."""
    return apply(_gather, (input, index), (axis_of(dim, len(input._shape)),))  # type: ignore[no-any-return]


@both()
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with the other dimensions broadcast; of the flattened tensor if no dimension is given."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    axis = axis_of(dim, len(input._shape))
    from .nodes import broadcast_shapes

    free = broadcast_shapes(tuple([1 if i == axis else d for i, d in enumerate(input._shape)]),
                            tuple([1 if i == axis else d for i, d in enumerate(indices._shape)]))
    x = input.expand(tuple([input._shape[axis] if i == axis else d for i, d in enumerate(free)]))
    index = indices.expand(tuple([indices._shape[axis] if i == axis else d for i, d in enumerate(free)]))
    return gather(x, axis, index)


def _index_select(b: Builder, x: Node, index: Node, axis: int) -> Node:
    _integer(index, "index_select()")
    if len(index.shape) > 1:
        raise ShapeError("index_select(): Index is supposed to be a vector")
    if not index.shape:
        index = b.reshape(index, shape=(1,))
    if not x.shape:
        return b.reshape(b.index_select(b.reshape(x, shape=(1,)), index, axis=0), shape=())
    return b.index_select(x, index, axis=axis)


@both()
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices of a dimension, in the order of a vector of indices."""
    return apply(_index_select, (input, index), (axis_of(dim, len(input._shape)),))  # type: ignore[no-any-return]


# --- scatters ---------------------------------------------------------------------------------------------------------
def _scatter(b: Builder, x: Node, index: Node, src: Node, axis: int, op: str) -> Node:
    _integer(index, f"{op}()")
    src = cast(b, src, x.dtype)
    if not x.shape:
        x1 = b.reshape(x, shape=(1,))
        made = _scatter(b, x1, b.reshape(index, shape=(1,)), b.reshape(src, shape=(1,)), 0, op)
        return b.reshape(made, shape=())
    if len(index.shape) != len(x.shape):
        raise ShapeError("Index tensor must have the same number of dimensions as self tensor")
    if not src.shape:
        src = b.splat(src, index.shape)
    if src.shape != index.shape:
        if len(src.shape) != len(index.shape) or any(n > d for n, d in zip(index.shape, src.shape, strict=True)):
            raise ShapeError(f"Expected index {list(index.shape)} to be no larger than src {list(src.shape)}")
        rank = len(src.shape)
        src = b.slice(src, start=(0,) * rank, size=index.shape, step=(1,) * rank)
    inner = tuple([d if i == axis else n for i, (d, n) in enumerate(zip(x.shape, index.shape, strict=True))])
    if inner == x.shape:
        return getattr(b, op)(x, index, src, axis=axis)  # type: ignore[no-any-return]
    for i, (d, n) in enumerate(zip(x.shape, inner, strict=True)):
        if n > d:
            raise ShapeError(f"Expected index {list(index.shape)} to be no larger than self {list(x.shape)} apart from "
                             f"dimension {axis} (dimension {i})")
    made = getattr(b, op)(_window(b, x, inner, axis), index, src, axis=axis)
    from .views import _slice_write

    zeros, ones = (0,) * len(inner), (1,) * len(inner)
    return _slice_write(b, x, made, zeros, inner, ones)


def _source(src: Any, value: Any, input: Tensor) -> Any:
    chosen = src if value is None else value
    return chosen if isinstance(chosen, Tensor) else (chosen, input._dtype)


@both()
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy with `src` (a tensor or number) written at the positions that `index` gives along a dimension."""
    axis = axis_of(dim, len(input._shape))
    if reduce is not None:
        names = {"add": "sum", "multiply": "prod"}
        if reduce not in names:
            raise RuntimeError("reduce argument must be either add or multiply.")
        given = src if value is None else value
        given = given if isinstance(given, Tensor) else input.new_full(tuple(index._shape), given)
        return scatter_reduce(input, dim, index, given, names[reduce])
    return apply_mixed(_scatter, (input, index, _source(src, value, input)), (axis, "scatter"))  # type: ignore[no-any-return]


@both()
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with `src` added at the positions that `index` gives along a dimension."""
    return apply(_scatter, (input, index, src), (axis_of(dim, len(input._shape)), "scatter_add"))  # type: ignore[no-any-return]


@both()
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy with `src` combined at indexed positions: `sum`, `mean`, `amax`, `amin`, `prod`."""
    axis = axis_of(dim, len(input._shape))
    if reduce in ("sum", "mean"):
        base = input if include_self else scatter(input, dim, index, 0)
        total = scatter_add(base, dim, index, src)
        if reduce == "sum":
            return total
        ones = scatter_add(input.new_full(tuple(input._shape), 1 if include_self else 0), dim, index,
                           src.new_full(tuple(index._shape), 1))
        count = ones.clamp(min=1)
        return total / count if input._dtype.is_float else total.div(count, rounding_mode="floor")  # type: ignore[no-any-return]
    if reduce not in ("amax", "amin", "prod"):
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    return apply(_scatter_fold, (input, index, src), (axis, reduce, include_self))  # type: ignore[no-any-return]


def _scatter_fold(b: Builder, x: Node, index: Node, src: Node, axis: int, reduce: str, include_self: bool) -> Node:
    """Dense fold: every target position against every source position of its row."""
    n, m = x.shape[axis], index.shape[axis]
    rank = len(x.shape)
    src = _window(b, cast(b, src, x.dtype), index.shape, -1)
    x_part = _window(b, x, index.shape, axis)
    shape = (*x_part.shape[:axis], n, m, *x_part.shape[axis + 1:])
    rows = tuple([i if i < axis else i + 1 for i in range(rank)])
    spread_index = b.broadcast(index, shape=shape, dims=rows)
    spread_src = b.broadcast(src, shape=shape, dims=rows)
    hit = b.eq(spread_index, b.iota(shape=shape, axis=axis, dtype=index.dtype))
    neutral = {"amax": x.dtype.min, "amin": x.dtype.max, "prod": 1}[reduce]
    op = {"amax": "max", "amin": "min", "prod": "prod"}[reduce]
    folded = getattr(b, op)(b.select(hit, spread_src, b.like(neutral, x)), axes=(axis + 1,))
    combine = {"amax": "maximum", "amin": "minimum", "prod": "mul"}[reduce]
    touched = b.any(hit, axes=(axis + 1,))
    both_ = getattr(b, combine)(x_part, folded) if include_self else folded
    made = b.select(touched, both_, x_part)
    if made.shape == x.shape:
        return made
    from .views import _slice_write

    return _slice_write(b, x, made, (0,) * rank, made.shape, (1,) * rank)


def _index_write(b: Builder, x: Node, index: Node, src: Node, axis: int, op: str, alpha: Any) -> Node:
    _integer(index, f"{op}()")
    src = cast(b, src, x.dtype)
    if not index.shape:
        index = b.reshape(index, shape=(1,))
    if not src.shape or len(src.shape) < len(x.shape):
        want = tuple([index.shape[0] if i == axis else d for i, d in enumerate(x.shape)])
        src = expand(b, src, want)
    if alpha != 1:
        src = b.mul(src, b.like(alpha, src))
    return getattr(b, op)(x, index, src, axis=axis)  # type: ignore[no-any-return]


@both()
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with slices of `source` added at indexed positions of a dimension."""
    return apply(_index_write, (input, index, source), (axis_of(dim, len(input._shape)), "index_add", alpha))  # type: ignore[no-any-return]


@both()
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with slices of `source` written at indexed positions of a dimension."""
    return apply(_index_write, (input, index, source), (axis_of(dim, len(input._shape)), "index_copy", 1))  # type: ignore[no-any-return]


@both()
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with one value at indexed positions of a dimension."""
    src = value if isinstance(value, Tensor) else (value, input._dtype)
    return apply_mixed(_index_write, (input, index, src), (axis_of(dim, len(input._shape)), "index_copy", 1))  # type: ignore[no-any-return]


for _f in (scatter, scatter_add, scatter_reduce, index_add, index_copy, index_fill):
    METHODS[f"{_f.__name__}_"] = inplace(_f)


# --- masks and data-dependent shapes ----------------------------------------------------------------------------------
def indices_of(mask: Tensor, what: str) -> tuple[np.ndarray[Any, Any], ...]:
    """The coordinates of a mask's true elements: their number depends on the data, so the trace is run."""
    if TRACE.barrier is not None:
        need_values(f"{what} (its result's size depends on the data)", here(2).location)
    return np.nonzero(mask._array(what))


@both()
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of elements that are not zero: one row each, or one tensor per dimension."""
    if not input._shape:
        rows = np.zeros((int(bool(input)), 0), np.int64)
        return (from_array(rows[:, 0] if rows.shape[1] else rows.reshape(-1)),) if as_tuple else from_array(rows)
    found = indices_of(input, "nonzero()")
    if as_tuple:
        return tuple([from_array(f.astype(np.int64)) for f in found])
    return from_array(np.stack(found, 1).astype(np.int64))


@function()
def argwhere(input: Tensor) -> Tensor:
    """The indices of elements that are not zero, one row each."""
    return nonzero(input)  # type: ignore[no-any-return]


METHODS["argwhere"] = argwhere


@both()
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where a mask holds, as a vector."""
    from .ops_shape import broadcast_tensors

    x, m = broadcast_tensors(input, mask)
    flat = from_array(np.flatnonzero(m._array("masked_select()")).astype(np.int64))
    return index_select(x.reshape(-1), 0, flat)


def _masked_scatter(b: Builder, x: Node, mask: Node, source: Node) -> Node:
    if mask.dtype is not boolean:
        raise DTypeError(f"masked_scatter_ only supports boolean masks, but got dtype {mask.dtype.long_name}")
    mask = expand(b, mask, x.shape)
    count = 1
    for d in x.shape:
        count *= d
    order = b.cumsum(cast(b, b.reshape(mask, shape=(count,)), i64), axis=0)
    order = b.maximum(b.sub(order, b.scalar(1, i64)), b.scalar(0, i64))
    total = 1
    for d in source.shape:
        total *= d
    flat = cast(b, b.reshape(source, shape=(total,)), x.dtype)
    taken = b.index_select(flat, b.minimum(order, b.cast(b.extent(value=total), dtype=i64)), axis=0)
    return b.select(mask, b.reshape(taken, shape=x.shape), x)


@both()
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements of `source`, in order, where a mask holds."""
    return apply(_masked_scatter, (input, mask, source))  # type: ignore[no-any-return]


METHODS["masked_scatter_"] = inplace(masked_scatter)


@both()
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened tensor."""
    from .indexing import get

    return get(input.reshape(-1), index)


@method()
def put_(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Elements of the flattened tensor replaced (or added to)."""
    check_leaf(self)
    flat = self.reshape(-1)
    op = index_add if accumulate else index_copy
    return store(self, op(flat, 0, index.reshape(-1), source.reshape(-1)).reshape(tuple(self._shape)))


@both()
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """The distinct elements (or slices) in order, on request with the inverse indices and counts."""
    array = input._array("unique()")
    found = np.unique(array, return_inverse=True, return_counts=True, axis=dim)
    values = from_array(np.ascontiguousarray(found[0]), input._dtype)
    extras = []
    if return_inverse:
        inverse = found[1].reshape(array.shape if dim is None else -1)
        extras.append(from_array(inverse.astype(np.int64)))
    if return_counts:
        extras.append(from_array(found[2].astype(np.int64)))
    return (values, *extras) if extras else values


@both()
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """Runs of equal neighbours (of the flattened tensor) reduced to one element each."""
    array = input._array("unique_consecutive()").reshape(-1)
    edges = np.concatenate([[True], array[1:] != array[:-1]]) if array.size else np.zeros(0, bool)
    values = from_array(np.ascontiguousarray(array[edges]), input._dtype)
    extras = []
    if return_inverse:
        extras.append(from_array((np.cumsum(edges) - 1).astype(np.int64).reshape(input._shape)))
    if return_counts:
        starts = np.flatnonzero(np.concatenate([edges, [True]]))
        extras.append(from_array(np.diff(starts).astype(np.int64)))
    return (values, *extras) if extras else values


@both()
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each integer occurs (needs the values)."""
    counted = np.bincount(input._array("bincount()"), None if weights is None else weights._array("bincount()"),
                          minlength)
    return from_array(counted.astype(np.int64) if weights is None else counted)


@both()
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """A histogram of equal bins (needs the values)."""
    array = input._array("histc()")
    low, high = (float(array.min()), float(array.max())) if min == max == 0 and array.size else (min, max)
    counts, _ = np.histogram(array, bins, (low, high) if low != high else (low - 1, high + 1))
    return from_array(counts.astype(array.dtype), input._dtype)


def _searchsorted(b: Builder, edges: Node, values: Node, right: bool) -> Node:
    d = common_dtype((edges, values))
    edges, values = cast(b, edges, d), cast(b, values, d)
    n = edges.shape[-1]
    if len(edges.shape) == 1:
        shape = (*values.shape, n)
        wide = b.broadcast(edges, shape=shape, dims=(len(shape) - 1,))
    else:
        if edges.shape[:-1] != values.shape[:-1]:
            raise ShapeError("searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
                             "boundaries tensor and input value tensor must match")
        shape = (*values.shape, n)
        wide = b.broadcast(edges, shape=shape, dims=(*range(len(shape) - 2), len(shape) - 1))
    spread = b.broadcast(values, shape=shape, dims=tuple(range(len(values.shape))))
    before = b.le(wide, spread) if right else b.lt(wide, spread)
    return b.sum(b.cast(before, dtype=i64), axes=(len(shape) - 1,))


@function()
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Any = None) -> Tensor:
    """Where elements would have to be inserted to keep the order."""
    if not isinstance(input, Tensor):
        input = sorted_sequence.new_tensor(input)
    made = apply(_searchsorted, (sorted_sequence, input), (right or side == "right",))
    return made.int() if out_int32 else made  # type: ignore[no-any-return]


@function()
def bucketize(input: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The bucket of every element between sorted boundaries."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


METHODS["bucketize"] = bucketize


def _isin(b: Builder, x: Node, tests: Node) -> Node:
    d = common_dtype((x, tests))
    total = 1
    for e in tests.shape:
        total *= e
    flat = cast(b, b.reshape(tests, shape=(total,)), d)
    shape = (*x.shape, total)
    wide = b.broadcast(cast(b, x, d), shape=shape, dims=tuple(range(len(x.shape))))
    return b.any(b.eq(wide, b.broadcast(flat, shape=shape, dims=(len(shape) - 1,))), axes=(len(shape) - 1,))


@function()
def isin(elements: Tensor, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether elements are among others."""
    from .creation import tensor

    tests = test_elements if isinstance(test_elements, Tensor) else tensor(test_elements)
    x = elements if isinstance(elements, Tensor) else tensor(elements)
    made = apply(_isin, (x, tests))
    return ~made if invert else made  # type: ignore[no-any-return]
