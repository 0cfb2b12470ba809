"""A builder writes nodes at one place: `b.add(x, y)`, `b.sum(x, axes=(0,))`, constants and common idioms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .attrs import Constant
from .dims import Dim
from .dtypes import DType, i64
from .graph import Graph
from .node import NOWHERE, Node, Place
from .opdef import lookup


class Builder:
    """Makes nodes whose place is `place`. Every operator of the table is a method: `b.NAME(*inputs, **attrs)`.

    >>> from tracemill.ir.graph import input_node
    >>> from tracemill.ir.types import TensorType
    >>> from tracemill.ir.dtypes import f32
    >>> b = Builder()
    >>> x = input_node(0, TensorType(f32, (4, 3)))
    >>> b.sum(b.mul(x, b.scalar(2.0, f32)), axes=(1,))
    <sum: f32[4]>
    """

    def __init__(self, place: Place = NOWHERE) -> None:
        self.place = place

    def __getattr__(self, name: str) -> Callable[..., Node]:
        try:
            op = lookup(name.rstrip("_"))
        except KeyError:
            raise AttributeError(name) from None

        def build(*inputs: Node, **attrs: Any) -> Node:
            return Node.make(op, inputs, attrs, self.place)

        return build

    def results(self, node: Node) -> tuple[Node, ...]:
        """The projections of a node with several results."""
        return tuple(self.result(node, index=i) for i in range(len(node.result_types)))

    def constant(self, value: Any, dtype: DType) -> Node:
        """A constant array of the given dtype."""
        return Node.make(
            "constant", (), {"value": Constant(np.asarray(value, dtype=dtype.numpy))}, self.place
        )

    def scalar(self, value: float | int | bool, dtype: DType) -> Node:
        """A rank-0 constant; elementwise operators splat it."""
        return self.constant(value, dtype)

    def like(self, value: float | int | bool, x: Node) -> Node:
        """A rank-0 constant of x's dtype."""
        return self.constant(value, x.dtype)

    def full(self, value: float | int | bool, dtype: DType, shape: Sequence[Dim]) -> Node:
        """A tensor of one repeated value."""
        c = self.scalar(value, dtype)
        return c if not shape else self.broadcast(c, shape=tuple(shape), dims=())

    def dim(self, value: Dim, dtype: DType = i64) -> Node:
        """An extent as a rank-0 tensor: a constant, or `extent{value}` while it is symbolic."""
        if isinstance(value, int):
            return self.scalar(value, dtype)
        n = self.extent(value=value)
        return n if dtype is i64 else self.cast(n, dtype=dtype)

    def expand(self, x: Node, shape: Sequence[Dim], axes: Sequence[int]) -> Node:
        """Undo a reduction over `axes`: x's dims go to the other axes of `shape`."""
        dropped = set(axes)
        return self.broadcast(
            x, shape=tuple(shape), dims=tuple(i for i in range(len(shape)) if i not in dropped)
        )

    def splat(self, x: Node, shape: Sequence[Dim]) -> Node:
        """A rank-0 tensor repeated to `shape`."""
        return self.broadcast(x, shape=tuple(shape), dims=()) if shape else x

    def graph(self, name: str, inputs: Any, outputs: Sequence[Node]) -> Graph:
        """A body graph."""
        return Graph(name, tuple(inputs), tuple(outputs))
