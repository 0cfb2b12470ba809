"""Float64-accurate references of special functions that NumPy lacks (no SciPy in the core)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _vectorised(f: Callable[[float], float]) -> Callable[[Array], Array]:
    ufunc = np.frompyfunc(f, 1, 1)

    def run(x: Array) -> Array:
        return np.asarray(ufunc(np.asarray(x, np.float64)), dtype=np.float64).astype(x.dtype)

    return run


def _lgamma(x: float) -> float:
    if math.isinf(x):
        return math.inf
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):  # a pole (zero or a negative integer), or beyond the greatest float
        return math.inf


def _digamma(x: float) -> float:
    if x == 0.0:
        return math.copysign(math.inf, -x)
    if math.isinf(x):
        return x if x > 0 else math.nan
    if x < 0:
        if x == math.floor(x):
            return math.nan
        # Reflection, with the argument reduced first: exactly, however close to a pole.
        return _digamma(1.0 - x) - math.pi / math.tan(math.pi * (x - round(x)))
    terms = []
    while x < 12.0:  # recurrence up to where the asymptotic series is exact to a rounding
        terms.append(-1.0 / x)
        x += 1.0
    inv2 = 1.0 / (x * x)
    series = inv2 * (
        1 / 12 - inv2 * (1 / 120 - inv2 * (1 / 252 - inv2 * (1 / 240 - inv2 * (1 / 132 - inv2 * 691 / 32760))))
    )
    return math.fsum([*terms, math.log(x), -0.5 / x, -series])  # the terms cancel: add them without rounding


def _erfinv(y: float) -> float:
    if math.isnan(y) or abs(y) > 1.0:
        return math.nan
    if abs(y) == 1.0:
        return math.copysign(math.inf, y)
    if abs(y) < 1e-150:
        return y * (math.sqrt(math.pi) / 2)
    # Winitzki's closed form as a start, then Newton steps; near ±1 on the complement, which keeps its digits.
    a = 0.147
    ln = math.log1p(-y * y)
    t = 2 / (math.pi * a) + ln / 2
    x = math.copysign(math.sqrt(max(math.sqrt(t * t - ln / a) - t, 0.0)), y)
    for _ in range(4):
        error = math.erf(x) - y if abs(y) < 0.5 else math.copysign((1 - abs(y)) - math.erfc(abs(x)), y)
        step = error / (2 / math.sqrt(math.pi) * math.exp(-x * x))
        x -= step / (1 + x * step)  # Halley: erf'' = -2x erf'
    return x


erf = _vectorised(math.erf)
erfc = _vectorised(math.erfc)
erfinv = _vectorised(_erfinv)
lgamma = _vectorised(_lgamma)
digamma = _vectorised(_digamma)
