"""Where values live while a plan is made: slots, places in them, and entries before buffers have numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..ir.dims import Dim, not_negative
from ..ir.dtypes import DType
from ..runtime import plan as rt
from .lower import Rows


@dataclass(eq=False)
class Slot:
    """Memory of one value. `first`/`last` are the steps between which a temporary's memory is taken."""

    kind: rt.BufferKind
    index: int
    nbytes: Dim
    dtype: DType
    shape: tuple[Dim, ...]
    depth: int = 0
    first: int = -1
    last: int = -1
    host: Slot | None = None  # the slot whose memory an in-place result takes over

    def home(self) -> Slot:
        """The slot whose memory this one's value lies in."""
        slot = self
        while slot.host is not None:
            slot = slot.host
        return slot


@dataclass(frozen=True)
class Place:
    """Where a value is: a slot from a byte offset on, moving by `strides` with the enclosing loops.

    Attributes:
        nbytes: length of the part of the slot, or None: perhaps all that follows.
    """

    slot: Slot
    offset: Dim = 0
    strides: tuple[Dim, ...] = ()
    nbytes: Dim | None = None

    def shifted(self, offset: Dim) -> Place:
        """The rest of this place behind its first `offset` bytes."""
        if isinstance(offset, int) and offset == 0:
            return self
        rest = None if self.nbytes is None else self.nbytes - offset
        return replace(self, offset=self.offset + offset, nbytes=rest)

    def meets(self, other: Place) -> bool:
        """Whether the two may have a byte in common within one pass of the loops around them."""
        if self.slot.home() is not other.slot.home():
            return False
        if self.nbytes is None or other.nbytes is None or self.strides != other.strides:
            return True
        ahead = self.offset - other.offset
        return not (not_negative(ahead - other.nbytes) or not_negative(-ahead - self.nbytes))


@dataclass(eq=False)
class PlanEntry:
    """A plan entry before buffers have numbers.

    Attributes:
        make: `make(uses, waits, *bodies)` builds it; a kernel split by rows is built by `make(uses, waits, rows)`.
        step: the last step at which it runs.
        repeats: for a counted loop how many such loops are around its body's entries, else 0.
        rows: how a kernel can be split by rows, the strides for what it reads and then for what it writes.
    """

    make: Callable[..., rt.Entry]
    reads: list[Place]
    writes: list[Place]
    step: int
    bodies: tuple[list[PlanEntry], ...] = ()
    repeats: int = 0
    rows: Rows | None = None
