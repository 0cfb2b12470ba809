"""From concrete traces to one graph in named sizes.

Two traces of the same program at different sizes have the same *skeleton* (operators, edges, axes, dtypes) and differ
only in a vector of integers: the extents of their leaves and the integer attributes (shapes, slice starts, pads). From
the vectors seen so far `fit` explains every integer that varies: an extent of a leaf is a new named size or an
expression of earlier ones; an attribute is an expression of them, or, failing that, a free size handed to each run.
Rebuilding the nodes re-infers all types, so an explanation that does not hold is refused there; and a later trace is
matched by evaluating every expression, so that no integer goes unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.dims import Dim, SymDim, floordiv, sym
from ...ir.errors import TracemillError
from ...ir.graph import Graph, InputSpec
from ...ir.node import Node, Place, postorder
from ...ir.types import TensorType

Vector = tuple[int, ...]
_SYMBOLIC_KINDS = ("dim", "dims", "pads")


# --- skeletons --------------------------------------------------------------------------------------------------------
def dissect(outputs: Sequence[Node], places: bool = True) -> tuple[Any, Vector, int]:
    """The hashable skeleton of a graph, its integers, and how many of them (the first) are extents of leaves."""
    order = postorder(outputs)
    leaves = sorted((n for n in order if n.op.name == "input"), key=lambda n: n.attrs.index)
    index = {n: i for i, n in enumerate(order)}
    ints: list[int] = []
    for n in leaves:
        ints.extend(n.shape)
    count = len(ints)
    rows: list[Any] = []
    for n in order:
        if n.op.name == "input":
            rows.append((n.attrs.index, n.dtype, len(n.shape)))
        else:
            where = n.place if places else None
            rows.append((n.op, tuple([index[i] for i in n.inputs]), _blank(n, ints), where))
    return (tuple(rows), tuple([index[o] for o in outputs])), tuple(ints), count


def _blank(n: Node, ints: list[int]) -> tuple[Any, ...]:
    """The attributes without their integers, which go to `ints`."""
    row: list[Any] = []
    for schema, value in zip(n.op.attrs, n.attrs, strict=True):
        if value is None:
            row.append(None)
        elif schema.kind == "dim":
            ints.append(value)
            row.append("*")
        elif schema.kind == "dims":
            ints.extend(value)
            row.append(len(value))
        elif schema.kind == "pads":
            for pad in value:
                ints.extend(pad)
            row.append(tuple([len(pad) for pad in value]))
        elif schema.kind == "graph":
            row.append(_blank_graph(value, ints))
        else:
            row.append(value)
    return tuple(row)


def _blank_graph(g: Graph, ints: list[int]) -> Any:
    for spec in g.inputs:
        ints.extend(spec.type.shape)  # type: ignore[arg-type]
    skeleton, inner, _ = dissect(g.outputs, places=False)
    ints.extend(inner)
    return (skeleton, tuple((spec.type.dtype, spec.type.rank, spec.role) for spec in g.inputs), len(inner))


# --- fitting ----------------------------------------------------------------------------------------------------------
@dataclass
class Fit:
    """An explanation of the vectors.

    Attributes:
        exprs: for each position of the vector an integer or an expression.
        binders: (name, position) for every named size, in the order of binding.
        free: names that no leaf binds, with the newest value.
    """

    exprs: list[Dim]
    binders: list[tuple[str, int]]
    free: list[tuple[str, int]]

    def bind(self, vector: Vector) -> dict[str, int] | None:
        """The sizes under which the expressions give this vector, or None."""
        sizes = {name: vector[at] for name, at in self.binders}
        for expr, value in zip(self.exprs, vector, strict=True):
            if (expr if expr.__class__ is int else expr.evaluate(sizes)) != value:  # type: ignore[union-attr]
                return None
        return sizes


def fit(vectors: Sequence[Vector], n_leaf: int, relate: str = "products") -> Fit:
    """Explain vectors of one skeleton, the newest last.

    Args:
        n_leaf: how many integers, the first, are extents of leaves.
        relate: which relations between extents of leaves are believed: `products` (k·B, B·T), `lines` (also k·B + c
            with a small c), or `none` (only equality).
    """
    columns = list(zip(*vectors, strict=True))
    known: dict[Column, Dim] = {}
    sizes: list[tuple[Dim, Column]] = []  # extents of leaves, then free sizes
    result = Fit([], [], [])
    for at, column in enumerate(columns):
        if len(set(column)) == 1:
            result.exprs.append(column[0])
            continue
        expr = known.get(column)
        if expr is None:
            is_leaf = at < n_leaf
            expr = _explain(column, sizes, relate if is_leaf else "all")
            if expr is None:
                name = _name(len(result.binders))
                expr = sym(name)
                result.binders.append((name, at))
                if not is_leaf:
                    result.free.append((name, column[-1]))
            if is_leaf or (isinstance(expr, SymDim) and result.free and result.binders[-1][1] == at):
                sizes.append((expr, column))
            known[column] = expr
        result.exprs.append(expr)
    return result


Column = tuple[int, ...]


def _name(count: int) -> str:
    letters = "BTSNMKLH"
    return letters[count] if count < len(letters) else f"n{count}"


def _explain(column: Column, sizes: list[tuple[Dim, Column]], relate: str) -> Dim | None:
    """The simplest expression of known sizes that gives the column."""
    if relate == "none":
        return None
    products = list(_products(sizes))
    for expr, values in products:
        factor = _ratio(column, values)
        if factor is not None:
            return factor * expr
    if relate == "products":
        return None
    for expr, values in sizes:
        line = _line(column, values)
        if line is not None and abs(line[1]) <= 4:
            return line[0] * expr + line[1]
    if relate == "lines":
        return None
    return _quotient(column, products) or _sum(column, sizes) or _any_line(column, products)


def _products(sizes: list[tuple[Dim, Column]]) -> Iterator[tuple[Dim, Column]]:
    yield from sizes
    for i, (a, va) in enumerate(sizes):
        for b, vb in sizes[i:]:
            yield a * b, tuple([x * y for x, y in zip(va, vb, strict=True)])
    if len(sizes) >= 3:
        (a, va), (b, vb), (c, vc) = sizes[:3]
        yield a * b * c, tuple([x * y * z for x, y, z in zip(va, vb, vc, strict=True)])


def _quotient(column: Column, sizes: list[tuple[Dim, Column]]) -> Dim | None:
    for expr, values in sizes:
        for divisor in (2, 3, 4, 8, 16, 32):
            for offset in (0, 1, -1, 2, divisor - 1, 1 - divisor):
                if all(c == (v + offset) // divisor for c, v in zip(column, values, strict=True)):
                    return floordiv(expr + offset, divisor)
    return None


def _sum(column: Column, sizes: list[tuple[Dim, Column]]) -> Dim | None:
    for i, (a, va) in enumerate(sizes):
        for b, vb in sizes[i + 1:]:
            for sa, sb in ((1, 1), (1, -1), (-1, 1)):
                rest = {c - sa * x - sb * y for c, x, y in zip(column, va, vb, strict=True)}
                if len(rest) == 1:
                    return sa * a + sb * b + rest.pop()
    return None


def _any_line(column: Column, sizes: list[tuple[Dim, Column]]) -> Dim | None:
    for expr, values in sizes:
        line = _line(column, values)
        if line is not None:
            return line[0] * expr + line[1]
    return None


def _ratio(column: tuple[int, ...], values: tuple[int, ...]) -> int | None:
    if not values[0] or column[0] % values[0]:
        return None
    factor = column[0] // values[0]
    if factor >= 1 and all(c == factor * v for c, v in zip(column, values, strict=True)):
        return factor
    return None


def _line(column: tuple[int, ...], values: tuple[int, ...]) -> tuple[int, int] | None:
    """(k, c) with column = k·values + c, k ≥ 1 (or −1, for what shrinks while the size grows)."""
    other = next((i for i, v in enumerate(values) if v != values[0]), None)
    if other is None:
        return None
    rise, run = column[other] - column[0], values[other] - values[0]
    if rise % run:
        return None
    k = rise // run
    c = column[0] - k * values[0]
    if (k >= 1 or k == -1) and all(y == k * x + c for y, x in zip(column, values, strict=True)):
        return k, c
    return None


# --- rebuilding -------------------------------------------------------------------------------------------------------
def rebuild(outputs: Sequence[Node], replace: Callable[[Node], Node | None],
            attrs: Callable[[Node], Any] | None = None) -> tuple[Node, ...]:
    """The outputs over replaced nodes.

    Args:
        replace: a node's replacement (its inputs are then not visited for it), or None to rebuild it.
        attrs: new attributes of a rebuilt node.
    """
    mapped: dict[Node, Node] = {}
    made: set[Node] = set()
    for n in postorder(outputs):
        new = replace(n)
        if new is None:
            inputs = tuple([mapped[i] for i in n.inputs])
            if attrs is not None:
                new = Node.make(n.op, inputs, attrs(n), n.place)
            else:
                new = n.with_inputs(inputs)
            if new in made and new.inputs:  # two variables of a gradient never become one
                new = _apart(new, len(made))
            made.add(new)
        mapped[n] = new
    return tuple([mapped[o] for o in outputs])


def _apart(n: Node, count: int) -> Node:
    """The same operator at a place of its own."""
    return Node.make(n.op, n.inputs, n.attrs, Place(n.place.location, f"{n.place.scope}#{count}"))


def symbolic(outputs: Sequence[Node], found: Fit) -> tuple[Node, ...] | None:
    """The graph with its integers replaced by the fitted expressions; None if its types do not work out."""
    order = postorder(outputs)
    exprs = iter(found.exprs)
    leaves: dict[Node, Node] = {}
    for n in sorted((n for n in order if n.op.name == "input"), key=lambda n: n.attrs.index):
        shape = tuple([next(exprs) for _ in n.shape])
        leaves[n] = Node.make("input", (), {"index": n.attrs.index, "type": TensorType(n.dtype, shape)})
    try:
        return rebuild(outputs, leaves.get, lambda n: _refill(n, exprs))
    except TracemillError:
        return None


def _refill(n: Node, exprs: Iterator[Dim]) -> Any:
    row: list[Any] = []
    for schema, value in zip(n.op.attrs, n.attrs, strict=True):
        if value is None or schema.kind not in (*_SYMBOLIC_KINDS, "graph"):
            row.append(value)
        elif schema.kind == "dim":
            row.append(next(exprs))
        elif schema.kind == "dims":
            row.append(tuple([next(exprs) for _ in value]))
        elif schema.kind == "pads":
            row.append(tuple([tuple([next(exprs) for _ in pad]) for pad in value]))
        else:
            row.append(_refill_graph(value, exprs))
    return n.op.make_attrs(*row)


def _refill_graph(g: Graph, exprs: Iterator[Dim]) -> Graph:
    specs = tuple([InputSpec(spec.name, TensorType(spec.type.dtype, tuple([next(exprs) for _ in spec.type.shape])),
                             spec.role, spec.default) for spec in g.inputs])
    order = postorder(g.outputs)
    leaves: dict[Node, Node] = {}
    for n in sorted((n for n in order if n.op.name == "input"), key=lambda n: n.attrs.index):
        for _ in n.shape:
            next(exprs)
        leaves[n] = Node.make("input", (), {"index": n.attrs.index, "type": specs[n.attrs.index].type})
    outputs = rebuild(g.outputs, leaves.get, lambda n: _refill(n, exprs))
    return Graph(g.name, specs, outputs, g.output_names, g.donations, g.sizes)
