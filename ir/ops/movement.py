"""Operators that move elements without computing: free as index maps of the loads that read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import Dim, dmax
from ..errors import AttributeValueError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, Type
from ._common import Array, check_axes, check_axis, check_extents, ints, one, same_dtype, show, tensor, two

ANY = ("f32", "f64", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "bool")


def _infer_reshape(attrs: Any, x: Type) -> Type:
    t = tensor("reshape", x)
    shape = check_extents("reshape", attrs.shape)
    new = t.with_shape(shape)
    if t.size != new.size:
        raise ShapeError(f"reshape: {show(t.shape)} has {t.size} elements, {show(shape)} has {new.size}")
    return new


register(
    OpDef(
        "reshape",
        1,
        _infer_reshape,
        lambda a, t, x: x.reshape(ints(t.shape)),
        Kind.MOVEMENT,
        (Attr("shape", "dims"),),
        vjp=lambda b, n, g, x: [b.reshape(g, shape=x.shape)],
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="The same elements in row-major order under another shape.",
        samples=(
            one(2, 6, attrs={"shape": (3, 4)}),
            one(4, attrs={"shape": (2, 1, 2)}),
            one(0, 3, attrs={"shape": (0,)}),
        ),
        bad=(one(2, 3, attrs={"shape": (4,)}), one(2, attrs={"shape": (-1, 2)})),
    )
)


def _infer_permute(attrs: Any, x: Type) -> Type:
    t = tensor("permute", x)
    check_axes("permute", attrs.dims, t.rank)
    if len(attrs.dims) != t.rank:
        raise AttributeValueError(f"permute: {t.rank} axes to order, got {attrs.dims}")
    return t.with_shape(tuple(t.shape[d] for d in attrs.dims))


def _permute_vjp(b: Builder, n: Node, g: Node, x: Node) -> list[Node | None]:
    inverse = sorted(range(len(n.attrs.dims)), key=lambda i: n.attrs.dims[i])
    return [b.permute(g, dims=tuple(inverse))]


register(
    OpDef(
        "permute",
        1,
        _infer_permute,
        lambda a, t, x: np.transpose(x, a.dims),
        Kind.MOVEMENT,
        (Attr("dims", "ints"),),
        vjp=_permute_vjp,
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="Axes in another order: output axis i is input axis `dims[i]`.",
        samples=(
            one(2, 3, 4, attrs={"dims": (2, 0, 1)}),
            one(attrs={"dims": ()}),
            one(5, 17, attrs={"dims": (1, 0)}),
        ),
        bad=(one(2, 3, attrs={"dims": (0, 0)}), one(2, 3, attrs={"dims": (0,)})),
    )
)


def _infer_broadcast(attrs: Any, x: Type) -> Type:
    t = tensor("broadcast", x)
    shape = check_extents("broadcast", attrs.shape)
    dims = check_axes("broadcast", attrs.dims, len(shape))
    if len(dims) != t.rank or list(dims) != sorted(dims):
        raise AttributeValueError(
            f"broadcast: dims {dims} must name one output axis, in rising order, for each of the "
            f"{t.rank} input axes"
        )
    for axis, d in zip(dims, t.shape, strict=True):
        if d != 1 and d != shape[axis]:
            raise ShapeError(
                f"broadcast: extent {d} of {show(t.shape)} cannot become extent {shape[axis]} of "
                f"{show(shape)}"
            )
    return t.with_shape(shape)


def _broadcast(attrs: Any, t: TensorType, x: Array) -> Array:
    middle = [1] * len(t.shape)
    for axis, d in zip(attrs.dims, x.shape, strict=True):
        middle[axis] = d
    return np.broadcast_to(x.reshape(middle), ints(t.shape))


def _broadcast_vjp(b: Builder, n: Node, g: Node, x: Node) -> list[Node | None]:
    kept = {axis for axis, d in zip(n.attrs.dims, x.shape, strict=True) if d == n.shape[axis]}
    axes = tuple(i for i in range(len(n.shape)) if i not in kept)
    total = b.sum(g, axes=axes) if axes else g
    return [total if total.shape == x.shape else b.reshape(total, shape=x.shape)]


register(
    OpDef(
        "broadcast",
        1,
        _infer_broadcast,
        _broadcast,
        Kind.BROADCAST,
        (Attr("shape", "dims"), Attr("dims", "ints")),
        vjp=_broadcast_vjp,
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="Repeats along new axes and axes of extent 1: input axis i becomes output axis `dims[i]` (XLA's "
        "broadcast_in_dim). The only broadcast but for rank-0 operands of elementwise operators.",
        samples=(
            one(3, attrs={"shape": (2, 3), "dims": (1,)}),
            one(2, 1, attrs={"shape": (2, 5), "dims": (0, 1)}),
            one(attrs={"shape": (2, 3), "dims": ()}),
            one(3, attrs={"shape": (3, 0), "dims": (0,)}),
        ),
        bad=(
            one(3, attrs={"shape": (2, 4), "dims": (1,)}),
            one(2, 3, attrs={"shape": (3, 2), "dims": (1, 0)}),
        ),
    )
)


def _infer_slice(attrs: Any, x: Type) -> Type:
    t = tensor("slice", x)
    if not len(attrs.start) == len(attrs.size) == len(attrs.step) == t.rank:
        raise AttributeValueError(f"slice: start, size and step need {t.rank} entries for {show(t.shape)}")
    check_extents("slice", attrs.size)
    for axis, (start, size, step, d) in enumerate(
        zip(attrs.start, attrs.size, attrs.step, t.shape, strict=True)
    ):
        if step < 1:
            raise AttributeValueError(f"slice: step {step} of axis {axis} must be positive")
        end: Dim = start + (size - 1) * step + 1
        room = d - end
        if isinstance(size, int) and size == 0:
            continue
        if (isinstance(start, int) and start < 0) or (isinstance(room, int) and room < 0):
            raise ShapeError(
                f"slice: {size} elements from {start} by {step} leave axis {axis} of {show(t.shape)}"
            )
    return t.with_shape(attrs.size)


def _slice(attrs: Any, t: TensorType, x: Array) -> Array:
    cut = tuple(
        slice(s, s + max(n - 1, 0) * k + 1 if n else s, k)
        for s, n, k in zip(attrs.start, attrs.size, attrs.step, strict=True)
    )
    return x[cut]


def _slice_vjp(b: Builder, n: Node, g: Node, x: Node) -> list[Node | None]:
    pads = []
    for start, size, step, d in zip(n.attrs.start, n.attrs.size, n.attrs.step, x.shape, strict=True):
        taken = (size - 1) * step + 1 if size != 0 else 0
        pads.append((start, d - start - taken, step - 1))
    return [b.pad(g, b.like(0, g), pads=tuple(pads))]


register(
    OpDef(
        "slice",
        1,
        _infer_slice,
        _slice,
        Kind.MOVEMENT,
        (Attr("start", "dims"), Attr("size", "dims"), Attr("step", "ints")),
        vjp=_slice_vjp,
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="`size` elements of every axis from `start` on, `step` (> 0) apart.",
        samples=(
            one(5, 7, attrs={"start": (1, 0), "size": (3, 3), "step": (1, 3)}),
            one(4, attrs={"start": (4,), "size": (0,), "step": (1,)}),
            one(9, attrs={"start": (2,), "size": (3,), "step": (2,)}),
        ),
        bad=(
            one(4, attrs={"start": (2,), "size": (3,), "step": (1,)}),
            one(4, attrs={"start": (0,), "size": (2,), "step": (0,)}),
            one(4, attrs={"start": (0, 0), "size": (2,), "step": (1,)}),
        ),
    )
)


def padded_extent(d: Dim, low: Dim, high: Dim, interior: Dim) -> Dim:
    """Extent after padding: `interior` values between neighbours, `low` and `high` at the ends (negative crops)."""
    between = (d - 1) * interior if d != 0 else 0
    return d + between + low + high


def _infer_pad(attrs: Any, x: Type, value: Type) -> Type:
    t, v = tensor("pad", x), tensor("pad", value)
    same_dtype("pad", t, v)
    if v.shape:
        raise ShapeError(f"pad: the padding value must be a scalar, got {v}")
    if len(attrs.pads) != t.rank or any(len(p) != 3 for p in attrs.pads):
        raise AttributeValueError(f"pad: pads need (low, high, interior) for each of the {t.rank} axes")
    if any(isinstance(p[2], int) and p[2] < 0 for p in attrs.pads):
        raise AttributeValueError("pad: interior padding is negative")
    shape = tuple(padded_extent(d, *p) for d, p in zip(t.shape, attrs.pads, strict=True))
    return t.with_shape(check_extents("pad", shape))


def _pad(attrs: Any, t: TensorType, x: Array, value: Array) -> Array:
    full = [d + (d - 1) * p[2] if d else 0 for d, p in zip(x.shape, attrs.pads, strict=True)]
    out = np.full(ints(t.shape), value[()], dtype=x.dtype)
    spread = np.full(full, value[()], dtype=x.dtype)
    spread[tuple(slice(None, None, p[2] + 1) for p in attrs.pads)] = x
    source, target = [], []
    for extent, size, (low, _, _) in zip(full, ints(t.shape), attrs.pads, strict=True):
        first, last = max(low, 0), min(low + extent, size)
        last = max(last, first)
        target.append(slice(first, last))
        source.append(slice(first - low, last - low))
    out[tuple(target)] = spread[tuple(source)]
    return out


def _pad_vjp(b: Builder, n: Node, g: Node, x: Node, value: Node) -> list[Node | None]:
    # Undo crops by padding with zeros, then take every (interior+1)-th element.
    grow, start, step = [], [], []
    for low, high, interior in n.attrs.pads:
        crop_low, crop_high = dmax(-low, 0), dmax(-high, 0)
        grow.append((crop_low, crop_high, 0))
        start.append(low + crop_low)
        step.append(interior + 1)
    whole = b.pad(g, b.like(0, g), pads=tuple(grow)) if any(p != (0, 0, 0) for p in grow) else g
    dx = b.slice(whole, start=tuple(start), size=x.shape, step=tuple(step))
    axes = tuple(range(len(n.shape)))
    if value.op.name == "constant":
        return [dx, None]
    return [dx, b.sub(b.sum(g, axes=axes), b.sum(dx, axes=axes))]


register(
    OpDef(
        "pad",
        2,
        _infer_pad,
        _pad,
        Kind.MOVEMENT,
        (Attr("pads", "pads"),),
        vjp=_pad_vjp,
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="Elements apart by `interior` and between `low` and `high` copies of a scalar; negative low or high crop.",
        samples=(
            Sample((("*", (3, 2)), ("*", ())), {"pads": ((1, 2, 0), (0, 1, 2))}),
            Sample((("*", (5,)), ("*", ())), {"pads": ((-1, 2, 1),)}),
            Sample((("*", (0, 2)), ("*", ())), {"pads": ((1, 0, 0), (0, 0, 0))}),
        ),
        bad=(
            Sample((("f32", (3,)), ("f32", (1,))), {"pads": ((1, 1, 0),)}),
            Sample((("f32", (3,)), ("f32", ())), {"pads": ((-2, -2, 0),)}),
            Sample((("f32", (3,)), ("i32", ())), {"pads": ((1, 1, 0),)}),
        ),
    )
)


def _infer_concat(attrs: Any, *xs: Type) -> Type:
    if not xs:
        raise ShapeError("concat needs at least one operand")
    ts = [tensor("concat", x) for x in xs]
    same_dtype("concat", *ts)
    axis = check_axis("concat", attrs.axis, ts[0].rank)
    total: Dim = 0
    for t in ts:
        if t.rank != ts[0].rank or any(
            i != axis and d != e for i, (d, e) in enumerate(zip(t.shape, ts[0].shape, strict=True))
        ):
            raise ShapeError(
                f"concat: shapes {', '.join(show(u.shape) for u in ts)} may differ along axis {axis} only"
            )
        total = total + t.shape[axis]
    shape = list(ts[0].shape)
    shape[axis] = total
    return ts[0].with_shape(tuple(shape))


def _concat_vjp(b: Builder, n: Node, g: Node, *xs: Node) -> list[Node | None]:
    axis, at = n.attrs.axis, 0
    out: list[Node | None] = []
    for x in xs:
        start: list[Dim] = [0] * len(x.shape)
        start[axis] = at
        out.append(b.slice(g, start=tuple(start), size=x.shape, step=(1,) * len(x.shape)))
        at = at + x.shape[axis]
    return out


register(
    OpDef(
        "concat",
        None,
        _infer_concat,
        lambda a, t, *xs: np.concatenate(xs, axis=a.axis),
        Kind.MOVEMENT,
        (Attr("axis", "int"),),
        vjp=_concat_vjp,
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="Operands one behind the other along `axis`.",
        samples=(
            two((2, 3), (2, 2), attrs={"axis": 1}),
            two((0, 3), (2, 3), attrs={"axis": 0}),
            one(3, attrs={"axis": 0}),
        ),
        bad=(two((2, 3), (3, 2), attrs={"axis": 1}), two((2,), (2,), attrs={"axis": 1})),
    )
)


def _infer_flip(attrs: Any, x: Type) -> Type:
    t = tensor("flip", x)
    check_axes("flip", attrs.axes, t.rank)
    return t


register(
    OpDef(
        "flip",
        1,
        _infer_flip,
        lambda a, t, x: np.flip(x, a.axes),
        Kind.MOVEMENT,
        (Attr("axes", "ints"),),
        vjp=lambda b, n, g, x: [b.flip(g, axes=n.attrs.axes)],
        family="movement",
        dtypes=ANY,
        exact=True,
        doc="Reversed along `axes`.",
        samples=(one(3, 4, attrs={"axes": (0,)}), one(2, 3, 17, attrs={"axes": (0, 2)})),
        bad=(one(3, attrs={"axes": (1,)}), one(3, attrs={"axes": (0, 0)})),
    )
)


def _infer_iota(attrs: Any) -> Type:
    shape = check_extents("iota", attrs.shape)
    check_axis("iota", attrs.axis, len(shape))
    if attrs.dtype.is_bool:
        raise AttributeValueError("iota has no meaning for bool")
    return TensorType(attrs.dtype, shape)


def _iota(attrs: Any, t: TensorType) -> Array:
    shape = ints(t.shape)
    line = np.arange(shape[attrs.axis]).astype(t.dtype.numpy)
    return np.broadcast_to(line.reshape([-1 if i == attrs.axis else 1 for i in range(len(shape))]), shape)


def _dtype(name: str) -> Any:
    from ..dtypes import dtype

    return dtype(name)


register(
    OpDef(
        "iota",
        0,
        _infer_iota,
        _iota,
        Kind.ELEMENTWISE,
        (Attr("shape", "dims"), Attr("axis", "int"), Attr("dtype", "dtype")),
        family="movement",
        exact=True,
        doc="Every element is its index along `axis`.",
        samples=(
            Sample((), {"shape": (3, 4), "axis": 1, "dtype": _dtype("i64")}),
            Sample((), {"shape": (5,), "axis": 0, "dtype": _dtype("f32")}),
        ),
        bad=(
            Sample((), {"shape": (3,), "axis": 1, "dtype": _dtype("i64")}),
            Sample((), {"shape": (-3,), "axis": 0, "dtype": _dtype("i64")}),
        ),
    )
)
