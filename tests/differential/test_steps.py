"""Whole training steps, one graph each: forward, backward, every optimizer's update in place, over several batches.

The last batch is smaller: the same executable runs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from compare import Array, Split, assert_same_bits, copies, in_python, reference
from tracemill.compiler import driver
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import DType, f32, f64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType
from tracemill.ir.update_rules import UPDATE_RULES, format_flags

HYPERS = {"lr": 0.05, "momentum": 0.9, "dampening": 0.25, "weight_decay": 0.03, "beta1": 0.9, "beta2": 0.98,
          "eps": 1e-6, "alpha": 0.95, "lr_decay": 0.1}
CASES = [("sgd", ()), ("sgd", ("momentum", "dampening", "wd")), ("sgd", ("momentum", "nesterov", "maximize")),
         ("adam", ()), ("adam", ("amsgrad", "wd")), ("adamw", ("wd",)), ("rmsprop", ("centered", "momentum", "wd")),
         ("adagrad", ("wd",))]
b = Builder()
SHAPES = ((4, 6), (6,), (6, 3), (3,))
BATCHES = (5, 5, 2)


def linear(x: Node, w: Node, bias: Node) -> Node:
    made = b.dot(x, w, contract_a=(1,), contract_b=(0,))
    return b.add(made, b.broadcast(bias, shape=made.shape, dims=(1,)))


def step(rule: str, flags: tuple[str, ...], dtype: DType) -> Graph:
    """Inputs: parameters, states, x, y, hypers. Outputs: parameters, states, loss."""
    known = UPDATE_RULES[rule]
    names = known.state_names(flags)
    specs: list[InputSpec] = []

    def add(name: str, t: TensorType, role: str) -> Node:
        specs.append(InputSpec(name, t, role))
        return input_node(len(specs) - 1, t)

    params = [add(f"p{k}", TensorType(dtype, s), "parameter") for k, s in enumerate(SHAPES)]
    states = [add(f"{n}{k}", known.state_type(n, p.tensor_type), "state") for n in names for k, p in enumerate(params)]
    x = add("x", TensorType(dtype, (sym("N"), 4)), "batch")
    y = add("y", TensorType(dtype, (sym("N"), 3)), "batch")
    hypers = [add(h, TensorType(f64, ()), "hyper") for h in known.hypers]
    error = b.sub(linear(b.tanh(linear(x, *params[:2])), *params[2:]), y)
    count = b.cast(b.extent(value=sym("N") * 3), dtype=dtype)
    loss = b.div(b.sum(b.mul(error, error), axes=(0, 1)), count)
    grads = b.results(b.gradient(loss, b.like(1.0, loss), *params, n_outputs=1, n_wrt=len(params)))
    update = b.update(*params, *grads, *states, *hypers, rule=rule, n=len(params), n_states=len(names),
                      flags=format_flags(flags))
    replaced = b.results(update)
    outputs = (*replaced, loss)
    return Graph("step", tuple(specs), outputs, (), (*range(len(replaced)), None))


def values(graph: Graph, batch: int, rng: np.random.Generator) -> list[Array]:
    """Parameters and states of a first step, a batch of so many rows, hyper-parameters."""
    arrays = []
    for s in graph.inputs:
        shape = tuple(d if isinstance(d, int) else batch for d in s.type.shape)
        if s.role == "hyper":
            arrays.append(np.array(HYPERS[s.name]))
        elif s.role == "state":
            arrays.append(np.zeros(shape, s.type.dtype.numpy))
        else:
            arrays.append(np.asarray(rng.standard_normal(shape)).astype(s.type.dtype.numpy))
    return arrays


def with_batch(graph: Graph, arrays: Sequence[Array], batch: int, rng: np.random.Generator) -> list[Array]:
    """Parameters and states as they are, with a new batch of so many rows."""
    kept = [s.role in ("parameter", "state") for s in graph.inputs]
    return [a if k else f for a, f, k in zip(arrays, values(graph, batch, rng), kept, strict=True)]


@pytest.mark.parametrize(("rule", "flags"), CASES, ids=lambda c: c if isinstance(c, str) else "+".join(c) or "plain")
def test_step_in_python(rule: str, flags: tuple[str, ...]) -> None:
    """float64 against the reference; fused, unfused and in shares with one set of bits."""
    graph, rng = step(rule, flags, f64), np.random.default_rng(5)
    arrays = values(graph, BATCHES[0], rng)
    for batch in BATCHES:
        arrays = with_batch(graph, arrays, batch, rng)
        wanted = reference(graph, arrays)
        results = in_python(graph, arrays, fuse=True)
        for actual, value in zip(results, wanted, strict=True):
            np.testing.assert_allclose(actual, value, rtol=1e-12, atol=1e-14)
        assert_same_bits(in_python(graph, arrays, fuse=False), results, "unfused and fused")
        assert_same_bits(in_python(graph, arrays, fuse=True, shares=3), results, "in three shares")
        arrays[:len(results) - 1] = results[:-1]


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_compiled_steps(rule: str) -> None:
    """The very arrays that were given are updated; one and more threads agree; no kernel for the smaller batch."""
    graph, rng = step(rule, ("wd",), f32), np.random.default_rng(5)
    compiled = driver.compile_graph(graph)
    split = Split(compiled)
    arrays = values(graph, BATCHES[0], rng)
    known = driver.store().counters.compiled
    for batch in BATCHES:
        arrays = with_batch(graph, arrays, batch, rng)
        wanted, shared = reference(graph, arrays), split.run(arrays, 2)
        before = copies(arrays)
        results = compiled.run(arrays)
        assert_same_bits(shared, results, "two threads and one")
        for k, (actual, value, donated) in enumerate(zip(results, wanted, graph.donations, strict=True)):
            np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-6)
            assert donated is None or actual is arrays[donated]
            assert donated is None or not np.array_equal(actual, before[k]), "nothing was updated"
    assert driver.store().counters.compiled == known
