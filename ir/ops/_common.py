"""Checks and small functions that several operator families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..dims import Dim
from ..dtypes import DType
from ..errors import AttributeValueError, DTypeError, ShapeError
from ..opdef import Sample
from ..types import TensorType, Type

Array = np.ndarray[Any, Any]


def tensor(op: str, t: Type) -> TensorType:
    """`t` as a tensor type. Raises DTypeError for a tuple."""
    if not isinstance(t, TensorType):
        raise DTypeError(
            f"{op} needs a tensor, got the {len(t.items)} results of another operator",
            hint="project one of them with `result`",
        )
    return t


def require(op: str, t: TensorType, *, kinds: Sequence[str]) -> None:
    """Raises DTypeError unless t's dtype is of one of the kinds."""
    if t.dtype.kind not in kinds:
        raise DTypeError(
            f"{op} is not defined for {t.dtype.long_name} (operand of type {t})",
            hint=f"cast to a dtype of kind {' or '.join(kinds)} first",
        )


def same_dtype(op: str, *types: TensorType) -> DType:
    """The one dtype of all operands. Raises DTypeError."""
    first = types[0].dtype
    for t in types[1:]:
        if t.dtype is not first:
            raise DTypeError(
                f"{op} needs operands of one dtype, got {', '.join(map(str, types))}", hint="cast one of them"
            )
    return first


def check_axis(op: str, axis: int, rank: int) -> int:
    """`axis` if it is in `[0, rank)`. Raises AttributeValueError."""
    if not 0 <= axis < rank:
        raise AttributeValueError(f"{op}: axis {axis} is out of range for rank {rank}")
    return axis


def check_axes(op: str, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """`axes` if they are distinct and in range. Raises AttributeValueError."""
    for a in axes:
        check_axis(op, a, rank)
    if len(set(axes)) != len(axes):
        raise AttributeValueError(f"{op}: axes {tuple(axes)} repeat")
    return tuple(axes)


def check_extents(op: str, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """`shape` if no extent is a negative integer. Raises ShapeError."""
    for d in shape:
        if isinstance(d, int) and d < 0:
            raise ShapeError(f"{op}: extent {d} is negative in shape {show(shape)}")
    return tuple(shape)


def show(shape: Sequence[Dim]) -> str:
    """A shape for a message: `[4, B]`."""
    return "[" + ", ".join(map(str, shape)) + "]"


def quiet(f: Any) -> Any:
    """A NumPy function without floating-point warnings: infinities and NaNs are results here, not accidents."""

    def run(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*args)

    return run


def ints(dims: Sequence[Dim]) -> tuple[int, ...]:
    """Dims that the interpreter has already evaluated."""
    return cast("tuple[int, ...]", tuple(dims))


def one(*shape: int, **options: Any) -> Sample:
    """A sample with one input of any admitted dtype."""
    return Sample(inputs=(("*", shape),), **options)


def two(a: tuple[int, ...], b: tuple[int, ...], **options: Any) -> Sample:
    """A sample with two inputs of one dtype."""
    return Sample(inputs=(("*", a), ("*", b)), **options)


def wide(x: Array) -> Array:
    """Sixteen-bit floats as float32, all else unchanged: what contractions accumulate in."""
    return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x
