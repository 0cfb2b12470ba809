"""Every operator on one of the table's samples: compiled, plain Python and reference agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from harness import run_graph
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import dtype
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import Kind, OpDef, Sample, table
from tracemill.ir.types import TensorType


def cases() -> Iterator[Any]:
    for op in table().values():
        if op.kind in (Kind.INPUT, Kind.CONTROL, Kind.SYMBOLIC) or op.name == "result":
            continue
        for sample in op.samples[:1]:
            starred = any(d == "*" for d, _ in sample.inputs)
            for name in dict.fromkeys((op.dtypes[0], op.dtypes[-1])) if starred else ("-",):
                yield pytest.param(op, sample, name, id=f"{op.name}-{name}")


def draw(sample: Sample, name: str) -> list[Any]:
    rng = np.random.default_rng(7)
    arrays = []
    for k, (kind, shape) in enumerate(sample.inputs):
        dt = dtype(name if kind == "*" else kind)
        low, high = (sample.ranges[k] if k < len(sample.ranges) else None) or (sample.low, sample.high)
        if dt.is_bool:
            arrays.append(rng.integers(0, 2, shape).astype(bool))
        elif dt.is_float:
            arrays.append(rng.uniform(low, high, shape).astype(dt.numpy))
        else:
            least = int(max(low, 0) if dt.kind == "uint" else low)
            arrays.append(rng.integers(least, int(high) + 1, shape).astype(dt.numpy))
    return arrays


@pytest.mark.parametrize(("op", "sample", "name"), list(cases()))
def test_operator(op: OpDef, sample: Sample, name: str) -> None:
    arrays = draw(sample, name)
    specs = tuple(InputSpec(f"x{k}", TensorType(dtype(name if kind == "*" else kind), shape))
                  for k, (kind, shape) in enumerate(sample.inputs))
    node = Node.make(op, [input_node(k, s.type) for k, s in enumerate(specs)], sample.attrs)
    results = [node] if len(node.result_types) == 1 else list(Builder().results(node))
    graph = Graph(op.name, specs, tuple(results))
    with np.errstate(all="ignore"):
        wanted = evaluate(graph, arrays)
    compiled, plain = run_graph(graph, arrays), run_graph(graph, arrays, leg="plain")
    for expected, fast, slow in zip(wanted, compiled, plain, strict=True):
        assert fast.dtype == expected.dtype
        np.testing.assert_array_equal(fast, slow)
        if fast.dtype.kind not in "fV":
            np.testing.assert_array_equal(fast, expected)
        else:
            eps = {"float64": 1e-13, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[fast.dtype.name]
            np.testing.assert_allclose(fast.astype(np.float64), expected.astype(np.float64), rtol=eps, atol=4 * eps)
