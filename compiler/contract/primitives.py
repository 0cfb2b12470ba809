"""Operations of contraction kernels beyond `backend.intrinsics`: micro-kernels, block transposes, choices.

Generated sources use them by name. Like the intrinsics, each is plain NumPy here and has a Numba lowering
(`lowering.py`) with the same bits. Families are made on demand from their names:

- `tile_f32_12x2x16…`: micro-kernels, see `micro`;
- `transpose_f32_16(dst, dst_off, dst_row, src, src_off, src_row, blocks)`: `blocks` squares of 16 × 16 elements,
  `dst[dst_off + c * dst_row + r] = src[src_off + r * src_row + c]` for r < 16, c < 16 * blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .micro import micro_kernel

_TRANSPOSE = re.compile(r"transpose_(f32|f64)_(\d+)")


def either(condition: Any, if_true: Any, if_false: Any) -> Any:
    """One of two pointers to the same element type; nothing is assumed about what it overlaps."""
    return if_true if condition else if_false


def imin(a: Any, b: Any) -> Any:
    """The smaller of two int64."""
    return min(a, b)


def imax(a: Any, b: Any) -> Any:
    """The greater of two int64."""
    return max(a, b)


_FIXED: dict[str, Callable[..., Any]] = {"either": either, "imin": imin, "imax": imax}


@lru_cache(maxsize=64)
def transpose(name: str) -> Callable[..., None] | None:
    """The block transpose behind a name, or None if the name is not one."""
    match = _TRANSPOSE.fullmatch(name)
    if match is None:
        return None
    side = int(match[2])

    def function(dst: Any, dst_off: int, dst_row: int, src: Any, src_off: int, src_row: int, blocks: int) -> None:
        r, c = np.arange(side)[:, None], np.arange(side * blocks)
        dst[dst_off + c * dst_row + r] = src[src_off + r * src_row + c]

    function.__name__ = function.__qualname__ = name
    return function


@lru_cache(maxsize=256)
def primitive(name: str) -> Callable[..., Any] | None:
    """The primitive of a name (always the same object), or None.

    Its attribute `register_numba` is a function that makes it known to Numba.
    """
    function: Any = _FIXED.get(name) or micro_kernel(name) or transpose(name)
    if function is not None:
        function.register_numba = lambda: _register(name)
    return function  # type: ignore[no-any-return]


def _register(name: str) -> None:
    from . import lowering

    lowering.register(name)
