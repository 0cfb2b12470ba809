"""The float64 functions of the exponential family, and the logarithm: exp, exp2, expm1, log*, sinh, cosh,
tanh, sigmoid, pow.

All but exp and log come from `exp_pair` and `log_pair`, which carry about 60 and 64 bits, so that a function
that adds, divides or multiplies afterwards still ends within one ULP. All are branch-free.
"""

from __future__ import annotations

from .coefficients import (
    EXP2_F64,
    EXP2_F64_TAILS,
    EXP_CUBIC_F64,
    EXP_F64,
    LOG_F64,
    LOG_FIFTH_F64,
    SINH_F64,
    TANH_F64,
)
from .pairs import fast_two_sum, pair_divide, pair_multiply, two_product, two_sum
from .primitives import (
    Float,
    Integer,
    bits_f64,
    ceil,
    copysign,
    f64_bits,
    floor,
    horner,
    rint,
    select,
    sqrt_f64,
    trunc,
)
from .widened import (
    INFINITY_F64,
    LOG2_E_F64,
    LOG10_E_F64,
    NAN_F64,
    ROOT_HALF_BITS_F64,
    ROUND_BITS_F64,
    ROUND_F64,
)

# ln 2 in three parts; the first two have 41 bits, so that their products with an exponent are exact.
LN2_1_F64 = 0.693147180559663
LN2_2_F64 = 2.8235290563014906e-13
LN2_3_F64 = 1.667085920830552e-25
LN2_23_F64 = 2.8235290563031577e-13
LOG2_E_LOW_F64 = 2.0355273740931033e-17
LOG10_E_LOW_F64 = 1.098319650216765e-17
LOG10_2_1_F64 = 0.30102999566395283
LOG10_2_2_F64 = 2.8363394551044964e-14
TWO_THIRDS_F64 = 0.6666666666666666
TWO_THIRDS_LOW_F64 = 3.700743415417188e-17
MIN_NORMAL_F64 = 2.0**-1022
EXP_MAX_F64 = 710.0
EXP_MIN_F64 = -746.0


def clamp_f64(x: Float, low: Float, high: Float) -> Float:
    """x kept within [low, high]; NaN stays NaN."""
    above = select(x > high, high, x)
    return select(above < low, low, above)


def scale_f64(x: Float, exponent: Integer) -> Float:
    """x * 2**exponent for |exponent| up to 2000, in two steps of which at most the last rounds."""
    first = exponent >> 1
    second = exponent - first
    return (x * bits_f64((first + 1023) << 52)) * bits_f64((second + 1023) << 52)


def exp_parts_pair(x: Float, x_low: Float) -> tuple[Float, Float, Integer]:
    """(e, e_low, n) with exp(x + x_low) = (1 + e + e_low) * 2**n; |x| < 1500 or NaN, |x_low| tiny.

    The low part holds the cubic and higher terms: it is not below the rounding error of e.
    """
    shifted = x * LOG2_E_F64 + ROUND_F64
    k = shifted - ROUND_F64
    r, r_low = two_sum(x - k * LN2_1_F64, -k * LN2_2_F64)
    r, r_low = fast_two_sum(r, r_low + (x_low - k * LN2_3_F64))
    square, square_low = two_product(r, r)
    e, e_low = fast_two_sum(r, 0.5 * square)
    cubic = r * square * horner(r, EXP_CUBIC_F64)
    return e, e_low + ((0.5 * square_low + (r_low + r * r_low)) + cubic), f64_bits(shifted) - ROUND_BITS_F64


def exp_pair(x: Float, x_low: Float) -> tuple[Float, Float, Integer]:
    """(p, p_low, n) with exp(x + x_low) = (p + p_low) * 2**n, to about 2**-60; |x| < 1500 or NaN."""
    e, e_low, n = exp_parts_pair(x, x_low)
    p, p_low = fast_two_sum(1.0, e)
    p, p_low = fast_two_sum(p, p_low + e_low)
    return p, p_low, n


def log_pair(x: Float, x_low: Float, exponent: Float) -> tuple[Float, Float]:
    """log((x + x_low) * 2**exponent) as a pair, to about 2**-64 of it even next to 1.

    x is positive, normal and finite; the exponent is a whole float. With s = f / (2 + f): log(1 + f) = 2s +
    2/3 s**3 + ...
    """
    n = (f64_bits(x) - ROOT_HALF_BITS_F64) >> 52
    k = (bits_f64(n + ROUND_BITS_F64) - ROUND_F64) + exponent
    m = bits_f64(f64_bits(x) - (n << 52))
    f, f_low = two_sum(m - 1.0, (0.5 * x_low) * bits_f64((1024 - n) << 52))
    d, d_low = fast_two_sum(2.0, f)
    s, s_low = pair_divide(f, f_low, d, d_low + f_low)
    square, square_low = two_product(s, s)
    square_low += 2.0 * s * s_low
    cube, cube_low = pair_multiply(square, square_low, s, s_low)
    cube, cube_low = pair_multiply(cube, cube_low, TWO_THIRDS_F64, TWO_THIRDS_LOW_F64)
    tail = square * square * s * horner(square, LOG_FIFTH_F64)
    high, low = two_sum(k * LN2_1_F64, 2.0 * s)
    high, middle = two_sum(high, cube)
    low = (low + middle) + ((k * LN2_23_F64 + 2.0 * s_low) + (cube_low + tail))
    return fast_two_sum(high, low)


def exp_parts_f64(x: Float) -> tuple[Float, Integer]:
    """(p, n) with exp(x) = p * 2**n, p within one ULP; |x| < 1500 or NaN."""
    shifted = x * LOG2_E_F64 + ROUND_F64
    k = shifted - ROUND_F64
    r = (x - k * LN2_1_F64) - k * LN2_23_F64
    return 1.0 + (r + r * r * horner(r, EXP_F64)), f64_bits(shifted) - ROUND_BITS_F64


def tm_exp_f64(x: Float) -> Float:
    """e**x."""
    p, n = exp_parts_f64(clamp_f64(x, EXP_MIN_F64, EXP_MAX_F64))
    return scale_f64(p, n)


def tm_exp2_f64(x: Float) -> Float:
    """2**x."""
    x = clamp_f64(x, -1077.0, 1025.0)
    shifted = x + ROUND_F64
    r = x - (shifted - ROUND_F64)
    p = 1.0 + (r * horner(r, EXP2_F64) + r * EXP2_F64_TAILS[0])
    return scale_f64(p, f64_bits(shifted) - ROUND_BITS_F64)


def tm_expm1_f64(x: Float) -> Float:
    """e**x - 1."""
    e, e_low, n = exp_parts_pair(clamp_f64(x, -50.0, EXP_MAX_F64), 0.0)
    # Halved, so that 2**1024 is representable.
    half = bits_f64((n + 1022) << 52)
    base, base_low = two_sum(half, -0.5)
    high, low = two_sum(base, half * e)
    result = 2.0 * (high + (low + (base_low + half * e_low)))
    return select(abs(x) < 2.0**-54, x, result)


def tm_log_f64(x: Float) -> Float:
    """The natural logarithm."""
    subnormal = x < MIN_NORMAL_F64
    bits = f64_bits(select(subnormal, x * 2.0**54, x))
    n = (bits - ROOT_HALF_BITS_F64) >> 52
    k = (bits_f64(n + ROUND_BITS_F64) - ROUND_F64) - select(subnormal, 54.0, 0.0)
    f = bits_f64(bits - (n << 52)) - 1.0
    s = f / (2.0 + f)
    square = s * s
    # log(1 + f) = f - (f**2/2 - s * (f**2/2 + ...)), in which the dominant terms are exact or small.
    half = 0.5 * f * f
    inner = s * (half + square * horner(square, LOG_F64)) + k * LN2_23_F64
    result = k * LN2_1_F64 - ((half - inner) - f)
    result = select(x < INFINITY_F64, result, x)
    return select(x > 0.0, result, select(x == 0.0, -INFINITY_F64, NAN_F64))


def log_scaled(x: Float) -> tuple[Float, Float]:
    """log(x) as a pair for every positive finite x."""
    subnormal = x < MIN_NORMAL_F64
    return log_pair(select(subnormal, x * 2.0**54, x), 0.0, select(subnormal, -54.0, 0.0))


def finish_log_f64(result: Float, x: Float) -> Float:
    """`result` with the special values of a logarithm of x."""
    result = select(x < INFINITY_F64, result, x)
    return select(x > 0.0, result, select(x == 0.0, -INFINITY_F64, NAN_F64))


def tm_log2_f64(x: Float) -> Float:
    """The logarithm to base 2."""
    high, low = log_scaled(x)
    high, low = pair_multiply(high, low, LOG2_E_F64, LOG2_E_LOW_F64)
    return finish_log_f64(high + low, x)


def tm_log10_f64(x: Float) -> Float:
    """The logarithm to base 10."""
    high, low = log_scaled(x)
    high, low = pair_multiply(high, low, LOG10_E_F64, LOG10_E_LOW_F64)
    return finish_log_f64(high + low, x)


def tm_log1p_f64(x: Float) -> Float:
    """log(1 + x)."""
    inside = (x > -1.0) & (x < INFINITY_F64)
    one, low = two_sum(1.0, select(inside, x, 0.0))
    high, low = log_pair(one, low, 0.0)
    result = select(x > -1.0, select(inside, high + low, x), select(x == -1.0, -INFINITY_F64, NAN_F64))
    return select(abs(x) < 2.0**-54, x, result)


def tm_sigmoid_f64(x: Float) -> Float:
    """1 / (1 + e**-x)."""
    negative = x < 0.0
    p, p_low, n = exp_pair(-clamp_f64(abs(x), 0.0, 746.0), 0.0)
    # e**-|x| = (p + p_low) * 2**n; below 2**-200 it is negligible next to 1.
    m = select(n < -200, -200, n)
    unit = bits_f64((m + 1023) << 52)
    denominator, low = fast_two_sum(1.0, p * unit)
    quotient, low = pair_divide(
        select(negative, p, 1.0), select(negative, p_low, 0.0), denominator, low + p_low * unit
    )
    return scale_f64(quotient + low, select(negative, n, 0))


def tm_tanh_f64(x: Float) -> Float:
    """The hyperbolic tangent."""
    a = abs(x)
    square = a * a
    small = a + a * square * horner(square, TANH_F64)
    a = select(a > 22.0, 22.0, a)
    p, p_low, n = exp_pair(a + a, 0.0)
    unit = bits_f64((n + 1023) << 52)
    denominator, low = two_sum(p * unit, 1.0)
    quotient, low = pair_divide(2.0, 0.0, denominator, low + p_low * unit)
    high, rest = fast_two_sum(1.0, -quotient)
    return copysign(select(a < 0.35, small, high + (rest - low)), x)


def exp_halves(a: Float) -> tuple[Float, Float, Float, Float, Integer]:
    """(p, p_low, q, q_low, n) with exp(a), exp(-a) = (p + p_low, q + q_low) * 2**n; a >= 0 or NaN."""
    p, p_low, n = exp_pair(select(a > 712.0, 712.0, a), 0.0)
    q, q_low = pair_divide(1.0, 0.0, p, p_low)
    # Far below 2**-200 the second is negligible.
    unit = bits_f64((select(n > 100, -200, -2 * n) + 1023) << 52)
    return p, p_low, q * unit, q_low * unit, n


def tm_sinh_f64(x: Float) -> Float:
    """The hyperbolic sine."""
    a = abs(x)
    square = select(a < 0.35, a * a, 0.0)
    small = a + a * square * horner(square, SINH_F64)
    p, p_low, q, q_low, n = exp_halves(a)
    high, low = two_sum(p, -q)
    return copysign(select(a < 0.35, small, scale_f64(high + (low + (p_low - q_low)), n - 1)), x)


def tm_cosh_f64(x: Float) -> Float:
    """The hyperbolic cosine."""
    p, p_low, q, q_low, n = exp_halves(abs(x))
    high, low = two_sum(p, q)
    return scale_f64(high + (low + (p_low + q_low)), n - 1)


def tm_pow_f64(x: Float, y: Float) -> Float:
    """x**y, with the special cases of IEEE 754's pow."""
    a = abs(x)
    ordinary = (a > 0.0) & (a < INFINITY_F64)
    high, low = log_scaled(select(ordinary, a, 1.0))
    # Beyond 2**64 every power but that of 1 overflows or vanishes; Dekker's product wants a bounded factor.
    factor = clamp_f64(y, -(2.0**64), 2.0**64)
    factor = select(abs(factor) < 2.0**-200, 0.0, factor)
    exponent, rest = two_product(factor, high)
    rest += factor * low
    too_big = abs(exponent) > 800.0
    exponent = clamp_f64(exponent, -800.0, 800.0)
    p, p_low, n = exp_pair(exponent, select(too_big, 0.0, rest))
    value = scale_f64(p + p_low, n)
    grows = (a > 1.0) == (y > 0.0)
    value = select(ordinary, value, select(grows, INFINITY_F64, 0.0))
    whole = rint(y) == y
    half = y * 0.5
    odd = whole & (rint(half) != half)
    value = select(odd & (f64_bits(x) < 0), -value, value)
    value = select((x < 0.0) & ordinary & (whole == False), NAN_F64, value)  # noqa: E712
    value = select((x != x) | (y != y), x + y, value)
    return select((y == 0.0) | (x == 1.0), 1.0, value)


def tm_sqrt_f64(x: Float) -> Float:
    """The square root, correctly rounded."""
    return sqrt_f64(x)


def tm_rsqrt_f64(x: Float) -> Float:
    """1 / sqrt(x)."""
    return 1.0 / sqrt_f64(x)


def tm_floor_f64(x: Float) -> Float:
    """The largest integer not above x."""
    return floor(x)


def tm_ceil_f64(x: Float) -> Float:
    """The smallest integer not below x."""
    return ceil(x)


def tm_trunc_f64(x: Float) -> Float:
    """x without its fraction."""
    return trunc(x)


def tm_round_f64(x: Float) -> Float:
    """The nearest integer, ties to even."""
    return rint(x)
