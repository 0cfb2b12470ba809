"""How results are compared, and the ways a graph can be run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from tracemill.compiler import driver
from tracemill.compiler.backend.plain import run_python
from tracemill.ir.graph import Graph
from tracemill.ir.interp import evaluate
from tracemill.runtime import workers
from tracemill.runtime.executor import Executable
from tracemill.runtime.plan import Branch, Entry, KernelCall, Repeat, While
from tracemill.runtime.reference_runner import run_reference

Array = np.ndarray[Any, Any]


def reference(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """By the NumPy interpreter."""
    return evaluate(driver.expand_symbolic(graph), inputs)


def copies(inputs: Sequence[Array]) -> list[Array]:
    """Inputs to give away: donated ones are overwritten."""
    return [a.copy() for a in inputs]


def compiled(graph: Graph, inputs: Sequence[Array], fuse: bool = True) -> list[Array]:
    """By generated kernels."""
    run = driver.compile_graph(graph, driver.CompileOptions(fuse=fuse))
    return run.run(copies(inputs))


def in_python(graph: Graph, inputs: Sequence[Array], fuse: bool = True, shares: int = 1) -> list[Array]:
    """By the same kernels' sources, run by the Python interpreter in so many shares, the last first."""
    _, emitted = driver.lower_to_plan(graph, driver.CompileOptions(fuse=fuse))
    kernels = {symbol: plain_kernel(k.source, k.entry) for symbol, k in emitted.kernels.items()}
    plan = replace(emitted.plan, entries=_finely(emitted.plan.entries)) if shares > 1 else emitted.plan
    return run_reference(plan, kernels, copies(inputs), workers=shares, backwards=True)


@lru_cache(maxsize=None)
def plain_kernel(source: str, entry: str) -> Any:
    """A kernel as a Python function."""
    return run_python(source, entry)


# -- threads ------------------------------------------------------------------------------------------------------


class Split:
    """A compiled graph whose every range is cut into as many shares as there are threads, however small it is."""

    def __init__(self, compiled: driver.Compiled) -> None:
        plan = replace(compiled.plan, entries=_finely(compiled.plan.entries))
        addresses = {k.symbol: k.address for k in compiled.kernels}
        self.executable = Executable(plan, addresses, driver.runner())

    def run(self, inputs: Sequence[Array], threads: int, sizes: Mapping[str, int] | None = None) -> list[Array]:
        with num_threads(threads):
            return self.executable.run(copies(inputs), sizes)


def _finely(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(map(_fine, entries))


def _fine(entry: Entry) -> Entry:
    match entry:
        case KernelCall():
            return replace(entry, grain=1, work=1 << 40)
        case Repeat():
            return replace(entry, body=_finely(entry.body))
        case While():
            return replace(entry, condition=_finely(entry.condition), body=_finely(entry.body))
        case Branch():
            return replace(entry, then=_finely(entry.then), otherwise=_finely(entry.otherwise))
    return entry


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    """Runs are shared among so many threads."""
    before = workers.get_num_threads()
    workers.set_num_threads(number)
    try:
        yield
    finally:
        workers.set_num_threads(before)


# -- comparisons --------------------------------------------------------------------------------------------------


def assert_same_bits(actual: Sequence[Array], wanted: Sequence[Array], what: str) -> None:
    """The same dtypes, shapes and bits; any NaN equals any other."""
    for k, (a, w) in enumerate(zip(actual, wanted, strict=True)):
        assert a.dtype == w.dtype and a.shape == w.shape, f"{what}: output {k}: {a.dtype}{a.shape}, {w.dtype}{w.shape}"
        same = _bits(a) == _bits(w)
        if a.dtype.kind == "f" or a.dtype.name == "bfloat16":
            same |= np.isnan(a) & np.isnan(w)
        if not same.all():
            at = tuple(int(i[0]) for i in np.nonzero(~same))
            raise AssertionError(f"{what}: output {k}: {np.count_nonzero(~same)} of {same.size} differ, first at {at}: "
                                 f"{a[at]!r} for {w[at]!r}")


def _bits(a: Array) -> Array:
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}").reshape(a.shape)


def assert_ulps(actual: Array, wanted: Array, ulps: int) -> None:
    """At most so many steps of the dtype's numbers apart; NaN in the same places."""
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(actual), nan)
    a, w = _order(actual), _order(wanted)
    distance = np.where(nan, 0, np.maximum(a, w) - np.minimum(a, w))
    if distance.size and distance.max() > ulps:
        at = np.unravel_index(int(distance.argmax()), distance.shape)
        raise AssertionError(f"{distance[at]} ULP off at {at}: {actual[at]!r} for {wanted[at]!r}")


def _order(x: Array) -> Array:
    """Each float's place in the ascending order of its dtype's numbers."""
    bits = _bits(x)
    sign = bits.dtype.type(1 << (8 * x.dtype.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


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
