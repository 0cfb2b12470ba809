"""Schedules and plans: donation, exchange of inputs, failing steps, loops, and equality with the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.driver import CompileOptions, compile_graph
from tracemill.compiler.schedule import producer, schedule
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import f32, f64, i64
from tracemill.ir.errors import Location, TracemillError
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node, Place
from tracemill.ir.types import TensorType

Array = np.ndarray[Any, Any]
V = TensorType(f32, (5,))
b = Builder()


def vector(i: int) -> Node:
    return input_node(i, V)


def run(graph: Graph, inputs: Sequence[Array], fuse: bool = False) -> tuple[list[Array], list[Array]]:
    """Outputs, and what the inputs hold afterwards."""
    given = [a.copy() for a in inputs]
    return compile_graph(graph, CompileOptions(fuse=fuse)).run(given), given


def check(graph: Graph, inputs: Sequence[Array]) -> None:
    wanted = evaluate(graph, inputs)
    for fuse in (False, True):
        outputs, after = run(graph, inputs, fuse)
        for k, (o, w) in enumerate(zip(outputs, wanted, strict=True)):
            np.testing.assert_allclose(o, w, rtol=1e-6, err_msg=f"output {k}, fuse={fuse}")
        for i, (old, new) in enumerate(zip(inputs, after, strict=True)):
            if i in graph.donations:
                k = graph.donations.index(i)
                assert outputs[k] is after[i], "a donated output is the very input array"
            else:
                np.testing.assert_array_equal(new, old, err_msg=f"input {i} was written")


def values(n: int) -> list[Array]:
    rng = np.random.default_rng(n)
    return [rng.standard_normal(5).astype(np.float32) for _ in range(n)]


PAIR = (InputSpec("a", V, "parameter"), InputSpec("c", V, "parameter"))


@pytest.mark.parametrize(("outputs", "donations"), [
    ((b.neg(vector(0)),), (0,)),
    ((b.neg(vector(0)), b.mul(vector(0), vector(1))), (0, None)),  # the old value has another reader
    ((b.neg(vector(0)), vector(0)), (0, None)),  # the old value is an output
    ((vector(1), vector(0)), (0, 1)),  # exchange
    ((vector(1), b.exp(vector(0)), vector(0)), (0, 1, None)),
    ((vector(0), b.add(vector(0), vector(1))), (0, 1)),  # unchanged input
    ((b.flip(vector(0), axes=(0,)),), (0,)),  # reads elsewhere than it writes
    ((b.neg(vector(0)), b.neg(vector(0))), (0, None)),  # one value, two outputs
    ((b.add(vector(0), b.broadcast(b.sum(vector(0), axes=(0,)), shape=(5,), dims=())),), (0,)),
    ((b.sub(vector(0), b.neg(vector(0))), b.add(b.sub(vector(0), b.neg(vector(0))), vector(1))), (0, None)),
])
def test_donation(outputs: tuple[Node, ...], donations: tuple[int | None, ...]) -> None:
    check(Graph("g", PAIR, outputs, (), donations), values(2))


def test_constants_and_inputs_as_outputs() -> None:
    c = b.constant(np.arange(5), f32)
    check(Graph("g", PAIR, (c, vector(0), b.reshape(vector(1), shape=(5, 1)), c)), values(2))


def test_fallible_launches_go_before_donated_writes() -> None:
    t = TensorType(i64, (2,))
    specs = (*PAIR, InputSpec("i", t))
    picked = b.index_select(vector(1), input_node(2, t), axis=0)
    graph = Graph("g", specs, (b.neg(vector(0)), picked), (), (0, None))
    order = [n.op.name for n in schedule(graph, {}).launches]
    assert order.index("index_select") < order.index("neg")


@pytest.mark.parametrize("fuse", [False, True])
def test_a_failed_step_leaves_everything_as_it_was(fuse: bool) -> None:
    t = TensorType(i64, (3,))
    at = Builder(Place(Location("train.py", 12), "embed"))
    picked = at.index_select(vector(1), input_node(2, t), axis=0)
    loss = b.sum(picked, axes=(0,))
    graph = Graph("step", (*PAIR, InputSpec("i", t)), (b.sub(vector(0), b.broadcast(loss, shape=(5,), dims=())), loss),
                  ("a", "loss"), (0, None))
    program = compile_graph(graph, CompileOptions(fuse=fuse))
    a, c = values(2)
    before = a.copy()
    with pytest.raises(TracemillError) as caught:
        program.run([a, c, np.array([0, 9, 1])])
    np.testing.assert_array_equal(a, before)
    text = str(caught.value)
    assert "9" in text and "5" in text and "train.py:12" in text
    program.run([a, c, np.array([0, 4, 1])])
    assert not np.array_equal(a, before)


def test_a_step_whose_update_precedes_a_fallible_read_still_fails_whole() -> None:
    """The new parameter is gathered from, so it must be computed first; it is written back only at the end."""
    t = TensorType(i64, (1,))
    new = b.neg(vector(0))
    graph = Graph("g", (*PAIR, InputSpec("i", t)), (new, b.index_select(new, input_node(2, t), axis=0)), (), (0, None))
    a, c = values(2)
    before = a.copy()
    with pytest.raises(TracemillError):
        compile_graph(graph).run([a, c, np.array([7])])
    np.testing.assert_array_equal(a, before)
    check(graph, [a, c, np.array([3])])


def test_schedule_respects_data() -> None:
    x = vector(0)
    chain = x
    for _ in range(5):
        chain = b.add(b.exp(chain), b.sin(chain))
    graph = Graph("g", PAIR, (chain,))
    position = {n: i for i, n in enumerate(schedule(graph, {}).launches)}
    for n, i in position.items():
        for x in n.inputs:
            assert producer(x) not in position or position[producer(x)] < i


def test_scan_cond_and_while() -> None:
    batch = sym("T")
    xs = TensorType(f64, (batch, 3))
    t = TensorType(f64, (3,))
    carry, row = input_node(0, t), input_node(1, t)
    # The carries shift, one passes through.
    body = Graph("", (InputSpec("c", t), InputSpec("d", t), InputSpec("x", t)),
                 (b.add(carry, input_node(2, t)), carry, b.mul(row, input_node(2, t))))
    specs = (InputSpec("c", t), InputSpec("d", t), InputSpec("xs", xs))
    for reverse in (False, True):
        loop = b.scan(carry, row, input_node(2, xs), body=body, n_carry=2, n_xs=1, length=batch, reverse=reverse)
        graph = Graph("loop", specs, b.results(loop))
        rng = np.random.default_rng(0)
        for n in (1, 4, 7):
            check(graph, [rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal((n, 3))])
    limit = b.lt(b.sum(carry, axes=(0,)), b.scalar(50.0, f64))
    double = Graph("", (InputSpec("c", t),), (b.add(carry, carry),))
    until = b.result(b.while_(carry, cond=Graph("", (InputSpec("c", t),), (limit,)), body=double, n_carry=1), index=0)
    check(Graph("while", specs[:1], (until,)), [np.array([1.0, 2.0, 0.5])])
    branch = b.cond(limit, carry, then=double, other=Graph("", (InputSpec("c", t),), (b.neg(carry),)))
    for scale in (1.0, 100.0):
        check(Graph("cond", specs[:1], (b.result(branch, index=0),)), [np.array([1.0, 2.0, 0.5]) * scale])


def test_swapping_carries_is_simultaneous() -> None:
    t = TensorType(f64, (3,))
    body = Graph("", (InputSpec("c", t), InputSpec("d", t)), (input_node(1, t), input_node(0, t)))
    loop = b.scan(input_node(0, t), input_node(1, t), body=body, n_carry=2, n_xs=0, length=3)
    check(Graph("swap", (InputSpec("c", t), InputSpec("d", t)), b.results(loop)), [np.arange(3.0), np.ones(3)])


def test_one_plan_serves_every_size() -> None:
    batch = sym("B")
    x = TensorType(f32, (batch, 4))
    node = input_node(0, x)
    mean = b.div(b.sum(node, axes=(0,)), b.cast(b.extent(value=batch), dtype=f32))
    centred = b.sub(node, b.broadcast(mean, shape=(batch, 4), dims=(1,)))
    program = compile_graph(Graph("centre", (InputSpec("x", x),), (centred,)), CompileOptions(fuse=False))
    rng = np.random.default_rng(0)
    for n in (1, 3, 128, 77):
        a = rng.standard_normal((n, 4)).astype(np.float32)
        np.testing.assert_allclose(program.run([a])[0], a - a.mean(0), rtol=1e-5, atol=1e-6)


def test_peak_bytes_are_reported() -> None:
    x = TensorType(f32, (1000,))
    node = input_node(0, x)
    chain = b.mul(b.exp(node), b.sin(node))
    program = compile_graph(Graph("g", (InputSpec("x", x),), (b.sum(chain, axes=(0,)),)), CompileOptions(fuse=False))
    assert 4000 <= program.peak_bytes({}) <= 3 * 4096
