"""The intrinsics as plain Python and compiled give the same bits, and the right ones."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tracemill.compiler.backend import intrinsics

CONVERSION = """
from tracemill.compiler.backend.intrinsics import {function}, {source}_ptr, {target}_ptr

def kernel(buffers, extents, begin, end, scratch, status):
    x = {source}_ptr(buffers, 0)
    y = {target}_ptr(buffers, 1)
    for i in range(begin, end):
        y[i] = {function}(x[i])
    return 0
"""


def convert(run: Any, function: str, source: str, target: str, x: Any, dtype: Any) -> Any:
    y = np.zeros(x.size, dtype)
    text = CONVERSION.format(function=function, source=source, target=target)
    assert run(text, [x, y], [x.size], 0, x.size) == (0, [0, 0, 0, 0])
    return y


def f32_around_f16() -> Any:
    """Every float32 next to a float16 value or to a midpoint of two, both signs: rounding is monotone
    between.
    """
    values = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float64)
    values[-1] = 65536.0  # where the next float16 after the largest would be
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    near = np.concatenate(
        [points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-1))]
    )
    extra = np.array([np.inf, np.nan, 1e30, 3.4e38, 1e-45, 1e-38, 0], np.float32)
    both = np.concatenate([near, extra])
    return np.concatenate([both, -both])


def assert_same_halves(ours: Any, theirs: Any, narrow: Any) -> None:
    nan = np.isnan(theirs.view(narrow).astype(np.float32))
    assert np.array_equal(nan, np.isnan(ours.view(narrow).astype(np.float32)))
    assert np.array_equal(ours[~nan], theirs[~nan])
    assert np.array_equal(ours[nan] >> 15, theirs[nan] >> 15)


def test_f16_to_f32_is_exact_for_all_bits(compiled: Any, interpreted: Any) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    want = bits.view(np.float16).astype(np.float32)
    got = convert(compiled, "f16_to_f32", "u16", "f32", bits, np.float32)
    nan = np.isnan(want)
    assert np.array_equal(got.view(np.uint32)[~nan], want.view(np.uint32)[~nan])
    assert np.isnan(got[nan]).all()
    some = bits[::37].copy()
    assert np.array_equal(
        convert(interpreted, "f16_to_f32", "u16", "f32", some, np.float32), want[::37], equal_nan=True
    )


def test_bf16_to_f32_is_exact_for_all_bits(compiled: Any, interpreted: Any) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    want = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    got = convert(compiled, "bf16_to_f32", "u16", "f32", bits, np.float32)
    assert np.array_equal(got, want, equal_nan=True)
    assert np.array_equal(got.view(np.uint32), bits.astype(np.uint32) << 16)
    some = bits[::37].copy()
    assert np.array_equal(
        convert(interpreted, "bf16_to_f32", "u16", "f32", some, np.float32), want[::37], equal_nan=True
    )


def test_f32_to_f16_rounds_to_nearest_even(compiled: Any, interpreted: Any) -> None:
    x = f32_around_f16()
    with np.errstate(over="ignore"):
        want = x.astype(np.float16).view(np.uint16)
    assert_same_halves(convert(compiled, "f32_to_f16", "f32", "u16", x, np.uint16), want, np.float16)
    some = slice(None, None, 41)
    got = convert(interpreted, "f32_to_f16", "f32", "u16", x[some].copy(), np.uint16)
    assert np.array_equal(got, convert(compiled, "f32_to_f16", "f32", "u16", x[some].copy(), np.uint16))


def test_f64_to_f16_rounds_once(compiled: Any, interpreted: Any) -> None:
    x = f32_around_f16().astype(np.float64)
    x = np.concatenate(
        [x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf), [1e300, -1e300, 1e-300, 5e-324]]
    )
    with np.errstate(over="ignore"):
        want = x.astype(np.float16).view(np.uint16)
    assert_same_halves(convert(compiled, "f64_to_f16", "f64", "u16", x, np.uint16), want, np.float16)
    some = x[::97].copy()
    got = convert(interpreted, "f64_to_f16", "f64", "u16", some, np.uint16)
    assert np.array_equal(got, convert(compiled, "f64_to_f16", "f64", "u16", some, np.uint16))


def test_f32_to_bf16_rounds_to_nearest_even(compiled: Any, interpreted: Any) -> None:
    # Every float32 whose dropped bits are 0, 1, just below, at, just above the midpoint, or all ones.
    high = np.arange(65536, dtype=np.uint32)[:, None] << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (high | low).reshape(-1).view(np.float32)
    with np.errstate(all="ignore"):
        want = x.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert_same_halves(convert(compiled, "f32_to_bf16", "f32", "u16", x, np.uint16), want, ml_dtypes.bfloat16)
    some = x[::991].copy()
    got = convert(interpreted, "f32_to_bf16", "f32", "u16", some, np.uint16)
    assert np.array_equal(got, convert(compiled, "f32_to_bf16", "f32", "u16", some, np.uint16))


SPECIAL = {
    "f32": np.array([0.0, -0.0, 0.5, -1.5, 2.5, 127.9, 128, -129, 255.5, 256, 3e9, -3e9, 1e20, -1e20, 3e38,
                     np.nan, np.inf, -np.inf], np.float32),
    "f64": np.array([0.0, -0.0, 1e-300, -1.9999999, 2.0**31, 2**53 + 2.0, -(2.0**63), 2.0**63,
                     2.0**64, 1e300, np.nan, np.inf, -np.inf, 1 + 2**-24, 1 + 3 * 2**-24]),
    "i8": np.array([-128, -1, 0, 1, 127], np.int8),
    "i16": np.array([-32768, -129, 0, 300, 32767], np.int16),
    "i32": np.array([-(2**31), -1, 0, 2**24 + 1, 2**31 - 1], np.int32),
    "i64": np.array([-(2**63), -(2**53) - 1, 0, 2**32 + 5, 2**63 - 1], np.int64),
    "u8": np.array([0, 127, 128, 255], np.uint8),
    "u32": np.array([0, 2**31, 2**32 - 1], np.uint32),
    "u64": np.array([0, 2**63, 2**64 - 1], np.uint64),
    "bool": np.array([False, True]),
}  # fmt: skip
CONSTRUCTOR_NAMES = {"bool": "boolean"}


@pytest.mark.parametrize("target", sorted(intrinsics.CONSTRUCTORS))
def test_constructors_convert_alike(target: str, compiled: Any, interpreted: Any) -> None:
    name = CONSTRUCTOR_NAMES.get(target, target)
    sources = list(SPECIAL)
    lines = [f"from tracemill.compiler.backend.intrinsics import {name}, {target}_ptr"]
    lines += [f"from tracemill.compiler.backend.intrinsics import {source}_ptr" for source in sources]
    lines += ["def kernel(buffers, extents, begin, end, scratch, status):"]
    for slot, source in enumerate(sources):
        lines += [
            f"    x{slot} = {source}_ptr(buffers, {2 * slot})",
            f"    y{slot} = {target}_ptr(buffers, {2 * slot + 1})",
            f"    for i in range(extents[{slot}]):",
            f"        y{slot}[i] = {name}(x{slot}[i])",
        ]
    text = "\n".join([*lines, "    return 0", ""])
    dtype = intrinsics.POINTER_DTYPES[target]

    def run(how: Any) -> list[Any]:
        outputs = [np.zeros(SPECIAL[source].size, dtype) for source in sources]
        buffers = list(itertools.chain.from_iterable(zip(SPECIAL.values(), outputs, strict=True)))
        assert how(text, buffers, [x.size for x in SPECIAL.values()], 0, 0)[0] == 0
        return outputs

    for source, ours, theirs in zip(sources, run(compiled), run(interpreted), strict=True):
        assert np.array_equal(ours, theirs, equal_nan=target in ("f32", "f64")), source
    if target == "i32":
        assert run(compiled)[0].tolist() == [
            0, 0, 0, -1, 2, 127, 128, -129, 255, 256, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 2**31 - 1, 0,
            2**31 - 1, -(2**31)]  # fmt: skip


FLOAT_OPERATIONS = """
from tracemill.compiler.backend.intrinsics import (
    ceil, copysign, {t}_ptr, fabs, floor, fma, rint, select, sqrt, trunc)

def kernel(buffers, extents, begin, end, scratch, status):
    a = {t}_ptr(buffers, 0)
    b = {t}_ptr(buffers, 1)
    c = {t}_ptr(buffers, 2)
    y = {t}_ptr(buffers, 3)
    n = extents[0]
    for i in range(begin, end):
        y[i] = sqrt(a[i])
        y[n + i] = fabs(a[i])
        y[2 * n + i] = copysign(a[i], b[i])
        y[3 * n + i] = fma(a[i], b[i], c[i])
        y[4 * n + i] = floor(a[i])
        y[5 * n + i] = ceil(a[i])
        y[6 * n + i] = trunc(a[i])
        y[7 * n + i] = rint(a[i])
        y[8 * n + i] = select(a[i] < b[i], a[i], c[i])
    return 0
"""


@pytest.mark.parametrize(("name", "dtype"), [("f32", np.float32), ("f64", np.float64)])
def test_float_operations(name: str, dtype: Any, compiled: Any, interpreted: Any) -> None:
    random = np.random.default_rng(7)
    a, b, c = (random.standard_normal((3, 400)) * 10.0 ** random.integers(-6, 7, (3, 400))).astype(dtype)
    c[100:300] = -(a * b)[100:300]  # cancellation: one rounding or two differ
    b[:4] = np.finfo(dtype).tiny
    a[:10] = [0.0, -0.0, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, np.finfo(dtype).max]
    results = []
    for run in (compiled, interpreted):
        y = np.zeros(9 * a.size, dtype)
        assert run(FLOAT_OPERATIONS.format(t=name), [a, b, c, y], [a.size], 0, a.size)[0] == 0
        results.append(y)
    ours, theirs = results
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert np.array_equal(np.signbit(ours[~np.isnan(ours)]), np.signbit(theirs[~np.isnan(ours)]))
    product = a.astype(np.longdouble) * b + c
    fused = ours[3 * a.size : 4 * a.size]
    ordinary = (a * b + c)[100:300]
    assert (ordinary == 0).all() and (fused[100:300] != 0).mean() > 0.9
    assert np.allclose(fused[100:300], product[100:300].astype(dtype), rtol=1e-3 if name == "f64" else 1e-6)


def test_exported_names_exist() -> None:
    assert all(hasattr(intrinsics, name) for name in intrinsics.__all__)
