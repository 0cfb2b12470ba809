"""Tensors as strided views of buffers: what kernels with strides for their operands read and write without copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from ...ir.dims import Dim
from ...ir.node import Node
from .sizes import reshape_groups


@dataclass(frozen=True)
class Strided:
    """Elements of a buffer: element `index` lies at `offset + Σ index[i]·strides[i]`."""

    offset: Dim
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]

    @classmethod
    def whole(cls, shape: tuple[Dim, ...]) -> Strided:
        """A row-major buffer."""
        strides: list[Dim] = []
        stride: Dim = 1
        for d in reversed(shape):
            strides.insert(0, 0 if d == 1 else stride)
            stride = stride * d
        return cls(0, shape, tuple(strides))

    def permute(self, dims: tuple[int, ...]) -> Strided:
        """Axes in another order."""
        return Strided(self.offset, tuple(self.shape[d] for d in dims), tuple(self.strides[d] for d in dims))

    def slice(self, start: tuple[Dim, ...], size: tuple[Dim, ...], step: tuple[int, ...]) -> Strided:
        """`size` elements of every axis from `start` on, `step` apart."""
        offset = self.offset
        for at, stride in zip(start, self.strides, strict=True):
            offset = offset + at * stride
        return Strided(offset, size, tuple(k * s for k, s in zip(step, self.strides, strict=True)))

    def broadcast(self, shape: tuple[Dim, ...], dims: tuple[int, ...]) -> Strided:
        """Repeated along new axes and axes of extent 1."""
        strides: list[Dim] = [0] * len(shape)
        for axis, d, stride in zip(dims, self.shape, self.strides, strict=True):
            strides[axis] = 0 if d == 1 else stride
        return Strided(self.offset, shape, tuple(strides))

    def reshape(self, shape: tuple[Dim, ...]) -> Strided | None:
        """The same elements in row-major order under another shape, or None where strides cannot say that."""
        strides: list[Dim] = [0] * len(shape)
        for ins, outs in reshape_groups(self.shape, shape):
            for outer, inner in pairwise(ins):
                if self.strides[outer] != self.strides[inner] * self.shape[inner]:
                    return None
            if not ins or not outs:
                return None
            stride = self.strides[ins[-1]]
            for axis in reversed(outs):
                strides[axis] = stride
                stride = stride * shape[axis]
        return Strided(self.offset, shape, tuple(strides))


_FORWARD: dict[str, Callable[[Strided, Node], Strided | None]] = {
    "permute": lambda x, n: x.permute(n.attrs.dims),
    "reshape": lambda x, n: x.reshape(n.shape),
    "broadcast": lambda x, n: x.broadcast(n.shape, n.attrs.dims),
    "slice": lambda x, n: x.slice(n.attrs.start, n.attrs.size, n.attrs.step),
}


def source_of(node: Node) -> tuple[Node, Strided]:
    """The node in whose row-major buffer the elements of `node` lie, and where: through as many views as strides can
    express."""
    chain: list[Node] = []
    base = node
    while base.op.name in _FORWARD:
        chain.append(base)
        base = base.inputs[0]
    # A chain that breaks is taken from the break on: what lies below must be in memory itself.
    while True:
        found: Strided | None = Strided.whole(base.shape)
        broken: Node | None = None
        for n in reversed(chain):
            assert found is not None
            found = _FORWARD[n.op.name](found, n)
            if found is None:
                broken = n
                break
        if found is not None:
            return base, found
        assert broken is not None
        chain, base = chain[:chain.index(broken)], broken


def targets_of(node: Node) -> list[tuple[Node, Strided]] | None:
    """The nodes that a tensor in memory consists of, by permutes, reshapes and concatenations, and where each lies in
    its row-major buffer; None where strides cannot say that."""
    found: list[tuple[Node, Strided]] = []
    stack = [(node, Strided.whole(node.shape))]
    while stack:
        n, where = stack.pop()
        if n.op.name == "permute":
            inverse = tuple(sorted(range(len(n.attrs.dims)), key=lambda i: n.attrs.dims[i]))
            stack.append((n.inputs[0], where.permute(inverse)))
        elif n.op.name == "reshape":
            inner = where.reshape(n.inputs[0].shape)
            if inner is None:
                return None
            stack.append((n.inputs[0], inner))
        elif n.op.name == "concat":
            axis = n.attrs.axis
            at: Dim = 0
            for part in n.inputs:
                start = tuple(at if i == axis else 0 for i in range(len(n.shape)))
                stack.append((part, where.slice(start, part.shape, (1,) * len(n.shape))))
                at = at + part.shape[axis]
        else:
            found.append((n, where))
    return found
