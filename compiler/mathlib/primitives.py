"""The handful of operations that the mathematical functions need beyond plain arithmetic.

Each is an ordinary Python function on NumPy scalars, and each has a Numba lowering of one or a few LLVM
instructions (`lowering.py`), so that the functions built on them give the same bits in plain Python and in a
kernel.

`select`, `horner` and `polynomial` could be written in plain Python too; as primitives they cost the compiler one
statement instead of a diamond of blocks or a chain of named constants, and `select` never becomes a branch.
"""

from __future__ import annotations

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


def horner(x: Float, coefficients: tuple[Float, ...]) -> Float:
    """The polynomial with these coefficients, lowest power first, by Horner's rule, each step rounded."""
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


def polynomial(x: Float, coefficients: tuple[Float, ...]) -> Float:
    """The polynomial with these coefficients, lowest power first, each step rounded.

    Half the latency of Horner's rule: all but the constant term is split in even and odd powers, whose chains a CPU
    runs side by side (Knuth, The Art of Computer Programming, section 4.6.4). The constant is added last, so that a
    small rest leaves it its accuracy.
    """
    first, rest = coefficients[0], coefficients[1:]
    if len(rest) < _SPLIT:
        return horner(x, coefficients)
    square = x * x
    return first + x * (horner(square, rest[0::2]) + x * horner(square, rest[1::2]))


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
    f32_bits, bits_f32, f64_bits, bits_f64, select, horner, polynomial, copysign,
    sqrt_f32, sqrt_f64, floor, ceil, trunc, rint,
)  # fmt: skip
