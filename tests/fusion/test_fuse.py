"""What becomes one kernel, that it keeps every bit, and that it needs no more memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from harness import run_graph
from random_graphs import random_graph
from tracemill.compiler.fusion import Fuse, peak_bytes
from tracemill.compiler.lower import lower
from tracemill.compiler.pipeline import run_phases
from tracemill.compiler.schedule import is_launch
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import f32, f64, i64, u32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import Kind
from tracemill.ir.types import TensorType
from tracemill.ir.verify import verify

b = Builder()


class Model:
    """Builds a graph with inputs by name."""

    def __init__(self) -> None:
        self.specs: list[InputSpec] = []

    def input(self, name: str, *shape: Any, dtype: Any = f32, role: str = "batch") -> Node:
        self.specs.append(InputSpec(name, TensorType(dtype, shape), role))
        return input_node(len(self.specs) - 1, self.specs[-1].type)

    def graph(self, *outputs: Node, donations: Sequence[int | None] = ()) -> Graph:
        return Graph("test", tuple(self.specs), outputs, donations=tuple(donations))

    def arrays(self, **sizes: int) -> list[Any]:
        from tracemill.ir.dims import evaluate as value

        rng = np.random.default_rng(len(self.specs))
        made = []
        for s in self.specs:
            shape = tuple(value(d, sizes) for d in s.type.shape)
            made.append(rng.integers(0, 3, shape) if s.type.dtype is i64
                        else rng.standard_normal(shape).astype(s.type.dtype.numpy))
        return made


def launches(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if is_launch(n)]


def fuse(graph: Graph, arrays: Sequence[Any]) -> list[Node]:
    """The launches of the fused graph, after checks of its bits, its values and its memory."""
    fused = Fuse().run(graph)
    verify(fused)
    unfused = run_graph(graph, arrays)
    for leg in ("compiled", "plain"):
        for got, want in zip(run_graph(fused, arrays, leg=leg, cuts=2), unfused, strict=True):
            assert got.tobytes() == want.tobytes()
    for got, want in zip(unfused, evaluate(fused, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    sizes = dict.fromkeys(graph.size_names, 64)
    assert peak_bytes(fused, sizes) <= peak_bytes(graph, sizes)
    return launches(fused)


def rows(x: Node, value: Node) -> Node:
    return b.expand(value, x.shape, (len(x.shape) - 1,))


def mean(x: Node, axes: tuple[int, ...]) -> Node:
    count: Any = 1
    for a in axes:
        count = count * x.shape[a]
    return b.div(b.sum(x, axes=axes), b.cast(b.extent(value=count), dtype=f32))


def normalised(x: Node, axes: tuple[int, ...]) -> Node:
    centred = b.sub(x, b.expand(mean(x, axes), x.shape, axes))
    variance = mean(b.mul(centred, centred), axes)
    return b.mul(centred, b.expand(b.rsqrt(b.add(variance, b.scalar(1e-5, f32))), x.shape, axes))


def affine(x: Node, w: Node, c: Node, axis: int) -> Node:
    return b.add(b.mul(x, b.broadcast(w, shape=x.shape, dims=(axis,))), b.broadcast(c, shape=x.shape, dims=(axis,)))


def softmax(x: Node) -> Node:
    last = (len(x.shape) - 1,)
    e = b.exp(b.sub(x, rows(x, b.max(x, axes=last))))
    return b.div(e, rows(x, b.sum(e, axes=last)))


def cross_entropy(x: Node, t: Node) -> Node:
    """Per-row loss."""
    shifted = b.sub(x, rows(x, b.stop_gradient(b.max(x, axes=(1,)))))
    logs = b.sub(shifted, rows(x, b.log(b.sum(b.exp(shifted), axes=(1,)))))
    picked = b.gather(logs, b.reshape(t, shape=(t.shape[0], 1)), axis=1)
    return b.neg(b.reshape(picked, shape=t.shape))


def gradients(loss: Node, *wrt: Node) -> tuple[Node, ...]:
    return b.results(b.gradient(loss, b.like(1.0, loss), *wrt, n_outputs=1, n_wrt=len(wrt)))


def simplified(graph: Graph) -> Graph:
    return run_phases(graph, until="simplified")


# -- what becomes one kernel ----------------------------------------------------------------------------------------


def test_elementwise_chains_with_broadcasts_and_casts() -> None:
    m = Model()
    x, w = m.input("x", sym("B"), 30), m.input("w", 30)
    wide = b.broadcast(b.cast(w, dtype=f64), shape=x.shape, dims=(1,))
    y = b.cast(b.tanh(b.mul(b.cast(x, dtype=f64), wide)), dtype=f32)
    (only,) = fuse(m.graph(b.add(b.flip(y, axes=(1,)), b.exp(x))), m.arrays(B=5))
    assert only.attrs.kind == "map"


def test_softmax_and_log_softmax_with_loss() -> None:
    m = Model()
    x = m.input("x", sym("B"), 33)
    assert len(fuse(m.graph(softmax(x)), m.arrays(B=4))) == 1
    m = Model()
    x, t = m.input("x", sym("B"), 10), m.input("t", sym("B"), dtype=i64)
    assert len(fuse(m.graph(cross_entropy(x, t)), m.arrays(B=4))) == 1


def test_loss_and_its_gradient() -> None:
    """The rows in one kernel (with the gradient), their mean in one more."""
    m = Model()
    x, t = m.input("x", sym("B"), 10), m.input("t", sym("B"), dtype=i64)
    loss = mean(cross_entropy(x, t), (0,))
    found = fuse(simplified(m.graph(loss, *gradients(loss, x))), m.arrays(B=9))
    assert len(found) == 2


@pytest.mark.parametrize("axes", [(1,), (0,), (0, 2)])
def test_normalisations(axes: tuple[int, ...]) -> None:
    """Layer norm, batch norm over rows, batch norm over images: one kernel each."""
    m = Model()
    shape = (sym("B"), 20, 6) if axes == (0, 2) else (sym("B"), 20)
    x, w, c = m.input("x", *shape), m.input("w", 20), m.input("c", 20)
    assert len(fuse(m.graph(affine(normalised(x, axes), w, c, 1)), m.arrays(B=7))) == 1


def test_normalisation_backward() -> None:
    """Forward, the gradient of the input, and those of scale and shift: one pass."""
    m = Model()
    x, w, c, g = m.input("x", sym("B"), 20), m.input("w", 20), m.input("c", 20), m.input("g", sym("B"), 20)
    y = affine(normalised(x, (1,)), w, c, 1)
    grads = b.results(b.gradient(y, g, x, w, c, n_outputs=1, n_wrt=3))
    assert len(fuse(simplified(m.graph(y, *grads)), m.arrays(B=7))) == 1
    m = Model()  # over images everything shares one space: all of it is one kernel
    x, w, c, g = m.input("x", sym("B"), 5, 6), m.input("w", 5), m.input("c", 5), m.input("g", sym("B"), 5, 6)
    y = affine(normalised(x, (0, 2)), w, c, 1)
    grads = b.results(b.gradient(y, g, x, w, c, n_outputs=1, n_wrt=3))
    assert len(fuse(simplified(m.graph(y, *grads)), m.arrays(B=7))) == 1


def test_contraction_epilogue_keeps_what_the_backward_pass_needs() -> None:
    m = Model()
    x, w, c = m.input("x", sym("B"), 12), m.input("w", 20, 12), m.input("c", 20)
    pre = b.add(b.dot(x, w, contract_a=(1,), contract_b=(1,)), b.broadcast(c, shape=(sym("B"), 20), dims=(1,)))
    out = b.maximum(pre, b.scalar(0.0, f32))
    (only,) = fuse(m.graph(out, b.gt(pre, b.scalar(0.5, f32))), m.arrays(B=33))
    assert only.attrs.kind == "dot"


def test_dropout_residual_and_activation_behind_a_convolution() -> None:
    m = Model()
    x, w = m.input("x", 2, 3, 6, 6), m.input("w", 4, 3, 3, 3)
    r, s = m.input("r", 2, 4, 6, 6), m.input("s", 2, dtype=i64)
    y = b.conv(x, w, stride=(1, 1), pads=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    keep = b.ge(b.random_bits(s, shape=y.shape), b.scalar(1 << 31, u32))
    found = fuse(m.graph(b.add(b.select(keep, b.tanh(y), b.scalar(0.0, f32)), r)), m.arrays())
    assert [n.attrs.kind for n in found] == ["conv"]


def test_attention_reads_heads_in_place() -> None:
    m = Model()
    qkv = m.input("qkv", sym("B"), 6, 24)

    def head(k: int) -> Node:
        cut = b.slice(qkv, start=(0, 0, 8 * k), size=(sym("B"), 6, 8), step=(1, 1, 1))
        return b.permute(b.reshape(cut, shape=(sym("B"), 6, 2, 4)), dims=(0, 2, 1, 3))

    scores = b.mul(b.dot(head(0), head(1), contract_a=(3,), contract_b=(3,), batch_a=(0, 1), batch_b=(0, 1)),
                   b.scalar(0.5, f32))
    seen = b.le(b.iota(shape=(6, 6), axis=1, dtype=i64), b.iota(shape=(6, 6), axis=0, dtype=i64))
    scores = b.select(b.broadcast(seen, shape=scores.shape, dims=(2, 3)), scores, b.scalar(-math.inf, f32))
    mixed = b.dot(softmax(scores), head(2), contract_a=(3,), contract_b=(2,), batch_a=(0, 1), batch_b=(0, 1))
    out = b.reshape(b.permute(mixed, dims=(0, 2, 1, 3)), shape=(sym("B"), 6, 8))
    found = fuse(m.graph(out), m.arrays(B=3))
    assert [n.op.name == "fused" for n in found] == [True, True, True]
    assert sum(len(lower(n).launches) for n in found) == 3  # nothing is copied


def test_one_kernel_updates_all_parameters() -> None:
    """Gradients that come from elsewhere: however many parameters there are, one kernel, and one for their counters."""
    kinds = []
    for count in (2, 5):
        m = Model()
        lr = m.input("lr", role="hyper")
        outs: list[Node] = []
        donations = []
        for k in range(count):
            p, g = m.input(f"p{k}", k + 1, 3, role="parameter"), m.input(f"g{k}", k + 1, 3)
            step = m.input(f"s{k}", role="state")
            new_step = b.add(step, b.like(1.0, step))
            scale = b.div(lr, b.exp(new_step))
            outs += [b.sub(p, b.mul(scale, g)), new_step]
            donations += [1 + 3 * k, 3 + 3 * k]
        found = fuse(m.graph(*outs, donations=donations), [np.abs(a) for a in m.arrays()])
        kinds.append([n.attrs.kind for n in found])
        texts = [step.kernel.source for n in found for step in lower(n).launches]
    assert kinds == [["update:2", "update:2"], ["update:5", "update:5"]]
    assert all("start_" not in t and "5" not in t.split("return")[0].split("kernel(")[0] for t in texts)


def test_a_step_without_a_gradient_in_memory() -> None:
    """Weight gradients go straight into the update behind their contraction."""
    m = Model()
    x, g, w, lr = m.input("x", sym("B"), 7), m.input("g", sym("B"), 5), m.input("w", 5, 7), m.input("lr")
    grad = b.dot(g, x, contract_a=(0,), contract_b=(0,))
    (only,) = fuse(m.graph(b.sub(w, b.mul(lr, grad)), donations=(2,)), m.arrays(B=9))
    donated = [n is input_node(2, w.type) for n in only.inputs].index(True)
    assert only.attrs.kind == "dot" and lower(only).in_place == ((0, donated),)


def test_reductions_that_share_an_operand_share_a_pass() -> None:
    m = Model()
    x, g = m.input("x", sym("B"), 20), m.input("g", sym("B"), 20)
    assert len(fuse(m.graph(b.sum(g, axes=(0,)), b.sum(b.mul(g, x), axes=(0,))), m.arrays(B=300))) == 1
    assert len(fuse(m.graph(b.sum(g, axes=(0,)), b.sum(g, axes=(1,)), b.sum(b.mul(g, x), axes=(0, 1))),
                    m.arrays(B=300))) == 1


# -- what does not ----------------------------------------------------------------------------------------------------


def test_cheap_values_are_recomputed_expensive_ones_kept() -> None:
    m = Model()
    x = m.input("x", sym("B"), 20, 3)
    shifted, hard = b.add(x, b.scalar(1.0, f32)), b.lgamma(x)
    a = b.sum(b.mul(shifted, hard), axes=(1,))
    c = b.sum(b.add(shifted, hard), axes=(2,))
    found = fuse(m.graph(a, c), m.arrays(B=6))
    inside = [n.op.name for k in found if k.op.name == "fused" for n in k.attrs.body.nodes] + [k.op.name for k in found]
    assert inside.count("add") == 3 and inside.count("lgamma") == 1


def test_no_path_leads_around_a_group() -> None:
    """x → a kernel of its own → joined with x: the two elementwise halves cannot be one kernel."""
    m = Model()
    x = m.input("x", sym("B"), 20)
    early = b.exp(x)
    late = b.mul(early, b.cumsum(early, axis=1))
    found = fuse(m.graph(late), m.arrays(B=3))
    assert [n.op.name for n in found] == ["exp", "cumsum", "mul"]


def test_max_nodes_limits_groups() -> None:
    m = Model()
    x = m.input("x", 10)
    y = x
    for _ in range(9):
        y = b.tanh(y)
    graph = m.graph(y)
    assert Fuse(max_nodes=1).run(graph) is graph
    assert len(launches(Fuse(max_nodes=3).run(graph))) == 3
    assert len(launches(Fuse().run(graph))) == 1


def test_bodies_of_control_flow_are_fused() -> None:
    m = Model()
    x = m.input("x", 4, 6)
    carry = m.input("c", 6)
    inner = Model()
    c, row = inner.input("c", 6), inner.input("row", 6)
    new = b.tanh(b.add(b.mul(c, row), row))
    loop = b.scan(carry, x, body=inner.graph(new, b.exp(new)), n_carry=1, n_xs=1, length=4)
    fused = Fuse().run(m.graph(*b.results(loop)))
    (scan,) = [n for n in fused.nodes if n.op.name == "scan"]
    inside = [n.op.name for n in scan.attrs.body.nodes if n.op.kind is not Kind.INPUT and n.op.name != "result"]
    assert inside == ["fused"]


def test_groups_do_not_depend_on_sizes() -> None:
    def kernels(batch: Any) -> list[str]:
        m = Model()
        x, w, t = m.input("x", batch, 64), m.input("w", 10, 64), m.input("t", batch, dtype=i64)
        y = b.dot(normalised(x, (1,)), w, contract_a=(1,), contract_b=(1,))
        loss = mean(cross_entropy(y, t), (0,))
        fused = Fuse().run(simplified(m.graph(loss, *gradients(loss, w))))
        return [step.kernel.source for n in launches(fused) for step in lower(n).launches]

    assert kernels(32) == kernels(sym("B")) == kernels(64)


def test_the_pass_is_deterministic() -> None:
    made = random_graph(11, f32).graph
    graph = run_phases(made, until="simplified")
    assert str(Fuse().run(graph)) == str(Fuse().run(graph))


@pytest.mark.parametrize("seed", [101, 104, 111, 122, 125])  # graphs without control flow, which the harness cannot run
def test_random_graphs_keep_their_bits(seed: int) -> None:
    made = random_graph(seed, f32, nodes=14, gradient=seed % 2 == 0)
    graph = simplified(made.graph)
    fused = Fuse().run(graph)
    for got, want in zip(run_graph(fused, made.inputs), run_graph(graph, made.inputs), strict=True):
        assert got.tobytes() == want.tobytes()
