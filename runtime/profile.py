"""Timing of plan entries by the native runner: two clock readings an instruction while it is on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .buffers import address
from .plan import Plan
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
    """

    entry: int
    label: str
    calls: int
    wait_ns: int
    work_ns: int


class Profile:
    """Collects timings of runs: `executable.profile = Profile(plan)` turns it on, None off."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
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
        return [
            EntryTiming(number, describe(entry), *map(int, self._times[number]))
            for number, (_, entry) in enumerate(self.plan.flat)
            if self._times[number].any()
        ]

    def to_text(self) -> str:
        """A table, most time first."""
        rows = sorted(self.entries(), key=lambda t: (-t.wait_ns - t.work_ns, t.entry))
        lines = [f"{'entry':>5} {'calls':>8} {'wait µs':>10} {'work µs':>10}"]
        lines += [
            f"{t.entry:5} {t.calls:8} {t.wait_ns / 1e3:10.1f} {t.work_ns / 1e3:10.1f}  {t.label}"
            for t in rows
        ]
        return "\n".join(lines) + "\n"
