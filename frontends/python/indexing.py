"""`x[…]` and `x[…] = …`: NumPy's and PyTorch's basic and advanced indexing.

Integers, slices, `None` and `...` are views. Integer tensors gather, boolean masks become integer indices (which
needs their values, except where a mask selects what a number or broadcast value is written to).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import boolean, i64
from ...ir.errors import IndexRangeError, ShapeError
from ...ir.node import Node
from .inplace import check_leaf, copy, fill, ready, writable
from .nodes import broadcast_shapes, cast, expand, index_of
from .ops_index import indices_of
from .ops_shape import eager
from .place import here
from .registry import METHODS
from .tensor import Tensor, from_array, over, viewed, write
from .trace import apply, begin, node_of

_FULL = slice(None)


def _too_many(t: Tensor) -> IndexError:
    return IndexError(f"too many indices for tensor of dimension {len(t._shape)}")


def _normalise(t: Tensor, index: Any) -> list[Any]:
    """The index as a list of ints, slices, None and index tensors, with `...` spelled out."""
    items = list(index) if isinstance(index, tuple) else [index]
    parts: list[Any] = []
    for item in items:
        if isinstance(item, (bool, np.bool_)):
            item = from_array(np.array(bool(item)))
        elif isinstance(item, (list, range, np.ndarray)):
            from .creation import tensor

            item = tensor(list(item) if isinstance(item, range) else item)
        elif isinstance(item, np.integer):
            item = int(item)
        if isinstance(item, Tensor) and not item._shape and item._dtype.is_integer and not item._cell.stale:
            item = int(item._array("index").item())
        parts.append(item)
    used = sum(0 if p is None or p is Ellipsis else len(p._shape) if _is_mask(p) else 1 for p in parts)
    rank = len(t._shape)
    if used > rank:
        raise _too_many(t)
    spots = [i for i, p in enumerate(parts) if p is Ellipsis]
    if len(spots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    missing = [_FULL] * (rank - used)
    if spots:
        parts[spots[0]:spots[0] + 1] = missing
    else:
        parts += missing
    return parts


def _is_mask(p: Any) -> bool:
    return isinstance(p, Tensor) and (p._dtype is boolean or p._dtype.name == "u8")


def _basic(t: Tensor, parts: list[Any]) -> tuple[Tensor, list[Any]]:
    """The view that the ints, slices and Nones select, and what is left: None (whole) or index tensors by axis."""
    shape = t._shape
    starts, sizes, steps = [], [], []
    target: list[int] = []
    rest: list[Any] = []
    axis = 0
    whole = True
    for p in parts:
        if p is None:
            target.append(1)
            rest.append(None)
            continue
        if isinstance(p, Tensor):
            count = len(p._shape) if _is_mask(p) else 1
            for _ in range(count):
                starts.append(0)
                sizes.append(shape[axis])
                steps.append(1)
                target.append(shape[axis])
                axis += 1
            rest.append(p)
            continue
        extent = shape[axis]
        if isinstance(p, slice):
            start, stop, step = _slice(p, extent)
            size = max(-(-(stop - start) // step), 0)
            target.append(size)
            rest.append(None)
        else:
            start, size, step = _int(p, extent, axis), 1, 1
        if (start, size, step) != (0, extent, 1):
            whole = False
        starts.append(start)
        sizes.append(size)
        steps.append(step)
        axis += 1
    moves: list[Any] = []
    if not whole:
        moves.append(("slice", tuple(starts), tuple(sizes), tuple(steps)))
    if tuple(target) != tuple(sizes):
        moves.append(("reshape", tuple(target)))
    return (viewed(t, *moves) if moves else over(t._cell, t._view)), rest


def _slice(p: slice, extent: int) -> tuple[int, int, int]:
    def number(value: Any) -> Any:
        return int(value) if isinstance(value, Tensor) else value

    step = number(p.step)
    if step is not None and step <= 0:
        raise ValueError("step must be greater than zero")
    return slice(number(p.start), number(p.stop), step).indices(extent)


def _int(p: Any, extent: int, axis: int) -> int:
    try:
        value = p.__index__()
    except (AttributeError, TypeError):
        raise IndexError(f"only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid "
                         f"indices (got {type(p).__name__})") from None
    if not -extent <= value < extent:
        raise IndexRangeError(f"index {value} is out of bounds for dimension {axis} with size {extent}",
                              location=here(3).location)
    return int(value) % extent


def _advanced(parts: list[Any]) -> bool:
    return any(isinstance(p, Tensor) for p in parts)


def get(t: Tensor, index: Any) -> Tensor:
    """`t[index]`."""
    cls = index.__class__
    if cls is int and t._shape:
        extent = t._shape[0]
        if not -extent <= index < extent:
            raise IndexRangeError(f"index {index} is out of bounds for dimension 0 with size {extent}",
                                  location=here(2).location)
        from .ops_shape import select

        return select(t, 0, index)
    parts = _normalise(t, index)
    view, rest = _basic(t, parts)
    if not _advanced(rest):
        return view
    axes, tensors = _index_tensors(rest)
    if eager(view, *tensors):
        made = _eager_take(view, axes, tensors)
        if made is not None:
            return made
    return apply(_take, (view, *tensors), (axes,))  # type: ignore[no-any-return]


def _index_tensors(rest: list[Any]) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """Axes of the view that index tensors select from, and the (integer) tensors."""
    axes: list[int] = []
    tensors: list[Tensor] = []
    axis = 0
    for p in rest:
        if p is None:
            axis += 1
        elif _is_mask(p):
            if not p._shape:
                raise IndexError("0-dim boolean indices are not offered")
            found = indices_of(p, "indexing by a boolean mask")
            for f in found:
                axes.append(axis)
                tensors.append(from_array(f.astype(np.int64)))
                axis += 1
        else:
            if not p._dtype.is_integer:
                raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
            axes.append(axis)
            tensors.append(p)
            axis += 1
    return tuple(axes), tuple(tensors)


def _eager_take(t: Tensor, axes: tuple[int, ...], tensors: tuple[Tensor, ...]) -> Tensor | None:
    index: list[Any] = [_FULL] * len(t._shape)
    for axis, i in zip(axes, tensors, strict=True):
        index[axis] = i._array("index")
    try:
        array = t._array("index")[tuple(index)]
    except IndexError as error:
        raise IndexRangeError(str(error), location=here(3).location) from None
    return from_array(np.ascontiguousarray(array), t._dtype)


def _joint(b: Builder, x: Node, tensors: tuple[Node, ...], axes: tuple[int, ...]) -> tuple[Node, Node, int, bool]:
    """The indexed axes of x merged into one, the joint index into it, its axis, and whether it went to the front.

    A component out of its range makes the joint index out of range too, so that the operator reports it.
    """
    shape = broadcast_shapes(*[i.shape for i in tensors])
    index = [expand(b, index_of(b, i, x.shape[a]), shape) for i, a in zip(tensors, axes, strict=True)]
    adjoining = all(c == a + 1 for a, c in pairwise(axes))
    first = axes[0] if adjoining else 0
    if not adjoining:
        order = (*axes, *[d for d in range(len(x.shape)) if d not in axes])
        x = b.permute(x, dims=order)
    extents = x.shape[first:first + len(axes)]
    if len(axes) == 1:
        return x, index[0], first, False
    merged = 1
    for d in extents:
        merged *= d
    joint = index[0]
    good = _inside(b, index[0], extents[0])
    for i, d in zip(index[1:], extents[1:], strict=True):
        joint = b.add(b.mul(joint, b.cast(b.extent(value=d), dtype=i64)), i)
        good = b.and_(good, _inside(b, i, d))
    joint = b.select(good, joint, b.scalar(-1, i64))
    x = b.reshape(x, shape=(*x.shape[:first], merged, *x.shape[first + len(axes):]))
    return x, joint, first, not adjoining


def _inside(b: Builder, i: Node, extent: int) -> Node:
    return b.and_(b.ge(i, b.scalar(0, i64)), b.lt(i, b.cast(b.extent(value=extent), dtype=i64)))


def _take(b: Builder, x: Node, *args: Any) -> Node:
    *tensors, axes = args
    x, joint, axis, _ = _joint(b, x, tuple(tensors), axes)
    return b.index_select(x, joint, axis=axis)


# --- assignment -------------------------------------------------------------------------------------------------------
def put(t: Tensor, index: Any, value: Any) -> None:
    """`t[index] = value`."""
    check_leaf(t)
    mask = _single_mask(t, index)
    if mask is not None and _broadcasts(value):
        if isinstance(value, Tensor):
            from .inplace import store
            from .ops_choice import where

            store(t, where(_lift(mask, len(t._shape)), value.to(t._dtype), t))
        else:
            METHODS["masked_fill_"](t, _lift(mask, len(t._shape)), value)
        return
    parts = _normalise(t, index)
    if _advanced(parts):
        view, rest = _basic(t, parts)
        _put_advanced(view, rest, value)
        return
    view, _ = _basic(t, parts)
    if isinstance(value, Tensor):
        if value._shape and len(value._shape) > len(view._shape):
            lead = len(value._shape) - len(view._shape)
            if all(d == 1 for d in value._shape[:lead]):
                value = value.reshape(tuple(value._shape[lead:]))
        copy(view, value)
    elif isinstance(value, (int, float, bool, np.generic)):
        fill(view, value)
    else:
        from .creation import tensor

        copy(view, tensor(value))


def _single_mask(t: Tensor, index: Any) -> Tensor | None:
    """The mask of `t[mask] = value`."""
    if isinstance(index, tuple) and len(index) == 1:
        index = index[0]
    if isinstance(index, np.ndarray) and index.dtype == bool:
        index = from_array(index.copy())
    if isinstance(index, Tensor) and index._dtype is boolean and index._shape == t._shape[:len(index._shape)]:
        return index
    return None


def _lift(mask: Tensor, rank: int) -> Tensor:
    """A mask over leading dimensions, with the trailing ones as extents of 1."""
    missing = rank - len(mask._shape)
    return mask.reshape((*mask._shape, *(1,) * missing)) if missing else mask


def _broadcasts(value: Any) -> bool:
    return not isinstance(value, (Tensor, np.ndarray, list, tuple)) or (isinstance(value, Tensor) and not value._shape)


def _put_advanced(view: Tensor, rest: list[Any], value: Any) -> None:
    axes, tensors = _index_tensors(rest)
    if not isinstance(value, Tensor):
        from .creation import tensor

        value = tensor(value, dtype=view._dtype)
    if eager(view, *tensors) and ready(value):
        memory = writable(view)
        if memory is not None:
            index: list[Any] = [_FULL] * len(view._shape)
            for axis, i in zip(axes, tensors, strict=True):
                index[axis] = i._array("index")
            try:
                with np.errstate(all="ignore"):
                    memory[tuple(index)] = value._array("index")
            except IndexError as error:
                raise IndexRangeError(str(error), location=here(3).location) from None
            except ValueError as error:
                raise ShapeError(f"shape mismatch: {error}", location=here(3).location) from None
            return
    tracked = begin((view, value, *tensors)) and value._cell.tracked
    b = Builder(here(2))
    node = put_node(b, node_of(view), node_of(value), tuple([node_of(i) for i in tensors]), axes, False)
    write(view, node, tracked)


def put_node(b: Builder, x: Node, value: Node, tensors: tuple[Node, ...], axes: tuple[int, ...],
             accumulate: bool) -> Node:
    """x with a broadcast value written (or added) at indexed positions."""
    merged, joint, axis, moved = _joint(b, x, tensors, axes)
    window = (*merged.shape[:axis], *joint.shape, *merged.shape[axis + 1:])
    value = cast(b, value, x.dtype)
    while len(value.shape) > len(window) and value.shape[0] == 1:
        value = b.reshape(value, shape=value.shape[1:])
    if broadcast_shapes(value.shape, window) != window:
        raise ShapeError(f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing "
                         f"result of shape {list(window)}")
    value = expand(b, value, window)
    op = b.index_add if accumulate else b.index_copy
    made = op(merged, joint, value, axis=axis)
    if len(axes) > 1:
        extents = tuple([x.shape[a] for a in axes])
        made = b.reshape(made, shape=(*merged.shape[:axis], *extents, *merged.shape[axis + 1:]))
    if moved:
        order = (*axes, *[d for d in range(len(x.shape)) if d not in axes])
        back = sorted(range(len(order)), key=order.__getitem__)
        made = b.permute(made, dims=tuple(back))
    return made


def _index_put(b: Builder, x: Node, value: Node, *args: Any) -> Node:
    *tensors, axes, accumulate = args
    return put_node(b, x, value, tuple(tensors), axes, accumulate)


def index_put(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with values written (or added) at the positions that index tensors give."""
    axes, tensors = _index_tensors(list(indices))
    return apply(_index_put, (self, values, *tensors), (axes, accumulate))  # type: ignore[no-any-return]


def _index_put_in_place(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    from .inplace import store

    check_leaf(self)
    return store(self, index_put(self, indices, values, accumulate))


METHODS["__getitem__"], METHODS["__setitem__"] = get, put
METHODS["index_put"], METHODS["index_put_"] = index_put, _index_put_in_place
