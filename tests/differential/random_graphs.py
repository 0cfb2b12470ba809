"""Random graphs over the operator table, well conditioned so that rounding stays rounding.

Values stay of moderate size (sums are averaged, exponentials squashed), and whatever jumps (comparisons, sorting,
maxima, rounding) only sees values that are the same in float32 and float64, so that a float32 run can be measured
against a float64 run of the same graph. All choices come from one `random.Random`: a seed names a graph.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracemill.ir.build import Builder
from tracemill.ir.dtypes import DType, boolean, f32, f64, i64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class RandomGraph:
    """A graph with inputs, made for one float dtype; `twin(dtype)` is the same graph in another."""

    seed: int
    graph: Graph
    inputs: tuple[Array, ...]
    families: frozenset[str]


def random_graph(seed: int, dtype: DType = f64, nodes: int = 24, gradient: bool = True) -> RandomGraph:
    """The graph of a seed: at least `nodes` nodes of at least ten families, and the gradient of its mean output."""
    return _Maker(seed, dtype).make(nodes, gradient)


class _Maker:
    def __init__(self, seed: int, dtype: DType) -> None:
        self.rng = random.Random(seed)
        self.seed, self.dtype = seed, dtype
        self.b = Builder()
        self.specs: list[InputSpec] = []
        self.arrays: list[Array] = []
        self.floats: list[Node] = []  # any float values
        self.exact: list[Node] = []  # float values equal in both precisions
        self.ints: list[Node] = []
        self.bools: list[Node] = []
        self.families: set[str] = set()

    # -- inputs -----------------------------------------------------------------------------------------------------

    def input(self, name: str, array: Array, dtype: DType) -> Node:
        t = TensorType(dtype, tuple(array.shape))
        self.specs.append(InputSpec(name, t, self.rng.choice(["batch", "parameter"])))
        self.arrays.append(array.astype(dtype.numpy))
        return input_node(len(self.specs) - 1, t)

    def shape(self) -> Shape:
        return tuple(self.rng.choice([1, 2, 3, 5, 8, 17, 20]) for _ in range(self.rng.choice([1, 2, 2, 3])))

    def float_input(self, shape: Shape) -> Node:
        rng = np.random.default_rng(self.rng.randrange(2**32))
        # Distinct multiples of 1/64: exact in both precisions, and without ties for sorting and maxima.
        n = int(np.prod(shape))
        values = rng.permutation(max(n, 128))[:n].astype(np.float64) / 64.0 - max(n, 128) / 128.0
        values = values / max(1.0, 2.0 ** np.ceil(np.log2(max(n, 128) / 256.0)))
        node = self.input(f"x{len(self.specs)}", values.reshape(shape), self.dtype)
        self.floats.append(node)
        self.exact.append(node)
        return node

    # -- choices ----------------------------------------------------------------------------------------------------

    def pick(self, pool: list[Node], rank: int | None = None) -> Node:
        fitting = [n for n in pool if rank is None or len(n.shape) >= rank]
        if not fitting:
            return self.float_input(tuple(self.rng.choice([2, 3, 5]) for _ in range(rank or 2)))
        # Recent values are likelier, so that graphs grow deep as well as wide.
        return fitting[max(int(len(fitting) * self.rng.random() ** 0.5), 0) if len(fitting) > 1 else 0]

    def float(self, rank: int | None = None) -> Node:
        return self.pick(self.floats, rank)

    def like(self, x: Node) -> Node:
        """A float of x's shape: another value of that shape, or a broadcast of something smaller."""
        same = [n for n in self.floats if n.shape == x.shape and n is not x]
        if same and self.rng.random() < 0.7:
            return self.rng.choice(same)
        kept = [i for i in range(len(x.shape)) if self.rng.random() < 0.5]
        small = self.float_input(tuple(x.shape[i] for i in kept))
        return self.b.broadcast(small, shape=x.shape, dims=tuple(kept))

    def axes(self, x: Node) -> tuple[int, ...]:
        count = self.rng.randint(1, len(x.shape))
        return tuple(sorted(self.rng.sample(range(len(x.shape)), count)))

    def average(self, x: Node, count: int) -> Node:
        return self.b.mul(x, self.b.like(1.0 / max(count, 1), x)) if count > 1 else x

    # -- families: each adds one value ------------------------------------------------------------------------------

    def unary(self) -> Node:
        name = self.rng.choice(["neg", "tanh", "sin", "cos", "sigmoid", "erf", "atan", "asinh", "softplus", "gauss", "sqrt1",
                                "log1", "rsqrt1", "expm1"])
        x, b = self.float(), self.b
        match name:
            case "softplus":
                return b.log1p(b.exp(b.tanh(x)))
            case "gauss":
                return b.exp(b.neg(b.mul(x, x)))
            case "sqrt1" | "rsqrt1":
                return getattr(b, name[:-1])(b.add(b.mul(x, x), b.like(1.0, x)))
            case "log1":
                return b.log(b.add(b.mul(x, x), b.like(0.5, x)))
            case "expm1":
                return b.expm1(b.tanh(x))
        return getattr(b, name)(x)

    def binary(self) -> Node:
        x, b = self.float(), self.b
        y = self.like(x) if self.rng.random() < 0.8 else b.like(self.rng.choice([0.5, -1.25, 2.0, 0.1]), x)
        match self.rng.choice(["add", "sub", "mul", "div", "pow", "atan2"]):
            case "div":
                return b.div(x, b.add(b.mul(y, y), b.like(1.0, x)))
            case "pow":
                return b.pow(b.add(b.mul(b.tanh(x), b.like(0.5, x)), b.like(1.0, x)), y if not y.shape else b.tanh(y))
            case "atan2":
                return b.atan2(x, b.add(b.mul(y, y), b.like(0.5, x)))
            case "mul":
                return b.mul(b.tanh(x), y)
            case name:
                return getattr(b, name)(x, y)

    def compare(self) -> Node:
        x = self.pick(self.exact)
        y = self.b.like(self.rng.choice([0.0, 0.2578125, -0.5]), x)
        node = getattr(self.b, self.rng.choice(["lt", "le", "gt", "ge", "eq", "ne"]))(x, y)
        self.bools.append(node)
        return self.select(node)

    def select(self, mask: Node) -> Node:
        b = self.b
        if self.rng.random() < 0.3:
            other = b.not_(mask)
            mask = getattr(b, self.rng.choice(["and_", "or_", "xor"]))(other, b.eq(b.isnan(self.pick_shape(mask)), mask))
        x = self.pick_shape(mask)
        return b.select(mask, x, self.like(x) if self.rng.random() < 0.6 else b.like(0.75, x))

    def pick_shape(self, like: Node) -> Node:
        same = [n for n in self.floats if n.shape == like.shape]
        return self.rng.choice(same) if same else self.float_input(like.shape)

    def extremes(self) -> Node:
        x, b = self.pick(self.exact), self.b
        match self.rng.choice(["clamp", "maximum", "minimum", "abs", "relu", "floor"]):
            case "clamp":
                return b.clamp(x, b.like(-0.515625, x), b.like(0.765625, x))
            case "relu":
                return b.select(b.gt(x, b.like(0.0, x)), x, b.like(0.0, x))
            case "floor":
                return b.sub(x, getattr(b, self.rng.choice(["floor", "ceil", "round", "trunc"]))(x))
            case "abs":
                return b.abs(x)
            case name:
                return getattr(b, name)(x, b.like(0.1484375, x))

    def cast(self) -> Node:
        x, b = self.pick(self.exact), self.b
        whole = b.cast(b.mul(x, b.like(8.0, x)), dtype=i64)
        self.ints.append(whole)
        if self.rng.random() < 0.5:
            whole = getattr(b, self.rng.choice(["and_", "or_", "xor", "add", "mul"]))(whole, b.scalar(self.rng.randint(1, 9), i64))
        return b.mul(b.cast(b.rem(whole, b.scalar(7, i64)), dtype=self.dtype), b.scalar(0.25, self.dtype))

    def reduction(self) -> Node:
        x, b = self.float(1), self.b
        axes = self.axes(x)
        count = int(np.prod([x.shape[a] for a in axes]))
        name = self.rng.choice(["sum", "sum", "mean", "prod", "max", "min", "variance", "argmax"])
        if name in ("max", "min", "argmax"):
            x = self.pick(self.exact, 1)
            axes = self.axes(x)
            if name == "argmax":
                return b.mul(b.cast(b.argmax(x, axes=axes), dtype=self.dtype), b.scalar(0.0625, self.dtype))
            return getattr(b, name)(x, axes=axes)
        if name == "prod":
            return b.prod(b.add(b.like(1.0, x), self.average(b.tanh(x), 4 * count)), axes=axes)
        if name == "variance":
            centred = b.sub(x, b.expand(self.average(b.sum(x, axes=axes), count), x.shape, axes))
            return self.average(b.sum(b.mul(centred, centred), axes=axes), count)
        return self.average(b.sum(x, axes=axes), count)

    def softmax(self) -> Node:
        x, b = self.float(1), self.b
        axes = (len(x.shape) - 1,) if self.rng.random() < 0.7 else self.axes(x)
        e = b.exp(b.sub(x, b.expand(b.stop_gradient(b.max(x, axes=axes)), x.shape, axes)))
        return b.div(e, b.expand(b.sum(e, axes=axes), x.shape, axes))

    def movement(self) -> Node:
        x, b = self.float(1), self.b
        rank = len(x.shape)
        match self.rng.choice(["reshape", "permute", "slice", "pad", "concat", "flip", "broadcast"]):
            case "reshape":
                flat = int(np.prod(x.shape))
                cut = self.rng.choice([d for d in range(1, flat + 1) if flat % d == 0])
                return b.reshape(x, shape=self.rng.choice([(flat,), (cut, flat // cut), (1, *x.shape)]))
            case "permute":
                return b.permute(x, dims=tuple(self.rng.sample(range(rank), rank)))
            case "slice":
                start = tuple(self.rng.randrange(d) for d in x.shape)
                step = tuple(self.rng.choice([1, 1, 2]) for _ in x.shape)
                size = tuple(1 + (d - 1 - s) // k for d, s, k in zip(x.shape, start, step, strict=True))
                return b.slice(x, start=start, size=size, step=step)
            case "pad":
                pads = tuple((self.rng.randint(-1, 2) if d > 2 else 1, self.rng.randint(0, 2), self.rng.choice([0, 0, 1])) for d in x.shape)
                return b.pad(x, b.like(self.rng.choice([0.0, 0.5]), x), pads=pads)
            case "concat":
                return b.concat(x, self.like(x), axis=self.rng.randrange(rank))
            case "flip":
                return b.flip(x, axes=self.axes(x))
        lead = self.rng.choice([2, 3])
        return b.broadcast(x, shape=(lead, *x.shape), dims=tuple(range(1, rank + 1)))

    def indices(self, shape: Shape, extent: int) -> Node:
        rng = np.random.default_rng(self.rng.randrange(2**32))
        return self.input(f"i{len(self.specs)}", rng.integers(0, extent, shape), i64)

    def gather(self) -> Node:
        x, b = self.float(1), self.b
        axis = self.rng.randrange(len(x.shape))
        if self.rng.random() < 0.5:
            return b.index_select(x, self.indices(self.rng.choice([(4,), (2, 3)]), x.shape[axis]), axis=axis)
        shape = tuple(self.rng.choice([2, 6]) if i == axis else d for i, d in enumerate(x.shape))
        return b.gather(x, self.indices(shape, x.shape[axis]), axis=axis)

    def scatter(self) -> Node:
        x, b = self.float(1), self.b
        axis = self.rng.randrange(len(x.shape))
        shape = tuple(self.rng.choice([2, 6]) if i == axis else d for i, d in enumerate(x.shape))
        update = b.mul(b.like(0.5, x), self.pick_shape_of(shape))
        if self.rng.random() < 0.5:
            return b.index_add(x, self.indices((shape[axis],), x.shape[axis]), update, axis=axis)
        return b.scatter_add(x, self.indices(shape, x.shape[axis]), update, axis=axis)

    def pick_shape_of(self, shape: Shape) -> Node:
        same = [n for n in self.floats if n.shape == shape]
        return self.rng.choice(same) if same else self.float_input(shape)

    def dot(self) -> Node:
        x, b = self.float(2), self.b
        k = x.shape[-1]
        if len(x.shape) == 3 and self.rng.random() < 0.6:
            y = self.pick_shape_of((x.shape[0], k, self.rng.choice([1, 4, 9])))
            made = b.dot(x, y, contract_a=(2,), contract_b=(1,), batch_a=(0,), batch_b=(0,))
        elif self.rng.random() < 0.5:
            made = b.dot(x, self.pick_shape_of((self.rng.choice([1, 4, 11]), k)), contract_a=(len(x.shape) - 1,), contract_b=(1,))
        else:
            made = b.dot(x, self.pick_shape_of((k, self.rng.choice([1, 4, 11]))), contract_a=(len(x.shape) - 1,), contract_b=(0,))
        return self.average(made, k)

    def conv(self) -> Node:
        b, rank = self.b, self.rng.choice([1, 2])
        groups = self.rng.choice([1, 1, 2])
        x = self.pick_shape_of((2, 2 * groups, *(self.rng.choice([6, 9]) for _ in range(rank))))
        w = self.pick_shape_of((2 * groups, 2, *(self.rng.choice([1, 3]) for _ in range(rank))))
        made = b.conv(x, w, stride=(self.rng.choice([1, 2]),) * rank, pads=((1, self.rng.choice([0, 1])),) * rank,
                      dilation=(self.rng.choice([1, 2]),) * rank, groups=groups)
        return self.average(made, int(np.prod(w.shape[1:])))

    def window(self) -> Node:
        b = self.b
        shape = (2, 3, self.rng.choice([6, 9]), 8)
        geometry = {"window": (2, 2), "stride": self.rng.choice([(1, 1), (2, 2)]), "pads": ((1, 0), (0, 1)), "dilation": (1, 1)}
        if self.rng.random() < 0.5:
            x = next((n for n in self.exact if n.shape == shape), None) or self.float_input(shape)
            return b.window_max(x, **geometry)
        return self.average(b.window_sum(self.pick_shape_of(shape), **geometry), 4)

    def cumulative(self) -> Node:
        x = self.float(1)
        axis = self.rng.randrange(len(x.shape))
        return self.average(self.b.cumsum(x, axis=axis, reverse=self.rng.random() < 0.5), x.shape[axis])

    def order(self) -> Node:
        x, b = self.pick(self.exact, 1), self.b
        axis = self.rng.randrange(len(x.shape))
        if self.rng.random() < 0.5:
            return b.result(b.sort(x, axis=axis, descending=self.rng.random() < 0.5), index=0)
        return b.result(b.topk(x, k=self.rng.randint(1, x.shape[axis]), axis=axis, largest=self.rng.random() < 0.5), index=0)

    def scan(self) -> Node:
        x, b = self.float(2), self.b
        inner = x.shape[1:]
        t = TensorType(self.dtype, inner)
        carry, row = input_node(0, t), input_node(1, t)
        new = b.tanh(b.add(b.mul(carry, b.like(0.5, carry)), row))
        body = Graph("", (InputSpec("c", t), InputSpec("x", t)), (new, b.mul(new, row)))
        loop = b.scan(self.pick_shape_of(inner), x, body=body, n_carry=1, n_xs=1, length=x.shape[0],
                      reverse=self.rng.random() < 0.5)
        return b.result(loop, index=self.rng.randrange(2))

    def cond(self) -> Node:
        x, b = self.float(), self.b
        t = TensorType(self.dtype, x.shape)
        spec = (InputSpec("x", t),)
        arg = input_node(0, t)
        flag = self.input(f"p{len(self.specs)}", np.asarray(self.rng.random() < 0.5), boolean)
        node = b.cond(flag, x, then=Graph("", spec, (b.sin(arg),)), other=Graph("", spec, (b.mul(arg, b.like(0.5, arg)),)))
        return b.result(node, index=0)

    def bits(self) -> Node:
        b = self.b
        state = self.input(f"s{len(self.specs)}", np.array([self.rng.randrange(2**40), self.rng.randrange(2**20)]), i64)
        shape = self.shape()
        raw = b.shr(b.cast(b.random_bits(state, shape=shape), dtype=i64), b.scalar(8, i64))
        return b.mul(b.cast(raw, dtype=self.dtype), b.scalar(2.0**-24, self.dtype))

    FAMILIES: tuple[str, ...] = ("unary", "binary", "compare", "extremes", "cast", "reduction", "softmax", "movement", "gather",
                                 "scatter", "dot", "conv", "window", "cumulative", "order", "scan", "cond", "bits")

    # -- assembly ---------------------------------------------------------------------------------------------------

    def make(self, nodes: int, gradient: bool) -> RandomGraph:
        for _ in range(self.rng.randint(2, 3)):
            self.float_input(self.shape())
        wanted = list(self.FAMILIES)
        self.rng.shuffle(wanted)
        made = 0
        while made < nodes or len(self.families) < 10:
            family = wanted.pop() if wanted and self.rng.random() < 0.6 else self.rng.choice(["unary", "binary", "movement", "reduction"])
            build: Callable[[], Node] = getattr(self, family)
            node = build()
            if int(np.prod(node.shape)) > 4000:
                continue
            self.families.add(family)
            self.floats.append(node)
            made += 1
        outputs = self._outputs()
        if gradient:
            outputs += self._gradients(outputs)
        graph = Graph(f"random_{self.seed}", tuple(self.specs), tuple(outputs))
        return RandomGraph(self.seed, graph, tuple(self.arrays), frozenset(self.families))

    def _outputs(self) -> list[Node]:
        used = {i for n in self.floats for i in n.inputs}
        ends = [n for n in self.floats if n not in used and n.op.name != "input"]
        return ends or [self.floats[-1]]

    def _gradients(self, outputs: list[Node]) -> list[Node]:
        b = self.b
        total = b.scalar(0.0, self.dtype)
        for n in outputs:
            total = b.add(total, self.average(b.sum(n, axes=tuple(range(len(n.shape)))), int(np.prod(n.shape))))
        wrt = [input_node(i, s.type) for i, s in enumerate(self.specs) if s.type.dtype is self.dtype]
        node = b.gradient(total, b.like(1.0, total), *wrt, n_outputs=1, n_wrt=len(wrt))
        return list(b.results(node))


__all__ = ["RandomGraph", "f32", "f64", "random_graph"]
