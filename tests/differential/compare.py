"""How results are compared, and the ways a graph can be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracemill.compiler import driver
from tracemill.ir.graph import Graph
from tracemill.ir.interp import evaluate

Array = np.ndarray[Any, Any]


def reference(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """By the NumPy interpreter."""
    return evaluate(driver.expand_symbolic(graph), inputs)


def compiled(graph: Graph, inputs: Sequence[Array], fuse: bool = True) -> list[Array]:
    """By generated kernels."""
    run = driver.compile_graph(graph, driver.CompileOptions(fuse=fuse))
    return run.run([a.copy() for a in inputs])


# Results below this are differences of larger terms (a softmax's gradient under a uniform cotangent is zero): their
# rounding is measured on the scale of the terms, not of what cancellation leaves.
FLOOR = 1e-4


def assert_close_f64(actual: Array, wanted: Array, what: str, tolerance: float = 1e-10) -> None:
    """Within `tolerance`, relative to the greatest magnitude of the tensor; NaN and infinities in the same places."""
    assert actual.dtype == wanted.dtype and actual.shape == wanted.shape, what
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(actual, wanted, err_msg=what)
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite], err_msg=what)
    scale = np.max(np.abs(wanted[finite]), initial=FLOOR)
    np.testing.assert_allclose(actual[finite], wanted[finite], rtol=tolerance, atol=tolerance * scale, err_msg=what)


def assert_error_f32(actual: Array, wanted: Array, exact: Array, what: str) -> None:
    """The error against float64 is at most 4 times the float32 reference's own plus 4 ULP, as norms of the tensor."""
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(actual, wanted, err_msg=what)
        return
    finite = np.isfinite(exact)
    error = np.max(np.abs(actual[finite].astype(np.float64) - exact[finite]), initial=0.0)
    own = np.max(np.abs(wanted[finite].astype(np.float64) - exact[finite]), initial=0.0)
    ulp = np.spacing(np.float32(np.max(np.abs(exact[finite]), initial=FLOOR)))
    assert error <= 4 * own + 4 * float(ulp), f"{what}: error {error:.3g}, the reference's own {own:.3g}, ulp {ulp:.3g}"
