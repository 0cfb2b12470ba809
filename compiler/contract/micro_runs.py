"""The micro-kernel over runs: k in two levels, as convolutions walk it.

    runs(c, c_off, c_row, a, a_off, a_row, a_k, b, b_off, b_k, table, table_off, runs, depth, count, resume)

is `micro`'s `rows` with k = (run, step): the operands of run r begin at `a_off + table[table_off + 2 * r]` and
`b_off + table[table_off + 2 * r + 1]`, its `depth` steps are `a_k` and `b_k` apart. A window's row of taps over
channels that lie side by side is one run, and so is a row of pixels. The accumulators stay in registers across
all runs: one chain of fused multiply-adds per output, k ascending.

The functions here are NumPy; `micro_runs_llvm` registers their Numba lowering.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .softfma import fma_f32, fma_f64
from .tiles import TileShape


@dataclass(frozen=True, slots=True)
class RunsKernel:
    """One variant of the micro-kernel over runs; `name` is what generated sources call.

    Attributes:
        dtype: `f32` or `f64`.
        tile: the register tile.
    """

    dtype: str
    tile: TileShape

    @property
    def name(self) -> str:
        """E.g. `runs_f32_12x2x16_4`."""
        t = self.tile
        return f"runs_{self.dtype}_{t.rows}x{t.vectors}x{t.lanes}_{t.tail_rows}"

    @property
    def middle_rows(self) -> int:
        """Rows of a third tile between the full one and the tail, where that is half of the full one; else 0."""
        t = self.tile
        return t.rows * 3 // 4 if t.rows == 2 * t.tail_rows and t.rows % 4 == 0 else 0


_NAME = re.compile(r"runs_(f32|f64)_(\d+)x(\d+)x(\d+)_(\d+)")


def parse_runs_kernel(name: str) -> RunsKernel | None:
    """The variant that a name in a generated source means, or None for any other name."""
    match = _NAME.fullmatch(name)
    return RunsKernel(match[1], TileShape(*map(int, match.groups()[1:]))) if match else None


@lru_cache(maxsize=64)
def runs_kernel(name: str) -> Callable[..., None] | None:
    """The function behind a name (always the same object), or None if the name is not one."""
    kernel = parse_runs_kernel(name)
    if kernel is None:
        return None
    width = kernel.tile.columns
    fma, dtype = (fma_f32, np.float32) if kernel.dtype == "f32" else (fma_f64, np.float64)

    def runs(
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
        table: Any,
        table_off: int,
        runs: int,
        depth: int,
        count: int,
        resume: int,
    ) -> None:
        row_at = np.arange(count)[:, None]
        where = c_off + row_at * c_row + np.arange(width)
        acc = c[where] if resume else np.zeros((count, width), dtype)
        for r in range(table_off, table_off + 2 * runs, 2):
            for k in range(depth):
                b_at = b_off + table[r + 1] + k * b_k
                acc = fma(a[a_off + table[r] + k * a_k + row_at * a_row], b[b_at : b_at + width], acc)
        c[where] = acc

    runs.__name__ = runs.__qualname__ = name
    return runs
