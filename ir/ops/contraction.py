"""Contractions: `dot` over any axes, and convolution with its two gradients.

Every sum runs in the compute dtype (float32 for the sixteen-bit floats) and is rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import Dim
from ..errors import AttributeValueError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, Type
from ._common import Array, check_axes, check_extents, ints, require, same_dtype, show, tensor, two
from ._geometry import check_geometry, cropped, out_extents, padded, padded_zeros, taps

_T = TypeVar("_T")
NUMBERS = ("float", "int", "uint")
DTYPES = ("f32", "f64", "f16", "bf16", "i32", "i64")


# dot


def free_axes(rank: int, *used: Sequence[int]) -> tuple[int, ...]:
    """The axes below `rank` that none of `used` names, in order."""
    taken = {axis for axes in used for axis in axes}
    return tuple(i for i in range(rank) if i not in taken)


def _free(attrs: Any, rank_a: int, rank_b: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a and of b that a dot keeps and does not pair."""
    return (
        free_axes(rank_a, attrs.contract_a, attrs.batch_a),
        free_axes(rank_b, attrs.contract_b, attrs.batch_b),
    )


def _infer_dot(attrs: Any, x: Type, y: Type) -> Type:
    a, b = tensor("dot", x), tensor("dot", y)
    require("dot", a, kinds=NUMBERS)
    same_dtype("dot", a, b)
    check_axes("dot", attrs.contract_a + attrs.batch_a, a.rank)
    check_axes("dot", attrs.contract_b + attrs.batch_b, b.rank)
    pairs = ("contract", attrs.contract_a, attrs.contract_b), ("batch", attrs.batch_a, attrs.batch_b)
    for word, left, right in pairs:
        if len(left) != len(right):
            raise AttributeValueError(f"dot: {word}_a {left} and {word}_b {right} must name as many axes")
        for i, j in zip(left, right, strict=True):
            if a.shape[i] != b.shape[j]:
                raise ShapeError(
                    f"dot: cannot {word} axis {i} of {a} (extent {a.shape[i]}) with axis {j} of {b} "
                    f"(extent {b.shape[j]})",
                    hint="the two extents must be equal; transpose one operand?",
                )
    free_a, free_b = _free(attrs, a.rank, b.rank)
    return a.with_shape(tuple(a.shape[i] for i in attrs.batch_a + free_a) + tuple(b.shape[j] for j in free_b))


def _dot(attrs: Any, t: TensorType, a: Array, b: Array) -> Array:
    free_a, free_b = _free(attrs, a.ndim, b.ndim)
    batch = [a.shape[i] for i in attrs.batch_a]
    m, n, k = (
        int(np.prod([x.shape[i] for i in axes], dtype=np.int64))
        for x, axes in ((a, free_a), (b, free_b), (a, attrs.contract_a))
    )
    left = a.transpose(attrs.batch_a + free_a + attrs.contract_a).reshape([*batch, m, k])
    right = b.transpose(attrs.batch_b + attrs.contract_b + free_b).reshape([*batch, k, n])
    with np.errstate(all="ignore"):
        out: Array = np.matmul(left, right)
    return out.reshape(ints(t.shape))


def _reorder(b: Builder, x: Node, axes: Sequence[int]) -> Node:
    """`x`, whose axis p is axis `axes[p]` of the result, in the result's order."""
    order = tuple(sorted(range(len(axes)), key=lambda p: axes[p]))
    return x if order == tuple(range(len(axes))) else b.permute(x, dims=order)


def _dot_vjp(b: Builder, node: Node, g: Node, x: Node, y: Node) -> list[Node | None]:
    at = node.attrs
    free_x, free_y = _free(at, len(x.shape), len(y.shape))
    batch = tuple(range(len(at.batch_a)))
    g_x = tuple(range(len(batch), len(batch) + len(free_x)))
    g_y = tuple(range(len(batch) + len(free_x), len(g.shape)))
    # dx[batch, free_x, contract]: what is left of y is its contracted axes, in y's order.
    left = [at.contract_a[at.contract_b.index(j)] for j in sorted(at.contract_b)]
    dx = b.dot(g, y, contract_a=g_y, contract_b=free_y, batch_a=batch, batch_b=at.batch_b)
    # dy[batch, contract, free_y], likewise.
    right = [at.contract_b[at.contract_a.index(i)] for i in sorted(at.contract_a)]
    dy = b.dot(x, g, contract_a=free_x, contract_b=g_x, batch_a=at.batch_a, batch_b=batch)
    return [_reorder(b, dx, [*at.batch_a, *free_x, *left]), _reorder(b, dy, [*at.batch_b, *right, *free_y])]


def _dims(
    contract_a: tuple[int, ...],
    contract_b: tuple[int, ...],
    batch_a: tuple[int, ...] = (),
    batch_b: tuple[int, ...] = (),
) -> dict[str, Any]:
    return {"contract_a": contract_a, "contract_b": contract_b, "batch_a": batch_a, "batch_b": batch_b}


register(
    OpDef(
        "dot",
        2,
        _infer_dot,
        _dot,
        Kind.CONTRACTION,
        (
            Attr("contract_a", "ints"),
            Attr("contract_b", "ints"),
            Attr("batch_a", "ints", ()),
            Attr("batch_b", "ints", ()),
        ),
        vjp=_dot_vjp,
        family="contraction",
        dtypes=DTYPES,
        doc="Sum of products over the axis pairs `contract_a[i]`, `contract_b[i]`. Result axes: the batch pairs "
        "in the order given, the other axes of a, the other axes of b. Products and sums run in float32 for "
        "f16 and bf16.",
        samples=(
            two((3, 5), (5, 4), attrs=_dims((1,), (0,))),
            two((7, 17), (9, 17), attrs=_dims((1,), (1,))),
            two((5,), (5,), attrs=_dims((0,), (0,))),
            two((3,), (4,), attrs=_dims((), ())),
            two((2, 3, 5), (2, 5, 4), attrs=_dims((2,), (1,), (0,), (0,))),
            two((3, 2, 4, 5), (5, 3, 6, 2), attrs=_dims((3,), (0,), (1, 0), (3, 1))),
            two((2, 3, 4), (5, 4, 3), attrs=_dims((1, 2), (2, 1))),
            two((4, 0), (0, 3), attrs=_dims((1,), (0,))),
            two((0, 2), (2, 3), attrs=_dims((1,), (0,))),
        ),
        bad=(
            two((3, 5), (4, 3), attrs=_dims((1,), (0,))),
            two((3, 5), (5, 3), attrs=_dims((1,), ())),
            two((2, 3), (3, 2), attrs=_dims((2,), (0,))),
            two((3, 3), (3, 3), attrs=_dims((0,), (0,), (0,), (1,))),
            Sample((("f32", (3, 5)), ("f64", (5, 3))), _dims((1,), (0,))),
            Sample((("bool", (3, 5)), ("bool", (5, 3))), _dims((1,), (0,))),
        ),
    )
)


# convolution

_GEOMETRY = (
    Attr("stride", "ints"),
    Attr("pads", "pads"),
    Attr("dilation", "ints"),
    Attr("groups", "int", 1),
    Attr("channels_last", "bool", False),
)


def channels_first(attrs: Any, shape: tuple[_T, ...]) -> tuple[_T, ...]:
    """An activation's extents (or whatever there is one of per axis) in the order N, C, spatial…."""
    return (shape[0], shape[-1], *shape[1:-1]) if attrs.channels_last else shape


def laid_out(attrs: Any, shape: tuple[_T, ...]) -> tuple[_T, ...]:
    """The inverse of `channels_first`."""
    return (shape[0], *shape[2:], shape[1]) if attrs.channels_last else shape


def _first(attrs: Any, x: Array) -> Array:
    """An activation as a view with its channels behind the batch."""
    return np.moveaxis(x, -1, 1) if attrs.channels_last else x


def _laid_out(attrs: Any, x: Array) -> Array:
    """The inverse of `_first`, row-major."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if attrs.channels_last else x


def _check_channels(op: str, attrs: Any, channels: Dim, outputs: Dim, per_group: Dim) -> None:
    """Raises ShapeError unless `groups` splits both channel counts and the weight has its share of them."""
    if attrs.groups < 1:
        raise AttributeValueError(f"{op}: groups {attrs.groups} must be positive")
    if channels != per_group * attrs.groups:
        raise ShapeError(
            f"{op}: a weight of {per_group} input channels per group and groups={attrs.groups} "
            f"expects {per_group * attrs.groups} input channels, got {channels}"
        )
    if isinstance(outputs, int) and outputs % attrs.groups:
        raise ShapeError(f"{op}: {outputs} output channels cannot be split into groups={attrs.groups}")


def _two_operands(op: str, attrs: Any, x: Type, y: Type) -> tuple[TensorType, TensorType, int]:
    """Both operands and the number of spatial axes, after the checks all three convolutions share."""
    a, b = tensor(op, x), tensor(op, y)
    require(op, a, kinds=NUMBERS)
    same_dtype(op, a, b)
    if a.rank != b.rank or a.rank < 3:
        raise ShapeError(
            f"{op} needs two operands of one rank ≥ 3 (batch or outputs, channels, spatial "
            f"axes), got {a} and {b}",
            hint="add a batch axis with reshape" if a.rank == b.rank - 1 else None,
        )
    check_geometry(op, attrs, a.rank - 2)
    return a, b, a.rank - 2


def _same_extents(op: str, found: Sequence[Dim], expected: Sequence[Dim]) -> None:
    if tuple(found) != tuple(expected):
        raise ShapeError(
            f"{op}: the output gradient has spatial extents {show(found)}, the convolution "
            f"gives {show(expected)}"
        )


def _infer_conv(attrs: Any, x: Type, w: Type) -> Type:
    a, b, _ = _two_operands("conv", attrs, x, w)
    batch, channels, *spatial = channels_first(attrs, a.shape)
    _check_channels("conv", attrs, channels, b.shape[0], b.shape[1])
    return a.with_shape(laid_out(attrs, (batch, b.shape[0], *out_extents("conv", attrs, spatial, b.shape[2:]))))


def _infer_conv_input_grad(attrs: Any, dy: Type, w: Type) -> Type:
    op = "conv_input_grad"
    a, b, n = _two_operands(op, attrs, dy, w)
    spatial = check_extents(op, attrs.spatial)
    if len(spatial) != n:
        raise AttributeValueError(f"{op}: spatial {show(spatial)} needs {n} extents")
    batch, filters, *positions = channels_first(attrs, a.shape)
    if filters != b.shape[0]:
        raise ShapeError(f"{op}: the gradient {a} has {filters} channels, the weight {b} makes {b.shape[0]}")
    channels = b.shape[1] * attrs.groups
    _check_channels(op, attrs, channels, b.shape[0], b.shape[1])
    _same_extents(op, positions, out_extents(op, attrs, spatial, b.shape[2:]))
    return a.with_shape(laid_out(attrs, (batch, channels, *spatial)))


def _infer_conv_weight_grad(attrs: Any, x: Type, dy: Type) -> Type:
    op = "conv_weight_grad"
    a, b, n = _two_operands(op, attrs, x, dy)
    window = check_extents(op, attrs.window)
    if len(window) != n:
        raise AttributeValueError(f"{op}: window {show(window)} needs {n} extents")
    if a.shape[0] != b.shape[0]:
        raise ShapeError(
            f"{op}: batch {a.shape[0]} of the input {a} is not batch {b.shape[0]} of the gradient {b}"
        )
    if attrs.groups < 1:
        raise AttributeValueError(f"{op}: groups {attrs.groups} must be positive")
    _, channels, *spatial = channels_first(attrs, a.shape)
    _, filters, *positions = channels_first(attrs, b.shape)
    per_group = channels // attrs.groups
    _check_channels(op, attrs, channels, filters, per_group)
    _same_extents(op, positions, out_extents(op, attrs, spatial, window))
    return a.with_shape((filters, per_group, *window))


def _grouped_weight(w: Array, groups: int) -> Array:
    """[O, I, window…] → [groups, O/groups, I, taps]."""
    return w.reshape(groups, w.shape[0] // groups, w.shape[1], int(np.prod(w.shape[2:], dtype=np.int64)))


def _grouped(x: Array, groups: int) -> Array:
    """[N, C, spatial…] → [N, groups, C/groups, positions]."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, int(np.prod(x.shape[2:], dtype=np.int64)))


def _conv(attrs: Any, t: TensorType, x: Array, w: Array) -> Array:
    shape, window = channels_first(attrs, ints(t.shape)), w.shape[2:]
    whole, weight = padded(_first(attrs, x), attrs.pads, 0), _grouped_weight(w, attrs.groups)
    out = np.zeros(_grouped(np.empty(shape, bool), attrs.groups).shape, whole.dtype)
    with np.errstate(all="ignore"):
        for i, (_, cut) in enumerate(taps(attrs, window, shape[2:])):
            out += np.matmul(weight[..., i], _grouped(whole[cut], attrs.groups))
    return _laid_out(attrs, out.reshape(shape))


def _conv_input_grad(attrs: Any, t: TensorType, dy: Array, w: Array) -> Array:
    shape, window, dy = channels_first(attrs, ints(t.shape)), w.shape[2:], _first(attrs, dy)
    weight, grad = _grouped_weight(w, attrs.groups), _grouped(dy, attrs.groups)
    whole = padded_zeros(shape[:2], shape[2:], attrs.pads, grad.dtype)
    with np.errstate(all="ignore"):
        for i, (_, cut) in enumerate(taps(attrs, window, dy.shape[2:])):
            part = np.matmul(weight[..., i].swapaxes(-1, -2), grad)
            whole[cut] += part.reshape(shape[:2] + dy.shape[2:])
    return _laid_out(attrs, cropped(whole, attrs.pads))


def _conv_weight_grad(attrs: Any, t: TensorType, x: Array, dy: Array) -> Array:
    shape, groups, dy = ints(t.shape), attrs.groups, _first(attrs, dy)
    whole = padded(_first(attrs, x), attrs.pads, 0)

    def columns(y: Array) -> Array:  # [groups, channels, batch*positions]
        y = _grouped(y, groups).transpose(1, 2, 0, 3)
        return y.reshape(y.shape[0], y.shape[1], y.shape[2] * y.shape[3])

    grad = columns(dy)
    out = np.zeros((groups, shape[0] // groups, shape[1], int(np.prod(shape[2:]))), whole.dtype)
    with np.errstate(all="ignore"):
        for i, (_, cut) in enumerate(taps(attrs, shape[2:], dy.shape[2:])):
            out[..., i] = np.matmul(grad, columns(whole[cut]).swapaxes(-1, -2))
    return out.reshape(shape)


def _shared(node: Node) -> dict[str, Any]:
    return {a.name: getattr(node.attrs, a.name) for a in _GEOMETRY}


def _spatial(node: Node, x: Node) -> tuple[Dim, ...]:
    """The spatial extents of one of a convolution's activations."""
    return channels_first(node.attrs, x.shape)[2:]


def _conv_vjp(b: Builder, node: Node, g: Node, x: Node, w: Node) -> list[Node | None]:
    same = _shared(node)
    return [
        b.conv_input_grad(g, w, **same, spatial=_spatial(node, x)),
        b.conv_weight_grad(x, g, **same, window=w.shape[2:]),
    ]


def _conv_input_grad_vjp(b: Builder, node: Node, g: Node, dy: Node, w: Node) -> list[Node | None]:
    same = _shared(node)
    return [b.conv(g, w, **same), b.conv_weight_grad(g, dy, **same, window=w.shape[2:])]


def _conv_weight_grad_vjp(b: Builder, node: Node, g: Node, x: Node, dy: Node) -> list[Node | None]:
    same = _shared(node)
    return [b.conv_input_grad(dy, g, **same, spatial=_spatial(node, x)), b.conv(x, g, **same)]


def _at(
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    **more: Any,
) -> dict[str, Any]:
    return {
        "stride": stride,
        "pads": pads,
        "dilation": dilation or (1,) * len(stride),
        "groups": groups,
        **more,
    }


def _last(*geometry: Any, **more: Any) -> dict[str, Any]:
    return _at(*geometry, **more, channels_last=True)


register(
    OpDef(
        "conv",
        2,
        _infer_conv,
        _conv,
        Kind.CONTRACTION,
        _GEOMETRY,
        vjp=_conv_vjp,
        family="contraction",
        dtypes=DTYPES,
        doc="Cross-correlation of x[N, C, spatial…] with w[O, C/groups, window…] → [N, O, positions…], "
        "zero-padded by `pads` (low, high per spatial axis). Output channel o sees the input channels of "
        "group o // (O/groups). `channels_last`: x and the result are [N, spatial…, C]; w stays as it is.",
        samples=(
            two((2, 3, 6, 5), (4, 3, 3, 3), attrs=_at((1, 1), ((1, 1), (1, 1)))),
            two((1, 4, 7, 9), (6, 2, 3, 2), attrs=_at((2, 3), ((0, 1), (2, 0)), (1, 2), 2)),
            two((2, 3, 11), (3, 1, 4), attrs=_at((3,), ((2, 1),), (2,), 3)),
            two((1, 2, 4, 5, 3), (2, 2, 2, 1, 3), attrs=_at((1, 2, 1), ((0, 0), (0, 0), (1, 1)))),
            two((3, 2, 1, 1), (5, 2, 1, 1), attrs=_at((1, 1), ((0, 0), (0, 0)))),
            two((0, 2, 4), (3, 2, 2), attrs=_at((1,), ((0, 0),))),
            two((2, 6, 5, 3), (4, 3, 3, 3), attrs=_last((1, 1), ((1, 1), (1, 1)))),
            two((1, 7, 9, 4), (6, 2, 3, 2), attrs=_last((2, 3), ((0, 1), (2, 0)), (1, 2), 2)),
            two((2, 11, 3), (3, 1, 4), attrs=_last((3,), ((2, 1),), (2,), 3)),
            two((1, 4, 5, 3, 2), (2, 2, 2, 1, 3), attrs=_last((1, 2, 1), ((0, 0), (0, 0), (1, 1)))),
        ),
        bad=(
            two((2, 3, 6, 5), (4, 2, 3, 3), attrs=_at((1, 1), ((1, 1), (1, 1)))),
            two((2, 3, 6, 5), (4, 3, 3, 3), attrs=_last((1, 1), ((1, 1), (1, 1)))),
            two((2, 3, 6, 5), (4, 3, 3), attrs=_at((1, 1), ((1, 1), (1, 1)))),
            two((2, 3, 2), (4, 3, 5), attrs=_at((1,), ((1, 1),))),
            two((2, 3, 9), (4, 3, 5), attrs=_at((0,), ((1, 1),))),
            two((2, 3, 9), (4, 3, 5), attrs=_at((1,), ((-1, 1),))),
            two((2, 4, 9), (5, 2, 3), attrs=_at((1,), ((0, 0),), groups=2)),
            two((2, 4, 9), (4, 4, 3), attrs=_at((1, 1), ((0, 0),))),
            Sample((("f32", (2, 3, 9)), ("f16", (4, 3, 5))), _at((1,), ((0, 0),))),
            Sample((("bool", (2, 3, 9)), ("bool", (4, 3, 5))), _at((1,), ((0, 0),))),
        ),
    )
)

register(
    OpDef(
        "conv_input_grad",
        2,
        _infer_conv_input_grad,
        _conv_input_grad,
        Kind.CONTRACTION,
        (*_GEOMETRY, Attr("spatial", "dims")),
        vjp=_conv_input_grad_vjp,
        family="contraction",
        dtypes=DTYPES,
        doc="Gradient of `conv` with respect to its input (also called transposed convolution): dy[N, O, "
        "positions…] and w[O, C/groups, window…] → [N, C, spatial…]. `channels_last`: dy[N, positions…, O] → "
        "[N, spatial…, C].",
        samples=(
            two((2, 4, 6, 5), (4, 3, 3, 3), attrs=_at((1, 1), ((1, 1), (1, 1)), spatial=(6, 5))),
            two((1, 6, 3, 4), (6, 2, 3, 2), attrs=_at((2, 3), ((0, 1), (2, 0)), (1, 2), 2, spatial=(7, 10))),
            two((2, 3, 3), (3, 1, 4), attrs=_at((3,), ((2, 1),), (2,), 3, spatial=(11,))),
            two((2, 3, 2), (3, 2, 2), attrs=_at((3,), ((0, 0),), spatial=(7,))),
            two((2, 6, 5, 4), (4, 3, 3, 3), attrs=_last((1, 1), ((1, 1), (1, 1)), spatial=(6, 5))),
            two((1, 3, 4, 6), (6, 2, 3, 2), attrs=_last((2, 3), ((0, 1), (2, 0)), (1, 2), 2, spatial=(7, 10))),
            two((2, 3, 3), (3, 1, 4), attrs=_last((3,), ((2, 1),), (2,), 3, spatial=(11,))),
        ),
        bad=(
            two((2, 4, 6), (4, 3, 3), attrs=_last((1,), ((1, 1),), spatial=(6,))),
            two((2, 4, 6), (4, 3, 3), attrs=_at((1,), ((0, 0),), spatial=(6,))),
            two((2, 5, 6), (4, 3, 3), attrs=_at((1,), ((1, 1),), spatial=(6,))),
            two((2, 4, 6), (4, 3, 3), attrs=_at((1,), ((1, 1),), spatial=(6, 6))),
        ),
    )
)

register(
    OpDef(
        "conv_weight_grad",
        2,
        _infer_conv_weight_grad,
        _conv_weight_grad,
        Kind.CONTRACTION,
        (*_GEOMETRY, Attr("window", "dims")),
        vjp=_conv_weight_grad_vjp,
        family="contraction",
        dtypes=DTYPES,
        doc="Gradient of `conv` with respect to its weight: x[N, C, spatial…] and dy[N, O, positions…] → "
        "[O, C/groups, window…]. `channels_last`: x[N, spatial…, C] and dy[N, positions…, O].",
        samples=(
            two((2, 3, 6, 5), (2, 4, 6, 5), attrs=_at((1, 1), ((1, 1), (1, 1)), window=(3, 3))),
            two((1, 4, 7, 10), (1, 6, 3, 4), attrs=_at((2, 3), ((0, 1), (2, 0)), (1, 2), 2, window=(3, 2))),
            two((2, 3, 11), (2, 3, 3), attrs=_at((3,), ((2, 1),), (2,), 3, window=(4,))),
            two((0, 2, 4), (0, 3, 3), attrs=_at((1,), ((0, 0),), window=(2,))),
            two((2, 6, 5, 3), (2, 6, 5, 4), attrs=_last((1, 1), ((1, 1), (1, 1)), window=(3, 3))),
            two((1, 7, 10, 4), (1, 3, 4, 6), attrs=_last((2, 3), ((0, 1), (2, 0)), (1, 2), 2, window=(3, 2))),
            two((2, 11, 3), (2, 3, 3), attrs=_last((3,), ((2, 1),), (2,), 3, window=(4,))),
        ),
        bad=(
            two((2, 3, 6), (2, 4, 6), attrs=_last((1,), ((1, 1),), window=(3,))),
            two((2, 3, 6), (3, 4, 6), attrs=_at((1,), ((1, 1),), window=(3,))),
            two((2, 3, 6), (2, 4, 6), attrs=_at((1,), ((0, 0),), window=(3,))),
            two((2, 3, 6), (2, 4, 6), attrs=_at((1,), ((1, 1),), groups=2, window=(3,))),
            two((2, 3, 6), (2, 4, 6), attrs=_at((1,), ((1, 1),), window=(0,))),
        ),
    )
)
