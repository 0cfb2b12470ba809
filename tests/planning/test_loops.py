"""Loops in plans: where carries and stacked results live, and that no step copies them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill.compiler.driver import Compiled, CompileOptions, compile_graph, on_compiled
from tracemill.compiler.emit import emit
from tracemill.compiler.slots import Place, Slot
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import f64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType
from tracemill.runtime.plan import Copy, Entry, KernelCall, Plan, Repeat, While, bodies

Array = np.ndarray[Any, Any]
b = Builder()
ROW = TensorType(f64, (3,))
T = sym("T")
C, D, X, W = (input_node(i, ROW) for i in range(4))
NAMES = ("c", "d", "x", "w")
SPECS = tuple(InputSpec(name, ROW) for name in NAMES)
OUTER = (*SPECS[:2], InputSpec("xs", TensorType(f64, (T, 3))), SPECS[3])


def loop(outputs: Sequence[Node], *, reverse: bool = False, n_carry: int = 2) -> Node:
    """A scan over carries c, d, the rows of xs, and w."""
    xs = input_node(2, OUTER[2].type)
    body = Graph("", SPECS, tuple(outputs))
    return b.scan(C, D, xs, W, body=body, n_carry=n_carry, n_xs=1, length=T, reverse=reverse)


def entries_in_loops(plan: Plan) -> list[Entry]:
    return [e for _, loop in plan.flat if isinstance(loop, (Repeat, While)) for body in bodies(loop) for e in body]


def plan_of(graph: Graph) -> Plan:
    return emit(graph, {"T": 4}).plan


def check(graph: Graph, lengths: Sequence[int] = (1, 2, 5)) -> None:
    for fuse in (False, True):
        program = compile_graph(graph, CompileOptions(fuse=fuse))
        for length in lengths:
            rng = np.random.default_rng(length)
            given = [rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal((length, 3)),
                     rng.standard_normal(3)]
            found = program.run([a.copy() for a in given])
            for k, (o, w) in enumerate(zip(found, evaluate(graph, given), strict=True)):
                np.testing.assert_allclose(o, w, rtol=1e-12, err_msg=f"output {k}, fuse={fuse}, length {length}")


# -- scans ----------------------------------------------------------------------------------------------------------

NEXT_C, NEXT_D = b.add(b.mul(C, W), X), b.sub(D, b.mul(C, X))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("outputs", [
    (NEXT_C, NEXT_D),  # carries alone
    (NEXT_C, NEXT_D, NEXT_C),  # the value after each step
    (NEXT_C, NEXT_D, C, D),  # the values before
    (NEXT_C, NEXT_D, C, NEXT_C, NEXT_D),  # both
    (NEXT_C, NEXT_D, b.mul(NEXT_C, X), b.mul(NEXT_C, X)),  # one value stacked twice
    (b.reshape(b.reshape(NEXT_C, shape=(3, 1)), shape=(3,)), NEXT_D, b.reshape(NEXT_C, shape=(1, 3))),
])
def test_no_step_copies_carries_or_stacks(outputs: tuple[Node, ...], reverse: bool) -> None:
    # A sum over each result keeps the results temporaries: an output's memory is not ours to choose.
    results = [b.sum(r, axes=tuple(range(len(r.shape)))) for r in b.results(loop(outputs, reverse=reverse))]
    graph = Graph("loop", OUTER, tuple(results), sizes=())
    assert not [e for e in entries_in_loops(plan_of(graph)) if isinstance(e, Copy)]
    check(graph)


@pytest.mark.parametrize("reverse", [False, True])
def test_stacked_carries_that_are_outputs_are_copied_once(reverse: bool) -> None:
    graph = Graph("loop", OUTER, b.results(loop((NEXT_C, NEXT_D, C, NEXT_C), reverse=reverse)))
    assert not [e for e in entries_in_loops(plan_of(graph)) if isinstance(e, Copy)]
    check(graph)


def test_a_carry_and_its_stacks_share_one_array() -> None:
    final, _, before, after = b.results(loop((NEXT_C, NEXT_D, C, NEXT_C)))
    outputs = (b.sum(before, axes=(0, 1)), b.sum(after, axes=(0, 1)), b.sum(final, axes=(0,)))
    plan = plan_of(Graph("loop", OUTER, outputs))
    wide = [s for s in plan.buffers if s.kind == "arena" and s.shape == (T + 1, 3)]
    assert len(wide) == 1
    assert not [s for s in plan.buffers if s.kind == "arena" and s.shape == (T, 3)]


@pytest.mark.parametrize("seed", range(12))
def test_random_bodies(seed: int) -> None:
    """Carries that pass through, change places, appear twice, are stacked before or after a step."""
    rng = random.Random(seed)
    values: list[Node] = [C, D, X, W, NEXT_C, NEXT_D, b.constant(np.array([1.0, 2.0, 3.0]), f64)]
    values += [b.mul(NEXT_C, NEXT_D), b.neg(rng.choice(values))]
    outputs = [rng.choice(values) for _ in range(2 + rng.randrange(5))]
    check(Graph("loop", OUTER, b.results(loop(outputs, reverse=rng.random() < 0.5))))


def test_loops_in_loops() -> None:
    """The inner loop's carries start at the outer one's, which are stacked before and after each step."""
    inner = b.scan(C, X, body=Graph("", (SPECS[0], SPECS[2]), (b.add(b.mul(C, D), C), b.sub(C, D))), n_carry=1,
                   n_xs=0, length=3)
    last, rows = b.results(inner)
    outputs = (last, b.add(D, b.sum(rows, axes=(0,))), C, last, rows)
    check(Graph("nest", OUTER, b.results(loop(outputs))))


def test_carries_of_while_are_overwritten_in_place() -> None:
    limit = Graph("", SPECS[:1], (b.lt(b.sum(C, axes=(0,)), b.scalar(50.0, f64)),))
    body = Graph("", SPECS[:1], (b.add(b.add(C, C), b.scalar(1.0, f64)),))
    until = b.result(b.while_(C, cond=limit, body=body, n_carry=1), index=0)
    graph = Graph("while", SPECS[:1], (b.neg(until),))
    assert not [e for e in entries_in_loops(plan_of(graph)) if isinstance(e, Copy)]
    given = np.array([1.0, 2.0, 0.5])
    np.testing.assert_array_equal(compile_graph(graph).run([given.copy()])[0], evaluate(graph, [given])[0])


# -- recurrent layers -----------------------------------------------------------------------------------------------

LAYERS = {
    "lstm": lambda: tm.nn.LSTM(3, 4),
    "gru": lambda: tm.nn.GRU(3, 4),
    "rnn": lambda: tm.nn.RNN(3, 4),
    "deep": lambda: tm.nn.LSTM(3, 4, num_layers=2, bidirectional=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_training_a_recurrent_layer_copies_nothing_in_its_loops(name: str) -> None:
    tm.manual_seed(0)
    layer = LAYERS[name]()
    optimizer = tm.optim.SGD(layer.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (layer(x)[0] ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = tm.compile(step)
    x = tm.ones(5, 2, 3)
    made: list[Compiled] = []
    forget = on_compiled(made.append)
    try:
        losses = [run(x).item() for _ in range(3)]
    finally:
        forget()
    assert losses[2] < losses[0]
    inside = [e for compiled in made for e in entries_in_loops(compiled.plan)]
    assert [e for e in inside if isinstance(e, KernelCall)]
    assert not [e for e in inside if isinstance(e, Copy)]


# -- places ---------------------------------------------------------------------------------------------------------


def test_places_meet() -> None:
    n = sym("n")
    slot, other = (Slot("arena", 0, 80 * n, f64, (10, n)) for _ in range(2))

    def place(offset: Any, nbytes: Any = 8 * n, strides: Any = (8,), where: Slot = slot) -> Place:
        return Place(where, offset, strides, nbytes)

    assert place(0).meets(place(0))
    assert not place(0).meets(place(0, where=other))
    assert not place(0).meets(place(8 * n)) and not place(8 * n).meets(place(0))
    assert not place(0).meets(place(16 * n + 8))
    assert place(0).meets(place(4 * n)) and place(8 * n).meets(place(n * n))  # n may be 8
    assert place(0).meets(place(8 * n, strides=(-8,)))  # they move apart, or towards each other
    assert place(0).meets(place(8 * n, nbytes=None)) and place(8 * n, nbytes=None).meets(place(0))
    rest = place(0, 24 * n).shifted(8 * n)
    assert (rest.offset, rest.nbytes) == (8 * n, 16 * n)
    taken = Slot("arena", 0, 80 * n, f64, (10, n), host=slot)
    assert place(0, where=taken).meets(place(0))
