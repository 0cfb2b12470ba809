"""`parse(print(g)) == g` for graphs of every operator, dtype and literal; what is printed prints the same again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tracemill.ir import dtypes
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.errors import Location
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node, Place
from tracemill.ir.opdef import OpDef, Sample, table
from tracemill.ir.text import parse_graph, print_graph
from tracemill.ir.types import TensorType, TupleType


def round_trip(graph: Graph) -> str:
    text = print_graph(graph, scopes=False)
    again = parse_graph(text)
    assert again == graph and parse_graph(print_graph(graph)) == graph
    assert print_graph(again) == text
    placed = print_graph(graph, places=True)
    assert parse_graph(placed) == graph
    assert print_graph(parse_graph(placed), places=True) == placed
    side: dict[str, np.ndarray[Any, Any]] = {}
    assert parse_graph(print_graph(graph, constants=side), side) == graph
    return text


def sample_graph(op: OpDef, sample: Sample, dtype: str) -> Graph:
    specs = tuple(
        InputSpec(f"x{i}", TensorType(dtypes.dtype(dtype if d == "*" else d), s))
        for i, (d, s) in enumerate(sample.inputs)
    )
    node = Node.make(
        op,
        [input_node(i, s.type) for i, s in enumerate(specs)],
        sample.attrs,
        Place(Location("train me.py", 7), "layers.0"),
    )
    b = Builder()
    return Graph(op.name, specs, b.results(node) if isinstance(node.type, TupleType) else (node,))


SAMPLES = [(op, i) for op in table().values() for i in range(len(op.samples))]


@pytest.mark.parametrize(("op", "index"), SAMPLES, ids=[f"{op.name}-{i}" for op, i in SAMPLES])
def test_every_operator_sample(op: OpDef, index: int) -> None:
    for dtype in op.dtypes if any(d == "*" for d, _ in op.samples[index].inputs) else op.dtypes[:1]:
        round_trip(sample_graph(op, op.samples[index], dtype))


@pytest.mark.parametrize("element", dtypes.ALL, ids=str)
def test_literals_keep_their_bits(element: dtypes.DType) -> None:
    b = Builder()
    if element.is_float:
        numbers = [0.0, -0.0, 1.5, -2.75e-3, 0.1, float("inf"), float("-inf"), float("nan"), 1e-45, 6e-8]
        arrays = [np.asarray(v).astype(element.numpy) for v in numbers]
        odd = np.asarray(np.nan).astype(element.numpy).tobytes()
        arrays.append(np.frombuffer(bytes([odd[0] ^ 1]) + odd[1:], element.numpy)[0])  # another NaN
    else:
        arrays = [np.asarray(v, element.numpy) for v in (0, 1, element.min, element.max)]
    nodes = tuple(b.constant(a, element) for a in arrays)
    graph = Graph("literals", (), nodes)
    text = round_trip(graph)
    for old, new in zip(nodes, parse_graph(text).outputs, strict=True):
        assert old.attrs.value.tobytes() == new.attrs.value.tobytes()


def test_names_that_are_not_identifiers() -> None:
    t = TensorType(dtypes.f32, (2,))
    names = (
        "plain",
        "with space",
        'quo"te',
        "f32",
        "return",
        "1st",
        "ünï",
        "a.b.0",
        "_",
        "line\nbreak",
        "back\\slash",
    )
    specs = tuple(InputSpec(n, t) for n in names)
    b = Builder(Place(None, 'scope "x"\n#'))
    outs = tuple(b.neg(input_node(i, t)) for i in range(len(names)))
    round_trip(Graph("odd name", specs, outs, tuple(f"o {n}" for n in names)))


def test_roles_defaults_donations_and_free_sizes() -> None:
    batch, start = sym("B"), sym("i")
    x, w, lr = TensorType(dtypes.f32, (batch, 4)), TensorType(dtypes.f32, (4,)), TensorType(dtypes.f64, ())
    specs = (
        InputSpec("x", x),
        InputSpec("w", w, "parameter"),
        InputSpec("s", w, "state"),
        InputSpec("lr", lr, "hyper", 0.001),
        InputSpec("c", w, "constant"),
    )
    b = Builder()
    row = b.reshape(b.slice(input_node(0, x), start=(start, 0), size=(1, 4), step=(1, 1)), shape=(4,))
    new = b.sub(input_node(1, w), b.mul(row, b.cast(input_node(3, lr), dtype=dtypes.f32)))
    count = b.dim(4 * batch + (batch + 1) // 2)
    text = round_trip(
        Graph(
            "step",
            specs,
            (new, count, b.add(input_node(2, w), input_node(4, w))),
            ("w", "n", "s"),
            (1, None, 2),
            (("i", 3),),
        )
    )
    assert "%lr: f64[] hyper = 0.001" in text
    assert "w = " in text and "-> %w" in text and "sizes(i = 3)" in text


def test_body_graphs_nest() -> None:
    t = TensorType(dtypes.f32, (3,))
    b = Builder()
    spec = (InputSpec("c", t), InputSpec("x", t))
    inner = Graph(
        "",
        spec,
        (b.add(input_node(0, t), input_node(1, t)), b.mul(input_node(0, t), b.scalar(2.0, dtypes.f32))),
    )
    xs = TensorType(dtypes.f32, (5, 3))
    loop = b.scan(input_node(0, t), input_node(1, xs), body=inner, n_carry=1, n_xs=1, length=5, reverse=True)
    outer = Graph("outer", (InputSpec("c", t), InputSpec("xs", xs)), (b.result(loop, index=1),))
    text = round_trip(outer)
    assert "_, %0 = scan" in text


def test_large_constants_go_to_the_side_file() -> None:
    b = Builder()
    big = b.constant(np.arange(1000), dtypes.f32)
    side: dict[str, np.ndarray[Any, Any]] = {}
    text = print_graph(Graph("g", (), (b.neg(big),)), constants=side)
    assert len(text) < 300 and len(side) == 1


def test_places_are_printed_on_request_and_not_part_of_equality() -> None:
    t = TensorType(dtypes.f32, (2,))
    here, there = (
        Graph("g", (InputSpec("x", t),), (Builder(Place(Location("a.py", line))).exp(input_node(0, t)),))
        for line in (1, 2)
    )
    assert here == there and here.outputs[0] is not there.outputs[0]
    assert '@ "a.py":1' in print_graph(here, places=True) and "@" not in print_graph(here)
