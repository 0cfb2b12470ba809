"""Random graphs over the operator table, well conditioned so that rounding stays rounding.

Values stay of moderate size (sums are averaged, exponentials squashed), and whatever jumps (comparisons, sorting,
maxima, rounding) only sees values that are the same in float32 and float64, so that a float32 run can be measured
against a float64 run of the same graph. All choices come from one `random.Random`: a seed names a graph.

Every graph is made with one named size B among its dims, and then given a number for it: the same graph in both forms.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from tracemill.ir.build import Builder
from tracemill.ir.dims import Dim, SymDim, evaluate, product, substitute, sym
from tracemill.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i32, i64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

Array = np.ndarray[Any, Any]
Shape = tuple[Dim, ...]
B = sym("B")
# Beyond the blocks that reductions, columns and elementwise loops are cut into.
WIDE: tuple[Shape, ...] = ((9001,), (2, 4500), (290, 40), (3, 20, 130), (B, 700))


@dataclass(frozen=True)
class RandomGraph:
    """A graph with inputs, made for one float dtype; the same seed with another dtype is the same graph in that.

    Attributes:
        symbolic: with a named size B.
        sizes: the value of B that the inputs have.
        families: kinds of operators in it.
    """

    seed: int
    symbolic: Graph
    sizes: Mapping[str, int]
    inputs: tuple[Array, ...]
    families: frozenset[str]

    @cached_property
    def graph(self) -> Graph:
        """The graph with numbers for dims."""
        return with_sizes(self.symbolic, self.sizes)


def random_graph(seed: int, dtype: DType = f64, nodes: int = 24, gradient: bool = True) -> RandomGraph:
    """The graph of a seed: at least `nodes` nodes of at least ten families, and the gradient of its mean output."""
    return _Maker(seed, dtype).make(nodes, gradient)


def with_sizes(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph with named sizes replaced by numbers everywhere, bodies included."""

    def number(d: Dim) -> Dim:
        return substitute(d, lambda name: sizes[name])

    def typed(t: TensorType) -> TensorType:
        return t.with_shape(tuple(map(number, t.shape)))

    def value(kind: str, v: Any) -> Any:
        match kind:
            case "dim":
                return number(v)
            case "dims":
                return tuple(map(number, v))
            case "pads":
                return tuple(tuple(map(number, p)) for p in v)
            case "type":
                return typed(v)
            case "graph":
                return with_sizes(v, sizes)
        return v

    def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
        attrs = {s.name: value(s.kind, v) for s, v in zip(node.op.attrs, node.attrs, strict=True)}
        return Node.make(node.op, inputs, attrs, node.place)

    specs = tuple(replace(s, type=typed(s.type)) for s in graph.inputs)
    return replace(graph.rewrite(visit), inputs=specs)


class _Maker:
    def __init__(self, seed: int, dtype: DType) -> None:
        self.rng = random.Random(seed)
        self.seed, self.dtype = seed, dtype
        self.sizes = {"B": self.rng.choice([4, 6, 7, 13, 21])}
        self.b = Builder()
        self.specs: list[InputSpec] = []
        self.arrays: list[Array] = []
        self.floats: list[Node] = []  # any float values
        self.exact: list[Node] = []  # float values equal in both precisions
        self.others: list[Node] = []  # integers and truth values
        self.families: set[str] = set()

    # -- inputs -----------------------------------------------------------------------------------------------------

    def n(self, d: Dim) -> int:
        """An extent as a number."""
        return evaluate(d, self.sizes)

    def count(self, shape: Shape) -> int:
        return self.n(product(shape))

    def input(self, name: str, shape: Shape, array: Array, dtype: DType) -> Node:
        t = TensorType(dtype, shape)
        self.specs.append(InputSpec(name, t, self.rng.choice(["batch", "parameter"])))
        self.arrays.append(np.ascontiguousarray(array, dtype.numpy).reshape(array.shape))
        return input_node(len(self.specs) - 1, t)

    def shape(self) -> Shape:
        return tuple(self.rng.choice([1, 2, 3, 5, 8, 17, 20, B]) for _ in range(self.rng.choice([1, 2, 2, 3])))

    def float_input(self, shape: Shape) -> Node:
        rng = np.random.default_rng(self.rng.randrange(2**32))
        # Distinct multiples of 1/64: exact in both precisions, and without ties for sorting and maxima.
        n = self.count(shape)
        values = rng.permutation(max(n, 128))[:n].astype(np.float64) / 64.0 - max(n, 128) / 128.0
        values = values / max(1.0, 2.0 ** np.ceil(np.log2(max(n, 128) / 256.0)))
        values = values.reshape([self.n(d) for d in shape])
        if self.rng.random() < 0.1 and not any(isinstance(d, SymDim) for d in shape):
            node = self.b.constant(values, self.dtype)
        else:
            node = self.input(f"x{len(self.specs)}", shape, values, self.dtype)
        self.floats.append(node)
        self.exact.append(node)
        return node

    # -- choices ----------------------------------------------------------------------------------------------------

    def pick(self, pool: list[Node], rank: int | None = None) -> Node:
        fitting = [n for n in pool if rank is None or len(n.shape) >= rank]
        if not fitting:
            return self.float_input(tuple(self.rng.choice([2, 3, 5]) for _ in range(rank or 2)))
        # Recent values are likelier, so that graphs grow deep as well as wide.
        return fitting[int(len(fitting) * self.rng.random() ** 0.5)]

    def float(self, rank: int | None = None) -> Node:
        return self.pick(self.floats, rank)

    def of_shape(self, shape: Shape, pool: list[Node] | None = None) -> Node:
        """A float of a shape: one there is, or a new input."""
        same = [n for n in (self.floats if pool is None else pool) if n.shape == shape]
        return self.rng.choice(same) if same else self.float_input(shape)

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

    def coin(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def mean(self, x: Node, axes: tuple[int, ...]) -> Node:
        """The mean over axes: a sum divided by the extents, which may be named."""
        total = self.b.sum(x, axes=axes)
        return self.b.div(total, self.b.dim(product([x.shape[a] for a in axes]), self.dtype))

    def tame(self, x: Node, count: int) -> Node:
        """A sum of so many terms at the terms' own scale (by powers of two: few constants, few kernels)."""
        scale = 2.0 ** -round(math.log2(max(count, 1)))
        return self.b.mul(x, self.b.like(scale, x)) if scale != 1.0 else x

    # -- families: each adds one value ------------------------------------------------------------------------------

    def unary(self) -> Node:
        name = self.rng.choice(["neg", "tanh", "sin", "cos", "sigmoid", "erf", "atan", "asinh", "softplus", "gauss",
                                "sqrt1", "log1", "rsqrt1", "expm1", "gelu", "logit", "erfinv", "lgamma"])
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
            case "gelu":
                return b.mul(b.tanh(x), b.erfc(b.neg(b.tanh(x))))
            case "logit" | "erfinv":
                squashed = b.mul(b.tanh(x), b.like(0.75, x))
                return b.atanh(squashed) if name == "logit" else b.erfinv(squashed)
            case "lgamma":
                return b.lgamma(b.add(b.sigmoid(x), b.like(2.5, x)))
        return getattr(b, name)(x)

    def binary(self) -> Node:
        x, b = self.float(), self.b
        y = self.like(x) if self.coin(0.8) else b.like(self.rng.choice([0.5, -1.25, 2.0]), x)
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
        self.others.append(node)
        return self.select(node)

    def select(self, mask: Node) -> Node:
        b = self.b
        if self.coin(0.3):
            other = b.not_(mask)
            both = getattr(b, self.rng.choice(["and_", "or_", "xor"]))
            mask = both(other, b.eq(b.isnan(self.of_shape(mask.shape)), mask))
        if self.coin(0.2) and mask.shape:
            axes = self.axes(mask)
            every = getattr(b, self.rng.choice(["any", "all"]))(mask, axes=axes)
            mask = b.xor(mask, b.expand(every, mask.shape, axes))
        x = self.of_shape(mask.shape)
        return b.select(mask, x, self.like(x) if self.coin(0.6) else b.like(0.75, x))

    def extremes(self) -> Node:
        x, b = self.pick(self.exact), self.b
        match self.rng.choice(["clamp", "maximum", "minimum", "abs", "relu", "floor", "rem"]):
            case "clamp":
                return b.clamp(x, b.like(-0.515625, x), b.like(0.765625, x))
            case "relu":
                return b.select(b.gt(x, b.like(0.0, x)), x, b.like(0.0, x))
            case "floor":
                return b.sub(x, getattr(b, self.rng.choice(["floor", "ceil", "round", "trunc"]))(x))
            case "rem":
                return getattr(b, self.rng.choice(["rem", "fmod"]))(x, b.like(0.6875, x))
            case "abs":
                return b.mul(b.abs(x), b.sign(self.of_shape(x.shape, self.exact)))
            case name:
                return getattr(b, name)(x, b.like(0.1484375, x))

    def cast(self) -> Node:
        x, b = self.pick(self.exact), self.b
        if self.coin(0.3):  # arithmetic in sixteen bits; held constant, for its gradient would be rounded to sixteen
            dt = self.rng.choice([f16, bf16])
            narrow = b.cast(b.stop_gradient(x), dtype=dt)
            narrow = getattr(b, self.rng.choice(["add", "mul", "maximum"]))(narrow, b.scalar(0.4375, dt))
            return b.cast(narrow, dtype=self.dtype)
        whole = b.cast(b.mul(x, b.like(8.0, x)), dtype=self.rng.choice([i32, i64]))
        self.others.append(whole)
        match self.rng.choice(["bits", "shift", "divide", "none"]):
            case "bits":
                whole = getattr(b, self.rng.choice(["and_", "or_", "xor", "add", "mul"]))(whole, b.like(6, whole))
            case "shift":
                whole = getattr(b, self.rng.choice(["shl", "shr"]))(whole, b.like(2, whole))
            case "divide":
                whole = getattr(b, self.rng.choice(["floordiv", "fmod"]))(whole, b.like(3, whole))
        return b.mul(b.cast(b.rem(whole, b.like(7, whole)), dtype=self.dtype), b.scalar(0.25, self.dtype))

    def position(self) -> Node:
        b, shape = self.b, self.shape()
        line = b.iota(shape=shape, axis=self.rng.randrange(len(shape)), dtype=self.rng.choice([i64, self.dtype]))
        return b.sin(b.cast(line, dtype=self.dtype))

    def reduction(self) -> Node:
        x, b = self.float(1), self.b
        axes = self.axes(x)
        name = self.rng.choice(["sum", "sum", "mean", "prod", "max", "min", "variance", "argmax"])
        if name in ("max", "min", "argmax"):
            x = self.pick(self.exact, 1)
            axes = self.axes(x)
            if name == "argmax":
                found = getattr(b, self.rng.choice(["argmax", "argmin"]))(x, axes=axes)
                self.others.append(found)
                return b.mul(b.cast(found, dtype=self.dtype), b.scalar(0.0625, self.dtype))
            return getattr(b, name)(x, axes=axes)
        count = self.count(tuple(x.shape[a] for a in axes))
        if name == "prod" and count <= 64:  # the roundings of many factors close to one another add up
            return b.prod(b.add(b.like(1.0, x), self.tame(b.tanh(x), 4 * count)), axes=axes)
        if name == "variance":
            centred = b.sub(x, b.expand(self.mean(x, axes), x.shape, axes))
            return self.mean(b.mul(centred, centred), axes)
        return self.mean(x, axes) if name == "mean" else self.tame(b.sum(x, axes=axes), count)

    def softmax(self) -> Node:
        x, b = self.float(1), self.b
        axes = (len(x.shape) - 1,) if self.coin(0.7) else self.axes(x)
        shifted = b.sub(x, b.expand(b.stop_gradient(b.max(x, axes=axes)), x.shape, axes))
        e = b.exp(shifted)
        total = b.sum(e, axes=axes)
        if self.coin(0.3):
            return b.sub(shifted, b.expand(b.log(total), x.shape, axes))
        return b.div(e, b.expand(total, x.shape, axes))

    def normalise(self) -> Node:
        x, b = self.float(1), self.b
        axes = (len(x.shape) - 1,) if self.coin(0.6) else self.axes(x)
        centred = b.sub(x, b.expand(self.mean(x, axes), x.shape, axes))
        variance = self.mean(b.mul(centred, centred), axes)
        scale = b.rsqrt(b.add(variance, b.like(0.125, variance)))
        return b.mul(centred, b.expand(scale, x.shape, axes))

    def movement(self) -> Node:
        x, b = self.float(1), self.b
        rank = len(x.shape)
        match self.rng.choice(["reshape", "permute", "slice", "pad", "concat", "flip", "broadcast"]):
            case "reshape":
                return b.reshape(x, shape=self._other_shape(x.shape))
            case "permute":
                return b.permute(x, dims=tuple(self.rng.sample(range(rank), rank)))
            case "slice":
                start, size, step = zip(*map(self._cut, x.shape), strict=True)
                return b.slice(x, start=start, size=size, step=step)
            case "pad":
                pads = tuple((self.rng.randint(-1, 2) if self.n(d) > 2 else 1, self.rng.randint(0, 2),
                              self.rng.choice([0, 0, 1])) for d in x.shape)
                return b.pad(x, b.like(self.rng.choice([0.0, 0.5]), x), pads=pads)
            case "concat":
                return b.concat(x, self.like(x), axis=self.rng.randrange(rank))
            case "flip":
                return b.flip(x, axes=self.axes(x))
        return b.broadcast(x, shape=(self.rng.choice([2, 3, B]), *x.shape), dims=tuple(range(1, rank + 1)))

    def _other_shape(self, shape: Shape) -> Shape:
        at = self.rng.randrange(len(shape))
        match self.rng.choice(["flat", "one", "merge", "split"]):
            case "flat":
                return (product(shape),)
            case "merge" if at:
                return (*shape[:at - 1], shape[at - 1] * shape[at], *shape[at + 1:])
            case "split":
                d = shape[at]
                known = d if isinstance(d, int) else math.gcd(*(c for _, c in d.terms))
                cut = self.rng.choice([k for k in range(1, known + 1) if known % k == 0])
                pair = (cut, d // cut) if self.coin() else (d // cut, cut)
                return (*shape[:at], *pair, *shape[at + 1:])
        return (*shape[:at], 1, *shape[at:])

    def _cut(self, d: Dim) -> tuple[Dim, Dim, int]:
        """Start, size and step of a slice of an axis."""
        extent = self.n(d)
        match self.rng.choice(["all", "range", "end"]):
            case "range":
                start, step = self.rng.randrange(extent), self.rng.choice([1, 1, 2])
                return start, (d - 1 - start) // step + 1, step
            case "end":
                size = self.rng.randint(1, max(extent - 1, 1))
                return d - size, size, 1
        return 0, d, 1

    def indices(self, shape: Shape, extent: Dim) -> Node:
        rng = np.random.default_rng(self.rng.randrange(2**32))
        numbers = rng.integers(0, self.n(extent), [self.n(d) for d in shape])
        return self.input(f"i{len(self.specs)}", shape, np.asarray(numbers), self.rng.choice([i64, i32]))

    def gather(self) -> Node:
        x, b = self.float(1), self.b
        axis = self.rng.randrange(len(x.shape))
        if self.coin():
            return b.index_select(x, self.indices(self.rng.choice([(4,), (2, 3), (B,), ()]), x.shape[axis]), axis=axis)
        shape = tuple(self.rng.choice([2, 6]) if i == axis else d for i, d in enumerate(x.shape))
        return b.gather(x, self.indices(shape, x.shape[axis]), axis=axis)

    def scatter(self) -> Node:
        x, b = self.float(1), self.b
        axis = self.rng.randrange(len(x.shape))
        extent = x.shape[axis]
        shape = tuple(self.rng.choice([1, 2, 6]) if i == axis else d for i, d in enumerate(x.shape))
        update = b.mul(b.like(0.5, x), self.of_shape(shape))
        match self.rng.choice(["index_add", "index_copy", "scatter", "scatter_add"]):
            case "index_add" | "index_copy" as name:
                return getattr(b, name)(x, self.indices((shape[axis],), extent), update, axis=axis)
            case name:
                return getattr(b, name)(x, self.indices(shape, extent), update, axis=axis)

    def dot(self) -> Node:
        x, b = self.float(2), self.b
        k, last = x.shape[-1], len(x.shape) - 1
        if len(x.shape) == 3 and self.coin(0.6):
            y = self.of_shape((x.shape[0], k, self.rng.choice([1, 4, 9])))
            made = b.dot(x, y, contract_a=(2,), contract_b=(1,), batch_a=(0,), batch_b=(0,))
        elif self.coin():
            made = b.dot(x, self.of_shape((self.rng.choice([1, 4, 11]), k)), contract_a=(last,), contract_b=(1,))
        else:
            made = b.dot(x, self.of_shape((k, self.rng.choice([1, 4, 11, B]))), contract_a=(last,), contract_b=(0,))
        made = self.tame(made, self.n(k))
        if self.coin(0.4):  # what usually follows: a bias and an activation
            last = len(made.shape) - 1
            bias = b.broadcast(self.of_shape((made.shape[last],)), shape=made.shape, dims=(last,))
            made = b.tanh(b.add(made, bias))
        return made

    def conv(self) -> Node:
        b, rank = self.b, self.rng.choice([1, 2])
        groups = self.rng.choice([1, 1, 2])
        x = self.of_shape((self.rng.choice([2, B]), 2 * groups, *(self.rng.choice([6, 9]) for _ in range(rank))))
        w = self.of_shape((2 * groups, 2, *(self.rng.choice([1, 3]) for _ in range(rank))))
        made = b.conv(x, w, stride=(self.rng.choice([1, 2]),) * rank, pads=((1, self.rng.choice([0, 1])),) * rank,
                      dilation=(self.rng.choice([1, 2]),) * rank, groups=groups)
        return self.tame(made, self.count(w.shape[1:]))

    def window(self) -> Node:
        b = self.b
        shape = (self.rng.choice([2, B]), 3, self.rng.choice([6, 9]), 8)
        geometry = {"window": (2, 2), "stride": self.rng.choice([(1, 1), (2, 2)]), "pads": ((1, 0), (0, 1)),
                    "dilation": (1, 1)}
        if self.coin():
            return b.window_max(self.of_shape(shape, self.exact), **geometry)
        return self.tame(b.window_sum(self.of_shape(shape), **geometry), 4)

    def cumulative(self) -> Node:
        x = self.float(1)
        axis = self.rng.randrange(len(x.shape))
        return self.tame(self.b.cumsum(x, axis=axis, reverse=self.coin()), self.n(x.shape[axis]))

    def order(self) -> Node:
        x, b = self.pick(self.exact, 1), self.b
        axis = self.rng.randrange(len(x.shape))
        if self.coin():
            made = b.sort(x, axis=axis, descending=self.coin())
        else:
            made = b.topk(x, k=self.rng.randint(1, self.n(x.shape[axis])), axis=axis, largest=self.coin())
        values, positions = b.results(made)
        self.others.append(positions)
        return values

    def scan(self) -> Node:
        x, b = self.float(2), self.b
        inner = x.shape[1:]
        t = TensorType(self.dtype, inner)
        carry, row = input_node(0, t), input_node(1, t)
        new = b.tanh(b.add(b.mul(carry, b.like(0.5, carry)), row))
        body = Graph("", (InputSpec("c", t), InputSpec("x", t)), (new, b.mul(new, row)))
        loop = b.scan(self.of_shape(inner), x, body=body, n_carry=1, n_xs=1, length=x.shape[0], reverse=self.coin())
        return b.result(loop, index=self.rng.randrange(2))

    def cond(self) -> Node:
        x, b = self.float(), self.b
        t = TensorType(self.dtype, x.shape)
        spec = (InputSpec("x", t),)
        arg = input_node(0, t)
        flag = self.input(f"p{len(self.specs)}", (), np.asarray(self.coin()), boolean)
        node = b.cond(flag, x, then=Graph("", spec, (b.sin(arg),)),
                      other=Graph("", spec, (b.mul(arg, b.like(0.5, arg)),)))
        return b.result(node, index=0)

    def repeat(self) -> Node:
        """A while loop of a few passes; it has no gradient, so its operand is held constant."""
        x, b = self.float(), self.b
        t, count = TensorType(self.dtype, x.shape), TensorType(i64, ())
        k, value = input_node(0, count), input_node(1, t)
        spec = (InputSpec("k", count), InputSpec("x", t))
        go = Graph("", spec, (b.lt(k, b.scalar(self.rng.randint(0, 4), i64)),))
        body = Graph("", spec, (b.add(k, b.scalar(1, i64)), b.sin(b.add(value, b.like(0.25, value)))))
        loop = b.while_(b.scalar(0, i64), b.stop_gradient(x), cond=go, body=body, n_carry=2)
        return b.result(loop, index=1)

    def custom(self) -> Node:
        """A function with a backward of its own (the gradient clipped smoothly)."""
        x, b = self.float(), self.b
        t = TensorType(self.dtype, x.shape)
        arg, result, g = (input_node(i, t) for i in range(3))
        forward = Graph("", (InputSpec("x", t),), (b.sin(arg),))
        names = ("x", "y", "g")
        backward = Graph("", tuple(InputSpec(n, t) for n in names), (b.mul(b.tanh(g), b.add(b.cos(arg), result)),))
        return b.result(b.custom_vjp(x, forward=forward, backward=backward), index=0)

    def bits(self) -> Node:
        b = self.b
        seed = np.array([self.rng.randrange(2**40), self.rng.randrange(2**20)])
        state = self.input(f"s{len(self.specs)}", (2,), seed, i64)
        shape = self.shape()
        raw = b.shr(b.cast(b.random_bits(state, shape=shape), dtype=i64), b.scalar(8, i64))
        self.others.append(b.random_advance(state, count=product(shape)))
        return b.mul(b.cast(raw, dtype=self.dtype), b.scalar(2.0**-24, self.dtype))

    FAMILIES: tuple[str, ...] = ("unary", "binary", "compare", "extremes", "cast", "position", "reduction", "softmax",
                                 "normalise", "movement", "gather", "scatter", "dot", "conv", "window", "cumulative",
                                 "order", "scan", "cond", "repeat", "custom", "bits")

    # -- assembly ---------------------------------------------------------------------------------------------------

    def make(self, nodes: int, gradient: bool) -> RandomGraph:
        self.float_input((B, *self.shape()[1:]))
        for _ in range(self.rng.randint(1, 2)):
            self.float_input(self.rng.choice(WIDE) if self.coin(0.15) else self.shape())
        wanted = list(self.FAMILIES)
        self.rng.shuffle(wanted)
        made = 0
        while made < nodes or len(self.families) < 10:
            family = (wanted.pop() if wanted and self.coin(0.6)
                      else self.rng.choice(["unary", "binary", "movement", "reduction"]))
            build: Callable[[], Node] = getattr(self, family)
            node = build()
            if self.count(node.shape) > 12000:
                continue
            self.families.add(family)
            self.floats.append(node)
            made += 1
        outputs = self._outputs()
        donations: list[int | None] = [None] * len(outputs)
        if gradient:
            for k, g in self._gradients(outputs).items():
                update = self.specs[k].role == "parameter" and self.coin(0.3)
                x = input_node(k, self.specs[k].type)
                outputs.append(self.b.sub(x, self.b.mul(g, self.b.like(0.125, g))) if update else g)
                donations.append(k if update else None)
        used = {i for n in [*self.floats, *self.others] for i in n.inputs}
        extra = [n for n in self.others if n not in used]
        graph = Graph(f"random_{self.seed}", tuple(self.specs), (*outputs, *extra), (),
                      (*donations, *(None for _ in extra)))
        return RandomGraph(self.seed, graph, self.sizes, tuple(self.arrays), frozenset(self.families))

    def _outputs(self) -> list[Node]:
        used = {i for n in self.floats for i in n.inputs}
        ends = [n for n in self.floats if n not in used and n.op.name not in ("input", "constant")]
        return ends or [self.floats[-1]]

    def _gradients(self, outputs: list[Node]) -> dict[int, Node]:
        """Of the mean of all outputs, by the number of the input; of every eighth graph second derivatives."""
        wrt = [k for k, s in enumerate(self.specs) if s.type.dtype is self.dtype]
        first = self._slopes(outputs, wrt)
        if self.coin(0.125):
            squares = [self.b.mul(g, g) for g in first]
            return dict(zip(wrt, self._slopes(squares, wrt), strict=True))
        return dict(zip(wrt, first, strict=True))

    def _slopes(self, outputs: list[Node], wrt: list[int]) -> tuple[Node, ...]:
        b = self.b
        total = b.scalar(0.0, self.dtype)
        for n in outputs:
            total = b.add(total, self.mean(n, tuple(range(len(n.shape)))) if n.shape else n)
        inputs = [input_node(k, self.specs[k].type) for k in wrt]
        return b.results(b.gradient(total, b.like(1.0, total), *inputs, n_outputs=1, n_wrt=len(wrt)))


__all__ = ["RandomGraph", "f32", "f64", "random_graph", "with_sizes"]
