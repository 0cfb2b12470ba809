"""The float32 functions that compute in float64, where that is the short way to the accuracy.

They need about 2**-30 of relative accuracy only, so their polynomials are half as long as those of the
float64 functions, and the last conversion rounds correctly into the subnormal range. All are branch-free and
vectorise at float64's width.
"""

from __future__ import annotations

import numpy as np

from .coefficients import (
    ASIN_MEDIUM,
    ATAN_MEDIUM,
    COS_F32,
    COS_MEDIUM,
    ERFC_MEDIUM,
    ERFINV_MEDIUM_FAR,
    ERFINV_MEDIUM_NEAR,
    EXP_MEDIUM,
    LOG_MEDIUM,
    SIN_F32,
    SIN_MEDIUM,
)
from .primitives import (
    Float,
    Integer,
    bits_f32,
    bits_f64,
    copysign,
    f32_bits,
    f64_bits,
    horner,
    rint,
    select,
    sqrt_f64,
)
from .single import HALF_F32, ONE_F32

# Adding 1.5 * 2**52 rounds to an integer, which the low bits of the sum then hold.
ROUND_F64 = 1.5 * 2.0**52
ROUND_BITS_F64 = 0x4338000000000000
# The bits of sqrt(1/2).
ROOT_HALF_BITS_F64 = 0x3FE6A09E667F3BCD
INFINITY_F64 = float(np.inf)
NAN_F64 = float(np.nan)
LN2_F64 = 0.6931471805599453
LOG2_E_F64 = 1.4426950408889634
LOG10_E_F64 = 0.4342944819032518
LOG10_2_F64 = 0.3010299956639812
PI_F64 = 3.141592653589793
HALF_PI_F64 = 1.5707963267948966
TINY_ANGLE_F32 = np.float32(2.0**-13)


def exp_medium(x: Float) -> tuple[Float, Float]:
    """(e, t) with exp(x) = t + t * e and t a power of two; |x| < 700 or NaN."""
    shifted = x * LOG2_E_F64 + ROUND_F64
    r = x - (shifted - ROUND_F64) * LN2_F64
    return r + r * r * horner(r, EXP_MEDIUM), bits_f64((f64_bits(shifted) + 1023) << 52)


def log_parts_medium(x: Float) -> tuple[Float, Float]:
    """(k, f) with x = 2**k * (1 + f) and 1 + f in [sqrt(1/2), sqrt(2)); x positive, normal, finite."""
    bits = f64_bits(x)
    n = (bits - ROOT_HALF_BITS_F64) >> 52
    # The exponent as a float by the rounding constant: few CPUs convert int64 vectors.
    return bits_f64(n + ROUND_BITS_F64) - ROUND_F64, bits_f64(bits - (n << 52)) - 1.0


def finish_log(result: Float, x: Float) -> Float:
    """`result` with the special values of a logarithm of x."""
    result = select(x < INFINITY_F64, result, x)
    return select(x > 0.0, result, select(x == 0.0, -INFINITY_F64, NAN_F64))


def log1p_medium(x: Float) -> Float:
    """log(1 + x) for finite x > -1."""
    k, f = log_parts_medium(1.0 + x)
    f = select(k == 0.0, x, f)
    return k * LN2_F64 + f * horner(f, LOG_MEDIUM)


def tm_expm1_f32(x: Float) -> Float:
    """e**x - 1."""
    d = np.float64(x)
    above = select(d > 90.0, 90.0, d)
    e, t = exp_medium(select(above < -40.0, -40.0, above))
    return select(x == np.float32(0.0), x, np.float32(t * e + (t - 1.0)))


def tm_log2_f32(x: Float) -> Float:
    """The logarithm to base 2."""
    d = np.float64(x)
    k, f = log_parts_medium(d)
    return np.float32(finish_log(k + f * LOG2_E_F64 * horner(f, LOG_MEDIUM), d))


def tm_log10_f32(x: Float) -> Float:
    """The logarithm to base 10."""
    d = np.float64(x)
    k, f = log_parts_medium(d)
    return np.float32(finish_log(k * LOG10_2_F64 + f * LOG10_E_F64 * horner(f, LOG_MEDIUM), d))


def tm_log1p_f32(x: Float) -> Float:
    """log(1 + x)."""
    d = np.float64(x)
    result = select(d < INFINITY_F64, log1p_medium(d), d)
    result = select(d > -1.0, result, select(d == -1.0, -INFINITY_F64, NAN_F64))
    return select(x == np.float32(0.0), x, np.float32(result))


def quadrant_f32(x: Float) -> tuple[Float, Integer]:
    """(r, n) with x = (n + r) * pi/2 modulo 2 pi, |r| <= 0.54, for every finite float32; NaN for the others.

    2/pi is cut at the bits that make multiples of 4 whatever x in its window; what follows is two parts of
    28 bits, whose products with the 24 bits of x are exact, and one of 53 bits for the rest.
    """
    d = np.float64(x)
    a = abs(d)
    above_50, above_76, above_102 = a >= 2.0**50, a >= 2.0**76, a >= 2.0**102
    c1 = select(above_50, 2.568255319523871e-08, 0.6366197690367699)
    c2 = select(above_50, 7.166494882838848e-17, 3.3308114738561656e-09)
    c3 = select(above_50, 2.8376220177865265e-25, 2.276010073078396e-18)
    c1 = select(above_76, 2.9370955292623917e-16, c1)
    c2 = select(above_76, 1.1109428103129918e-24, c2)
    c3 = select(above_76, 4.018688565460554e-33, c3)
    c1 = select(above_102, 6.074026479468182e-24, c1)
    c2 = select(above_102, 1.0181664348640722e-32, c2)
    c3 = select(above_102, 3.8858987075186823e-41, c3)
    p1 = d * c1
    t1 = p1 + ROUND_F64
    p2 = d * c2
    t2 = p2 + ROUND_F64
    s = (p1 - (t1 - ROUND_F64)) + (p2 - (t2 - ROUND_F64))
    t3 = s + ROUND_F64
    r = (s - (t3 - ROUND_F64)) + d * c3
    return r, (f64_bits(t1) & 3) + (f64_bits(t2) & 3) + (f64_bits(t3) & 3)


def sin_cos_f32(r: Float) -> tuple[Float, Float]:
    """Sine and cosine of r quadrants (float64, |r| <= 0.54), as float32, computed in float32."""
    angle = r * HALF_PI_F64
    high = np.float32(angle)
    low = np.float32(angle - np.float64(high))
    square = high * high
    sine = high + (high * square * horner(square, SIN_F32) + low)
    half = HALF_F32 * square
    cosine = ONE_F32 - half
    return sine, cosine + (
        ((ONE_F32 - cosine) - half) + (square * square * horner(square, COS_F32) - high * low)
    )


def tm_sin_f32(x: Float) -> Float:
    """The sine, of any finite angle."""
    r, n = quadrant_f32(x)
    sine, cosine = sin_cos_f32(r)
    value = select((n & 1) == 0, sine, cosine)
    result = bits_f32(f32_bits(value) ^ (np.int32(n & 2) << 30))
    return select(abs(x) < TINY_ANGLE_F32, x, result)


def tm_cos_f32(x: Float) -> Float:
    """The cosine, of any finite angle."""
    r, n = quadrant_f32(x)
    sine, cosine = sin_cos_f32(r)
    value = select((n & 1) == 0, cosine, sine)
    return bits_f32(f32_bits(value) ^ (np.int32((n + 1) & 2) << 30))


def tm_tan_f32(x: Float) -> Float:
    """The tangent, of any finite angle."""
    r, n = quadrant_f32(x)
    angle = r * HALF_PI_F64
    square = angle * angle
    sine = angle + angle * square * horner(square, SIN_MEDIUM)
    cosine = 1.0 + square * (square * horner(square, COS_MEDIUM) - 0.5)
    even = (n & 1) == 0
    result = np.float32(select(even, sine, -cosine) / select(even, cosine, sine))
    return select(abs(x) < TINY_ANGLE_F32, x, result)


def arc_parts_medium(x: Float) -> tuple[Float, Float]:
    """(asin(x) for |x| <= 1/2, acos(|x|) for |x| > 1/2); NaN beyond 1. The other is garbage."""
    a = abs(x)
    far = a > 0.5
    square = select(far, (1.0 - a) * 0.5, x * x)
    base = select(far, sqrt_f64(square), x)
    result = base + base * square * horner(square, ASIN_MEDIUM)
    return result, result + result


def tm_asin_f32(x: Float) -> Float:
    """The inverse sine."""
    d = np.float64(x)
    near, far = arc_parts_medium(d)
    result = np.float32(select(abs(d) > 0.5, copysign(HALF_PI_F64 - far, d), near))
    return select(x == np.float32(0.0), x, result)


def tm_acos_f32(x: Float) -> Float:
    """The inverse cosine."""
    d = np.float64(x)
    near, far = arc_parts_medium(d)
    far = select(d < 0.0, PI_F64 - far, far)
    return np.float32(select(abs(d) > 0.5, far, HALF_PI_F64 - near))


def tm_atan_f32(x: Float) -> Float:
    """The inverse tangent."""
    d = np.float64(x)
    a = abs(d)
    far = a > 1.0
    t = select(far, 1.0, a) / select(far, a, 1.0)
    value = t * horner(t * t, ATAN_MEDIUM)
    return copysign(np.float32(select(far, HALF_PI_F64 - value, value)), x)


def tm_atan2_f32(y: Float, x: Float) -> Float:
    """The angle of the point (x, y)."""
    dy, dx = np.float64(y), np.float64(x)
    b, a = abs(dy), abs(dx)
    steep = b > a
    low, high = select(steep, a, b), select(steep, b, a)
    # 0/0 is 0 here, infinity/infinity 1.
    t = low / select(high == 0.0, 1.0, high)
    ratio = select((low == high) & (high > 0.0), 1.0, t)
    value = ratio * horner(ratio * ratio, ATAN_MEDIUM)
    value = select(steep, HALF_PI_F64 - value, value)
    value = select(f64_bits(dx) < 0, PI_F64 - value, value)
    value = select((dx != dx) | (dy != dy), dx + dy, value)
    return copysign(np.float32(value), y)


def tm_sinh_f32(x: Float) -> Float:
    """The hyperbolic sine."""
    a = abs(np.float64(x))
    e, t = exp_medium(select(a > 100.0, 100.0, a))
    e = t * e + (t - 1.0)
    return copysign(np.float32(0.5 * (e + e / (e + 1.0))), x)


def tm_cosh_f32(x: Float) -> Float:
    """The hyperbolic cosine."""
    a = abs(np.float64(x))
    e, t = exp_medium(select(a > 100.0, 100.0, a))
    e = t * e + t
    return np.float32(0.5 * (e + 1.0 / e))


def tm_asinh_f32(x: Float) -> Float:
    """The inverse hyperbolic sine."""
    a = abs(np.float64(x))
    square = a * a
    value = log1p_medium(a + square / (1.0 + sqrt_f64(1.0 + square)))
    return copysign(np.float32(select(a < INFINITY_F64, value, a)), x)


def tm_acosh_f32(x: Float) -> Float:
    """The inverse hyperbolic cosine."""
    d = np.float64(x)
    t = d - 1.0
    value = log1p_medium(t + sqrt_f64(t * (t + 2.0)))
    value = select(d < INFINITY_F64, value, d)
    return np.float32(select(d < 1.0, NAN_F64, value))


def tm_atanh_f32(x: Float) -> Float:
    """The inverse hyperbolic tangent."""
    a = abs(np.float64(x))
    inside = a < 1.0
    b = select(inside, a, 0.0)
    value = 0.5 * log1p_medium((b + b) / (1.0 - b))
    value = select(inside, value, select(a == 1.0, INFINITY_F64, NAN_F64))
    return copysign(np.float32(value), x)


def tm_erfc_f32(x: Float) -> Float:
    """1 - erf(x), without cancellation."""
    d = np.float64(x)
    size = abs(d)
    a = select(size > 11.0, 11.0, size)
    e, t = exp_medium(-a * a)
    value = (t * e + t) * horner((a - 3.0) / (a + 3.0), ERFC_MEDIUM) / (1.0 + (a + a))
    return np.float32(select(d < 0.0, 2.0 - value, value))


def tm_erfinv_f32(x: Float) -> Float:
    """The inverse of the error function."""
    d = np.float64(x)
    a = abs(d)
    inside = a < 1.0
    b = select(inside, a, 0.0)
    k, f = log_parts_medium((1.0 - b) * (1.0 + b))
    w = -(k * LN2_F64 + f * horner(f, LOG_MEDIUM))
    near = horner(w - 2.5, ERFINV_MEDIUM_NEAR)
    # w may be rounded to just below 0.
    far = horner(sqrt_f64(abs(w)) - 3.0, ERFINV_MEDIUM_FAR)
    value = a * select(w < 5.0, near, far)
    value = select(inside, value, select(a == 1.0, INFINITY_F64, NAN_F64))
    return copysign(np.float32(value), x)


def tm_pow_f32(x: Float, y: Float) -> Float:
    """x**y, with the special cases of IEEE 754's pow."""
    dx, dy = np.float64(x), np.float64(y)
    a = abs(dx)
    k, f = log_parts_medium(a)
    log2 = k + f * LOG2_E_F64 * horner(f, LOG_MEDIUM)
    log2 = select(a < INFINITY_F64, log2, a)
    log2 = select(a == 0.0, -INFINITY_F64, log2)
    exponent = dy * log2
    exponent = select((a == 1.0) & (abs(dy) == INFINITY_F64), 0.0, exponent)
    exponent = select(exponent > 200.0, 200.0, exponent)
    exponent = select(exponent < -200.0, -200.0, exponent)
    shifted = exponent + ROUND_F64
    r = (exponent - (shifted - ROUND_F64)) * LN2_F64
    value = r + r * r * horner(r, EXP_MEDIUM)
    unit = bits_f64((f64_bits(shifted) + 1023) << 52)
    value = unit * value + unit
    whole = rint(dy) == dy
    half = dy * 0.5
    odd = whole & (rint(half) != half)
    value = select(odd & (f64_bits(dx) < 0), -value, value)
    value = select((dx < 0.0) & (a < INFINITY_F64) & (whole == False), NAN_F64, value)  # noqa: E712
    return np.float32(select((dy == 0.0) | (dx == 1.0), 1.0, value))
