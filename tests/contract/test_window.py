"""Window kernels against the operator table's references, in both legs and any split."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tracemill.compiler.contract.window import PLACED, TRANSPOSED, Window
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
    "many taps": (2, (17, 18), (16, 17), (1, 1), (1, 1), ((0, 0), (0, 1))),
    "empty": (0, (4, 4), (2, 2), (1, 1), (1, 1), ((0, 0), (0, 0))),
}
REFERENCES = {
    "max": lambda a, t, x: reference._best(a, t, x)[0],
    "argmax": reference._argmax,
    "sum": reference._window_sum,
    "take": reference._window_take,
    "spread": reference._window_spread,
    "put": reference._window_put,
}


def geometry(name):
    planes, size, window, strides, dilations, pads = CASES[name]
    out = tuple(
        (n + sum(p) - (k - 1) * d - 1) // s + 1
        for n, p, k, d, s in zip(size, pads, window, dilations, strides, strict=True)
    )
    return planes, size, out, SimpleNamespace(window=window, stride=strides, dilation=dilations, pads=pads)


def widened(attrs):
    """The same windows in front of an axis that they do not move over."""
    return SimpleNamespace(window=(*attrs.window, 1), stride=(*attrs.stride, 1), dilation=(*attrs.dilation, 1),
                           pads=(*attrs.pads, (0, 0)))


def check(launch, kind, name, dtype, shares, channels=None):
    planes, size, out, attrs = geometry(name)
    rng = np.random.default_rng(len(name))
    behind, all_attrs = ((), attrs) if channels is None else ((channels,), widened(attrs))
    inputs, outputs = ((planes, *size, *behind), (planes, *out, *behind))
    taps = reference.place_dtype(attrs.window)
    operands = [rng.integers(0, np.prod(attrs.window) + 1, outputs).astype(taps.numpy)] * (kind in PLACED)
    if kind in TRANSPOSED:
        inputs, outputs = outputs, inputs
    x = rng.integers(-4, 5, inputs).astype(dtype.numpy)
    if dtype.is_float and kind in ("max", "argmax") and x.size:
        x.reshape(-1)[rng.integers(0, x.size, 5)] = [np.nan, -np.inf, np.inf, np.nan, -0.0]
    want_type = taps if kind == "argmax" else dtype
    wide = x.astype(dtype.compute.numpy) if dtype.is_float else x
    want = REFERENCES[kind](all_attrs, TensorType(want_type, outputs), wide, *operands).astype(want_type.numpy)
    spec = Window(kind, dtype, attrs.window, attrs.stride, attrs.dilation, channels is not None)
    (y,) = launch(
        spec.kernel(),
        [x, *operands],
        [(outputs, want_type.numpy)],
        [planes, *size, *out, *(p[0] for p in attrs.pads), *behind],
        spec.parallel_range(planes, size, out),
        spec.scratch_bytes(size, out, channels or 1),
        shares=shares,
    )
    np.testing.assert_array_equal(y.astype(np.float64), want.astype(np.float64))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", REFERENCES)
def test_windows(launch, kind, name):
    for shares in (1, 3):
        check(launch, kind, name, dtypes.f32, shares)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", REFERENCES)
def test_windows_in_front_of_channels(launch, kind, name):
    for shares, channels in ((1, 3), (2, 40)):
        check(launch, kind, name, dtypes.f32, shares, channels)


@pytest.mark.parametrize("dtype", [dtypes.f64, dtypes.f16, dtypes.bf16, dtypes.i32, dtypes.i64], ids=str)
@pytest.mark.parametrize("kind", REFERENCES)
def test_dtypes(launch, kind, dtype):
    for channels in (None, 17):
        check(launch, kind, "overlap", dtype, 2, channels)


def test_formulas_take_symbolic_sizes():
    spec = Window("max", dtypes.f32, (2, 2), (2, 2), (1, 1))
    assert evaluate(spec.parallel_range(sym("B") * 8, (28, 28), (14, 14)), {"B": 3}) == 3 * 8 * 14
