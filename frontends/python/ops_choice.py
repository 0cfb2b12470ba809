"""Choosing elements: clamp, where, masks, interpolation, and tests of closeness."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import boolean, f64
from ...ir.errors import DTypeError, ShapeError
from ...ir.node import Node
from . import dtypes
from .dtypes import promote_number
from .inplace import inplace
from .nodes import align, cast, promote
from .ops_math import eq, scaled, truth
from .registry import METHODS, both, function, method
from .tensor import Tensor
from .trace import apply, apply_mixed


def _clamp(b: Builder, x: Node, low: Node | None, high: Node | None) -> Node:
    present = [n for n in (x, low, high) if n is not None]
    cast_ = iter(align(b, *promote(b, *present)))
    x = next(cast_)
    low = next(cast_) if low is not None else None
    high = next(cast_) if high is not None else None
    if low is not None and high is not None:
        if low.shape or high.shape:
            return b.minimum(b.maximum(x, low), high)
        return b.clamp(x, low, high)
    return b.maximum(x, low) if low is not None else b.minimum(x, high)


def _bound(x: Tensor, value: Any) -> Any:
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    return (value, promote_number(x._dtype, type(value)))


@both("clamp", "clip")
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Elements limited to `[min, max]`; either bound may be a number, a tensor or None."""
    if min is None and max is None:
        raise ValueError("torch.clamp: At least one of 'min' or 'max' must not be None")
    return apply_mixed(_clamp, (input, _bound(input, min), _bound(input, max)))  # type: ignore[no-any-return]


@both()
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Elements at least `min`."""
    return clamp(input, min=min)


@both()
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Elements at most `max`."""
    return clamp(input, max=max)


def _where(b: Builder, c: Node, x: Node, y: Node) -> Node:
    x, y = promote(b, x, y)
    if c.dtype is not boolean:
        c = truth(b, c)
    c, x, y = align(b, c, x, y)
    if c.shape or x.shape or y.shape:
        shape = c.shape or x.shape or y.shape
        c = c if c.shape else b.splat(c, shape)
    return b.select(c, x, y)


def _choice(value: Any, other: Any) -> Any:
    """An operand of `where`: a number takes the other operand's dtype if its category allows."""
    if isinstance(value, Tensor):
        return value
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(other, Tensor):
        return (value, promote_number(other._dtype, type(value)))
    dtype = promote_number(dtypes.number_dtype(value), type(other))
    return (value, dtype)


@function()
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`; with the condition alone, the indices of its true elements."""
    if input is None and other is None:
        from .ops_index import nonzero

        return nonzero(condition, as_tuple=True)
    if not isinstance(condition, Tensor):
        from .creation import tensor

        condition = tensor(condition)
    return apply_mixed(_where, (condition, _choice(input, other), _choice(other, input)))


@method("where")
def _where_method(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    return where(condition, self, other)  # type: ignore[no-any-return]


def _masked_fill(b: Builder, x: Node, mask: Node, value: Node) -> Node:
    if mask.dtype is not boolean:
        raise DTypeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype.long_name}")
    x, mask, _ = align(b, x, mask, x)
    if not x.shape and mask.shape:
        x = b.splat(x, mask.shape)
    value = cast(b, value, x.dtype)
    return b.select(mask if mask.shape == x.shape else b.splat(mask, x.shape), value, x)


@both()
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` (a number or 0-dim tensor) where the mask holds."""
    if isinstance(value, Tensor):
        if value._shape:
            raise ShapeError(f"masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                             f"{len(value._shape)} dimension(s).")
        return apply(_masked_fill, (input, mask, value))  # type: ignore[no-any-return]
    return apply_mixed(_masked_fill, (input, mask, (value, input._dtype)))  # type: ignore[no-any-return]


@both()
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """`input + weight * (end - input)`."""
    return input + weight * (end - input)  # type: ignore[no-any-return]


@both()
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """`input + value * tensor1 * tensor2`."""
    product = tensor1 * tensor2
    return input + scaled(product, value)  # type: ignore[no-any-return]


@both()
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """`input + value * tensor1 / tensor2`."""
    return input + scaled(tensor1 / tensor2, value)  # type: ignore[no-any-return]


@both()
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN and infinities replaced by numbers (0 and the dtype's limits unless given)."""
    if not input._dtype.is_float:
        return input.clone()  # type: ignore[no-any-return]
    info = dtypes.finfo(input.dtype)
    return apply(_nan_to_num, (input,), (nan or 0.0, info.max if posinf is None else posinf,  # type: ignore[no-any-return]
                                         info.min if neginf is None else neginf))


def _nan_to_num(b: Builder, x: Node, nan: float, high: float, low: float) -> Node:
    x = b.select(b.isnan(x), b.like(nan, x), x)
    x = b.select(b.eq(x, b.like(math.inf, x)), b.like(high, x), x)
    return b.select(b.eq(x, b.like(-math.inf, x)), b.like(low, x), x)


# --- whole-tensor tests -----------------------------------------------------------------------------------------------
def _close(b: Builder, x: Node, y: Node, rtol: float, atol: float, equal_nan: bool) -> Node:
    x, y = align(b, *promote(b, x, y))
    same = b.eq(x, y)
    if x.dtype.is_float:
        wide_x, wide_y = x, y
        if equal_nan:
            same = b.or_(same, b.and_(b.isnan(x), b.isnan(y)))
    else:
        wide_x, wide_y = cast(b, x, f64), cast(b, y, f64)
    gap = b.abs(b.sub(wide_x, wide_y))
    allowed = b.add(b.like(atol, wide_x), b.abs(b.mul(wide_y, b.like(rtol, wide_y))))
    return b.or_(same, b.and_(b.isfinite(gap), b.le(gap, allowed)))


@both()
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether `|input - other| <= atol + rtol·|other|`, elementwise."""
    return apply(_close, (input, other), (rtol, atol, equal_nan))  # type: ignore[no-any-return]


@both()
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (needs the values)."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


@both()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and elements (needs the values)."""
    return input._shape == other._shape and bool(eq(input, other).all())


for _f in (clamp, clamp_min, clamp_max, masked_fill, lerp, addcmul, addcdiv, nan_to_num):
    METHODS[f"{_f.__name__}_"] = inplace(_f)
METHODS["clip_"] = METHODS["clamp_"]


@function("fill")
def fill_copy(input: Tensor, value: Any) -> Tensor:
    """A tensor of the same shape and dtype with one repeated value."""
    from .creation import full_like

    return full_like(input, value)
