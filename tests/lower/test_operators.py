"""Every operator that lowers to loops, on the table's own samples: compiled, plain Python and reference agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from harness import run_graph

from tracemill.compiler.lower import is_loop
from tracemill.ir.dtypes import dtype
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import OpDef, Sample, table
from tracemill.ir.types import TensorType


def cases() -> Iterator[Any]:
    for op in table().values():
        if not (is_loop(op) or op.name == "dot"):
            continue
        for at, sample in enumerate(op.samples):
            starred = any(d == "*" for d, _ in sample.inputs)
            for name in op.dtypes if starred else ("-",):
                yield pytest.param(op, sample, name, id=f"{op.name}-{at}-{name}")


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
            arrays.append(rng.integers(int(max(low, 0) if dt.kind == "uint" else low), int(high) + 1, shape).astype(dt.numpy))
    return arrays


@pytest.mark.parametrize(("op", "sample", "name"), list(cases()))
def test_operator(op: OpDef, sample: Sample, name: str) -> None:
    arrays = draw(sample, name)
    specs = tuple(InputSpec(f"x{k}", TensorType(dtype(name if kind == "*" else kind), shape))
                  for k, (kind, shape) in enumerate(sample.inputs))
    node = Node.make(op, [input_node(k, s.type) for k, s in enumerate(specs)], sample.attrs)
    if len(node.result_types) != 1:
        pytest.skip("several results")
    graph = Graph(op.name, specs, (node,))
    with np.errstate(all="ignore"):
        (expected,) = evaluate(graph, arrays)
    (fast,) = run_graph(graph, arrays)
    (slow,) = run_graph(graph, arrays, leg="plain")
    assert fast.dtype == expected.dtype
    np.testing.assert_array_equal(fast.view(np.uint8) if fast.ndim else fast,
                                  slow.view(np.uint8) if slow.ndim else slow)
    if not node.dtype.is_float:
        np.testing.assert_array_equal(fast, expected)
    else:
        eps = {"f64": 1e-14, "f32": 2e-6, "f16": 2e-3, "bf16": 1.6e-2}[node.dtype.name]
        np.testing.assert_allclose(fast.astype(np.float64), expected.astype(np.float64), rtol=eps, atol=eps)
