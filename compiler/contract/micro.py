"""The one micro-kernel of all contractions: `acc[i][j] = fma(splat(a[i, k]), vector(b[k, j]), acc[i][j])`
over k.

Generated sources call a variant by name (`tiles.MicroKernel.name`) for any number of rows of one column
block:

    rows(c, c_off, c_row, a, a_off, a_row, a_k, b, b_off, b_k, depth, count, resume)
    strided rows(c, c_off, c_row, a, a_off, a_row, b, b_off, table, table_off, depth, count, resume)
    indexed

with typed pointers, element offsets and strides: rows `[0, count)` of C, a full column block wide. The
indexed form reads the A and B offsets of step k from `table[table_off + 2 * k]` and `table[table_off + 2 * k
+ 1]`. `resume != 0` starts from the values in C instead of zero, so that k can be split in blocks without
changing a bit.

The functions here are NumPy and give the compiled ones' bits; `micro_llvm` registers their Numba lowering.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .softfma import fma_f32, fma_f64
from .tiles import MicroKernel, parse_micro_kernel


@lru_cache(maxsize=64)
def micro_kernel(name: str) -> Callable[..., None] | None:
    """The function behind a micro-kernel's name (always the same object), or None if the name is not one."""
    kernel = parse_micro_kernel(name)
    if kernel is None:
        return None
    function = _indexed(kernel) if kernel.indexed else _strided(kernel)
    function.__name__ = function.__qualname__ = name
    return function


def _accumulate(
    kernel: MicroKernel,
    c: Any,
    c_off: int,
    c_row: int,
    a: Any,
    a_offsets: Any,
    a_row: int,
    b: Any,
    b_offsets: Any,
    count: int,
    resume: int,
) -> None:
    width = kernel.tile.columns
    fma, dtype = (fma_f32, np.float32) if kernel.dtype == "f32" else (fma_f64, np.float64)
    row_at = np.arange(count)[:, None]
    where = c_off + row_at * c_row + np.arange(width)
    acc = c[where] if resume else np.zeros((count, width), dtype)
    for a_at, b_at in zip(a_offsets, b_offsets, strict=True):
        acc = fma(a[a_at + row_at * a_row], b[b_at : b_at + width], acc)
    c[where] = acc


def _strided(kernel: MicroKernel) -> Callable[..., None]:
    def rows(
        c: Any,
        c_off: int,
        c_row: int,
        a: Any,
        a_off: int,
        a_row: int,
        a_k: int,
        b: Any,
        b_off: int,
        b_k: int,
        depth: int,
        count: int,
        resume: int,
    ) -> None:
        steps = np.arange(depth)
        _accumulate(kernel, c, c_off, c_row, a, a_off + steps * a_k, a_row, b, b_off + steps * b_k, count, resume)

    return rows


def _indexed(kernel: MicroKernel) -> Callable[..., None]:
    def rows(
        c: Any,
        c_off: int,
        c_row: int,
        a: Any,
        a_off: int,
        a_row: int,
        b: Any,
        b_off: int,
        table: Any,
        table_off: int,
        depth: int,
        count: int,
        resume: int,
    ) -> None:
        steps = table_off + 2 * np.arange(depth)
        _accumulate(
            kernel,
            c,
            c_off,
            c_row,
            a,
            a_off + table[steps],
            a_row,
            b,
            b_off + table[steps + 1],
            count,
            resume,
        )

    return rows
