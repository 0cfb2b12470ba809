"""Window kernels against the operator table's references, in both legs and any split."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tracemill.compiler.contract.window import Window
from tracemill.ir import dtypes
from tracemill.ir.dims import evaluate, sym
from tracemill.ir.ops import window as reference
from tracemill.ir.types import TensorType

# (planes, input, window, strides, dilations, pads)
CASES = {
    "2x2": (6, (6, 8), (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0))),
    "overlap": (3, (7, 9), (3, 3), (2, 1), (1, 1), ((1, 1), (1, 0))),
    "dilated": (2, (9, 11), (2, 3), (1, 2), (3, 2), ((2, 1), (0, 3))),
    "1d": (4, (13,), (3,), (2,), (2,), ((2, 1),)),
    "3d": (2, (4, 5, 6), (2, 2, 3), (1, 2, 2), (1, 1, 1), ((0, 1), (1, 0), (1, 1))),
    "all padding": (1, (2, 2), (1, 1), (1, 1), (1, 1), ((3, 3), (2, 2))),
    "whole": (5, (7, 7), (7, 7), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "empty": (0, (4, 4), (2, 2), (1, 1), (1, 1), ((0, 0), (0, 0))),
}
REFERENCES = {
    "max": lambda a, t, x: reference._best(a, t, x)[0],
    "argmax": lambda a, t, x: reference._best(a, t, x)[1],
    "sum": reference._window_sum,
    "spread": reference._window_spread,
}


def geometry(name):
    planes, size, window, strides, dilations, pads = CASES[name]
    out = tuple(
        (n + sum(p) - (k - 1) * d - 1) // s + 1
        for n, p, k, d, s in zip(size, pads, window, dilations, strides, strict=True)
    )
    attrs = SimpleNamespace(window=window, stride=strides, dilation=dilations, pads=pads)
    return planes, size, out, attrs


def check(launch, kind, name, dtype, shares):
    planes, size, out, attrs = geometry(name)
    rng = np.random.default_rng(len(name))
    inputs, outputs = ((planes, *size), (planes, *out))
    if kind == "spread":
        inputs, outputs = outputs, inputs
    x = rng.integers(-4, 5, inputs).astype(dtype.numpy)
    if dtype.is_float and kind in ("max", "argmax") and x.size:
        x.reshape(-1)[rng.integers(0, x.size, 5)] = [np.nan, -np.inf, np.inf, np.nan, -0.0]
    want_type = dtypes.i64 if kind == "argmax" else dtype
    wide = x.astype(dtype.compute.numpy)
    want = REFERENCES[kind](attrs, TensorType(want_type, outputs), wide).astype(want_type.numpy)
    if kind == "max" and not dtype.is_float:
        want = REFERENCES[kind](attrs, TensorType(want_type, outputs), x)
    spec = Window(kind, dtype, attrs.window, attrs.stride, attrs.dilation)
    (y,) = launch(
        spec.kernel(),
        [x],
        [(outputs, want_type.numpy)],
        [planes, *size, *out, *(p[0] for p in attrs.pads)],
        spec.parallel_range(planes, size, out),
        spec.scratch_bytes(size, out),
        shares=shares,
    )
    np.testing.assert_array_equal(y.astype(np.float64), want.astype(np.float64))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", REFERENCES)
def test_windows(launch, kind, name):
    for shares in (1, 3):
        check(launch, kind, name, dtypes.f32, shares)


@pytest.mark.parametrize("dtype", [dtypes.f64, dtypes.f16, dtypes.bf16, dtypes.i32, dtypes.i64], ids=str)
@pytest.mark.parametrize("kind", REFERENCES)
def test_dtypes(launch, kind, dtype):
    check(launch, kind, "overlap", dtype, 2)


def test_formulas_take_symbolic_sizes():
    spec = Window("max", dtypes.f32, (2, 2), (2, 2), (1, 1))
    assert evaluate(spec.parallel_range(sym("B") * 8, (28, 28), (14, 14)), {"B": 3}) == 3 * 8 * 14
