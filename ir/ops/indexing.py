"""Loads and stores at computed places. An index outside its axis is an error, never wrapped or clamped.

`gather`, `scatter` and `scatter_add` move single elements (as PyTorch's `gather` and `scatter_` do);
`index_select`, `index_copy` and `index_add` move whole slices. Stores happen in row-major order of the
updates: of several to one place the last one stays, and sums are added in that order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import Dim, product
from ..dtypes import i64
from ..errors import DTypeError, IndexRangeError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, Type
from ._common import Array, check_axis, require, same_dtype, show, tensor

ANY = ("f32", "f64", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "bool")
NUMBERS = ("f32", "f64", "f16", "bf16", "i32", "i64")
_AXIS = (Attr("axis", "int"),)


def _index(op: str, t: Type) -> TensorType:
    """`t` as the type of an index. Raises DTypeError unless i32 or i64."""
    index = tensor(op, t)
    if index.dtype.name not in ("i32", "i64"):
        raise DTypeError(
            f"{op} needs an index of int64 or int32, got {index}",
            hint="turn a mask into indices or a `select`" if index.dtype.is_bool else "cast it to int64",
        )
    return index


def _check_elements(op: str, x: TensorType, index: TensorType, axis: int) -> None:
    """Raises ShapeError unless the index has x's rank and stays inside x on all axes but `axis`."""
    check_axis(op, axis, x.rank)
    if index.rank != x.rank:
        raise ShapeError(
            f"{op}: the index {index} must have as many axes as the tensor {x}",
            hint="to move whole slices use index_select, index_copy or index_add",
        )
    for i, (d, n) in enumerate(zip(x.shape, index.shape, strict=True)):
        room = d - n
        if i != axis and isinstance(room, int) and room < 0:
            raise ShapeError(
                f"{op}: the index {index} reaches beyond axis {i} of {x}",
                hint=f"only axis {axis} is indexed; the index may be no longer on the others",
            )


def _infer_gather(attrs: Any, x: Type, idx: Type) -> Type:
    t, index = tensor("gather", x), _index("gather", idx)
    _check_elements("gather", t, index, attrs.axis)
    return t.with_shape(index.shape)


def _infer_scatter(op: str, attrs: Any, x: Type, idx: Type, upd: Type) -> Type:
    t, index, update = tensor(op, x), _index(op, idx), tensor(op, upd)
    same_dtype(op, t, update)
    _check_elements(op, t, index, attrs.axis)
    if update.shape != index.shape:
        raise ShapeError(
            f"{op}: index {show(index.shape)} and update {show(update.shape)} differ in shape",
            hint="slice or broadcast the update to the shape of the index",
        )
    return t


def _selected(t: TensorType, index: TensorType, axis: int) -> tuple[Dim, ...]:
    return t.shape[:axis] + index.shape + t.shape[axis + 1 :]


def _infer_index_select(attrs: Any, x: Type, idx: Type) -> Type:
    t, index = tensor("index_select", x), _index("index_select", idx)
    check_axis("index_select", attrs.axis, t.rank)
    return t.with_shape(_selected(t, index, attrs.axis))


def _infer_index_store(op: str, attrs: Any, x: Type, idx: Type, upd: Type) -> Type:
    t, index, update = tensor(op, x), _index(op, idx), tensor(op, upd)
    same_dtype(op, t, update)
    check_axis(op, attrs.axis, t.rank)
    expected = _selected(t, index, attrs.axis)
    if update.shape != expected:
        raise ShapeError(
            f"{op}: with index {show(index.shape)} on axis {attrs.axis} of {t} the update must "
            f"have shape {show(expected)}, got {show(update.shape)}"
        )
    return t


def _infer_add(rule: Callable[..., Type], op: str, attrs: Any, x: Type, idx: Type, upd: Type) -> Type:
    require(op, tensor(op, x), kinds=("float", "int", "uint"))
    return rule(op, attrs, x, idx, upd)


def check_range(op: str, index: Array, axis: int, extent: int) -> None:
    """Raises IndexRangeError for the first index outside `[0, extent)`."""
    wrong = (index < 0) | (index >= extent)
    if wrong.any():
        raise IndexRangeError(
            f"{op}: index {int(index[wrong][0])} is out of range for axis {axis} with extent {extent}"
        )


def _places(op: str, x: Array, index: Array, axis: int) -> tuple[Array, ...]:
    """One index array per axis of x: the element that every position of `index` names."""
    check_range(op, index, axis, x.shape[axis])
    grid = np.ogrid[tuple(slice(n) for n in index.shape)]
    return (*grid[:axis], index, *grid[axis + 1 :])


def _slices(op: str, x: Array, index: Array, axis: int) -> tuple[Any, ...]:
    check_range(op, index, axis, x.shape[axis])
    return (slice(None),) * axis + (index,)


def _gather(attrs: Any, t: TensorType, x: Array, index: Array) -> Array:
    return x[_places("gather", x, index, attrs.axis)]


def _scatter(attrs: Any, t: TensorType, x: Array, index: Array, update: Array) -> Array:
    out = x.copy()
    out[_places("scatter", x, index, attrs.axis)] = update
    return out


def _scatter_add(attrs: Any, t: TensorType, x: Array, index: Array, update: Array) -> Array:
    out = x.copy()
    with np.errstate(all="ignore"):
        np.add.at(out, _places("scatter_add", x, index, attrs.axis), update)
    return out


def _index_select(attrs: Any, t: TensorType, x: Array, index: Array) -> Array:
    check_range("index_select", index, attrs.axis, x.shape[attrs.axis])
    if x.shape[attrs.axis] == 0:
        return np.zeros(t.shape, x.dtype)  # no index, or it would be out of range
    return np.take(x, index, axis=attrs.axis)


def _index_copy(attrs: Any, t: TensorType, x: Array, index: Array, update: Array) -> Array:
    out = x.copy()
    out[_slices("index_copy", x, index, attrs.axis)] = update
    return out


def _index_add(attrs: Any, t: TensorType, x: Array, index: Array, update: Array) -> Array:
    out = x.copy()
    with np.errstate(all="ignore"):
        np.add.at(out, _slices("index_add", x, index, attrs.axis), update)
    return out


def _zeros(b: Builder, x: Node) -> Node:
    return b.full(0, x.dtype, x.shape)


def _gather_vjp(b: Builder, node: Node, g: Node, x: Node, index: Node) -> list[Node | None]:
    return [b.scatter_add(_zeros(b, x), index, g, axis=node.attrs.axis), None]


def _scatter_vjp(b: Builder, node: Node, g: Node, x: Node, index: Node, update: Node) -> list[Node | None]:
    # Of several updates to one place only the last has a gradient: the one whose position is found there.
    axis = node.attrs.axis
    dx = b.scatter(g, index, _zeros(b, update), axis=axis)
    position = b.iota(shape=index.shape, axis=axis, dtype=i64)
    last = b.scatter(b.full(-1, i64, x.shape), index, position, axis=axis)
    kept = b.eq(b.gather(last, index, axis=axis), position)
    return [dx, None, b.select(kept, b.gather(g, index, axis=axis), b.like(0, g))]


def _scatter_add_vjp(
    b: Builder, node: Node, g: Node, x: Node, index: Node, update: Node
) -> list[Node | None]:
    return [g, None, b.gather(g, index, axis=node.attrs.axis)]


def _index_select_vjp(b: Builder, node: Node, g: Node, x: Node, index: Node) -> list[Node | None]:
    return [b.index_add(_zeros(b, x), index, g, axis=node.attrs.axis), None]


def _index_copy_vjp(b: Builder, node: Node, g: Node, x: Node, index: Node, update: Node) -> list[Node | None]:
    axis, rank = node.attrs.axis, len(index.shape)
    dx = b.index_copy(g, index, _zeros(b, update), axis=axis)
    flat = b.reshape(index, shape=(product(index.shape),))
    position = b.iota(shape=flat.shape, axis=0, dtype=i64)
    last = b.index_copy(b.full(-1, i64, (x.shape[axis],)), flat, position, axis=0)
    kept = b.reshape(b.eq(b.index_select(last, flat, axis=0), position), shape=index.shape)
    kept = b.broadcast(kept, shape=update.shape, dims=tuple(range(axis, axis + rank)))
    return [dx, None, b.select(kept, b.index_select(g, index, axis=axis), b.like(0, g))]


def _index_add_vjp(b: Builder, node: Node, g: Node, x: Node, index: Node, update: Node) -> list[Node | None]:
    return [g, None, b.index_select(g, index, axis=node.attrs.axis)]


def _load(x: tuple[int, ...], index: tuple[int, ...], axis: int, dtype: str = "i64") -> Sample:
    high = x[axis] - 1 if axis < len(x) else 0
    return Sample((("*", x), (dtype, index)), {"axis": axis}, ranges=(None, (0, high)))


def _store(
    x: tuple[int, ...], index: tuple[int, ...], update: tuple[int, ...], axis: int, dtype: str = "i64"
) -> Sample:
    high = x[axis] - 1 if axis < len(x) else 0
    return Sample((("*", x), (dtype, index), ("*", update)), {"axis": axis}, ranges=(None, (0, high), None))


register(
    OpDef(
        "gather",
        2,
        _infer_gather,
        _gather,
        Kind.GATHER,
        _AXIS,
        vjp=_gather_vjp,
        family="indexing",
        dtypes=ANY,
        exact=True,
        fallible=True,
        doc="The element of x at the position of the index, but for `axis`, where the index says: "
        "`out[i, j] = x[index[i, j], j]` for axis 0. The result has the shape of the index.",
        samples=(
            _load((5,), (7,), 0),
            _load((3, 4), (3, 2), 1),
            _load((3, 5, 2), (4, 5, 1), 0, "i32"),
            _load((2, 3), (0, 3), 0),
            _load((2, 17), (1, 33), 1),
        ),
        bad=(
            _load((3, 4), (3,), 1),
            _load((3, 4), (4, 2), 1),
            _load((3, 4), (3, 2), 2),
            _load((3, 4), (3, 2), 1, "f32"),
        ),
    )
)

_STORE_BAD = (
    _store((3, 4), (3, 2), (3, 3), 1),
    _store((3, 4), (4, 2), (4, 2), 1),
    _store((3, 4), (3, 2), (3, 2), 2),
    _store((3, 4), (3, 2), (3, 2), 1, "bool"),
    Sample((("f32", (3,)), ("i64", (2,)), ("i32", (2,))), {"axis": 0}),
)
_SCATTER_SAMPLES = (
    _store((5,), (3,), (3,), 0),
    _store((3, 4), (3, 2), (3, 2), 1),
    _store((4, 5, 2), (9, 5, 1), (9, 5, 1), 0, "i32"),
    _store((2, 3), (0, 3), (0, 3), 0),
    _store((3, 6), (2, 17), (2, 17), 1),
)

register(
    OpDef(
        "scatter",
        3,
        lambda a, *ts: _infer_scatter("scatter", a, *ts),
        _scatter,
        Kind.SCATTER,
        _AXIS,
        vjp=_scatter_vjp,
        family="indexing",
        dtypes=ANY,
        exact=True,
        fallible=True,
        samples=_SCATTER_SAMPLES,
        bad=_STORE_BAD,
        doc="x with the elements that `gather` would load replaced by the update, which has the shape of the "
        "index. Of several updates to one place the last in row-major order stays.",
    )
)

register(
    OpDef(
        "scatter_add",
        3,
        lambda a, *ts: _infer_add(_infer_scatter, "scatter_add", a, *ts),
        _scatter_add,
        Kind.SCATTER,
        _AXIS,
        vjp=_scatter_add_vjp,
        family="indexing",
        dtypes=NUMBERS,
        fallible=True,
        samples=_SCATTER_SAMPLES,
        bad=(*_STORE_BAD, Sample((("bool", (3,)), ("i64", (2,)), ("bool", (2,))), {"axis": 0})),
        doc="x plus the update at the elements that `gather` would load; several to one place are added in "
        "row-major order, in the compute dtype.",
    )
)

register(
    OpDef(
        "index_select",
        2,
        _infer_index_select,
        _index_select,
        Kind.GATHER,
        _AXIS,
        vjp=_index_select_vjp,
        family="indexing",
        dtypes=ANY,
        exact=True,
        fallible=True,
        doc="Slices of x along `axis`; the axes of the index take the place of that axis. An embedding is "
        "`index_select(weight, tokens){axis=0}`.",
        samples=(
            _load((5,), (7,), 0),
            _load((7, 3), (2, 4), 0),
            _load((3, 5, 2), (17,), 1, "i32"),
            _load((3, 4), (), 1),
            _load((4, 2), (0,), 0),
            _load((2, 0, 3), (2,), 0),
        ),
        bad=(
            _load((3, 4), (3,), 2),
            _load((3, 4), (3,), 0, "u8"),
            Sample((("f32", ()), ("i64", (1,))), {"axis": 0}),
        ),
    )
)

_INDEX_BAD = (
    _store((3, 4), (2,), (2, 3), 0),
    _store((3, 4), (2,), (2,), 0),
    _store((3, 4), (2,), (2, 4), 2),
    _store((3, 4), (2,), (2, 4), 0, "f32"),
    Sample((("f32", (3,)), ("i64", (2,)), ("f64", (2,))), {"axis": 0}),
)
_INDEX_SAMPLES = (
    _store((5,), (3,), (3,), 0),
    _store((7, 3), (2, 4), (2, 4, 3), 0),
    _store((3, 5, 2), (17,), (3, 17, 2), 1, "i32"),
    _store((3, 4), (), (3,), 1),
    _store((4, 2), (0,), (0, 2), 0),
)

register(
    OpDef(
        "index_copy",
        3,
        lambda a, *ts: _infer_index_store("index_copy", a, *ts),
        _index_copy,
        Kind.SCATTER,
        _AXIS,
        vjp=_index_copy_vjp,
        family="indexing",
        dtypes=ANY,
        exact=True,
        fallible=True,
        samples=_INDEX_SAMPLES,
        bad=_INDEX_BAD,
        doc="x with the slices that `index_select` would load replaced by those of the update. Of several "
        "updates to one slice the last in row-major order of the index stays.",
    )
)

register(
    OpDef(
        "index_add",
        3,
        lambda a, *ts: _infer_add(_infer_index_store, "index_add", a, *ts),
        _index_add,
        Kind.SCATTER,
        _AXIS,
        vjp=_index_add_vjp,
        family="indexing",
        dtypes=NUMBERS,
        fallible=True,
        samples=_INDEX_SAMPLES,
        bad=(*_INDEX_BAD, Sample((("bool", (3,)), ("i64", (2,)), ("bool", (2,))), {"axis": 0})),
        doc="x plus the update at the slices that `index_select` would load; several to one slice are added in "
        "row-major order of the index, in the compute dtype.",
    )
)
