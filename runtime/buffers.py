"""Aligned memory: arrays for outputs, and one arena per thread for the temporaries of whatever runs on it."""

from __future__ import annotations

import ctypes
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
