"""Operators along one axis where order matters: cumulative sums, sorting, the k greatest."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dtypes import i64
from ..errors import ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, TupleType, Type
from ._common import Array, check_axis, check_extents, one, require, tensor

NUMBERS = ("f32", "f64", "f16", "bf16", "i32", "i64")
ANY = (*NUMBERS, "i8", "i16", "u8", "bool")


def _infer_cumsum(attrs: Any, x: Type) -> Type:
    t = tensor("cumsum", x)
    require("cumsum", t, kinds=("float", "int", "uint"))
    check_axis("cumsum", attrs.axis, t.rank)
    return t


def _cumsum(attrs: Any, t: TensorType, x: Array) -> Array:
    x = np.flip(x, attrs.axis) if attrs.reverse else x
    with np.errstate(all="ignore"):
        total = np.cumsum(x, axis=attrs.axis, dtype=x.dtype)
    return np.flip(total, attrs.axis) if attrs.reverse else total


register(
    OpDef(
        "cumsum",
        1,
        _infer_cumsum,
        _cumsum,
        Kind.OPAQUE,
        (Attr("axis", "int"), Attr("reverse", "bool", False)),
        vjp=lambda b, n, g, x: [b.cumsum(g, axis=n.attrs.axis, reverse=not n.attrs.reverse)],
        family="ordering",
        dtypes=NUMBERS,
        doc="Running sum along `axis`, added one after the other in the compute dtype, from the last element "
        "backwards if `reverse`.",
        samples=(
            one(7, attrs={"axis": 0}),
            one(3, 17, attrs={"axis": 1, "reverse": True}),
            one(3, 4, 2, attrs={"axis": 1}),
            one(0, 3, attrs={"axis": 0}),
            one(2, 1, attrs={"axis": 1, "reverse": True}),
        ),
        bad=(one(3, attrs={"axis": 1}), one(attrs={"axis": 0}), Sample((("bool", (3,)),), {"axis": 0})),
    )
)


def order(x: Array, axis: int, descending: bool) -> Array:
    """Indices that sort x, equal elements in their old order; NaN counts as greatest."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64)
    # Sorting the reversed axis and reversing the result keeps equal elements in their old order.
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    out: Array = x.shape[axis] - 1 - np.flip(backwards, axis).astype(np.int64)
    return out


def _picked_vjp(b: Builder, node: Node, gs: tuple[Node | None, Node | None], x: Node) -> list[Node | None]:
    """Cotangents of the values go to where the indices found them."""
    if gs[0] is None:
        return [None]
    indices = b.result(node, index=1)
    return [b.scatter_add(b.full(0, x.dtype, x.shape), indices, gs[0], axis=node.attrs.axis)]


def _infer_sort(attrs: Any, x: Type) -> Type:
    t = tensor("sort", x)
    check_axis("sort", attrs.axis, t.rank)
    return TupleType((t, t.with_dtype(i64)))


def _sort(attrs: Any, t: tuple[TensorType, ...], x: Array) -> tuple[Array, Array]:
    indices = order(x, attrs.axis, attrs.descending)
    return np.take_along_axis(x, indices, attrs.axis), indices


register(
    OpDef(
        "sort",
        1,
        _infer_sort,
        _sort,
        Kind.OPAQUE,
        (Attr("axis", "int"), Attr("descending", "bool", False)),
        vjp=_picked_vjp,
        family="ordering",
        dtypes=ANY,
        exact=True,
        doc="(values, indices) along `axis` in rising or falling order. Stable in both; NaN counts as greatest.",
        samples=(
            one(7, attrs={"axis": 0}),
            one(3, 17, attrs={"axis": 1, "descending": True}),
            one(3, 4, 2, attrs={"axis": 1}),
            one(2, 0, attrs={"axis": 1}),
            one(1, 3, attrs={"axis": 0}),
        ),
        bad=(one(3, attrs={"axis": 1}), one(attrs={"axis": 0})),
    )
)


def _infer_topk(attrs: Any, x: Type) -> Type:
    t = tensor("topk", x)
    check_axis("topk", attrs.axis, t.rank)
    check_extents("topk", (attrs.k,))
    room = t.shape[attrs.axis] - attrs.k
    if isinstance(room, int) and room < 0:
        raise ShapeError(
            f"topk: k={attrs.k} is more than the extent {t.shape[attrs.axis]} of axis {attrs.axis} of {t}"
        )
    shape = (*t.shape[: attrs.axis], attrs.k, *t.shape[attrs.axis + 1 :])
    return TupleType((t.with_shape(shape), TensorType(i64, shape)))


def _topk(attrs: Any, t: tuple[TensorType, ...], x: Array) -> tuple[Array, Array]:
    first = (slice(None),) * attrs.axis + (slice(attrs.k),)
    indices = order(x, attrs.axis, attrs.largest)[first]
    return np.take_along_axis(x, indices, attrs.axis), indices


register(
    OpDef(
        "topk",
        1,
        _infer_topk,
        _topk,
        Kind.OPAQUE,
        (Attr("k", "dim"), Attr("axis", "int"), Attr("largest", "bool", True)),
        vjp=_picked_vjp,
        family="ordering",
        dtypes=ANY,
        exact=True,
        doc="(values, indices) of the `k` greatest (or least) elements along `axis`, best first: the start of "
        "`sort`, so of equal elements the first, and NaN counts as greatest.",
        samples=(
            one(7, attrs={"axis": 0, "k": 3}),
            one(3, 17, attrs={"axis": 1, "k": 5, "largest": False}),
            one(3, 4, 2, attrs={"axis": 1, "k": 4}),
            one(3, 4, attrs={"axis": 0, "k": 0}),
        ),
        bad=(
            one(3, attrs={"axis": 1, "k": 1}),
            one(3, attrs={"axis": 0, "k": 4}),
            one(3, attrs={"axis": 0, "k": -1}),
        ),
    )
)
