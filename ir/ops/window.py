"""Windows over the last axes: what pooling is made of. Geometry as in `_geometry`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import product
from ..dtypes import from_numpy, i64
from ..errors import AttributeValueError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, register
from ..types import TensorType, Type
from ._common import Array, check_extents, ints, one, require, show, tensor
from ._geometry import check_geometry, cropped, out_extents, padded, padded_zeros, taps

DTYPES = ("f32", "f64", "f16", "bf16", "i32", "i64")
_ATTRS = (Attr("window", "ints"), Attr("stride", "ints"), Attr("pads", "pads"), Attr("dilation", "ints"))


def _operand(op: str, attrs: Any, x: Type) -> tuple[TensorType, int]:
    """The operand and the number of axes in front of the windows."""
    t = tensor(op, x)
    require(op, t, kinds=("float", "int", "uint"))
    n = len(attrs.window)
    check_geometry(op, attrs, n)
    if n > t.rank:
        raise ShapeError(f"{op}: a window {attrs.window} over {n} axes needs an input of rank ≥ {n}, got {t}")
    return t, t.rank - n


def _pooled(op: str, attrs: Any, x: Type) -> TensorType:
    t, lead = _operand(op, attrs, x)
    return t.with_shape(t.shape[:lead] + out_extents(op, attrs, t.shape[lead:], attrs.window))


def _best(attrs: Any, t: TensorType, x: Array) -> tuple[Array, Array]:
    """Greatest element of every window and its flat spatial index: first wins, NaN beats all, no padding."""
    shape, n = ints(t.shape), len(attrs.window)
    spatial, out = x.shape[-n:], shape[-n:]
    low = from_numpy(x.dtype).min
    whole = padded(x, attrs.pads, low)
    value = np.full(shape, low, x.dtype)
    index = np.full(shape, -1, np.int64)
    for tap, cut in taps(attrs, attrs.window, out):
        flat, inside = np.zeros((1,) * n, np.int64), np.ones((1,) * n, bool)
        for axis, (k, d, o) in enumerate(zip(tap, spatial, out, strict=True)):
            at = np.arange(o) * attrs.stride[axis] + k * attrs.dilation[axis] - attrs.pads[axis][0]
            at = at.reshape([-1 if i == axis else 1 for i in range(n)])
            flat, inside = flat * d + at, inside & (at >= 0) & (at < d)
        found = whole[cut]
        better = inside & ((index < 0) | (found > value) | ((found != found) & (value == value)))
        value, index = np.where(better, found, value), np.where(better, flat, index)
    return value, np.maximum(index, 0)


def _window_max_vjp(b: Builder, node: Node, g: Node, x: Node) -> list[Node | None]:
    at, lead = node.attrs, x.shape[: len(x.shape) - len(node.attrs.window)]
    index = b.window_argmax(x, window=at.window, stride=at.stride, pads=at.pads, dilation=at.dilation)
    positions = (*lead, product(g.shape[len(lead) :]))
    zeros = b.full(0, x.dtype, (*lead, product(x.shape[len(lead) :])))
    dx = b.scatter_add(
        zeros, b.reshape(index, shape=positions), b.reshape(g, shape=positions), axis=len(lead)
    )
    return [b.reshape(dx, shape=x.shape)]


def _window_sum(attrs: Any, t: TensorType, x: Array) -> Array:
    shape = ints(t.shape)
    whole = padded(x, attrs.pads, 0)
    total = np.zeros(shape, whole.dtype)
    with np.errstate(all="ignore"):
        for _, cut in taps(attrs, attrs.window, shape[-len(attrs.window) :]):
            total += whole[cut]
    return total


def _infer_window_spread(attrs: Any, dy: Type) -> Type:
    op = "window_spread"
    t, lead = _operand(op, attrs, dy)
    spatial = check_extents(op, attrs.spatial)
    if len(spatial) != len(attrs.window):
        raise AttributeValueError(f"{op}: spatial {show(spatial)} needs {len(attrs.window)} extents")
    expected = out_extents(op, attrs, spatial, attrs.window)
    if t.shape[lead:] != expected:
        raise ShapeError(
            f"{op}: the operand {t} ends in {show(t.shape[lead:])}, windows over "
            f"{show(spatial)} give {show(expected)}"
        )
    return t.with_shape(t.shape[:lead] + spatial)


def _window_spread(attrs: Any, t: TensorType, dy: Array) -> Array:
    shape, n = ints(t.shape), len(attrs.window)
    whole = padded_zeros(shape[:-n], shape[-n:], attrs.pads, dy.dtype)
    with np.errstate(all="ignore"):
        for _, cut in taps(attrs, attrs.window, dy.shape[-n:]):
            whole[cut] += dy
    return cropped(whole, attrs.pads)


def _window_sum_vjp(b: Builder, node: Node, g: Node, x: Node) -> list[Node | None]:
    spatial = x.shape[len(x.shape) - len(node.attrs.window) :]
    return [b.window_spread(g, **node.attrs._asdict(), spatial=spatial)]


def _window_spread_vjp(b: Builder, node: Node, g: Node, dy: Node) -> list[Node | None]:
    return [b.window_sum(g, **{a.name: getattr(node.attrs, a.name) for a in _ATTRS})]


def _at(
    window: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {
        "window": window,
        "stride": stride,
        "pads": pads,
        "dilation": dilation or (1,) * len(window),
        **more,
    }


_SAMPLES = (
    one(2, 3, 6, 7, attrs=_at((2, 2), (2, 2), ((0, 0), (0, 0)))),
    one(1, 2, 5, 9, attrs=_at((3, 2), (2, 1), ((1, 1), (0, 1)))),
    one(2, 11, attrs=_at((3,), (3,), ((2, 1),), (2,))),
    one(7, attrs=_at((7,), (1,), ((0, 0),))),
    one(1, 1, 3, 4, 5, attrs=_at((2, 1, 3), (1, 2, 2), ((0, 0), (0, 0), (1, 1)))),
    one(0, 2, 4, attrs=_at((2,), (1,), ((0, 0),))),
)
_BAD = (
    one(2, 3, attrs=_at((5,), (1,), ((0, 1),))),
    one(2, 3, attrs=_at((2,), (0,), ((0, 0),))),
    one(2, 3, attrs=_at((2,), (1,), ((0, -1),))),
    one(3, attrs=_at((2, 2), (1, 1), ((0, 0), (0, 0)))),
    one(2, 3, attrs=_at((0,), (1,), ((0, 0),))),
    one(2, 3, attrs=_at((), (), ())),
    one(2, 3, attrs=_at((2,), (1, 1), ((0, 0),))),
)

register(
    OpDef(
        "window_max",
        1,
        lambda a, x: _pooled("window_max", a, x),
        lambda a, t, x: _best(a, t, x)[0],
        Kind.OPAQUE,
        _ATTRS,
        vjp=_window_max_vjp,
        family="window",
        dtypes=DTYPES,
        exact=True,
        samples=_SAMPLES,
        bad=_BAD,
        doc="Greatest element of every window over the last `len(window)` axes; NaN wins, padding never does (a "
        "window of nothing but padding gives the dtype's minimum).",
    )
)

register(
    OpDef(
        "window_argmax",
        1,
        lambda a, x: _pooled("window_argmax", a, x).with_dtype(i64),
        lambda a, t, x: _best(a, t, x)[1],
        Kind.OPAQUE,
        _ATTRS,
        family="window",
        dtypes=DTYPES,
        exact=True,
        samples=_SAMPLES,
        bad=_BAD,
        doc="Row-major index over the unpadded window axes of what `window_max` takes: the first of equal "
        "elements, the first NaN if there is one; 0 for a window of nothing but padding.",
    )
)

register(
    OpDef(
        "window_sum",
        1,
        lambda a, x: _pooled("window_sum", a, x),
        _window_sum,
        Kind.OPAQUE,
        _ATTRS,
        vjp=_window_sum_vjp,
        family="window",
        dtypes=DTYPES,
        samples=_SAMPLES,
        bad=_BAD,
        doc="Sum of every zero-padded window over the last `len(window)` axes, taps in row-major order, in the "
        "compute dtype.",
    )
)

register(
    OpDef(
        "window_spread",
        1,
        _infer_window_spread,
        _window_spread,
        Kind.OPAQUE,
        (*_ATTRS, Attr("spatial", "dims")),
        vjp=_window_spread_vjp,
        family="window",
        dtypes=DTYPES,
        doc="The transpose of `window_sum`: every element of the result, of extents `spatial`, sums the windows "
        "it is in, taps in row-major order.",
        samples=(
            one(2, 3, 3, 3, attrs=_at((2, 2), (2, 2), ((0, 0), (0, 0)), spatial=(6, 7))),
            one(1, 2, 3, 9, attrs=_at((3, 2), (2, 1), ((1, 1), (0, 1)), spatial=(5, 9))),
            one(2, 4, attrs=_at((3,), (3,), ((2, 1),), (2,), spatial=(11,))),
            one(0, 2, 3, attrs=_at((2,), (1,), ((0, 0),), spatial=(4,))),
        ),
        bad=(
            one(2, 3, attrs=_at((2,), (1,), ((0, 0),), spatial=(3,))),
            one(2, 3, attrs=_at((2,), (1,), ((0, 0),), spatial=(4, 4))),
        ),
    )
)
