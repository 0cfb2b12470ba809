"""Fits the polynomials of the mathematical functions: `python compiler/mathlib/minimax.py`.

Every polynomial is the interpolant at the Chebyshev nodes of its interval, computed with 90 decimal digits
and rounded once to its type; that is within a small factor of the minimax polynomial, and one more
coefficient always pays for the factor. The result is the module `coefficients.py`, which is committed; only
fitting needs mpmath. (A script, because the package cannot be imported without the coefficients.)
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np

DIGITS = 90
HEADER = '''"""Polynomial coefficients, lowest power first. Written by `minimax.py`; do not edit by hand."""

# fmt: off
from __future__ import annotations

import numpy as np
'''


@dataclass(frozen=True)
class Fit:
    """One polynomial: `count` coefficients for `function` on [low, high].

    `single` rounds them to float32; the first `tails` ones also get the rest that float64 drops.
    """

    name: str
    meaning: str
    function: Callable[[Any], Any]
    low: Any
    high: Any
    count: int
    single: bool = False
    tails: int = 0

    def coefficients(self) -> list[Any]:
        """The coefficients as mpmath numbers, lowest power first."""

        def smooth(x: Any) -> Any:
            # The functions below are quotients with a removable singularity at 0.
            return self.function(x if abs(x) > mp.mpf(10) ** -30 else mp.mpf(10) ** -30)

        with mp.workdps(DIGITS), warnings.catch_warnings():
            # mpmath 1.4 announces another order of the coefficients, which 1.3 can't be asked for.
            warnings.simplefilter("ignore", DeprecationWarning)
            descending = mp.chebyfit(smooth, [mp.mpf(self.low), mp.mpf(self.high)], self.count)
        return list(reversed(descending))

    def source(self) -> str:
        """The assignment(s) of this fit in coefficients.py."""
        values = self.coefficients()
        lines = [f"# {self.meaning}"]
        if self.single:
            rows = [f"    np.float32({float(np.float32(float(value))):.9g}),\n" for value in values]
        else:
            rows = [f"    {float(value)!r},\n" for value in values]
        lines.append(f"{self.name} = (\n{''.join(rows)})")
        if self.tails:
            rest = [f"    {float(value - mp.mpf(float(value)))!r},\n" for value in values[: self.tails]]
            lines.append(f"{self.name}_TAILS = (\n{''.join(rest)})")
        return "\n".join(lines) + "\n"


def _square(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of x as a function of z = x**2."""
    return lambda z: function(mp.sqrt(z))


def _log_of_quotient(s: Any) -> Any:
    """log((1 + s) / (1 - s)) = log(1 + f) where s = f / (2 + f)."""
    return mp.log((1 + s) / (1 - s))


def _scaled_erfc(x: Any) -> Any:
    """(1 + 2x) exp(x**2) erfc(x), which varies little over [0, infinity)."""
    return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)


def _from_shifted(function: Callable[[Any], Any], pole: float) -> Callable[[Any], Any]:
    """A function of x as a function of t = (x - pole) / (x + pole)."""
    return lambda t: function(pole * (1 + t) / (1 - t))


def _erfinv_ratio(w: Any) -> Any:
    """erfinv(x) / x where w = -log(1 - x**2)."""
    x = mp.sqrt(-mp.expm1(-w))
    # Solve erfc(y) = 1 - x by Newton's method; 1 - x = exp(-w) / (1 + x) without cancellation.
    target = mp.exp(-w) / (1 + x)
    y = mp.sqrt(w) * 0.9 if w > 1 else x * 0.9
    for _ in range(60):
        if w > 0.5:
            value = mp.log(mp.erfc(y) / target)
            slope = -2 / mp.sqrt(mp.pi) * mp.exp(-y * y) / mp.erfc(y)
        else:
            value, slope = mp.erf(y) - x, 2 / mp.sqrt(mp.pi) * mp.exp(-y * y)
        step = value / slope
        y -= step
        if abs(step) < abs(y) * mp.mpf(10) ** -45:
            break
    return y / x


def fits() -> list[Fit]:
    """All polynomials of the library."""
    root = mp.sqrt(mp.mpf(1) / 2)
    half_ln2, quarter = mp.log(2) / 2 + mp.mpf("1e-4"), mp.pi / 4 + mp.mpf("1e-4")
    # The float32 reduction leaves up to 0.5 + 2**-5 quadrants.
    wide_quarter = mp.pi / 2 * (mp.mpf("0.5") + mp.mpf(2) ** -5)
    digamma_root = mp.findroot(mp.digamma, mp.mpf("1.4616321449683623"))
    s_max = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) + mp.mpf("1e-6")
    sin = _square(lambda x: (mp.sin(x) - x) / x**3)
    cos = _square(lambda x: (mp.cos(x) - 1 + x * x / 2) / x**4)
    exp_1 = lambda r: (mp.expm1(r) - r) / r**2  # noqa: E731
    log_1 = lambda f: mp.log1p(f) / f  # noqa: E731
    log_3 = lambda f: (mp.log1p(f) - f + f * f / 2) / f**3  # noqa: E731
    atan_1 = _square(lambda x: mp.atan(x) / x)
    atan_3 = _square(lambda x: (mp.atan(x) - x) / x**3)
    asin_3 = _square(lambda x: (mp.asin(x) - x) / x**3)
    erf_1 = _square(lambda x: mp.erf(x) / x - 1)
    return [
        Fit("EXP_F32", "(exp(r) - 1 - r) / r**2", exp_1, -half_ln2, half_ln2, 6, single=True),
        Fit("EXP2_F32", "(2**r - 1) / r", lambda r: mp.expm1(r * mp.log(2)) / r, -0.5, 0.5, 7, single=True),
        Fit("LOG_F32", "(log(1 + f) - f + f**2/2) / f**3", log_3, root - 1, 2 * root - 1, 9, single=True),
        Fit("SIN_F32", "(sin(r) - r) / r**3 in r**2", sin, 0, wide_quarter**2, 4, single=True),
        Fit("COS_F32", "(cos(r) - 1 + r**2/2) / r**4 in r**2", cos, 0, wide_quarter**2, 4, single=True),
        Fit("TANH_F32", "(tanh(x) - x) / x**3 in x**2",
            _square(lambda x: (mp.tanh(x) - x) / x**3), 0, 0.625**2, 6, single=True),
        Fit("ERF_SMALL_F32", "erf(x) / x - 1 in x**2", erf_1, 0, 0.921875**2, 7, single=True),
        Fit("ERF_LARGE_F32", "-log(erfc(x))", lambda x: -mp.log(mp.erfc(x)), 0.92, 4, 9, single=True),
        Fit("EXP_MEDIUM", "(exp(r) - 1 - r) / r**2, for float32", exp_1, -half_ln2, half_ln2, 7),
        Fit("LOG_MEDIUM", "log(1 + f) / f, for float32", log_1, root - 1, 2 * root - 1, 16),
        Fit("SIN_MEDIUM", "(sin(r) - r) / r**3 in r**2, for float32", sin, 0, wide_quarter**2, 5),
        Fit("COS_MEDIUM", "(cos(r) - 1 + r**2/2) / r**4 in r**2, for float32", cos, 0, wide_quarter**2, 5),
        Fit("ATAN_MEDIUM", "atan(x) / x in x**2, for float32", atan_1, 0, 1, 13),
        Fit("ASIN_MEDIUM", "(asin(x) - x) / x**3 in x**2, for float32", asin_3, 0, 0.25, 9),
        Fit("ERFC_MEDIUM", "(1 + 2x) exp(x**2) erfc(x) in (x - 3) / (x + 3), x <= 11, for float32",
            _from_shifted(_scaled_erfc, 3.0), -1, mp.mpf(8) / 14, 15),
        Fit("ERFINV_MEDIUM_NEAR", "erfinv(x) / x in -log(1 - x**2) - 2.5, below 2.5, for float32",
            lambda w: _erfinv_ratio(w + 2.5), -2.5, 2.5, 13),
        Fit("ERFINV_MEDIUM_FAR", "erfinv(x) / x in sqrt(-log(1 - x**2)) - 3, for float32",
            lambda s: _erfinv_ratio((s + 3) ** 2), mp.sqrt(5) - 3, 1.1, 13),
        Fit("EXP_F64", "(exp(r) - 1 - r) / r**2", exp_1, -half_ln2, half_ln2, 12),
        Fit("EXP2_F64", "(2**r - 1) / r", lambda r: mp.expm1(r * mp.log(2)) / r, -0.5, 0.5, 14, tails=1),
        Fit("EXP_CUBIC_F64", "(exp(r) - 1 - r - r**2/2) / r**3",
            lambda r: (mp.expm1(r) - r - r * r / 2) / r**3, -half_ln2, half_ln2, 12),
        Fit("LOG_F64", "(log(1 + f) - 2s) / s**3 in s**2, s = f / (2 + f)",
            _square(lambda s: (_log_of_quotient(s) - 2 * s) / s**3), 0, s_max**2, 8),
        Fit("LOG_FIFTH_F64", "(log(1 + f) - 2s - 2/3 s**3) / s**5 in s**2, s = f / (2 + f)",
            _square(lambda s: (_log_of_quotient(s) - 2 * s - 2 * s**3 / 3) / s**5), 0, s_max**2, 9),
        Fit("SIN_F64", "(sin(r) - r) / r**3 in r**2", sin, 0, quarter**2, 7),
        Fit("COS_F64", "(cos(r) - 1 + r**2/2) / r**4 in r**2", cos, 0, quarter**2, 7),
        Fit("ATAN_F64", "(atan(x) - x) / x**3 in x**2", atan_3, 0, mp.mpf("0.41422") ** 2, 15),
        Fit("ASIN_F64", "(asin(x) - x) / x**3 in x**2", asin_3, 0, 0.25, 15),
        Fit("TANH_F64", "(tanh(x) - x) / x**3 in x**2",
            _square(lambda x: (mp.tanh(x) - x) / x**3), 0, 0.35**2, 11),
        Fit("SINH_F64", "(sinh(x) - x) / x**3 in x**2",
            _square(lambda x: (mp.sinh(x) - x) / x**3), 0, 0.35**2, 7),
        Fit("ERF_F64", "erf(x) / x - 1 in x**2", erf_1, 0, 1, 16),
        Fit("ERFC_F64", "(1 + 2x) exp(x**2) erfc(x) in (x - 4) / (x + 4), 0.5 <= x <= 28",
            _from_shifted(_scaled_erfc, 4.0), mp.mpf(-7) / 9, mp.mpf(24) / 32, 24, tails=5),
        Fit("ERFINV_NEAR_F64", "erfinv(x) / x in w - 1.5, w = -log(1 - x**2) <= 3",
            lambda w: _erfinv_ratio(w + 1.5), -1.5, 1.5, 19, tails=3),
        Fit("ERFINV_MIDDLE_F64", "erfinv(x) / x in sqrt(w) - 2.5, 3 <= w <= 11",
            lambda s: _erfinv_ratio((s + 2.5) ** 2), mp.sqrt(3) - 2.5, mp.sqrt(11) - 2.5, 26, tails=3),
        Fit("ERFINV_FAR_F64", "erfinv(x) / x in sqrt(w) - 4.75, w >= 11",
            lambda s: _erfinv_ratio((s + 4.75) ** 2), mp.sqrt(11) - 4.75, 1.3, 26, tails=3),
        Fit("LGAMMA_ONE_F64", "log(gamma(1 + t)) / t",
            lambda t: mp.loggamma(1 + t).real / t, -0.2, 0.25, 21, tails=3),
        Fit("LGAMMA_TWO_F64", "log(gamma(2 + t)) / t",
            lambda t: mp.loggamma(2 + t).real / t, -0.3, 0.3, 19, tails=3),
        Fit("DIGAMMA_ROOT_F64", "digamma(root + t) / t at its positive root",
            lambda t: mp.digamma(digamma_root + t) / t, -0.2, 0.2, 16, tails=3),
    ]  # fmt: skip


def generate() -> str:
    """The text of coefficients.py."""
    with mp.workdps(DIGITS):
        return "\n".join([HEADER, *(fit.source() for fit in fits())])


def worst(fit: Fit, samples: int = 200) -> float:
    """The largest relative error of the rounded polynomial over its interval (arithmetic exact)."""
    with mp.workdps(DIGITS):
        rounded = [
            mp.mpf(float(np.float32(float(c))) if fit.single else float(c)) for c in fit.coefficients()
        ]
        errors = []
        for index in range(samples):
            x = fit.low + (fit.high - fit.low) * (mp.mpf(index) + mp.mpf("0.37")) / samples
            value = fit.function(x)
            errors.append(abs((mp.polyval(rounded[::-1], x) - value) / value))
        return float(max(errors))


def main() -> None:
    """Write coefficients.py; with --report, print each fit's error instead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--report", action="store_true", help="print the error of every polynomial, write nothing"
    )
    if parser.parse_args().report:
        for fit in fits():
            print(f"{fit.name:22s} {fit.count:3d} coefficients, relative error 2**{np.log2(worst(fit)):.1f}")
        return
    Path(__file__).with_name("coefficients.py").write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main()
