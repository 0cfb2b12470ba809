"""Loops that workers run without waiting for each other.

If every launch of a body can be split into the same rows, and keeps to its rows of everything that a launch of the body
writes, then each worker may run all passes of the loop on its own rows. An LSTM is such a loop: no sequence of a batch
reads another. What launches touch was proved by `lower/row_split.py`; here it is compared, over all pairs of launches
and all distances between their passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..ir.dims import Dim, evaluate, not_negative
from .lower import Rows
from .memory import align
from .slots import Place, PlanEntry, Slot

# Every worker reads a product's right operand as a whole: that must fit its cache beside the rest.
_STREAMED_BYTES = 1 << 19
# The body's temporaries are alive through all of the loop, so that no two passes meet in one's memory.
_KEPT_BYTES = 1 << 20
# Fewer rows are too few to share, and make narrow tiles.
_LEAST_ROWS = 16


def free_loops(entries: Sequence[PlanEntry], sizes: Mapping[str, int]) -> dict[int, dict[int, Rows]]:
    """For each loop without barriers, by its id, the split of each of its entries, by theirs.

    Keeps the temporaries of those loops alive as long as the loop.

    Args:
        sizes: a binding of the named sizes to weigh by; what is proved holds for any other.
    """
    found: dict[int, dict[int, Rows]] = {}
    for e in entries:
        for body in e.bodies:
            chosen = _choose(body, e.repeats, sizes) if e.repeats else None
            if chosen is None:
                found |= free_loops(body, sizes)
            else:
                found[id(e)] = chosen
                for slot in _temporaries(body, e.repeats):
                    slot.first = min(slot.first, body[0].step)
                    slot.last = max(slot.last, e.step)
    return found


def _choose(body: Sequence[PlanEntry], depth: int, sizes: Mapping[str, int]) -> dict[int, Rows] | None:
    """The splits of a body's entries under which none meets another worker's rows."""
    if sum(evaluate(align(s.nbytes), sizes) for s in _temporaries(body, depth)) > _KEPT_BYTES:
        return None
    for extent in dict.fromkeys(e.rows.extent for e in body if e.rows is not None):
        splits = {id(e): split for e in body if e.rows is not None and (split := e.rows.grouped(extent)) is not None}
        if len(splits) == len(body) and evaluate(extent, sizes) >= _LEAST_ROWS and _is_free(body, splits, sizes):
            return splits
    return None


def _temporaries(body: Sequence[PlanEntry], depth: int) -> list[Slot]:
    """The slots of the arena that are made in a body."""
    slots = (p.slot.home() for e in body for p in (*e.reads, *e.writes))
    return [s for s in {id(s): s for s in slots}.values() if s.kind == "arena" and s.depth == depth]


def _is_free(body: Sequence[PlanEntry], splits: Mapping[int, Rows], sizes: Mapping[str, int]) -> bool:
    for e in body:
        split = splits[id(e)]
        whole = [p for p, stride in zip((*e.reads, *e.writes), split.strides, strict=True) if stride is None]
        if split.extents is not None and sum(evaluate(p.slot.nbytes, sizes) for p in whole) > _STREAMED_BYTES:
            return False
    touched = [t for e in body for t in _touches(e, splits[id(e)])]
    written = [(place, stride) for place, stride, writes in touched if writes]
    extent = splits[id(body[0])].extent
    return all(
        _keep_to_rows(place, stride, target, by, extent) for place, stride, _ in touched for target, by in written
    )


def _touches(e: PlanEntry, split: Rows) -> Iterator[tuple[Place, Dim | None, bool]]:
    for k, place in enumerate((*e.reads, *e.writes)):
        yield place, split.strides[k], k >= len(e.reads)


def _keep_to_rows(p: Place, stride: Dim | None, q: Place, other: Dim | None, extent: Dim) -> bool:
    """Whether different rows of two places never have a byte in common, in whatever passes of the innermost loop."""
    if p.slot.home() is not q.slot.home():
        return True  # both are alive through all of the loop, so neither lies over the other
    depth = max(len(p.strides), len(q.strides))
    moves, others = (x.strides + (0,) * (depth - len(x.strides)) for x in (p, q))
    if stride is None or stride != other or moves != others:
        return False
    ahead, step, size = p.offset - q.offset, moves[-1] if moves else 0, stride * extent
    if step == 0:
        return ahead == 0
    # The rows lie apart by a multiple of the loop's step, which is no less than all rows together.
    return any(ahead == n * step for n in (0, 1, -1)) and (not_negative(step - size) or not_negative(-step - size))
