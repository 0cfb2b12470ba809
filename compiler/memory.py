"""Memory planning: one arena, offsets valid for every size.

Temporaries are placed largest first at the lowest offset where they meet no other live temporary (the greedy-by-size
heuristic of Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020). With symbolic
extents that is done under the sizes at hand, and what is kept is not the numbers but the order: of two temporaries
that are alive together, which lies below. Each offset is then the greatest end of those below it, an expression that
holds for every batch size, so that a new size re-evaluates the plan and never re-makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..ir.dims import Dim, dmax, evaluate, sym

ALIGNMENT = 64
_NESTED = 8  # most extents in one expression of a greatest one


@dataclass(frozen=True, slots=True)
class Interval:
    """A temporary: bytes, and the first and last step (inclusive) at which its memory is taken."""

    nbytes: Dim
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the temporaries lie.

    Attributes:
        offsets: of each interval; integers, or names defined in `lets`.
        lets: derived sizes `(name, expression)`, each over the graph's sizes and earlier names.
        peak: bytes of the arena.
    """

    offsets: tuple[Dim, ...]
    lets: tuple[tuple[str, Dim], ...]
    peak: Dim


def align(d: Dim) -> Dim:
    """The least multiple of the arena's alignment that is not below `d`."""
    if isinstance(d, int):
        return -(-d // ALIGNMENT) * ALIGNMENT
    if all(c % ALIGNMENT == 0 for _, c in d.terms):
        return d
    return (d + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def place(intervals: Sequence[Interval], sizes: Mapping[str, int]) -> Placement:
    """Offsets for all temporaries.

    Args:
        sizes: a binding of the named sizes to decide by; the result is valid for any other.
    """
    hint = [evaluate(align(t.nbytes), sizes) for t in intervals]
    clashes = _clashes(intervals)
    at = _greedy(hint, clashes)
    order = sorted(range(len(intervals)), key=lambda i: (at[i], i))
    rank = {i: r for r, i in enumerate(order)}
    offsets: list[Dim] = [0] * len(intervals)
    lets: list[tuple[str, Dim]] = []
    ends: list[Dim] = [0] * len(intervals)
    lower = [_bits(rank[j] for j in clashes[i] if rank[j] < rank[i]) for i in order]
    for r, i in enumerate(order):
        below = [ends[order[k]] for k in _supports(lower[r], lower)]
        offsets[i] = _named(_greatest(below, lets), "at", lets)
        ends[i] = offsets[i] + align(intervals[i].nbytes)
    tops = [ends[order[k]] for k in _supports((1 << len(order)) - 1, lower)]
    peak = _greatest(tops, lets)
    return Placement(tuple(offsets), tuple(lets), peak)


def _clashes(intervals: Sequence[Interval]) -> list[list[int]]:
    """For each temporary those alive at a common step, by a sweep over the steps."""
    order = sorted(range(len(intervals)), key=lambda i: (intervals[i].first, i))
    found: list[list[int]] = [[] for _ in intervals]
    alive: list[int] = []
    for i in order:
        alive = [j for j in alive if intervals[j].last >= intervals[i].first]
        for j in alive:
            found[i].append(j)
            found[j].append(i)
        alive.append(i)
    return found


def _greedy(sizes: Sequence[int], clashes: Sequence[Sequence[int]]) -> list[int]:
    at = [-1] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        taken = sorted((at[j], at[j] + sizes[j]) for j in clashes[i] if at[j] >= 0)
        spot = 0
        for low, high in taken:
            if low - spot >= sizes[i]:
                break
            spot = max(spot, high)
        at[i] = spot
    return at


def _bits(members: Iterable[int]) -> int:
    """A set of small integers as the bits of one."""
    found = 0
    for m in members:
        found |= 1 << m
    return found


def _supports(below: int, lower: Sequence[int]) -> list[int]:
    """Those of a set of ranks that no other of them rests upon: only their ends can be the greatest.

    Args:
        lower: for each rank those that it rests upon.
    """
    covered = 0
    for member in _members(below):
        covered |= lower[member]
    return _members(below & ~covered)


def _members(bits: int) -> list[int]:
    """The small integers of a set, ascending."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def _greatest(dims: Sequence[Dim], lets: list[tuple[str, Dim]]) -> Dim:
    """The greatest extent. Where many cannot be compared, results so far get names: nested, they would grow deep."""
    total: Dim = 0
    for count, d in enumerate(dict.fromkeys(dims)):
        total = dmax(total, d)
        if count % _NESTED == _NESTED - 1:
            total = _named(total, "at", lets)
    return total


def _named(d: Dim, prefix: str, lets: list[tuple[str, Dim]]) -> Dim:
    """A name for an expression that would otherwise be repeated inside every later one."""
    if isinstance(d, int) or (
        len(d.terms) <= 2 and not any(not isinstance(a, str) for m, _ in d.terms for a in m)
    ):
        return d
    for name, known in lets:
        if known == d:
            return sym(name)
    name = f"{prefix}{len(lets)}"
    lets.append((name, d))
    return sym(name)
