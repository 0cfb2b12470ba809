"""Pooling: greatest and average elements of sliding windows, with fixed windows or fixed output sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....ir.build import Builder
from ....ir.dtypes import i64
from ....ir.errors import DTypeError, ShapeError
from ....ir.node import Node
from ..nodes import cast, mean
from ..place import location
from ..tensor import Tensor
from ..trace import apply
from .linear_functions import each

Pads = tuple[tuple[int, int], ...]
Ints = tuple[int, ...]


def _batched(x: Tensor, n: int, layer: str) -> Tensor:
    """x with a batch dimension. Raises ShapeError for any other rank."""
    if x.dim() not in (n + 1, n + 2):
        raise ShapeError(f"{layer} expects an input of {n + 1} (unbatched) or {n + 2} dimensions, got shape "
                         f"{list(x.shape)}", location=location(),
                         hint=f"shape it [batch, channels, {', '.join('HW'[2 - n:] if n < 3 else 'DHW')}]")
    return x if x.dim() == n + 2 else x.unsqueeze(0)


def _window(layer: str, n: int, spatial: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any,
            ceil_mode: bool) -> tuple[Ints, Ints, Pads, Ints]:
    """Window, stride, (low, high) padding and dilation; `ceil_mode` pads so that no element is left out.

    Raises RuntimeError in PyTorch's words for paddings that are too large and windows that do not fit.
    """
    kernel = each(kernel, n, "kernel_size")
    absent = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    stride = kernel if absent else each(stride, n, "stride")
    padding, dilation = each(padding, n, "padding"), each(dilation, n, "dilation")
    pads: list[tuple[int, int]] = []
    for d, k, s, p, dil in zip(spatial, kernel, stride, padding, dilation, strict=True):
        if p < 0 or p > ((k - 1) * dil + 1) // 2:
            raise RuntimeError(f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} "
                               f"and dilation={dil}")
        reach = dil * (k - 1) + 1
        room = d + 2 * p - reach
        high = p
        if ceil_mode:
            count = -(-room // s) + 1
            if (count - 1) * s >= d + p:  # the last window must start inside the input or the left padding
                count -= 1
            high = max(p, (count - 1) * s + reach - d - p)
        elif room < 0:
            raise ShapeError(f"{layer}: a window of {list(kernel)} does not fit into an input of {list(spatial)} "
                             f"padded by {list(padding)}", location=location(), hint="use a smaller kernel_size")
        pads.append((p, high))
    return kernel, stride, tuple(pads), dilation


# -- greatest element ---------------------------------------------------------------------------------------


def _window_max(b: Builder, x: Node, window: Ints, stride: Ints, pads: Pads, dilation: Ints) -> Node:
    return b.window_max(x, window=window, stride=stride, pads=pads, dilation=dilation)


def _window_indices(b: Builder, x: Node, window: Ints, stride: Ints, pads: Pads, dilation: Ints) -> Node:
    """For every window the flat spatial index of its greatest element."""
    place = b.window_argmax(x, window=window, stride=stride, pads=pads, dilation=dilation)
    rest, flat, step = b.cast(place, dtype=i64), b.full(0, i64, place.shape), b.scalar(1, i64)
    first = len(x.shape) - len(window)
    for axis in reversed(range(len(window))):
        k, size = b.scalar(window[axis], i64), b.dim(x.shape[first + axis])
        tap, rest = b.rem(rest, k), b.floordiv(rest, k)
        start = b.mul(b.iota(shape=place.shape, axis=first + axis, dtype=i64), b.scalar(stride[axis], i64))
        at = b.add(start, b.mul(tap, b.scalar(dilation[axis], i64)))
        flat = b.add(flat, b.mul(b.sub(at, b.scalar(pads[axis][0], i64)), step))
        step = b.mul(step, size)
    return flat


def _max_pool(n: int, layer: str, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool, return_indices: bool) -> Any:
    x = _batched(input, n, layer)
    if not x._dtype.is_float:
        raise DTypeError(f"{layer} is not implemented for {x._dtype.long_name}", location=location(),
                         hint="convert the input with .float()")
    args = _window(layer, n, x._shape[2:], kernel, stride, padding, dilation, ceil_mode)
    values = apply(_window_max, (x,), args)
    values = values if x is input else values.squeeze(0)
    if not return_indices:
        return values
    indices = apply(_window_indices, (x.detach(),), args)
    return values, indices if x is input else indices.squeeze(0)


def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The greatest element of every window over [N, C, L]; with `return_indices` also where it is."""
    return _max_pool(1, "max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The greatest element of every window over [N, C, H, W]; with `return_indices` also where it is."""
    return _max_pool(2, "max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# -- average ------------------------------------------------------------------------------------------------


def _window_mean(b: Builder, x: Node, window: Ints, stride: Ints, pads: Pads, padding: Ints,
                 include_pad: bool, divisor: int | None) -> Node:
    """Sums of windows divided by their sizes: all alike, or counted where windows reach over an edge."""
    dtype, wide, n = x.dtype, cast(b, x, x.dtype.compute), len(window)
    ones = (1,) * n
    total = b.window_sum(wide, window=window, stride=stride, pads=pads, dilation=ones)
    inside = all(high == p for (_, high), p in zip(pads, padding, strict=True))
    if divisor is not None:
        return cast(b, b.div(total, b.like(divisor, wide)), dtype)
    if inside and (include_pad or not any(padding)):
        return cast(b, b.div(total, b.like(int(np.prod(window)), wide)), dtype)
    spatial = x.shape[2:]
    rest = pads
    if include_pad:  # padding counts, what ceil_mode adds beyond it does not
        spatial = tuple(d + 2 * p for d, p in zip(spatial, padding, strict=True))
        rest = tuple((0, high - p) for (_, high), p in zip(pads, padding, strict=True))
    count = b.window_sum(b.full(1, wide.dtype, spatial), window=window, stride=stride, pads=rest, dilation=ones)
    return cast(b, b.div(total, b.broadcast(count, shape=total.shape, dims=tuple(range(2, n + 2)))), dtype)


def _avg_pool(n: int, layer: str, input: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool,
              include_pad: bool, divisor: int | None) -> Tensor:
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    x = _batched(input, n, layer)
    window, steps, pads, _ = _window(layer, n, x._shape[2:], kernel, stride, padding, 1, ceil_mode)
    args = (window, steps, pads, each(padding, n, "padding"), bool(include_pad), divisor)
    y = apply(_window_mean, (x,), args)
    return y if x is input else y.squeeze(0)  # type: ignore[no-any-return]


def avg_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The average of every window over [N, C, L]."""
    return _avg_pool(1, "avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The average of every window over [N, C, H, W]; `divisor_override` replaces the window's size."""
    return _avg_pool(2, "avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


# -- adaptive: the output size is given ---------------------------------------------------------------------


def _bounds(extent: int, out: int) -> list[tuple[int, int]]:
    """First and last element (excluded) of every adaptive window."""
    return [(i * extent // out, -(-(i + 1) * extent // out)) for i in range(out)]


def _adaptive_avg(b: Builder, x: Node, out: Ints) -> Node:
    """Per axis: a mean, equal windows, or a product with the matrix of averages."""
    dtype, y = x.dtype, cast(b, x, x.dtype.compute)
    if all(o == 1 for o in out):
        axes = tuple(range(2, len(x.shape)))
        return cast(b, b.reshape(mean(b, y, axes), shape=(*x.shape[:2], *out)), dtype)
    spatial = x.shape[2:]
    if all(d % o == 0 for d, o in zip(spatial, out, strict=True)):
        window = tuple(d // o for d, o in zip(spatial, out, strict=True))
        zeros = tuple((0, 0) for _ in out)
        return cast(b, _window_mean(b, y, window, window, zeros, (0,) * len(out), True, None), dtype)
    for axis, (extent, o) in enumerate(zip(spatial, out, strict=True), 2):
        if extent == o:
            continue
        matrix = np.zeros((extent, o))
        for i, (start, end) in enumerate(_bounds(extent, o)):
            matrix[start:end, i] = 1 / (end - start)
        y = b.dot(y, b.constant(matrix, y.dtype), contract_a=(axis,), contract_b=(0,))
        last = len(y.shape) - 1
        y = b.permute(y, dims=(*range(axis), last, *range(axis, last)))
    return cast(b, y, dtype)


def _adaptive_max(b: Builder, x: Node, out: Ints) -> tuple[Node, Node]:
    """Greatest elements and their flat spatial indices, window by window."""
    lead, spatial = x.shape[:2], x.shape[2:]
    values: list[Node] = []
    indices: list[Node] = []
    for cell in np.ndindex(*out):
        bounds = [_bounds(d, o)[i] for d, o, i in zip(spatial, out, cell, strict=True)]
        sizes = tuple(end - start for start, end in bounds)
        part = b.slice(x, start=(0, 0, *(start for start, _ in bounds)), size=(*lead, *sizes),
                       step=(1,) * len(x.shape))
        flat = b.reshape(part, shape=(*lead, int(np.prod(sizes))))
        best = b.argmax(flat, axes=(2,))
        column = b.reshape(best, shape=(*lead, 1))
        values.append(b.gather(flat, column, axis=2))
        places = np.ravel_multi_index(np.ix_(*[np.arange(*bound) for bound in bounds]), spatial)
        indices.append(b.index_select(b.constant(places.reshape(-1), i64), column, axis=0))
    shape = (*lead, *out)
    return (b.reshape(b.concat(*values, axis=2), shape=shape), b.reshape(b.concat(*indices, axis=2), shape=shape))


def _out_size(x: Tensor, size: Any, n: int) -> Ints:
    given = size if isinstance(size, (tuple, list)) else (size,) * n
    return tuple(d if o is None else int(o) for o, d in zip(given, x._shape[2:], strict=True))


def _adaptive_average(n: int, layer: str, input: Tensor, size: Any) -> Tensor:
    x = _batched(input, n, layer)
    y = apply(_adaptive_avg, (x,), (_out_size(x, size, n),))
    return y if x is input else y.squeeze(0)  # type: ignore[no-any-return]


def _adaptive_greatest(n: int, layer: str, input: Tensor, size: Any, return_indices: bool) -> Any:
    x = _batched(input, n, layer)
    out, spatial = _out_size(x, size, n), x._shape[2:]
    if all(d % o == 0 for d, o in zip(spatial, out, strict=True)):
        window = tuple(d // o for d, o in zip(spatial, out, strict=True))
        return _max_pool(n, layer, input, window, window, 0, 1, False, return_indices)
    values, indices = apply(_adaptive_max, (x,), (out,))
    if x is not input:
        values, indices = values.squeeze(0), indices.squeeze(0)
    return (values, indices) if return_indices else values


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Averages of windows chosen so that the output has the given length."""
    return _adaptive_average(1, "adaptive_avg_pool1d", input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Averages of windows chosen so that the output has the given height and width (None keeps one)."""
    return _adaptive_average(2, "adaptive_avg_pool2d", input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Greatest elements of windows chosen so that the output has the given length."""
    return _adaptive_greatest(1, "adaptive_max_pool1d", input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Greatest elements of windows chosen so that the output has the given height and width."""
    return _adaptive_greatest(2, "adaptive_max_pool2d", input, output_size, return_indices)


def _with_indices(pool: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs["return_indices"] = True
        return pool(*args, **kwargs)

    call.__name__, call.__doc__ = f"{pool.__name__}_with_indices", f"`{pool.__name__}` and the elements' places."
    return call


max_pool1d_with_indices, max_pool2d_with_indices = _with_indices(max_pool1d), _with_indices(max_pool2d)
