"""Scalar functions that generated kernels call: integer division with Python's and C's rules, remainders, Philox.

Plain Python on NumPy scalars; compiled kernels get the same functions by way of Numba. Integers arrive in any width and
leave as int64, to be cut back by the caller.
"""

from __future__ import annotations

from typing import Any

from ..backend.intrinsics import copysign, fabs, i64, select, u32

Scalar = Any


def clamp(x: Scalar, low: Scalar, high: Scalar) -> Scalar:
    """min(max(x, low), high) for floats; NaN in any operand wins."""
    above = select((x >= low) | (x != x), x, low)
    return select((above <= high) | (above != above), above, high)


def truncated(x: Scalar) -> Scalar:
    """A float64 as int64 without its fraction; the least int64 for NaN and what does not fit."""
    fits = (x >= -9223372036854775808.0) & (x < 9223372036854775808.0)
    return select(fits, i64(x), i64(-9223372036854775807 - 1))


def floor_divide(x: Scalar, y: Scalar) -> Scalar:
    """⌊x / y⌋; 0 for y = 0."""
    a, b = i64(x), i64(y)
    # Dividing by -1 negates: the least integer has no quotient that the machine could give.
    quotient = a // select((b == 0) | (b == -1), i64(1), b)
    return select(b == 0, i64(0), select(b == -1, i64(-a), i64(quotient)))


def floor_modulo(x: Scalar, y: Scalar) -> Scalar:
    """x − y·⌊x / y⌋, with the sign of y; 0 for y = 0."""
    a, b = i64(x), i64(y)
    rest = a % select((b == 0) | (b == -1), i64(1), b)
    return select((b == 0) | (b == -1), i64(0), i64(rest))


def truncated_modulo(x: Scalar, y: Scalar) -> Scalar:
    """The remainder with the sign of x; 0 for y = 0."""
    rest = floor_modulo(x, y)
    return select((rest != 0) & ((i64(x) < 0) != (i64(y) < 0)), i64(rest - i64(y)), rest)


def integer_power(x: Scalar, y: Scalar) -> Scalar:
    """x to the power y modulo 2**64; negative exponents give 0 but for the bases 1 and -1."""
    base, exponent, result = i64(x), i64(y), i64(1)
    if exponent < 0:
        odd = exponent & 1
        return select(base == 1, i64(1), select(base == -1, i64(1 - 2 * odd), i64(0)))
    while exponent > 0:
        if exponent & 1:
            result = i64(result * base)
        base = i64(base * base)
        exponent = i64(exponent >> 1)
    return result


def shift_left(x: Scalar, y: Scalar, bits: Scalar) -> Scalar:
    """x·2**y; 0 for y outside [0, bits)."""
    inside = (y >= 0) & (y < bits)
    return select(inside, i64(i64(x) << select(inside, i64(y), i64(0))), i64(0))


def shift_right(x: Scalar, y: Scalar, bits: Scalar) -> Scalar:
    """⌊x / 2**y⌋; the sign (0 or -1) for y outside [0, bits)."""
    inside = (y >= 0) & (y < bits)
    return select(inside, i64(i64(x) >> select(inside, i64(y), i64(0))), select(x < 0, i64(-1), i64(0)))


def truncated_remainder(x: Scalar, y: Scalar) -> Scalar:
    """x − y·trunc(x / y) for float64, exact, with the sign of x.

    Method: long division. The divisor, doubled until it exceeds half of what is left, is subtracted where it fits and
    halved; every step is exact. (Exact for float32 operands too: their remainder is a float32.)
    """
    rest, divisor = fabs(x), fabs(y)
    if rest - rest != 0.0 or not divisor > 0.0:
        return (rest - rest) / (rest - rest)
    if divisor - divisor != 0.0:
        return x
    scaled = divisor
    while scaled <= rest - scaled:
        scaled = scaled + scaled
    while scaled >= divisor:
        if rest >= scaled:
            rest = rest - scaled
        scaled = scaled * 0.5
    return copysign(rest, x)


def floored_remainder(x: Scalar, y: Scalar) -> Scalar:
    """x − y·⌊x / y⌋ for float64, with the sign of y; the sum at the end is rounded once."""
    rest = truncated_remainder(x, y)
    if rest != 0.0:
        return select((rest < 0.0) != (y < 0.0), rest + y, rest)
    return copysign(rest, y)


def philox(seed: Scalar, counter: Scalar, element: Scalar) -> Scalar:
    """Element `element` (uint32) of Philox4x32-10: lane `element % 4` of block `counter + element // 4`.

    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011. The key is the seed's two words,
    the block number the low two words of the counter.
    """
    block = i64(counter + (element >> 2))
    lane = element & 3
    c0, c1, c2, c3 = block & 0xFFFFFFFF, (block >> 32) & 0xFFFFFFFF, i64(0), i64(0)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        # The products have 64 bits and wrap as signed integers; the shifts below take their words apart.
        p0, p1 = i64(c0 * 0xD2511F53), i64(c2 * 0xCD9E8D57)
        c0, c2 = ((p1 >> 32) & 0xFFFFFFFF) ^ c1 ^ k0, ((p0 >> 32) & 0xFFFFFFFF) ^ c3 ^ k1
        c1, c3 = p1 & 0xFFFFFFFF, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    low = select((lane & 1) == 0, i64(c0), i64(c1))
    high = select((lane & 1) == 0, i64(c2), i64(c3))
    return u32(select(lane < 2, low, high))


__all__ = [
    "clamp", "floor_divide", "floor_modulo", "floored_remainder", "integer_power", "philox", "shift_left",
    "shift_right", "truncated", "truncated_modulo", "truncated_remainder",
]  # fmt: skip
