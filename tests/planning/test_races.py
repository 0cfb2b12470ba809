"""Barriers: none is missing (every access of a run is watched), and loops over independent rows have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill.compiler import driver
from tracemill.compiler.backend.plain import run_python
from tracemill.compiler.emit import Emitted
from tracemill.ir.build import Builder
from tracemill.ir.dims import evaluate
from tracemill.ir.dtypes import f32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.types import TensorType
from tracemill.runtime.executor import Executable
from tracemill.runtime.plan import Branch, Copy, Entry, Fill, KernelCall, Plan, Repeat, While
from tracemill.runtime.races import find_races

Array = np.ndarray[Any, Any]
b = Builder()


def rebuilt(entries: Sequence[Entry], change: Callable[[Entry], Entry]) -> tuple[Entry, ...]:
    """All entries changed, bodies first."""
    made = []
    for e in entries:
        match e:
            case Repeat():
                e = replace(e, body=rebuilt(e.body, change))
            case While():
                e = replace(e, condition=rebuilt(e.condition, change), body=rebuilt(e.body, change))
            case Branch():
                e = replace(e, then=rebuilt(e.then, change), otherwise=rebuilt(e.otherwise, change))
        made.append(change(e))
    return tuple(made)


def finely(plan: Plan) -> Plan:
    """Every range shared, however small."""
    return replace(plan, entries=rebuilt(plan.entries, lambda e: replace(e, grain=1, work=1 << 40)
                                         if isinstance(e, KernelCall) else e))


def unguarded(plan: Plan) -> Plan:
    """Without any barrier."""
    return replace(plan, entries=rebuilt(plan.entries, lambda e: replace(e, waits=False)
                                         if isinstance(e, (KernelCall, Copy, Fill, Repeat)) else e))


def races(emitted: Emitted, plan: Plan, inputs: Sequence[Array], workers: int = 3) -> list[str]:
    kernels = {key: run_python(k.source, k.entry) for key, k in emitted.kernels.items()}
    return find_races(plan, kernels, [a.copy() for a in inputs], workers=workers)


def captured(step: Callable[..., Any], *args: Any) -> tuple[Graph, list[Array]]:
    """The graph that a compiled step runs, and random inputs for it."""
    made: list[driver.Compiled] = []
    forget = driver.on_compiled(made.append)
    try:
        tm.compile(step)(*args).item()
    finally:
        forget()
    graph = max((c.graph for c in made), key=lambda g: len(g.nodes))
    rng = np.random.default_rng(0)
    given = []
    sizes = dict.fromkeys(graph.size_names, 18)
    for spec in graph.inputs:
        shape = tuple(evaluate(d, sizes) for d in spec.type.shape)
        kind = spec.type.dtype.numpy
        given.append(rng.uniform(0.1, 0.9, shape).astype(kind) if kind.kind == "f" else np.zeros(shape, kind))
    return graph, given


LAYERS = {
    "lstm": lambda: tm.nn.LSTM(3, 4),
    "gru": lambda: tm.nn.GRU(3, 4),
    "rnn": lambda: tm.nn.RNN(3, 5),
    "deep": lambda: tm.nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "wide": lambda: tm.nn.LSTM(3, 40, bias=False),
}


@cache
def training(name: str, length: int, rows: int) -> tuple[Graph, list[Array]]:
    """A training step of a recurrent layer."""
    layer = LAYERS[name]()
    return trained(layer, lambda x: layer(x)[0], tm.ones(length, rows, 3))


def trained(module: Any, forward: Callable[[Any], Any], x: Any) -> tuple[Graph, list[Array]]:
    optimizer = tm.optim.Adam(module.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (forward(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return captured(step, x)


def loops(plan: Plan) -> list[Repeat]:
    return [e for _, e in plan.flat if isinstance(e, Repeat)]


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "deep"])
def test_the_loops_of_recurrent_layers_have_no_barrier_and_need_none(name: str) -> None:
    graph, given = training(name, 3, 17)
    _, emitted = driver.lower_to_plan(graph)
    plan = finely(emitted.plan)
    assert loops(plan)
    for loop in loops(plan):
        assert loop.waits
        assert all(isinstance(e, KernelCall) and e.rows != 0 and not e.waits for e in loop.body)
    assert races(emitted, plan, given) == []


class Block(tm.nn.Module):
    """Attention, a residual and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = tm.nn.MultiheadAttention(8, 2, batch_first=True), tm.nn.LayerNorm(8)

    def forward(self, x: Any) -> Any:
        return self.norm(x + self.attention(x, x, x)[0])


nn = tm.nn
MODELS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 5)), (9, 6)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                                  nn.Flatten(), nn.Linear(36, 3)), (3, 2, 6, 6)),
    "attention": (Block, (3, 5, 8)),
    "norms": (lambda: nn.Sequential(nn.LayerNorm(40), nn.GELU(), nn.LayerNorm(40), nn.Softmax(-1)), (13, 40)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_barriers_of_training_steps_suffice(name: str) -> None:
    make, shape = MODELS[name]
    model = make()
    graph, given = trained(model, model, tm.ones(*shape))
    _, emitted = driver.lower_to_plan(graph)
    plan = finely(emitted.plan)
    assert races(emitted, plan, given) == []
    assert races(emitted, unguarded(plan), given)


def test_a_missing_barrier_is_found() -> None:
    graph, given = training("lstm", 3, 17)
    _, emitted = driver.lower_to_plan(graph)
    assert races(emitted, unguarded(finely(emitted.plan)), given)


def test_rows_that_do_not_fit_together_are_found() -> None:
    """The same loop with one launch split otherwise."""
    graph, given = training("lstm", 3, 17)
    _, emitted = driver.lower_to_plan(graph)
    first = loops(emitted.plan)[0].body[0]
    assert isinstance(first, KernelCall)

    def change(e: Entry) -> Entry:
        return replace(e, rows=0, grain=16) if isinstance(e, KernelCall) and e.kernel == first.kernel else e

    assert races(emitted, replace(emitted.plan, entries=rebuilt(emitted.plan.entries, change)), given)


def scanned(step: Callable[[Any, Any, Any], Any], rows: int = 16) -> Graph:
    """A scan of a carry [rows, 4] over rows x [rows, 4] with a weight [4, 4]; the carry is stacked."""
    t, w = TensorType(f32, (rows, 4)), TensorType(f32, (4, 4))
    specs = (InputSpec("h", t), InputSpec("x", t), InputSpec("w", w))
    h, x, weight = (input_node(i, s.type) for i, s in enumerate(specs))
    new = step(h, x, weight)
    outer = (specs[0], InputSpec("xs", TensorType(f32, (5, rows, 4))), specs[2])
    loop = b.scan(*(input_node(i, s.type) for i, s in enumerate(outer)), body=Graph("", specs, (new, new)), n_carry=1,
                  n_xs=1, length=5)
    return Graph("g", outer, b.results(loop))


def times(x: Any, w: Any) -> Any:
    return b.dot(x, w, contract_a=(1,), contract_b=(0,))


MIXED = {
    # Each row reads its neighbour.
    "shifted": lambda h, x, w: b.add(x, b.flip(h, axes=(0,))),
    # Each row reads all rows.
    "mean": lambda h, x, w: b.add(x, b.broadcast(b.sum(h, axes=(0,)), shape=h.shape, dims=(1,))),
    # Rows and columns change places.
    "product of rows": lambda h, x, w: b.add(times(h, b.dot(h, x, contract_a=(0,), contract_b=(0,))), x),
    "square": lambda h, x, w: b.dot(h, b.slice(h, start=(0, 0), size=(4, 4), step=(1, 1)), contract_a=(1,),
                                    contract_b=(0,)),
}


@pytest.mark.parametrize("name", MIXED)
def test_loops_whose_rows_depend_on_each_other_keep_their_barriers(name: str) -> None:
    graph = scanned(MIXED[name])
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(s.type.shape).astype(np.float32) for s in graph.inputs]  # type: ignore[arg-type]
    _, emitted = driver.lower_to_plan(graph)
    (loop,) = loops(emitted.plan)
    assert not loop.waits and loop.body[0].waits  # type: ignore[union-attr]
    plan = finely(emitted.plan)
    assert races(emitted, plan, given) == []
    assert races(emitted, unguarded(plan), given)


def test_few_rows_are_split_by_columns() -> None:
    (loop,) = loops(driver.lower_to_plan(scanned(lambda h, x, w: b.tanh(b.add(times(h, w), x)), rows=2))[1].plan)
    assert not loop.waits and not any(isinstance(e, KernelCall) and e.rows != 0 for e in loop.body)


def test_bits_do_not_depend_on_timing() -> None:
    """More threads than cores: they are interrupted anywhere."""
    graph, given = training("wide", 9, 29)
    program = driver.compile_graph(graph)
    assert all(loop.waits for loop in loops(program.plan))
    addresses = {k.symbol: k.address for k in program.kernels}
    run = Executable(finely(program.plan), addresses, driver.runner(), program.executable.sites)
    before = tm.get_num_threads()
    try:
        tm.set_num_threads(1)
        wanted = [o.copy() for o in run.run([a.copy() for a in given])]
        for threads in (2, 3, 5) * 8:
            tm.set_num_threads(threads)
            for k, (o, w) in enumerate(zip(run.run([a.copy() for a in given]), wanted, strict=True)):
                assert o.tobytes() == w.tobytes(), f"output {k}, {threads} threads"
    finally:
        tm.set_num_threads(before)
