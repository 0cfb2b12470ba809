"""Histories across flushes.

When a tensor with a history is materialised, the segment of the trace that computed it stays behind: the nodes, the
arrays its leaves stood for, and the residuals, i.e. the values its gradient will read, which the flush computed along.
When the tensor is used again, the segment's nodes are imported into the new trace with renumbered leaves, each residual
joined by `with_value`, so that a backward pass differentiates through them without running the forward pass twice.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from ...ir.dims import Dim
from ...ir.graph import Graph, InputSpec
from ...ir.node import Node, postorder
from . import engine
from .cell import Array, Cell
from .trace import NUMBER, TRACE, array_leaf, leaf_node, number, read


class Segment:
    """What remains of a trace that has run, for those tensors whose gradients may still be asked for.

    Attributes:
        values, owners: by leaf index, as in the trace.
        leaves: leaf index -> tensor on which gradients accumulate.
        residuals: values kept, by node.
        freed: nodes whose backward pass has run.
        dead: leaf indices without a history of their own because it was freed.
        heads: the cells whose history this is.
    """

    __slots__ = ("__weakref__", "_epoch", "_mapped", "dead", "freed", "heads", "leaves", "owners", "residuals",
                 "values")

    def __init__(self, residuals: dict[Node, Array]) -> None:
        self.values = list(TRACE.values)
        self.owners = list(TRACE.owners)
        self.leaves = {n.attrs.index: t for n, t in TRACE.grad_leaves.items() if n.op.name == "input"}
        self.residuals = residuals
        self.heads: list[weakref.ref[Cell]] = []
        self.freed = set(TRACE.freed)
        self.dead = {n.attrs.index for n in TRACE.dead if n.op.name == "input"}
        self._epoch: Any = None
        self._mapped: dict[Node, Node] = {}

    def load(self, node: Node) -> Node:
        """`node` in the pending trace."""
        if self._epoch is not TRACE.epoch:
            self._epoch, self._mapped = TRACE.epoch, {}
            TRACE.segments.append(self)
        mapped = self._mapped
        for n in postorder([node], skip=mapped.__contains__):
            new = self._leaf(n) if n.op.name == "input" else n.with_inputs([mapped[i] for i in n.inputs])
            if n in self.freed:
                TRACE.freed.add(new)
            kept = self.residuals.get(n)
            if kept is not None and n.op.name != "input":
                new = Node.make("with_value", (new, array_leaf(kept, n.dtype)), (), n.place)
                if n in self.freed:
                    TRACE.freed.add(new)
            mapped[n] = new
        return mapped[node]

    def free(self, visited: frozenset[Node]) -> None:
        """A backward pass over the pending trace's nodes `visited` has used up what was imported of them."""
        for old, new in self._mapped.items():
            if new in visited:
                self.freed.add(old)
                self.residuals.pop(old, None)
        for ref in self.heads:
            cell = ref()
            if cell is not None and cell.history is not None and cell.history.segment is self \
                    and cell.history.node in self.freed:
                cell.history = None

    def _leaf(self, n: Node) -> Node:
        index = n.attrs.index
        value, owner = self.values[index], self.owners[index]
        if owner == NUMBER or not hasattr(value, "shape"):
            return number(value, n.dtype, owner)
        tensor = self.leaves.get(index)
        if owner.__class__ is Cell and not owner.stale and owner.buffer is value:
            return read(owner)
        node = array_leaf(value, n.dtype)
        if tensor is not None:  # the leaf has been written since: the gradient still goes to it
            TRACE.grad_leaves[node] = tensor
        elif index in self.dead:
            TRACE.dead.append(node)
        return node


class History:
    """The node that computed a tensor, in its segment."""

    __slots__ = ("node", "segment")

    def __init__(self, segment: Segment, node: Node) -> None:
        self.segment, self.node = segment, node


def rejoin(history: History, leaf: Node) -> Node:
    """A materialised value (a leaf of the pending trace) joined to its history."""
    past = history.segment.load(history.node)
    node = Node.make("with_value", (past, leaf), (), history.node.place)
    if past in TRACE.freed:
        TRACE.freed.add(node)
    return node


def keep(cells: Sequence[tuple[Cell, Node]], residuals: dict[Node, Array]) -> None:
    """After a run: give the cells the history that a later backward pass reads."""
    segment = Segment(residuals)
    for cell, node in cells:
        cell.history = History(segment, node)
        segment.heads.append(weakref.ref(cell))


_residuals: dict[Any, tuple[Node, ...]] = {}


def residual_nodes(outputs: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes whose values the gradients of `outputs` with respect to the trace's leaves will read."""
    from .autograd import reach

    wrt, _, _ = reach(tuple(outputs), tuple(TRACE.grad_leaves), ())
    key = (tuple(outputs), wrt)
    found = _residuals.get(key)
    if found is None:
        found = _find(outputs, wrt)
        if len(_residuals) > 4096:
            _residuals.clear()
        _residuals[key] = found
    return found


def _find(outputs: Sequence[Node], wrt: Sequence[Node]) -> tuple[Node, ...]:
    heads = [o for o in outputs if o.dtype.is_float]
    if not heads or not wrt:
        return ()
    order = postorder(outputs)
    count = 1 + max((n.attrs.index for n in order if n.op.name == "input"), default=-1)
    by_index: dict[int, Node] = {n.attrs.index: n for n in order if n.op.name == "input"}
    nothing: tuple[Dim, ...] = ()
    blank = leaf_node(0, heads[0].dtype, nothing).tensor_type  # type: ignore[arg-type]
    specs = tuple([InputSpec(f"x{i}", by_index[i].tensor_type if i in by_index else blank) for i in range(count)])
    graph = Graph("history", specs, tuple(outputs))
    return tuple([n for n in engine.residuals(graph, heads, wrt) if n.op.name != "input"])
