"""A bad index stops a step: which operator, which line, which index; and nothing donated has been written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import Array, Split, assert_same_bits, copies, reference
from tracemill.compiler import driver
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import DType, f32, i32, i64
from tracemill.ir.errors import IndexRangeError, KernelError, Location
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node, Place
from tracemill.ir.types import TensorType

b = Builder()
at_fault = Builder(Place(Location("train.py", 12), "layers.0"))
ROWS, COLUMNS, COUNT = 7, 5, 40


def looked_up(name: str, table: Node, index: Node, values: Node) -> Node:
    """The operator under test on `table` f32[ROWS, COLUMNS] and an index of COUNT rows, at the user's line."""
    wide = at_fault.broadcast(index, shape=(*index.shape, COLUMNS), dims=(0,))
    match name:
        case "gather":
            return at_fault.gather(table, wide, axis=0)
        case "index_select":
            return at_fault.index_select(table, index, axis=0)
        case "scatter" | "scatter_add":
            return getattr(at_fault, name)(table, wide, values, axis=0)
    return getattr(at_fault, name)(table, index, values, axis=0)


def step(name: str, index_dtype: DType = i64) -> Graph:
    """One training step: look up, loss, gradient, two parameters updated in place."""
    types = [TensorType(f32, (ROWS, COLUMNS)), TensorType(f32, (COLUMNS,)), TensorType(index_dtype, (sym("N"),)),
             TensorType(f32, (sym("N"), COLUMNS))]
    table, bias, index, values = (input_node(k, t) for k, t in enumerate(types))
    roles = ("parameter", "parameter", "batch", "batch")
    specs = tuple(InputSpec(f"x{k}", t, role) for k, (t, role) in enumerate(zip(types, roles, strict=True)))
    found = looked_up(name, table, index, values)
    made = b.tanh(b.add(found, b.broadcast(bias, shape=found.shape, dims=(1,))))
    loss = b.sum(b.mul(made, made), axes=(0, 1))
    slopes = b.results(b.gradient(loss, b.like(1.0, loss), table, bias, n_outputs=1, n_wrt=2))
    new = [b.sub(p, b.mul(g, b.like(0.5, g))) for p, g in zip((table, bias), slopes, strict=True)]
    return Graph("step", specs, (*new, loss), ("table", "bias", "loss"), (0, 1, None))


def inputs(dtype: DType = i64) -> list[Array]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((ROWS, COLUMNS)).astype(np.float32), rng.standard_normal(COLUMNS).astype(np.float32),
            rng.integers(0, ROWS, COUNT).astype(dtype.numpy), rng.standard_normal((COUNT, COLUMNS)).astype(np.float32)]


def runs(graph: Graph, fuse: bool) -> list[Any]:
    """Ways to run: as the plan says, and with every range cut between threads."""
    compiled = driver.compile_graph(graph, driver.CompileOptions(fuse=fuse))
    split = Split(compiled)
    return [compiled.run, lambda arrays: split.run_in_place(arrays, 1), lambda arrays: split.run_in_place(arrays, 4)]


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", ["gather", "index_select", "scatter", "scatter_add", "index_copy", "index_add"])
def test_bad_index_leaves_parameters_as_they_were(name: str, fuse: bool) -> None:
    graph, wanted = step(name), reference(step(name), inputs())
    for run in runs(graph, fuse):
        for bad, where in ((ROWS, COUNT - 1), (-1, 0), (2**40, 17)):
            arrays = inputs()
            arrays[2][where] = bad
            before = copies(arrays)
            with pytest.raises(IndexRangeError) as caught:
                run(arrays)
            assert isinstance(caught.value, KernelError)
            assert str(caught.value).startswith(f"train.py:12: {name}: ")
            assert f"index {bad} is out of range" in caught.value.message
            assert str(ROWS) in caught.value.message
            assert_same_bits(arrays, before, "inputs after a failed step")
        arrays = inputs()
        results = run(arrays)  # the executable is none the worse
        assert results[0] is arrays[0] and results[1] is arrays[1]
        for actual, value in zip(results, wanted, strict=True):
            np.testing.assert_allclose(actual, value, rtol=2e-5, atol=2e-5)


def test_of_several_bad_indices_the_first_is_named_whatever_the_threads() -> None:
    graph = step("index_select", i32)
    messages = set()
    for run in runs(graph, True):
        arrays = inputs(i32)
        arrays[2][[5, 20, 39]] = [-3, 99, 7]
        with pytest.raises(IndexRangeError) as caught:
            run(arrays)
        messages.add(str(caught.value))
    assert len(messages) == 1 and "index -3 " in messages.pop()


def test_the_operator_of_two_that_met_it_is_named() -> None:
    types = [TensorType(f32, (ROWS,)), TensorType(i64, (4,)), TensorType(i64, (4,))]
    x, first, second = (input_node(k, t) for k, t in enumerate(types))
    other = Builder(Place(Location("train.py", 30)))
    total = b.add(at_fault.index_select(x, first, axis=0), other.gather(x, second, axis=0))
    new = b.sub(x, b.splat(b.sum(total, axes=(0,)), x.shape))
    graph = Graph("two", tuple(InputSpec(f"x{k}", t) for k, t in enumerate(types)), (new,), (), (0,))
    good, bad = np.arange(4), np.array([0, 1, 70, 2])
    cases = (((bad, good), "train.py:12: index_select: index 70"), ((good, bad), "train.py:30: gather: index 70"))
    for fuse in (True, False):
        compiled = driver.compile_graph(graph, driver.CompileOptions(fuse=fuse))
        for indices, text in cases:
            arrays = [np.ones(ROWS, np.float32), *indices]
            with pytest.raises(IndexRangeError) as caught:
                compiled.run(arrays)
            assert str(caught.value).startswith(text)
            assert_same_bits(arrays[:1], [np.ones(ROWS, np.float32)], "the parameter")


def test_a_bad_index_in_a_loop_stops_it() -> None:
    row, index = TensorType(f32, (ROWS,)), TensorType(i64, ())
    carry, at = input_node(0, row), input_node(1, index)
    picked = at_fault.index_select(carry, at, axis=0)
    body = Graph("", (InputSpec("c", row), InputSpec("i", index)), (b.add(carry, picked), picked))
    types = [row, TensorType(i64, (6,))]
    x, order = (input_node(k, t) for k, t in enumerate(types))
    loop = b.scan(x, order, body=body, n_carry=1, n_xs=1, length=6)
    graph = Graph("loop", tuple(InputSpec(f"x{k}", t) for k, t in enumerate(types)), b.results(loop), (), (0, None))
    for fuse in (True, False):
        compiled = driver.compile_graph(graph, driver.CompileOptions(fuse=fuse))
        arrays = [np.ones(ROWS, np.float32), np.array([0, 1, 2, 7, 3, 4])]
        with pytest.raises(IndexRangeError, match=r"train.py:12: index_select: index 7 is out of range"):
            compiled.run(arrays)
        assert_same_bits(arrays[:1], [np.ones(ROWS, np.float32)], "the carry that is updated in place")
