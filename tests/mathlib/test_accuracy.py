"""Every function against mpmath, at most 2 ULP; float32 functions densely against the float64 ones."""

from __future__ import annotations

import numpy as np
import pytest
from tracemill.compiler.mathlib import FUNCTIONS
from tracemill.compiler.mathlib.accuracy import (
    DTYPES,
    EXACT,
    Worst,
    against_float64,
    against_mpmath,
    sample,
    table,
    ulp_error,
)

MEASURED = [key for key in FUNCTIONS if key[0] in EXACT]
BOUND = 2.0


@pytest.mark.parametrize(("operator", "dtype"), MEASURED)
def test_within_two_ulps_of_mpmath(operator: str, dtype: str) -> None:
    worst = against_mpmath(FUNCTIONS[operator, dtype], sample(operator, dtype, 300, seed=7))
    assert worst.ulps <= BOUND, worst


@pytest.mark.parametrize("operator", [operator for operator, dtype in MEASURED if dtype == "f32"])
def test_float32_within_two_ulps_on_a_dense_sample(operator: str) -> None:
    worst = against_float64(operator, sample(operator, "f32", 1 << 17, seed=11))
    assert worst.ulps <= BOUND, worst


def test_the_measure_itself() -> None:
    assert ulp_error(1.0, 1, "f32") == 0.0
    assert ulp_error(1.0 + 2.0**-23, 1, "f32") == 1.0
    assert ulp_error(2.0**-149, 0, "f32") == 1.0
    assert ulp_error(2.0**-1074, 0, "f64") == 1.0
    # Half an ulp past the largest float, infinity is the right rounding.
    assert ulp_error(float("inf"), (2 - 2.0**-24) * 2**127, "f32") == 0.5
    assert ulp_error(float("nan"), 1, "f64") == float("inf")
    assert table([Worst("exp", "f32", 0.75, (1.0,))]).splitlines()[-1] == "| exp | f32 | 0.75 | 1.0 |"


# The floats closest to a multiple of pi/2, and the largest ones.
HARD_ANGLES = {
    "f32": [16367173.0 * 2.0**72, 13176795.0, 3.4028234663852886e38, -(2.0**127), 2.0**50, 2.0**76, 2.0**102],
    "f64": [6381956970095103.0 * 2.0**797, 1.7976931348623157e308, -(2.0**1023), 2.0**20, 1048575.9],
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("operator", ["sin", "cos", "tan"])
def test_angles_that_are_hard_to_reduce(operator: str, dtype: str) -> None:
    angles = np.array(HARD_ANGLES[dtype], DTYPES[dtype])
    steps = [angles, np.nextafter(angles, DTYPES[dtype].type(0))]
    generator = np.random.default_rng(1)
    exponents = generator.integers(20, 127 if dtype == "f32" else 1023, 1500)
    steps.append(np.ldexp(generator.uniform(1, 2, 1500), exponents).astype(DTYPES[dtype]))
    worst = against_mpmath(FUNCTIONS[operator, dtype], (np.concatenate(steps),))
    assert worst.ulps <= BOUND, worst
