"""Passes keep values: every operator's samples with their gradients, and random graphs of movement and arithmetic."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tracemill.compiler.passes.simplify import Simplify
from tracemill.compiler.pipeline import run_phases, verifying
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, product, sym
from tracemill.ir.dims import evaluate as evaluate_dim
from tracemill.ir.dtypes import dtype, f64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import OpDef, Sample, table
from tracemill.ir.types import TensorType

b = Builder()


def sample_graph(op: OpDef, sample: Sample) -> tuple[Graph, list[np.ndarray]]:
    """The operator on the sample's inputs, and its gradients where it has some."""
    star = "f64" if "f64" in op.dtypes else op.dtypes[0]
    types = [TensorType(dtype(star if d == "*" else d), shape) for d, shape in sample.inputs]
    inputs = [input_node(i, t) for i, t in enumerate(types)]
    node = Node.make(op, inputs, dict(sample.attrs))
    results = list(b.results(node)) if not isinstance(node.type, TensorType) else [node]
    floats = [r for r in results if r.dtype.is_float]
    wrt = [x for x in inputs if x.dtype.is_float]
    if sample.grad and op.vjp is not None and floats and wrt:
        cts = [b.full(1.0, r.dtype, r.shape) for r in floats]
        results += b.results(b.gradient(*floats, *cts, *wrt, n_outputs=len(floats), n_wrt=len(wrt)))
    rng = np.random.default_rng(1)
    values = []
    for i, t in enumerate(types):
        low, high = (sample.ranges[i] if i < len(sample.ranges) else None) or (sample.low, sample.high)
        drawn = rng.uniform(low if t.dtype.is_float else max(low, 0), high, t.shape)
        values.append((drawn > 0.5 if t.dtype.is_bool else drawn).astype(t.dtype.numpy))
    specs = tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types))
    return Graph(op.name, specs, tuple(results)), values


@pytest.mark.parametrize("name", [op.name for op in table().values() if op.samples])
def test_samples_of_an_operator(name: str) -> None:
    op = table()[name]
    for sample in op.samples:
        graph, values = sample_graph(op, sample)
        plain = run_phases(graph, "replicated", callback=verifying)
        simple = run_phases(plain, "simplified", after="replicated", callback=verifying)
        for old, new in zip(evaluate(plain, values), evaluate(simple, values), strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-10, atol=1e-12)


# -- random graphs -------------------------------------------------------------------------------------------------

SIZES = {"B": 3, "T": 4}
B, T = sym("B"), sym("T")


class Maker:
    """Grows a graph by random steps that always fit."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.types = [TensorType(f64, s) for s in ((B, 6), (6,), (B, T, 6), (), (B, 1), (1, 6), (2, 3))]
        self.pool = [input_node(i, t) for i, t in enumerate(self.types)]

    def step(self) -> None:
        x = self.random.choice(self.pool[-12:])
        grow = self.random.choice([self.unary, self.binary, self.constant, self.reshape, self.permute, self.broadcast,
                                   self.reduce, self.slice_and_pad, self.concat_and_split, self.dot, self.select])
        self.pool.append(grow(x))

    def graph(self) -> Graph:
        specs = tuple(InputSpec(f"x{i}", t) for i, t in enumerate(self.types))
        outputs = tuple(self.pool[-1 - i] for i in range(3))
        return Graph("random", specs, outputs, sizes=tuple(SIZES.items()))

    def unary(self, x: Node) -> Node:
        return getattr(b, self.random.choice(["neg", "abs", "sin", "tanh", "floor", "sigmoid"]))(x)

    def binary(self, x: Node) -> Node:
        same = [y for y in self.pool if y.shape in (x.shape, ())]
        return getattr(b, self.random.choice(["add", "sub", "mul", "maximum"]))(x, self.random.choice(same))

    def constant(self, x: Node) -> Node:
        c = b.scalar(self.random.choice([0.0, -0.0, 1.0, -1.0, 2.0, 0.25, 3.0]), f64)
        name = self.random.choice(["add", "sub", "mul"])
        return getattr(b, name)(*self.random.sample([x, c], 2))

    def select(self, x: Node) -> Node:
        return b.select(b.gt(x, b.scalar(0.1, f64)), x, b.mul(x, x))

    def reshape(self, x: Node) -> Node:
        shapes: list[tuple[Dim, ...]] = [(product(x.shape),), (*x.shape, 1), (1, *x.shape)]
        if len(x.shape) > 1:
            shapes.append((x.shape[0] * x.shape[1], *x.shape[2:]))
        if x.shape and x.shape[-1] == 6:
            shapes.append((*x.shape[:-1], 2, 3))
        shape = self.random.choice(shapes)
        return b.reshape(x, shape=shape) if len(shape) < 5 else x

    def permute(self, x: Node) -> Node:
        dims = list(range(len(x.shape)))
        self.random.shuffle(dims)
        return b.permute(x, dims=tuple(dims))

    def broadcast(self, x: Node) -> Node:
        if len(x.shape) > 3:
            return x
        at = self.random.randrange(len(x.shape) + 1)
        shape = [2 if d == 1 and self.random.random() < 0.5 else d for d in x.shape]
        dims = [i + (i >= at) for i in range(len(shape))]
        shape.insert(at, self.random.choice([1, 2, B]))
        return b.broadcast(x, shape=tuple(shape), dims=tuple(dims))

    def reduce(self, x: Node) -> Node:
        axes = tuple(i for i in range(len(x.shape)) if self.random.random() < 0.4)
        return getattr(b, self.random.choice(["sum", "max", "sum"]))(x, axes=axes)

    def slice_and_pad(self, x: Node) -> Node:
        if not x.shape or x.shape[-1] != 6:
            return x
        rank = len(x.shape)
        start, size = self.random.choice([(0, 3), (3, 3), (1, 5), (0, 6)])
        part = b.slice(x, start=(*(0,) * (rank - 1), start), size=(*x.shape[:-1], size), step=(1,) * rank)
        pads = (*((0, 0, 0),) * (rank - 1), (start, 6 - start - size, 0))
        return b.pad(part, b.scalar(self.random.choice([0.0, 1.5]), f64), pads=pads)

    def concat_and_split(self, x: Node) -> Node:
        if not x.shape:
            return x
        whole = b.concat(x, b.sin(x), axis=0)
        rest = (0,) * (len(x.shape) - 1)
        start = self.random.choice([0, x.shape[0]])
        return b.slice(whole, start=(start, *rest), size=x.shape, step=(1,) * len(x.shape))

    def dot(self, x: Node) -> Node:
        if len(x.shape) != 2:
            return x
        product = b.dot(x, x, contract_a=(1,), contract_b=(1,))
        return b.tanh(b.dot(product, b.permute(x, dims=(1, 0)), contract_a=(1,), contract_b=(1,)))


@pytest.mark.parametrize("seed", range(60))
def test_random_graph(seed: int) -> None:
    maker = Maker(seed)
    for _ in range(30):
        maker.step()
    graph = maker.graph()
    simple = run_phases(graph, "simplified", callback=verifying)
    assert Simplify().run(simple) is simple
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=tuple(evaluate_dim(d, SIZES) for d in t.shape)) for t in maker.types]
    for old, new in zip(evaluate(graph, values), evaluate(simple, values), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)
