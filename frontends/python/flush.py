"""Running the pending trace.

A flush computes what the script still holds: live cells with a pending value, written cells, and the residuals of
histories that may still be differentiated. Its key is the tuple of output nodes; hash-consing makes the key of every
pass through a loop the same object, so a steady loop pays one dictionary probe. Cells get their new buffers only when
the run has succeeded: after an error every cell holds what it held before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.errors import CaptureError, TracemillError
from ...ir.node import Node
from . import stats
from .cell import Array, Cell, held_elsewhere
from .place import here
from .program import Program, Signature, find_program
from .trace import TRACE, lost

_programs: dict[Any, Program] = {}
_PROGRAM_LIMIT = 4096


def flush(reason: str) -> None:
    """Run everything pending. Raises the errors of the run, at the user's line."""
    trace = TRACE
    if trace.barrier is not None:
        raise CaptureError(f"a tensor's value is needed while {trace.barrier}", location=here(2).location)
    if not trace.values and not trace.pending:
        trace.reset()
        return
    held = _held()
    if held:
        stats.flushes[here(2).location, reason] += 1
        try:
            _run(held)
        except BaseException as error:
            _abandon(error)
            raise
    _close(held)


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


def _run(held: list[Cell]) -> None:
    trace = TRACE
    kept = _kept_histories(held)
    nodes: list[Node] = []
    donations: list[int | None] = []
    position: dict[Node, int] = {}
    copies: dict[Node, Array] = {}
    for cell in held:
        node = cell.node
        assert node is not None
        if node.op.name == "input":
            copies[node] = _leaf_value(node)
        elif node not in position:
            position[node] = len(nodes)
            nodes.append(node)
            donations.append(None if kept else _donation(cell))
    residuals: tuple[Node, ...] = ()
    if kept:
        from .history import residual_nodes

        residuals = residual_nodes([node for _, node in kept])
        for node in residuals:
            if node not in position:
                position[node] = len(nodes)
                nodes.append(node)
                donations.append(None)
    results: list[Array] = []
    if nodes:
        key = (tuple(nodes), tuple(donations))
        program = _programs.get(key)
        if program is None:
            program = _first(key)
        _free_donated(donations)
        results = program.run(trace.values)
        stats.ran()
    taken: set[Node] = set()
    for cell in held:
        node = cell.node
        assert node is not None
        value = results[position[node]] if node in position else copies[node]
        _settle(cell, value.copy() if node in taken else value)
        taken.add(node)
    if kept:
        from .history import keep

        keep(kept, {node: results[position[node]] for node in residuals})


def _free_donated(donations: list[int | None]) -> None:
    """Memory that an output will take must be nobody else's: what is still read elsewhere is copied first."""
    values, owners = TRACE.values, TRACE.owners
    for index in donations:
        if index is None:
            continue
        cell, array = owners[index], values[index]
        known = 2 + (len(cell.mates()) if cell.alias is not None else 1) if array is cell.buffer else 2
        if not array.flags.writeable or held_elsewhere(array, known):
            values[index] = array.copy()


def _leaf_value(node: Node) -> Array:
    value = TRACE.values[node.attrs.index]
    return np.array(value, dtype=node.dtype.numpy, order="C", copy=True)


def _first(key: tuple[tuple[Node, ...], tuple[int | None, ...]]) -> Program:
    """The program of a key seen for the first time."""
    nodes, donations = key
    stats.traced += 1
    program = find_program(Signature(nodes, donations, tuple(TRACE.values), tuple(TRACE.owners)))
    if len(_programs) >= _PROGRAM_LIMIT:
        for old in list(_programs)[: _PROGRAM_LIMIT // 4]:
            del _programs[old]
    _programs[key] = program
    return program


def _donation(cell: Cell) -> int | None:
    """The leaf whose memory the cell's new value takes: the one that stands for its old value."""
    last = cell.last
    if last is None or last[0] >= len(TRACE.owners) or TRACE.owners[last[0]] is not cell:
        return None
    return last[0]


def _kept_histories(held: list[Cell]) -> list[tuple[Cell, Node]]:
    """Held cells, with their nodes, whose history a later backward pass may read."""
    freed = TRACE.freed
    return [(mate, mate.node) for cell in held if cell.tracked or cell.alias is not None
            for mate in (cell.mates() if cell.alias is not None else (cell,))
            if mate.tracked and mate.leaf is None and mate.node is not None and mate.node not in freed]


def _settle(cell: Cell, value: Array) -> None:
    """Give a cell, and every cell over the same memory, its computed value."""
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


def _close(held: list[Cell]) -> None:
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
