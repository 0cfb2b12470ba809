"""Exponentials, logarithms, trigonometric, hyperbolic and special functions, with their derivatives.

Kernels compute them by own polynomials (compiler/mathlib), within 2 ULP; docs/operators.md has the worst cases.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _special
from ._common import Array
from .elementwise import math_function

# -- exponentials and logarithms ----------------------------------------------------------------------------------

math_function("exp", np.exp, "e^x.", lambda b, n, g, x: [b.mul(g, n)])
math_function("exp2", np.exp2, "2^x.", lambda b, n, g, x: [b.mul(g, b.mul(n, b.like(math.log(2), n)))])
math_function("expm1", np.expm1, "e^x − 1, accurate near 0.", lambda b, n, g, x: [b.mul(g, b.add(n, b.like(1, n)))])
math_function("log", np.log, "Natural logarithm.", lambda b, n, g, x: [b.div(g, x)], 0.2, 4)
math_function(
    "log2",
    np.log2,
    "Logarithm to base 2.",
    lambda b, n, g, x: [b.div(g, b.mul(x, b.like(math.log(2), x)))],
    0.2,
    4,
)
math_function(
    "log10",
    np.log10,
    "Logarithm to base 10.",
    lambda b, n, g, x: [b.div(g, b.mul(x, b.like(math.log(10), x)))],
    0.2,
    4,
)
math_function(
    "log1p",
    np.log1p,
    "log(1 + x), accurate near 0.",
    lambda b, n, g, x: [b.div(g, b.add(x, b.like(1, x)))],
    -0.8,
    3,
)

# -- trigonometry and hyperbolic functions ------------------------------------------------------------------------


def _recip(b: Any, g: Any, d: Any) -> list[Any]:
    return [b.div(g, d)]


def _one_minus_square(b: Any, x: Any) -> Any:
    one_ = b.like(1, x)
    return b.mul(b.sub(one_, x), b.add(one_, x))  # exact near ±1, where 1 − x² cancels


math_function("sin", np.sin, "Sine, for arguments of any size.", lambda b, n, g, x: [b.mul(g, b.cos(x))])
math_function("cos", np.cos, "Cosine, for arguments of any size.", lambda b, n, g, x: [b.neg(b.mul(g, b.sin(x)))])
math_function("tan", np.tan, "Tangent.", lambda b, n, g, x: [b.mul(g, b.add(b.like(1, n), b.mul(n, n)))], -1, 1)
math_function(
    "asin",
    np.arcsin,
    "Arc sine; NaN outside [−1, 1].",
    lambda b, n, g, x: _recip(b, g, b.sqrt(_one_minus_square(b, x))),
    -0.9,
    0.9,
)
math_function(
    "acos",
    np.arccos,
    "Arc cosine; NaN outside [−1, 1].",
    lambda b, n, g, x: _recip(b, b.neg(g), b.sqrt(_one_minus_square(b, x))),
    -0.9,
    0.9,
)
math_function("atan", np.arctan, "Arc tangent.", lambda b, n, g, x: _recip(b, g, b.add(b.like(1, x), b.mul(x, x))))
math_function("sinh", np.sinh, "Hyperbolic sine.", lambda b, n, g, x: [b.mul(g, b.cosh(x))])
math_function("cosh", np.cosh, "Hyperbolic cosine.", lambda b, n, g, x: [b.mul(g, b.sinh(x))])
math_function("tanh", np.tanh, "Hyperbolic tangent.", lambda b, n, g, x: [b.mul(g, b.sub(b.like(1, n), b.mul(n, n)))])
math_function(
    "asinh",
    np.arcsinh,
    "Inverse hyperbolic sine.",
    lambda b, n, g, x: _recip(b, g, b.sqrt(b.add(b.mul(x, x), b.like(1, x)))),
)
math_function(
    "acosh",
    np.arccosh,
    "Inverse hyperbolic cosine; NaN below 1.",
    lambda b, n, g, x: _recip(b, g, b.sqrt(b.mul(b.sub(x, b.like(1, x)), b.add(x, b.like(1, x))))),
    1.2,
    4,
)
math_function(
    "atanh",
    np.arctanh,
    "Inverse hyperbolic tangent; NaN outside [−1, 1].",
    lambda b, n, g, x: _recip(b, g, _one_minus_square(b, x)),
    -0.8,
    0.8,
)

# -- special functions --------------------------------------------------------------------------------------------


def _gauss(b: Any, x: Any, scale: float) -> Any:
    return b.mul(b.like(scale, x), b.exp(b.neg(b.mul(x, x))))


_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
math_function(
    "erf",
    _special.erf,
    "Gauss error function.",
    lambda b, n, g, x: [b.mul(g, _gauss(b, x, _TWO_OVER_ROOT_PI))],
)
math_function(
    "erfc",
    _special.erfc,
    "1 − erf(x), accurate for large x.",
    lambda b, n, g, x: [b.mul(g, _gauss(b, x, -_TWO_OVER_ROOT_PI))],
)
math_function(
    "erfinv",
    _special.erfinv,
    "Inverse of erf; NaN outside [−1, 1].",
    lambda b, n, g, x: [b.mul(g, b.mul(b.like(math.sqrt(math.pi) / 2, x), b.exp(b.mul(n, n))))],
    -0.8,
    0.8,
)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


math_function(
    "sigmoid",
    _sigmoid,
    "1 / (1 + e^−x), the logistic function.",
    lambda b, n, g, x: [b.mul(g, b.mul(n, b.sub(b.like(1, n), n)))],
)
math_function("lgamma", _special.lgamma, "log |Γ(x)|.", lambda b, n, g, x: [b.mul(g, b.digamma(x))], 0.5, 4)


def _digamma_vjp(b: Any, n: Any, g: Any, x: Any) -> list[Any]:
    """ψ₁ by its recurrence up to x + 8 and the asymptotic series there; for x > 0."""
    total, at = None, x
    for _ in range(8):
        term = b.reciprocal(b.mul(at, at))
        total = term if total is None else b.add(total, term)
        at = b.add(at, b.like(1, x))
    r = b.reciprocal(at)
    r2 = b.mul(r, r)
    inner = b.add(
        b.like(1 / 6, x),
        b.mul(
            r2, b.add(b.like(-1 / 30, x), b.mul(r2, b.add(b.like(1 / 42, x), b.mul(r2, b.like(-1 / 30, x)))))
        ),
    )
    series = b.add(r, b.add(b.mul(b.like(0.5, x), r2), b.mul(b.mul(r2, r), inner)))
    return [b.mul(g, b.add(total, series))]


math_function("digamma", _special.digamma, "Derivative of lgamma; differentiable for x > 0.", _digamma_vjp, 0.5, 4)
