"""Timing of plan entries by the native runner: two clock readings an instruction while it is on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.dims import Dim
from .buffers import address
from .plan import BufferUse, Copy, Entry, Fill, KernelCall, Plan
from .plan_check import describe


@dataclass(frozen=True, slots=True)
class EntryTiming:
    """Totals of one entry, as the calling thread saw them.

    Attributes:
        entry: its number in the plan's listing.
        label: what it is.
        calls: launches (each pass of a loop counts).
        wait_ns: time at the barrier before it.
        work_ns: time in the caller's share of it.
        operations: scalar operations of one launch, estimated; a contraction's multiply-adds count 2.
        nbytes: bytes of one launch's operands, each counted once.
    """

    entry: int
    label: str
    calls: int
    wait_ns: int
    work_ns: int
    operations: int = 0
    nbytes: int = 0

    @property
    def total_ns(self) -> int:
        """Waiting and working."""
        return self.wait_ns + self.work_ns

    @property
    def gops(self) -> float:
        """Billions of operations a second of work, all threads together."""
        return self.operations * self.calls / max(self.work_ns, 1)

    @property
    def gbytes(self) -> float:
        """Billions of bytes a second of work."""
        return self.nbytes * self.calls / max(self.work_ns, 1)


class Profile:
    """Collects timings of runs: `executable.profile = Profile(plan)` turns it on, None off.

    Attributes:
        sizes: values of the plan's named sizes at its first run, at which operations and bytes are counted.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sizes: Mapping[str, int] | None = None
        self._times = np.zeros((len(plan.flat) + 1, 3), np.int64)
        self.address = address(self._times)

    def clear(self) -> None:
        """Start again from zero."""
        self._times[:] = 0

    @property
    def total_ns(self) -> int:
        """Nanoseconds of all entries together, waiting included."""
        return int(self._times[:, 1:].sum())

    def entries(self) -> list[EntryTiming]:
        """Timings of the entries that ran, in plan order."""
        found = []
        for number, (_, entry) in enumerate(self.plan.flat):
            calls, wait_ns, work_ns = map(int, self._times[number])
            if calls or wait_ns or work_ns:
                operations, nbytes = self._cost(entry)
                found.append(EntryTiming(number, describe(entry), calls, wait_ns, work_ns, operations, nbytes))
        return found

    def to_text(self) -> str:
        """A table, most time first."""
        rows = sorted(self.entries(), key=lambda t: (-t.total_ns, t.entry))
        lines = [f"{'entry':>5} {'calls':>8} {'wait µs':>10} {'work µs':>10} {'Gop/s':>7} {'GB/s':>7}"]
        lines += [
            f"{t.entry:5} {t.calls:8} {t.wait_ns / 1e3:10.1f} {t.work_ns / 1e3:10.1f} {t.gops:7.1f} {t.gbytes:7.1f}"
            f"  {t.label}"
            for t in rows
        ]
        return "\n".join(lines) + "\n"

    def _cost(self, entry: Entry) -> tuple[int, int]:
        """Operations and bytes of one launch; 0 where sizes are not known or there is no launch."""
        match entry:
            case KernelCall(work=work, buffers=buffers):
                return self._value(work), sum(map(self._nbytes, buffers))
            case Copy(nbytes=nbytes):
                return 0, 2 * self._value(nbytes)
            case Fill(nbytes=nbytes):
                return 0, self._value(nbytes)
        return 0, 0

    def _nbytes(self, use: BufferUse) -> int:
        """Bytes of an operand: its buffer, or in a loop the slice that one pass is at."""
        slices = [abs(self._value(stride)) for stride in use.strides]
        return next((n for n in reversed(slices) if n), self._value(self.plan.buffers[use.buffer].nbytes))

    def _value(self, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        return 0 if self.sizes is None else dim.evaluate(self.sizes)
