"""Movement of elements: views, joins, splits, triangles, rolls. Views share memory, everything else is new."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.errors import DTypeError, ShapeError
from ...ir.node import Node
from . import dtypes
from .nodes import axes_of, axis_of, broadcast_shapes
from .place import here
from .registry import METHODS, both, function, method
from .tensor import Tensor, from_array, over, viewed
from .trace import TRACE, apply
from .views import view_strides


def ints(args: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape given as arguments or as one sequence; elements may be 0-dim tensors."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple([a if a.__class__ is int else int(a.__index__()) for a in args])


def eager(*tensors: Tensor) -> bool:
    """Whether a movement runs at once: materialised operands without history, nothing being captured."""
    if TRACE.barrier is not None:
        return False
    for t in tensors:
        cell = t._cell
        if cell.stale or cell.tracked or cell.buffer is None or (cell.node is not None and t._view is None):
            return False
    return True


# --- views ------------------------------------------------------------------------------------------------------------
def infer_shape(count: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A target shape with its −1 filled in. Raises ShapeError in PyTorch's words."""
    if -1 in shape:
        if shape.count(-1) > 1:
            raise ShapeError("only one dimension can be inferred")
        rest = 1
        for d in shape:
            rest *= d if d != -1 else 1
        if rest == 0 or count % rest:
            raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {count}")
        return tuple([count // rest if d == -1 else d for d in shape])
    total = 1
    for d in shape:
        total *= d
    if total != count or any(d < 0 for d in shape):
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {count}", location=here(3).location)
    return shape


@method()
def view(self: Tensor, *shape: Any, dtype: Any = None) -> Tensor:
    """The same memory in another shape (or dtype of the same width)."""
    if shape and not isinstance(shape[0], (int, tuple, list)) and not isinstance(shape[0], Tensor):
        dtype = shape[0]
    if dtype is not None:
        return view_dtype(self, dtype)
    new = infer_shape(self.numel(), ints(shape))
    return viewed(self, ("reshape", new))


def view_dtype(self: Tensor, dtype: Any) -> Tensor:
    """The same bits as another dtype of the same width (a new tensor)."""
    target = dtypes.resolve(dtype)
    if target is self._dtype:
        return over(self._cell, self._view)
    if target.itemsize != self._dtype.itemsize:
        raise DTypeError("view(dtype): only dtypes of the same width are offered")
    return apply(_bitcast, (self,), (target,))  # type: ignore[no-any-return]


def _bitcast(b: Builder, x: Node, dtype: Any) -> Node:
    return b.bitcast(x, dtype=dtype)


@both()
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: a view where the memory allows, else a copy."""
    new = infer_shape(input.numel(), ints(shape))
    if new == input._shape:
        return viewed(input, ("reshape", new)) if input._view is None or input._view.contiguous else over_same(input)
    strides = input.stride()
    if view_strides(tuple(input._shape), strides, new) is not None:
        return viewed(input, ("reshape", new))
    if eager(input):
        return from_array(np.ascontiguousarray(input._array("reshape")).reshape(new), input._dtype)
    return apply(_reshape, (input,), (new,))  # type: ignore[no-any-return]


def over_same(t: Tensor) -> Tensor:
    """Another tensor object over the same view."""
    return viewed(t) if t._view is not None else over(t._cell)


def _reshape(b: Builder, x: Node, shape: tuple[int, ...]) -> Node:
    return b.reshape(x, shape=shape)


@method()
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """The same memory in another tensor's shape."""
    return view(self, other._shape)


@method()
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """The same elements in another tensor's shape."""
    return reshape(self, other._shape)


@both()
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions `start_dim` to `end_dim` merged into one."""
    rank = len(input._shape)
    if rank == 0:
        return reshape(input, 1)
    first, last = axis_of(start_dim, rank), axis_of(end_dim, rank)
    if first > last:
        raise ShapeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    merged = 1
    for d in input._shape[first:last + 1]:
        merged *= d
    return reshape(input, (*input._shape[:first], merged, *input._shape[last + 1:]))


@both()
def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return reshape(input, -1)


@both()
def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """One dimension split into several."""
    axis = axis_of(dim, len(input._shape))
    sizes = infer_shape(input._shape[axis], ints((sizes,)))
    return view(input, (*input._shape[:axis], *sizes, *input._shape[axis + 1:]))


@both()
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in another order."""
    order = ints(dims)
    rank = len(input._shape)
    if len(order) != rank:
        raise ShapeError(f"permute: number of dimensions in the tensor input does not match the length of the desired "
                         f"ordering of dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(order)}")
    axes = tuple([axis_of(d, rank) for d in order])
    if len(set(axes)) != rank:
        raise ShapeError("permute(): duplicate dims are not allowed.")
    return viewed(input, ("permute", axes))


@both("transpose", "swapaxes", "swapdims")
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    rank = len(input._shape)
    a, c = axis_of(dim0, rank), axis_of(dim1, rank)
    if rank == 0 or a == c:
        return over_same(input)
    order = list(range(rank))
    order[a], order[c] = c, a
    return viewed(input, ("permute", tuple(order)))


@both()
def t(input: Tensor) -> Tensor:
    """A matrix transposed; vectors and scalars as they are."""
    if len(input._shape) > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {len(input._shape)}D")
    return viewed(input, ("permute", (1, 0))) if len(input._shape) == 2 else over_same(input)


def _big_t(self: Tensor) -> Tensor:
    rank = len(self._shape)
    return viewed(self, ("permute", tuple(range(rank - 1, -1, -1)))) if rank else over_same(self)


def _matrix_t(self: Tensor) -> Tensor:
    if len(self._shape) < 2:
        raise ShapeError(f"tensor.mT is only supported on matrices or batches of matrices. Got {len(self._shape)}-D "
                         f"tensor.")
    return transpose(self, -2, -1)


METHODS["T"] = METHODS["H"] = property(_big_t, doc="All dimensions reversed.")
METHODS["mT"] = METHODS["mH"] = property(_matrix_t, doc="The last two dimensions exchanged.")


@both()
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions moved to other positions, the rest in order."""
    rank = len(input._shape)
    src = [axis_of(d, rank) for d in (source if isinstance(source, (tuple, list)) else [source])]
    dst = [axis_of(d, rank) for d in (destination if isinstance(destination, (tuple, list)) else [destination])]
    order = [-1] * rank
    for s, d in zip(src, dst, strict=True):
        order[d] = s
    rest = iter([d for d in range(rank) if d not in src])
    return viewed(input, ("permute", tuple([next(rest) if o < 0 else o for o in order])))


METHODS["moveaxis"] = movedim
function("moveaxis")(movedim)


@both()
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Extents of 1 dropped: all, or those of some dimensions."""
    shape = input._shape
    axes = range(len(shape)) if dim is None else axes_of(dim, len(shape))
    new = tuple([d for i, d in enumerate(shape) if not (d == 1 and i in axes)])
    return viewed(input, ("reshape", new)) if new != shape else over_same(input)


@both()
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A new dimension of extent 1."""
    shape = tuple(input._shape)
    axis = axis_of(dim, len(shape) + 1)
    return viewed(input, ("reshape", (*shape[:axis], 1, *shape[axis:])))


@method()
def expand(self: Tensor, *sizes: Any) -> Tensor:
    """Extents of 1 repeated without copying; −1 keeps one; new dimensions come first."""
    new = ints(sizes)
    shape = self._shape
    lead = len(new) - len(shape)
    if lead < 0:
        raise ShapeError(f"expand: the number of sizes provided ({len(new)}) must be greater or equal to the number of "
                         f"dimensions in the tensor ({len(shape)})")
    full = list(new)
    for i, have in enumerate(shape, lead):
        if full[i] == -1:
            full[i] = have
        elif have not in (1, full[i]):
            raise ShapeError(f"The expanded size of the tensor ({full[i]}) must match the existing size ({have}) at "
                             f"non-singleton dimension {i}.  Target sizes: {list(new)}.  Tensor sizes: {list(shape)}",
                             location=here(2).location)
    if any(d < 0 for d in full[:lead]):
        raise ShapeError("The expanded size of the tensor (-1) isn't allowed in a leading, non-existing dimension 0")
    return viewed(self, ("expand", tuple(full)))


@both("broadcast_to")
def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand`, as a function."""
    return expand(input, size)


@method()
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to another tensor's shape."""
    return expand(self, other._shape)


@function()
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Tensors expanded to their common shape."""
    items = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = broadcast_shapes(*[tuple(x._shape) for x in items])
    return tuple([expand(x, shape) for x in items])


@function("broadcast_shapes")
def broadcast_shapes_(*shapes: Any) -> Any:
    """The common shape of several."""
    from .tensor import Size

    return Size(broadcast_shapes(*[tuple(s) if isinstance(s, (tuple, list)) else (s,) for s in shapes]))


def _slice_step(shape: Sequence[int], axis: int, start: int, size: int, step: int = 1) -> tuple[Any, ...]:
    starts = tuple([start if i == axis else 0 for i in range(len(shape))])
    sizes = tuple([size if i == axis else d for i, d in enumerate(shape)])
    steps = tuple([step if i == axis else 1 for i in range(len(shape))])
    return ("slice", starts, sizes, steps)


@both()
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements of a dimension from `start` on."""
    axis = axis_of(dim, len(input._shape))
    start, length = int(start), int(length)
    extent = input._shape[axis]
    start = start + extent if start < 0 else start
    if not 0 <= start <= extent or length < 0 or start + length > extent:
        raise ShapeError(f"start ({start}) + length ({length}) exceeds dimension size ({extent}).",
                         location=here(2).location)
    return viewed(input, _slice_step(input._shape, axis, start, length))


@both()
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """One slice of a dimension, which is dropped."""
    if not input._shape:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    axis = axis_of(dim, len(input._shape))
    extent = input._shape[axis]
    index = int(index)
    if not -extent <= index < extent:
        raise IndexError(f"select(): index {index} out of range for tensor of size {list(input._shape)} at dimension "
                         f"{dim}")
    index %= extent
    shape = tuple([d for i, d in enumerate(input._shape) if i != axis])
    return viewed(input, _slice_step(input._shape, axis, index, 1), ("reshape", shape))


@both()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices of a dimension."""
    if not input._shape:
        raise RuntimeError("Dimension specified as 0 but tensor has no dimensions")
    axis = axis_of(dim, len(input._shape))
    return tuple([select(input, axis, i) for i in range(input._shape[axis])])


@both()
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0, **kwargs: Any) -> tuple[Tensor, ...]:
    """Pieces of a dimension: of one size (the last may be smaller), or of given sizes."""
    sizes = kwargs.get("split_size", split_size_or_sections)
    axis = axis_of(dim, len(tensor._shape))
    extent = tensor._shape[axis]
    if isinstance(sizes, (tuple, list)):
        lengths = [int(s) for s in sizes]
        if sum(lengths) != extent:
            raise ShapeError(f"split_with_sizes expects split_sizes to sum exactly to {extent} (input tensor's size at "
                             f"dimension {dim}), but got split_sizes={lengths}")
    else:
        size = int(sizes)
        if size < 1 and extent:
            raise ShapeError(f"split expects split_size be non-negative and not zero, but got split_size={size}")
        lengths = [min(size, extent - i) for i in range(0, extent, size)] or [0]
    pieces, start = [], 0
    for length in lengths:
        pieces.append(narrow(tensor, axis, start, length))
        start += length
    return tuple(pieces)


METHODS["split_with_sizes"] = split


@both()
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller)."""
    if chunks < 1:
        raise ShapeError("chunk expects `chunks` to be greater than 0, got: " + str(chunks))
    axis = axis_of(dim, len(input._shape))
    extent = input._shape[axis]
    return split(input, max(-(-extent // chunks), 1), axis)


@both()
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of a dimension: a number of nearly equal ones, or cut at indices."""
    axis = axis_of(dim, len(input._shape))
    extent = input._shape[axis]
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        small, extra = divmod(extent, n)
        lengths = [small + (i < extra) for i in range(n)]
        return split(input, lengths, axis)
    cuts = [max(min(c + extent if c < 0 else c, extent), 0) for c in map(int, indices_or_sections)]
    edges = [0, *cuts, extent]
    return tuple([narrow(input, axis, a, max(c - a, 0)) for a, c in pairwise(edges)])


def _named_split(name: str, axis: int, flat_axis: int) -> None:
    def split_(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        return tensor_split(input, indices_or_sections, flat_axis if input.dim() == 1 else axis)

    split_.__name__, split_.__doc__ = name, f"`tensor_split` along dimension {axis}."
    both(name)(split_)


_named_split("vsplit", 0, 0)
_named_split("hsplit", 1, 0)
_named_split("dsplit", 2, 2)


@both()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions, as the last dimension; a view."""
    rank = len(input._shape)
    a, c = axis_of(dim1, rank), axis_of(dim2, rank)
    if a == c:
        raise ShapeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    order = tuple([d for d in range(rank) if d not in (a, c)] + [a, c])
    return viewed(input, ("permute", order), ("diagonal", offset))


@method()
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of a dimension, as a new last dimension; a view."""
    axis = axis_of(dimension, len(self._shape))
    extent = self._shape[axis] if self._shape else 1
    if size > extent:
        raise ShapeError(f"maximum size for tensor at dimension {axis} is {extent} but size is {size}")
    return viewed(self, ("unfold", axis, size, step))


# --- views of the tensor itself ---------------------------------------------------------------------------------------
@method()
def squeeze_(self: Tensor, dim: Any = None) -> Tensor:
    """Extents of 1 dropped from this tensor itself."""
    return _become(self, squeeze(self, dim))


@method()
def unsqueeze_(self: Tensor, dim: int) -> Tensor:
    """A dimension of extent 1 added to this tensor itself."""
    return _become(self, unsqueeze(self, dim))


@method()
def transpose_(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions of this tensor itself exchanged."""
    return _become(self, transpose(self, dim0, dim1))


@method()
def t_(self: Tensor) -> Tensor:
    """This matrix itself transposed."""
    return _become(self, t(self))


def _become(self: Tensor, other: Tensor) -> Tensor:
    self._cell, self._view, self._seen = other._cell, other._view, None
    return self
