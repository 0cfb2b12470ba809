"""Sizes of a group as structure only: one name per independent extent, whatever the extents are.

Kernels are shape-generic and are found again by their text. So lowering never looks at the numbers: it gives every
dimension of a group's inputs a name, follows the operators' typing rules, and unifies the names that the rules make
equal. `B = 128` and a symbolic `B` then lead to the same names, the same loops and the same text; two dimensions that
only happen to be equal keep two names. The one exception is the literal extent 1, which is structure (a broadcast).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.dims import Dim, SymDim, names, product, substitute, sym
from ...ir.graph import Graph
from ...ir.node import Node
from ...ir.opdef import Kind
from .errors import CannotLower

Dims = tuple[Dim, ...]


class Sizes:
    """The size names of one group and what is known of them.

    Names are `n0, n1, …` in order of creation. `real` maps an expression in them to the graph's own dims.
    """

    def __init__(self) -> None:
        self._real: dict[str, Dim] = {}
        self._bound: dict[str, Dim] = {}

    def fresh(self, real: Dim) -> Dim:
        """A new name for an extent that is `real` in the graph; the literal 1 stays itself."""
        return 1 if real == 1 else self.argument(real)

    def argument(self, real: Dim) -> Dim:
        """A new name whatever the value: a slice start, a padding width, a number that must not be in the text."""
        name = f"n{len(self._real)}"
        self._real[name] = real
        return sym(name)

    def resolve(self, d: Dim) -> Dim:
        """`d` with every name replaced by what it was unified with."""
        while not isinstance(d, int) and any(name in self._bound for name in names(d)):
            d = substitute(d, lambda name: self._bound.get(name, sym(name)))
        return d

    def real(self, d: Dim) -> Dim:
        """The graph's own extent that an expression in the names stands for."""
        return substitute(self.resolve(d), lambda name: self._real[name])

    def unify(self, a: Dim, b: Dim) -> Dim:
        """Record that two extents are equal by a typing rule; returns the common one."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b or isinstance(a, int) or isinstance(b, int):
            return a
        if self._bind(a, b) or self._bind(b, a):
            return self.resolve(a)
        self._unify_factors(a, b)
        return self.resolve(a)

    def _bind(self, name: SymDim, value: SymDim) -> bool:
        bare = _bare(name)
        if bare is None or bare in names(value):
            return False
        self._bound[bare] = value
        return True

    def _unify_factors(self, a: SymDim, b: SymDim) -> None:
        """Products that are equal as a whole: pair the factors that are equal in the graph, in order."""
        left, right = factors(a), factors(b)
        if left == [a] and right == [b]:
            return  # two sums, of what was concatenated: equal, but by no name
        for x in left:
            match = next((y for y in right if self.real(x) == self.real(y)), None)
            if match is not None:
                right.remove(match)
                self.unify(x, match)


def _bare(d: SymDim) -> str | None:
    """The name that `d` is, if it is nothing else."""
    if len(d.terms) == 1:
        (mono, coefficient), = d.terms
        if coefficient == 1 and len(mono) == 1 and isinstance(mono[0], str):
            return mono[0]
    return None


def factors(d: Dim) -> list[Dim]:
    """The names whose product `d` is, in the canonical order; `[d]` if it is not such a product."""
    if isinstance(d, SymDim) and len(d.terms) == 1:
        (mono, coefficient), = d.terms
        if coefficient == 1 and all(isinstance(atom, str) for atom in mono):
            return [sym(str(atom)) for atom in mono]
    return [d]


class GroupSizes:
    """The named shapes of all nodes of a group's body.

    Attributes:
        sizes: the names.
        shapes: each node's dims as expressions in the names (resolve before use: `shape(node)`).
        arguments: numbers in attributes that are arguments of the kernel, by (node, attribute, position).
    """

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[Node]) -> None:
        self.sizes = Sizes()
        self._shapes: dict[Node, Dims] = {}
        self.arguments: dict[tuple[Node, str, int], Dim] = {}
        for node in nodes:
            self._shapes[node] = self._infer(node)
        rank = max((o.tensor_type.rank for o in outputs), default=0)
        full = [o for o in outputs if o.tensor_type.rank == rank]
        for other in full[1:]:  # the outputs of a group share their loops
            if other.shape == full[0].shape:
                for a, b in zip(self._shapes[full[0]], self._shapes[other], strict=True):
                    self.sizes.unify(a, b)

    @classmethod
    def of(cls, body: Graph) -> GroupSizes:
        """The sizes of a fused body."""
        return cls(body.nodes, body.outputs)

    def shape(self, node: Node) -> Dims:
        """The node's extents in resolved names."""
        return tuple(self.sizes.resolve(d) for d in self._shapes[node])

    def argument(self, node: Node, attribute: str, position: int, real: Dim) -> Dim:
        """The name of a number in an attribute of `node`; the same one every time."""
        key = (node, attribute, position)
        if key not in self.arguments:
            self.arguments[key] = self.sizes.argument(real)
        return self.arguments[key]

    def _infer(self, node: Node) -> Dims:
        if len(node.result_types) != 1:
            raise CannotLower(f"{node.op.name} has several results")
        rule = _RULES.get(node.op.name)
        if rule is not None:
            return rule(self, node)
        if node.op.kind is Kind.ELEMENTWISE:
            return self._elementwise(node)
        if node.op.kind is Kind.REDUCTION:
            axes = set(node.attrs.axes)
            return tuple(d for i, d in enumerate(self._shapes[node.inputs[0]]) if i not in axes)
        return self._new(node)

    def _new(self, node: Node) -> Dims:
        return tuple(self.sizes.fresh(d) for d in node.shape)

    def _elementwise(self, node: Node) -> Dims:
        shapes = [self._shapes[i] for i in node.inputs if i.tensor_type.rank]
        for other in shapes[1:]:
            for a, b in zip(shapes[0], other, strict=True):
                self.sizes.unify(a, b)
        return shapes[0] if shapes else ()

    def _broadcast(self, node: Node) -> Dims:
        out = list(self._new(node))
        (x,) = node.inputs
        for own, target in enumerate(node.attrs.dims):
            if x.shape[own] != 1:
                out[target] = self._shapes[x][own]
        return tuple(out)

    def _permute(self, node: Node) -> Dims:
        shape = self._shapes[node.inputs[0]]
        return tuple(shape[d] for d in node.attrs.dims)

    def _slice(self, node: Node) -> Dims:
        (x,) = node.inputs
        whole = [whole_axis(node, axis) for axis in range(x.tensor_type.rank)]
        return tuple(self._shapes[x][axis] if same else self.sizes.fresh(node.shape[axis])
                     for axis, same in enumerate(whole))

    def _pad(self, node: Node) -> Dims:
        x = node.inputs[0]
        return tuple(self._shapes[x][axis] if all(p == 0 for p in pads) else self.sizes.fresh(node.shape[axis])
                     for axis, pads in enumerate(node.attrs.pads))

    def _concat(self, node: Node) -> Dims:
        axis, first = node.attrs.axis, node.inputs[0]
        shape = list(self._shapes[first])
        for other in node.inputs[1:]:
            for i, d in enumerate(self._shapes[other]):
                if i != axis:
                    shape[i] = self.sizes.unify(shape[i], d)
        total: Dim = 0
        for x in node.inputs:
            extent = self._shapes[x][axis]
            total = total + (extent if extent != 1 else 1)
        shape[axis] = total
        return tuple(shape)

    def _flip(self, node: Node) -> Dims:
        return self._shapes[node.inputs[0]]

    def _reshape(self, node: Node) -> Dims:
        (x,) = node.inputs
        own, out = self._shapes[x], list(self._new(node))
        for ins, outs in reshape_groups(x.shape, node.shape):
            if len(outs) == 1:
                out[outs[0]] = product([self.sizes.resolve(own[i]) for i in ins])
            elif len(ins) == 1:
                self.sizes.unify(own[ins[0]], product([out[o] for o in outs]))
        return tuple(out)

    def _gather(self, node: Node) -> Dims:
        x, index = node.inputs[:2]
        for axis, (a, b) in enumerate(zip(self._shapes[x], self._shapes[index], strict=True)):
            if axis != node.attrs.axis and x.shape[axis] == index.shape[axis]:
                self.sizes.unify(a, b)
        return self._shapes[index]

    def _index_select(self, node: Node) -> Dims:
        x, index = node.inputs
        shape, axis = self._shapes[x], node.attrs.axis
        return (*shape[:axis], *self._shapes[index], *shape[axis + 1:])

    def _dot(self, node: Node) -> Dims:
        a, b = (self._shapes[x] for x in node.inputs)
        at = node.attrs
        for i, j in zip(at.batch_a + at.contract_a, at.batch_b + at.contract_b, strict=True):
            self.sizes.unify(a[i], b[j])
        free_a = [d for i, d in enumerate(a) if i not in at.batch_a + at.contract_a]
        free_b = [d for j, d in enumerate(b) if j not in at.batch_b + at.contract_b]
        return (*(a[i] for i in at.batch_a), *free_a, *free_b)

    def _scatter(self, node: Node) -> Dims:
        x, index, update = node.inputs
        for axis, (a, b) in enumerate(zip(self._shapes[x], self._shapes[index], strict=True)):
            if axis != node.attrs.axis and x.shape[axis] == index.shape[axis]:
                self.sizes.unify(a, b)
        for a, b in zip(self._shapes[index], self._shapes[update], strict=True):
            self.sizes.unify(a, b)
        return self._shapes[x]


def whole_axis(node: Node, axis: int) -> bool:
    """Whether a slice takes all of an axis."""
    attrs = node.attrs
    return bool(attrs.start[axis] == 0 and attrs.step[axis] == 1 and attrs.size[axis] == node.inputs[0].shape[axis])


def reshape_groups(source: Dims, target: Dims) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes with equal products, as (source axes, target axes); axes of extent 1 are in none."""
    left, right = [i for i, d in enumerate(source) if d != 1], [i for i, d in enumerate(target) if d != 1]
    ends = {_prefix(source, left, i): i for i in range(len(left), 0, -1)}
    groups: list[tuple[list[int], list[int]]] = []
    done_left = done_right = 0
    for j in range(1, len(right) + 1):
        i = ends.get(_prefix(target, right, j))
        if i is not None and i > done_left:
            groups.append((left[done_left:i], right[done_right:j]))
            done_left, done_right = i, j
    if done_left < len(left) or done_right < len(right):
        groups.append((left[done_left:], right[done_right:]))
    return groups


def _prefix(shape: Dims, axes: list[int], count: int) -> Dim:
    return product([shape[i] for i in axes[:count]])


_RULES: dict[str, Callable[[GroupSizes, Node], Dims]] = {
    "broadcast": GroupSizes._broadcast, "permute": GroupSizes._permute, "slice": GroupSizes._slice,
    "pad": GroupSizes._pad, "concat": GroupSizes._concat, "flip": GroupSizes._flip,
    "reshape": GroupSizes._reshape, "gather": GroupSizes._gather, "index_select": GroupSizes._index_select,
    "scatter": GroupSizes._scatter, "scatter_add": GroupSizes._scatter, "iota": GroupSizes._new,
    "dot": GroupSizes._dot,
}  # fmt: skip
