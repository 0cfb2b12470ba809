"""Sliding windows: the geometry that convolutions and pooling share, for inference and for the references.

A window of `k` taps, `dilation` apart, moves by `stride` over an axis with `low` and `high`
padding: tap `t` of output `o` reads element `o*stride + t*dilation - low`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..dims import Dim, floordiv
from ..errors import AttributeValueError, ShapeError
from ._common import Array, ints, show

Pads = Sequence[Sequence[Dim]]


def check_geometry(op: str, attrs: Any, n: int) -> None:
    """Raises AttributeValueError unless stride, pads and dilation have `n` valid entries."""
    if n < 1:
        raise AttributeValueError(f"{op} needs at least one spatial axis")
    for name in ("stride", "pads", "dilation"):
        value = getattr(attrs, name)
        if len(value) != n:
            raise AttributeValueError(f"{op}: {name} {value} needs one entry for each of {n} spatial axes")
    for name in ("stride", "dilation"):
        if min(getattr(attrs, name)) < 1:
            raise AttributeValueError(f"{op}: {name} {getattr(attrs, name)} must be positive")
    for pair in attrs.pads:
        if len(pair) != 2:
            raise AttributeValueError(f"{op}: pads {attrs.pads} must be pairs (low, high)")
        if any(isinstance(p, int) and p < 0 for p in pair):
            raise AttributeValueError(f"{op}: pads {attrs.pads} are negative", hint="crop with `slice`")


def out_extents(op: str, attrs: Any, spatial: Sequence[Dim], window: Sequence[Dim]) -> tuple[Dim, ...]:
    """Numbers of window positions along the spatial axes.

    Raises:
        AttributeValueError: for an empty window.
        ShapeError: if the window is larger than the padded input.
    """
    if any(isinstance(k, int) and k < 1 for k in window):
        raise AttributeValueError(f"{op}: window {show(window)} must be positive")
    out = []
    geometry = zip(spatial, window, attrs.stride, attrs.pads, attrs.dilation, strict=True)
    for d, k, stride, (low, high), dilation in geometry:
        room = d + low + high - dilation * (k - 1) - 1
        if isinstance(room, int) and room < 0:
            raise ShapeError(
                f"{op}: window {show(window)} with dilation {attrs.dilation} does not fit into the input "
                f"{show(spatial)} padded by {attrs.pads}",
                hint="pad more, or use a smaller window",
            )
        out.append(floordiv(room, stride) + 1)
    return tuple(out)


def padded(x: Array, pads: Any, value: Any) -> Array:
    """`x` with its last `len(pads)` axes padded by `value`."""
    lead = x.ndim - len(pads)
    return np.pad(x, [(0, 0)] * lead + [ints(p) for p in pads], constant_values=value)


def padded_zeros(lead: Sequence[int], spatial: Sequence[int], pads: Any, dtype: Any) -> Array:
    """Zeros of the padded extents."""
    return np.zeros([*lead, *(d + p[0] + p[1] for d, p in zip(spatial, pads, strict=True))], dtype)


def cropped(x: Array, pads: Any) -> Array:
    """The inverse of `padded`."""
    spatial = x.shape[x.ndim - len(pads) :]
    cut = [slice(low, d - high) for d, (low, high) in zip(spatial, pads, strict=True)]
    out: Array = x[(..., *cut)]  # type: ignore[arg-type]
    return out


def taps(attrs: Any, window: Sequence[int], out: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Every tap in row-major order with the index of what it reads, over all outputs, of the padded input."""
    for tap in np.ndindex(*window):
        cut = tuple(
            slice(t * dilation, t * dilation + max((o - 1) * stride + 1, 0), stride)
            for t, o, stride, dilation in zip(tap, out, attrs.stride, attrs.dilation, strict=True)
        )
        yield tap, (..., *cut)
