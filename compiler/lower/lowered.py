"""What lowering hands to the planner: the launches of one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...ir.dims import Dim, floordiv
from ...ir.node import Node
from ...ir.types import TensorType
from ..kernel import KernelSource

Role = Literal["input", "result", "temporary"]


@dataclass(frozen=True, slots=True)
class Slot:
    """An operand of a launch: input, result or temporary number `index` of the node, from `offset` bytes on."""

    role: Role
    index: int
    offset: Dim = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """How a launch can be split by rows.

    The steps of row r touch row r alone of each operand that has rows; a share is a number of whole rows.

    Attributes:
        extent: number of rows.
        strides: for each operand the bytes from one row to the next, all that belongs to a row being in between; None
            for an operand that is read as a whole.
        range: steps of the parallel range, as many for each row.
        extents: the kernel's arguments if they differ from the launch's.
    """

    extent: Dim
    strides: tuple[Dim | None, ...]
    range: Dim
    extents: tuple[Dim, ...] | None = None

    def grouped(self, extent: Dim) -> Rows | None:
        """The same split in `extent` groups of neighbouring rows, if that comes out even."""
        if extent == self.extent:
            return self
        size = floordiv(self.extent, extent) if extent != 0 else 0
        if size == 0 or size * extent != self.extent:
            return None
        return Rows(extent, tuple(s if s is None else s * size for s in self.strides), self.range, self.extents)


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.

    Attributes:
        operands: buffers in slot order; the last `outputs` are written.
        extents: the kernel's arguments as dims of the graph.
        range: steps of the parallel range.
        grain: least number of steps worth a thread.
        scratch: bytes of private memory a thread needs.
        work: rough scalar operations and element accesses of the whole range.
        faults: the node behind each check number that the kernel may write to its status.
        computed_slots: the kernel computes which slots it reads, so what is the same memory says nothing to it.
        rows: how it can be split by rows instead, or None.
        ir: text of the kernel IR, for `--emit kernel` (empty for hand-made generators).
    """

    kernel: KernelSource
    operands: tuple[Slot, ...]
    extents: tuple[Dim, ...]
    range: Dim
    outputs: int = 1
    grain: int = 1
    scratch: Dim = 0
    work: Dim = 0
    faults: tuple[Node, ...] = ()
    computed_slots: bool = False
    rows: Rows | None = None
    ir: str = field(default="", compare=False)

    @property
    def fallible(self) -> bool:
        """Whether the launch may stop the run."""
        return self.kernel.fallible


@dataclass(frozen=True, slots=True)
class Lowered:
    """One node as launches, to run in order.

    Attributes:
        temporaries: types of memory that lives from the first launch that names it to the last.
        in_place: pairs (result, input) that may be one buffer: every element is read, by the last launch only, before
            it is written at its own place.
    """

    launches: tuple[Launch, ...]
    temporaries: tuple[TensorType, ...] = ()
    in_place: tuple[tuple[int, int], ...] = ()
