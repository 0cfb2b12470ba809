"""Autodiff against finite differences in float64, its cuts and symbols, loops and branches, residuals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tracemill.compiler.passes.activity import reached
from tracemill.compiler.passes.autodiff import SYMBOLS, Autodiff, residuals
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import bf16, boolean, f64, i64
from tracemill.ir.errors import AutogradError, Location
from tracemill.ir.graph import Graph, InputSpec, all_nodes, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node, Place
from tracemill.ir.types import TensorType
from tracemill.ir.verify import verify

b = Builder()
Array = np.ndarray


def arguments(*shapes: Sequence[object], dtype: object = f64) -> tuple[tuple[InputSpec, ...], list[Node]]:
    types = [TensorType(dtype, tuple(s)) for s in shapes]
    return (tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types)),
            [input_node(i, t) for i, t in enumerate(types)])


def gradients(outputs: Sequence[Node], cotangents: Sequence[Node], wrt: Sequence[Node]) -> tuple[Node, ...]:
    node = b.gradient(*outputs, *cotangents, *wrt, n_outputs=len(outputs), n_wrt=len(wrt))
    return b.results(node)


def grad(loss: Node, *wrt: Node) -> tuple[Node, ...]:
    return gradients([loss], [b.like(1.0, loss)], wrt)


def differentiated(graph: Graph) -> Graph:
    out = Autodiff().run(graph)
    verify(out)
    assert not SYMBOLS & {n.op.name for n in all_nodes(out)}
    return out


def total(x: Node) -> Node:
    return b.sum(x, axes=tuple(range(len(x.shape))))


def weighted(x: Node, seed: int = 5) -> Node:
    """A scalar that weighs every element differently."""
    w = np.random.default_rng(seed).uniform(0.5, 1.5, tuple(int(d) for d in x.shape))
    return total(b.mul(x, b.constant(w, f64)))


def check(f: Callable[..., Node], *shapes: Sequence[int], low: float = -1.0, high: float = 1.0,
          second: bool = False,
          rtol: float = 2e-6) -> None:
    """Compare the gradient of `f` in every argument with central differences; `second`: of a gradient's
    projection.
    """
    rng = np.random.default_rng(1)
    values = [rng.uniform(low, high, s) for s in shapes]
    specs, xs = arguments(*shapes)
    loss = f(*xs)
    assert not loss.shape
    if second:
        loss = b.add(loss, total_of([weighted(b.mul(g, g), 7) for g in grad(loss, *xs)]))
    g = differentiated(Graph("f", specs, (loss, *grad(loss, *xs))))
    primal = differentiated(Graph("p", specs, (loss,)))
    found = evaluate(g, values)[1:]
    for i, value in enumerate(values):
        numeric = np.zeros_like(value)
        for at in np.ndindex(*value.shape):
            h = 1e-5
            sides = []
            for sign in (1, -1):
                moved = [v.copy() for v in values]
                moved[i][at] += sign * h
                sides.append(float(evaluate(primal, moved)[0]))
            numeric[at] = (sides[0] - sides[1]) / (2 * h)
        np.testing.assert_allclose(found[i], numeric, rtol=rtol, atol=rtol * max(1.0, np.abs(numeric).max()))


def total_of(parts: Sequence[Node]) -> Node:
    out = parts[0]
    for p in parts[1:]:
        out = b.add(out, p)
    return out


def row(x: Node, like: Node) -> Node:
    return b.broadcast(x, shape=like.shape, dims=(len(like.shape) - 1,))


def column(x: Node, like: Node) -> Node:
    return b.broadcast(x, shape=like.shape, dims=tuple(range(len(like.shape) - 1)))


def linear(x: Node, w: Node, bias: Node) -> Node:
    y = b.dot(x, w, contract_a=(len(x.shape) - 1,), contract_b=(1,))
    return b.add(y, row(bias, y))


def softmax(x: Node) -> Node:
    last = (len(x.shape) - 1,)
    shifted = b.sub(x, column(b.stop_gradient(b.max(x, axes=last)), x))
    e = b.exp(shifted)
    return b.div(e, column(b.sum(e, axes=last), e))


def mlp(x: Node, w1: Node, c1: Node, w2: Node, c2: Node) -> Node:
    return weighted(linear(b.tanh(linear(x, w1, c1)), w2, c2))


MLP = ((3, 4), (5, 4), (5,), (2, 5), (2,))


def cross_entropy(x: Node) -> Node:
    labels = b.constant([2, 0, 1], i64)
    p = softmax(x)
    hit = b.eq(b.iota(shape=(3, 4), axis=1, dtype=i64), b.broadcast(labels, shape=(3, 4), dims=(0,)))
    return total(b.select(hit, b.neg(b.log(p)), b.scalar(0.0, f64)))


def layer_norm(x: Node, gain: Node) -> Node:
    n = b.scalar(float(x.shape[-1]), f64)
    mean = b.div(b.sum(x, axes=(1,)), n)
    d = b.sub(x, column(mean, x))
    var = b.div(b.sum(b.mul(d, d), axes=(1,)), n)
    y = b.mul(d, column(b.rsqrt(b.add(var, b.scalar(1e-5, f64))), d))
    return weighted(b.mul(y, row(gain, y)))


def attention(q: Node, k: Node, v: Node) -> Node:
    scores = b.dot(q, k, contract_a=(2,), contract_b=(2,), batch_a=(0,), batch_b=(0,))
    p = softmax(b.mul(scores, b.scalar(0.5, f64)))
    return weighted(b.dot(p, v, contract_a=(2,), contract_b=(1,), batch_a=(0,), batch_b=(0,)))


def conv_net(x: Node, w: Node, head: Node) -> Node:
    pads = ((1, 1), (0, 1))
    y = b.conv(x, w, stride=(1, 2), pads=pads, dilation=(1, 1), groups=1)
    y = b.sigmoid(y)
    y = b.window_sum(y, window=(2, 1), stride=(2, 1), pads=((0, 0), (0, 0)), dilation=(1, 1))
    flat = b.reshape(y, shape=(x.shape[0], 3 * 2 * 2))
    return weighted(b.dot(flat, head, contract_a=(1,), contract_b=(0,)))


def test_mlp() -> None:
    check(mlp, *MLP)


def test_cross_entropy_and_softmax() -> None:
    check(cross_entropy, (3, 4))


def test_layer_norm() -> None:
    check(layer_norm, (3, 5), (5,))


def test_attention() -> None:
    check(attention, (2, 3, 4), (2, 3, 4), (2, 3, 2))


def test_conv_net() -> None:
    check(conv_net, (2, 2, 4, 4), (3, 2, 3, 2), (12, 2))


def test_movement_and_scalar_operands() -> None:
    def f(x: Node, s: Node) -> Node:
        y = b.mul(b.permute(x, dims=(1, 0)), s)  # rank-0 operand: its cotangent is a sum
        y = b.concat(b.slice(y, start=(1, 0), size=(2, 3), step=(1, 1)), b.flip(y, axes=(1,)), axis=0)
        y = b.pad(y, s, pads=((1, 0, 1), (-1, 2, 0)))
        return weighted(b.select(b.gt(y, b.scalar(0.1, f64)), b.mul(y, y), y))

    check(f, (3, 4), (), low=0.2, high=1.0)


def test_several_results_of_which_one_has_a_cotangent() -> None:
    def f(x: Node) -> Node:
        values, _ = b.results(b.topk(x, k=2, axis=1, largest=True))
        return weighted(b.mul(values, values))

    check(f, (3, 5))


@pytest.mark.parametrize("f, shapes", [(mlp, MLP), (cross_entropy, ((3, 4),)), (layer_norm, ((2, 3), (3,))),
                                       (attention, ((1, 2, 3), (1, 2, 3), (1, 2, 2)))])
def test_double_backward(f: Callable[..., Node], shapes: Sequence[Sequence[int]]) -> None:
    check(f, *shapes, second=True, rtol=2e-5)


def test_third_derivative() -> None:
    specs, (x,) = arguments(())
    y = b.exp(b.mul(x, b.scalar(2.0, f64)))
    for _ in range(3):
        y, = grad(y, x)
    value, = evaluate(differentiated(Graph("g", specs, (y,))), [np.float64(0.3)])
    np.testing.assert_allclose(value, 8 * np.exp(0.6), rtol=1e-13)


# -- which nodes get what ------------------------------------------------------------------------------------


def test_wrt_intermediate_nodes_that_depend_on_each_other() -> None:
    specs, (x,) = arguments((3,))
    h = b.mul(x, x)
    k = b.mul(h, x)
    g = differentiated(Graph("g", specs, grad(total(b.add(b.mul(k, h), h)), k, x, h)))
    v = np.array([1.0, 2.0, -3.0])
    dk, dx, dh = evaluate(g, [v])
    np.testing.assert_allclose(dk, v**2)
    np.testing.assert_allclose(dh, v**3 + 1 + v**2 * v)
    np.testing.assert_allclose(dx, 5 * v**4 + 2 * v)


def test_nothing_is_computed_beyond_an_intermediate_wrt() -> None:
    specs, (x,) = arguments((3,))
    h = b.exp(x)
    g = differentiated(Graph("g", specs, grad(total(b.mul(h, h)), h)))
    assert [n.op.name for n in g.nodes].count("mul") == 1


def test_output_that_is_wrt_itself() -> None:
    specs, (x,) = arguments((3,))
    g = differentiated(Graph("g", specs, gradients([x], [b.full(2.0, f64, (3,))], [x])))
    np.testing.assert_array_equal(evaluate(g, [np.ones(3)])[0], [2, 2, 2])


def test_unreached_wrt_gets_zeros_and_reached_says_so() -> None:
    specs, (x, y) = arguments((3,), (sym("B"), 2))
    loss = total(x)
    g = differentiated(Graph("g", specs, grad(loss, x, y)))
    np.testing.assert_array_equal(evaluate(g, [np.ones(3), np.ones((4, 2))])[1], np.zeros((4, 2)))
    assert reached([loss], [x, y]) == (True, False)
    assert reached([loss, b.stop_gradient(y)], [y]) == (False,)


def test_cuts() -> None:
    specs, (x,) = arguments((3,))
    through_int = b.cast(b.cast(x, dtype=i64), dtype=f64)
    mask = b.cast(b.gt(x, b.scalar(0.0, f64)), dtype=f64)
    y = total_of([b.mul(x, b.stop_gradient(x)), b.mul(through_int, x), b.mul(mask, x)])
    g = differentiated(Graph("g", specs, grad(total(y), x)))
    v = np.array([1.5, -2.5, 3.5])
    np.testing.assert_allclose(evaluate(g, [v])[0], v + np.trunc(v) + (v > 0))


def test_vector_cotangents_of_several_outputs() -> None:
    specs, (x, c, d) = arguments((3,), (3,), (3,))
    g = differentiated(Graph("g", specs, gradients([b.mul(x, x), b.sin(x)], [c, d], [x])))
    v, cv, dv = np.arange(3.0), np.array([1.0, -1, 2]), np.array([0.5, 2, 3])
    np.testing.assert_allclose(evaluate(g, [v, cv, dv])[0], 2 * v * cv + np.cos(v) * dv)


def test_cotangents_stand_at_their_forward_node() -> None:
    here = Builder(Place(Location("script.py", 7), "layers.0"))
    specs, (x,) = arguments((3,))
    g = differentiated(Graph("g", specs, grad(total(here.tanh(x)), x)))
    made = [n for n in g.nodes if n.op.name in ("sub", "mul")]
    assert made and all(n.place == here.place for n in made)


def test_narrow_contributions_are_added_wide() -> None:
    specs, (x,) = arguments((3,), dtype=bf16)
    y = total_of([b.neg(x), b.exp(x), b.sin(x)])
    g = differentiated(Graph("g", specs, gradients([y], [b.full(1.0, bf16, (3,))], [x])))
    assert [n.dtype.name for n in g.nodes if n.op.name == "add"] == ["f32", "f32"]
    assert g.outputs[0].dtype is bf16


def test_integer_wrt_and_operators_without_derivative_are_errors() -> None:
    _, (x,) = arguments((3,))
    at = Builder(Place(Location("script.py", 12)))
    specs, (k,) = arguments((), dtype=f64)
    body = Graph("body", specs, (b.mul(k, k),))
    test = Graph("test", specs, (b.lt(k, b.scalar(9.0, f64)),))
    loop = at.while_(k, cond=test, body=body, n_carry=1)
    with pytest.raises(AutogradError, match="while loop") as error:
        Autodiff().run(Graph("g", specs, grad(b.result(loop, index=0), k)))
    assert error.value.location == Location("script.py", 12) and "scan" in (error.value.hint or "")
    cast = at.bitcast(at.bitcast(x, dtype=i64), dtype=f64)
    assert reached([cast], [x]) == (False,)


# -- symbols -------------------------------------------------------------------------------------------------


def test_with_value_takes_the_value_and_sends_the_gradient_on() -> None:
    specs, (x, v) = arguments((3,), (3,))
    h = b.with_value(b.sin(x), v)
    loss = total(b.mul(h, h))
    g = differentiated(Graph("g", specs, (loss, *grad(loss, x))))
    kept = np.array([3.0, 4.0, 5.0])
    value, dx = evaluate(g, [np.zeros(3), kept])
    assert value == 50
    np.testing.assert_allclose(dx, 2 * kept * np.cos(0))


def test_custom_vjp_is_used_and_is_differentiable_itself() -> None:
    t = TensorType(f64, (3,))
    one, (x,) = arguments((3,))
    three, (bx, _, ct) = arguments((3,), (3,), (3,))
    forward = Graph("cube", one, (b.mul(x, b.mul(x, x)),))
    backward = Graph("cube_vjp", three, (b.mul(ct, b.mul(b.scalar(10.0, f64), b.mul(bx, bx))),
                                         ))  # not the true one
    y = b.result(b.custom_vjp(input_node(0, t), forward=forward, backward=backward), index=0)
    first, = grad(total(y), x)
    second, = grad(total(first), x)
    v = np.array([1.0, -2.0, 0.5])
    values = evaluate(differentiated(Graph("g", one, (y, first, second))), [v])
    for found, expected in zip(values, (v**3, 10 * v**2, 20 * v), strict=True):
        np.testing.assert_allclose(found, expected)


def test_gradient_inside_a_body() -> None:
    specs, (x,) = arguments((3,))
    inner = Graph("body", specs, grad(total(b.exp(x)), x))
    y = b.result(b.cond(b.constant(True, boolean), x, then=inner, other=inner), index=0)
    g = differentiated(Graph("g", specs, (y, *grad(total(y), x))))
    v = np.array([0.1, 0.2, 0.3])
    for found in evaluate(g, [v]):
        np.testing.assert_allclose(found, np.exp(v))


# -- loops and branches --------------------------------------------------------------------------------------


def rnn(xs: Node, h0: Node, w: Node, u: Node, *, reverse: bool = False) -> tuple[Node, Node]:
    """Final state and all states of h' = tanh(x·w + h·u), x the slices of xs."""
    types = [h0.tensor_type, TensorType(f64, xs.shape[1:]), w.tensor_type, u.tensor_type]
    h, x, wi, ui = (input_node(i, t) for i, t in enumerate(types))
    mixed = b.add(b.dot(x, wi, contract_a=(1,), contract_b=(0,)),
                  b.dot(h, ui, contract_a=(1,), contract_b=(0,)))
    new = b.tanh(mixed)
    body = Graph("cell", tuple(InputSpec(n, t) for n, t in zip("hxwu", types, strict=True)),
                 (new, b.mul(new, new)))
    last, stacked = b.results(b.scan(h0, xs, w, u, body=body, n_carry=1, n_xs=1, length=xs.shape[0],
                                     reverse=reverse))
    return last, stacked


RNN = ((4, 2, 3), (2, 3), (3, 3), (3, 3))


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse: bool) -> None:
    def f(xs: Node, h0: Node, w: Node, u: Node) -> Node:
        last, stacked = rnn(xs, h0, w, u, reverse=reverse)
        return b.add(weighted(last), weighted(stacked))

    check(f, *RNN)


def test_scan_of_which_only_the_last_state_is_used() -> None:
    check(lambda *xs: weighted(rnn(*xs)[0]), *RNN)


def test_scan_double_backward() -> None:
    check(lambda *xs: weighted(rnn(*xs)[1]), (3, 1, 2), (1, 2), (2, 2), (2, 2), second=True, rtol=2e-5)


def test_stacked_scans_run_once_forward_and_once_backward() -> None:
    specs, (xs, h0, w, u) = arguments(*RNN)
    _, first = rnn(xs, h0, w, u)
    last, _ = rnn(first, h0, w, u)
    loss = total(last)
    g = differentiated(Graph("g", specs, (loss, *grad(loss, w, u, xs))))
    assert [n.op.name for n in g.nodes].count("scan") == 4


def test_scan_keeps_only_what_the_backward_loop_reads() -> None:
    specs, (xs, h0, w, u) = arguments(*RNN)
    last, _ = rnn(xs, h0, w, u)
    g = differentiated(Graph("g", specs, grad(total(last), h0)))
    forward = next(n for n in g.nodes if n.op.name == "scan" and not n.attrs.reverse)
    # results: the last state, the squares that the script stacks, and tanh's value; no states, no products
    assert len(forward.result_types) == 3
    reverse = next(n for n in g.nodes if n.op.name == "scan" and n.attrs.reverse)
    assert reverse.attrs.n_carry == 1 and len(reverse.inputs) == 3  # cotangent, tanh's values, u


def test_weight_gradients_of_a_scan_are_one_contraction_after_it() -> None:
    specs, (xs, h0, w, u) = arguments(*RNN)
    last, _ = rnn(xs, h0, w, u)
    g = differentiated(Graph("g", specs, grad(total(last), xs, w, u)))
    reverse = next(n for n in g.nodes if n.op.name == "scan" and n.attrs.reverse)
    assert [n.op.name
            for n in reverse.attrs.body.nodes].count("dot") == 1  # the carry's; not the weights', not xs's
    assert reverse.attrs.n_carry == 1
    assert sum(n.op.name == "dot" for n in g.nodes) == 3


def test_sums_over_steps_that_are_no_contraction_are_carried() -> None:
    def f(xs: Node, scale: Node) -> Node:
        t = [TensorType(f64, (3,)), TensorType(f64, (3,)), TensorType(f64, ())]
        h, x, s = (input_node(i, each) for i, each in enumerate(t))
        body = Graph("body", tuple(InputSpec(f"a{i}", each) for i, each in enumerate(t)),
                     (b.sin(b.add(b.mul(h, s), x)),))
        loop = b.scan(b.full(0.1, f64, (3,)), xs, scale, body=body, n_carry=1, n_xs=1, length=4)
        return weighted(b.result(loop, index=0))

    check(f, (4, 3), ())


def test_scan_with_a_bias_and_batched_contraction() -> None:
    def f(xs: Node, h0: Node, w: Node, bias: Node) -> Node:
        t = [h0.tensor_type, TensorType(f64, xs.shape[1:]), w.tensor_type, bias.tensor_type]
        h, x, wi, c = (input_node(i, each) for i, each in enumerate(t))
        heads = b.dot(h, wi, contract_a=(2,), contract_b=(2,), batch_a=(1,),
                      batch_b=(0,))  # [heads, batch, out]
        mixed = b.add(b.permute(heads, dims=(1, 0, 2)), x)
        new = b.tanh(b.add(mixed, b.broadcast(c, shape=mixed.shape, dims=(2,))))
        body = Graph("cell", tuple(InputSpec(f"a{i}", each) for i, each in enumerate(t)), (new, new))
        last, stacked = b.results(b.scan(h0, xs, w, bias, body=body, n_carry=1, n_xs=1, length=3))
        return b.add(weighted(last), weighted(stacked))

    check(f, (3, 2, 2, 3), (2, 2, 3), (2, 3, 3), (3,))


def test_scan_of_symbolic_length() -> None:
    t = sym("T")
    specs, (xs, h0, w, u) = arguments((t, 2, 3), (2, 3), (3, 3), (3, 3))
    _, stacked = rnn(xs, h0, w, u)
    g = differentiated(Graph("g", specs, grad(total(stacked), w)))
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s) for s in ((5, 2, 3), (2, 3), (3, 3), (3, 3))]
    fixed, ys = arguments((5, 2, 3), (2, 3), (3, 3), (3, 3))
    same = differentiated(Graph("g", fixed, grad(total(rnn(*ys)[1]), ys[2])))
    np.testing.assert_array_equal(evaluate(g, values)[0], evaluate(same, values)[0])


def test_carry_that_becomes_active_in_the_loop_and_an_integer_carry() -> None:
    def f(w: Node) -> Node:
        state = [TensorType(f64, (2,)), TensorType(i64, ()), w.tensor_type]
        s, n, wi = (input_node(i, t) for i, t in enumerate(state))
        step = b.mul(wi, b.splat(b.cast(n, dtype=f64), (2,)))
        body = Graph("body", tuple(InputSpec(f"s{i}", t) for i, t in enumerate(state)),
                     (b.add(b.sin(s), step), b.add(n, b.scalar(1, i64))))
        loop = b.scan(b.full(0.5, f64, (2,)), b.scalar(0, i64), w, body=body, n_carry=2, n_xs=0, length=4)
        return weighted(b.result(loop, index=0))

    check(f, (2,))


def test_scan_inside_a_scan() -> None:
    def f(x: Node, w: Node) -> Node:
        t = [TensorType(f64, (2,)), TensorType(f64, (2,))]
        h, k = (input_node(i, each) for i, each in enumerate(t))
        inner = Graph("inner", (InputSpec("h", t[0]), InputSpec("k", t[1])), (b.sin(b.mul(h, k)),))
        once = b.result(b.scan(h, k, body=inner, n_carry=1, n_xs=0, length=3), index=0)
        outer = Graph("outer", (InputSpec("h", t[0]), InputSpec("k", t[1])), (b.add(once, h),))
        return weighted(b.result(b.scan(x, w, body=outer, n_carry=1, n_xs=0, length=2), index=0))

    check(f, (2,), (2,), low=0.3)


@pytest.mark.parametrize("taken", [True, False])
def test_cond(taken: bool) -> None:
    def f(x: Node, y: Node) -> Node:
        specs, (a, c) = arguments((3,), (3,))
        then = Graph("then", specs, (b.mul(a, c), b.exp(a)))
        other = Graph("other", specs, (b.sin(a), b.mul(a, a)))
        first, second = b.results(b.cond(b.constant(taken, boolean), x, y, then=then, other=other))
        return b.add(weighted(first), weighted(b.mul(second, second)))

    check(f, (3,), (3,))
    check(f, (3,), (3,), second=True, rtol=2e-5)


# -- residuals -----------------------------------------------------------------------------------------------


def test_residuals_are_what_the_backward_pass_reads() -> None:
    specs, (x, w, c) = arguments((3, 4), (5, 4), (5,))
    h = linear(x, w, c)
    y = b.tanh(h)
    loss = total(b.exp(y))
    g = Graph("g", specs, (loss,))
    assert [n.op.name for n in residuals(g, [loss], [w, c])] == ["input", "tanh", "exp"]
    assert [n.op.name for n in residuals(g, [loss], [x])] == ["input", "tanh", "exp"]
    assert residuals(g, [h], [c]) == []


def test_residuals_with_value_give_the_same_gradient_without_the_forward_pass() -> None:
    specs, (x, w, c) = arguments((3, 4), (5, 4), (5,))
    loss = total(b.exp(b.tanh(linear(x, w, c))))
    g = Graph("g", specs, (loss,))
    kept = [n for n in residuals(g, [loss], [w]) if n.op.name != "input"]
    rng = np.random.default_rng(3)
    values = [rng.normal(size=s) for s in ((3, 4), (5, 4), (5,))]
    expected, = evaluate(differentiated(g.with_outputs(grad(loss, w))), values)

    held = evaluate(Graph("first", specs, tuple(kept)), values)
    extra = tuple(InputSpec(f"r{i}", n.tensor_type) for i, n in enumerate(kept))
    inputs = [input_node(len(specs) + i, n.tensor_type) for i, n in enumerate(kept)]
    later = g.rewrite(lambda n, i: b.with_value(n.with_inputs(i),
                                                inputs[kept.index(n)]) if n in kept else None)
    late = Graph("second", (*specs, *extra), grad(later.outputs[0], w))
    second = differentiated(late)
    np.testing.assert_array_equal(evaluate(second, [*values, *held])[0], expected)
    assert "tanh" not in [n.op.name for n in second.nodes]


def test_residuals_of_a_graph_that_holds_a_gradient() -> None:
    specs, (x,) = arguments((3,))
    h = b.tanh(x)
    first, = grad(total(h), x)
    loss = total(b.mul(first, first))
    g = Graph("g", specs, (loss,))
    # the second derivative reads tanh's value and the first gradient, which is a node of the graph itself
    assert [n.op.name for n in residuals(g, [loss], [x])] == ["tanh", "result"]
