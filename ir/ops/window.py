"""Windows over the last axes: what pooling is made of. Geometry as in `_geometry`.

Axes that no window moves over take an entry 1 behind others that have one: `window=(2, 2, 1)` pools [N, H, W, C].
The taps of a window are numbered in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import Dim
from ..dtypes import DType, from_numpy, i32, u8
from ..errors import AttributeValueError, DTypeError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, Sample, register
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


def place_dtype(window: tuple[int, ...]) -> DType:
    """The dtype that numbers the taps of a window."""
    return u8 if math.prod(window) <= 256 else i32


def _places(attrs: Any, x: Type) -> TensorType:
    return _pooled("window_argmax", attrs, x).with_dtype(place_dtype(attrs.window))


def _best(attrs: Any, t: TensorType, x: Array) -> tuple[Array, Array]:
    """Greatest element of every window and its tap: first wins, NaN beats all, padding never (else tap 0)."""
    shape, n = ints(t.shape), len(attrs.window)
    spatial, out = x.shape[-n:], shape[-n:]
    low = from_numpy(x.dtype).min
    whole = padded(x, attrs.pads, low)
    value = np.full(shape, low, x.dtype)
    place = np.full(shape, -1, np.int64)
    for number, (tap, cut) in enumerate(taps(attrs, attrs.window, out)):
        inside = np.ones((1,) * n, bool)
        for axis, (k, d, o) in enumerate(zip(tap, spatial, out, strict=True)):
            at = np.arange(o) * attrs.stride[axis] + k * attrs.dilation[axis] - attrs.pads[axis][0]
            inside = inside & ((at >= 0) & (at < d)).reshape([-1 if i == axis else 1 for i in range(n)])
        found = whole[cut]
        better = inside & ((place < 0) | (found > value) | ((found != found) & (value == value)))
        value, place = np.where(better, found, value), np.where(better, number, place)
    return value, np.maximum(place, 0)


def _argmax(attrs: Any, t: TensorType, x: Array) -> Array:
    return _best(attrs, t, x)[1].astype(t.dtype.numpy)


def _geometry(node: Node) -> dict[str, Any]:
    return {a.name: getattr(node.attrs, a.name) for a in _ATTRS}


def _spatial(node: Node, x: Node) -> tuple[Dim, ...]:
    return x.shape[len(x.shape) - len(node.attrs.window) :]


def _window_max_vjp(b: Builder, node: Node, g: Node, x: Node) -> list[Node | None]:
    at = _geometry(node)
    return [b.window_put(g, b.window_argmax(x, **at), **at, spatial=_spatial(node, x))]


def _check_places(op: str, attrs: Any, place: Type, outputs: TensorType) -> None:
    """Raises ShapeError or DTypeError unless `place` holds a tap for each window."""
    t, dtype = tensor(op, place), place_dtype(attrs.window)
    if t.dtype is not dtype:
        raise DTypeError(f"{op}: taps of windows {attrs.window} are numbered by {dtype.long_name}, got {t}")
    if t.shape != outputs.shape:
        raise ShapeError(f"{op}: {t} has not one tap for each window of {show(outputs.shape)}")


def _infer_window_take(attrs: Any, x: Type, place: Type) -> Type:
    out = _pooled("window_take", attrs, x)
    _check_places("window_take", attrs, place, out)
    return out


def _infer_window_put(attrs: Any, dy: Type, place: Type) -> Type:
    _check_places("window_put", attrs, place, tensor("window_put", dy))
    return _transposed("window_put", attrs, dy)


def _window_take(attrs: Any, t: TensorType, x: Array, place: Array) -> Array:
    shape = ints(t.shape)
    whole, out = padded(x, attrs.pads, 0), np.zeros(shape, x.dtype)
    for number, (_, cut) in enumerate(taps(attrs, attrs.window, shape[-len(attrs.window) :])):
        out = np.where(place == number, whole[cut], out)
    return out


def _window_put(attrs: Any, t: TensorType, dy: Array, place: Array) -> Array:
    return _put(attrs, t, dy, lambda number: place == number)


def _window_take_vjp(b: Builder, node: Node, g: Node, x: Node, place: Node) -> list[Node | None]:
    return [b.window_put(g, place, **_geometry(node), spatial=_spatial(node, x)), None]


def _window_put_vjp(b: Builder, node: Node, g: Node, dy: Node, place: Node) -> list[Node | None]:
    return [b.window_take(g, place, **_geometry(node)), None]


def _window_sum(attrs: Any, t: TensorType, x: Array) -> Array:
    shape = ints(t.shape)
    whole = padded(x, attrs.pads, 0)
    total = np.zeros(shape, whole.dtype)
    with np.errstate(all="ignore"):
        for _, cut in taps(attrs, attrs.window, shape[-len(attrs.window) :]):
            total += whole[cut]
    return total


def _transposed(op: str, attrs: Any, dy: Type) -> TensorType:
    """The type of a result of extents `attrs.spatial` whose windows `dy` has an element for each."""
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


def _put(attrs: Any, t: TensorType, dy: Array, chosen: Callable[[int], Any]) -> Array:
    """Sums over the windows an element is in, of those elements of `dy` that are `chosen` for its tap."""
    shape, n = ints(t.shape), len(attrs.window)
    whole = padded_zeros(shape[:-n], shape[-n:], attrs.pads, dy.dtype)
    with np.errstate(all="ignore"):
        for number, (_, cut) in enumerate(taps(attrs, attrs.window, dy.shape[-n:])):
            whole[cut] += np.where(chosen(number), dy, dy.dtype.type(0))
    return cropped(whole, attrs.pads)


def _window_spread(attrs: Any, t: TensorType, dy: Array) -> Array:
    return _put(attrs, t, dy, lambda number: True)


def _window_sum_vjp(b: Builder, node: Node, g: Node, x: Node) -> list[Node | None]:
    return [b.window_spread(g, **_geometry(node), spatial=_spatial(node, x))]


def _window_spread_vjp(b: Builder, node: Node, g: Node, dy: Node) -> list[Node | None]:
    return [b.window_sum(g, **_geometry(node))]


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
        _places,
        _argmax,
        Kind.OPAQUE,
        _ATTRS,
        family="window",
        dtypes=DTYPES,
        exact=True,
        samples=_SAMPLES,
        bad=_BAD,
        doc="The tap of every window that `window_max` takes, as u8 (i32 for windows of more than 256 taps): the "
        "first of equal elements, the first NaN if there is one; 0 for a window of nothing but padding.",
    )
)


def _with_places(*samples: Sample) -> tuple[Sample, ...]:
    """Samples of one operand with a second one: a tap for each window."""
    out = []
    for s in samples:
        ((_, shape),) = s.inputs
        taps_of = math.prod(s.attrs["window"])
        windows = shape
        if "spatial" not in s.attrs:
            t = TensorType(i32, shape)
            windows = ints(_pooled("window_take", SimpleNamespace(**s.attrs), t).shape)
        places = (place_dtype(s.attrs["window"]).name, windows)
        out.append(replace(s, inputs=(*s.inputs, places), ranges=(None, (0, taps_of))))
    return tuple(out)


register(
    OpDef(
        "window_take",
        2,
        _infer_window_take,
        _window_take,
        Kind.OPAQUE,
        _ATTRS,
        vjp=_window_take_vjp,
        family="window",
        dtypes=DTYPES,
        exact=True,
        samples=_with_places(*_SAMPLES),
        bad=(
            Sample((("f32", (4, 4)), ("u8", (3,))), _at((2,), (2,), ((0, 0),))),
            Sample((("f32", (4, 4)), ("i32", (4, 2))), _at((2,), (2,), ((0, 0),))),
        ),
        doc="The element of every zero-padded window at the tap `place` has for it; 0 for a number that no tap has.",
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

_SPREAD_SAMPLES = (
    one(2, 3, 3, 3, attrs=_at((2, 2), (2, 2), ((0, 0), (0, 0)), spatial=(6, 7))),
    one(1, 2, 3, 9, attrs=_at((3, 2), (2, 1), ((1, 1), (0, 1)), spatial=(5, 9))),
    one(2, 4, attrs=_at((3,), (3,), ((2, 1),), (2,), spatial=(11,))),
    one(0, 2, 3, attrs=_at((2,), (1,), ((0, 0),), spatial=(4,))),
)

register(
    OpDef(
        "window_spread",
        1,
        lambda a, dy: _transposed("window_spread", a, dy),
        _window_spread,
        Kind.OPAQUE,
        (*_ATTRS, Attr("spatial", "dims")),
        vjp=_window_spread_vjp,
        family="window",
        dtypes=DTYPES,
        doc="The transpose of `window_sum`: every element of the result, of extents `spatial`, sums the windows "
        "it is in, taps in row-major order.",
        samples=_SPREAD_SAMPLES,
        bad=(
            one(2, 3, attrs=_at((2,), (1,), ((0, 0),), spatial=(3,))),
            one(2, 3, attrs=_at((2,), (1,), ((0, 0),), spatial=(4, 4))),
        ),
    )
)

register(
    OpDef(
        "window_put",
        2,
        _infer_window_put,
        _window_put,
        Kind.OPAQUE,
        (*_ATTRS, Attr("spatial", "dims")),
        vjp=_window_put_vjp,
        family="window",
        dtypes=DTYPES,
        doc="The transpose of `window_take`: every element of the result, of extents `spatial`, sums the elements of "
        "the windows whose `place` it is, taps in row-major order. The gradient of `window_max`.",
        samples=_with_places(*_SPREAD_SAMPLES),
        bad=(
            Sample((("f32", (2, 3)), ("u8", (2, 2))), _at((2,), (1,), ((0, 0),), spatial=(4,))),
            Sample((("f32", (2, 3)), ("i32", (2, 3))), _at((2,), (1,), ((0, 0),), spatial=(4,))),
        ),
    )
)
