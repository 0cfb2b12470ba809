"""How many kernels a graph has: what differs in numbers only is one kernel, and so are layers of one structure."""

from __future__ import annotations

import numpy as np
import pytest
from tracemill.compiler.backend.flags import CompileFlags, code_of, kernel_symbol
from tracemill.compiler.driver import compile_graph, lower_to_plan
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import f32, i64, u32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()
STATE = InputSpec("state", TensorType(i64, (2,)), "state")
SHAPES = ((5, 3), (5,), (2, 7, 3), (9,), (4, 4))


def draws(count: int) -> Graph:
    """A model's initialisation: uniform numbers between bounds of each parameter's own."""
    state, outputs = input_node(0, STATE.type), []
    for k in range(count):
        shape = SHAPES[k % len(SHAPES)]
        bits = b.random_bits(state, shape=shape)
        state = b.random_advance(state, count=int(np.prod(shape)))
        unit = b.mul(b.cast(b.shr(bits, b.scalar(8, u32)), dtype=f32), b.scalar(2.0**-24, f32))
        bound = (k + 1.3) ** -0.5
        outputs.append(b.add(b.mul(unit, b.scalar(2 * bound, f32)), b.scalar(-bound, f32)))
    return Graph("draws", (STATE,), (*outputs, state), (), (*(None,) * count, 0))


def test_initialisation_is_one_kernel_for_all_parameters() -> None:
    few, many = (lower_to_plan(draws(n))[1].kernels for n in (2, 11))
    assert set(many) == set(few)
    assert len(many) == 2, "one draws, one moves the state on"


@pytest.mark.parametrize("count", [1, 7])
def test_draws_have_the_bits_of_the_reference(count: int) -> None:
    graph = draws(count)
    state = np.array([1234, (1 << 32) - 2], np.int64)  # the low word of the counter overflows on the way
    wanted = evaluate(graph, [state])
    found = compile_graph(graph).run([state.copy()])
    for k, (f, w) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_array_equal(f, w, err_msg=f"output {k}")


def chain(layers: int) -> Graph:
    """Layers of one structure, forward only: a row normalised, then scaled."""
    t = TensorType(f32, (6, 16))
    specs = [InputSpec("x", t), *(InputSpec(f"w{k}", TensorType(f32, (16, 16))) for k in range(layers))]
    x: Node = input_node(0, t)
    for k in range(layers):
        y = b.dot(x, input_node(k + 1, specs[k + 1].type), contract_a=(1,), contract_b=(0,))
        top = b.broadcast(b.max(y, axes=(1,)), shape=(6, 16), dims=(0,))
        x = b.tanh(b.sub(y, top))
    return Graph("chain", tuple(specs), (x,))


def test_more_layers_of_one_structure_are_no_more_kernels() -> None:
    found = [lower_to_plan(chain(n))[1] for n in (3, 6, 12)]
    assert set(found[0].kernels) == set(found[1].kernels) == set(found[2].kernels)
    assert [len(e.plan.flat) for e in found] == [len(found[0].plan.flat) // 3 * n for n in (3, 6, 12)]


def test_comments_are_no_part_of_a_kernel() -> None:
    code = "def kernel(buffers, extents, begin, end, scratch, status):\n    return 0  # done\n"
    assert code_of("# map: add\n# of b\n" + code) == code
    assert kernel_symbol("# map: add\n" + code, "kernel") == kernel_symbol("# map: sub\n" + code, "kernel")
    other = code.replace("0", "1")
    assert kernel_symbol(code, "kernel") != kernel_symbol(other, "kernel")
    assert kernel_symbol(code, "kernel") != kernel_symbol(code, "kernel", CompileFlags(noalias=False))
