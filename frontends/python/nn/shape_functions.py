"""Padding, and other functions that only move elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....ir.build import Builder
from ....ir.dtypes import i64
from ....ir.errors import NotSupportedError, ShapeError
from ....ir.node import Node
from ..place import location
from ..tensor import Tensor
from ..trace import apply
from .linear_functions import each

Pairs = tuple[tuple[int, int], ...]


def _cut(b: Builder, x: Node, axis: int, start: int, size: int) -> Node:
    starts = tuple(start if i == axis else 0 for i in range(len(x.shape)))
    sizes = tuple(size if i == axis else d for i, d in enumerate(x.shape))
    return b.slice(x, start=starts, size=sizes, step=(1,) * len(x.shape))


def _cropped(b: Builder, x: Node, axis: int, low: int, high: int) -> Node:
    """What negative pads leave. (A crop is a slice of its own, not a negative pad: sizes in a graph may become named
    ones, which stand for numbers that are not negative.)"""
    start, end = max(-low, 0), max(-high, 0)
    return _cut(b, x, axis, start, x.shape[axis] - start - end) if start or end else x


def _constant(b: Builder, x: Node, pads: Pairs, value: Any) -> Node:
    lead = len(x.shape) - len(pads)
    for axis, (low, high) in enumerate(pads, lead):
        x = _cropped(b, x, axis, low, high)
    full = (*((0, 0, 0) for _ in range(lead)), *((max(low, 0), max(high, 0), 0) for low, high in pads))
    return b.pad(x, b.like(value, x), pads=full)


def _reflected(b: Builder, x: Node, axis: int, low: int, high: int) -> list[Node]:
    extent = x.shape[axis]
    parts = [b.flip(_cut(b, x, axis, 1, low), axes=(axis,))] if low > 0 else []
    parts.append(x)
    if high > 0:
        parts.append(b.flip(_cut(b, x, axis, extent - 1 - high, high), axes=(axis,)))
    return parts


def _replicated(b: Builder, x: Node, axis: int, low: int, high: int) -> list[Node]:
    def edge(start: int, count: int) -> Node:
        shape = tuple(count if i == axis else d for i, d in enumerate(x.shape))
        made: Node = b.broadcast(_cut(b, x, axis, start, 1), shape=shape, dims=tuple(range(len(shape))))
        return made

    parts = [edge(0, low)] if low > 0 else []
    parts.append(x)
    if high > 0:
        parts.append(edge(x.shape[axis] - 1, high))
    return parts


def _wrapped(b: Builder, x: Node, axis: int, low: int, high: int) -> list[Node]:
    extent = x.shape[axis]
    parts = [_cut(b, x, axis, extent - low, low)] if low > 0 else []
    parts.append(x)
    if high > 0:
        parts.append(_cut(b, x, axis, 0, high))
    return parts


_EDGES: dict[str, Callable[..., list[Node]]] = {"reflect": _reflected, "replicate": _replicated,
                                                "circular": _wrapped}


def _edges(b: Builder, x: Node, pads: Pairs, mode: str) -> Node:
    """Axis by axis, so that corners repeat what was added before; negative pads crop first."""
    lead = len(x.shape) - len(pads)
    for axis, (low, high) in enumerate(pads, lead):
        x = _cropped(b, x, axis, low, high)
        parts = _EDGES[mode](b, x, axis, low, high)
        x = b.concat(*parts, axis=axis) if len(parts) > 1 else x
    return x


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements added at (or, if negative, taken from) both ends of the last dimensions.

    Args:
        pad: (low, high) of the last dimension, then of the one before, …
        mode: constant, reflect, replicate or circular.
    """
    pads = tuple(int(p) for p in pad)
    if len(pads) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(pads) // 2 > input.dim():
        raise RuntimeError("Padding length should be less than or equal to two times the input dimension but got "
                           f"padding length {len(pads)} and input of dimension {input.dim()}")
    pairs = tuple(zip(pads[0::2], pads[1::2], strict=True))[::-1]
    extents = input._shape[input.dim() - len(pairs):]
    if mode == "constant":
        for d, (low, high) in zip(extents, pairs, strict=True):
            if d + low + high < 0:
                raise RuntimeError(f"The input size {d}, plus negative padding {low} and {high}, resulted in a "
                                   "negative output size, which is invalid.")
        return apply(_constant, (input,), (pairs, 0 if value is None else value))  # type: ignore[no-any-return]
    if mode not in _EDGES:
        raise NotSupportedError(f"Unrecognised padding mode {mode}", location=location(),
                                hint="use constant, reflect, replicate or circular")
    for d, (low, high) in zip(extents, pairs, strict=True):
        limit = {"reflect": d - 1, "circular": d}.get(mode)
        if limit is not None and max(low, high) > limit:
            raise ShapeError(f"pad: {mode} padding of {max(low, high)} needs a dimension of more elements than the "
                             f"input of shape {list(input.shape)} has", location=location(),
                             hint=f"it may be at most {limit} there")
    return apply(_edges, (input,), (pairs, mode))  # type: ignore[no-any-return]


def _nearest(b: Builder, x: Node, out: tuple[int, ...]) -> Node:
    for axis, (d, o) in enumerate(zip(x.shape[2:], out, strict=True), 2):
        if o != d:
            places = [min(i * d // o, d - 1) for i in range(o)]
            x = b.index_select(x, b.constant(places, i64), axis=axis)
    return x


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Spatial dimensions resized to `size`, or by `scale_factor`, to the nearest element.

    Raises NotSupportedError for other modes.
    """
    if mode != "nearest":
        raise NotSupportedError(f"interpolate: mode {mode!r} is not supported", location=location(),
                                hint="use mode='nearest'")
    n = input.dim() - 2
    if size is None:
        if scale_factor is None:
            raise ValueError("either size or scale_factor should be defined")
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n
        size = tuple(int(d * f) for d, f in zip(input._shape[2:], factors, strict=True))
    return apply(_nearest, (input,), (each(size, n, "size"),))  # type: ignore[no-any-return]


def _shuffle(b: Builder, x: Node, factor: int) -> Node:
    *lead, channels, height, width = x.shape
    count = len(lead)
    c = channels // (factor * factor)
    split = b.reshape(x, shape=(*lead, c, factor, factor, height, width))
    order = (*range(count), count, count + 3, count + 1, count + 4, count + 2)
    return b.reshape(b.permute(split, dims=order), shape=(*lead, c, height * factor, width * factor))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[…, C·r², H, W] → […, C, H·r, W·r]."""
    if input.dim() < 3 or input._shape[-3] % (upscale_factor * upscale_factor):
        raise RuntimeError("pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
                           f"upscale_factor, but input of shape {list(input.shape)} is not")
    return apply(_shuffle, (input,), (int(upscale_factor),))  # type: ignore[no-any-return]
