"""Memory of results that nobody holds any more is used again, and only then."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from tracemill.runtime.buffers import Recycler

F32 = np.dtype(np.float32)


def test_two_results_alternate() -> None:
    recycler = Recycler((4,), F32)
    last, addresses = None, set()
    for _ in range(6):
        made, address = recycler.take()
        assert made is not last and made.shape == (4,) and made.ctypes.data == address
        addresses.add(address)
        last = made
    assert len(addresses) == 2


@pytest.mark.parametrize("hold", [lambda a: a, lambda a: a[1:], lambda a: a.base, lambda a: memoryview(a)])
def test_what_is_held_is_left_alone(hold: object) -> None:
    recycler = Recycler((4,), F32)
    held = [hold(recycler.take()[0]) for _ in range(3)]  # type: ignore[operator]
    made = recycler.take()[0]
    made[:] = 7
    for thing in held:
        assert not np.shares_memory(made, np.asarray(thing).view(np.uint8).view(np.float32))
    del held
    again = [recycler.take()[1] for _ in range(1)]
    assert again


def test_a_weak_reference_holds_nothing() -> None:
    recycler = Recycler((2, 2), F32)
    made, address = recycler.take()
    ref = weakref.ref(made)
    del made
    again, same = recycler.take()
    assert again is ref() and same == address


def test_large_results_are_not_kept() -> None:
    recycler = Recycler((Recycler.LIMIT,), F32)
    ref = weakref.ref(recycler.take()[0])
    assert ref() is None
