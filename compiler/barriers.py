"""Barriers: which entries of a plan have to wait for what other workers still do.

A launch waits if it touches what a launch since the last barrier wrote, writes what one read, or writes to memory that
one may share because their temporaries are never alive together. Loops wait at both ends, and nowhere else if they are
free (`free_loops.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .lower import Rows
from .slots import Place, PlanEntry, Slot


class Barriers:
    """Decides which entries wait.

    Args:
        free: loops without barriers, by id, with the splits of their entries.

    Attributes:
        needed: for an entry, by its id, whether it waits; for a loop whether it does once, before the first pass.
        rows: for an entry of a free loop, by its id, how it is split.
    """

    def __init__(self, entries: Sequence[PlanEntry], free: Mapping[int, Mapping[int, Rows]]) -> None:
        self.needed: dict[int, bool] = {}
        self.rows: dict[int, Rows] = {}
        self._free = free
        self._forget()
        self._sequence(entries)

    def _forget(self) -> None:
        # What was touched since the last barrier. All of it in one pass of the loops around, for the first entry of a
        # body waits.
        self._read: list[Place] = []
        self._written: list[Place] = []

    def _sequence(self, entries: Sequence[PlanEntry]) -> None:
        fresh = True  # what ran before this sequence is unknown
        for e in entries:
            if id(e) in self._free:
                self.rows |= self._free[id(e)]
                self.needed |= dict.fromkeys(map(id, e.bodies[0]), False)
                fresh = True
                self._forget()
                continue
            if e.bodies:
                self.needed[id(e)] = False
                for body in e.bodies:
                    self._forget()
                    self._sequence(body)
                fresh = True
                self._forget()
                continue
            waits = fresh or self._hazard(e)
            self.needed[id(e)] = waits
            if waits:
                self._forget()
            fresh = False
            self._read += e.reads
            self._written += e.writes

    def _hazard(self, e: PlanEntry) -> bool:
        return any(_clash(p, q) for p in e.reads for q in self._written) or any(
            _clash(p, q) for p in e.writes for q in (*self._read, *self._written)
        )


def _clash(p: Place, q: Place) -> bool:
    return p.meets(q) or _may_share(p.slot.home(), q.slot.home())


def _may_share(a: Slot, b: Slot) -> bool:
    """True for temporaries that are never alive together, and so may lie over each other."""
    return a is not b and a.kind == b.kind == "arena" and (a.last < b.first or b.last < a.first)


__all__ = ["Barriers"]
