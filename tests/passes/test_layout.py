"""Layout: convolutions with channels innermost, and permutes at the borders only; the same values throughout."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.passes.layout import Layout, innermost
from tracemill.compiler.passes.simplify import Simplify
from tracemill.compiler.pipeline import run_phases
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, product, sym
from tracemill.ir.dims import evaluate as evaluate_dim
from tracemill.ir.dtypes import DType, f32, f64, i32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.text import parse_graph, print_graph
from tracemill.ir.types import TensorType
from tracemill.ir.verify import verify

b = Builder()
B = sym("B")
SIZES = {"B": 3}


def var(i: int, *shape: Dim, dtype: DType = f64) -> Node:
    return input_node(i, TensorType(dtype, shape))


def graph(*outputs: Node) -> Graph:
    """The graph of these outputs over the inputs below them."""
    nodes = {n.attrs.index: n for n in Graph("g", (), outputs).nodes if n.op.name == "input"}
    types = [nodes[i].tensor_type if i in nodes else TensorType(f32, ()) for i in range(max(nodes) + 1)]
    return Graph("g", tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types)), outputs, sizes=tuple(SIZES.items()))


def conv(x: Node, w: Node, stride: int = 1, pad: int = 0, **more: Any) -> Node:
    n = len(x.shape) - 2
    return b.conv(x, w, stride=(stride,) * n, pads=((pad, pad),) * n, dilation=(1,) * n, **more)


def pool(op: str, x: Node, k: int, stride: int, pad: int = 0) -> Node:
    return getattr(b, op)(x, window=(k, k), stride=(stride,) * 2, pads=((pad, pad),) * 2, dilation=(1, 1))


def moved(g: Graph) -> Graph:
    """The graph after the pass, which is in simplest form and computes the same."""
    simple = Simplify().run(g)
    found = Layout().run(simple)
    verify(found)
    assert Simplify().is_canonical(found) and Layout().run(found) is found
    assert [o.type for o in found.outputs] == [o.type for o in g.outputs]
    rng = np.random.default_rng(0)
    values = []
    for spec in g.inputs:
        shape = tuple(evaluate_dim(d, SIZES) for d in spec.type.shape)
        values.append(rng.normal(size=shape).astype(spec.type.dtype.numpy))
    for old, new in zip(evaluate(g, values, SIZES), evaluate(found, values, SIZES), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)
    return found


def body(g: Graph) -> list[str]:
    """The statements of a graph's text, without attributes and f64."""
    lines = [line.strip() for line in print_graph(g).splitlines() if line.startswith("  %")]
    return [line for line in lines if not line.startswith("%x")]


def ops(g: Graph) -> list[str]:
    return [n.op.name for n in g.nodes if n.op.name not in ("input", "constant")]


def test_a_network_changes_layout_at_the_image_and_at_the_flatten() -> None:
    x, w1, bias, w2, w3 = var(0, B, 3, 8, 8), var(1, 4, 3, 3, 3), var(2, 4), var(3, 6, 4, 3, 3), var(4, 5, 54)
    y = conv(x, w1, pad=1)
    y = b.maximum(b.add(y, b.broadcast(bias, shape=y.shape, dims=(1,))), b.scalar(0.0, f64))
    y = conv(pool("window_max", y, 2, 2), w2, pad=1)
    y = pool("window_max", b.tanh(y), 2, 1)
    y = b.dot(b.reshape(y, shape=(B, 54)), w3, contract_a=(1,), contract_b=(1,))
    found = moved(graph(y))
    expected = """graph g (%x0: f64[B,3,8,8] batch, %x1: f64[4,3,3,3] batch, %x2: f64[4] batch, %x3: f64[6,4,3,3] batch,
        %x4: f64[5,54] batch) {
      %0 = permute(%x0) {dims=[0, 2, 3, 1]} : f64[B,8,8,3]
      %1 = conv(%0, %x1) {stride=[1, 1], pads=[[1, 1], [1, 1]], dilation=[1, 1], channels_last=true} : f64[B,8,8,4]
      %2 = broadcast(%x2) {shape=[B, 8, 8, 4], dims=[3]} : f64[B,8,8,4]
      %3 = add(%1, %2) : f64[B,8,8,4]
      %4 = maximum(%3, f64(0.0)) : f64[B,8,8,4]
      %5 = window_max(%4) {window=[2, 2, 1], stride=[2, 2, 1], pads=[[0, 0], [0, 0], [0, 0]],
          dilation=[1, 1, 1]} : f64[B,4,4,4]
      %6 = conv(%5, %x3) {stride=[1, 1], pads=[[1, 1], [1, 1]], dilation=[1, 1], channels_last=true} : f64[B,4,4,6]
      %7 = tanh(%6) : f64[B,4,4,6]
      %8 = window_max(%7) {window=[2, 2, 1], stride=[1, 1, 1], pads=[[0, 0], [0, 0], [0, 0]],
          dilation=[1, 1, 1]} : f64[B,3,3,6]
      %9 = permute(%8) {dims=[0, 3, 1, 2]} : f64[B,6,3,3]
      %10 = reshape(%9) {shape=[B, 54]} : f64[B,54]
      %11 = dot(%10, %x4) {contract_a=[1], contract_b=[1]} : f64[B,5]
      return out0 = %11
    }"""
    assert body(found) == body(parse_graph(expected))


def test_images_of_one_channel_are_only_renamed() -> None:
    y = b.sum(conv(var(0, B, 1, 5, 5), var(1, 4, 1, 3, 3)), axes=(2, 3))
    assert ops(moved(graph(y))) == ["reshape", "conv", "sum"]


def test_statistics_are_reductions_of_columns() -> None:
    y = conv(var(0, B, 3, 6, 6), var(1, 4, 3, 3, 3))
    mean = b.sum(y, axes=(0, 2, 3))
    y = b.sub(y, b.broadcast(mean, shape=y.shape, dims=(1,)))
    found = moved(graph(b.sum(b.mul(y, y), axes=(0, 2, 3)), mean))
    sums = [n for n in found.nodes if n.op.name == "sum"]
    assert [n.attrs.axes for n in sums] == [(0, 1, 2)] * 2
    assert [n.attrs.dims for n in found.nodes if n.op.name == "broadcast"] == [(3,)]
    assert ops(found).count("permute") == 1


def test_what_is_left_of_a_reduction_keeps_its_order() -> None:
    y = conv(var(0, B, 3, 6, 7), var(1, 4, 3, 3, 3))
    found = moved(graph(b.sum(y, axes=(2,)), b.sum(y, axes=(0,)), b.sum(y, axes=(1,)), b.argmax(y, axes=(1, 2))))
    assert ops(found).count("conv") == 1


def test_gradients_stay_in_the_layout() -> None:
    x, w1, w2 = var(0, B, 3, 6, 6), var(1, 4, 3, 3, 3), var(2, 5, 4, 3, 3)
    y = conv(b.tanh(conv(x, w1, pad=1)), w2, stride=2, pad=1)
    y = pool("window_max", y, 2, 1, pad=1)
    loss = b.sum(b.mul(y, y), axes=(0, 1, 2, 3))
    grads = b.results(b.gradient(loss, b.scalar(1.0, f64), w1, w2, n_outputs=1, n_wrt=2))
    found = moved(run_phases(graph(loss, *grads), "simplified"))
    assert ops(found).count("permute") == 1  # the image
    assert all(n.attrs.channels_last for n in found.nodes if n.op.name.startswith("conv"))


def test_a_users_channels_last_view_costs_nothing() -> None:
    y = conv(b.permute(var(0, B, 6, 6, 3), dims=(0, 3, 1, 2)), var(1, 4, 3, 3, 3))
    y = b.permute(y, dims=(0, 2, 3, 1))
    scale = b.broadcast(var(2, 4), shape=y.shape, dims=(3,))
    found = moved(graph(b.mul(y, scale)))
    assert "permute" not in ops(found)


def test_a_permute_is_made_once_for_all_readers() -> None:
    x = var(0, B, 3, 6, 6)
    y = conv(x, var(1, 4, 3, 3, 3))
    flat = (B, 64)
    found = moved(graph(b.reshape(b.tanh(y), shape=flat), b.cumsum(b.tanh(y), axis=3), conv(x, var(2, 4, 3, 1, 1))))
    assert ops(found).count("permute") == 3  # the image; tanh for its two readers; the second convolution


def test_reshapes_of_single_axes_pass() -> None:
    y = conv(var(0, B, 3, 6, 6), var(1, 4, 3, 3, 3))
    split = b.reshape(y, shape=(B, 2, 2, 4, 2, 2))  # groups of channels, halves of a line
    whole = b.reshape(b.tanh(split), shape=(B, 4, 4, 4))
    one = b.reshape(b.sum(whole, axes=(2, 3)), shape=(B, 4, 1, 1))
    y = b.mul(whole, b.broadcast(one, shape=y.shape, dims=(0, 1, 2, 3)))
    assert ops(moved(graph(b.sum(y, axes=(2, 3))))).count("permute") == 1


@pytest.mark.parametrize("make", [
    lambda: conv(var(0, B, 4, 6, 6), var(1, 4, 1, 3, 3), groups=4),
    lambda: conv(var(0, B, 4, 3, 5, 5), var(1, 4, 4, 1, 2, 2)),
    lambda: conv(var(0, B, 4, 6, dtype=i32), var(1, 2, 4, 3, dtype=i32)),
], ids=["depthwise", "three axes", "integers"])
def test_convolutions_without_vectors_of_channels_stay(make: Any) -> None:
    g = graph(make())
    assert Layout().run(g) is g


def test_wide_groups_follow() -> None:
    x, w, w2 = var(0, B, 16, 6, 6), var(1, 16, 8, 3, 3), var(2, 4, 16, 1, 1)
    found = moved(graph(conv(conv(x, w, groups=2), w2)))
    assert ops(found) == ["permute", "conv", "conv", "permute"]


def test_convolutions_in_bodies() -> None:
    x, w = var(0, 2, 3, 6), var(1, 3, 3, 1)
    carried = (input_node(0, x.tensor_type), input_node(1, w.tensor_type))
    types = tuple(InputSpec(f"c{i}", t.tensor_type) for i, t in enumerate((x, w)))
    then = Graph("then", types, (b.tanh(conv(*carried)),))
    other = Graph("other", types, (carried[0],))
    predicate = b.gt(b.sum(x, axes=(0, 1, 2)), b.scalar(0.0, f64))
    both = b.cond(predicate, x, w, then=then, other=other)
    found = moved(graph(b.result(both, index=0)))
    (node,) = [n for n in found.nodes if n.op.name == "cond"]
    assert "channels_last=true" in print_graph(node.attrs.then)


def test_orders() -> None:
    assert innermost(3) == (0, 2, 1) and innermost(4) == (0, 2, 3, 1)


# -- random networks ------------------------------------------------------------------------------------------------


class Maker:
    """Grows a network over [B, C, H, W] by random steps that always fit."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.types: list[TensorType] = []
        self.weights: list[Node] = []
        self.pool = [self.new(B, 3, 8, 6), self.new(B, 2, 8, 6)]

    def new(self, *shape: Dim) -> Node:
        self.types.append(TensorType(f64, shape))
        return input_node(len(self.types) - 1, self.types[-1])

    def step(self) -> None:
        x = self.random.choice(self.pool[-4:])
        grow = self.random.choice([self.conv, self.conv, self.bias, self.norm, self.activation, self.join, self.windows,
                                   self.pad_or_slice, self.flip, self.squeeze, self.groups, self.last, self.flatten])
        self.pool.append(b.tanh(grow(x)))

    def weight(self, *shape: Dim) -> Node:
        w = self.new(*shape)
        self.weights.append(w)
        return w

    def conv(self, x: Node) -> Node:
        k = self.random.choice([1, 2, 3])
        if min(x.shape[2:]) < k:
            k = 1
        groups = self.random.choice([1, 1, 1, x.shape[1]])
        w = self.weight(groups * self.random.choice([1, 4]), x.shape[1] // groups, k, k)
        return conv(x, w, self.random.choice([1, 2]), self.random.choice([0, k // 2]), groups=groups)

    def bias(self, x: Node) -> Node:
        return b.add(x, b.broadcast(self.weight(x.shape[1]), shape=x.shape, dims=(1,)))

    def norm(self, x: Node) -> Node:
        axes = self.random.choice([(0, 2, 3), (2, 3), (1, 2, 3)])
        mean = b.div(b.sum(x, axes=axes), b.dim(product([x.shape[a] for a in axes]), f64))
        return b.sub(x, b.expand(mean, x.shape, axes))

    def activation(self, x: Node) -> Node:
        return b.select(b.le(x, b.scalar(0.1, f64)), b.mul(x, b.scalar(0.1, f64)), x)

    def join(self, x: Node) -> Node:
        same = [y for y in self.pool if y.shape == x.shape]
        y = self.random.choice(same)
        return b.concat(x, y, axis=1) if x.shape[1] < 5 and self.random.random() < 0.4 else b.add(x, y)

    def windows(self, x: Node) -> Node:
        op = self.random.choice(["window_max", "window_sum"])
        k, stride, pad = self.random.choice([(2, 2, 0), (2, 1, 0), (3, 2, 1), (1, 1, 0)])
        return pool(op, x, k, stride, pad) if min(x.shape[2:]) >= k else x

    def pad_or_slice(self, x: Node) -> Node:
        if max(x.shape[2:]) > 6:
            size = (*x.shape[:2], x.shape[2] - 1, x.shape[3] - 1)
            return b.slice(x, start=(0, 0, 1, 0), size=size, step=(1,) * 4)
        return b.pad(x, b.scalar(0.5, f64), pads=((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0)))

    def flip(self, x: Node) -> Node:
        return b.flip(x, axes=(3,))

    def squeeze(self, x: Node) -> Node:
        """A gate for each channel."""
        pooled = b.reshape(b.sum(x, axes=(2, 3)), shape=(*x.shape[:2], 1, 1))
        gate = b.tanh(conv(pooled, self.weight(x.shape[1], x.shape[1], 1, 1)))
        return b.mul(x, b.broadcast(gate, shape=x.shape, dims=(0, 1, 2, 3)))

    def groups(self, x: Node) -> Node:
        if x.shape[1] % 2:
            return x
        parts = b.reshape(x, shape=(B, 2, x.shape[1] // 2, *x.shape[2:]))
        return b.reshape(b.sub(parts, b.expand(b.max(parts, axes=(2, 3, 4)), parts.shape, (2, 3, 4))), shape=x.shape)

    def last(self, x: Node) -> Node:
        """A linear layer over channels that the user put last."""
        y = b.permute(x, dims=(0, 2, 3, 1))
        y = b.dot(y, self.weight(3, x.shape[1]), contract_a=(3,), contract_b=(1,))
        return b.permute(y, dims=(0, 3, 1, 2))

    def flatten(self, x: Node) -> Node:
        size = product(x.shape[1:])
        y = b.dot(b.reshape(x, shape=(B, size)), self.weight(12, size), contract_a=(1,), contract_b=(1,))
        return b.reshape(y, shape=(B, 3, 2, 2))


@pytest.mark.parametrize("seed", range(40))
def test_random_network(seed: int) -> None:
    maker = Maker(seed)
    for _ in range(9):
        maker.step()
    loss = b.sum(maker.pool[-1], axes=(0, 1, 2, 3))
    outputs = [loss, maker.pool[-2]]
    if maker.weights:
        wrt = maker.weights
        outputs += b.results(b.gradient(loss, b.scalar(1.0, f64), *wrt, n_outputs=1, n_wrt=len(wrt)))
    specs = tuple(InputSpec(f"x{i}", t) for i, t in enumerate(maker.types))
    g = Graph("random", specs, tuple(outputs), sizes=tuple(SIZES.items()))
    moved(run_phases(g, "replicated"))
