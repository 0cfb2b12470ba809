"""Generated sources compiled to objects: the ABI, equality with plain Python, aliasing, what is refused."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.backend import numba_cpu
from tracemill.compiler.backend.flags import CompileFlags
from tracemill.ir.errors import InternalError, TracemillError
from tracemill.runtime import elf
from tracemill.runtime.loader import load_object

MULTIPLY_ADD = """
from tracemill.compiler.backend.intrinsics import f32, f32_ptr

def kernel(buffers, extents, begin, end, scratch, status):
    a = f32_ptr(buffers, 0)
    b = f32_ptr(buffers, 1)
    y = f32_ptr(buffers, 2)
    for i in range(begin, end):
        y[i] = a[i] * b[i] + f32(0.1)
    return 0
"""

LANE_SUM = """
from tracemill.compiler.backend.intrinsics import f32, f32_at, f32_ptr, local_f32

def lane_sum(x, start, count):
    lanes = local_f32(16)
    for lane in range(16):
        lanes[lane] = f32(0.0)
    whole = count // 16
    for j in range(whole):
        for lane in range(16):
            lanes[lane] += x[start + j * 16 + lane]
    for lane in range(count - whole * 16):
        lanes[lane] += x[start + whole * 16 + lane]
    width = 8
    while width > 0:
        for lane in range(width):
            lanes[lane] += lanes[lane + width]
        width = width // 2
    return lanes[0]

def kernel(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    n = extents[0]
    blocks = f32_at(scratch, 64)
    for row in range(begin, end):
        used = 0
        for start in range(0, n, 64):
            blocks[used] = lane_sum(x, row * n + start, min(64, n - start))
            used += 1
        total = f32(0.0)
        for j in range(used):
            total += blocks[j]
        y[row] = total
    return 0
"""

GATHER = """
from tracemill.compiler.backend.intrinsics import f64_ptr, fail, i64_ptr

def kernel(buffers, extents, begin, end, scratch, status):
    table = f64_ptr(buffers, 0)
    index = i64_ptr(buffers, 1)
    y = f64_ptr(buffers, 2)
    for i in range(begin, end):
        j = index[i]
        if j < 0 or j >= extents[0]:
            return fail(status, 1, extents[1], j, extents[0])
        y[i] = table[j]
    return 0
"""


def both(
    compiled: Any, interpreted: Any, source: str, buffers: Any, outputs: Any, *rest: Any, **flags: Any
) -> Any:
    """Run both ways on fresh outputs; require the same bits; return the outputs."""
    results = []
    for run, more in ((compiled, flags), (interpreted, {})):
        fresh = [np.zeros_like(output) for output in outputs]
        results.append((run(source, [*buffers, *fresh], *rest, **more), fresh))
    (ours, a), (theirs, b) = results
    assert ours == theirs
    for x, y in zip(a, b, strict=True):
        assert x.tobytes() == y.tobytes()
    return ours, a


def test_elementwise_is_vectorised_and_not_contracted(compiled: Any, interpreted: Any) -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 1003)).astype(np.float32)
    _, (y,) = both(compiled, interpreted, MULTIPLY_ADD, [a, b], [np.zeros_like(a)], [a.size], 3, 1000)
    assert np.array_equal(y[3:1000], (a * b + np.float32(0.1))[3:1000])
    assert not y[:3].any() and not y[1000:].any()
    text = numba_cpu.emit(MULTIPLY_ADD, "kernel")
    assert re.search(r"fmul <\d+ x float>", text) and "vector.memcheck" not in text
    assert not re.search("fmadd|fmla", numba_cpu.emit(MULTIPLY_ADD, "kernel", "asm"))


def test_without_noalias_llvm_checks_at_run_time(compiled: Any) -> None:
    assert "vector.memcheck" in numba_cpu.emit(MULTIPLY_ADD, "kernel", flags=CompileFlags(noalias=False))
    base = np.arange(101, dtype=np.float32)
    one = np.ones(100, np.float32)
    shifted = base.copy()
    compiled(MULTIPLY_ADD, [shifted[:100], one, shifted[1:]], [100], 0, 100, noalias=False)
    want = base.copy()
    for i in range(100):
        want[i + 1] = want[i] + np.float32(0.1)
    assert np.array_equal(shifted, want)


def test_in_place_operands_share_a_pointer_and_stay_vectorised(compiled: Any) -> None:
    text = numba_cpu.emit(MULTIPLY_ADD, "kernel", flags=CompileFlags(in_place=((0, 2),)))
    assert re.search(r"fmul <\d+ x float>", text) and "vector.memcheck" not in text
    a, b = np.random.default_rng(1).standard_normal((2, 500)).astype(np.float32)
    want = a * b + np.float32(0.1)
    compiled(MULTIPLY_ADD, [a, b, a], [500], 0, 500, in_place=((0, 2),))
    assert np.array_equal(a, want)


@pytest.mark.parametrize("n", [1, 15, 16, 63, 64, 65, 200])
def test_lane_reduction_with_helper_scratch_and_locals(n: int, compiled: Any, interpreted: Any) -> None:
    x = np.random.default_rng(n).standard_normal(4 * n).astype(np.float32)
    _, (y,) = both(compiled, interpreted, LANE_SUM, [x], [np.zeros(4, np.float32)], [n], 1, 4)
    assert np.allclose(y[1:], x.reshape(4, n).sum(1, dtype=np.float64)[1:], atol=1e-4)


def test_lane_reduction_is_vectorised() -> None:
    assert re.search(r"fadd <(8|16) x float>", numba_cpu.emit(LANE_SUM, "kernel"))


def test_status_tells_bad_data(compiled: Any, interpreted: Any) -> None:
    table, index = np.arange(5.0), np.array([0, 4, 9, 1])
    result, (y,) = both(compiled, interpreted, GATHER, [table, index], [np.zeros(4)], [5, 77], 0, 4)
    assert result == (1, [1, 77, 9, 5])
    assert y.tolist() == [0, 4, 0, 0]


def test_copy_and_fill_loops_call_nothing(compiled: Any) -> None:
    source = MULTIPLY_ADD.replace("a[i] * b[i] + f32(0.1)", "a[i]")
    x, y = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    compiled(source, [x, x, y], [], 0, 1000)
    assert np.array_equal(x, y)
    fill = MULTIPLY_ADD.replace("a[i] * b[i] + f32(0.1)", "f32(0.0)")
    assert elf.read(numba_cpu.compile_source(fill, "kernel")).undefined() == []


def test_computed_slots_and_groups(compiled: Any, interpreted: Any) -> None:
    source = """
from tracemill.compiler.backend.intrinsics import f32_ptr, offset

def kernel(buffers, extents, begin, end, scratch, status):
    count = extents[0]
    for k in range(begin, end):
        x = f32_ptr(buffers, k, 0)
        y = offset(f32_ptr(buffers, count + k, 1), 2)
        for i in range(extents[1 + k]):
            y[i] = x[i] + x[i]
    return 0
"""
    inputs = [np.arange(n, dtype=np.float32) for n in (5, 40, 17)]
    outputs = [np.zeros(x.size + 2, np.float32) for x in inputs]
    _, got = both(compiled, interpreted, source, inputs, outputs, [3, 5, 40, 17], 0, 3)
    assert all(np.array_equal(y[2:], 2 * x) for x, y in zip(inputs, got, strict=True))
    assert "vector.memcheck" not in numba_cpu.emit(source, "kernel")


def test_booleans_bytes_and_integer_division(compiled: Any, interpreted: Any) -> None:
    source = """
from tracemill.compiler.backend.intrinsics import bool_ptr, i32, i32_ptr, u8_ptr, udiv, urem

def kernel(buffers, extents, begin, end, scratch, status):
    x = i32_ptr(buffers, 0)
    odd = bool_ptr(buffers, 1)
    small = u8_ptr(buffers, 2)
    n = extents[0]
    for i in range(begin, end):
        odd[i] = x[i] % 2 == 1
        small[i] = udiv(i, n) + urem(i, n)
        if odd[i] and not small[i] > 3:
            small[i] = 200 + i32(odd[i])
    return 0
"""
    x = np.arange(-20, 20, dtype=np.int32)
    _, (odd, small) = both(
        compiled, interpreted, source, [x], [np.zeros(40, bool), np.zeros(40, np.uint8)], [7], 0, 40
    )
    assert np.array_equal(odd, x % 2 == 1)
    assert small[1] == 201 and small[15] == 201 and small[38] == 8


def test_mathematical_functions_can_be_called(compiled: Any, interpreted: Any) -> None:
    source = """
import math
import numpy as np
from tracemill.compiler.backend.intrinsics import bits_f32, f32, f32_bits, f32_ptr, i32, local_f32, select

TABLE = (1.0, 0.5, 0.25)

def scale(x, k):
    return bits_f32(i32(f32_bits(x) + (k << 23)))

def kernel(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    limit = np.float32(math.inf)
    for i in range(begin, end):
        t = scale(x[i], 3) * f32(TABLE[1])
        y[i] = select(t < limit, t, f32(0.0))
    return 0
"""
    x = np.random.default_rng(3).standard_normal(100).astype(np.float32)
    _, (y,) = both(compiled, interpreted, source, [x], [np.zeros_like(x)], [], 0, 100)
    assert np.array_equal(y, x * 4)


def test_global_arrays_are_constant_tables(compiled: Any, interpreted: Any) -> None:
    source = """
import numpy as np
from tracemill.compiler.backend.intrinsics import f64_ptr, i32_ptr

SQUARES = np.arange(40, dtype=np.float64) ** 2
STEPS = np.array([3, 1, 2], np.int32)

def entry_of(i):
    return SQUARES[i * STEPS[i % 3]]

def kernel(buffers, extents, begin, end, scratch, status):
    y = f64_ptr(buffers, 0)
    for i in range(begin, end):
        y[i] = entry_of(i)
    return 0
"""
    _, (y,) = both(compiled, interpreted, source, [], [np.zeros(10)], [], 0, 10)
    assert y.tolist() == [float(i * [3, 1, 2][i % 3]) ** 2 for i in range(10)]


def test_same_source_gives_the_same_bytes() -> None:
    first = numba_cpu.compile_source(LANE_SUM, "kernel")
    numba_cpu.compile_source(GATHER, "kernel")
    assert numba_cpu.compile_source(LANE_SUM, "kernel") == first
    assert len(first) < 4096
    assert elf.read(first).defined() == [numba_cpu.kernel_symbol(LANE_SUM, "kernel")]


def test_cpu_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "zmm" not in numba_cpu.emit(MULTIPLY_ADD, "kernel", "asm", cpu="x86-64-v3")
    monkeypatch.setenv("TRACEMILL_CPU", "nonsense")
    with pytest.raises(TracemillError, match="does not know the CPU 'nonsense'"):
        numba_cpu.emit(MULTIPLY_ADD, "kernel", "asm")
    monkeypatch.setenv("TRACEMILL_CPU", "x86-64")
    assert "ymm" not in numba_cpu.emit(MULTIPLY_ADD, "kernel", "asm")


def test_baseline_cpu_gives_the_same_bits(call: Any) -> None:
    x = np.random.default_rng(5).standard_normal(400).astype(np.float32)
    outputs = []
    for cpu in ("native", "x86-64"):
        data = numba_cpu.compile_source(LANE_SUM, "kernel", cpu=cpu)
        y = np.zeros(4, np.float32)
        call(load_object(data, numba_cpu.kernel_symbol(LANE_SUM, "kernel")), [x, y], [100], 0, 4)
        outputs.append(y.tobytes())
    assert outputs[0] == outputs[1]


def test_outside_symbols_are_refused_unless_allowed() -> None:
    source = """
import math
from tracemill.compiler.backend.intrinsics import f64_ptr

def kernel(buffers, extents, begin, end, scratch, status):
    x = f64_ptr(buffers, 0)
    for i in range(begin, end):
        x[i] = math.erf(x[i])
    return 0
"""
    with pytest.raises(InternalError, match="outside itself: erf"):
        numba_cpu.compile_source(source, "kernel")
    data = numba_cpu.compile_source(source, "kernel", externals=["erf"])
    assert load_object(data, numba_cpu.kernel_symbol(source, "kernel"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return missing(1)", "missing"),
        ("    raise ValueError('no')", "cannot compile|may not raise"),
        ("    return f32_ptr(buffers, 0)[1.5]", "getitem"),
        ("    return [1, 2][0]", "cannot compile"),
    ],
)
def test_what_kernels_may_not_do_is_an_internal_error(body: str, message: str) -> None:
    source = f"""
from tracemill.compiler.backend.intrinsics import f32_ptr

def kernel(buffers, extents, begin, end, scratch, status):
{body}
"""
    with pytest.raises(InternalError, match=message):
        numba_cpu.compile_source(source, "kernel")


def test_wrong_arguments() -> None:
    with pytest.raises(InternalError, match="no function 'other'"):
        numba_cpu.compile_source(MULTIPLY_ADD, "other")
    with pytest.raises(TracemillError, match="neither"):
        numba_cpu.emit(MULTIPLY_ADD, "kernel", "cuda")  # type: ignore[arg-type]


def test_threads_may_compile_at_the_same_time() -> None:
    sources = [MULTIPLY_ADD.replace("0.1", f"{n}.25") for n in range(6)]
    want = [numba_cpu.compile_source(source, "kernel") for source in sources]
    got: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda n=n: got.update({n: numba_cpu.compile_source(sources[n], "kernel")}))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[n] for n in range(6)] == want
