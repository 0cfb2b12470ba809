"""Plain transpositions: whole squares by registers, what is left over by elements, every bit of every element."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_node
from tracemill.compiler.lower import lower
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import DType, boolean, f32, f64, i32
from tracemill.ir.graph import input_node
from tracemill.ir.types import TensorType

b = Builder()
B, M, N = sym("B"), sym("M"), sym("N")


@pytest.mark.parametrize("dtype", [f32, f64, i32, boolean], ids=str)
@pytest.mark.parametrize("leg", ["plain", "compiled"])
def test_sides_of_every_size(leg: str, dtype: DType) -> None:
    """One kernel for all of them: its sides are arguments."""
    x = input_node(0, TensorType(dtype, (B, M, N)))
    node = b.permute(x, dims=(0, 2, 1))
    (launch,) = lower(node).launches
    assert ("transpose_" in launch.kernel.source) is dtype.is_float
    rng = np.random.default_rng(0)
    for m, n in ((1, 1), (3, 70), (16, 64), (15, 17), (33, 130), (64, 16), (200, 31)):
        a = rng.integers(0, 256, (2, m, n, dtype.itemsize), np.uint8)  # also NaNs with payloads
        a = (a[..., 0] > 127) if dtype.is_bool else a.view(dtype.numpy)[..., 0]
        for cuts in (1, 3):
            (found,) = run_node(node, [a], {"B": 2, "M": m, "N": n}, leg=leg, cuts=cuts)
            assert found.tobytes() == np.ascontiguousarray(a.transpose(0, 2, 1)).tobytes()


@pytest.mark.parametrize("dims", [(0, 3, 1, 2), (0, 2, 3, 1), (2, 3, 0, 1), (3, 1, 0, 2), (1, 2, 3, 0)])
def test_axes_apart(dims: tuple[int, ...]) -> None:
    x = input_node(0, TensorType(f32, (3, 18, 5, 40)))
    a = np.random.default_rng(1).standard_normal((3, 18, 5, 40)).astype(np.float32)
    for leg in ("plain", "compiled"):
        (found,) = run_node(b.permute(x, dims=dims), [a], {}, leg=leg)
        np.testing.assert_array_equal(found, a.transpose(dims))
