"""Reductions, and the functions built on them: means, variances, norms, softmax, cumulative sums, sorting."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

from ...ir.build import Builder
from ...ir.dtypes import DType, boolean, f32, i64
from ...ir.errors import DTypeError
from ...ir.node import Node
from . import dtypes
from .nodes import axes_of, axis_of, cast, count_of, floating, keep, spread
from .nodes import mean as mean_node
from .registry import METHODS, both, function
from .tensor import Tensor
from .trace import apply


def _pair(name: str, *fields: str) -> Any:
    made = namedtuple(name, fields)  # type: ignore[misc]

    def show(self: Any) -> str:
        inner = ",\n".join(f"{f}={v!r}" for f, v in zip(self._fields, self, strict=True))
        return f"torch.return_types.{name}(\n{inner})"

    made.__repr__ = show  # type: ignore[method-assign]
    return made


_max_pair, _min_pair = _pair("max", "values", "indices"), _pair("min", "values", "indices")
_sort_pair, _topk_pair = _pair("sort", "values", "indices"), _pair("topk", "values", "indices")
_median_pair, _kthvalue_pair = _pair("median", "values", "indices"), _pair("kthvalue", "values", "indices")
_mode_pair, _aminmax_pair = _pair("mode", "values", "indices"), _pair("aminmax", "min", "max")
_cummax_pair, _cummin_pair = _pair("cummax", "values", "indices"), _pair("cummin", "values", "indices")


def element(dtype: Any) -> DType | None:
    """A dtype argument as an element type."""
    return None if dtype is None else dtypes.resolve(dtype)


def _reduce(f: Callable[..., Node]) -> Callable[..., Node]:
    """A function `f(b, x, axes)` that drops axes, with `keepdim`."""

    def record(b: Builder, x: Node, axes: tuple[int, ...], keepdim: bool, *args: Any) -> Node:
        reduced = f(b, x, axes, *args)
        return keep(b, reduced, x.shape, axes) if keepdim else reduced

    record.__name__ = f.__name__
    return record


@_reduce
def _sum(b: Builder, x: Node, axes: tuple[int, ...], dtype: DType | None) -> Node:
    if dtype is None:
        dtype = x.dtype if x.dtype.is_float else i64
    x = cast(b, x, dtype)
    return b.sum(x, axes=axes) if axes else x


@_reduce
def _prod(b: Builder, x: Node, axes: tuple[int, ...], dtype: DType | None) -> Node:
    if dtype is None:
        dtype = x.dtype if x.dtype.is_float else i64
    x = cast(b, x, dtype)
    return b.prod(x, axes=axes) if axes else x


@_reduce
def _mean(b: Builder, x: Node, axes: tuple[int, ...], dtype: DType | None) -> Node:
    if dtype is not None:
        x = cast(b, x, dtype)
    if not x.dtype.is_float:
        raise DTypeError(f"mean(): could not infer output dtype. Input dtype must be either a floating point or "
                         f"complex dtype. Got: {x.dtype.long_name}", hint="convert first: x.float().mean()")
    return mean_node(b, x, axes)


def variance(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    """The variance over axes, which are dropped; two passes, divided by count − correction."""
    if not x.dtype.is_float:
        raise DTypeError("std and var only support floating point dtypes", hint="convert first: x.float().var()")
    wide = cast(b, x, x.dtype.compute)
    center = b.sub(wide, spread(b, mean_node(b, wide, axes), x.shape, axes))
    squares = b.mul(center, center)
    total = b.sum(squares, axes=axes) if axes else squares
    count = count_of(b, x, axes, wide.dtype)
    rest = b.maximum(b.sub(count, b.like(correction, wide)), b.like(0, wide)) if correction else count
    return cast(b, b.div(total, rest), x.dtype)


@_reduce
def _var(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    return variance(b, x, axes, correction)


@_reduce
def _std(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    return b.sqrt(variance(b, x, axes, correction))


def _extreme(op: str) -> Callable[..., Node]:
    @_reduce
    def record(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
        if not axes:
            return x
        _nonempty(x, axes, op)
        if x.dtype is boolean:
            return getattr(b, "any" if op == "max" else "all")(x, axes=axes)  # type: ignore[no-any-return]
        return getattr(b, op)(x, axes=axes)  # type: ignore[no-any-return]

    return record


def _nonempty(x: Node, axes: tuple[int, ...], name: str) -> None:
    if any(x.shape[a] == 0 for a in axes):
        raise IndexError(f"{name}(): Expected reduction dim to have non-zero size.")


_max, _min = _extreme("max"), _extreme("min")


def _arg(op: str) -> Callable[..., Node]:
    @_reduce
    def record(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
        if not axes:
            return b.scalar(0, i64)
        _nonempty(x, axes, op)
        if x.dtype is boolean:
            x = cast(b, x, f32)
        return getattr(b, op)(x, axes=axes)  # type: ignore[no-any-return]

    return record


_argmax, _argmin = _arg("argmax"), _arg("argmin")


def _pick(op: str) -> Callable[..., Any]:
    """Values and indices along one axis; the values are gathered, so that gradients go to the chosen elements."""
    where = _arg(op)

    def record(b: Builder, x: Node, axis: int, keepdim: bool) -> tuple[Node, Node]:
        if not x.shape:
            return x, b.scalar(0, i64)
        index = where(b, x, (axis,), True)
        values = b.gather(x, index, axis=axis)
        if keepdim:
            return values, index
        shape = tuple([d for i, d in enumerate(x.shape) if i != axis])
        return b.reshape(values, shape=shape), b.reshape(index, shape=shape)

    return record


_pick_max, _pick_min = _pick("argmax"), _pick("argmin")


def _dims(dim: Any, rank: int) -> tuple[int, ...]:
    return axes_of(dim, rank)


def _axis_argument(dim: Any, kwargs: dict[str, Any]) -> Any:
    return kwargs.get("axis", dim)


@both()
def sum_(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **kwargs: Any) -> Tensor:
    """The sum over all or some dimensions; integers and bools sum in int64."""
    dim, keepdim = _axis_argument(dim, kwargs), kwargs.get("keepdims", keepdim)
    return apply(_sum, (input,), (_dims(dim, len(input._shape)), keepdim, element(dtype)))  # type: ignore[no-any-return]


@both()
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over all dimensions or one."""
    return apply(_prod, (input,), (_dims(dim, len(input._shape)), keepdim, element(dtype)))  # type: ignore[no-any-return]


@both()
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **kwargs: Any) -> Tensor:
    """The average over all or some dimensions."""
    dim = _axis_argument(dim, kwargs)
    return apply(_mean, (input,), (_dims(dim, len(input._shape)), keepdim, element(dtype)))  # type: ignore[no-any-return]


def _correction(dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Any, float]:
    if isinstance(dim, bool):  # x.var(False)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    return dim, correction


@both()
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None, **kwargs: Any) -> Tensor:
    """The variance, divided by count − correction (1 unless given; 0 for `unbiased=False`)."""
    dim, correction = _correction(_axis_argument(dim, kwargs), unbiased, correction)
    return apply(_var, (input,), (_dims(dim, len(input._shape)), keepdim, correction))  # type: ignore[no-any-return]


@both()
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None, **kwargs: Any) -> Tensor:
    """The standard deviation, as `var`."""
    dim, correction = _correction(_axis_argument(dim, kwargs), unbiased, correction)
    return apply(_std, (input,), (_dims(dim, len(input._shape)), keepdim, correction))  # type: ignore[no-any-return]


@function()
def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    return (var(input, dim, unbiased, keepdim, correction=correction),
            mean(input, None if isinstance(dim, bool) else dim, keepdim))


@function()
def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    return (std(input, dim, unbiased, keepdim, correction=correction),
            mean(input, None if isinstance(dim, bool) else dim, keepdim))


def _max_or_min(name: str, full: Any, pick: Any, pair: Any, elementwise: str) -> Callable[..., Any]:
    def call(input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
        dim = kwargs.get("other", _axis_argument(dim, kwargs))
        if isinstance(dim, Tensor):
            from . import ops_math

            return getattr(ops_math, elementwise)(input, dim)
        rank = len(input._shape)
        if dim is None:
            if input.numel() == 0:
                raise RuntimeError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify "
                                   "the reduction dim with the 'dim' argument.")
            return apply(full, (input,), (tuple(range(rank)), False))
        return pair(*apply(pick, (input,), (axis_of(dim, rank), keepdim)))

    call.__name__ = name
    call.__doc__ = (f"The {name}imum: of all elements; with `dim` a pair (values, indices); with another tensor, "
                    f"elementwise.")
    return both(name)(call)


max_ = _max_or_min("max", _max, _pick_max, _max_pair, "maximum")
min_ = _max_or_min("min", _min, _pick_min, _min_pair, "minimum")


@both()
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The maximum over dimensions; equal maxima share the gradient."""
    return apply(_max, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


@both()
def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The minimum over dimensions; equal minima share the gradient."""
    return apply(_min, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


@both()
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """Minimum and maximum."""
    return _aminmax_pair(amin(input, dim, keepdim), amax(input, dim, keepdim))


@both()
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the maximum, of the flattened tensor if no dimension is given; the first among equals."""
    return apply(_argmax, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


@both()
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the minimum, as `argmax`."""
    return apply(_argmin, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


def _truth(b: Builder, x: Node) -> Node:
    return x if x.dtype is boolean else b.ne(x, b.like(0, x))


@_reduce
def _any(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    x = _truth(b, x)
    return b.any(x, axes=axes) if axes else x


@_reduce
def _all(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    x = _truth(b, x)
    return b.all(x, axes=axes) if axes else x


@both()
def any_(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any element is true."""
    return apply(_any, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


@both()
def all_(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true."""
    return apply(_all, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


@both()
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """The number of elements that are not zero."""
    return sum_(input != 0, dim)


# --- softmax family ---------------------------------------------------------------------------------------------------
def softmax_node(b: Builder, x: Node, axis: int) -> Node:
    """exp(x − max) / sum, computed in float32 for sixteen-bit floats."""
    if not x.shape:
        return b.full(1, x.dtype, ())
    axes = (axis,)
    wide = cast(b, x, x.dtype.compute)
    shifted = b.sub(wide, b.stop_gradient(spread(b, b.max(wide, axes=axes), x.shape, axes)))
    e = b.exp(shifted)
    return cast(b, b.div(e, spread(b, b.sum(e, axes=axes), x.shape, axes)), x.dtype)


def log_softmax_node(b: Builder, x: Node, axis: int) -> Node:
    """x − max − log(sum(exp(x − max)))."""
    if not x.shape:
        return b.full(0, x.dtype, ())
    axes = (axis,)
    wide = cast(b, x, x.dtype.compute)
    shifted = b.sub(wide, b.stop_gradient(spread(b, b.max(wide, axes=axes), x.shape, axes)))
    total = b.log(b.sum(b.exp(shifted), axes=axes))
    return cast(b, b.sub(shifted, spread(b, total, x.shape, axes)), x.dtype)


def _softmax(b: Builder, x: Node, axis: int, dtype: DType | None) -> Node:
    return softmax_node(b, cast(b, x, dtype) if dtype is not None else floating(b, x), axis)


def _log_softmax(b: Builder, x: Node, axis: int, dtype: DType | None) -> Node:
    return log_softmax_node(b, cast(b, x, dtype) if dtype is not None else floating(b, x), axis)


@both()
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """Exponentials along a dimension, scaled to sum 1."""
    return apply(_softmax, (input,), (axis_of(dim, len(input._shape)), element(dtype)))  # type: ignore[no-any-return]


@both()
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """The logarithm of `softmax`, without overflow."""
    return apply(_log_softmax, (input,), (axis_of(dim, len(input._shape)), element(dtype)))  # type: ignore[no-any-return]


@_reduce
def _logsumexp(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    x = floating(b, x)
    if not axes:
        return x
    wide = cast(b, x, x.dtype.compute)
    top = b.max(wide, axes=axes)
    top = b.stop_gradient(b.select(b.isfinite(top), top, b.full(0, wide.dtype, top.shape)))
    e = b.exp(b.sub(wide, spread(b, top, x.shape, axes)))
    return cast(b, b.add(b.log(b.sum(e, axes=axes)), top), x.dtype)


@both()
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """`log(sum(exp(x)))`, without overflow."""
    return apply(_logsumexp, (input,), (_dims(dim, len(input._shape)), keepdim))  # type: ignore[no-any-return]


# --- norms ------------------------------------------------------------------------------------------------------------
@_reduce
def _norm(b: Builder, x: Node, axes: tuple[int, ...], p: float) -> Node:
    x = floating(b, x)
    if p == 0:
        return b.sum(cast(b, b.ne(x, b.like(0, x)), x.dtype), axes=axes)
    size = b.abs(x)
    if not axes:
        return size
    if p == math.inf:
        return b.max(size, axes=axes)
    if p == -math.inf:
        return b.min(size, axes=axes)
    if p == 1:
        return b.sum(size, axes=axes)
    if p == 2:
        total = b.sum(b.mul(x, x), axes=axes)
        zero = b.eq(total, b.like(0, total))  # the gradient at 0 is 0, as in PyTorch
        root = b.sqrt(b.select(zero, b.like(1, total), total))
        return b.select(zero, b.full(0, total.dtype, total.shape), root)
    return b.pow(b.sum(b.pow(size, b.like(p, x)), axes=axes), b.like(1.0 / p, x))


@both()
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over dimensions (all unless given); "fro" is 2."""
    if dtype is not None:
        input = input.to(dtype)
    order = 2.0 if p in ("fro", None) else float(p)
    return apply(_norm, (input,), (_dims(dim, len(input._shape)), keepdim, order))  # type: ignore[no-any-return]


@both()
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference."""
    return norm(input - other, p)


# --- cumulative -------------------------------------------------------------------------------------------------------
def _cumsum(b: Builder, x: Node, axis: int, dtype: DType | None) -> Node:
    x = cast(b, x, dtype or (x.dtype if x.dtype.is_float else i64))
    return b.cumsum(x, axis=axis) if x.shape else x


@both()
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Sums of all elements up to each, along a dimension."""
    return apply(_cumsum, (input,), (axis_of(dim, len(input._shape)), element(dtype)))  # type: ignore[no-any-return]


def _triangle(b: Builder, n: int) -> Node:
    """[n, n], true where column ≤ row."""
    return b.ge(b.iota(shape=(n, n), axis=0, dtype=i64),
                b.iota(shape=(n, n), axis=1, dtype=i64))


def _prefixes(b: Builder, x: Node, axis: int, fill: Any) -> Node:
    """[…, n, n] with the prefix of every position along a new last axis, `fill` beyond it."""
    n = x.shape[axis]
    order = (*[d for d in range(len(x.shape)) if d != axis], axis)
    moved = b.permute(x, dims=order)
    shape = (*moved.shape[:-1], n, n)
    wide = b.broadcast(moved, shape=shape, dims=(*range(len(shape) - 2), len(shape) - 1))
    mask = b.broadcast(_triangle(b, n), shape=shape, dims=(len(shape) - 2, len(shape) - 1))
    return b.select(mask, wide, b.like(fill, x))


def _unprefix(b: Builder, reduced: Node, rank: int, axis: int) -> Node:
    """The reduced prefixes with their axis back in place."""
    back = list(range(rank - 1))
    back.insert(axis, rank - 1)
    return b.permute(reduced, dims=tuple(back))


def _cumprod(b: Builder, x: Node, axis: int, dtype: DType | None) -> Node:
    x = cast(b, x, dtype or (x.dtype if x.dtype.is_float else i64))
    if not x.shape:
        return x
    return _unprefix(b, b.prod(_prefixes(b, x, axis, 1), axes=(len(x.shape),)), len(x.shape), axis)


@both()
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Products of all elements up to each, along a dimension."""
    return apply(_cumprod, (input,), (axis_of(dim, len(input._shape)), element(dtype)))  # type: ignore[no-any-return]


def _cumulative_pick(op: str) -> Callable[..., Any]:
    def record(b: Builder, x: Node, axis: int) -> tuple[Node, Node]:
        if not x.shape:
            return x, b.scalar(0, i64)
        low = x.dtype.min if op == "argmax" else x.dtype.max
        n, rank = x.shape[axis], len(x.shape)
        flipped = b.flip(_prefixes(b, x, axis, low), axes=(rank,))  # the last among equals, as PyTorch
        index = b.sub(b.scalar(0, i64), getattr(b, op)(flipped, axes=(rank,)))
        index = b.add(index, b.sub(b.cast(b.extent(value=n), dtype=i64), b.scalar(1, i64)))
        index = _unprefix(b, index, rank, axis)
        return b.gather(x, index, axis=axis), index

    return record


_cummax, _cummin = _cumulative_pick("argmax"), _cumulative_pick("argmin")


@both()
def cummax(input: Tensor, dim: int) -> Any:
    """Maxima of all elements up to each, with their indices."""
    return _cummax_pair(*apply(_cummax, (input,), (axis_of(dim, len(input._shape)),)))


@both()
def cummin(input: Tensor, dim: int) -> Any:
    """Minima of all elements up to each, with their indices."""
    return _cummin_pair(*apply(_cummin, (input,), (axis_of(dim, len(input._shape)),)))


@both()
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """`log(cumsum(exp(x)))`, without overflow."""
    return apply(_logcumsumexp, (input,), (axis_of(dim, len(input._shape)),))  # type: ignore[no-any-return]


def _logcumsumexp(b: Builder, x: Node, axis: int) -> Node:
    if not x.shape:
        return x
    rank = len(x.shape)
    return _unprefix(b, _logsumexp(b, _prefixes(b, x, axis, -math.inf), (rank,), False), rank, axis)


# --- sorting ----------------------------------------------------------------------------------------------------------
def _sort(b: Builder, x: Node, axis: int, descending: bool) -> tuple[Node, Node]:
    if not x.shape:
        return x, b.scalar(0, i64)
    values, index = b.results(b.sort(x, axis=axis, descending=descending))
    return values, index


@both()
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Elements in order along a dimension, with their indices; always stable."""
    return _sort_pair(*apply(_sort, (input,), (axis_of(dim, len(input._shape)), descending)))


@both()
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort a dimension."""
    return sort(input, dim, descending)[1]  # type: ignore[no-any-return]


def _topk(b: Builder, x: Node, k: int, axis: int, largest: bool) -> tuple[Node, Node]:
    if not x.shape:
        return x, b.scalar(0, i64)
    values, index = b.results(b.topk(x, k=k, axis=axis, largest=largest))
    return values, index


@both()
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along a dimension, in order, with their indices."""
    axis = axis_of(dim, len(input._shape))
    if not 0 <= k <= (input._shape[axis] if input._shape else 1):
        raise RuntimeError("selected index k out of range")
    return _topk_pair(*apply(_topk, (input,), (int(k), axis, largest)))


def _kth(b: Builder, x: Node, k: int, axis: int, keepdim: bool) -> tuple[Node, Node]:
    if not x.shape:
        return x, b.scalar(0, i64)
    parts = _sort(b, x, axis, False)
    rank = len(x.shape)
    start = tuple([k if i == axis else 0 for i in range(rank)])
    size = tuple([1 if i == axis else d for i, d in enumerate(x.shape)])
    cut = tuple([b.slice(p, start=start, size=size, step=(1,) * rank) for p in parts])
    if not keepdim:
        shape = tuple([d for i, d in enumerate(x.shape) if i != axis])
        cut = tuple([b.reshape(p, shape=shape) for p in cut])
    return cut[0], cut[1]


@both()
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along a dimension, with its index."""
    axis = axis_of(dim, len(input._shape))
    if not 1 <= k <= (input._shape[axis] if input._shape else 1):
        raise IndexError(f"kthvalue(): selected number k out of range for dimension {dim}")
    return _kthvalue_pair(*apply(_kth, (input,), (int(k) - 1, axis, keepdim)))


@both()
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median: of all elements, or along a dimension with its index."""
    if dim is None:
        flat = input.reshape(-1)
        return apply(_kth, (flat,), ((flat._shape[0] - 1) // 2, 0, False))[0]
    axis = axis_of(dim, len(input._shape))
    count = input._shape[axis] if input._shape else 1
    return _median_pair(*apply(_kth, (input,), ((count - 1) // 2, axis, keepdim)))


@both()
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The q-quantile along a dimension (of the flattened tensor if none), interpolated linearly."""
    if interpolation != "linear":
        raise ValueError("quantile: only linear interpolation is offered")
    x = input.reshape(-1) if dim is None else input
    axis = 0 if dim is None else axis_of(dim, len(input._shape))
    ordered = sort(x, axis)[0]
    many = isinstance(q, Tensor) and q._shape
    points = q.tolist() if isinstance(q, Tensor) else q
    results = []
    for point in points if many else [points]:
        at = float(point) * (x._shape[axis] - 1)
        low = math.floor(at)
        high = low + 1 if low + 1 < x._shape[axis] else low
        a, c = ordered.select(axis, low), ordered.select(axis, high)
        part = a + (c - a) * (at - low)
        results.append(part.unsqueeze(axis) if keepdim and dim is not None else part)
    if not many:
        return results[0]  # type: ignore[no-any-return]
    from .ops_join import stack

    return stack(results, 0)


METHODS["cumsum_"] = lambda self, dim, *, dtype=None: _store(self, cumsum(self, dim, dtype=dtype))


def _store(t: Tensor, result: Tensor) -> Tensor:
    from .inplace import store

    return store(t, result)
