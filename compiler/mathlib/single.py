"""The float32 functions that compute in float32: exp, exp2, log, tanh, sigmoid, erf, sqrt, rsqrt, roundings.

They decide the speed of training, so they fill vectors with float32 lanes, and polynomials take one fused
multiply-add a step, as contractions do. Accuracy comes from Cody and Waite's split constants and from carrying
the low half of a sum where it matters. No function branches; special values are selects at the end.
"""

from __future__ import annotations

import numpy as np

from .coefficients import ERF_LARGE_F32, ERF_SMALL_F32, EXP2_F32, EXP_F32, LOG_F32, TANH_F32
from .primitives import (
    Float,
    Integer,
    bits_f32,
    ceil,
    copysign,
    f32_bits,
    floor,
    fma_f32,
    polynomial,
    rint,
    select,
    sqrt_f32,
    trunc,
)

ZERO_F32 = np.float32(0.0)
HALF_F32 = np.float32(0.5)
ONE_F32 = np.float32(1.0)
TWO_F32 = np.float32(2.0)
INFINITY_F32 = np.float32(np.inf)
NAN_F32 = np.float32(np.nan)
MIN_NORMAL_F32 = np.float32(2.0**-126)
TWO_23_F32 = np.float32(2.0**23)
# Adding 1.5 * 2**23 rounds to an integer, which the low bits of the sum hold; its own bits are 0x4B400000.
ROUND_F32 = np.float32(1.5 * 2.0**23)
LOG2_E_F32 = np.float32(1.4426950408889634)
# ln 2 in two parts; the high one has 15 bits, so that its product with an exponent is exact.
LN2_HIGH_F32 = np.float32(0.693145751953125)
LN2_LOW_F32 = np.float32(1.4286068203094173e-06)
# Beyond these, exp overflows or rounds to 0 (with some room: the clamp only keeps the exponent small).
EXP_MAX_F32 = np.float32(89.0)
EXP_MIN_F32 = np.float32(-104.5)
EXP2_MAX_F32 = np.float32(129.0)
EXP2_MIN_F32 = np.float32(-151.0)
SIGMOID_LIMIT_F32 = np.float32(104.5)
TANH_SMALL_F32 = np.float32(0.625)
TANH_LIMIT_F32 = np.float32(10.0)
ERF_SMALL_LIMIT_F32 = np.float32(0.921875)
ERF_LIMIT_F32 = np.float32(4.0)


def clamp_f32(x: Float, low: Float, high: Float) -> Float:
    """x kept within [low, high]; NaN stays NaN."""
    above = select(x > high, high, x)
    return select(above < low, low, above)


def scale_f32(x: Float, exponent: Integer) -> Float:
    """x * 2**exponent for |exponent| up to 250, in two steps of which at most the last rounds."""
    first = exponent >> 1
    second = exponent - first
    return (x * bits_f32((first + 127) << 23)) * bits_f32((second + 127) << 23)


def exp_parts_f32(x: Float) -> tuple[Float, Float, Integer]:
    """(p, q, n) with exp(x) = (p + q) * 2**n, q the rounding error of p; |x| < 110 or NaN."""
    shifted = fma_f32(x, LOG2_E_F32, ROUND_F32)
    k = shifted - ROUND_F32
    r = fma_f32(k, -LN2_LOW_F32, fma_f32(k, -LN2_HIGH_F32, x))
    tail = fma_f32(r * r, polynomial(r, EXP_F32), r)
    p = ONE_F32 + tail
    return p, (ONE_F32 - p) + tail, f32_bits(shifted) - 0x4B400000


def tm_exp_f32(x: Float) -> Float:
    """e**x."""
    p, _, n = exp_parts_f32(clamp_f32(x, EXP_MIN_F32, EXP_MAX_F32))
    return scale_f32(p, n)


def tm_exp2_f32(x: Float) -> Float:
    """2**x."""
    x = clamp_f32(x, EXP2_MIN_F32, EXP2_MAX_F32)
    shifted = x + ROUND_F32
    r = x - (shifted - ROUND_F32)
    return scale_f32(fma_f32(r, polynomial(r, EXP2_F32), ONE_F32), f32_bits(shifted) - 0x4B400000)


def tm_log_f32(x: Float) -> Float:
    """The natural logarithm."""
    subnormal = x < MIN_NORMAL_F32
    bits = f32_bits(select(subnormal, x * TWO_23_F32, x))
    # 0x3F3504F3 are the bits of sqrt(1/2): the mantissa lies in [sqrt(1/2), sqrt(2)).
    n = (bits - 0x3F3504F3) >> 23
    f = bits_f32(bits - (n << 23)) - ONE_F32
    k = np.float32(np.int32(n)) - select(subnormal, np.float32(23.0), ZERO_F32)
    square = f * f
    tail = k * LN2_LOW_F32 + (square * f * polynomial(f, LOG_F32) - HALF_F32 * square)
    result = k * LN2_HIGH_F32 + (f + tail)
    result = select(x < INFINITY_F32, result, x)
    return select(x > ZERO_F32, result, select(x == ZERO_F32, -INFINITY_F32, NAN_F32))


def tm_sigmoid_f32(x: Float) -> Float:
    """1 / (1 + e**-x)."""
    negative = x < ZERO_F32
    p, q, n = exp_parts_f32(-clamp_f32(abs(x), ZERO_F32, SIGMOID_LIMIT_F32))
    # e**-|x| = (p + q) * 2**n, in full precision only where it is not negligible next to 1.
    unit = bits_f32((select(n < -60, -60, n) + 127) << 23)
    high = p * unit
    denominator = ONE_F32 + high
    low = ((ONE_F32 - denominator) + high) + q * unit
    # The quotient of the high parts, corrected by the low ones.
    quotient = select(negative, p, ONE_F32) / denominator
    rest = (select(negative, q, ZERO_F32) - quotient * low) / denominator
    return scale_f32(quotient + rest, select(negative, n, 0))


def tm_tanh_f32(x: Float) -> Float:
    """The hyperbolic tangent."""
    a = abs(x)
    square = a * a
    small = fma_f32(a * square, polynomial(square, TANH_F32), a)
    a = select(a > TANH_LIMIT_F32, TANH_LIMIT_F32, a)
    p, _, n = exp_parts_f32(a + a)
    large = ONE_F32 - TWO_F32 / fma_f32(p, bits_f32((n + 127) << 23), ONE_F32)
    return copysign(select(a < TANH_SMALL_F32, small, large), x)


def tm_erf_f32(x: Float) -> Float:
    """The error function."""
    a = abs(x)
    square = a * a
    small = fma_f32(a, polynomial(square, ERF_SMALL_F32), a)
    a = select(a > ERF_LIMIT_F32, ERF_LIMIT_F32, a)
    p, _, n = exp_parts_f32(-polynomial(a, ERF_LARGE_F32))
    large = fma_f32(-p, bits_f32((n + 127) << 23), ONE_F32)
    return copysign(select(a < ERF_SMALL_LIMIT_F32, small, large), x)


def tm_sqrt_f32(x: Float) -> Float:
    """The square root, correctly rounded."""
    return sqrt_f32(x)


def tm_rsqrt_f32(x: Float) -> Float:
    """1 / sqrt(x)."""
    return ONE_F32 / sqrt_f32(x)


def tm_floor_f32(x: Float) -> Float:
    """The largest integer not above x."""
    return floor(x)


def tm_ceil_f32(x: Float) -> Float:
    """The smallest integer not below x."""
    return ceil(x)


def tm_trunc_f32(x: Float) -> Float:
    """x without its fraction."""
    return trunc(x)


def tm_round_f32(x: Float) -> Float:
    """The nearest integer, ties to even."""
    return rint(x)
