"""The short way through Numba: what it takes, what it leaves to Numba's own passes, and that both agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tracemill.compiler.backend import frontend, numba_cpu
from tracemill.compiler.backend.stages import Unsuited

HEAD = """from tracemill.compiler.backend.intrinsics import boolean, f32, f32_ptr, i64, select


def helper(a, b):
    if a > b:
        return a - b, a
    return b - a, b


def kernel(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    n = extents[0]
"""
SUITED = {
    "a swap in a loop": """
    a, b = f32(1.0), f32(2.0)
    for i in range(n):
        a, b = b, a + x[i]
        y[i] = a
""",
    "a literal that becomes a variable": """
    count = 0
    while count < n:
        step = 1
        if x[count] > f32(0.5):
            step = 2
        y[count] = f32(step)
        count += step
""",
    "a value of one branch only": """
    last = f32(-1.0)
    for i in range(n):
        if x[i] > f32(0.0):
            found = x[i]
            last = found
        y[i] = last
""",
    "tuples from a helper": """
    for i in range(n):
        distance, larger = helper(x[i], f32(0.25))
        both = (distance, larger)
        y[i] = both[0] * larger
""",
    "a loop that leaves early": """
    total = f32(0.0)
    for i in range(n):
        total = total + x[i]
        if total > f32(3.0):
            return 0
        y[i] = total
""",
    "a first statement that a loop returns to": """
    while n > 0:
        n -= 1
        y[n] = x[n] + f32(n)
""",
    "a name of two types one behind the other": """
    a = n + 1
    y[0] = f32(a)
    a = x[1]
    y[1] = a
""",
    "conditions": """
    for i in range(n):
        inside = (x[i] > f32(-1.0)) & (x[i] < f32(1.0))
        y[i] = select(inside and not x[i] == f32(0.5), x[i], f32(9.0)) if i != 3 else f32(i64(inside))
""",
}
UNSUITED = {
    "a name of two types in branches": """
    for i in range(n):
        if x[i] > f32(0.0):
            a = 1
        else:
            a = f32(0.5)
        y[i] = f32(a)
""",
}


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions that were left to Numba's own passes."""
    names: list[str] = []
    short = frontend.compile_stages

    def watched(*args: Any) -> Any:
        try:
            return short(*args)
        except Unsuited:
            names.append(args[2].__name__)
            raise

    monkeypatch.setattr(frontend, "compile_stages", watched)
    return names


def outcome(run: Any, body: str) -> tuple[int, np.ndarray[Any, Any]]:
    x = np.array([0.5, -0.75, 1.5, 0.25, 2.0, -3.0, 0.0, 0.5], np.float32)
    y = np.zeros(8, np.float32)
    code, _ = run(HEAD + body + "    return 0\n", [x, y], [8], 0, 1)
    return code, y


@pytest.mark.parametrize("name", [*SUITED, *UNSUITED])
def test_compiled_is_plain_python(name: str, compiled: Any, interpreted: Any, left_over: list[str]) -> None:
    body = (SUITED | UNSUITED)[name]
    code, found = outcome(compiled, body)
    wanted_code, wanted = outcome(interpreted, body)
    assert code == wanted_code
    np.testing.assert_array_equal(found, wanted)
    assert left_over == (["kernel"] if name in UNSUITED else [])


def test_errors_are_numbas(left_over: list[str]) -> None:
    with pytest.raises(numba_cpu.InternalError, match="missing"):
        numba_cpu.compile_source(HEAD + "    return missing(n)\n", "kernel")
    assert left_over == ["kernel"]
