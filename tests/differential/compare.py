"""How results are compared, and the ways a graph can be run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from tracemill.compiler import driver
from tracemill.compiler.backend.plain import run_python
from tracemill.ir.graph import Graph
from tracemill.ir.interp import apply_node, evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import Kind
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


def in_python(graph: Graph, inputs: Sequence[Array], fuse: bool = True, shares: int = 1,
              sizes: Mapping[str, int] | None = None) -> list[Array]:
    """By the same kernels' sources, run by the Python interpreter in so many shares, the last first."""
    _, emitted = driver.lower_to_plan(graph, driver.CompileOptions(fuse=fuse), sizes)
    kernels = {symbol: plain_kernel(k.source, k.entry) for symbol, k in emitted.kernels.items()}
    plan = replace(emitted.plan, entries=_finely(emitted.plan.entries)) if shares > 1 else emitted.plan
    return run_reference(plan, kernels, copies(inputs), workers=shares, backwards=True)


@cache
def plain_kernel(source: str, entry: str) -> Any:
    """A kernel as a Python function."""
    return run_python(source, entry)


# -- threads ------------------------------------------------------------------------------------------------------


class Split:
    """A compiled graph whose every range is cut into as many shares as there are threads, however small it is."""

    def __init__(self, compiled: driver.Compiled) -> None:
        plan = replace(compiled.plan, entries=_finely(compiled.plan.entries))
        addresses = {k.symbol: k.address for k in compiled.kernels}
        self.executable = Executable(plan, addresses, driver.runner(), compiled.executable.sites)

    def run(self, inputs: Sequence[Array], threads: int) -> list[Array]:
        return self.run_in_place(copies(inputs), threads)

    def run_in_place(self, inputs: Sequence[Array], threads: int) -> list[Array]:
        """The outputs; donated inputs are overwritten."""
        with num_threads(threads):
            return self.executable.run(inputs)


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


class Narrow:
    """The float32 reference of a graph and how far its roundings reach.

    One evaluation may hit upon a good sum by luck, where terms cancel. So the reference's own error is the greatest
    of its run and of runs in which every rounding goes another way at random (Monte Carlo arithmetic; Parker,
    "Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic", 1997). Exact results stay exact. Sums
    are added one after the other in these runs, which is NumPy's order too wherever the innermost axis stays.
    """

    RUNS = 4

    def __init__(self, graph: Graph, inputs: Sequence[Array], exact: Sequence[Array]) -> None:
        self.graph, self.inputs, self.exact = driver.expand_symbolic(graph), inputs, exact
        self.values = evaluate(self.graph, inputs)
        self._errors: list[float] | None = None

    def check(self, actual: Sequence[Array], what: str) -> None:
        """Each error against float64 is at most 4 times the reference's own plus 4 ULP, as norms of the tensor."""
        for k, (a, own, exact) in enumerate(zip(actual, self.values, self.exact, strict=True)):
            if own.dtype.kind != "f":
                np.testing.assert_array_equal(a, own, err_msg=f"{what}, output {k}")
                continue
            assert a.dtype == own.dtype and a.shape == own.shape
            error, allowed = _error(a, exact), 4 * float(np.spacing(np.float32(np.max(np.abs(exact), initial=FLOOR))))
            if error > 4 * _error(own, exact) + allowed:
                assert error <= 4 * self.errors[k] + allowed, (
                    f"{what}, output {k}: error {error:.3g}, the reference's own {self.errors[k]:.3g}, "
                    f"{allowed / 4:.3g} is 1 ULP")

    @property
    def errors(self) -> list[float]:
        if self._errors is None:
            runs = [self.values, *(self._perturbed(np.random.default_rng(k)) for k in range(self.RUNS))]
            self._errors = [max(_error(run[k], e) for run in runs) for k, e in enumerate(self.exact)]
        return self._errors

    def _perturbed(self, rng: np.random.Generator) -> list[Array]:
        values: dict[Node, Any] = {}

        def moved(a: Any) -> Any:
            """Some elements as they are, some the neighbour below or above."""
            return (a * (1 + rng.uniform(-UNIT, UNIT, a.shape))).astype(a.dtype) if a.dtype == np.float32 else a

        for node in self.graph.nodes:
            if node.op.name == "input":
                values[node] = self.inputs[node.attrs.index]
                continue
            args = [values[i] for i in node.inputs]
            value = apply_node(node, args, {})
            if node.op.kind in _ROUNDED and not _is_exact(node, args, value):
                if node.op.name == "sum":
                    value = _sum_in_order(args[0], node.attrs.axes)
                elif node.op.kind is not Kind.ELEMENTWISE:  # partial sums are rounded, on the scale of the terms
                    value = apply_node(node, [moved(a) for a in args], {})
                value = tuple(map(moved, value)) if isinstance(value, tuple) else moved(value)
            values[node] = value
        return [values[o] for o in self.graph.outputs]


UNIT = 2.0**-23
_ROUNDED = (Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CONTRACTION, Kind.SCATTER, Kind.OPAQUE, Kind.CONTROL)
_WIDE = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
_SELECTIONS = {"neg", "abs", "sign", "select", "clamp", "maximum", "minimum", "max", "min", "sort", "topk",
               "window_max", "cast", "floor", "ceil", "round", "trunc", "rem", "fmod", "stop_gradient", "scatter",
               "index_copy", "iota", "extent"}


def _sum_in_order(x: Array, axes: tuple[int, ...]) -> Array:
    kept = [i for i in range(x.ndim) if i not in axes]
    rows = np.transpose(x, [*axes, *kept]).reshape(-1, *(x.shape[i] for i in kept))
    return np.add.accumulate(rows, axis=0, dtype=x.dtype)[-1] if len(rows) else np.sum(x, axis=axes)


def _is_exact(node: Node, args: Sequence[Any], value: Any) -> bool:
    if node.op.name in _SELECTIONS:
        return True
    wide = _WIDE.get(node.op.name)
    if wide is None:
        return False
    with np.errstate(all="ignore"):
        return bool(np.all(wide(*(a.astype(np.float64) for a in args)) == value))


def _error(actual: Array, exact: Array) -> float:
    """The greatest error; infinite where one is finite and the other is not."""
    finite = np.isfinite(exact)
    if not np.array_equal(np.isfinite(actual), finite):
        return float("inf")
    return float(np.max(np.abs(actual[finite].astype(np.float64) - exact[finite]), initial=0.0))
