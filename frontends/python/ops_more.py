"""Less common functions, composed of others: distances, differences, integrals, covariance, NaN-aware reductions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import i64
from ...ir.errors import ShapeError
from ...ir.node import Node
from .inplace import inplace
from .nodes import axis_of, cast, floating
from .ops_choice import where
from .ops_join import cat, stack
from .ops_math import recorded, strict
from .ops_reduce import _pair, sort
from .ops_shape import movedim, narrow, reshape
from .registry import METHODS, both, function, method
from .tensor import Tensor, from_array
from .trace import apply

_mode_pair = _pair("mode", "values", "indices")
_nanmedian_pair = _pair("nanmedian", "values", "indices")
_hist_pair = _pair("histogram", "hist", "bin_edges")


# --- differences and integrals ----------------------------------------------------------------------------------------
@both()
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """The n-th differences of neighbours along a dimension."""
    axis = axis_of(dim, len(input._shape))
    parts = [p for p in (prepend, input, append) if p is not None]
    x = cat(parts, axis) if len(parts) > 1 else input
    for _ in range(min(n, x._shape[axis])):
        count = x._shape[axis] - 1
        after, before = narrow(x, axis, 1, count), narrow(x, axis, 0, count)
        x = after.ne(before) if x._dtype.is_bool else after - before
    return x


def _widths(y: Tensor, x: Tensor | None, dx: float, axis: int) -> Any:
    """Distances between sample points, broadcastable to y's neighbours."""
    if x is None:
        return dx
    gaps = diff(x)
    if len(gaps._shape) == 1 and len(y._shape) > 1:
        gaps = reshape(gaps, tuple([gaps._shape[0] if i == axis else 1 for i in range(len(y._shape))]))
    return gaps


def _trapezoids(y: Tensor, x: Tensor | None, dx: float, dim: int) -> tuple[Tensor, int]:
    axis = axis_of(dim, len(y._shape))
    count = y._shape[axis] - 1
    sides = narrow(y, axis, 1, count) + narrow(y, axis, 0, count)
    return sides * _widths(y, x, dx, axis) / 2.0, axis


@function("trapezoid", "trapz")
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral along a dimension by the trapezoidal rule."""
    areas, axis = _trapezoids(y, x, dx, dim)
    return areas.sum(axis)  # type: ignore[no-any-return]


@function()
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """Running integrals along a dimension by the trapezoidal rule."""
    areas, axis = _trapezoids(y, x, dx, dim)
    return areas.cumsum(axis)  # type: ignore[no-any-return]


@function()
def gradient(input: Tensor, *, spacing: float = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Central differences along each dimension, one-sided at the edges."""
    if edge_order != 1:
        raise ValueError("torch.gradient: only edge_order=1 is offered")
    dims = range(len(input._shape)) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    made = []
    for d in dims:
        axis = axis_of(d, len(input._shape))
        n = input._shape[axis]
        if n < 2:
            raise ShapeError("torch.gradient expected each dimension size to be at least edge_order+1")
        inner = (narrow(input, axis, 2, n - 2) - narrow(input, axis, 0, n - 2)) / (2.0 * spacing)
        first = (narrow(input, axis, 1, 1) - narrow(input, axis, 0, 1)) / spacing
        last = (narrow(input, axis, n - 1, 1) - narrow(input, axis, n - 2, 1)) / spacing
        made.append(cat([first, inner, last], axis))
    return tuple(made)


# --- statistics -------------------------------------------------------------------------------------------------------
@both()
def cov(input: Tensor, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """The covariance of variables in rows."""
    if fweights is not None or aweights is not None:
        raise ValueError("cov: weights are not offered")
    x = reshape(input, (1, -1)) if len(input._shape) < 2 else input
    centered = x - x.mean(1, keepdim=True)
    made = centered @ centered.t() / max(x._shape[1] - correction, 0)
    return made if len(input._shape) == 2 else reshape(made, ())


@both()
def corrcoef(input: Tensor) -> Tensor:
    """The correlation of variables in rows."""
    c = cov(input)
    if not c._shape:
        return c / c
    spread = c.diagonal().sqrt()
    return (c / spread[:, None] / spread[None, :]).clamp(-1, 1)  # type: ignore[no-any-return]


@both()
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum of what is not NaN."""
    clean = where(input.isnan(), 0, input) if input._dtype.is_float else input
    return clean.sum(dim, keepdim, dtype=dtype)  # type: ignore[no-any-return]


@both()
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The average of what is not NaN."""
    return nansum(input, dim, keepdim, dtype=dtype) / (~input.isnan()).sum(dim, keepdim)  # type: ignore[no-any-return]


@both()
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of what is not NaN."""
    x = reshape(input, -1) if dim is None else input
    axis = 0 if dim is None else axis_of(dim, len(input._shape))
    values, index = sort(x, axis)
    count = (~x.isnan()).sum(axis, keepdim=True)
    at = ((count - 1) // 2).clamp(min=0)
    value, where_ = values.gather(axis, at), index.gather(axis, at)
    if not keepdim or dim is None:
        value, where_ = value.squeeze(axis), where_.squeeze(axis)
    return value if dim is None else _nanmedian_pair(value, where_)


@both()
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along a dimension (the least among equals), with an index of it."""
    axis = axis_of(dim, len(input._shape))
    x = movedim(input, axis, -1)
    equal = x.unsqueeze(-1).eq(x.unsqueeze(-2))
    counts = equal.sum(-1)
    best = counts.eq(counts.amax(-1, keepdim=True))
    top = x._dtype.max if x._dtype.is_float else int(x._dtype.max)
    values = where(best, x, top).amin(-1, keepdim=True)
    n = x._shape[-1]
    from .creation import arange

    index = where(x.eq(values), arange(n), -1).amax(-1, keepdim=True)
    values, index = movedim(values, -1, axis), movedim(index, -1, axis)
    return _mode_pair(values, index) if keepdim else _mode_pair(values.squeeze(axis), index.squeeze(axis))


@function()
def histogram(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,
              density: bool = False) -> Any:
    """Counts in bins, and the bins' edges (needs the values)."""
    edges = bins._array("histogram()") if isinstance(bins, Tensor) else bins
    weights = None if weight is None else weight._array("histogram()").reshape(-1)
    counts, found = np.histogram(input._array("histogram()").reshape(-1), edges, range, density, weights)
    kind = input._dtype.numpy
    return _hist_pair(from_array(counts.astype(kind), input._dtype), from_array(found.astype(kind), input._dtype))


# --- geometry ---------------------------------------------------------------------------------------------------------
@both()
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product of 3-vectors along a dimension (the first of extent 3 unless given)."""
    if dim is None:
        dim = next((i for i, d in enumerate(input._shape) if d == 3), -1)
    axis = axis_of(dim, len(input._shape))
    if input._shape[axis] != 3 or other._shape[axis] != 3:
        raise ShapeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got {input._shape[axis]} and "
                         f"{other._shape[axis]}")
    a, b = (x.roll(-1, axis) for x in (input, other))
    c, d = (x.roll(-2, axis) for x in (input, other))
    return a * d - c * b  # type: ignore[no-any-return]


@function()
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    """The p-norm distances between all rows of two (batches of) matrices."""
    if x1._shape[-1] != x2._shape[-1]:
        raise ShapeError(f"X1 and X2 must have the same number of columns. X1: {x1._shape[-1]} X2: {x2._shape[-1]}")
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, dim=-1)  # type: ignore[no-any-return]


@function()
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all pairs of rows."""
    rows, cols = np.triu_indices(input._shape[0], 1)
    a, b = input[from_array(rows.astype(np.int64))], input[from_array(cols.astype(np.int64))]
    return (a - b).norm(p, dim=-1)  # type: ignore[no-any-return]


@both()
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices of a dimension scaled down to a p-norm of at most `maxnorm`."""
    axis = axis_of(dim, len(input._shape))
    rest = [i for i in range(len(input._shape)) if i != axis]
    size = input.norm(p, dim=rest, keepdim=True)
    return input * where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)  # type: ignore[no-any-return]


METHODS["renorm_"] = inplace(renorm)


@function()
def vander(x: Tensor, N: int | None = None, *, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix: powers of a vector's elements in columns."""
    n = x._shape[0] if N is None else N
    powers = [x ** k for k in range(n)]
    return stack(powers if increasing else powers[::-1], -1) if powers else x.new_empty((x._shape[0], 0))


@function()
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of a vector's elements, one a row."""
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input._shape[0]), r)), np.int64).reshape(-1, r)
    return input[from_array(rows)]


# --- elementwise ------------------------------------------------------------------------------------------------------
@recorded
def _heaviside(b: Builder, x: Node, y: Node) -> Node:
    zero = b.like(0, x)
    return b.select(b.eq(x, zero), y, cast(b, b.gt(x, zero), x.dtype))


@both()
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below zero, 1 above, `values` at zero."""
    return strict(_heaviside, input, values, "heaviside")


@both()
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """`input * 2**other`."""
    return input * 2.0 ** other


def _i0(b: Builder, x: Node) -> Node:
    """The modified Bessel function of order 0, by Abramowitz and Stegun 9.8.1 and 9.8.2."""
    x = b.abs(floating(b, x))
    t = b.div(x, b.like(3.75, x))
    small = _polynomial(b, b.mul(t, t), (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813))
    u = b.reciprocal(b.maximum(t, b.like(1.0, t)))
    tail = _polynomial(b, u, (0.39894228, 0.01328592, 0.00225319, -0.00157565, 0.00916281, -0.02057706, 0.02635537,
                              -0.01647633, 0.00392377))
    large = b.mul(b.div(b.exp(x), b.sqrt(b.maximum(x, b.like(3.75, x)))), tail)
    return b.select(b.lt(x, b.like(3.75, x)), small, large)


def _polynomial(b: Builder, x: Node, coefficients: Sequence[float]) -> Node:
    total = b.like(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        total = b.add(b.mul(total, x), b.like(c, x))
    return total


@both()
def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, order 0 (to float32's accuracy)."""
    return apply(_i0, (input,))  # type: ignore[no-any-return]


def _gcd(b: Builder, x: Node, y: Node, rounds: int) -> Node:
    x, y = b.abs(x), b.abs(y)
    zero, one = b.like(0, x), b.like(1, x)
    for _ in range(rounds):  # Euclid's steps at most double a Fibonacci number's index
        done = b.eq(y, zero)
        rest = b.rem(x, b.select(done, one, y))
        x, y = b.select(done, x, y), b.select(done, zero, rest)
    return x


@both()
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers."""
    from .ops_shape import broadcast_tensors

    a, b = broadcast_tensors(input, other)
    rounds = math.ceil(1.45 * max(a._dtype.bits, b._dtype.bits))
    return apply(_gcd, (a, b.to(a.dtype)), (rounds,))  # type: ignore[no-any-return]


@both()
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers."""
    divisor = gcd(input, other)
    safe = where(divisor == 0, 1, divisor)
    return (input.div(safe, rounding_mode="trunc") * other).abs()  # type: ignore[no-any-return]


# --- writes into copies -----------------------------------------------------------------------------------------------
@both()
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with one slice of a dimension replaced."""
    made = input.clone()
    made.select(dim, index).copy_(src)
    return made  # type: ignore[no-any-return]


@both()
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Tensor:
    """A copy with a range of a dimension replaced."""
    made = input.clone()
    axis = axis_of(dim, len(input._shape))
    made[(slice(None),) * axis + (slice(start, end, step),)] = src
    return made  # type: ignore[no-any-return]


@both()
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with a diagonal replaced."""
    made = input.clone()
    made.diagonal(offset, dim1, dim2).copy_(src)
    return made  # type: ignore[no-any-return]


@method()
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions that broadcasting from `size` would have added."""
    from .ops_shape import ints

    want = ints(size)
    lead = len(self._shape) - len(want)
    if lead < 0 or any(w not in (1, d) for w, d in zip(want, self._shape[lead:], strict=True)):
        raise ShapeError(f"size {list(want)} is not expandable to size {list(self._shape)}.")
    axes = [*range(lead), *[lead + i for i, w in enumerate(want) if w == 1 and self._shape[lead + i] != 1]]
    return reshape(self.sum(axes), want) if axes else self


@function("unravel_index")
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Flat indices as coordinates."""
    extents = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    coordinates = []
    rest = indices
    for extent in reversed(extents):
        coordinates.append(rest % extent)
        rest = rest // extent
    return tuple(reversed(coordinates))


def _nonzero_positions(b: Builder, x: Node, size: int, fill: int) -> Node:
    """Flat positions of the first `size` true elements, then `fill`."""
    total = 1
    for d in x.shape:
        total *= d
    flat = b.reshape(b.ne(x, b.like(0, x)), shape=(total,))
    rank = b.sub(b.cumsum(cast(b, flat, i64), axis=0), b.scalar(1, i64))
    keep = b.and_(flat, b.lt(rank, b.scalar(size, i64)))
    target = b.select(keep, rank, b.scalar(size, i64))
    room = b.full(fill, i64, (size + 1,))
    made = b.scatter(room, target, b.iota(shape=(total,), axis=0, dtype=i64), axis=0)
    return b.slice(made, start=(0,), size=(size,), step=(1,))


@both()
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """`nonzero` of a fixed number of rows, padded by `fill_value`: no value is needed, so it can be captured."""
    flat = apply(_nonzero_positions, (input,), (size, -1))
    rows = stack(list(unravel_index(flat, tuple(input._shape))), 1)
    return where((flat < 0).unsqueeze(1), fill_value, rows)  # type: ignore[no-any-return]
