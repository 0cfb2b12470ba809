"""In-place writes: recorded as a new value of the cell, or done at once where nothing pending is involved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import DType
from ...ir.errors import AutogradError, DTypeError, ShapeError
from ...ir.node import Node
from . import dtypes
from .cell import Array, held_elsewhere
from .nodes import cast, expand
from .place import here
from .tensor import Tensor, write
from .trace import TRACE, begin, node_of


def writable(t: Tensor) -> Array | None:
    """The tensor's memory for a direct write, or None if the write must be recorded.

    Memory that a pending leaf or a kept residual still reads is copied first; memory seen from outside stays where it
    is (leaves over it are snapshots).
    """
    cell = t._cell
    if cell.stale or cell.buffer is None or TRACE.barrier is not None:
        return None
    if cell.tracked and (cell.leaf is None or TRACE.grad):
        return None
    mates = cell.mates()
    buffer = cell.buffer
    if not (cell.export is not None and cell.exported):
        if not buffer.flags.writeable or held_elsewhere(buffer, len(mates) + 1):
            buffer = buffer.copy()
        cell.export = None
    for mate in mates:
        mate.buffer = buffer
        mate.node = None
        mate.version += 1
    return buffer if t._view is None else t._view.array(buffer)


def ready(t: Tensor) -> bool:
    """Whether a source needs no recording: materialised, and no history that this write would have to follow."""
    cell = t._cell
    return not cell.stale and cell.buffer is not None and not (cell.tracked and TRACE.grad)


def check_overlap(t: Tensor) -> None:
    """Raises for tensors whose elements share memory (`expand`)."""
    if t._view is not None and t._view.overlaps:
        raise ShapeError("unsupported operation: more than one element of the written-to tensor refers to a single "
                         "memory location. Please clone() the tensor before performing the operation.",
                         location=here(2).location)


def check_leaf(t: Tensor) -> None:
    """Raises AutogradError for a leaf that requires grad, in grad mode."""
    cell = t._cell
    if cell.tracked and cell.leaf is not None and TRACE.grad:
        what = "a leaf Variable" if t._view is None else "a view of a leaf Variable"
        raise AutogradError(f"{what} that requires grad is being used in an in-place operation.",
                            location=here(2).location, hint="do it under `with tm.no_grad():`")


def check_cast(source: DType, target: DType) -> None:
    """Raises DTypeError where an in-place result would lose its category."""
    if dtypes.category(source) > dtypes.category(target):
        raise DTypeError(f"result type {_type_name(source)} can't be cast to the desired output type "
                         f"{_type_name(target)}", location=here(2).location)


_TYPE_NAMES = {"f32": "Float", "f64": "Double", "f16": "Half", "bf16": "BFloat16", "i64": "Long", "i32": "Int",
               "i16": "Short", "i8": "Char", "u8": "Byte", "bool": "Bool", "u32": "UInt32", "u64": "UInt64"}


def _type_name(d: DType) -> str:
    return _TYPE_NAMES[d.name]


def store(t: Tensor, result: Tensor) -> Tensor:
    """Replace a tensor's value by a result of the same shape (cast to the tensor's dtype)."""
    if result._shape != t._shape:
        raise ShapeError(f"output with shape {list(t._shape)} doesn't match the broadcast shape {list(result._shape)}",
                         location=here(2).location)
    check_cast(result._dtype, t._dtype)
    check_overlap(t)
    b = Builder(here(2))
    return write(t, cast(b, node_of(result), t._dtype), result._cell.tracked)


def inplace(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The in-place variant of a method: `add` → `add_`."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_leaf(self)
        return store(self, f(self, *args, **kwargs))

    method.__name__ = f"{f.__name__.rstrip('_')}_"
    method.__doc__ = f"In-place `{f.__name__.rstrip('_')}`."
    return method


def fill(t: Tensor, value: Any) -> Tensor:
    """Every element of `t` becomes `value` (a number or a 0-dim tensor)."""
    check_leaf(t)
    if isinstance(value, Tensor):
        if value._shape:
            raise ShapeError(f"fill_ only supports 0-dimension value tensor but got tensor with {len(value._shape)} "
                             f"dimensions.", location=here(2).location)
        return copy(t, value)
    memory = writable(t)
    if memory is not None:
        with np.errstate(all="ignore"):
            memory[...] = _wrap(value, t._dtype)
        return t
    begin((t,))
    b = Builder(here(2))
    return write(t, b.full(_wrap(value, t._dtype), t._dtype, t._shape), False)


def _wrap(value: Any, dtype: DType) -> Any:
    """A Python number as an element of `dtype`, the way a C cast does it."""
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype.numpy)


def copy(t: Tensor, source: Any) -> Tensor:
    """`t.copy_(source)`: broadcast and cast."""
    check_leaf(t)
    if not isinstance(source, Tensor):
        from .creation import tensor

        source = tensor(source)
    check_overlap(t)
    if ready(source):
        memory = writable(t)
        if memory is not None:
            array = source._array("copy_")
            if np.broadcast_shapes(array.shape, memory.shape) != memory.shape:
                raise _copy_error(t, source)
            with np.errstate(all="ignore"):
                memory[...] = array
            return t
    tracked = begin((t, source)) and source._cell.tracked
    b = Builder(here(2))
    node = cast(b, node_of(source), t._dtype)
    shape = t._shape
    while len(node.shape) > len(shape) and node.shape[0] == 1:
        node = b.reshape(node, shape=node.shape[1:])
    if len(node.shape) > len(shape) or any(
            have not in (1, want) for have, want in zip(reversed(node.shape), reversed(shape), strict=False)):
        raise _copy_error(t, source)
    return write(t, _fresh(b, expand(b, node, shape), source), tracked)


def _fresh(b: Builder, node: Node, source: Tensor) -> Node:
    """A copy with a history is a node of its own, so that its gradient is not the source's."""
    if source._cell.tracked and TRACE.grad and node is source._cell.node:
        return b.reshape(node, shape=node.shape)
    return node


def _copy_error(t: Tensor, source: Tensor) -> ShapeError:
    return ShapeError(f"The expanded size of the tensor ({list(t._shape)}) must match the existing size "
                      f"({list(source._shape)})", location=here(3).location)
