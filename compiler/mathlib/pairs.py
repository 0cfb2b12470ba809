"""Arithmetic on pairs of float64 (high + low, high rounded to nearest), about 105 bits, without FMA.

Knuth's and Dekker's error-free sums, Dekker's product with Veltkamp's splitting. Products stay exact for
factors between 2**-480 and 2**490 in magnitude; callers scale.
"""

from __future__ import annotations

from .primitives import Float

SPLITTER = 134217729.0


def two_sum(a: Float, b: Float) -> tuple[Float, Float]:
    """a + b exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def fast_two_sum(a: Float, b: Float) -> tuple[Float, Float]:
    """a + b exactly, where |a| >= |b| or a is 0."""
    s = a + b
    return s, b - (s - a)


def two_product(a: Float, b: Float) -> tuple[Float, Float]:
    """a * b exactly."""
    p = a * b
    c, d = a * SPLITTER, b * SPLITTER
    a_high, b_high = c - (c - a), d - (d - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def pair_add(a: Float, a_low: Float, b: Float, b_low: Float) -> tuple[Float, Float]:
    """The sum of two pairs."""
    s, e = two_sum(a, b)
    t, f = two_sum(a_low, b_low)
    s, e = fast_two_sum(s, e + t)
    return fast_two_sum(s, e + f)


def pair_multiply(a: Float, a_low: Float, b: Float, b_low: Float) -> tuple[Float, Float]:
    """The product of two pairs."""
    p, e = two_product(a, b)
    return fast_two_sum(p, e + (a * b_low + a_low * b))


def pair_divide(a: Float, a_low: Float, b: Float, b_low: Float) -> tuple[Float, Float]:
    """The quotient of two pairs (not renormalised: the low part is a correction of the high one)."""
    q = a / b
    p, e = two_product(q, b)
    return q, ((((a - p) - e) + a_low) - q * b_low) / b


def pair_horner_step(
    x: Float, x_low: Float, a: Float, a_low: Float, c: Float, c_low: Float
) -> tuple[Float, Float]:
    """(a * x + c) of pairs, for |a * x| not much above |c|."""
    p, p_low = pair_multiply(a, a_low, x, x_low)
    s, e = two_sum(c, p)
    return s, e + (p_low + c_low)
