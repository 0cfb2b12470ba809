"""The float64 special functions: erf, erfc, erfinv (branch-free), lgamma and digamma (scalar, for both
dtypes).
"""

from __future__ import annotations

import numpy as np

from .coefficients import (
    DIGAMMA_ROOT_F64,
    DIGAMMA_ROOT_F64_TAILS,
    ERF_F64,
    ERFC_F64,
    ERFC_F64_TAILS,
    ERFINV_FAR_F64,
    ERFINV_FAR_F64_TAILS,
    ERFINV_MIDDLE_F64,
    ERFINV_MIDDLE_F64_TAILS,
    ERFINV_NEAR_F64,
    ERFINV_NEAR_F64_TAILS,
    LGAMMA_ONE_F64,
    LGAMMA_ONE_F64_TAILS,
    LGAMMA_TWO_F64,
    LGAMMA_TWO_F64_TAILS,
)
from .double import exp_pair, exp_parts_f64, log_pair, log_scaled, scale_f64
from .inverse import PI_LOW_F64, sqrt_pair
from .pairs import (
    fast_two_sum,
    pair_add,
    pair_divide,
    pair_horner_step,
    pair_multiply,
    two_product,
    two_sum,
)
from .primitives import Float, bits_f64, copysign, horner, rint, select
from .trigonometry import cos_pair, sin_pair
from .widened import INFINITY_F64, NAN_F64, PI_F64

# The upper coefficients of polynomials whose last steps are taken in pairs.
ERFC_UPPER_F64 = ERFC_F64[5:]
ERFINV_NEAR_UPPER_F64 = ERFINV_NEAR_F64[3:]
ERFINV_MIDDLE_UPPER_F64 = ERFINV_MIDDLE_F64[3:]
ERFINV_FAR_UPPER_F64 = ERFINV_FAR_F64[3:]
LGAMMA_ONE_UPPER_F64 = LGAMMA_ONE_F64[3:]
LGAMMA_TWO_UPPER_F64 = LGAMMA_TWO_F64[3:]
DIGAMMA_ROOT_UPPER_F64 = DIGAMMA_ROOT_F64[3:]
DIGAMMA_ROOT_HIGH_F64 = 1.4616321449683622
DIGAMMA_ROOT_LOW_F64 = 9.549995429965697e-17
HALF_LOG_TWO_PI_F64 = 0.9189385332046728
HALF_LOG_TWO_PI_LOW_F64 = -3.8782941580672414e-17
LOG_PI_F64 = 1.1447298858494002
LOG_PI_LOW_F64 = 1.0265951162707826e-17
# Bernoulli numbers over 2k (2k - 1) and over 2k: the series of Stirling and of its derivative.
STIRLING_F64 = (
    0.08333333333333333, -0.002777777777777778, 0.0007936507936507937, -0.0005952380952380953,
    0.0008417508417508417, -0.0019175269175269176, 0.00641025641025641, -0.029550653594771242,
    0.17964437236883057, -1.3924322169059011,
)  # fmt: skip
DIGAMMA_F64 = (
    0.08333333333333333, -0.008333333333333333, 0.003968253968253968, -0.004166666666666667,
    0.007575757575757576, -0.021092796092796094, 0.08333333333333333, -0.4432598039215686,
    3.0539543302701198, -26.456212121212122,
)  # fmt: skip


def tm_erf_f64(x: Float) -> Float:
    """The error function."""
    a = abs(x)
    square = a * a
    small = a + a * horner(square, ERF_F64)
    # 1 - erfc(a), which is at most 0.16 here.
    a = select(a > 6.0, 6.0, a)
    p, n = exp_parts_f64(-a * a)
    value = p * bits_f64((n + 1023) << 52)
    value = value * horner((a - 4.0) / (a + 4.0), ERFC_F64) / (1.0 + (a + a))
    return copysign(select(a < 1.0, small, 1.0 - value), x)


def tm_erfc_f64(x: Float) -> Float:
    """1 - erf(x), without cancellation."""
    a = abs(x)
    near = a < 0.5
    b = select(near, x, 0.0)
    high, low = two_sum(1.0, -b)
    small = high + (low - b * horner(b * b, ERF_F64))
    # exp(-a**2) * P(t) / (1 + 2a), t = (a - 4) / (a + 4), all in pairs.
    a = select(a > 28.0, 28.0, a)
    square, square_low = two_product(a, a)
    e, e_low, n = exp_pair(-square, -square_low)
    above, above_low = two_sum(a, -4.0)
    below, below_low = two_sum(a, 4.0)
    t, t_low = pair_divide(above, above_low, below, below_low)
    p, p_low = fast_two_sum(horner(t, ERFC_UPPER_F64), 0.0)
    p, p_low = pair_horner_step(t, t_low, p, p_low, ERFC_F64[4], ERFC_F64_TAILS[4])
    p, p_low = pair_horner_step(t, t_low, p, p_low, ERFC_F64[3], ERFC_F64_TAILS[3])
    p, p_low = pair_horner_step(t, t_low, p, p_low, ERFC_F64[2], ERFC_F64_TAILS[2])
    p, p_low = pair_horner_step(t, t_low, p, p_low, ERFC_F64[1], ERFC_F64_TAILS[1])
    p, p_low = pair_horner_step(t, t_low, p, p_low, ERFC_F64[0], ERFC_F64_TAILS[0])
    p, p_low = pair_multiply(p, p_low, e, e_low)
    base, base_low = two_sum(1.0, a + a)
    p, p_low = pair_divide(p, p_low, base, base_low)
    # 2 - erfc(-x) on the left; the scaling rounds once.
    far = scale_f64(p + p_low, n)
    high, low = fast_two_sum(2.0, -far)
    far = select(x < 0.0, high + (low - p_low * bits_f64((select(n < -200, -200, n) + 1023) << 52)), far)
    return select(near, small, far)


def tm_erfinv_f64(x: Float) -> Float:
    """The inverse of the error function."""
    a = abs(x)
    inside = a < 1.0
    b = select(inside, a, 0.0)
    below, below_low = fast_two_sum(1.0, -b)
    above, above_low = fast_two_sum(1.0, b)
    product, product_low = pair_multiply(below, below_low, above, above_low)
    w, w_low = log_pair(product, product_low, 0.0)
    w, w_low = -w, -w_low
    s, s_low = sqrt_pair(abs(w), w_low)
    near, far = w < 3.0, w > 11.0
    t, rest = two_sum(select(near, w, s), select(near, -1.5, select(far, -4.75, -2.5)))
    t, t_low = fast_two_sum(t, rest + select(near, w_low, s_low))
    p = select(far, horner(t, ERFINV_FAR_UPPER_F64), horner(t, ERFINV_MIDDLE_UPPER_F64))
    p, p_low = fast_two_sum(select(near, horner(t, ERFINV_NEAR_UPPER_F64), p), 0.0)
    c = select(near, ERFINV_NEAR_F64[2], select(far, ERFINV_FAR_F64[2], ERFINV_MIDDLE_F64[2]))
    d = select(
        near, ERFINV_NEAR_F64_TAILS[2], select(far, ERFINV_FAR_F64_TAILS[2], ERFINV_MIDDLE_F64_TAILS[2])
    )
    p, p_low = pair_horner_step(t, t_low, p, p_low, c, d)
    c = select(near, ERFINV_NEAR_F64[1], select(far, ERFINV_FAR_F64[1], ERFINV_MIDDLE_F64[1]))
    d = select(
        near, ERFINV_NEAR_F64_TAILS[1], select(far, ERFINV_FAR_F64_TAILS[1], ERFINV_MIDDLE_F64_TAILS[1])
    )
    p, p_low = pair_horner_step(t, t_low, p, p_low, c, d)
    c = select(near, ERFINV_NEAR_F64[0], select(far, ERFINV_FAR_F64[0], ERFINV_MIDDLE_F64[0]))
    d = select(
        near, ERFINV_NEAR_F64_TAILS[0], select(far, ERFINV_FAR_F64_TAILS[0], ERFINV_MIDDLE_F64_TAILS[0])
    )
    p, p_low = pair_horner_step(t, t_low, p, p_low, c, d)
    result = a * p + a * p_low
    return copysign(select(inside, result, select(a == 1.0, INFINITY_F64, NAN_F64)), x)


def sin_cos_pi(a: Float) -> tuple[Float, Float, Float, Float]:
    """|sin(pi a)| and |cos(pi a)| as pairs."""
    d = abs(a - rint(a))
    near = d <= 0.25
    e = select(near, d, 0.5 - d)
    r, r_low = pair_multiply(e, 0.0, PI_F64, PI_LOW_F64)
    sine, sine_low = sin_pair(r, r_low)
    sine, sine_low = fast_two_sum(sine, sine_low)
    cosine, cosine_low = cos_pair(r, r_low)
    cosine, cosine_low = fast_two_sum(cosine, cosine_low)
    return (
        select(near, sine, cosine), select(near, sine_low, cosine_low),
        select(near, cosine, sine), select(near, cosine_low, sine_low),
    )  # fmt: skip


def lgamma_one(t: Float) -> tuple[Float, Float]:
    """log(gamma(1 + t)) as a pair, -0.2 <= t <= 0.25."""
    p, p_low = fast_two_sum(horner(t, LGAMMA_ONE_UPPER_F64), 0.0)
    p, p_low = pair_horner_step(t, 0.0, p, p_low, LGAMMA_ONE_F64[2], LGAMMA_ONE_F64_TAILS[2])
    p, p_low = pair_horner_step(t, 0.0, p, p_low, LGAMMA_ONE_F64[1], LGAMMA_ONE_F64_TAILS[1])
    p, p_low = pair_horner_step(t, 0.0, p, p_low, LGAMMA_ONE_F64[0], LGAMMA_ONE_F64_TAILS[0])
    return pair_multiply(p, p_low, t, 0.0)


def lgamma_two(t: Float) -> tuple[Float, Float]:
    """log(gamma(2 + t)) as a pair, |t| <= 0.3."""
    p, p_low = fast_two_sum(horner(t, LGAMMA_TWO_UPPER_F64), 0.0)
    p, p_low = pair_horner_step(t, 0.0, p, p_low, LGAMMA_TWO_F64[2], LGAMMA_TWO_F64_TAILS[2])
    p, p_low = pair_horner_step(t, 0.0, p, p_low, LGAMMA_TWO_F64[1], LGAMMA_TWO_F64_TAILS[1])
    p, p_low = pair_horner_step(t, 0.0, p, p_low, LGAMMA_TWO_F64[0], LGAMMA_TWO_F64_TAILS[0])
    return pair_multiply(p, p_low, t, 0.0)


def lgamma_positive(a: Float) -> tuple[Float, Float]:
    """log(gamma(a)) as a pair, 2**-60 <= a <= 2**60: Stirling's series from 10 on, the recurrence before."""
    if abs(a - 1.0) <= 0.2:
        return lgamma_one(a - 1.0)
    if abs(a - 2.0) <= 0.3:
        return lgamma_two(a - 2.0)
    z, z_low = a, 0.0
    product, product_low = 1.0, 0.0
    while z < 10.0:
        product, product_low = pair_multiply(product, product_low, z, z_low)
        z, rest = two_sum(z, 1.0)
        z, z_low = fast_two_sum(z, rest + z_low)
    high, low = log_pair(z, z_low, 0.0)
    half, half_low = pair_add(z, z_low, -0.5, 0.0)
    high, low = pair_multiply(high, low, half, half_low)
    high, low = pair_add(high, low, -z, -z_low)
    high, low = pair_add(high, low, HALF_LOG_TWO_PI_F64, HALF_LOG_TWO_PI_LOW_F64)
    inverse = 1.0 / z
    high, low = pair_add(high, low, inverse * horner(inverse * inverse, STIRLING_F64), 0.0)
    log_high, log_low = log_pair(product, product_low, 0.0)
    return pair_add(high, low, -log_high, -log_low)


def tm_lgamma_f64(x: Float) -> Float:
    """log|gamma(x)|, infinite at 0 and the negative integers."""
    a = abs(x)
    if a < 2.0**-60:
        high, low = log_scaled(select(a > 0.0, a, 1.0))
        return select(a > 0.0, -(high + low), INFINITY_F64)
    if a > 2.0**60 or x != x:
        high, low = log_pair(select(a < INFINITY_F64, a, 1.0), 0.0, 0.0)
        high, rest = two_sum(high, -1.0)
        value = select(a < INFINITY_F64, a * high + a * (low + rest), a)
        return select(x > 0.0, value, select(x != x, x, INFINITY_F64))
    high, low = lgamma_positive(a)
    if x > 0.0:
        return high + low
    if a == rint(a):
        return select(a > 0.0, INFINITY_F64, x)
    # log(pi / (a sin(pi a))) - lgamma(a)
    sine, sine_low, _, _ = sin_cos_pi(a)
    sine, sine_low = pair_multiply(sine, sine_low, a, 0.0)
    log_high, log_low = log_pair(sine, sine_low, 0.0)
    high, low = pair_add(high, low, log_high, log_low)
    high, low = pair_add(LOG_PI_F64, LOG_PI_LOW_F64, -high, -low)
    return high + low


def digamma_root(a: Float) -> tuple[Float, Float]:
    """digamma(a) as a pair, |a - root| <= 0.19, the root in two parts: relative accuracy next to the zero."""
    t, t_low = fast_two_sum(a - DIGAMMA_ROOT_HIGH_F64, -DIGAMMA_ROOT_LOW_F64)
    p, p_low = fast_two_sum(horner(t, DIGAMMA_ROOT_UPPER_F64), 0.0)
    p, p_low = pair_horner_step(t, t_low, p, p_low, DIGAMMA_ROOT_F64[2], DIGAMMA_ROOT_F64_TAILS[2])
    p, p_low = pair_horner_step(t, t_low, p, p_low, DIGAMMA_ROOT_F64[1], DIGAMMA_ROOT_F64_TAILS[1])
    p, p_low = pair_horner_step(t, t_low, p, p_low, DIGAMMA_ROOT_F64[0], DIGAMMA_ROOT_F64_TAILS[0])
    return pair_multiply(p, p_low, t, t_low)


def digamma_positive(a: Float) -> tuple[Float, Float]:
    """digamma(a) as a pair, 2**-60 <= a: the asymptotic series from 12 on, the recurrence before."""
    if abs(a - DIGAMMA_ROOT_HIGH_F64) < 0.19:
        return digamma_root(a)
    z, z_low = a, 0.0
    high, low = 0.0, 0.0
    while z < 12.0:
        q, q_low = pair_divide(-1.0, 0.0, z, z_low)
        high, low = pair_add(high, low, q, q_low)
        z, rest = two_sum(z, 1.0)
        z, z_low = fast_two_sum(z, rest + z_low)
    log_high, log_low = log_scaled(z)
    inverse = 1.0 / z
    log_low += z_low * inverse
    high, low = pair_add(high, low, log_high, log_low)
    q, q_low = pair_divide(-0.5, 0.0, select(z < 2.0**400, z, 2.0**400), select(z < 2.0**400, z_low, 0.0))
    high, low = pair_add(high, low, q, q_low)
    square = inverse * inverse
    return pair_add(high, low, -square * horner(square, DIGAMMA_F64), 0.0)


def tm_digamma_f64(x: Float) -> Float:
    """The derivative of log(gamma(x)); NaN at the negative integers, -infinity at 0, infinity at -0."""
    a = abs(x)
    if a < 2.0**-60:
        return -1.0 / x
    if a == INFINITY_F64 or x != x:
        return select(x > 0.0, x, NAN_F64)
    if x < 0.0 and a == rint(a):
        return NAN_F64
    high, low = digamma_positive(a)
    if x > 0.0:
        return high + low
    # digamma(a) + 1/a + pi cot(pi a)
    sine, sine_low, cosine, cosine_low = sin_cos_pi(a)
    q, q_low = pair_divide(cosine, cosine_low, sine, sine_low)
    q, q_low = fast_two_sum(q, q_low)
    q, q_low = pair_multiply(q, q_low, PI_F64, PI_LOW_F64)
    # The cotangent is negative in the second half of each unit.
    sign = select(a > rint(a), 1.0, -1.0)
    high, low = pair_add(high, low, sign * q, sign * q_low)
    q, q_low = pair_divide(1.0, 0.0, a, 0.0)
    high, low = pair_add(high, low, q, q_low)
    return high + low


def tm_lgamma_f32(x: Float) -> Float:
    """log|gamma(x)|, infinite at 0 and the negative integers."""
    return np.float32(tm_lgamma_f64(np.float64(x)))


def tm_digamma_f32(x: Float) -> Float:
    """The derivative of log(gamma(x)); NaN at the negative integers, -infinity at 0, infinity at -0."""
    return np.float32(tm_digamma_f64(np.float64(x)))
