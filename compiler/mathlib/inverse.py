"""The float64 inverse functions: asin, acos, atan, atan2, asinh, acosh, atanh. All are branch-free."""

from __future__ import annotations

from .coefficients import ASIN_F64, ATAN_F64
from .double import log_pair
from .pairs import fast_two_sum, pair_divide, two_product, two_sum
from .primitives import Float, bits_f64, copysign, f64_bits, horner, select, sqrt_f64
from .trigonometry import HALF_PI_LOW_F64
from .widened import HALF_PI_F64, INFINITY_F64, NAN_F64, PI_F64

PI_LOW_F64 = 1.2246467991473532e-16
QUARTER_PI_F64 = 0.7853981633974483
QUARTER_PI_LOW_F64 = 3.061616997868383e-17
TAN_EIGHTH_PI_F64 = 0.4142135623730951


def sqrt_pair(x: Float, x_low: Float) -> tuple[Float, Float]:
    """The square root of a pair, 0 included; x below 2**490."""
    s = sqrt_f64(x)
    p, e = two_product(s, s)
    positive = s > 0.0
    return s, select(positive, (((x - p) - e) + x_low) / select(positive, s + s, 1.0), 0.0)


def arc_parts(x: Float) -> tuple[Float, Float]:
    """(s, s_low): asin(x) for |x| <= 1/2, acos(|x|) / 2 for |x| > 1/2; NaN beyond 1."""
    a = abs(x)
    far = a > 0.5
    square = select(far, (1.0 - a) * 0.5, x * x)
    root, root_low = sqrt_pair(square, 0.0)
    base = select(far, root, x)
    return base, base * square * horner(square, ASIN_F64) + select(far, root_low, 0.0)


def tm_asin_f64(x: Float) -> Float:
    """The inverse sine."""
    s, s_low = arc_parts(x)
    high, low = fast_two_sum(HALF_PI_F64, -2.0 * s)
    far = high + (low + (HALF_PI_LOW_F64 - 2.0 * s_low))
    result = select(abs(x) > 0.5, copysign(far, x), s + s_low)
    return select(abs(x) < 2.0**-27, x, result)


def tm_acos_f64(x: Float) -> Float:
    """The inverse cosine."""
    s, s_low = arc_parts(x)
    # pi/2 - asin(x), 2 s or pi - 2 s.
    far = abs(x) > 0.5
    base = select(far, select(x < 0.0, PI_F64, 0.0), HALF_PI_F64)
    base_low = select(far, select(x < 0.0, PI_LOW_F64, 0.0), HALF_PI_LOW_F64)
    factor = select(far, select(x < 0.0, -2.0, 2.0), -1.0)
    high, low = two_sum(base, factor * s)
    result = high + (low + (base_low + factor * s_low))
    return select(abs(x) <= 1.0, result, NAN_F64)


def arctangent(low: Float, high: Float) -> tuple[Float, Float]:
    """atan(low / high) as a pair, for 0 <= low <= high with high in [1, 2)."""
    steep = low > TAN_EIGHTH_PI_F64 * high
    # atan(t) = pi/4 + atan((t - 1) / (t + 1)).
    difference, difference_low = two_sum(low, -high)
    total, total_low = two_sum(low, high)
    u, u_low = pair_divide(
        select(steep, difference, low), select(steep, difference_low, 0.0),
        select(steep, total, high), select(steep, total_low, 0.0),
    )  # fmt: skip
    square = u * u
    tail = u_low + u * square * horner(square, ATAN_F64)
    result, rest = fast_two_sum(select(steep, QUARTER_PI_F64, 0.0), u)
    return result, rest + (tail + select(steep, QUARTER_PI_LOW_F64, 0.0))


def tm_atan_f64(x: Float) -> Float:
    """The inverse tangent."""
    a = abs(x)
    far = a > 1.0
    # Beyond 2**60 the result is pi/2 rounded; the bound keeps the scaling exact.
    b = select(a > 2.0**60, 2.0**60, a)
    unit = bits_f64((2046 << 52) - (f64_bits(select(far, b, 1.0)) & 0x7FF0000000000000))
    value, rest = arctangent(select(far, unit, b), select(far, b * unit, 1.0))
    high, low = two_sum(select(far, HALF_PI_F64, 0.0), select(far, -value, value))
    result = high + (low + select(far, HALF_PI_LOW_F64 - rest, rest))
    return select(a < 2.0**-27, x, copysign(result, x))


def tm_atan2_f64(y: Float, x: Float) -> Float:
    """The angle of the point (x, y)."""
    b, a = abs(y), abs(x)
    steep = b > a
    low, high = select(steep, a, b), select(steep, b, a)
    both_infinite = (low == high) & (high == INFINITY_F64)
    low, high = select(both_infinite, 1.0, low), select(both_infinite, 1.0, high)
    zero = high == 0.0
    one_infinite = high == INFINITY_F64
    low, high = select(zero | one_infinite, 0.0, low), select(zero | one_infinite, 1.0, high)
    # Both scaled so that the larger lies in [1, 2), in two steps: subnormal numbers need 2**1074.
    small = high < 2.0**-900
    low, high = select(small, low * 2.0**900, low), select(small, high * 2.0**900, high)
    large = high >= 2.0**1000
    low, high = select(large, low * 2.0**-100, low), select(large, high * 2.0**-100, high)
    unit = bits_f64((2046 << 52) - (f64_bits(high) & 0x7FF0000000000000))
    quotient = low / high
    value, rest = arctangent(low * unit, high * unit)
    # A quotient this small is its own arctangent; its rounding errors no longer have floats of their own.
    tiny = quotient < 2.0**-60
    value, rest = select(tiny, quotient, value), select(tiny, 0.0, rest)
    # The angle is value, pi/2 - value, pi - value or pi/2 + value.
    left = f64_bits(x) < 0
    base = select(steep, HALF_PI_F64, select(left, PI_F64, 0.0))
    base_low = select(steep, HALF_PI_LOW_F64, select(left, PI_LOW_F64, 0.0))
    minus = steep != left
    total, total_low = two_sum(base, select(minus, -value, value))
    result = total + (total_low + (base_low + select(minus, -rest, rest)))
    result = select((x != x) | (y != y), x + y, result)
    return copysign(result, y)


def tm_asinh_f64(x: Float) -> Float:
    """The inverse hyperbolic sine: log(|x| + sqrt(x**2 + 1))."""
    a = abs(x)
    huge = a > 2.0**30
    b = select(huge, 1.0, a)
    p, e = two_product(b, b)
    t, t_low = two_sum(p, 1.0)
    root, root_low = sqrt_pair(t, t_low + e)
    total, total_low = two_sum(root, b)
    total, total_low = fast_two_sum(total, total_low + root_low)
    finite = a < INFINITY_F64
    total = select(huge, select(finite, a, 1.0), total)
    high, low = log_pair(total, select(huge, 0.0, total_low), select(huge, 1.0, 0.0))
    result = select(finite, high + low, a)
    # |x| - |x|**3 / 6 where the sum above loses x.
    return copysign(select(a < 2.0**-28, a - a * (a * a) * 0.16666666666666666, result), x)


def tm_acosh_f64(x: Float) -> Float:
    """The inverse hyperbolic cosine: log(x + sqrt(x**2 - 1))."""
    huge = x > 2.0**30
    inside = x >= 1.0
    b = select(huge, 1.0, select(inside, x, 1.0))
    p, e = two_product(b, b)
    t, t_low = two_sum(p - 1.0, e)
    root, root_low = sqrt_pair(t, t_low)
    total, total_low = two_sum(b, root)
    total, total_low = fast_two_sum(total, total_low + root_low)
    finite = x < INFINITY_F64
    total = select(huge, select(finite, x, 1.0), total)
    high, low = log_pair(total, select(huge, 0.0, total_low), select(huge, 1.0, 0.0))
    return select(inside, select(finite, high + low, x), NAN_F64)


def tm_atanh_f64(x: Float) -> Float:
    """The inverse hyperbolic tangent: log((1 + x) / (1 - x)) / 2."""
    a = abs(x)
    inside = a < 1.0
    b = select(inside, a, 0.0)
    above, above_low = fast_two_sum(1.0, b)
    below, below_low = fast_two_sum(1.0, -b)
    ratio, ratio_low = pair_divide(above, above_low, below, below_low)
    ratio, ratio_low = fast_two_sum(ratio, ratio_low)
    high, low = log_pair(ratio, ratio_low, 0.0)
    result = select(inside, 0.5 * (high + low), select(a == 1.0, INFINITY_F64, NAN_F64))
    return select(a < 2.0**-28, x + x * (x * x) * 0.3333333333333333, copysign(result, x))
