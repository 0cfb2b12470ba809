"""Copies of image rows with zeros around them, channels last.

    halo_f32(dst, dst_off, dst_row, src, src_off, src_row, src_pixel, depth, top, bottom, rows, start, stop, width)

fills `rows` rows of `width` pixels of `depth` channels, the pixels of a row side by side:
`dst[dst_off + r * dst_row + p * depth + c] = src[src_off + r * src_row + p * src_pixel + c]` for `top <= r < bottom`
and `start <= p < stop`, zero for the other r and p.

The functions here are NumPy; `halo_llvm` has their Numba lowering.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

HALO = re.compile(r"halo_(f32|f64)")


@lru_cache(maxsize=4)
def halo(name: str) -> Callable[..., None] | None:
    """The function behind a name (always the same object), or None if the name is not one."""
    if HALO.fullmatch(name) is None:
        return None

    def halo_rows(
        dst: Any,
        dst_off: int,
        dst_row: int,
        src: Any,
        src_off: int,
        src_row: int,
        src_pixel: int,
        depth: int,
        top: int,
        bottom: int,
        rows: int,
        start: int,
        stop: int,
        width: int,
    ) -> None:
        r, p, c = np.arange(rows)[:, None, None], np.arange(width)[:, None], np.arange(depth)
        dst[dst_off + r * dst_row + p * depth + c] = 0
        r, p = r[max(0, top) : max(0, bottom)], p[start:stop]
        dst[dst_off + r * dst_row + p * depth + c] = src[src_off + r * src_row + p * src_pixel + c]

    halo_rows.__name__ = halo_rows.__qualname__ = name
    return halo_rows
