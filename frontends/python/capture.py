"""What `tm.compile` learns from recording a function once: where inputs come from and where outputs go."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.dtypes import DType
from ...ir.node import Node
from . import stats
from .cell import Array, Cell, materialised
from .flush import _abandon, _close
from .program import Program, Signature, find_program
from .tensor import Tensor, consumed, over
from .trace import TRACE, Hyper, node_of


class Argument:
    """A tensor argument: the caller's, and what the function was recorded with."""

    __slots__ = ("number", "original", "tensor")

    def __init__(self, number: int, original: Tensor, tensor: Tensor) -> None:
        self.number, self.original, self.tensor = number, original, tensor


def stand_in(t: Tensor) -> Tensor:
    """The tensor to record with: the argument itself, or, for a view, one over a copy of what it shows."""
    if t._view is None or t._cell.tracked:
        return t
    return over(materialised(np.array(t._array("compiled function"), order="C", copy=True), t._dtype))


class Copied:
    """An output that is a copy of a leaf."""

    __slots__ = ("dtype", "index")

    def __init__(self, index: int, dtype: DType) -> None:
        self.index, self.dtype = index, dtype


class Same:
    """A result that is a tensor which existed before: an argument (`number`), or `tensor`."""

    __slots__ = ("number", "tensor")

    def __init__(self, tensor: Tensor, number: int | None) -> None:
        self.tensor, self.number = tensor, number


class Entry:
    """One captured call.

    Attributes:
        program: what runs, or None if nothing is computed.
        fixed: by leaf index the value of constants, and of numbers as they were at the capture; else None.
        cells, replaced: (leaf index, cell) of what is read at each call; of what an output takes the memory of.
        hypers: (leaf index, owner) of numbers that are read at each call, if they can be.
        arguments: (leaf index, argument number).
        copied: outputs that are copies of leaves, taken before the run.
        written: (cell or argument number, output) for everything the function modified.
        grads: (leaf, its argument number or None, what its `.grad` becomes: an output, None or `consumed`).
        initial_grads: (leaf, its gradient at the start), where that matters.
        results: for each returned tensor a Same, or (output, whether something else has its memory, tracked, dtype);
            `tree` is the structure around them.
    """

    __slots__ = ("arguments", "cells", "copied", "fixed", "grads", "hypers", "initial_grads", "program", "replaced",
                 "results", "tree", "written")

    program: Program | None
    fixed: list[Any]
    cells: list[tuple[int, Cell]]
    replaced: list[tuple[int, Cell]]
    hypers: list[tuple[int, Hyper]]
    arguments: list[tuple[int, int]]
    copied: list[Copied]
    written: list[tuple[Any, Any]]
    grads: list[tuple[weakref.ref[Tensor], int | None, Any]]
    initial_grads: list[tuple[weakref.ref[Tensor], Any]]
    results: list[Any]
    tree: Any


class Capture:
    """What the trace tells while the function is recorded.

    Attributes:
        differentiated: a backward pass was recorded.
        cleared: ids of leaves whose gradient was set to None before.
        independent: gradients were dropped before the first backward pass.
    """

    def __init__(self, arguments: Sequence[Argument]) -> None:
        self.arguments = arguments
        self.created: list[tuple[weakref.ref[Cell], Array]] = []
        self.differentiated = self.independent = False
        self.cleared: set[int] = set()
        self._grads: list[tuple[Tensor, Any]] = []

    def made(self, cell: Cell) -> None:
        """A cell was made over an array."""
        if cell.buffer is not None:
            self.created.append((weakref.ref(cell), cell.buffer))

    def zeroed(self) -> None:
        """Gradients were dropped."""
        if not self.differentiated:
            self.independent = True

    def accumulates(self, tensor: Tensor) -> None:
        """A leaf is about to receive a gradient for the first time."""
        self._grads.append((tensor, tensor._grad))

    def restore_grads(self) -> None:
        """The capture failed: gradients are what they were."""
        for tensor, grad in reversed(self._grads):
            tensor._grad = grad

    def initial(self) -> list[tuple[weakref.ref[Tensor], Any]]:
        """Leaves whose gradient at the start the graph depends on, with that gradient."""
        if self.independent:
            return []
        first: dict[int, tuple[weakref.ref[Tensor], Any]] = {}
        for tensor, grad in self._grads:
            if id(tensor) not in self.cleared:
                first.setdefault(id(tensor), (weakref.ref(tensor), grad))
        return list(first.values())


class _Outputs:
    """The output nodes collected so far."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.copied: dict[Node, Copied] = {}
        self._position: dict[Node, int] = {}

    def add(self, node: Node) -> Any:
        """The number of an output, or a Copied for a leaf."""
        if node.op.name == "input":
            return self.copied.setdefault(node, Copied(node.attrs.index, node.dtype))
        at = self._position.get(node)
        if at is None:
            at = self._position[node] = len(self.nodes)
            self.nodes.append(node)
        return at


def finish(capture: Capture, returned: list[Tensor], tree: Any, keep_grads: bool) -> Entry:
    """Turn the recorded trace into an entry; the trace is emptied and every cell is as before the capture."""
    entry, outputs, trace = Entry(), _Outputs(), TRACE
    constants = {id(c): array for ref, array in capture.created if (c := ref()) is not None and c.role != "state"}
    arguments = {id(a.tensor._cell): a for a in capture.arguments}
    entry.tree = tree
    entry.results = [_result(t, outputs, arguments, constants) for t in returned]
    entry.grads = _gradients(capture, outputs, arguments, keep_grads)
    entry.initial_grads = capture.initial()
    fresh = {id(t._cell) for t in returned if t._cell.buffer is None}
    fresh |= {id(t._grad._cell) for ref, _, _ in entry.grads if (t := ref()) is not None and t._grad is not None}
    donations: dict[int, int] = {}
    entry.written = []
    for cell in _written(fresh, constants):
        assert cell.node is not None
        at = outputs.add(cell.node)
        argument = arguments.get(id(cell))
        entry.written.append((cell if argument is None else argument.number, at))
        leaf = _leaf_of(cell)
        if argument is None and isinstance(at, int) and leaf is not None and at not in donations:
            donations[at] = leaf
    _share(entry)
    _leaves(entry, set(donations.values()), arguments, constants)
    entry.copied = list(outputs.copied.values())
    entry.program = None
    try:
        if outputs.nodes:
            stats.traced += 1
            order = tuple([donations.get(i) for i in range(len(outputs.nodes))])
            entry.program = find_program(
                Signature(tuple(outputs.nodes), order, tuple(trace.values), tuple(trace.owners)))
    except BaseException as error:
        _abandon(error)
        capture.restore_grads()
        raise
    for ref in trace.pending:
        pending = ref()
        if pending is not None and pending.buffer is not None:
            pending.stale = False
    _close()
    return entry


def _result(t: Tensor, outputs: _Outputs, arguments: dict[int, Argument], constants: dict[int, Array]) -> Any:
    cell = t._cell
    if cell.buffer is not None and id(cell) not in constants:
        argument = arguments.get(id(cell))
        if argument is None:
            return Same(t, None)
        if t is argument.tensor:
            return Same(t, argument.number)
    return outputs.add(node_of(t)), False, cell.tracked, t._dtype


def _share(entry: Entry) -> None:
    """Note which results are outputs that have gone somewhere else before."""
    taken = {at for _, at in entry.written}
    for i, what in enumerate(entry.results):
        if what.__class__ is tuple:
            at, _, tracked, dtype = what
            entry.results[i] = at, at in taken, tracked, dtype
            taken.add(at)


def _written(fresh: set[int], constants: dict[int, Array]) -> list[Cell]:
    """Live cells with a pending value, one per memory, without results, gradients and constants."""
    found: list[Cell] = []
    seen: set[int] = set()
    for ref in TRACE.pending:
        cell = ref()
        if cell is None or not cell.stale or id(cell) in fresh or id(cell) in constants:
            continue
        group = id(cell) if cell.alias is None else id(cell.alias)
        if group not in seen:
            seen.add(group)
            found.append(cell)
    return found


def _leaf_of(cell: Cell) -> int | None:
    """The leaf that stands for a written cell's old value."""
    last = cell.last
    if last is None or last[0] >= len(TRACE.values) or TRACE.owners[last[0]] is not cell:
        return None
    return last[0] if TRACE.values[last[0]] is cell.buffer else None


def _leaves(entry: Entry, donated: set[int], arguments: dict[int, Argument], constants: dict[int, Array]) -> None:
    """Note where the value of each leaf comes from."""
    entry.fixed, entry.cells, entry.replaced, entry.hypers, entry.arguments = [], [], [], [], []
    for index, (value, owner) in enumerate(zip(TRACE.values, TRACE.owners, strict=True)):
        fixed = value
        if owner.__class__ is Hyper:
            entry.hypers.append((index, owner))
        elif owner.__class__ is Cell:
            argument = arguments.get(id(owner))
            if argument is not None:
                fixed = None
                entry.arguments.append((index, argument.number))
            elif id(owner) not in constants:
                fixed = None
                (entry.replaced if index in donated else entry.cells).append((index, owner))
        entry.fixed.append(fixed)


def _gradients(capture: Capture, outputs: _Outputs, arguments: dict[int, Argument],
               keep_grads: bool) -> list[tuple[weakref.ref[Tensor], int | None, Any]]:
    """What becomes of `.grad` of every leaf that the function differentiated."""
    leaves = {id(t): t for t in TRACE.grad_leaves.values()} | {id(t): t for t, _ in capture._grads}
    made: list[tuple[weakref.ref[Tensor], int | None, Any]] = []
    for t in leaves.values():
        grad = t._grad
        argument = arguments.get(id(t._cell))
        what: Any
        if grad is None:
            what = None
        elif grad._cell.stale and grad._cell.node is not None and grad._cell.buffer is None:
            what = consumed if t._cell.stale and not keep_grads else outputs.add(grad._cell.node)
        else:
            continue
        made.append((weakref.ref(t), None if argument is None else argument.number, what))
    return made

