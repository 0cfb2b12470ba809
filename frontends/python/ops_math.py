"""Elementwise operators: arithmetic, comparisons, logic, mathematical functions, their in-place variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import boolean, f64
from ...ir.errors import DTypeError
from ...ir.node import Node
from . import dtypes
from .dtypes import promote_number
from .inplace import copy, fill, inplace
from .nodes import align, cast, floating, promote
from .registry import FUNCTIONS, METHODS, both, function, method
from .tensor import Tensor
from .trace import apply, apply_number

_NUMBERS = (int, float, bool)


# --- binary operators -------------------------------------------------------------------------------------------------
def recorded(f: Callable[..., Node]) -> Callable[..., Node]:
    """A function over promoted, aligned operands as one over any operands."""

    def record(b: Builder, x: Node, y: Node) -> Node:
        if x.dtype is not y.dtype:
            x, y = promote(b, x, y)
        if x.shape != y.shape:
            x, y = align(b, x, y)
        return f(b, x, y)

    return record


def binary(fn: Callable[..., Node], a: Any, b: Any) -> Any:
    """Record a binary operator of tensors and numbers; NotImplemented for anything else."""
    if isinstance(a, Tensor):
        if isinstance(b, Tensor):
            return apply(fn, (a, b))
        cls = b.__class__
        if cls is float or cls is int or cls is bool:
            return apply_number(fn, a, b, promote_number(a._cell.type.dtype, cls))
        other = operand_of(b)
        return other if other is NotImplemented else binary(fn, a, other)
    if isinstance(b, Tensor):
        cls = a.__class__
        if cls is float or cls is int or cls is bool:
            return apply_number(fn, b, a, promote_number(b._cell.type.dtype, cls), True)
        other = operand_of(a)
        return other if other is NotImplemented else binary(fn, other, b)
    if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
        from .creation import tensor

        return binary(fn, tensor(a), tensor(b))
    return NotImplemented


def operand_of(value: Any) -> Any:
    """NumPy scalars as numbers, arrays as tensors."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        from .creation import tensor

        return tensor(value)
    if isinstance(value, _NUMBERS):  # subclasses: enumerations and the like
        return float(value) if isinstance(value, float) else int(value)
    return NotImplemented


def strict(fn: Callable[..., Node], a: Any, b: Any, name: str) -> Tensor:
    """`binary` for functions: other types are a TypeError."""
    made: Tensor = binary(fn, a, b)
    if made is NotImplemented:
        wrong = b if isinstance(a, (Tensor, *_NUMBERS)) else a
        raise TypeError(f"{name}(): expected a tensor or a number, got {type(wrong).__name__}")
    return made


@recorded
def _add(b: Builder, x: Node, y: Node) -> Node:
    return b.or_(x, y) if x.dtype is boolean else b.add(x, y)


@recorded
def _sub(b: Builder, x: Node, y: Node) -> Node:
    if x.dtype is boolean:
        raise DTypeError("Subtraction, the `-` operator, with two bool tensors is not supported. "
                         "Use the `^` or `logical_xor()` operator instead.")
    return b.sub(x, y)


@recorded
def _mul(b: Builder, x: Node, y: Node) -> Node:
    return b.and_(x, y) if x.dtype is boolean else b.mul(x, y)


@recorded
def _div(b: Builder, x: Node, y: Node) -> Node:
    return b.div(floating(b, x), floating(b, y))


@recorded
def _floor_div(b: Builder, x: Node, y: Node) -> Node:
    return b.floordiv(x, y)


@recorded
def _trunc_div(b: Builder, x: Node, y: Node) -> Node:
    if x.dtype.is_float:
        return b.trunc(b.div(x, y))
    return b.floordiv(b.sub(x, b.fmod(x, y)), y)


@recorded
def _rem(b: Builder, x: Node, y: Node) -> Node:
    return b.rem(x, y)


@recorded
def _fmod(b: Builder, x: Node, y: Node) -> Node:
    return b.fmod(x, y)


@recorded
def _pow(b: Builder, x: Node, y: Node) -> Node:
    return b.pow(x, y)


@recorded
def _maximum(b: Builder, x: Node, y: Node) -> Node:
    return b.maximum(x, y)


@recorded
def _minimum(b: Builder, x: Node, y: Node) -> Node:
    return b.minimum(x, y)


def _float_binary(op: str) -> Callable[..., Node]:
    @recorded
    def record(b: Builder, x: Node, y: Node) -> Node:
        return getattr(b, op)(floating(b, x), floating(b, y))  # type: ignore[no-any-return]

    return record


def _plain_binary(op: str) -> Callable[..., Node]:
    @recorded
    def record(b: Builder, x: Node, y: Node) -> Node:
        return getattr(b, op)(x, y)  # type: ignore[no-any-return]

    return record


_atan2 = _float_binary("atan2")
_eq, _ne, _lt, _le, _gt, _ge = (_plain_binary(op) for op in ("eq", "ne", "lt", "le", "gt", "ge"))
_and, _or, _xor = (_plain_binary(op) for op in ("and_", "or_", "xor"))
_shl, _shr = _plain_binary("shl"), _plain_binary("shr")


def scaled(x: Any, alpha: Any) -> Any:
    return x if (alpha == 1 and not isinstance(alpha, float)) or alpha == 1.0 else x * alpha


@both()
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`input + alpha * other`, broadcast and promoted."""
    return strict(_add, input, scaled(other, alpha), "add")


@both("sub", "subtract")
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`input - alpha * other`."""
    return strict(_sub, input, scaled(other, alpha), "sub")


@function("rsub")
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`other - alpha * input`."""
    return strict(_sub, other, scaled(input, alpha), "rsub")


@both("mul", "multiply")
def mul(input: Any, other: Any) -> Tensor:
    """`input * other`."""
    return strict(_mul, input, other, "mul")


@both("div", "divide", "true_divide")
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """`input / other`; `rounding_mode` may be "floor" or "trunc" (then integers stay integers)."""
    if rounding_mode is None:
        return strict(_div, input, other, "div")
    if rounding_mode == "floor":
        return strict(_floor_div, input, other, "div")
    if rounding_mode == "trunc":
        return strict(_trunc_div, input, other, "div")
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
                       f"'{rounding_mode}'")


@both()
def floor_divide(input: Any, other: Any) -> Tensor:
    """`floor(input / other)`."""
    return strict(_floor_div, input, other, "floor_divide")


@both()
def remainder(input: Any, other: Any) -> Tensor:
    """The remainder with the divisor's sign."""
    return strict(_rem, input, other, "remainder")


@both()
def fmod(input: Any, other: Any) -> Tensor:
    """The remainder with the dividend's sign."""
    return strict(_fmod, input, other, "fmod")


# --- powers -----------------------------------------------------------------------------------------------------------
def _power(b: Builder, x: Node, exponent: int) -> Node:
    """x to a small integer power by repeated multiplication (2: x·x, 3: x·x·x, as PyTorch)."""
    if exponent == 0:
        return b.full(1, x.dtype, x.shape)
    if exponent < 0:
        return b.reciprocal(_power(b, x, -exponent))
    result: Node | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else b.mul(result, square)
        exponent >>= 1
        if exponent:
            square = b.mul(square, square)
    assert result is not None
    return result


def _root(b: Builder, x: Node, half: float) -> Node:
    return b.sqrt(x) if half > 0 else b.rsqrt(x)


def _cast_node(b: Builder, x: Node, dtype: Any) -> Node:
    return cast(b, x, dtype)


@both()
def pow(input: Any, exponent: Any) -> Tensor:
    """`input ** exponent`. Small integer and half exponents become multiplications and roots."""
    if isinstance(input, Tensor) and isinstance(exponent, _NUMBERS) and not isinstance(exponent, bool):
        dtype = promote_number(input._dtype, type(exponent))
        x = input if input._dtype is dtype else apply(_cast_node, (input,), (dtype,))
        if dtype.is_float:
            if exponent in (0.5, -0.5):
                return apply(_root, (x,), (float(exponent),))  # type: ignore[no-any-return]
            if float(exponent).is_integer() and -2 <= exponent <= 4:
                return apply(_power, (x,), (int(exponent),))  # type: ignore[no-any-return]
        else:
            if exponent < 0:
                raise RuntimeError("Integers to negative integer powers are not allowed.")
            if exponent <= 64:
                return apply(_power, (x,), (int(exponent),))  # type: ignore[no-any-return]
    return strict(_pow, input, exponent, "pow")


@both()
def float_power(input: Any, exponent: Any) -> Tensor:
    """`input ** exponent` in float64."""
    def wide(x: Any) -> Any:
        return apply(_cast_node, (x,), (f64,)) if isinstance(x, Tensor) else float(x)

    return pow(wide(input), wide(exponent))


# --- comparisons ------------------------------------------------------------------------------------------------------
def _comparison(fn: Callable[..., Node], *names: str) -> Callable[[Any, Any], Any]:
    def compare(input: Any, other: Any) -> Any:
        return strict(fn, input, other, names[0])

    compare.__name__ = names[0]
    compare.__doc__ = f"Elementwise `{names[0]}`, a bool tensor."
    both(*names)(compare)
    METHODS[f"{names[0]}_"] = inplace(compare)
    return compare


eq = _comparison(_eq, "eq")
ne = _comparison(_ne, "ne", "not_equal")
lt = _comparison(_lt, "lt", "less")
le = _comparison(_le, "le", "less_equal")
gt = _comparison(_gt, "gt", "greater")
ge = _comparison(_ge, "ge", "greater_equal")


@both()
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The greater element of each pair; NaN wins."""
    return strict(_maximum, input, other, "maximum")


@both()
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The lesser element of each pair; NaN wins."""
    return strict(_minimum, input, other, "minimum")


@recorded
def _fmax(b: Builder, x: Node, y: Node) -> Node:
    if not x.dtype.is_float:
        return b.maximum(x, y)
    return b.select(b.isnan(x), y, b.select(b.isnan(y), x, b.maximum(x, y)))


@recorded
def _fmin(b: Builder, x: Node, y: Node) -> Node:
    if not x.dtype.is_float:
        return b.minimum(x, y)
    return b.select(b.isnan(x), y, b.select(b.isnan(y), x, b.minimum(x, y)))


@both()
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The greater element; a NaN loses against a number."""
    return strict(_fmax, input, other, "fmax")


@both()
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The lesser element; a NaN loses against a number."""
    return strict(_fmin, input, other, "fmin")


@both("atan2", "arctan2")
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, input)."""
    return strict(_atan2, input, other, "atan2")


# --- logic and bits ---------------------------------------------------------------------------------------------------
def truth(b: Builder, x: Node) -> Node:
    return x if x.dtype is boolean else b.ne(x, b.like(0, x))


def _logical(op: str) -> Callable[..., Node]:
    def record(b: Builder, x: Node, y: Node) -> Node:
        x, y = align(b, truth(b, x), truth(b, y))
        return getattr(b, op)(x, y)  # type: ignore[no-any-return]

    return record


_logical_and, _logical_or, _logical_xor = _logical("and_"), _logical("or_"), _logical("xor")


@both()
def logical_and(input: Any, other: Any) -> Tensor:
    """Truth of both."""
    return strict(_logical_and, input, other, "logical_and")


@both()
def logical_or(input: Any, other: Any) -> Tensor:
    """Truth of either."""
    return strict(_logical_or, input, other, "logical_or")


@both()
def logical_xor(input: Any, other: Any) -> Tensor:
    """Truth of exactly one."""
    return strict(_logical_xor, input, other, "logical_xor")


def _logical_not(b: Builder, x: Node) -> Node:
    return b.not_(truth(b, x))


@both()
def logical_not(input: Tensor) -> Tensor:
    """The opposite truth."""
    return apply(_logical_not, (input,))  # type: ignore[no-any-return]


def _not(b: Builder, x: Node) -> Node:
    if x.dtype.is_float:
        raise DTypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return b.not_(x)


@both()
def bitwise_not(input: Tensor) -> Tensor:
    """Every bit flipped; logical for bool."""
    return apply(_not, (input,))  # type: ignore[no-any-return]


def _bitwise(fn: Callable[..., Node], name: str) -> Callable[[Any, Any], Any]:
    def bits(input: Any, other: Any) -> Any:
        return strict(fn, input, other, name)

    bits.__name__, bits.__doc__ = name, f"Elementwise `{name}`."
    return both(name)(bits)


bitwise_and, bitwise_or = _bitwise(_and, "bitwise_and"), _bitwise(_or, "bitwise_or")
bitwise_xor = _bitwise(_xor, "bitwise_xor")
bitwise_left_shift = _bitwise(_shl, "bitwise_left_shift")
bitwise_right_shift = _bitwise(_shr, "bitwise_right_shift")


# --- operators and in-place variants ----------------------------------------------------------------------------------
def _dunder(fn: Callable[..., Node], name: str, swap: bool = False) -> None:
    if swap:
        def operator(self: Tensor, other: Any) -> Any:
            return binary(fn, other, self)
    else:
        def operator(self: Tensor, other: Any) -> Any:
            return binary(fn, self, other)
    operator.__name__ = name
    METHODS[name] = operator


for _fn, _name in ((_add, "add"), (_sub, "sub"), (_mul, "mul"), (_div, "truediv"), (_floor_div, "floordiv"),
                   (_rem, "mod"), (_and, "and"), (_or, "or"), (_xor, "xor"), (_shl, "lshift"), (_shr, "rshift")):
    _dunder(_fn, f"__{_name}__")
    _dunder(_fn, f"__r{_name}__", swap=True)
for _fn, _name in ((_eq, "eq"), (_ne, "ne"), (_lt, "lt"), (_le, "le"), (_gt, "gt"), (_ge, "ge")):
    _dunder(_fn, f"__{_name}__")

METHODS["__pow__"] = lambda self, other: pow(self, other)
METHODS["__rpow__"] = lambda self, other: binary(_pow, other, self)
METHODS["__pos__"] = lambda self: self
METHODS["__invert__"] = bitwise_not

_IN_PLACE = (add, sub, mul, div, floor_divide, remainder, fmod, pow, logical_and, logical_or, logical_xor, logical_not,
             bitwise_and, bitwise_or, bitwise_xor, bitwise_not, bitwise_left_shift, bitwise_right_shift, atan2)
for _f in _IN_PLACE:
    METHODS[f"{_f.__name__}_"] = inplace(_f)
METHODS["true_divide_"], METHODS["multiply_"] = METHODS["div_"], METHODS["mul_"]
METHODS["subtract_"], METHODS["divide_"] = METHODS["sub_"], METHODS["div_"]


def _augmented(name: str) -> Callable[[Tensor, Any], Any]:
    method_ = METHODS[name]

    def operator(self: Tensor, other: Any) -> Any:
        return method_(self, other)

    return operator


for _name, _target in (("add", "add_"), ("sub", "sub_"), ("mul", "mul_"), ("truediv", "div_"),
                       ("floordiv", "floor_divide_"), ("mod", "remainder_"), ("pow", "pow_"), ("and", "bitwise_and_"),
                       ("or", "bitwise_or_"), ("xor", "bitwise_xor_")):
    METHODS[f"__i{_name}__"] = _augmented(_target)


@method()
def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element becomes `value`."""
    return fill(self, value)


@method()
def zero_(self: Tensor) -> Tensor:
    """Every element becomes 0."""
    return fill(self, 0)


@method()
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Elements of `src`, broadcast and cast."""
    return copy(self, src)


FUNCTIONS["pi"], FUNCTIONS["e"], FUNCTIONS["inf"], FUNCTIONS["nan"] = math.pi, math.e, math.inf, math.nan
FUNCTIONS["result_type"] = dtypes.result_type


@function()
def can_cast(from_: Any, to: Any) -> bool:
    """Whether PyTorch's rules let results of one dtype be stored in the other."""
    return dtypes.category(dtypes.resolve(from_)) <= dtypes.category(dtypes.resolve(to))


@function()
def promote_types(type1: Any, type2: Any) -> Any:
    """The smallest dtype that both may become."""
    return dtypes.public(dtypes.promote_types(dtypes.resolve(type1), dtypes.resolve(type2)))

