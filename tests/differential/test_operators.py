"""Every operator of the table, on its own samples and dtypes, three ways: the NumPy reference, the generated kernels as
plain Python, and compiled. Gradients against finite differences, through compiled graphs.

One graph holds all samples of an operator and dtype, so that a case is one compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from compare import Array, assert_same_bits, assert_ulps, compiled, in_python
from tracemill.compiler import driver
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import ALL, DType, dtype, f64, from_numpy
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import Kind, OpDef, Sample, table
from tracemill.ir.types import TensorType, TupleType

OPS = [op for op in table().values() if op.samples]
ELEMENTWISE = [op for op in OPS if op.kind is Kind.ELEMENTWISE and op.arity and op.name not in ("extent", "bitcast")]
b = Builder()


class Case:
    """Samples of one operator at one dtype (`*` in their inputs) as a graph with values for its inputs."""

    def __init__(self, op: OpDef, samples: Sequence[Sample], star: str) -> None:
        rng = np.random.default_rng(7)
        self.op = op
        self.specs: list[InputSpec] = []
        self.arrays: list[Array] = []
        self.nodes: list[Node] = []
        for sample in samples:
            inputs = []
            for k, (name, shape) in enumerate(sample.inputs):
                t = TensorType(dtype(star if name == "*" else name), shape)
                bounds = (sample.ranges[k] if k < len(sample.ranges) else None) or (sample.low, sample.high)
                inputs.append(self.input(t, draw(rng, t, bounds)))
            self.nodes.append(Node.make(op, inputs, sample.attrs))

    def input(self, t: TensorType, value: Array) -> Node:
        self.specs.append(InputSpec(f"x{len(self.specs)}", t))
        self.arrays.append(np.asarray(value))
        return input_node(len(self.specs) - 1, t)

    def graph(self, outputs: Sequence[Node] | None = None) -> Graph:
        return Graph(self.op.name, tuple(self.specs), tuple(outputs or self.results()))

    def results(self) -> list[Node]:
        return [r for n in self.nodes for r in (b.results(n) if isinstance(n.type, TupleType) else (n,))]


def draw(rng: np.random.Generator, t: TensorType, bounds: tuple[float, float]) -> Array:
    low, high = bounds
    if t.dtype.is_bool:
        return np.asarray(rng.random(t.shape) < 0.5)
    if t.dtype.is_integer:
        first = max(int(np.ceil(low)), int(t.dtype.min))
        return rng.integers(first, max(int(high), first), t.shape, endpoint=True).astype(t.dtype.numpy)
    return rng.uniform(low, high, t.shape).astype(t.dtype.numpy)


def all_cases() -> list[Any]:
    found = []
    for op in OPS:
        starred = [s for s in op.samples if any(d == "*" for d, _ in s.inputs)]
        fixed = [s for s in op.samples if all(d != "*" for d, _ in s.inputs)]
        found += [pytest.param(op, starred, d, id=f"{op.name}-{d}") for d in op.dtypes] if starred else []
        found += [pytest.param(op, fixed, "f32", id=op.name)] if fixed else []
    return found


# Greatest error of an element in units of the last place: two of the kernel's, two of NumPy's. Where a result is
# rounded to sixteen bits only the last rounding may differ.
ULPS = {"f64": 4, "f32": 4, "f16": 1, "bf16": 1}
# Sums are measured on the scale of their terms.
EPSILON = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}


def check_compiled(case: Case) -> None:
    graph = case.graph()
    slow = in_python(graph, case.arrays, fuse=False)
    assert_same_bits(compiled(graph, case.arrays, fuse=False), slow, "compiled and plain Python")


def check_in_python(case: Case) -> None:
    graph = case.graph()
    results = in_python(graph, case.arrays, fuse=False)
    for k, (out, actual, value) in enumerate(zip(graph.outputs, results, evaluate(graph, case.arrays), strict=True)):
        if case.op.exact or not out.dtype.is_float:
            assert_same_bits([actual], [value], f"kernel and reference, result {k}")
        elif case.op.name in ("max", "min"):
            np.testing.assert_array_equal(actual, value)  # either zero
        elif case.op.kind is Kind.ELEMENTWISE:
            check_ulps(case.op, actual, value)
        else:
            eps = EPSILON[out.dtype.name]
            np.testing.assert_allclose(actual.astype(np.float64), value.astype(np.float64), rtol=8 * eps, atol=32 * eps)


# Python's own functions that the reference uses are exact to an absolute error near their roots.
ROOTS = {"lgamma", "digamma"}


def check_ulps(op: OpDef, actual: Array, wanted: Array) -> None:
    name = from_numpy(actual.dtype).name
    if op.name in ROOTS:
        near = np.isclose(actual, wanted, rtol=0, atol=8 * EPSILON[name])
        actual = np.where(near, wanted, actual)
    assert_ulps(actual, wanted, ULPS[name])


# Of other dtypes only the first sample is compiled: what differs between samples are the loops, whatever the dtype.
COMPILED = {"f32", "f64", "i64", "bool"}


@pytest.mark.parametrize(("op", "samples", "star"), all_cases())
def test_values(op: OpDef, samples: Sequence[Sample], star: str) -> None:
    case = Case(op, samples, star)
    check_in_python(case)
    check_compiled(case if star in COMPILED else Case(op, samples[:1], star))


# -- odd values -----------------------------------------------------------------------------------------------------


def odd_values(dt: DType) -> Array:
    """Infinities, NaN, zeros of both signs, subnormals, extremes, values around one and around rounding halves."""
    if dt.is_bool:
        return np.array([False, True])
    if dt.is_integer:
        wanted = [0, 1, 2, 3, 7, 8, 31, 63, 100, -1, -2, -3, -7, -64, -100, int(dt.max), int(dt.max) - 1, int(dt.min),
                  int(dt.min) + 1]
        return np.array([v for v in dict.fromkeys(wanted) if dt.min <= v <= dt.max], dt.numpy)
    info = ml_dtypes.finfo(dt.numpy)
    tiny, least, most = float(info.tiny), float(info.smallest_subnormal), float(info.max)
    half = [0.5, 1.5, 2.5, 0.49999997, 1.0, 1.0000001, 2.0, 3.0, 0.1, 10.0, 100.0, 1e4, 3e9, 1e19]
    positive = [0.0, least, 3 * least, tiny, *half, most, np.inf]
    with np.errstate(over="ignore"):
        return np.array([*positive, *(-v for v in positive), np.nan]).astype(dt.numpy)


def odd_cases() -> list[Any]:
    return [pytest.param(op, d, id=f"{op.name}-{d}") for op in ELEMENTWISE for d in op.dtypes]


@pytest.mark.parametrize(("op", "star"), odd_cases())
def test_odd_values(op: OpDef, star: str) -> None:
    case = Case(op, (), star)
    values = odd_values(dtype(star))
    if op.name == "cast":
        x = case.input(TensorType(dtype(star), values.shape), values)
        case.nodes = [b.cast(x, dtype=d) for d in ALL]
    else:
        kinds = [np.array([False, True]) if k == "bool" else values for k, _ in op.samples[0].inputs]
        if op.name == "clamp":
            kinds = [np.concatenate([v[:1], v[len(v) // 2 - 1:len(v) // 2 + 1], v[3::4], v[-1:]]) for v in kinds]
        grid = [np.ascontiguousarray(g.reshape(-1)) for g in np.meshgrid(*kinds, indexing="ij")]
        case.nodes = [Node.make(op, [case.input(TensorType(from_numpy(g.dtype), g.shape), g) for g in grid])]
    check_in_python(case)
    check_compiled(case)


# -- gradients --------------------------------------------------------------------------------------------------------

STEP = 1e-5


def differentiable_cases() -> list[Any]:
    found = []
    for op in OPS:
        samples = [s for s in op.samples if s.grad]
        if op.vjp is not None and samples:
            found.append(pytest.param(op, samples, id=op.name))
    return found


@pytest.mark.parametrize(("op", "samples"), differentiable_cases())
def test_gradient_agrees_with_finite_differences(op: OpDef, samples: Sequence[Sample]) -> None:
    """Directional derivatives of every sample's weighted sum, all by one compiled graph: [sums, gradients]."""
    case, rng = Case(op, samples, "f64"), np.random.default_rng(1)
    sums = []
    wrt = [k for k, s in enumerate(case.specs) if s.type.dtype.is_float]
    of_sample = np.repeat(np.arange(len(samples)), [len(s.inputs) for s in samples])
    for node in case.nodes:
        total = b.scalar(0.0, f64)
        for r in b.results(node) if isinstance(node.type, TupleType) else (node,):
            if r.dtype.is_float:
                weight = case.input(r.tensor_type, rng.standard_normal(r.shape))
                total = b.add(total, b.sum(b.mul(r, weight), axes=tuple(range(len(r.shape)))))
        sums.append(total)
    arrays = case.arrays
    ones = [b.like(1.0, s) for s in sums]
    gradient = b.gradient(*sums, *ones, *(input_node(k, case.specs[k].type) for k in wrt), n_outputs=len(sums),
                          n_wrt=len(wrt))
    graph = case.graph([*sums, *b.results(gradient)])
    run = driver.compile_graph(graph, driver.CompileOptions(fuse=False))
    slopes = run.run(arrays)[len(sums):]
    for _ in range(3):
        directions = [rng.standard_normal(arrays[k].shape) for k in wrt]
        ends = []
        for step in (STEP, -STEP):
            moved = list(arrays)
            for k, d in zip(wrt, directions, strict=True):
                moved[k] = np.asarray(arrays[k] + step * d)
            ends.append(np.array(run.run(moved)[:len(sums)]))
        wanted = (ends[0] - ends[1]) / (2 * STEP)
        actual = np.zeros(len(samples))
        for k, d, slope in zip(wrt, directions, slopes, strict=True):
            actual[of_sample[k]] += np.sum(slope * d)
        np.testing.assert_allclose(actual, wanted, rtol=2e-5, atol=2e-6)
