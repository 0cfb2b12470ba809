"""Measures the functions' errors against mpmath.

`python -m tracemill.compiler.mathlib.accuracy [--samples N] [operators]` prints a markdown table.

The error of a result is |result - exact| / ulp(exact) in units of the last place of its dtype, where the ulp
of what is below the normal range is the smallest subnormal number, and an infinite result counts as the first
power of two past the range. The exact value comes from mpmath with 60 digits. float32 functions are measured
on a much denser sample too, against the float64 functions, whose own error (measured here) is a few
billionths of a float32 ulp.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np

from .library import FUNCTIONS, MathFunction, namespace

Exact = Callable[..., Any]
# A NumPy array.
Array = Any
DTYPES: dict[str, Any] = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
# Bits of the significand and the exponent of the smallest normal number.
FORMATS = {"f32": (24, -126, 128), "f64": (53, -1022, 1024)}


def _bounded(function: Exact, low: float, below: Any, high: float, above: Any) -> Exact:
    """`function`, replaced outside [low, high] where mpmath would compute astronomic numbers."""

    def evaluate(x: Any) -> Any:
        if x < low:
            return below(x) if callable(below) else mp.mpf(below)
        if x > high:
            return above(x) if callable(above) else mp.mpf(above)
        return function(x)

    return evaluate


def _power(x: Any, y: Any) -> Any:
    """x**y; far outside the range of float64, a stand-in on the same side of it."""
    if x == 0 or y == 0:
        return mp.mpf(1) if y == 0 else mp.mpf(0 if y > 0 else "inf")
    size = y * mp.log(abs(x))
    sign = -1 if x < 0 and y == mp.floor(y) and int(y) % 2 else 1
    return sign * (mp.exp(size) if abs(size) < 2000 else mp.mpf("1e-900" if size < 0 else "1e900"))


def _erfinv(x: Any) -> Any:
    """The inverse error function by Newton's method on the logarithm of erfc, far from 0, or on erf."""
    a = abs(x)
    if a < mp.mpf(10) ** -20:
        return x * mp.sqrt(mp.pi) / 2
    y = mp.mpf(float(namespace_value("erfinv", float(a))))
    for _ in range(3):
        slope = 2 / mp.sqrt(mp.pi) * mp.exp(-y * y)
        error = mp.erf(y) - a if a < 0.5 else (1 - a) - mp.erfc(y)
        # Halley's step.
        step = error / slope
        y -= step / (1 + y * step)
    return y if x > 0 else -y


def namespace_value(operator: str, x: float) -> float:
    """One value of a float64 function, in plain Python."""
    with np.errstate(all="ignore"):
        return float(FUNCTIONS[operator, "f64"].python(np.float64(x)))


EXACT: dict[str, Exact] = {
    "exp": _bounded(mp.exp, -2000, "1e-800", 2000, "1e800"),
    "exp2": _bounded(lambda x: mp.mpf(2) ** x, -3000, "1e-800", 3000, "1e800"),
    "expm1": _bounded(mp.expm1, -2000, -1, 2000, "1e800"),
    "log": mp.log,
    "log2": lambda x: mp.log(x) / mp.log(2),
    "log10": lambda x: mp.log(x) / mp.log(10),
    "log1p": mp.log1p,
    "sigmoid": _bounded(lambda x: 1 / (1 + mp.exp(-x)), -2000, "1e-800", 2000, 1),
    "sin": mp.sin,
    "cos": mp.cos,
    "tan": mp.tan,
    "asin": mp.asin,
    "acos": mp.acos,
    "atan": mp.atan,
    "atan2": mp.atan2,
    "sinh": _bounded(mp.sinh, -2000, "-1e800", 2000, "1e800"),
    "cosh": _bounded(mp.cosh, -2000, "1e800", 2000, "1e800"),
    "tanh": _bounded(mp.tanh, -2000, -1, 2000, 1),
    "asinh": mp.asinh,
    "acosh": mp.acosh,
    "atanh": mp.atanh,
    "erf": _bounded(mp.erf, -100, -1, 100, 1),
    "erfc": _bounded(mp.erfc, -100, 2, 100, "1e-900"),
    "erfinv": _erfinv,
    "pow": _power,
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "sqrt": mp.sqrt,
    "lgamma": lambda x: mp.re(mp.loggamma(x)),
    "digamma": mp.digamma,
}  # fmt: skip

# Where each function is interesting: intervals sampled evenly, besides the random bit patterns.
RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "exp": ((-1, 1), (-104, 89), (-746, 710)),
    "exp2": ((-1, 1), (-150, 128), (-1075, 1024)),
    "expm1": ((-1, 1), (-40, 89), (-0.01, 0.01), (-746, 710)),
    "log": ((0.5, 2), (0.98, 1.02), (0, 100)),
    "log2": ((0.5, 2), (0.98, 1.02), (0, 100)),
    "log10": ((0.5, 2), (0.98, 1.02), (0, 100)),
    "log1p": ((-1, 1), (-0.01, 0.01), (0, 100)),
    "sigmoid": ((-1, 1), (-20, 20), (-104, 89), (-746, 710)),
    "sin": ((-4, 4), (-100, 100), (-1e6, 1e6), (-1e9, 1e9)),
    "cos": ((-4, 4), (-100, 100), (-1e6, 1e6), (-1e9, 1e9)),
    "tan": ((-4, 4), (-100, 100), (-1e6, 1e6), (-1e9, 1e9)),
    "asin": ((-1, 1),),
    "acos": ((-1, 1),),
    "atan": ((-1, 1), (-10, 10)),
    "sinh": ((-1, 1), (-89, 89), (-711, 711)),
    "cosh": ((-1, 1), (-89, 89), (-711, 711)),
    "tanh": ((-1, 1), (-10, 10), (-22, 22)),
    "asinh": ((-1, 1), (-100, 100)),
    "acosh": ((1, 1.1), (1, 10)),
    "atanh": ((-1, 1),),
    "erf": ((-1, 1), (-4, 4), (-6, 6)),
    "erfc": ((-1, 1), (0.4, 10.1), (-6, 28)),
    "erfinv": ((-1, 1), (0.9, 1), (0.9999, 1)),
    "rsqrt": ((0, 10),),
    "sqrt": ((0, 10),),
    "lgamma": ((0, 3), (0, 20), (-10, 0), (0, 1000)),
    "digamma": ((0, 3), (0, 20), (-10, 0), (0, 1000)),
}
# Values whose neighbours are all tried: zeros, ends of domains, borders of overflow and underflow, and where
# a function changes its method.
BORDERS = (
    0.0, 0.25, 0.35, 0.41421356237309503, 0.5, 0.625, 0.7071067811865476, 0.921875, 1.0,
    1.4142135623730951, 1.4616321449683622, 2.0, 3.0, 4.0, 10.0, 12.0, 16.0, 17.32867951, 87.33654,
    88.72284, 89.41599, 103.27893, 103.97208, 126.0, 127.0, 128.0, 149.0, 150.0, 708.3964185322641,
    709.782712893384, 710.4758600739439, 745.1332191019411, 1022.0, 1023.0, 1024.0, 1074.0, 1075.0,
    2.0**-126, 2.0**-149, 2.0**-1022, 2.0**20, 2.0**50, 2.0**76, 2.0**102, 3.4e38, 1.7e308,
)  # fmt: skip


@dataclass(frozen=True)
class Worst:
    """The worst case found for one function."""

    operator: str
    dtype: str
    ulps: float
    at: tuple[float, ...]


def ulp_error(result: float, exact: Any, dtype: str) -> float:
    """|result - exact| in ulps of the exact value."""
    digits, smallest, largest = FORMATS[dtype]
    if np.isnan(result):
        return float("inf")
    value = mp.ldexp(mp.mpf(1 if result > 0 else -1), largest) if np.isinf(result) else mp.mpf(result)
    limit = mp.ldexp(mp.mpf(1), largest)
    exact = max(min(exact, limit), -limit)
    exponent = mp.frexp(exact)[1] - 1 if exact != 0 else smallest
    return float(
        abs(value - exact) / mp.ldexp(mp.mpf(1), max(min(exponent, largest - 1), smallest) - digits + 1)
    )


def _neighbours(values: Iterable[float], dtype: str, reach: int) -> Array:
    """The floats up to `reach` steps from each value and its negative."""
    integer = np.int32 if dtype == "f32" else np.int64
    with np.errstate(over="ignore"):
        centres = np.array(list(values)).astype(DTYPES[dtype])
    bits = centres[np.isfinite(centres)].view(integer).astype(integer)
    around = (bits[:, None] + np.arange(-reach, reach + 1, dtype=integer)).ravel()
    result = around[around >= 0].view(DTYPES[dtype])
    return np.concatenate([result, -result])


def random_bits(count: int, dtype: str, generator: np.random.Generator) -> Array:
    """Floats of evenly distributed bit patterns, not finite ones included."""
    unsigned = np.uint32 if dtype == "f32" else np.uint64
    info = np.iinfo(unsigned)
    return generator.integers(0, info.max, count, dtype=unsigned, endpoint=True).view(DTYPES[dtype])


def sample(operator: str, dtype: str, count: int, seed: int = 0) -> tuple[Array, ...]:
    """About `count` inputs of a function (one array per operand), the same for the same arguments."""
    generator = np.random.default_rng([seed, sum(map(ord, operator)), len(dtype)])
    if operator in ("pow", "atan2"):
        return _sample_two(operator, dtype, count, generator)
    ranges = RANGES.get(operator, ((-10, 10),))
    reach = max(1, min(20, count // 1000))
    quadrants = [k * float(mp.pi) / 4 for k in (*range(1, 9), 100, 10**5, 667545, 10**10)]
    with np.errstate(over="ignore"):
        parts = [
            random_bits(count // 3, dtype, generator),
            # The exponents in the middle of the range, which random bits rarely meet.
            (generator.choice([-1.0, 1.0], count // 6) * 2.0 ** generator.uniform(-40, 10, count // 6)),
            _neighbours((*BORDERS, *quadrants), dtype, reach),
            *(generator.uniform(*bounds, count // 2 // len(ranges)) for bounds in ranges),
        ]
        x = np.concatenate([part.astype(DTYPES[dtype]) for part in parts])
    return (x,)


def _sample_two(operator: str, dtype: str, count: int, generator: np.random.Generator) -> tuple[Array, ...]:
    """Pairs of inputs: random bits, ordinary numbers, and for pow results all over the range."""
    third = count // 3
    small = generator.choice([-1.0, 1.0], (2, third)) * 2.0 ** generator.uniform(-12, 12, (2, third))
    base = 2.0 ** generator.uniform(-60, 60, third)
    base[::3] = generator.uniform(0.99, 1.01, base[::3].size)
    limit = 160 if dtype == "f32" else 1100
    second = (
        generator.uniform(-limit, limit, third) / np.log2(base)
        if operator == "pow"
        else base * generator.normal(size=third)
    )
    # Whole exponents of negative bases.
    small[1, ::2] = np.rint(small[1, ::2])
    with np.errstate(over="ignore"):
        columns = [
            np.concatenate([random_bits(third, dtype, generator), part.astype(DTYPES[dtype])])
            for part in (np.concatenate([small[0], base]), np.concatenate([small[1], second]))
        ]
    return columns[0], columns[1]


@functools.cache
def compiled(operator: str, dtype: str) -> Callable[..., Array]:
    """The function over contiguous arrays, compiled as kernels are."""
    import numba

    function = FUNCTIONS[operator, dtype]
    inner = namespace([(operator, dtype)])[function.name]

    def unary(result: Any, x: Any) -> None:
        for index in range(x.size):
            result[index] = inner(x[index])

    def binary(result: Any, x: Any, y: Any) -> None:
        for index in range(x.size):
            result[index] = inner(x[index], y[index])

    kind = numba.float32 if dtype == "f32" else numba.float64
    loop = numba.njit(numba.void(*[kind[::1]] * (function.arity + 1)), error_model="numpy")(
        unary if function.arity == 1 else binary
    )

    def apply(*operands: Array) -> Array:
        result = np.empty_like(operands[0])
        loop(result, *operands)
        return result

    return apply


def domain(operator: str, operands: tuple[Array, ...]) -> Array:
    """Where a function of finite operands is finite and real (special values are tests of their own)."""
    with np.errstate(invalid="ignore"):
        return _domain(operator, operands)


def _domain(operator: str, operands: tuple[Array, ...]) -> Array:
    """The same; rounding a signaling NaN may warn."""
    x = operands[0]
    inside = np.isfinite(x)
    if operator in ("log", "log2", "log10", "rsqrt"):
        return inside & (x > 0)
    if operator == "sqrt":
        return inside & (x >= 0)
    if operator == "log1p":
        return inside & (x > -1)
    if operator in ("asin", "acos"):
        return inside & (abs(x) <= 1)
    if operator in ("atanh", "erfinv"):
        return inside & (abs(x) < 1)
    if operator == "acosh":
        return inside & (x >= 1)
    if operator in ("lgamma", "digamma"):
        return inside & ((x > 0) | (x != np.rint(x)))
    if operator == "atan2":
        return inside & np.isfinite(operands[1]) & (x != 0) & (operands[1] != 0)
    if operator == "pow":
        y = operands[1]
        return inside & np.isfinite(y) & (x != 0) & ((x > 0) | (np.rint(y) == y))
    return inside


def away_from_zeros(operator: str, exact: Any, operands: tuple[float, ...]) -> bool:
    """False next to a zero of lgamma or digamma at negative x, where their bound does not hold."""
    if operator not in ("lgamma", "digamma") or operands[0] > 0:
        return True
    return bool(abs(exact) > 0.25)


def against_mpmath(function: MathFunction, operands: tuple[Array, ...]) -> Worst:
    """The worst error of a function over these operands, compiled, against mpmath."""
    inside = domain(function.operator, operands)
    operands = tuple(np.ascontiguousarray(operand[inside]) for operand in operands)
    results = compiled(function.operator, function.dtype)(*operands)
    worst = Worst(function.operator, function.dtype, 0.0, (0.0,))
    with mp.workdps(60):
        for row in range(results.size):
            point = tuple(float(operand[row]) for operand in operands)
            exact = EXACT[function.operator](*map(mp.mpf, point))
            error = ulp_error(float(results[row]), exact, function.dtype)
            if error > worst.ulps and away_from_zeros(function.operator, exact, point):
                worst = Worst(function.operator, function.dtype, error, point)
    return worst


def against_float64(operator: str, operands: tuple[Array, ...]) -> Worst:
    """The worst error of a float32 function over float32 operands, against the float64 function."""
    inside = domain(operator, operands)
    operands = tuple(np.ascontiguousarray(operand[inside]) for operand in operands)
    results = compiled(operator, "f32")(*operands).astype(np.float64)
    exact = compiled(operator, "f64")(*(operand.astype(np.float64) for operand in operands))
    limit = 2.0**128
    with np.errstate(all="ignore"):
        exponent = np.clip(np.frexp(exact)[1] - 1, -126, 127)
        results, bounded = np.clip(results, -limit, limit), np.clip(exact, -limit, limit)
        errors = abs(results - bounded) / 2.0 ** (exponent - 23)
    errors[np.isnan(results) | np.isnan(exact)] = np.inf
    if operator in ("lgamma", "digamma"):
        errors[(operands[0] < 0) & (abs(exact) < 0.25)] = 0.0
    row = int(np.argmax(errors))
    return Worst(operator, "f32", float(errors[row]), tuple(float(operand[row]) for operand in operands))


def measure(function: MathFunction, samples: int, dense: int) -> Worst:
    """The worst case of a function: `samples` points against mpmath, for float32 also `dense` ones against
    float64.
    """
    slow = function.operator in ("lgamma", "digamma", "erfinv", "erfc")
    worst = against_mpmath(function, sample(function.operator, function.dtype, samples // (4 if slow else 1)))
    if function.dtype == "f32" and dense:
        found = against_float64(function.operator, sample(function.operator, "f32", dense, seed=1))
        worst = max(worst, found, key=lambda case: case.ulps)
    return worst


def table(cases: Iterable[Worst]) -> str:
    """A markdown table of worst cases."""
    lines = ["| function | dtype | max ULP | at |", "| --- | --- | ---: | --- |"]
    for case in cases:
        at = ", ".join(repr(value) for value in case.at)
        lines.append(f"| {case.operator} | {case.dtype} | {case.ulps:.2f} | {at} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all functions (or those named) and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operators", nargs="*", help="operators to measure (default: all)")
    parser.add_argument("--samples", type=int, default=20_000, help="points against mpmath, a function")
    parser.add_argument(
        "--dense", type=int, default=1 << 23, help="points of float32 functions against float64"
    )
    arguments = parser.parse_args()
    chosen = [
        function
        for (operator, _), function in sorted(FUNCTIONS.items())
        if operator in EXACT and (not arguments.operators or operator in arguments.operators)
    ]
    print(table(measure(function, arguments.samples, arguments.dense) for function in chosen))


if __name__ == "__main__":
    main()
