"""Elementwise operators: arithmetic, comparisons, logic, mathematical functions, their in-place variants."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import boolean, f32, f64
from ...ir.errors import DTypeError, ShapeError
from ...ir.node import Node
from . import dtypes
from .dtypes import promote_number
from .inplace import copy, fill, inplace
from .nodes import align, cast, floating, promote
from .registry import FUNCTIONS, METHODS, both, function, method
from .tensor import Tensor
from .trace import apply, apply_mixed, apply_number

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
        other = _operand(b)
        return other if other is NotImplemented else binary(fn, a, other)
    if isinstance(b, Tensor):
        cls = a.__class__
        if cls is float or cls is int or cls is bool:
            return apply_number(fn, b, a, promote_number(b._cell.type.dtype, cls), True)
        other = _operand(a)
        return other if other is NotImplemented else binary(fn, other, b)
    if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
        from .creation import tensor

        return binary(fn, tensor(a), tensor(b))
    return NotImplemented


def _operand(value: Any) -> Any:
    """NumPy scalars as numbers, arrays as tensors."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        from .creation import tensor

        return tensor(value)
    if isinstance(value, _NUMBERS):  # subclasses: enumerations and the like
        return float(value) if isinstance(value, float) else int(value)
    return NotImplemented


def strict(fn: Callable[..., Node], a: Any, b: Any, name: str) -> Any:
    """`binary` for functions: other types are a TypeError."""
    made = binary(fn, a, b)
    if made is NotImplemented:
        wrong = b if isinstance(a, (Tensor, *_NUMBERS)) else a
        raise TypeError(f"{name}(): expected a tensor or a number, got {type(wrong).__name__}")
    return made


@recorded
def _add(b: Builder, x: Node, y: Node) -> Node:
    return b.or_(x, y) if x.dtype is boolean else b.add(x, y)  # type: ignore[no-any-return]


@recorded
def _sub(b: Builder, x: Node, y: Node) -> Node:
    if x.dtype is boolean:
        raise DTypeError("Subtraction, the `-` operator, with two bool tensors is not supported. "
                         "Use the `^` or `logical_xor()` operator instead.")
    return b.sub(x, y)  # type: ignore[no-any-return]


@recorded
def _mul(b: Builder, x: Node, y: Node) -> Node:
    return b.and_(x, y) if x.dtype is boolean else b.mul(x, y)  # type: ignore[no-any-return]


@recorded
def _div(b: Builder, x: Node, y: Node) -> Node:
    return b.div(floating(b, x), floating(b, y))  # type: ignore[no-any-return]


@recorded
def _floor_div(b: Builder, x: Node, y: Node) -> Node:
    return b.floordiv(x, y)  # type: ignore[no-any-return]


@recorded
def _trunc_div(b: Builder, x: Node, y: Node) -> Node:
    if x.dtype.is_float:
        return b.trunc(b.div(x, y))  # type: ignore[no-any-return]
    return b.floordiv(b.sub(x, b.fmod(x, y)), y)  # type: ignore[no-any-return]


@recorded
def _rem(b: Builder, x: Node, y: Node) -> Node:
    return b.rem(x, y)  # type: ignore[no-any-return]


@recorded
def _fmod(b: Builder, x: Node, y: Node) -> Node:
    return b.fmod(x, y)  # type: ignore[no-any-return]


@recorded
def _pow(b: Builder, x: Node, y: Node) -> Node:
    return b.pow(x, y)  # type: ignore[no-any-return]


@recorded
def _maximum(b: Builder, x: Node, y: Node) -> Node:
    return b.maximum(x, y)  # type: ignore[no-any-return]


@recorded
def _minimum(b: Builder, x: Node, y: Node) -> Node:
    return b.minimum(x, y)  # type: ignore[no-any-return]


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


def _scaled(x: Any, alpha: Any) -> Any:
    return x if (alpha == 1 and not isinstance(alpha, float)) or alpha == 1.0 else x * alpha


@both()
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`input + alpha * other`, broadcast and promoted."""
    return strict(_add, input, _scaled(other, alpha), "add")


@both("sub", "subtract")
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`input - alpha * other`."""
    return strict(_sub, input, _scaled(other, alpha), "sub")


@function("rsub")
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`other - alpha * input`."""
    return strict(_sub, other, _scaled(input, alpha), "rsub")


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
        return b.reciprocal(_power(b, x, -exponent))  # type: ignore[no-any-return]
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
    return b.sqrt(x) if half > 0 else b.rsqrt(x)  # type: ignore[no-any-return]


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
                return apply(_root, (x,), (float(exponent),))
            if float(exponent).is_integer() and -2 <= exponent <= 4:
                return apply(_power, (x,), (int(exponent),))
        else:
            if exponent < 0:
                raise RuntimeError("Integers to negative integer powers are not allowed.")
            if exponent <= 64:
                return apply(_power, (x,), (int(exponent),))
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
        return b.maximum(x, y)  # type: ignore[no-any-return]
    return b.select(b.isnan(x), y, b.select(b.isnan(y), x, b.maximum(x, y)))  # type: ignore[no-any-return]


@recorded
def _fmin(b: Builder, x: Node, y: Node) -> Node:
    if not x.dtype.is_float:
        return b.minimum(x, y)  # type: ignore[no-any-return]
    return b.select(b.isnan(x), y, b.select(b.isnan(y), x, b.minimum(x, y)))  # type: ignore[no-any-return]


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
def _truth(b: Builder, x: Node) -> Node:
    return x if x.dtype is boolean else b.ne(x, b.like(0, x))


def _logical(op: str) -> Callable[..., Node]:
    def record(b: Builder, x: Node, y: Node) -> Node:
        x, y = align(b, _truth(b, x), _truth(b, y))
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
    return b.not_(_truth(b, x))  # type: ignore[no-any-return]


@both()
def logical_not(input: Tensor) -> Tensor:
    """The opposite truth."""
    return apply(_logical_not, (input,))


def _not(b: Builder, x: Node) -> Node:
    if x.dtype.is_float:
        raise DTypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return b.not_(x)  # type: ignore[no-any-return]


@both()
def bitwise_not(input: Tensor) -> Tensor:
    """Every bit flipped; logical for bool."""
    return apply(_not, (input,))


def _bitwise(fn: Callable[..., Node], name: str) -> Callable[[Any, Any], Any]:
    def bits(input: Any, other: Any) -> Any:
        return strict(fn, input, other, name)

    bits.__name__, bits.__doc__ = name, f"Elementwise `{name}`."
    return both(name)(bits)


bitwise_and, bitwise_or = _bitwise(_and, "bitwise_and"), _bitwise(_or, "bitwise_or")
bitwise_xor = _bitwise(_xor, "bitwise_xor")
bitwise_left_shift = _bitwise(_shl, "bitwise_left_shift")
bitwise_right_shift = _bitwise(_shr, "bitwise_right_shift")


# --- unary functions --------------------------------------------------------------------------------------------------
def _unary(op: str, *names: str, kind: str = "float") -> Callable[[Tensor], Tensor]:
    """Publish an operator of one operand.

    Args:
        kind: `float` (integers become floats), `signed` (bools refused), `round` (integers stay as they are).
    """
    def record(b: Builder, x: Node) -> Node:
        if kind == "float":
            x = floating(b, x)
        elif kind == "round" and not x.dtype.is_float:
            return x
        return getattr(b, op)(x)  # type: ignore[no-any-return]

    def call(input: Tensor) -> Tensor:
        return apply(record, (input,))  # type: ignore[no-any-return]

    names = names or (op,)
    call.__name__, call.__doc__ = names[0], f"Elementwise `{names[0]}`."
    both(*names)(call)
    for name in names:
        METHODS[f"{name}_"] = inplace(call)
    record.__name__ = f"_{op}"
    return call


exp, exp2, expm1 = _unary("exp"), _unary("exp2"), _unary("expm1")
log, log2, log10, log1p = _unary("log"), _unary("log2"), _unary("log10"), _unary("log1p")
sin, cos, tan = _unary("sin"), _unary("cos"), _unary("tan")
asin, acos, atan = _unary("asin", "asin", "arcsin"), _unary("acos", "acos", "arccos"), _unary("atan", "atan", "arctan")
sinh, cosh, tanh = _unary("sinh"), _unary("cosh"), _unary("tanh")
asinh, acosh = _unary("asinh", "asinh", "arcsinh"), _unary("acosh", "acosh", "arccosh")
atanh = _unary("atanh", "atanh", "arctanh")
erf, erfc, erfinv = _unary("erf"), _unary("erfc"), _unary("erfinv")
lgamma, digamma = _unary("lgamma"), _unary("digamma")
sigmoid = _unary("sigmoid", "sigmoid", "expit")
sqrt, rsqrt, reciprocal = _unary("sqrt"), _unary("rsqrt"), _unary("reciprocal")
floor, ceil, trunc = _unary("floor", kind="round"), _unary("ceil", kind="round"), _unary("trunc", "trunc", "fix", kind="round")


def _neg(b: Builder, x: Node) -> Node:
    if x.dtype is boolean:
        raise DTypeError("Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert "
                         "a mask, use the `~` or `logical_not()` operator instead.")
    if x.dtype.kind == "uint":
        return b.sub(b.like(0, x), x)  # type: ignore[no-any-return]
    return b.neg(x)  # type: ignore[no-any-return]


def _abs(b: Builder, x: Node) -> Node:
    return x if x.dtype.kind in ("uint", "bool") else b.abs(x)  # type: ignore[no-any-return]


def _sign(b: Builder, x: Node) -> Node:
    if x.dtype is boolean:
        return x
    if x.dtype.kind == "uint":
        return cast(b, b.ne(x, b.like(0, x)), x.dtype)
    return b.sign(x)  # type: ignore[no-any-return]


def _one(record: Callable[..., Node], *names: str) -> Callable[[Tensor], Tensor]:
    def call(input: Tensor) -> Tensor:
        return apply(record, (input,))  # type: ignore[no-any-return]

    call.__name__, call.__doc__ = names[0], f"Elementwise `{names[0]}`."
    both(*names)(call)
    for name in names:
        METHODS[f"{name}_"] = inplace(call)
    return call


neg = _one(_neg, "neg", "negative")
abs = _one(_abs, "abs", "absolute")
sign = _one(_sign, "sign", "sgn")
square = _one(lambda b, x: b.mul(x, x), "square")
frac = _one(lambda b, x: b.sub(x, b.trunc(x)), "frac")
relu = _one(lambda b, x: b.maximum(x, b.like(0, x)), "relu")


def _deg2rad(b: Builder, x: Node) -> Node:
    x = floating(b, x)
    return b.mul(x, b.like(math.pi / 180, x))  # type: ignore[no-any-return]


def _rad2deg(b: Builder, x: Node) -> Node:
    x = floating(b, x)
    return b.mul(x, b.like(180 / math.pi, x))  # type: ignore[no-any-return]


def _sinc(b: Builder, x: Node) -> Node:
    x = floating(b, x)
    scaled = b.mul(x, b.like(math.pi, x))
    zero = b.eq(x, b.like(0, x))
    safe = b.select(zero, b.like(1, x), scaled)
    return b.select(zero, b.like(1, x), b.div(b.sin(safe), safe))  # type: ignore[no-any-return]


deg2rad, rad2deg, sinc = _one(_deg2rad, "deg2rad"), _one(_rad2deg, "rad2deg"), _one(_sinc, "sinc")


def _round(b: Builder, x: Node, decimals: int) -> Node:
    if not x.dtype.is_float:
        return x
    if decimals == 0:
        return b.round(x)  # type: ignore[no-any-return]
    ten = b.like(10.0 ** builtins.abs(decimals), x)
    if decimals > 0:
        return b.div(b.round(b.mul(x, ten)), ten)  # type: ignore[no-any-return]
    return b.mul(b.round(b.div(x, ten)), ten)  # type: ignore[no-any-return]


@both()
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded half to even, to a number of decimals."""
    return apply(_round, (input,), (decimals,))  # type: ignore[no-any-return]


METHODS["round_"] = inplace(round)


def _float_test(op: str, exact: bool) -> Callable[..., Node]:
    def record(b: Builder, x: Node) -> Node:
        if not x.dtype.is_float:
            return b.full(exact, boolean, x.shape)
        return getattr(b, op)(x)  # type: ignore[no-any-return]

    return record


isnan = _one(_float_test("isnan", False), "isnan")
isinf = _one(_float_test("isinf", False), "isinf")
isfinite = _one(_float_test("isfinite", True), "isfinite")
isposinf = _one(lambda b, x: b.eq(x, b.like(math.inf, x)) if x.dtype.is_float else b.full(False, boolean, x.shape),
                "isposinf")
isneginf = _one(lambda b, x: b.eq(x, b.like(-math.inf, x)) if x.dtype.is_float else b.full(False, boolean, x.shape),
                "isneginf")
isreal = _one(lambda b, x: b.full(True, boolean, x.shape), "isreal")
positive = _one(lambda b, x: x, "positive")


def _signbit(b: Builder, x: Node) -> Node:
    if not x.dtype.is_float:
        return b.lt(x, b.like(0, x)) if x.dtype.kind == "int" else b.full(False, boolean, x.shape)
    x = cast(b, x, f32) if x.dtype.bits == 16 else x
    return b.or_(b.lt(x, b.like(0, x)), b.lt(b.reciprocal(x), b.like(0, x)))  # type: ignore[no-any-return]


signbit = _one(_signbit, "signbit")


@recorded
def _copysign(b: Builder, x: Node, y: Node) -> Node:
    x, y = floating(b, x), floating(b, y)
    size = b.abs(x)
    return b.select(_signbit(b, y), b.neg(size), size)  # type: ignore[no-any-return]


@both()
def copysign(input: Tensor, other: Any) -> Tensor:
    """`input`'s size with `other`'s sign."""
    return strict(_copysign, input, other, "copysign")  # type: ignore[no-any-return]


@recorded
def _hypot(b: Builder, x: Node, y: Node) -> Node:
    x, y = b.abs(x), b.abs(y)
    big, small = b.maximum(x, y), b.minimum(x, y)
    ratio = b.div(small, b.select(b.eq(big, b.like(0, x)), b.like(1, x), big))
    return b.mul(big, b.sqrt(b.add(b.like(1, x), b.mul(ratio, ratio))))  # type: ignore[no-any-return]


@both()
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """`sqrt(input² + other²)` without overflow."""
    return strict(_hypot, input, other, "hypot")  # type: ignore[no-any-return]


@recorded
def _logaddexp(b: Builder, x: Node, y: Node) -> Node:
    big = b.maximum(x, y)
    gap = b.neg(b.abs(b.sub(x, y)))
    same = b.eq(x, y)  # equal infinities: the gap would be NaN
    safe = b.select(same, b.like(0, x), gap)
    return b.add(big, b.log1p(b.exp(safe)))  # type: ignore[no-any-return]


@both()
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """`log(exp(input) + exp(other))`, without overflow."""
    return strict(_logaddexp, input, other, "logaddexp")  # type: ignore[no-any-return]


@both()
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """`log2(2**input + 2**other)`, without overflow."""
    ln2 = math.log(2.0)
    return logaddexp(input * ln2, other * ln2) / ln2


@recorded
def _xlogy(b: Builder, x: Node, y: Node) -> Node:
    x, y = floating(b, x), floating(b, y)
    zero = b.and_(b.eq(x, b.like(0, x)), b.not_(b.isnan(y)))
    safe = b.select(zero, b.like(1, y), y)
    return b.mul(x, b.log(safe))  # type: ignore[no-any-return]


@both()
def xlogy(input: Any, other: Any) -> Tensor:
    """`input * log(other)`, 0 where input is 0."""
    return strict(_xlogy, input, other, "xlogy")  # type: ignore[no-any-return]


def _logit(b: Builder, x: Node, eps: float | None) -> Node:
    x = floating(b, x)
    if eps is not None:
        x = b.clamp(x, b.like(eps, x), b.like(1 - eps, x))
    return b.log(b.div(x, b.sub(b.like(1, x), x)))  # type: ignore[no-any-return]


@both()
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """`log(x / (1 - x))`."""
    return apply(_logit, (input,), (eps,))  # type: ignore[no-any-return]


# --- clamp, where, lerp, masks ----------------------------------------------------------------------------------------
def _clamp(b: Builder, x: Node, low: Node | None, high: Node | None) -> Node:
    present = [n for n in (x, low, high) if n is not None]
    cast_ = iter(align(b, *promote(b, *present)))
    x = next(cast_)
    low = next(cast_) if low is not None else None
    high = next(cast_) if high is not None else None
    if low is not None and high is not None:
        if low.shape or high.shape:
            return b.minimum(b.maximum(x, low), high)  # type: ignore[no-any-return]
        return b.clamp(x, low, high)  # type: ignore[no-any-return]
    return b.maximum(x, low) if low is not None else b.minimum(x, high)  # type: ignore[no-any-return]


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
        c = _truth(b, c)
    c, x, y = align(b, c, x, y)
    if c.shape or x.shape or y.shape:
        shape = c.shape or x.shape or y.shape
        c = c if c.shape else b.splat(c, shape)
    return b.select(c, x, y)  # type: ignore[no-any-return]


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
def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
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
    return b.select(mask if mask.shape == x.shape else b.splat(mask, x.shape), value, x)  # type: ignore[no-any-return]


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
    return input + weight * (end - input)


@both()
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """`input + value * tensor1 * tensor2`."""
    product = tensor1 * tensor2
    return input + _scaled(product, value)


@both()
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """`input + value * tensor1 / tensor2`."""
    return input + _scaled(tensor1 / tensor2, value)


@both()
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN and infinities replaced by numbers (0 and the dtype's limits unless given)."""
    if not input._dtype.is_float:
        return input.clone()
    info = dtypes.finfo(input.dtype)
    return apply(_nan_to_num, (input,), (nan or 0.0, info.max if posinf is None else posinf,  # type: ignore[no-any-return]
                                         info.min if neginf is None else neginf))


def _nan_to_num(b: Builder, x: Node, nan: float, high: float, low: float) -> Node:
    x = b.select(b.isnan(x), b.like(nan, x), x)
    x = b.select(b.eq(x, b.like(math.inf, x)), b.like(high, x), x)
    return b.select(b.eq(x, b.like(-math.inf, x)), b.like(low, x), x)  # type: ignore[no-any-return]


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
    return b.or_(same, b.and_(b.isfinite(gap), b.le(gap, allowed)))  # type: ignore[no-any-return]


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
METHODS["__neg__"] = neg
METHODS["__pos__"] = lambda self: self
METHODS["__abs__"] = abs
METHODS["__invert__"] = bitwise_not

_IN_PLACE = (add, sub, mul, div, floor_divide, remainder, fmod, pow, logical_and, logical_or, logical_xor, logical_not,
             bitwise_and, bitwise_or, bitwise_xor, bitwise_not, clamp, clamp_min, clamp_max, masked_fill, lerp, addcmul,
             addcdiv, nan_to_num, atan2, copysign, xlogy, logit, hypot, isnan)
for _f in _IN_PLACE:
    METHODS[f"{_f.__name__}_"] = inplace(_f)
METHODS["clip_"], METHODS["true_divide_"], METHODS["multiply_"] = METHODS["clamp_"], METHODS["div_"], METHODS["mul_"]
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


@function("relu_")
def relu_(input: Tensor) -> Tensor:
    """In-place `relu`."""
    return METHODS["relu_"](input)  # type: ignore[no-any-return]


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

