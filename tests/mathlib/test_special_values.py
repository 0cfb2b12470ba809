"""Infinities, NaN, signed zeros, poles and ends of domains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tracemill.compiler.mathlib import FUNCTIONS
from tracemill.compiler.mathlib.accuracy import DTYPES, compiled

inf, nan = math.inf, math.nan
half_pi, pi = math.pi / 2, math.pi

CASES: dict[str, list[tuple[float, float]]] = {
    "exp": [(0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (1000, inf), (-1000, 0), (nan, nan)],
    "exp2": [(0, 1), (10, 1024), (-3, 0.125), (inf, inf), (-inf, 0), (2000, inf), (-2000, 0), (nan, nan)],
    "expm1": [(0, 0), (-0.0, -0.0), (inf, inf), (-inf, -1), (1000, inf), (-1000, -1), (nan, nan)],
    "log": [(1, 0), (0, -inf), (-0.0, -inf), (-1, nan), (-inf, nan), (inf, inf), (nan, nan)],
    "log2": [(1, 0), (8, 3), (0.125, -3), (0, -inf), (-0.0, -inf), (-1, nan), (inf, inf), (nan, nan)],
    "log10": [(1, 0), (1000, 3), (0, -inf), (-0.0, -inf), (-1, nan), (inf, inf), (nan, nan)],
    "log1p": [(0, 0), (-0.0, -0.0), (-1, -inf), (-2, nan), (inf, inf), (-inf, nan), (nan, nan)],
    "sigmoid": [(0, 0.5), (-0.0, 0.5), (inf, 1), (-inf, 0), (1000, 1), (-1000, 0), (nan, nan)],
    "sin": [(0, 0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)],
    "cos": [(0, 1), (-0.0, 1), (inf, nan), (-inf, nan), (nan, nan)],
    "tan": [(0, 0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)],
    "asin": [(0, 0), (-0.0, -0.0), (1, half_pi), (-1, -half_pi), (1.5, nan), (-inf, nan), (nan, nan)],
    "acos": [
        (1, 0),
        (-1, pi),
        (0, half_pi),
        (-0.0, half_pi),
        (1.5, nan),
        (-1.5, nan),
        (inf, nan),
        (nan, nan),
    ],
    "atan": [(0, 0), (-0.0, -0.0), (inf, half_pi), (-inf, -half_pi), (1, pi / 4), (nan, nan)],
    "sinh": [(0, 0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (-1000, -inf), (nan, nan)],
    "cosh": [(0, 1), (-0.0, 1), (inf, inf), (-inf, inf), (-1000, inf), (nan, nan)],
    "tanh": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (100, 1), (nan, nan)],
    "asinh": [(0, 0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (nan, nan)],
    "acosh": [(1, 0), (0.5, nan), (-5, nan), (-inf, nan), (inf, inf), (nan, nan)],
    "atanh": [(0, 0), (-0.0, -0.0), (1, inf), (-1, -inf), (1.5, nan), (-inf, nan), (nan, nan)],
    "erf": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan)],
    "erfc": [(0, 1), (-0.0, 1), (inf, 0), (-inf, 2), (nan, nan)],
    "erfinv": [(0, 0), (-0.0, -0.0), (1, inf), (-1, -inf), (1.5, nan), (-2, nan), (inf, nan), (nan, nan)],
    "sqrt": [(0, 0), (-0.0, -0.0), (4, 2), (-1, nan), (inf, inf), (nan, nan)],
    "rsqrt": [(0, inf), (-0.0, -inf), (4, 0.5), (-1, nan), (inf, 0), (nan, nan)],
    "floor": [(1.5, 1), (-1.5, -2), (-0.0, -0.0), (inf, inf), (nan, nan)],
    "ceil": [(1.5, 2), (-1.5, -1), (-0.5, -0.0), (-inf, -inf), (nan, nan)],
    "trunc": [(1.5, 1), (-1.5, -1), (-0.5, -0.0), (inf, inf), (nan, nan)],
    "round": [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, -0.0), (inf, inf), (nan, nan)],
    "lgamma": [(1, 0), (2, 0), (0, inf), (-0.0, inf), (-3, inf), (inf, inf), (-inf, inf), (nan, nan)],
    "digamma": [(0, -inf), (-0.0, inf), (-3, nan), (inf, inf), (-inf, nan), (nan, nan)],
}
POWERS = [
    (0, 0, 1), (nan, 0, 1), (inf, -0.0, 1), (1, nan, 1), (1, inf, 1), (-1, inf, 1), (-1, -inf, 1),
    (nan, 1, nan), (2, nan, nan), (0, 3, 0), (-0.0, 3, -0.0), (-0.0, 2, 0), (0, -3, inf), (-0.0, -3, -inf),
    (-0.0, -2, inf), (0, 0.5, 0), (-0.0, 0.5, 0), (0, inf, 0), (0, -inf, inf), (0.5, inf, 0),
    (0.5, -inf, inf), (2, inf, inf), (2, -inf, 0), (inf, 2, inf), (inf, -2, 0), (-inf, 3, -inf),
    (-inf, 2, inf), (-inf, 0.5, inf), (-inf, -3, -0.0), (-inf, -2, 0), (-2, 3, -8), (-2, -1, -0.5),
    (-2, 0.5, nan), (-8, 1 / 3, nan), (2, 10, 1024), (2, 1e30, inf), (2, -1e30, 0), (-2, 1e30, inf),
    (0.5, 1e30, 0), (inf, inf, inf), (inf, -inf, 0), (-1, 1e30, 1),
]  # fmt: skip
ANGLES = [
    (0, 1, 0), (-0.0, 1, -0.0), (0, -1, pi), (-0.0, -1, -pi), (0, 0, 0), (-0.0, 0, -0.0), (0, -0.0, pi),
    (-0.0, -0.0, -pi), (1, 0, half_pi), (-1, 0, -half_pi), (1, -0.0, half_pi), (inf, 1, half_pi),
    (-inf, -1, -half_pi), (1, inf, 0), (-1, inf, -0.0), (1, -inf, pi), (-1, -inf, -pi), (inf, inf, pi / 4),
    (-inf, inf, -pi / 4), (inf, -inf, 3 * pi / 4), (-inf, -inf, -3 * pi / 4), (nan, 1, nan), (1, nan, nan),
    (1, 1, pi / 4), (1, -1, 3 * pi / 4),
]  # fmt: skip


def _same(result: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(result, expected)
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result[there]), np.signbit(expected[there]))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("operator", CASES)
def test_special_values(operator: str, dtype: str) -> None:
    inputs, expected = np.array(CASES[operator]).astype(DTYPES[dtype]).T.copy()
    _same(compiled(operator, dtype)(inputs), expected)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(("operator", "cases"), [("pow", POWERS), ("atan2", ANGLES)])
def test_special_pairs(operator: str, cases: list[tuple[float, float, float]], dtype: str) -> None:
    left, right, expected = np.array(cases).astype(DTYPES[dtype]).T.copy()
    _same(compiled(operator, dtype)(left, right), expected)


def test_every_function_has_special_values() -> None:
    assert {operator for operator, _ in FUNCTIONS} == {*CASES, "pow", "atan2"}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    "operator", ["sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "expm1", "log1p"]
)
def test_subnormal_arguments_come_back(operator: str, dtype: str) -> None:
    smallest = np.finfo(DTYPES[dtype]).smallest_subnormal
    inputs = np.array([1, -1, 7, 12345]).astype(DTYPES[dtype]) * smallest
    _same(compiled(operator, dtype)(inputs), inputs)
