"""Storage cells: what a tensor's memory holds, now or once the pending trace has run.

A `Cell` is one differentiable value over a piece of memory. `buffer` holds it, or, while `stale`, the pending `node`
of the trace does. Tensors are views over cells; `detach()` and `.data` make an *alias*: another cell over the same
memory with a history of its own. Writing through one alias gives every alias the new value, each keeping its history.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.dtypes import DType
from ...ir.types import TensorType

if TYPE_CHECKING:
    from ...ir.node import Node

Array = np.ndarray[Any, Any]
SHARED = object()  # `export` of memory that came from outside and may be written there at any time


class Cell:
    """One value over a piece of memory.

    Attributes:
        type: dtype and integer shape of the memory.
        buffer: the array that holds the value (contiguous unless it came from NumPy); while `stale` an older value.
        node: the value in the pending trace, if it was read or computed there.
        stale: the value is `node`, not `buffer`.
        tracked: the value has a gradient history, or the cell is a leaf that requires grad.
        version: counts writes.
        leaf: weak reference to the tensor that gradients accumulate on, if this is a leaf that requires grad.
        used: the leaf was read by a differentiable operator before.
        alias: weak references to all cells over this memory (this one included), or None if it is alone.
        export: None, SHARED, or a weak reference to the array handed out by `.numpy()`: such memory never moves.
        history: what a backward pass needs if the value comes from a trace that has run.
        role: role of the graph input: `parameter`, `state`, `batch`.
        name: name of the graph input, if known.
        made_by: the operator that computed a value with a history, for `grad_fn`.
        error: why the value was lost, if the run that should have produced it failed.
    """

    __slots__ = ("__dict__", "__weakref__", "buffer", "node", "stale", "tracked", "type", "version")

    type: TensorType
    buffer: Array | None
    node: Node | None
    stale: bool
    tracked: bool
    version: int

    leaf: weakref.ref[Any] | None = None
    used: bool = False
    alias: list[weakref.ref[Cell]] | None = None
    export: Any = None
    history: Any = None
    role: str = "batch"
    name: str | None = None
    made_by: str = ""
    error: BaseException | None = None
    last: tuple[int, Node] | None = None

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def exported(self) -> bool:
        """Whether someone outside may read or write this memory directly."""
        export = self.export
        if export is None:
            return False
        return export is SHARED or export() is not None

    def mates(self) -> list[Cell]:
        """All live cells over this memory, this one included."""
        if self.alias is None:
            return [self]
        alive = [(ref, cell) for ref in self.alias if (cell := ref()) is not None]
        if len(alive) == 1:
            self.alias = None
        else:
            self.alias[:] = [ref for ref, _ in alive]
        return [cell for _, cell in alive]


def pending(node: Node, tracked: bool) -> Cell:
    """A cell whose value is a node of the pending trace."""
    cell = Cell.__new__(Cell)
    cell.type = node.type  # type: ignore[assignment]
    cell.node = node
    cell.stale = True
    cell.tracked = tracked
    cell.buffer = None
    cell.version = 0
    return cell


def materialised(array: Array, dtype: DType, export: Any = None) -> Cell:
    """A cell over an array."""
    cell = Cell.__new__(Cell)
    key = (dtype, array.shape)
    cell.type = _types.get(key) or _type(*key)
    cell.node = None
    cell.stale = False
    cell.tracked = False
    cell.buffer = array
    cell.version = 0
    if export is not None:
        cell.export = export
    if _observer is not None:
        _observer(cell)
    return cell


_types: dict[tuple[DType, tuple[int, ...]], TensorType] = {}


def _type(dtype: DType, shape: tuple[int, ...]) -> TensorType:
    """A type seen for the first time."""
    if len(_types) > 4096:
        _types.clear()
    found = _types[dtype, shape] = TensorType(dtype, shape)
    return found


_observer: Callable[[Cell], None] | None = None


def observe_materialised(observer: Callable[[Cell], None] | None) -> None:
    """Call `observer` with every cell that is made over an array (None: no longer)."""
    global _observer
    _observer = observer


def make_alias(cell: Cell) -> Cell:
    """A second, untracked cell over the same memory."""
    other = Cell.__new__(Cell)
    other.type, other.buffer, other.version = cell.type, cell.buffer, cell.version
    other.node, other.stale, other.tracked = None, cell.stale, False
    if cell.export is not None:
        other.export = cell.export
    if cell.error is not None:
        other.error = cell.error
    if cell.alias is None:
        cell.alias = [weakref.ref(cell)]
    cell.alias.append(weakref.ref(other))
    other.alias = cell.alias
    return other


class _Exported:
    """Owner of memory handed out by `.numpy()`: views of such an array keep this object's array alive, so a weak
    reference to that array tells whether anyone outside still sees the memory."""

    __slots__ = ("__array_interface__", "array")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


def export(cell: Cell) -> Array:
    """The cell's memory as an array for the outside; the cell stays at this address while the array lives."""
    assert cell.buffer is not None
    known = cell.export() if isinstance(cell.export, weakref.ref) else None
    if known is not None:
        return known  # type: ignore[no-any-return]
    if cell.export is SHARED:
        return cell.buffer
    array = cell.buffer
    if array.dtype.names is None and array.dtype.kind == "V":  # bfloat16 has no array interface
        outside = array.view()
    else:
        outside = np.asarray(_Exported(array))
        if outside.dtype != array.dtype:
            outside = outside.view(array.dtype)
    ref = weakref.ref(outside)
    for mate in cell.mates():
        mate.export = ref
    return outside


def held_elsewhere(array: Array, owners: int) -> bool:
    """Whether anything besides `owners` known references keeps the array or its memory alive.

    The caller's own local variable counts as an owner.
    """
    count = sys.getrefcount(array)
    base = array.base
    return count > _ALONE + owners or (base is not None and sys.getrefcount(base) > _ALONE_BASE)


def _calibrate() -> tuple[int, int]:
    """What `held_elsewhere` counts beyond the owners for an array that nobody else holds, and for its base."""
    seen: list[int] = []

    def probe(array: Array) -> None:
        seen.append(sys.getrefcount(array))
        base = array.base
        seen.append(sys.getrefcount(base))

    raw = np.empty(8, np.uint8)
    owner = [np.ndarray((2,), np.float32, raw)]
    del raw
    local = owner[0]
    probe(local)
    return seen[0] - 2, seen[1]


_ALONE, _ALONE_BASE = _calibrate()
