"""Convolution and its gradients against plain NumPy, in both legs and any split."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from tracemill.compiler.contract.conv import ConvDims
from tracemill.compiler.contract.conv_forward import ConvForward
from tracemill.compiler.contract.conv_input_grad import ConvInputGrad
from tracemill.compiler.contract.conv_weight_grad import ConvWeightGrad
from tracemill.compiler.contract.text import EPILOGUE_SIGNATURE, Epilogue, tile_loads
from tracemill.compiler.contract.tiles import TileShape
from tracemill.ir import dtypes
from tracemill.ir.dims import evaluate, sym

# (batch, groups, channels, filters, input, window, strides, dilations, pads low/high)
CASES = {
    "plain": (2, 1, 3, 5, (7, 9), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "same": (1, 1, 4, 13, (8, 8), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "stride": (2, 1, 3, 4, (9, 11), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 0))),
    "stride-1x1": (1, 1, 5, 3, (6, 7), (1, 1), (2, 3), (1, 1), ((0, 0), (0, 0))),
    "dilated": (1, 1, 2, 3, (10, 11), (2, 3), (1, 2), (3, 2), ((2, 1), (0, 3))),
    "groups": (2, 3, 2, 2, (5, 6), (3, 2), (1, 1), (1, 1), ((1, 1), (1, 0))),
    "depthwise": (1, 18, 1, 1, (6, 6), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "1d": (2, 1, 3, 4, (20,), (4,), (2,), (1,), ((3, 1),)),
    "wide": (1, 1, 2, 3, (3, 300), (2, 5), (1, 1), (1, 1), ((0, 1), (2, 2))),
    "many": (1, 1, 20, 50, (5, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "empty": (0, 1, 3, 4, (5, 5), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0))),
}
ALL = {
    **CASES,
    "large": (2, 1, 35, 9, (40, 37), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
}


class Case:
    def __init__(self, name: str, dtype: dtypes.DType = dtypes.f32, seed: int = 0) -> None:
        n, g, c, o, self.size, self.window, self.strides, self.dilations, self.pads = ALL[name]
        self.dtype = dtype
        self.out = tuple(
            (s + sum(p) - (k - 1) * d - 1) // t + 1
            for s, p, k, d, t in zip(self.size, self.pads, self.window, self.dilations, self.strides, strict=True)
        )
        rng = np.random.default_rng(seed)
        self.groups = g
        self.x = rng.standard_normal((n, g * c, *self.size)).astype(dtype.numpy)
        self.w = rng.standard_normal((g * o, c, *self.window)).astype(dtype.numpy)
        self.dy = rng.standard_normal((n, g * o, *self.out)).astype(dtype.numpy)
        self.counts = (n, g, c, o)
        self.low = tuple(p[0] for p in self.pads)

    @property
    def dims(self):
        def two(values, one):
            return (one, *values) if len(values) == 1 else values

        return ConvDims(*self.counts, *two(self.size, 1), *two(self.out, 1), *two(self.low, 0))

    def structure(self):
        return {"window": self.window, "strides": self.strides, "dilations": self.dilations}

    def taps(self):
        """For every tap: its index, and the slices of the padded input that it meets."""
        for tap in itertools.product(*map(range, self.window)):
            yield (
                tap,
                tuple(
                    slice(k * d, k * d + (n - 1) * t + 1, t)
                    for k, d, n, t in zip(tap, self.dilations, self.out, self.strides, strict=True)
                ),
            )

    def grouped(self, a):
        return a.astype(np.float64).reshape(a.shape[0], self.groups, a.shape[1] // self.groups, *a.shape[2:])

    def padded(self):
        return np.pad(self.grouped(self.x), [(0, 0)] * 3 + list(self.pads))

    def weights(self):
        return self.w.astype(np.float64).reshape(self.groups, -1, *self.w.shape[1:])

    def forward(self):
        x, w = self.padded(), self.weights()
        y = sum(np.einsum("ngc...,goc->ngo...", x[(..., *at)], w[(..., *tap)]) for tap, at in self.taps())
        return y.reshape(self.dy.shape)

    def input_grad(self):
        dy, w = self.grouped(self.dy), self.weights()
        dx = np.zeros_like(self.padded())
        for tap, at in self.taps():
            dx[(..., *at)] += np.einsum("ngo...,goc->ngc...", dy, w[(..., *tap)])
        inner = tuple(slice(p[0], p[0] + n) for p, n in zip(self.pads, self.size, strict=True))
        return dx[(..., *inner)].reshape(self.x.shape)

    def weight_grad(self):
        x, dy = self.padded(), self.grouped(self.dy)
        dw = np.zeros_like(self.weights())
        for tap, at in self.taps():
            dw[(..., *tap)] = np.einsum(
                "ngcp,ngop->goc", *(a.reshape(*a.shape[:3], np.prod(self.out)) for a in (x[(..., *at)], dy))
            )
        return dw.reshape(self.w.shape)

    def tolerance(self):
        return {"f64": 1e-12, "f32": 2e-4, "f16": 0.1, "bf16": 0.7}[self.dtype.name]


def close(got, want, case):
    np.testing.assert_allclose(got.astype(np.float64), want, atol=case.tolerance(), rtol=case.tolerance())


def run(launch, spec, case, inputs, shape, shares=1, extra=()):
    steps, scratch = evaluate(spec.parallel_range(case.dims), {}), evaluate(spec.scratch_bytes(case.dims), {})
    own = (shape[1], int(np.prod(shape[2:]))) if getattr(spec, "epilogue", None) else ()
    (result,) = launch(
        spec.kernel(),
        [*inputs, *extra],
        [(shape, case.dtype.numpy)],
        (*case.dims, *own),
        steps,
        scratch,
        shares=shares,
    )
    return result


@pytest.mark.parametrize("name", CASES)
def test_forward(launch, name):
    case = Case(name)
    spec = ConvForward(case.dtype, **case.structure())
    y = run(launch, spec, case, [case.x, case.w], case.dy.shape)
    close(y, case.forward(), case)
    np.testing.assert_array_equal(run(launch, spec, case, [case.x, case.w], case.dy.shape, shares=3), y)


@pytest.mark.parametrize("dtype", [dtypes.f64, dtypes.f16, dtypes.bf16], ids=str)
def test_forward_dtypes(launch, dtype):
    case = Case("stride", dtype)
    close(
        run(launch, ConvForward(dtype, **case.structure()), case, [case.x, case.w], case.dy.shape),
        case.forward(),
        case,
    )


BIAS = f"""
{EPILOGUE_SIGNATURE}
    {"; ".join(tile_loads(dtypes.f32))}
    bias = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    for m in range(m0, m1):
        for n in range(n0, n1):
            value = acc[(m - m0) * acc_stride + n - n0] + bias[m]
            y[(b * extents[0] + m) * extents[1] + n] = value
    return 0
"""


@pytest.mark.parametrize("name", ["same", "groups", "wide"])
def test_forward_epilogue(launch, name):
    case = Case(name)
    bias = np.arange(case.w.shape[0], dtype=np.float32)
    spec = ConvForward(case.dtype, **case.structure(), epilogue=Epilogue(BIAS, 2, ("filters", "pixels")))
    y = run(launch, spec, case, [case.x, case.w, bias], case.dy.shape)
    close(y, case.forward() + bias[:, None, None], case)


def test_forward_bits_do_not_depend_on_tile_or_leg(launcher):
    case = Case("many")
    results = [
        run(
            launcher(leg),
            ConvForward(case.dtype, **case.structure(), tile=tile),
            case,
            [case.x, case.w],
            case.dy.shape,
        )
        for leg in ("plain", "compiled")
        for tile in (None, TileShape(4, 2, 4, 2))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_formulas_take_symbolic_sizes():
    case = Case("same")
    dims = case.dims._replace(batch=sym("B"))
    spec = ConvForward(case.dtype, **case.structure())
    assert evaluate(spec.parallel_range(dims), {"B": 5}) == 5


@pytest.mark.parametrize("name", CASES)
def test_input_grad(launch, name):
    case = Case(name)
    spec = ConvInputGrad(case.dtype, **case.structure())
    dx = run(launch, spec, case, [case.dy, case.w], case.x.shape)
    close(dx, case.input_grad(), case)
    np.testing.assert_array_equal(run(launch, spec, case, [case.dy, case.w], case.x.shape, shares=3), dx)


@pytest.mark.parametrize("dtype", [dtypes.f64, dtypes.f16, dtypes.bf16], ids=str)
def test_input_grad_dtypes(launch, dtype):
    case = Case("stride", dtype)
    close(
        run(launch, ConvInputGrad(dtype, **case.structure()), case, [case.dy, case.w], case.x.shape),
        case.input_grad(),
        case,
    )


DOUBLE = f"""
{EPILOGUE_SIGNATURE}
    {"; ".join(tile_loads(dtypes.f32))}
    dx = f32_ptr(buffers, 0)
    for m in range(m0, m1):
        for n in range(n0, n1):
            at = (b * extents[0] + m) * extents[1] + n
            dx[at] = acc[(m - m0) * acc_stride + n - n0] * f32(2.0)
    return 0
"""


def test_input_grad_epilogue(launch):
    case = Case("same")
    spec = ConvInputGrad(case.dtype, **case.structure(), epilogue=Epilogue(DOUBLE, 1, ("channels", "pixels")))
    close(run(launch, spec, case, [case.dy, case.w], case.x.shape), 2 * case.input_grad(), case)


def weight_grad(case):
    spec = ConvWeightGrad(case.dtype, **case.structure())
    return dataclasses.replace(spec, few=spec.holds_all_taps(case.dims.channels))


@pytest.mark.parametrize("name", CASES)
def test_weight_grad_with_any_channels(launch, name):
    case = Case(name)
    spec = ConvWeightGrad(case.dtype, **case.structure())
    few = run(launch, weight_grad(case), case, [case.x, case.dy], case.w.shape)
    np.testing.assert_array_equal(run(launch, spec, case, [case.x, case.dy], case.w.shape), few)


@pytest.mark.parametrize("name", CASES)
def test_weight_grad(launch, name):
    case = Case(name)
    spec = weight_grad(case)
    dw = run(launch, spec, case, [case.x, case.dy], case.w.shape)
    close(dw, case.weight_grad(), case)
    np.testing.assert_array_equal(run(launch, spec, case, [case.x, case.dy], case.w.shape, shares=3), dw)


@pytest.mark.parametrize("dtype", [dtypes.f64, dtypes.f16, dtypes.bf16], ids=str)
@pytest.mark.parametrize("name", ["stride", "many"])
def test_weight_grad_dtypes(launch, dtype, name):
    case = Case(name, dtype)
    close(
        run(launch, weight_grad(case), case, [case.x, case.dy], case.w.shape),
        case.weight_grad(),
        case,
    )


@pytest.mark.parametrize("launch", ["compiled"], indirect=True)
def test_weight_grad_of_many_rows(launch):
    """More pixels than one copy holds, more channels than one block."""
    case = Case("large")
    close(
        run(launch, ConvWeightGrad(case.dtype, **case.structure()), case, [case.x, case.dy], case.w.shape),
        case.weight_grad(),
        case,
    )
