"""The float64 sine, cosine and tangent, with an exact reduction for every finite angle."""

from __future__ import annotations

import numpy as np

from .coefficients import COS_F64, SIN_F64
from .pairs import fast_two_sum, pair_divide, pair_multiply, two_sum
from .primitives import Float, Integer, f64_bits, horner, select
from .widened import HALF_PI_F64, ROUND_F64

TWO_OVER_PI_F64 = 0.6366197723675814
HALF_PI_LOW_F64 = 6.123233995736766e-17
# pi/2 in four parts; the first three have 33 bits: their products with a quadrant below 2**20 are exact.
HALF_PI_1_F64 = 1.5707963267341256
HALF_PI_2_F64 = 6.077100506303966e-11
HALF_PI_3_F64 = 2.0222662487111665e-21
HALF_PI_4_F64 = 8.4784276603689e-32
# 2/pi in limbs of 28 bits, after three zero limbs.
LIMB_MASK = 0xFFFFFFF
TWO_OVER_PI_LIMBS = np.array([
    0, 0, 0, 170891318, 240010261, 44024437, 131200308, 232525238, 43358524, 70845471, 240214955,
    233552982, 28779630, 61088989, 48236105, 49193117, 26352894, 31371723, 19507006, 243802975, 86948676,
    139368903, 2536543, 132387737, 30816643, 87269193, 210001803, 199201411, 186644631, 268296281,
    135261999, 18396576, 174923629, 57142514, 130746807, 83125238, 111042538, 47665787, 180874213,
    253211600, 121239434, 86584998, 201023409, 33084880, 139854640, 74434486, 195817679,
], dtype=np.int64)  # fmt: skip


def near_quadrant_f64(x: Float) -> tuple[Float, Float, Integer]:
    """(r, r_low, n) with x = r + r_low + n * pi/2 modulo 2 pi, |x| < 2**20: Cody and Waite's."""
    shifted = x * TWO_OVER_PI_F64 + ROUND_F64
    k = shifted - ROUND_F64
    r, low = two_sum(x - k * HALF_PI_1_F64, -k * HALF_PI_2_F64)
    r, rest = two_sum(r, -k * HALF_PI_3_F64)
    r, low = fast_two_sum(r, (low + rest) - k * HALF_PI_4_F64)
    return r, low, f64_bits(shifted) & 3


def far_quadrant_f64(x: Float) -> tuple[Float, Float, Integer]:
    """The same for 2**20 <= |x|, finite: Payne and Hanek's reduction in integers.

    |x| = A * 2**(28 q) with A of three limbs; the limbs of 2/pi that only make multiples of 4 are skipped,
    six limbs after the point are kept (140 bits without the last), which leaves 2**-78 of the closest that a
    float64 comes to a multiple of pi/2.
    """
    bits = f64_bits(x)
    exponent = ((bits >> 52) & 0x7FF) - 1075
    q = (exponent + 56) // 28 - 2
    s = exponent - 28 * q
    mantissa = (bits & 0xFFFFFFFFFFFFF) | 0x10000000000000
    # 53 bits shifted by s < 28, as limbs.
    low_part = (mantissa & LIMB_MASK) << s
    high_part = (mantissa >> 28) << s
    a0 = low_part & LIMB_MASK
    middle = (high_part & LIMB_MASK) + (low_part >> 28)
    a1 = middle & LIMB_MASK
    a2 = (high_part >> 28) + (middle >> 28)
    w0, w1, w2 = TWO_OVER_PI_LIMBS[q + 2], TWO_OVER_PI_LIMBS[q + 3], TWO_OVER_PI_LIMBS[q + 4]
    w3, w4, w5 = TWO_OVER_PI_LIMBS[q + 5], TWO_OVER_PI_LIMBS[q + 6], TWO_OVER_PI_LIMBS[q + 7]
    w6, w7, w8 = TWO_OVER_PI_LIMBS[q + 8], TWO_OVER_PI_LIMBS[q + 9], TWO_OVER_PI_LIMBS[q + 10]
    carry = (a0 * w6 + a1 * w7 + a2 * w8) >> 28
    d5 = (a0 * w5 + a1 * w6 + a2 * w7) + carry
    d4 = (a0 * w4 + a1 * w5 + a2 * w6) + (d5 >> 28)
    d3 = (a0 * w3 + a1 * w4 + a2 * w5) + (d4 >> 28)
    d2 = (a0 * w2 + a1 * w3 + a2 * w4) + (d3 >> 28)
    d1 = (a0 * w1 + a1 * w2 + a2 * w3) + (d2 >> 28)
    n = (a0 * w0 + a1 * w1 + a2 * w2) + (d1 >> 28)
    top = d1 & LIMB_MASK
    up = top >> 27
    n = (n + up) & 3
    f, low = two_sum(np.float64(top - (up << 28)) * 2.0**-28, np.float64(d2 & LIMB_MASK) * 2.0**-56)
    f, rest = two_sum(f, np.float64(d3 & LIMB_MASK) * 2.0**-84)
    low += rest
    f, rest = two_sum(f, np.float64(d4 & LIMB_MASK) * 2.0**-112)
    low += rest
    f, rest = two_sum(f, np.float64(d5 & LIMB_MASK) * 2.0**-140)
    f, low = fast_two_sum(f, low + rest)
    r, low = pair_multiply(f, low, HALF_PI_F64, HALF_PI_LOW_F64)
    negative = x < 0.0
    return select(negative, -r, r), select(negative, -low, low), select(negative, (4 - n) & 3, n)


def quadrant_f64(x: Float) -> tuple[Float, Float, Integer]:
    """(r, r_low, n) with x = r + r_low + n * pi/2 modulo 2 pi, |r| <= pi/4 and a little; NaN for NaN and
    infinities.
    """
    if abs(x) < 1048576.0:
        return near_quadrant_f64(x)
    r, low, n = far_quadrant_f64(x)
    return r + (x - x), low, n


def sin_pair(r: Float, r_low: Float) -> tuple[Float, Float]:
    """The sine of r + r_low, |r| <= pi/4, as r and a correction."""
    square = r * r
    return r, r * square * horner(square, SIN_F64) + (r_low - 0.5 * square * r_low)


def cos_pair(r: Float, r_low: Float) -> tuple[Float, Float]:
    """The cosine of r + r_low, |r| <= pi/4, as a float and a correction."""
    square = r * r
    half = 0.5 * square
    high = 1.0 - half
    return high, ((1.0 - high) - half) + (square * square * horner(square, COS_F64) - r * r_low)


def tm_sin_f64(x: Float) -> Float:
    """The sine, of any finite angle."""
    r, low, n = quadrant_f64(x)
    sine, sine_low = sin_pair(r, low)
    cosine, cosine_low = cos_pair(r, low)
    value = select((n & 1) == 0, sine + sine_low, cosine + cosine_low)
    return select(abs(x) < 2.0**-27, x, select((n & 2) == 0, value, -value))


def tm_cos_f64(x: Float) -> Float:
    """The cosine, of any finite angle."""
    r, low, n = quadrant_f64(x)
    sine, sine_low = sin_pair(r, low)
    cosine, cosine_low = cos_pair(r, low)
    value = select((n & 1) == 0, cosine + cosine_low, sine + sine_low)
    return select(((n + 1) & 2) == 0, value, -value)


def tm_tan_f64(x: Float) -> Float:
    """The tangent, of any finite angle."""
    r, low, n = quadrant_f64(x)
    sine, sine_low = sin_pair(r, low)
    sine, sine_low = fast_two_sum(sine, sine_low)
    cosine, cosine_low = cos_pair(r, low)
    cosine, cosine_low = fast_two_sum(cosine, cosine_low)
    even = (n & 1) == 0
    quotient, rest = pair_divide(
        select(even, sine, -cosine), select(even, sine_low, -cosine_low),
        select(even, cosine, sine), select(even, cosine_low, sine_low),
    )  # fmt: skip
    return select(abs(x) < 2.0**-27, x, quotient + rest)
