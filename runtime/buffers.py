"""Aligned memory: arrays for outputs, and one arena per thread for the temporaries of whatever runs on it."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGNMENT = 64
# NumPy asks Linux for huge pages from this size on; an aligned start makes use of all of them.
_HUGE_FROM = 4 << 20
_HUGE_PAGE = 2 << 20

Array = np.ndarray[Any, Any]

_from_buffer: Callable[[Array], ctypes.c_char] = ctypes.c_char.from_buffer  # type: ignore[assignment]
_addressof = ctypes.addressof
_U8 = np.dtype(np.uint8)


def address(array: Array) -> int:
    """The address of an array's first element."""
    try:  # five times as fast as array.ctypes.data
        return _addressof(_from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or a dtype without a buffer format
        return int(array.ctypes.data)


def aligned_bytes(nbytes: int, alignment: int = ALIGNMENT) -> tuple[Array, int]:
    """Uninitialised memory and the offset in it from which `nbytes` are aligned."""
    raw = np.empty(nbytes + alignment, _U8)
    return raw, -_addressof(_from_buffer(raw)) % alignment


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array, 64-byte aligned."""
    nbytes = dtype.itemsize
    for extent in shape:
        nbytes *= extent
    raw = np.empty(nbytes + ALIGNMENT, _U8)
    return np.ndarray(shape, dtype, raw, -_addressof(_from_buffer(raw)) % ALIGNMENT)


class Recycler:
    """Arrays for a result that is made again and again.

    A small array that nobody else holds any more is handed out once more: at the same address, without the cost of
    a new one. Two are kept, because a loop holds the last result while the next one is computed. Large arrays are
    given back to the system, so that a result is not kept alive behind the user's back.
    """

    __slots__ = ("_dtype", "_kept", "_next", "_shape")

    LIMIT = 1 << 16  # bytes of an array that is kept

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._kept: list[tuple[Array, Any, int]] = []  # array, its memory, its address
        self._next = 0

    def take(self) -> tuple[Array, int]:
        """An uninitialised array that only the caller holds, and its address."""
        for kept in self._kept:
            # Held by `kept` and, while it is counted, by the call; the memory by the array too.
            if getrefcount(kept[0]) == _UNHELD and getrefcount(kept[1]) == _UNHELD + 1:
                return kept[0], kept[2]
        array = empty(self._shape, self._dtype)
        found = address(array)
        if array.nbytes <= self.LIMIT:
            if len(self._kept) < 2:
                self._kept.append((array, array.base, found))
            else:
                self._kept[self._next] = array, array.base, found
                self._next ^= 1
        return array, found


getrefcount = sys.getrefcount
_PROBE = (np.empty(0),)
_UNHELD = getrefcount(_PROBE[0])  # of an array in one tuple, read as `take` does


class Arena:
    """A block that grows on demand; its content does not survive a run."""

    __slots__ = ("_raw", "base", "nbytes")

    def __init__(self) -> None:
        self._raw: Array | None = None
        self.base = 0
        self.nbytes = 0

    def reserve(self, nbytes: int) -> int:
        """The block's address, at least `nbytes` long."""
        if nbytes > self.nbytes or not self.base:
            self._raw = None  # freed first: old and new need not fit into memory together
            self.base = self.nbytes = 0
            large = nbytes >= _HUGE_FROM
            self._raw, offset = aligned_bytes(nbytes, _HUGE_PAGE if large else ALIGNMENT)
            self.base = _addressof(_from_buffer(self._raw)) + offset
            self.nbytes = nbytes
        return self.base


class _Free(threading.local):
    """Arenas of this thread that no run is using: one, or more after runs nested in host functions."""

    def __init__(self) -> None:
        self.arenas: list[Arena] = []


_free = _Free()


def take_arena() -> Arena:
    """An arena for one run on this thread; give it back with `return_arena`."""
    arenas = _free.arenas
    return arenas.pop() if arenas else Arena()


def return_arena(arena: Arena) -> None:
    """Keep an arena for the next run on this thread."""
    _free.arenas.append(arena)


def trim() -> int:
    """Free this thread's idle arenas; returns the bytes freed."""
    freed = sum(arena.nbytes for arena in _free.arenas)
    _free.arenas.clear()
    return freed
