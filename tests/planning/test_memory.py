"""Placements never let live temporaries overlap, at any size, and reuse memory where they may."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tracemill.compiler.memory import Interval, align, place
from tracemill.ir.dims import Dim, evaluate, sym

B = sym("B")
SIZES: list[Dim] = [0, 4, 64, 100, 4096, 4 * B, 64 * B, B * B, 12 * B + 8, 4 * (B + 1) // 2]


def _resolved(
    placement_offsets: tuple[Dim, ...], lets: tuple[tuple[str, Dim], ...], b: int
) -> tuple[list[int], dict[str, int]]:
    sizes = {"B": b}
    for name, d in lets:
        sizes[name] = evaluate(d, sizes)
    return [evaluate(o, sizes) for o in placement_offsets], sizes


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 12), st.integers(0, 6)), max_size=14),
       st.integers(1, 200), st.lists(st.integers(0, 500), min_size=1, max_size=4))
def test_live_temporaries_never_overlap(spec: list[tuple[Dim, int, int]], hint: int, others: list[int]) -> None:
    intervals = [Interval(nbytes, first, first + length) for nbytes, first, length in spec]
    placement = place(intervals, {"B": hint})
    for b in [hint, *others]:
        at, sizes = _resolved(placement.offsets, placement.lets, b)
        peak = evaluate(placement.peak, sizes)
        bytes_ = [evaluate(t.nbytes, sizes) for t in intervals]
        for i, x in enumerate(intervals):
            assert at[i] % 64 == 0 and at[i] + bytes_[i] <= peak
            for j, y in enumerate(intervals[:i]):
                if x.first <= y.last and y.first <= x.last:
                    assert at[i] + bytes_[i] <= at[j] or at[j] + bytes_[j] <= at[i]


def test_memory_is_reused_once_a_temporary_is_dead() -> None:
    chain = [Interval(4096, i, i + 1) for i in range(10)]
    assert place(chain, {}).peak == 2 * 4096
    symbolic = [Interval(4096 * B, i, i + 1) for i in range(10)]
    assert place(symbolic, {"B": 7}).peak == 8192 * B


def test_alignment() -> None:
    assert align(0) == 0 and align(1) == 64 and align(64) == 64
    assert align(64 * B) == 64 * B
    assert [evaluate(align(4 * B), {"B": b}) for b in (0, 1, 16, 17)] == [0, 64, 64, 128]


def test_expressions_do_not_grow_with_the_graph() -> None:
    """Offsets over offsets are named, so a deep graph keeps short expressions."""
    mixed = [Interval((4 * B) if i % 2 else 1000, i, i + 3) for i in range(300)]
    placement = place(mixed, {"B": 100})
    assert all(len(str(d)) < 400 for d in placement.offsets)
    assert all(len(str(d)) < 1000 for _, d in placement.lets)


def test_many_extents_that_cannot_be_compared() -> None:
    """The arena's size stays a shallow expression, however many temporaries could be the topmost one."""
    intervals = [Interval(4 * (i + 1) * B + 64 * (400 - i), i, i) for i in range(400)]
    placement = place(intervals, {"B": 16})
    assert len(str(placement.peak)) < 1000
    for b in (0, 3, 16, 1000):
        at, sizes = _resolved(placement.offsets, placement.lets, b)
        assert at == [0] * 400
        assert evaluate(placement.peak, sizes) == max(evaluate(align(t.nbytes), sizes) for t in intervals)
