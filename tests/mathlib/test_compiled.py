"""What compiled functions owe: the bits of plain Python, on every CPU; vectors; no calls into libraries."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.mathlib import FUNCTIONS, namespace, render
from tracemill.compiler.mathlib.accuracy import compiled, random_bits, sample

EXACT_INTEGERS = {"f32": np.uint32, "f64": np.uint64}
needs_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")

VECTORISED_F32 = (
    "exp log tanh sigmoid erf sin cos exp2 log2 expm1 log1p atan pow sqrt rsqrt tan erfc asin acos "
    "sinh cosh asinh acosh atanh atan2 erfinv"
)
VECTORISED_F64 = "exp log tanh sigmoid erf erfc expm1 log1p exp2 pow"
VECTORISED = [
    *((operator, "f32") for operator in VECTORISED_F32.split()),
    *((operator, "f64") for operator in VECTORISED_F64.split()),
]
# Those whose arithmetic is float32's, at its full vector width.
FLOAT32_LANES = frozenset(["exp", "log", "tanh", "sigmoid", "erf", "exp2", "sqrt", "rsqrt", "sin", "cos"])


def _bits(values: np.ndarray, dtype: str) -> np.ndarray:
    """The bit patterns, every NaN as one."""
    return np.where(np.isnan(values), np.array(np.nan, values.dtype), values).view(EXACT_INTEGERS[dtype])


def _inputs(operator: str, dtype: str, count: int) -> tuple[np.ndarray, ...]:
    """A fixed sample of ordinary values and any bit patterns."""
    generator = np.random.default_rng(5)
    columns = sample(operator, dtype, count, seed=3)
    rows = generator.permutation(columns[0].size)[:count]
    return tuple(np.concatenate([c[rows], random_bits(count // 8, dtype, generator)]) for c in columns)


@pytest.mark.parametrize(("operator", "dtype"), list(FUNCTIONS))
def test_plain_python_gives_the_same_bits(operator: str, dtype: str) -> None:
    operands = _inputs(operator, dtype, 240)
    function = FUNCTIONS[operator, dtype].python
    with np.errstate(all="ignore"):
        plain = np.array([function(*row) for row in zip(*operands, strict=True)], operands[0].dtype)
    np.testing.assert_array_equal(_bits(compiled(operator, dtype)(*operands), dtype), _bits(plain, dtype))


def test_fused_multiply_add_rounds_once() -> None:
    """Against exact fractions: sums next to the middle of two floats, cancellation, subnormal and special values."""
    from tracemill.compiler.backend.intrinsics import fma
    from tracemill.compiler.mathlib.primitives import fma_f32

    generator = np.random.default_rng(2)
    a, b, c = (np.ldexp(generator.uniform(-2, 2, 4000), generator.integers(-75, 20, 4000)).astype(np.float32)
               for _ in range(3))
    c[:1000] = -(a * b)[:1000]
    c[1000:2000] = (a * b)[1000:2000] * np.float32(2**-24)
    cases = [*zip(a, b, c, strict=True), *np.array([[np.inf, 0, 1], [3e38, 2, -np.inf], [3e38, 3e38, 1], [0, -1, 0],
                                                    [1e-30, 1e-30, 1e-45], [np.nan, 1, 1]], np.float32)]
    with np.errstate(all="ignore"):
        for x, y, z in cases:
            got, want = fma_f32(x, y, z), fma(x, y, z)
            assert type(got) is np.float32
            assert got.tobytes() == want.tobytes() or (got != got and want != want), (x, y, z)


def _digest() -> str:
    """One digest of what a choice of functions gives."""
    total = hashlib.sha256()
    for operator, dtype in VECTORISED[:14] + VECTORISED[-10:-4] + [("sin", "f64"), ("lgamma", "f64")]:
        total.update(_bits(compiled(operator, dtype)(*_inputs(operator, dtype, 2000)), dtype).tobytes())
    return total.hexdigest()


def test_any_cpu_gives_the_same_bits() -> None:
    """A compilation for the oldest CPU of this architecture: other vectors, no FMA."""
    code = (
        "import importlib.util as u; s = u.spec_from_file_location('t', r'%s');"
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m._digest())"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code % __file__],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == _digest()


def _assembly(operator: str, dtype: str) -> str:
    """The assembly of a loop over raw pointers, without Python's wrappers."""
    import numba
    from numba import types

    function = FUNCTIONS[operator, dtype]
    inner = namespace([(operator, dtype)])[function.name]
    pointer = types.CPointer(types.float32 if dtype == "f32" else types.float64)

    def unary(result: Any, x: Any, count: Any) -> None:
        a, out = numba.carray(x, (count,)), numba.carray(result, (count,))
        for index in range(count):
            out[index] = inner(a[index])

    def binary(result: Any, x: Any, y: Any, count: Any) -> None:
        a, b, out = numba.carray(x, (count,)), numba.carray(y, (count,)), numba.carray(result, (count,))
        for index in range(count):
            out[index] = inner(a[index], b[index])

    signature = types.void(*[pointer] * (function.arity + 1), types.int64)
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    loop = numba.njit(signature, **options)(unary if function.arity == 1 else binary)
    # The module has Numba's own reference counting too, which nothing here calls.
    text = next(iter(loop.inspect_asm().values()))
    bodies = re.findall(r"^(?:\S*(?:unary|binary)\S*):\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL)
    (body,) = bodies
    return str(body)


@needs_x86
@pytest.mark.parametrize(("operator", "dtype"), VECTORISED)
def test_loops_vectorise(operator: str, dtype: str) -> None:
    import llvmlite.binding

    suffix = "s" if dtype == "f32" and operator in FLOAT32_LANES else "d"
    wide = "[yz]mm" if llvmlite.binding.get_host_cpu_features().get("avx2") else "xmm"
    work = "sqrt" if operator in ("sqrt", "rsqrt") else "mul"
    assert re.search(rf"{work}p{suffix}\s.*%{wide}", _assembly(operator, dtype))


@needs_x86
@pytest.mark.parametrize(("operator", "dtype"), list(FUNCTIONS))
def test_no_calls(operator: str, dtype: str) -> None:
    """Neither libm nor Numba's helpers nor an error path: a kernel's object has no undefined symbols."""
    calls = r"^\s*(?:callq?\s.*|jmpq?\s+(?!\.L).*|movabsq\s+\$[A-Za-z_]\S*,.*)$"
    assert re.findall(calls, _assembly(operator, dtype), re.MULTILINE) == []


def test_rendered_source_stands_alone() -> None:
    names = [("tanh", "f32"), ("sin", "f64"), ("pow", "f32"), ("erfinv", "f64"), ("sin", "f32")]
    text = render(names)
    assert text == render(names[::-1] + names[:2])
    definitions = re.findall(r"^(?:def (\w+)|(\w+) = )", text, re.MULTILINE)
    assert len(definitions) == len(set(definitions))
    scope: dict[str, Any] = {}
    exec(text, scope)
    for operator, dtype in names:
        function = FUNCTIONS[operator, dtype]
        operands = _inputs(operator, dtype, 40)
        with np.errstate(all="ignore"):
            here = [function.python(*row) for row in zip(*operands, strict=True)]
            there = [scope[function.name](*row) for row in zip(*operands, strict=True)]
        kind = operands[0].dtype
        np.testing.assert_array_equal(_bits(np.array(there, kind), dtype), _bits(np.array(here, kind), dtype))


def test_rendering_nothing_is_empty() -> None:
    assert render([]) == ""


def test_names_are_distinct_across_modules() -> None:
    """Whatever selection is rendered, one name means one thing."""
    from tracemill.compiler.mathlib import library

    meanings: dict[str, Any] = {}
    for function in FUNCTIONS.values():
        order: dict[str, Any] = {}
        library._collect(function.python, order)
        for name, value in order.items():
            assert meanings.setdefault(name, value) is value
        assert function.needs == tuple(order)[:-1]
        assert f"def {function.name}(" in function.source


def test_importing_the_library_imports_no_numba() -> None:
    code = "import sys, tracemill.compiler.mathlib; print('numba' in sys.modules, 'mpmath' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_the_coefficients_are_what_the_fits_give() -> None:
    from pathlib import Path

    from tracemill.compiler.mathlib import coefficients, minimax

    assert Path(coefficients.__file__).read_text(encoding="utf-8") == minimax.generate()
