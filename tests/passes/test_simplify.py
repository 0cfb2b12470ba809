"""Simplification: before and after by structural equality, and the same bits throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.passes.simplify import Canonicalize, Cse, Dce, Fold, Simplify, SinkReshapes
from tracemill.compiler.passes.simplify.casts import is_lossless
from tracemill.compiler.passes.simplify.shapes import reshape_groups, reshaped_broadcast
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, sym
from tracemill.ir.dtypes import DType, boolean, f16, f32, f64, i8, i32, i64, u8
from tracemill.ir.errors import Location
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node, Place
from tracemill.ir.types import TensorType
from tracemill.ir.verify import verify

b = Builder()
B, T = sym("B"), sym("T")
SIZES = {"B": 3, "T": 5}


def var(i: int, *shape: Dim, dtype: DType = f32) -> Node:
    return input_node(i, TensorType(dtype, shape))


def graph(*outputs: Node) -> Graph:
    """The graph of these outputs; its inputs are the input nodes below them."""
    nodes = {n.attrs.index: n for n in Graph("g", (), outputs).nodes if n.op.name == "input"}
    count = max(nodes, default=-1) + 1
    types = [nodes[i].tensor_type if i in nodes else TensorType(f32, ()) for i in range(count)]
    return Graph("g", tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types)), outputs,
                 sizes=tuple(SIZES.items()))


def becomes(before: Node, after: Node, step: Any = None, *, same_bits: bool = True) -> None:
    """`step` (by default everything) turns the one into the other, and both compute the same."""
    step = step or Simplify()
    first = graph(before)
    found = step.run(first)
    expected = first.with_outputs([after])
    assert found == expected, f"\n{first}\nbecame\n{found}\nnot\n{expected}"
    verify(found)
    if isinstance(step, Simplify):
        assert step.is_canonical(found)
    rng = np.random.default_rng(0)
    values = []
    for spec in first.inputs:
        shape = tuple(d if isinstance(d, int) else d.evaluate(SIZES) for d in spec.type.shape)
        values.append(rng.normal(scale=3, size=shape).astype(spec.type.dtype.numpy))
    old, new = (evaluate(g, values, SIZES)[0] for g in (first, found))
    if same_bits:
        np.testing.assert_array_equal(old, new)
    else:
        np.testing.assert_allclose(old, new, rtol=1e-5)


def stays(node: Node, step: Any = None) -> None:
    becomes(node, node, step)


# -- elementwise and broadcasts ------------------------------------------------------------------------------


def test_constants_stand_on_the_right() -> None:
    x, c = var(0, 4), b.scalar(2.0, f32)
    becomes(b.mul(c, x), b.mul(x, c))
    becomes(b.lt(c, x), b.gt(x, c))
    becomes(b.ge(c, x), b.le(x, c))
    stays(b.sub(c, x))


def test_uniform_arrays_are_scalars() -> None:
    x = var(0, 2, 3)
    becomes(b.mul(x, b.constant(np.full((2, 3), 3.0), f32)), b.mul(x, b.scalar(3.0, f32)))
    stays(b.mul(x, b.constant([[1.0, 2, 3], [4, 5, 6]], f32)))
    becomes(b.constant(np.zeros((2, 3)), f32), b.splat(b.scalar(0.0, f32), (2, 3)))


def test_scalars_splat_by_themselves() -> None:
    x, s = var(0, B, 3), var(1)
    becomes(b.add(x, b.splat(s, (B, 3))), b.add(x, s))
    becomes(b.add(b.splat(s, (B, 3)), b.splat(b.exp(s), (B, 3))), b.splat(b.add(s, b.exp(s)), (B, 3)))


def test_elementwise_goes_before_the_broadcast() -> None:
    x, y, z, s = var(0, B), var(1, B), var(2, 3), var(3)
    wide = {"shape": (B, 3), "dims": (0,)}
    becomes(b.exp(b.broadcast(x, **wide)), b.broadcast(b.exp(x), **wide))
    becomes(b.mul(b.broadcast(x, **wide), b.broadcast(y, **wide)), b.broadcast(b.mul(x, y), **wide))
    becomes(b.mul(b.broadcast(x, **wide), b.splat(s, (B, 3))), b.broadcast(b.mul(x, s), **wide))
    stays(b.mul(b.broadcast(x, **wide), b.broadcast(z, shape=(B, 3), dims=(1,))))


def test_stretched_axes_vanish() -> None:
    x, rows = var(0, B, 3), var(1, B)
    column = b.reshape(rows, shape=(B, 1))
    becomes(b.sub(x, b.broadcast(column, shape=(B, 3), dims=(0, 1))),
            b.sub(x, b.broadcast(rows, shape=(B, 3), dims=(0,))))


def test_keepdim_chain_of_a_normalisation() -> None:
    x = var(0, B, 4)
    eps = b.scalar(1e-5, f32)
    kept = b.rsqrt(b.add(b.reshape(b.sum(b.mul(x, x), axes=(1,)), shape=(B, 1)), eps))
    plain = b.rsqrt(b.add(b.sum(b.mul(x, x), axes=(1,)), eps))
    becomes(b.mul(x, b.broadcast(kept, shape=(B, 4), dims=(0, 1))),
            b.mul(x, b.broadcast(plain, shape=(B, 4), dims=(0,))))


def test_broadcast_chains() -> None:
    x = var(0, 3)
    inner = b.broadcast(x, shape=(B, 3), dims=(1,))
    becomes(b.broadcast(inner, shape=(2, B, 3), dims=(1, 2)), b.broadcast(x, shape=(2, B, 3), dims=(2,)))
    becomes(b.broadcast(x, shape=(3,), dims=(0,)), x)
    becomes(b.broadcast(x, shape=(1, 3), dims=(1,)), b.reshape(x, shape=(1, 3)))


# -- movement ------------------------------------------------------------------------------------------------


def test_reshape_chains_and_broadcasts() -> None:
    x, bias = var(0, B, 6), var(1, 6)
    becomes(b.reshape(b.reshape(x, shape=(B, 2, 3)), shape=(B * 6,)), b.reshape(x, shape=(B * 6,)))
    becomes(b.reshape(b.reshape(x, shape=(B, 2, 3)), shape=(B, 6)), x)
    becomes(b.reshape(b.broadcast(bias, shape=(B, T, 6), dims=(2,)), shape=(B * T, 2, 3)),
            b.broadcast(b.reshape(bias, shape=(2, 3)), shape=(B * T, 2, 3), dims=(1, 2)))
    stays(b.reshape(b.broadcast(bias, shape=(B, 6), dims=(1,)), shape=(B * 6,)))


def test_permute_chains_and_unit_axes() -> None:
    x = var(0, B, 3, 4)
    becomes(b.permute(b.permute(x, dims=(1, 2, 0)), dims=(2, 0, 1)), x)
    becomes(b.permute(b.permute(x, dims=(1, 0, 2)), dims=(0, 2, 1)), b.permute(x, dims=(1, 2, 0)))
    y = var(0, B, 1, 4)
    becomes(b.permute(y, dims=(1, 0, 2)), b.reshape(y, shape=(1, B, 4)))
    z = var(0, 3, 4)
    becomes(b.permute(b.broadcast(z, shape=(B, 3, 4), dims=(1, 2)), dims=(2, 0, 1)),
            b.broadcast(b.permute(z, dims=(1, 0)), shape=(4, B, 3), dims=(0, 2)))


def test_slices_pads_flips_concats() -> None:
    x, y = var(0, 8, 4), var(1, 2, 4)
    one = b.slice(x, start=(1, 0), size=(6, 2), step=(1, 2))
    becomes(b.slice(one, start=(2, 1), size=(2, 1), step=(2, 1)),
            b.slice(x, start=(3, 2), size=(2, 1), step=(2, 2)))
    becomes(b.slice(x, start=(0, 0), size=(8, 4), step=(1, 1)), x)
    both = b.concat(x, y, axis=0)
    becomes(b.slice(both, start=(8, 0), size=(2, 4), step=(1, 1)), y)
    stays(b.slice(both, start=(7, 0), size=(2, 4), step=(1, 1)))
    becomes(b.concat(both, y, axis=0), b.concat(x, y, y, axis=0))
    becomes(b.concat(x, axis=0), x)
    zero = b.scalar(0.0, f32)
    becomes(b.pad(x, zero, pads=((0, 0, 0), (0, 0, 0))), x)
    becomes(b.pad(x, zero, pads=((-1, -2, 0), (0, 0, 0))), b.slice(x, start=(1, 0), size=(5, 4), step=(1, 1)))
    becomes(b.flip(b.flip(x, axes=(0, 1)), axes=(1,)), b.flip(x, axes=(0,)))
    becomes(b.flip(b.flip(x, axes=(1,)), axes=(1,)), x)


def test_padded_parts_of_a_split_are_a_concatenation() -> None:
    zero = b.scalar(0.0, f32)
    q, k, v = (var(i, B, 4) for i in range(3))

    def at(x: Node, low: int, high: int) -> Node:
        return b.pad(x, zero, pads=((0, 0, 0), (low, high, 0)))

    whole = b.add(b.add(at(v, 8, 0), at(k, 4, 4)), at(q, 0, 8))
    becomes(whole, b.concat(q, k, v, axis=1))
    becomes(b.add(at(k, 4, 4), at(v, 8, 0)), b.pad(b.concat(k, v, axis=1), zero, pads=((0, 0, 0), (4, 0, 0))))
    becomes(b.add(at(v, 8, 0), at(q, 0, 8)), b.concat(q, b.full(0.0, f32, (B, 4)), v, axis=1))
    becomes(b.add(b.add(at(v, 8, 0), at(q, 0, 8)), at(k, 4, 4)), b.concat(q, k, v, axis=1))
    overlapping = b.pad(var(3, B, 6), zero, pads=((0, 0, 0), (0, 6, 0)))
    stays(b.add(overlapping, at(k, 4, 4)))
    stays(b.add(at(q, 0, 8), b.pad(v, b.scalar(1.0, f32), pads=((0, 0, 0), (8, 0, 0)))))


def test_joined_parts_in_named_sizes() -> None:
    zero = b.scalar(0.0, f32)
    q, k, v = (var(i, T, 4) for i in range(3))

    def at(x: Node, low: Dim, high: Dim) -> Node:
        return b.pad(x, zero, pads=((low, high, 0), (0, 0, 0)))

    becomes(b.add(b.add(at(v, 2 * T, 0), at(q, 0, 2 * T)), at(k, T, T)), b.concat(q, k, v, axis=0))
    w = var(3, B, 4)
    stays(b.add(b.pad(w, zero, pads=((0, T, 0), (0, 0, 0))), b.pad(w, zero, pads=((T, 0, 0), (0, 0, 0)))))


def test_parts_are_joined_behind_common_views() -> None:
    zero = b.scalar(0.0, f32)
    q, k = var(0, 1, B, 4), var(1, 1, B, 4)

    def view(x: Node, low: int, high: int) -> Node:
        padded = b.pad(x, zero, pads=((low, high, 0), (0, 0, 0), (0, 0, 0)))
        return b.reshape(b.permute(padded, dims=(1, 0, 2)), shape=(B, 8))

    moved = b.permute(b.concat(q, k, axis=0), dims=(1, 0, 2))
    becomes(b.add(view(k, 1, 0), view(q, 0, 1)), b.reshape(moved, shape=(B, 8)))


def test_permutes_are_named_by_dot() -> None:
    x, w = var(0, B, 3), var(1, 4, 3)
    direct = b.dot(x, w, contract_a=(1,), contract_b=(1,))
    becomes(b.dot(x, b.permute(w, dims=(1, 0)), contract_a=(1,), contract_b=(0,)), direct)
    becomes(b.permute(direct, dims=(1, 0)), b.dot(w, x, contract_a=(1,), contract_b=(1,)), same_bits=False)
    q, k = var(0, B, T, 2, 5), var(1, B, T, 2, 5)
    heads = {"contract_a": (3,), "contract_b": (3,)}
    becomes(b.dot(b.permute(q, dims=(0, 2, 1, 3)), b.permute(k, dims=(0, 2, 1, 3)), batch_a=(0, 1),
                  batch_b=(0, 1), **heads),
            b.dot(q, k, batch_a=(0, 2), batch_b=(0, 2), **heads), same_bits=False)
    turned = b.permute(var(0, 3, 4, 5), dims=(1, 0, 2))  # its free axes change their order: no dot says that
    stays(b.dot(turned, var(1, 5), contract_a=(2,), contract_b=(0,)))


# -- reductions ----------------------------------------------------------------------------------------------


def test_sum_over_repeated_elements_is_a_product() -> None:
    x = var(0, 3)
    wide = b.broadcast(x, shape=(B, 3, 4), dims=(1,))
    count = b.cast(b.extent(value=B * 4), dtype=f32)
    becomes(b.sum(wide, axes=(0, 2)), b.mul(x, count), same_bits=False)
    becomes(b.sum(wide, axes=(0, 1, 2)), b.mul(b.sum(x, axes=(0,)), count), same_bits=False)
    becomes(b.sum(wide, axes=(0,)), b.broadcast(b.mul(x, b.cast(b.extent(value=B), dtype=f32)), shape=(3, 4),
                                                dims=(0,)),
            same_bits=False)
    stays(b.sum(wide, axes=(1,)))
    becomes(b.max(x, axes=()), x)


# -- casts ---------------------------------------------------------------------------------------------------


def test_cast_chains() -> None:
    x = var(0, 4)
    becomes(b.cast(x, dtype=f32), x)
    becomes(b.cast(b.cast(x, dtype=f64), dtype=f32), x)
    becomes(b.cast(b.cast(x, dtype=f64), dtype=f16), b.cast(x, dtype=f16))
    stays(b.cast(b.cast(x, dtype=f16), dtype=f32))
    n = var(0, 4, dtype=i32)
    becomes(b.cast(b.cast(n, dtype=i64), dtype=i8), b.cast(n, dtype=i8))
    stays(b.cast(b.cast(n, dtype=f64), dtype=u8))
    stays(b.cast(b.cast(n, dtype=f32), dtype=i32))
    p = b.gt(x, b.scalar(0.0, f32))
    becomes(b.cast(b.cast(p, dtype=f32), dtype=boolean), p)


def test_lossless_table() -> None:
    pairs = [(f32, f64, True), (f64, f32, False), (i32, f32, False), (i32, f64, True), (i64, f64, False),
             (u8, i8, False), (i8, u8, False), (u8, i32, True), (boolean, f16, True), (f32, boolean, False),
             (f32, i64, False), (i8, f16, False)]
    for source, target, expected in pairs:
        assert is_lossless(source, target) is expected, (source, target)


# -- constants, CSE, DCE -------------------------------------------------------------------------------------


def test_fold_exact_operators_only() -> None:
    two, three = b.constant([2.0, 3.0], f32), b.constant([4.0, 5.0], f32)
    becomes(b.add(two, three), b.constant([6.0, 8.0], f32), Fold())
    becomes(b.reshape(two, shape=(2, 1)), b.constant([[2.0], [3.0]], f32), Fold())
    stays(b.exp(two), Fold())
    stays(b.sum(two, axes=(0,)), Fold())
    becomes(b.add(two, three), b.add(two, three), Fold(max_elements=1))
    stays(b.broadcast(two, shape=(4, 2), dims=(1,)), Fold())


def test_cse_ignores_places_and_operand_order() -> None:
    there = Builder(Place(Location("a.py", 3), "layer"))
    x, y = var(0, 4), var(1, 4)
    before = b.mul(b.add(x, y), there.exp(there.add(y, x)))
    after = b.mul(b.add(x, y), b.exp(b.add(x, y)))
    found = Cse().run(graph(before))
    assert found == graph(after) and [n.op.name for n in found.nodes].count("add") == 1
    kept = b.sub(x, y), b.sub(y, x)
    assert Cse().run(graph(*kept)).outputs == kept


def counter(carries: int, *, read: Sequence[int], stacks: int = 1) -> tuple[Graph, list[Node]]:
    """A scan over x with `carries` sums (the last one unused by the others) and squares as stacked
    results.
    """
    t = TensorType(f32, (2,))
    body_in = [input_node(i, t) for i in range(carries + 2)]
    x, c = body_in[carries], body_in[carries + 1]
    outs = [b.add(s, x) for s in body_in[:carries]] + [b.mul(x, c) for _ in range(stacks)]
    body = Graph("body", tuple(InputSpec(f"a{i}", t) for i in range(carries + 2)), tuple(outs))
    init = [var(i, 2) for i in range(carries)]
    scan = b.scan(*init, var(carries, B, 2), var(carries + 1, 2), body=body, n_carry=carries, n_xs=1,
                  length=B)
    results = b.results(scan)
    return graph(*(results[i] for i in read)), list(results)


def test_dce_prunes_scan_results_carries_and_operands() -> None:
    before, _ = counter(2, read=[0])
    pruned = Dce().run(before)
    scan = next(n for n in pruned.nodes if n.op.name == "scan")
    assert scan.attrs.n_carry == 1 and len(scan.inputs) == 2 and len(scan.result_types) == 1
    verify(pruned)
    values = [np.full(s.type.shape if i != 2 else (3, 2), i + 1, np.float32) for i,
              s in enumerate(before.inputs)]
    np.testing.assert_array_equal(evaluate(before, values)[0], evaluate(pruned, values)[0])
    stacked, _ = counter(2, read=[2])
    scan = next(n for n in Dce().run(stacked).nodes if n.op.name == "scan")
    assert scan.attrs.n_carry == 0 and len(scan.inputs) == 2
    whole, _ = counter(1, read=[0, 1])
    assert Dce().run(whole) is whole


def test_dce_prunes_while_and_cond() -> None:
    t, k = TensorType(f32, ()), TensorType(i64, ())
    specs = (InputSpec("n", k), InputSpec("a", t), InputSpec("c", t))
    n, a, c = (input_node(i, s.type) for i, s in enumerate(specs))
    body = Graph("body", specs, (b.add(n, b.scalar(1, i64)), b.mul(a, c)))
    test = Graph("test", specs, (b.lt(n, b.scalar(3, i64)),))
    loop = b.while_(var(0, dtype=i64), var(1), var(2), cond=test, body=body, n_carry=2)
    pruned = Dce().run(graph(b.result(loop, index=0)))
    left = next(m for m in pruned.nodes if m.op.name == "while")
    assert len(left.inputs) == 1 and int(evaluate(pruned,
                                                  [np.int64(0), np.float32(0), np.float32(0)])[0]) == 3

    branch_in = (InputSpec("a", t), InputSpec("c", t))
    a, c = (input_node(i, t) for i in range(2))
    then, other = Graph("then", branch_in, (a, c)), Graph("other", branch_in, (b.neg(a), c))
    cond = b.cond(var(0, dtype=boolean), var(1), var(2), then=then, other=other)
    left = next(m for m in Dce().run(graph(b.result(cond, index=0))).nodes if m.op.name == "cond")
    assert len(left.inputs) == 2 and len(left.result_types) == 1


def test_a_branch_on_a_constant_is_the_side_taken() -> None:
    t = TensorType(f32, (3,))
    spec, a = (InputSpec("a", t),), input_node(0, t)
    cond = b.cond(b.scalar(False, boolean), var(0, 3), then=Graph("t", spec, (b.exp(a),)),
                  other=Graph("o", spec, (b.sin(a),)))
    becomes(b.result(cond, index=0), b.sin(var(0, 3)))


def test_bodies_are_simplified_too() -> None:
    t = TensorType(f32, (3,))
    spec, a = (InputSpec("a", t),), input_node(0, t)
    scan = b.scan(var(0, 3), body=Graph("body", spec, (b.mul(b.exp(a), b.scalar(1.0, f32)),)), n_carry=1,
                  n_xs=0, length=4)
    clean = b.scan(var(0, 3), body=Graph("body", spec, (b.exp(a),)), n_carry=1, n_xs=0, length=4)
    becomes(b.result(scan, index=0), b.result(clean, index=0))


# -- reshapes sink -------------------------------------------------------------------------------------------


def test_reshape_sinks_through_a_chain_to_its_inputs() -> None:
    x, y, bias = var(0, B, T, 6), var(1, B, T, 6), var(2, 6)
    flat = (B * T, 6)
    chain = b.tanh(b.add(b.mul(x, y), b.broadcast(bias, shape=(B, T, 6), dims=(2,))))
    moved = b.tanh(b.add(b.mul(b.reshape(x, shape=flat), b.reshape(y, shape=flat)),
                         b.broadcast(bias, shape=flat, dims=(1,))))
    becomes(b.sum(b.reshape(chain, shape=flat), axes=(1,)), b.sum(moved, axes=(1,)), same_bits=False)


@pytest.mark.parametrize("make", [
    lambda x: b.reshape(b.exp(x), shape=(6,)),  # at the end already: an alias of the kernel's output
    lambda x: b.exp(b.reshape(b.exp(b.permute(x, dims=(1, 0))), shape=(6,))),
    # a transposed load would need a copy
    lambda x: b.exp(b.reshape(b.add(b.exp(x), b.broadcast(var(1, 2), shape=(2, 3), dims=(0,))), shape=(6,))),
    lambda x: b.exp(b.reshape(b.exp(b.dot(x, var(1, 3, 3), contract_a=(1,), contract_b=(0,))), shape=(6,))),
    # epilogue
])
def test_reshapes_that_stay(make: Callable[[Node], Node]) -> None:
    stays(make(var(0, 2, 3)), SinkReshapes())


def test_a_chain_moves_as_a_whole_or_not_at_all() -> None:
    x = var(0, 2, 3)
    shared = b.exp(x)
    out = b.sin(b.reshape(b.neg(shared), shape=(6,)))
    g = graph(out, shared)  # `shared` is an output: it keeps its shape, and so does what hangs on it
    assert SinkReshapes().run(g) is g


# -- shapes --------------------------------------------------------------------------------------------------


def test_reshape_groups() -> None:
    assert reshape_groups((B, 6), (B, 2, 3)) == [((0,), (0,)), ((1,), (1, 2))]
    assert reshape_groups((B, T, 6), (B * T, 6)) == [((0, 1), (0,)), ((2,), (1,))]
    assert reshape_groups((4, 1), (4,)) == [((0, 1), (0,))]
    assert reshape_groups((), (1, 1)) == [((), (0, 1))]
    assert reshape_groups((B, 2), (2, B)) == [((0, 1), (0, 1))]
    assert reshaped_broadcast((6,), (1,), (B, 6), (B * 6,)) is None


# -- the whole -----------------------------------------------------------------------------------------------


def test_batch_128_and_batch_b_become_the_same() -> None:
    def softmax_loss(n: Dim) -> Graph:
        x = var(0, n, 10)
        top = b.broadcast(b.reshape(b.max(x, axes=(1,)), shape=(n, 1)), shape=(n, 10), dims=(0, 1))
        e = b.exp(b.sub(x, top))
        p = b.div(e, b.broadcast(b.reshape(b.sum(e, axes=(1,)), shape=(n, 1)), shape=(n, 10), dims=(0, 1)))
        mean = b.div(b.sum(b.log(p), axes=(0, 1)), b.cast(b.dim(n * 10), dtype=f32))
        return Simplify().run(graph(mean))

    fixed, free = softmax_loss(128), softmax_loss(B)
    assert [n.op.name for n in fixed.nodes if n.op.name not in ("constant",)] == [
        n.op.name for n in free.nodes if n.op.name not in ("extent", "cast", "constant")]


def test_simplify_is_idempotent_and_returns_the_same_object() -> None:
    x = var(0, B, 3)
    g = Simplify().run(graph(b.mul(b.exp(b.mul(b.scalar(1.0, f32), x)), b.exp(x))))
    assert Simplify().run(g) is g
    assert Canonicalize().run(g) is g


def test_a_deep_graph_needs_no_deep_stack() -> None:
    x = var(0, 3)
    for _ in range(3000):
        x = b.sin(b.mul(b.scalar(2.0, f32), x))
    assert len(Simplify().run(graph(x)).nodes) == 6002


def test_a_generator_moves_on_once() -> None:
    state = var(0, 2, dtype=i64)
    twice = b.random_advance(b.random_advance(b.random_advance(state, count=5), count=4), count=3)
    becomes(twice, b.random_advance(state, count=15))  # two blocks, one, and three elements of a fourth
    becomes(b.random_advance(b.random_advance(state, count=B), count=6),
            b.random_advance(state, count=(B + 3) // 4 * 4 + 6))
