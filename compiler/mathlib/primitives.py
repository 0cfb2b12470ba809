"""The handful of operations that the mathematical functions need beyond plain arithmetic.

Each is an ordinary Python function on NumPy scalars, and each has a Numba lowering of one or a few LLVM
instructions (`lowering.py`), so that the functions built on them give the same bits in plain Python and in a
kernel.

`select`, `horner` and `polynomial` could be written in plain Python too; as primitives they cost the compiler one
statement instead of a diamond of blocks or a chain of named constants, and `select` never becomes a branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")
# A NumPy float scalar, or a Python float (a float64 constant of a table).
Float = Any
# A NumPy integer scalar or a Python int.
Integer = Any

# Terms after the constant from which on a polynomial is split in two chains.
_SPLIT = 4


def f32_bits(x: Float) -> Integer:
    """The bits of a float32 as a signed int32."""
    return np.float32(x).view(np.int32)


def bits_f32(bits: Integer) -> Float:
    """The float32 with these bits: the low 32 of any integer."""
    return np.uint32(int(bits) & 0xFFFFFFFF).view(np.float32)


def f64_bits(x: Float) -> Integer:
    """The bits of a float64 as a signed int64."""
    return np.float64(x).view(np.int64)


def bits_f64(bits: Integer) -> Float:
    """The float64 with these bits: the low 64 of any integer."""
    return np.uint64(int(bits) & 0xFFFFFFFFFFFFFFFF).view(np.float64)


def select(condition: Any, if_true: Value, if_false: Value) -> Value:
    """`if_true` where the condition holds, else `if_false`; both are computed already."""
    return if_true if condition else if_false


def fma_f32(a: Float, b: Float, c: Float) -> Float:
    """a * b + c of float32 operands, rounded once."""
    # The product is exact in float64. The sum is rounded to odd there, so that the rounding to float32 is the only one
    # that counts (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    product, addend = float(a) * float(b), float(c)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    if error == error and error != 0.0 and not np.float64(total).view(np.int64) & 1:
        total = math.nextafter(total, math.copysign(math.inf, error))
    return np.float32(total)


def horner(x: Float, coefficients: tuple[Float, ...]) -> Float:
    """The polynomial with these coefficients, lowest power first, by Horner's rule, each step rounded."""
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


def polynomial(x: Float, coefficients: tuple[Float, ...]) -> Float:
    """The float32 polynomial with these coefficients, lowest power first, one fused multiply-add a step."""
    return two_chains(lambda a, b: a * b, fma_f32, x, coefficients)


def two_chains(multiply: Callable[[Any, Any], Any], fma: Callable[[Any, Any, Any], Any], x: Any,
               coefficients: Sequence[Any]) -> Any:
    """`polynomial` in terms of what its steps are made of: NumPy scalars, or LLVM instructions.

    Half the latency of Horner's rule: all but the constant term is split in even and odd powers, whose chains a CPU
    runs side by side (Knuth, The Art of Computer Programming, section 4.6.4). The constant is added last, so that a
    small rest leaves it its accuracy.
    """
    def chain(at: Any, own: Sequence[Any]) -> Any:
        result = own[-1]
        for coefficient in own[-2::-1]:
            result = fma(result, at, coefficient)
        return result

    first, rest = coefficients[0], coefficients[1:]
    if len(rest) < _SPLIT:
        return chain(x, coefficients)
    square = multiply(x, x)
    return fma(x, fma(x, chain(square, rest[1::2]), chain(square, rest[0::2])), first)


def sqrt_f32(x: Float) -> Float:
    """The correctly rounded square root of a float32."""
    return np.sqrt(np.float32(x))


def sqrt_f64(x: Float) -> Float:
    """The correctly rounded square root of a float64."""
    return np.sqrt(np.float64(x))


def floor(x: Float) -> Float:
    """The largest integer not above x, in x's own type."""
    return np.floor(x)


def ceil(x: Float) -> Float:
    """The smallest integer not below x, in x's own type."""
    return np.ceil(x)


def trunc(x: Float) -> Float:
    """x without its fraction, in x's own type."""
    return np.trunc(x)


def rint(x: Float) -> Float:
    """The nearest integer, ties to even, in x's own type."""
    return np.rint(x)


def copysign(magnitude: Float, sign: Float) -> Float:
    """`magnitude` with the sign bit of `sign`; both of one type."""
    return np.copysign(magnitude, sign)


PRIMITIVES = (
    f32_bits, bits_f32, f64_bits, bits_f64, select, fma_f32, horner, polynomial, copysign,
    sqrt_f32, sqrt_f64, floor, ceil, trunc, rint,
)  # fmt: skip
