"""The primitives' plain forms: fused multiply-adds to the bit, names, inlined epilogues."""

from __future__ import annotations

import numpy as np
import pytest
from tracemill.compiler.backend import intrinsics
from tracemill.compiler.contract.primitives import primitive
from tracemill.compiler.contract.softfma import fma_f32, fma_f64
from tracemill.compiler.contract.text import fill
from tracemill.compiler.contract.tiles import MicroKernel, TileShape, parse_micro_kernel, tile_shape
from tracemill.ir import dtypes


@pytest.mark.parametrize("dtype,fma", [(np.float32, fma_f32), (np.float64, fma_f64)])
def test_fma_rounds_once(dtype, fma):
    """Against exact rational arithmetic, where the sum cancels, where it is a tie, and anywhere."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(3000) * 2.0 ** rng.integers(-20, 20, 3000) for _ in range(2))
    a, b = a.astype(dtype), b.astype(dtype)
    c = -(a * b) * (1 + rng.integers(-3, 4, 3000) * np.finfo(dtype).eps)
    c[::3] *= 2.0 ** rng.integers(-60, 60, 1000)
    c = c.astype(dtype)
    want = [intrinsics.fma(*operands) for operands in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(fma(a, b, c), np.array(want, dtype))


def test_fma_of_special_values():
    inf, nan = np.inf, np.nan
    a, b, c = (np.array(v, np.float64) for v in ([inf, inf, 1, 0, nan], [1, 0, 1e308, inf, 1], [-inf, 1, 1e308, 1, 1]))
    for fma in (fma_f32, fma_f64):
        got = fma(a, b, c)
        assert np.isnan(got[[0, 1, 3, 4]]).all() and got[2] in (np.float64(2e308), np.inf)


def test_names_of_micro_kernels():
    for kernel in (
        MicroKernel("f32", TileShape(12, 2, 16, 4)),
        MicroKernel("f64", tile_shape(dtypes.f64, "avx2", vectors=3), indexed=True),
    ):
        assert parse_micro_kernel(kernel.name) == kernel
        assert primitive(kernel.name) is primitive(kernel.name) is not None
    assert parse_micro_kernel("rows") is None and primitive("rows") is None


def test_fill_indents_blocks_and_drops_empty_ones():
    text = fill("def f():\n    $body\n    $nothing\n    return ${name}_1", body="a = 1\nb = 2", nothing="", name="x")
    assert text == "def f():\n    a = 1\n    b = 2\n    return x_1\n"
