"""What lowering hands to the planner: the launches of one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...ir.dims import Dim
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
