"""Barriers: which entries of a plan have to wait for what other workers still do.

A launch waits if it touches what a launch since the last barrier wrote, writes what one read, or writes to memory that
one may share because their temporaries are never alive together.
"""

from __future__ import annotations

from collections.abc import Sequence

from .slots import Place, PlanEntry, Slot


class Barriers:
    """Decides which entries wait. Loops and branches wait at both ends.

    Attributes:
        needed: the decision for every entry without a body, by its id.
    """

    def __init__(self, entries: Sequence[PlanEntry]) -> None:
        self.needed: dict[int, bool] = {}
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
            if e.bodies:
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
