"""Elementwise functions of one operand, and the special functions of two that build on them."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

from ...ir.build import Builder
from ...ir.dtypes import boolean, f32
from ...ir.errors import DTypeError
from ...ir.node import Node
from .inplace import inplace
from .nodes import cast, floating
from .ops_math import recorded, strict
from .registry import METHODS, both, function
from .tensor import Tensor
from .trace import apply


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
floor, ceil = _unary("floor", kind="round"), _unary("ceil", kind="round")
trunc = _unary("trunc", "trunc", "fix", kind="round")


def _neg(b: Builder, x: Node) -> Node:
    if x.dtype is boolean:
        raise DTypeError("Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert "
                         "a mask, use the `~` or `logical_not()` operator instead.")
    if x.dtype.kind == "uint":
        return b.sub(b.like(0, x), x)
    return b.neg(x)


def _abs(b: Builder, x: Node) -> Node:
    return x if x.dtype.kind in ("uint", "bool") else b.abs(x)


def _sign(b: Builder, x: Node) -> Node:
    if x.dtype is boolean:
        return x
    if x.dtype.kind == "uint":
        return cast(b, b.ne(x, b.like(0, x)), x.dtype)
    return b.sign(x)


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
    return b.mul(x, b.like(math.pi / 180, x))


def _rad2deg(b: Builder, x: Node) -> Node:
    x = floating(b, x)
    return b.mul(x, b.like(180 / math.pi, x))


def _sinc(b: Builder, x: Node) -> Node:
    x = floating(b, x)
    scaled = b.mul(x, b.like(math.pi, x))
    zero = b.eq(x, b.like(0, x))
    safe = b.select(zero, b.like(1, x), scaled)
    return b.select(zero, b.like(1, x), b.div(b.sin(safe), safe))


deg2rad, rad2deg, sinc = _one(_deg2rad, "deg2rad"), _one(_rad2deg, "rad2deg"), _one(_sinc, "sinc")


def _round(b: Builder, x: Node, decimals: int) -> Node:
    if not x.dtype.is_float:
        return x
    if decimals == 0:
        return b.round(x)
    ten = b.like(10.0 ** builtins.abs(decimals), x)
    if decimals > 0:
        return b.div(b.round(b.mul(x, ten)), ten)
    return b.mul(b.round(b.div(x, ten)), ten)


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
    return b.or_(b.lt(x, b.like(0, x)), b.lt(b.reciprocal(x), b.like(0, x)))


signbit = _one(_signbit, "signbit")


@recorded
def _copysign(b: Builder, x: Node, y: Node) -> Node:
    x, y = floating(b, x), floating(b, y)
    size = b.abs(x)
    return b.select(_signbit(b, y), b.neg(size), size)


@both()
def copysign(input: Tensor, other: Any) -> Tensor:
    """`input`'s size with `other`'s sign."""
    return strict(_copysign, input, other, "copysign")


@recorded
def _hypot(b: Builder, x: Node, y: Node) -> Node:
    x, y = b.abs(x), b.abs(y)
    big, small = b.maximum(x, y), b.minimum(x, y)
    ratio = b.div(small, b.select(b.eq(big, b.like(0, x)), b.like(1, x), big))
    return b.mul(big, b.sqrt(b.add(b.like(1, x), b.mul(ratio, ratio))))


@both()
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """`sqrt(input² + other²)` without overflow."""
    return strict(_hypot, input, other, "hypot")


@recorded
def _logaddexp(b: Builder, x: Node, y: Node) -> Node:
    big = b.maximum(x, y)
    gap = b.neg(b.abs(b.sub(x, y)))
    same = b.eq(x, y)  # equal infinities: the gap would be NaN
    safe = b.select(same, b.like(0, x), gap)
    return b.add(big, b.log1p(b.exp(safe)))


@both()
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """`log(exp(input) + exp(other))`, without overflow."""
    return strict(_logaddexp, input, other, "logaddexp")


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
    return b.mul(x, b.log(safe))


@both()
def xlogy(input: Any, other: Any) -> Tensor:
    """`input * log(other)`, 0 where input is 0."""
    return strict(_xlogy, input, other, "xlogy")


def _logit(b: Builder, x: Node, eps: float | None) -> Node:
    x = floating(b, x)
    if eps is not None:
        x = b.clamp(x, b.like(eps, x), b.like(1 - eps, x))
    return b.log(b.div(x, b.sub(b.like(1, x), x)))


@both()
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """`log(x / (1 - x))`."""
    return apply(_logit, (input,), (eps,))  # type: ignore[no-any-return]


METHODS["__neg__"], METHODS["__abs__"] = neg, abs
for _f in (copysign, hypot, xlogy, logit):
    METHODS[f"{_f.__name__}_"] = inplace(_f)


@function("relu_")
def relu_(input: Tensor) -> Tensor:
    """In-place `relu`."""
    return METHODS["relu_"](input)  # type: ignore[no-any-return]
