"""View chains: how a tensor looks at the memory of its cell.

A `View` is a sequence of steps from the cell's array to what the tensor shows, with the resulting geometry (shape,
strides, offset), which decides what may be viewed without a copy exactly as in PyTorch. Each step knows three
readings: of a node (recording), of a NumPy array (a NumPy view of the same memory), and backwards: the base's new
value when the view's value is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.errors import ShapeError
from ...ir.node import Node

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]
Step = tuple[Any, ...]  # (kind, *parameters)


def contiguous_strides(shape: Ints) -> Ints:
    """Row-major strides in elements (PyTorch's, where an extent of 0 counts as 1)."""
    strides, run = [0] * len(shape), 1
    for axis in range(len(shape) - 1, -1, -1):
        strides[axis] = run
        run *= max(shape[axis], 1)
    return tuple(strides)


class View:
    """An interned view of a base shape.

    Attributes:
        steps: from the base outwards.
        shape, strides, offset: geometry in elements of the base's contiguous memory.
        shapes: the shape before each step.
        overlaps: several elements share memory (`expand`), so that in-place writes are refused.
    """

    __slots__ = ("_children", "_window", "offset", "overlaps", "parent", "shape", "shapes", "steps", "strides")

    def __init__(self, shape: Ints, strides: Ints, offset: int, steps: tuple[Step, ...], shapes: tuple[Ints, ...],
                 overlaps: bool, parent: View | None = None) -> None:
        self.parent = parent
        self._window: View | bool | None = False  # not looked for yet
        self.shape, self.strides, self.offset = shape, strides, offset
        self.steps, self.shapes, self.overlaps = steps, shapes, overlaps
        self._children: dict[Step, View] = {}

    def then(self, step: Step) -> View:
        """This view with one more step."""
        child = self._children.get(step)
        if child is None:
            if len(self._children) > 512:
                self._children.clear()
            shape, strides, offset = _GEOMETRY[step[0]](self, *step[1:])
            overlaps = self.overlaps or (step[0] == "expand" and shape != self.shape)
            child = View(shape, strides, offset, (*self.steps, step), (*self.shapes, self.shape), overlaps, self)
            self._children[step] = child
        return child

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.shape, self.strides)

    @property
    def window(self) -> View | None:
        """The view up to its last step that selects elements, or None if it shows them all."""
        if self._window is False:
            selects = self.parent is not None and self.steps[-1][0] in ("slice", "diagonal", "unfold")
            self._window = self if selects else None if self.parent is None else self.parent.window
        return self._window  # type: ignore[return-value]

    def node(self, b: Builder, base: Node, skip: int = 0) -> Node:
        """The view's value from the base's (or from the value after `skip` steps)."""
        for step in self.steps[skip:]:
            base = _FORWARD[step[0]](b, base, *step[1:])
        return base

    def array(self, base: Array) -> Array:
        """The view's memory within the base's array."""
        if self.steps and base.flags.c_contiguous and base.size:
            size = base.itemsize
            return np.ndarray(self.shape, base.dtype, base, self.offset * size, tuple([s * size for s in self.strides]))
        for step in self.steps:
            base = _ARRAY[step[0]](base, *step[1:])
        return base

    def write(self, b: Builder, base: Node, value: Node) -> Node:
        """The base's value after the view's has been replaced by `value`."""
        before = [base]
        for step in self.steps[:-1]:
            before.append(_FORWARD[step[0]](b, before[-1], *step[1:]))
        for step, x in zip(reversed(self.steps), reversed(before), strict=True):
            value = _WRITE[step[0]](b, x, value, *step[1:])
        return value


_ROOTS: dict[Ints, View] = {}


def root(shape: Ints, strides: Ints | None = None) -> View:
    """The identity view of a shape."""
    if strides is not None:
        return View(shape, strides, 0, (), (), False)
    found = _ROOTS.get(shape)
    if found is None:
        if len(_ROOTS) > 4096:
            _ROOTS.clear()
        found = _ROOTS[shape] = View(shape, contiguous_strides(shape), 0, (), (), False)
    return found


def is_contiguous(shape: Ints, strides: Ints) -> bool:
    """Whether the geometry is row-major without gaps."""
    if 0 in shape:
        return True
    run = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1:
            if stride != run:
                return False
            run *= extent
    return True


def view_strides(shape: Ints, strides: Ints, new: Ints) -> Ints | None:
    """Strides that show the same memory in another shape, or None if only a copy can (PyTorch's computeStride)."""
    if not shape:
        return (1,) * len(new)
    if 0 in shape:
        return strides if shape == new else contiguous_strides(new)
    out = [0] * len(new)
    axis = len(new) - 1
    base, seen, elements = strides[-1], 1, 1
    for d in range(len(shape) - 1, -1, -1):
        elements *= shape[d]
        if d == 0 or (shape[d - 1] != 1 and strides[d - 1] != elements * base):
            while axis >= 0 and (seen < elements or new[axis] == 1):
                out[axis] = seen * base
                seen *= new[axis]
                axis -= 1
            if seen != elements:
                return None
            if d > 0:
                base, seen, elements = strides[d - 1], 1, 1
    return tuple(out) if axis == -1 else None


# --- the steps --------------------------------------------------------------------------------------------------------
# reshape(shape) · permute(dims) · slice(starts, sizes, steps) · expand(shape) · diagonal(offset) of the last two axes
# · unfold(axis, size, step), the window as the new last axis

def _g_reshape(v: View, shape: Ints) -> tuple[Ints, Ints, int]:
    strides = view_strides(v.shape, v.strides, shape)
    if strides is None:
        raise ShapeError("view size is not compatible with input tensor's size and stride (at least one dimension "
                         "spans across two contiguous subspaces). Use .reshape(...) instead.")
    return shape, strides, v.offset


def _g_permute(v: View, dims: Ints) -> tuple[Ints, Ints, int]:
    return tuple(v.shape[d] for d in dims), tuple(v.strides[d] for d in dims), v.offset


def _g_slice(v: View, starts: Ints, sizes: Ints, steps: Ints) -> tuple[Ints, Ints, int]:
    offset = v.offset + sum(start * stride for start, stride in zip(starts, v.strides, strict=True))
    return sizes, tuple(stride * step for stride, step in zip(v.strides, steps, strict=True)), offset


def _g_expand(v: View, shape: Ints) -> tuple[Ints, Ints, int]:
    lead = len(shape) - len(v.shape)
    strides = (0,) * lead + tuple(
        0 if have == 1 and want != 1 else stride
        for have, want, stride in zip(v.shape, shape[lead:], v.strides, strict=True))
    return shape, strides, v.offset


def _g_diagonal(v: View, offset: int) -> tuple[Ints, Ints, int]:
    rows, cols = v.shape[-2:]
    row, col = v.strides[-2:]
    size = max(min(rows + min(offset, 0), cols - max(offset, 0)), 0)
    start = v.offset + (max(offset, 0) * col + max(-offset, 0) * row if size else 0)
    return (*v.shape[:-2], size), (*v.strides[:-2], row + col), start


def _g_unfold(v: View, axis: int, size: int, step: int) -> tuple[Ints, Ints, int]:
    count = (v.shape[axis] - size) // step + 1
    shape = (*v.shape[:axis], count, *v.shape[axis + 1:], size)
    return shape, (*v.strides[:axis], v.strides[axis] * step, *v.strides[axis + 1:], v.strides[axis]), v.offset


def _slice_write(b: Builder, x: Node, value: Node, starts: Ints, sizes: Ints, steps: Ints) -> Node:
    if sizes == x.shape and all(s == 1 for s in steps):
        return value
    if 0 in sizes:
        return x
    pads = []
    for extent, start, size, step in zip(x.shape, starts, sizes, steps, strict=True):
        covered = (size - 1) * step + 1
        pads.append((start, extent - start - covered, step - 1))
    inside = b.pad(b.full(True, _bool(), value.shape), b.scalar(False, _bool()), pads=tuple(pads))
    return b.select(inside, b.pad(value, b.like(0, value), pads=tuple(pads)), x)


def _bool() -> Any:
    from ...ir.dtypes import boolean

    return boolean


def _expand(b: Builder, x: Node, shape: Ints) -> Node:
    lead = len(shape) - len(x.shape)
    return b.broadcast(x, shape=shape, dims=tuple(range(lead, len(shape)))) if shape != x.shape else x


def _diagonal_slice(x: Node, offset: int) -> tuple[int, int, int]:
    """(start, size, step) of the diagonal within the flattened last two axes."""
    rows, cols = x.shape[-2:]
    size = max(min(rows + min(offset, 0), cols - max(offset, 0)), 0)
    return (max(offset, 0) + max(-offset, 0) * cols if size else 0), size, cols + 1


def _diagonal(b: Builder, x: Node, offset: int) -> Node:
    start, size, step = _diagonal_slice(x, offset)
    lead = x.shape[:-2]
    flat = b.reshape(x, shape=(*lead, x.shape[-2] * x.shape[-1]))
    zeros = (0,) * len(lead)
    return b.slice(flat, start=(*zeros, start), size=(*lead, size), step=(*(1 for _ in lead), step))


def _diagonal_write(b: Builder, x: Node, value: Node, offset: int) -> Node:
    start, size, step = _diagonal_slice(x, offset)
    lead = x.shape[:-2]
    flat = b.reshape(x, shape=(*lead, x.shape[-2] * x.shape[-1]))
    zeros = (0,) * len(lead)
    new = _slice_write(b, flat, value, (*zeros, start), (*lead, size), (*(1 for _ in lead), step))
    return b.reshape(new, shape=x.shape)


def _unfold(b: Builder, x: Node, axis: int, size: int, step: int) -> Node:
    count = (x.shape[axis] - size) // step + 1
    starts = b.mul(b.iota(shape=(count, size), axis=0, dtype=_i64()), b.scalar(step, _i64()))
    where = b.add(starts, b.iota(shape=(count, size), axis=1, dtype=_i64()))
    picked = b.index_select(x, where, axis=axis)  # (… count, size …) at `axis`
    rank = len(picked.shape)
    order = [d for d in range(rank) if d != axis + 1] + [axis + 1]
    return b.permute(picked, dims=tuple(order))


def _i64() -> Any:
    from ...ir.dtypes import i64

    return i64


def _unfold_write(b: Builder, x: Node, value: Node, axis: int, size: int, step: int) -> Node:
    if step < size:
        raise ShapeError("unsupported operation: some elements of the written-to tensor share memory. "
                         "Please clone() the tensor before performing the operation.")
    count = (x.shape[axis] - size) // step + 1
    rank = len(x.shape)
    back = (*range(axis + 1), rank, *range(axis + 1, rank))
    starts = b.mul(b.iota(shape=(count, size), axis=0, dtype=_i64()), b.scalar(step, _i64()))
    where = b.add(starts, b.iota(shape=(count, size), axis=1, dtype=_i64()))
    return b.index_copy(x, where, b.permute(value, dims=back), axis=axis)


def _inverse(dims: Ints) -> Ints:
    out = [0] * len(dims)
    for i, d in enumerate(dims):
        out[d] = i
    return tuple(out)


def _expand_write(b: Builder, x: Node, value: Node, shape: Ints) -> Node:
    if shape == x.shape:
        return value
    lead = len(shape) - len(x.shape)
    if all(s == 1 for s in shape[:lead]) and shape[lead:] == x.shape:
        return b.reshape(value, shape=x.shape)
    raise ShapeError("unsupported operation: more than one element of the written-to tensor refers to a single memory "
                     "location. Please clone() the tensor before performing the operation.")


_GEOMETRY: dict[str, Callable[..., tuple[Ints, Ints, int]]] = {
    "reshape": _g_reshape, "permute": _g_permute, "slice": _g_slice, "expand": _g_expand,
    "diagonal": _g_diagonal, "unfold": _g_unfold,
}
_FORWARD: dict[str, Callable[..., Node]] = {
    "reshape": lambda b, x, shape: b.reshape(x, shape=shape),
    "permute": lambda b, x, dims: b.permute(x, dims=dims),
    "slice": lambda b, x, starts, sizes, steps: b.slice(x, start=starts, size=sizes, step=steps),
    "expand": _expand,
    "diagonal": _diagonal,
    "unfold": _unfold,
}
_WRITE: dict[str, Callable[..., Node]] = {
    "reshape": lambda b, x, value, shape: b.reshape(value, shape=x.shape),
    "permute": lambda b, x, value, dims: b.permute(value, dims=_inverse(dims)),
    "slice": _slice_write,
    "expand": _expand_write,
    "diagonal": _diagonal_write,
    "unfold": _unfold_write,
}


def _a_slice(a: Array, starts: Ints, sizes: Ints, steps: Ints) -> Array:
    index = tuple(slice(start, start + max((size - 1) * step + 1, 0) if size else start, step)
                  for start, size, step in zip(starts, sizes, steps, strict=True))
    return a[index]


def _a_reshape(a: Array, shape: Ints) -> Array:
    shown = a.view()
    shown.shape = shape  # raises instead of copying
    return shown


def _a_unfold(a: Array, axis: int, size: int, step: int) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(a, size, axis, writeable=True)
    return windows[(slice(None),) * axis + (slice(None, None, step),)]


def _a_diagonal(a: Array, offset: int) -> Array:
    shown = np.diagonal(a, offset, -2, -1)
    shown.flags.writeable = a.flags.writeable
    return shown


_ARRAY: dict[str, Callable[..., Array]] = {
    "reshape": _a_reshape,
    "permute": lambda a, dims: a.transpose(dims),
    "slice": _a_slice,
    "expand": lambda a, shape: np.broadcast_to(a, shape),
    "diagonal": _a_diagonal,
    "unfold": _a_unfold,
}
