"""Running the pending trace.

A flush computes what the script still holds: live cells with a pending value, written cells, and the residuals of
histories that may still be differentiated. Its key is the tuple of output nodes; hash-consing makes the key of every
pass through a loop the same object, so a steady loop pays one dictionary probe. Cells get their new buffers only when
the run has succeeded: after an error every cell holds what it held before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.errors import CaptureError, TracemillError
from ...ir.node import Node
from ...runtime.interrupts import INTERRUPTS
from . import stats
from .cell import Array, Cell, held_elsewhere
from .place import here
from .program import Program, Signature, find_program
from .trace import LOCK, TRACE, lost

Donors = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the values of a flush come about: made once for each key.

    Attributes:
        program: computes what is not a leaf; None if everything is.
        donated: leaves whose memory an output takes.
        places: for each held cell the number of its output, or None for the copy of a leaf, and whether it must be
            a copy because another cell has that array.
        residuals: (node, number of its output) of values that later gradients read.
    """

    program: Program | None
    donated: tuple[int, ...]
    places: tuple[tuple[int | None, bool], ...]
    residuals: tuple[tuple[Node, int], ...]


_layouts: dict[Any, _Layout] = {}
_LAYOUT_LIMIT = 4096


def flush(reason: str) -> None:
    """Run everything pending. Raises the errors of the run, at the user's line.

    An interrupt (KeyboardInterrupt) during the run is raised when every cell has its new value.
    """
    trace = TRACE
    if not trace.values and not trace.pending:
        trace.reset()
        return
    with LOCK:
        if trace.barrier is not None:
            raise CaptureError(f"a tensor's value is needed while {trace.barrier}", location=here(2).location)
        held = _held()
        if held:
            stats.flushed(here(2), reason)
            _run_all(held)
        else:
            _close()


def _run_all(held: list[Cell]) -> None:
    """Run the trace and give the cells their values, whatever interrupts come meanwhile."""
    INTERRUPTS.defer()
    try:
        try:
            settle = _run(held)
        except BaseException as error:
            _abandon(error)
            raise
        try:
            settle()
        except KeyboardInterrupt:  # in the middle of it: again, it does the same
            settle()
            raise
    finally:
        INTERRUPTS.release()


def _held() -> list[Cell]:
    """Live cells whose value is pending, one per memory, in the order of their first computation."""
    held: list[Cell] = []
    groups: set[int] = set()
    for ref in TRACE.pending:
        cell = ref()
        if cell is None or not cell.stale:
            continue
        group = id(cell) if cell.alias is None else id(cell.alias)
        if group not in groups:
            groups.add(group)
            held.append(cell)
    return held


def _run(held: list[Cell]) -> Callable[[], None]:
    """Run the trace; what is returned gives the cells their values and empties it."""
    trace = TRACE
    kept = _kept_histories(held)
    nodes: tuple[Any, ...] = tuple([cell.node for cell in held])
    donors: Donors = ()
    residuals: tuple[Node, ...] = ()
    if kept:
        from .history import residual_nodes

        residuals = residual_nodes([node for _, node in kept])
    else:
        count, owners = len(trace.owners), trace.owners
        donors = tuple([None if (last := cell.last) is None or last[0] >= count or owners[last[0]] is not cell
                        else last[0] for cell in held])
    key = nodes, donors, residuals
    layout = _layouts.get(key) or _lay_out(key)
    copies = [_leaf_value(node) if at is None else None for node, (at, _) in zip(nodes, layout.places, strict=True)]
    results: list[Array] = []
    if layout.program is not None:
        if layout.donated:
            _free_donated(layout.donated)
        results = layout.program.run(trace.values)
        stats.ran()

    def settle() -> None:
        for cell, (at, shared), copy in zip(held, layout.places, copies, strict=True):
            value: Any = copy if at is None else results[at]
            _settle(cell, value.copy() if shared else value)
        if kept:
            from .history import keep

            keep(kept, {node: results[at] for node, at in layout.residuals})
        _close()

    return settle


def _lay_out(key: tuple[tuple[Node, ...], Donors, tuple[Node, ...]]) -> _Layout:
    """The layout of a key seen for the first time: every node once, with the first cell's donor."""
    cells, donors, residuals = key
    nodes: dict[Node, int] = {}
    donations: list[int | None] = []
    places: list[tuple[int | None, bool]] = []
    taken: set[Node] = set()
    for i, node in enumerate(cells):
        if node.op.name != "input" and node not in nodes:
            nodes[node] = len(nodes)
            donations.append(donors[i] if donors else None)
        places.append((nodes.get(node), node in taken))
        taken.add(node)
    for node in residuals:
        if node not in nodes:
            nodes[node] = len(nodes)
            donations.append(None)
    program = None
    if nodes:
        stats.traced += 1
        program = find_program(Signature(tuple(nodes), tuple(donations), tuple(TRACE.values), tuple(TRACE.owners)))
    if len(_layouts) >= _LAYOUT_LIMIT:
        for old in list(_layouts)[: _LAYOUT_LIMIT // 4]:
            del _layouts[old]
    made = _layouts[key] = _Layout(program, tuple([d for d in donations if d is not None]), tuple(places),
                                   tuple([(node, nodes[node]) for node in residuals]))
    return made


def _free_donated(donated: tuple[int, ...]) -> None:
    """Memory that an output will take must be nobody else's: what is still read elsewhere is copied first."""
    values, owners = TRACE.values, TRACE.owners
    for index in donated:
        cell, array = owners[index], values[index]
        known = 2 + (len(cell.mates()) if cell.alias is not None else 1) if array is cell.buffer else 2
        if not array.flags.writeable or held_elsewhere(array, known):
            values[index] = array.copy()


def _leaf_value(node: Node) -> Array:
    value = TRACE.values[node.attrs.index]
    return np.array(value, dtype=node.dtype.numpy, order="C", copy=True)


def _kept_histories(held: list[Cell]) -> list[tuple[Cell, Node]]:
    """Held cells, with their nodes, whose history a later backward pass may read."""
    freed = TRACE.freed
    return [(mate, mate.node) for cell in held if cell.tracked or cell.alias is not None
            for mate in (cell.mates() if cell.alias is not None else (cell,))
            if mate.tracked and mate.leaf is None and mate.node is not None and mate.node not in freed]


def _settle(cell: Cell, value: Array) -> None:
    """Give a cell, and every cell over the same memory, its computed value."""
    if cell.alias is None and cell.export is None and not cell.tracked:  # the plain case, quickly
        cell.buffer, cell.stale, cell.node = value, False, None
        return
    if cell.export is not None and cell.exported:
        assert cell.buffer is not None
        if value is not cell.buffer:
            np.copyto(cell.buffer, value)
        value = cell.buffer
    for mate in cell.mates() if cell.alias is not None else (cell,):
        if mate.tracked and mate.leaf is None and mate.node is not None:
            mate.made_by = mate.node.op.name
        mate.buffer = value
        mate.stale = False
        mate.node = None
        if mate.history is not None:
            mate.history = None


def _close() -> None:
    """Empty the trace: cells are materialised again, or gone."""
    trace = TRACE
    for owner in trace.owners:
        if owner.__class__ is Cell:
            owner.node = None
    for ref in trace.pending:
        cell = ref()
        if cell is not None:
            cell.node = None
    trace.reset()


def _abandon(error: BaseException) -> None:
    """The run failed: written cells keep their old value, cells that never had one are lost."""
    trace = TRACE
    for owner in trace.owners:
        if owner.__class__ is Cell:
            owner.node = None
            owner.stale = False
    for ref in trace.pending:
        cell = ref()
        if cell is None:
            continue
        cell.node = None
        cell.stale = False
        if cell.buffer is None:
            cell.error = error if isinstance(error, TracemillError) else RuntimeError(str(error))
    trace.reset()


def value_of(cell: Cell, what: str) -> Array:
    """A cell's array, computed now if it is pending. `what` needs it (for messages and statistics)."""
    if cell.stale:
        if TRACE.barrier is not None:
            from .trace import need_values

            need_values(what)
        flush(what)
    if cell.buffer is None:
        raise lost(cell)
    return cell.buffer
