"""Operations on blocks of scores: attention's products and moves, cut where rows end.

Generated sources use them by name, like the other primitives. `ends[i]` says how many of the first keys row i takes
part in; a block holds the scores of `rows` rows and the keys `[key0, key0 + keys)`, `pitch` elements a row. With
`M` a micro-kernel's name without its `rows_` (`f32_12x2x16_4`):

- `seen_M(score, pitch, a, a_row, a_k, b, b_row, b_k, panel, depth, ends, key0, keys, rows)`: scores
  `score[i, j] = Σ a[i, k]·b[j, k]`, for blocks of columns from the first row on that takes part in one of them;
- `early_M(acc, acc_row, score, pitch, b, b_row, b_col, side, size, ends, key0, keys, rows, resume)`:
  `acc[i, n] (+)= Σ score[i, j]·b[j, n]` over the keys that one of a group of rows takes part in;
- `late_M(acc, acc_row, score, pitch, b, b_row, b_col, side, size, ends, key0, keys, rows)`:
  `acc[j, n] += Σ score[i, j]·b[i, n]` over the rows from the first on that takes part in one of a group of keys.

`b` is read in place where its rows are contiguous and a register tile wide, else packed into `panel` or `side`.

- `count_rows(ends, rows, start, step, limit)`: `ends[i] = start + i·step`, not below 0 and not above `limit`;
- `place(extents, strides, sizes, rank, position)`: the offset of row-major `position` over the `rank` sizes
  `extents[sizes:]`, by the strides `extents[strides:]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .micro import micro_kernel

# Rows (or keys) of a product that are cut together: a multiple of the rows of most register tiles.
GROUP = 12
BLOCK_PRODUCTS = re.compile(r"(seen|early|late)_((f32|f64)_\d+x(\d+)x(\d+)_\d+)")


def block_operation(name: str) -> Callable[..., Any] | None:
    """The operation of a name as NumPy, or None for another name."""
    if name in _FIXED:
        return _FIXED[name]
    match = BLOCK_PRODUCTS.fullmatch(name)
    if match is None:
        return None
    rows = micro_kernel(f"rows_{match[2]}")
    assert rows is not None
    return _PRODUCTS[match[1]](rows, int(match[4]) * int(match[5]))


def _first(ends: Any, start: int, rows: int, column: int) -> int:
    """The first row from `start` on that takes part in a key from `column` on."""
    while start < rows and ends[start] <= column:
        start += 1
    return start


def _packed(panel: Any, columns: int, b: Any, b_k: int, b_n: int, depth: int, width: int) -> None:
    k, j = np.arange(depth)[:, None], np.arange(width)
    target = panel[: depth * columns].reshape(depth, columns)
    target[:, :width] = b[k * b_k + j * b_n]
    target[:, width:] = 0


def _seen(product: Callable[..., None], columns: int) -> Callable[..., None]:
    def seen(score: Any, pitch: int, a: Any, a_row: int, a_k: int, b: Any, b_row: int, b_k: int, panel: Any, depth: int,
             ends: Any, key0: int, keys: int, rows: int) -> None:
        first = 0
        for column in range(0, keys, columns):
            first = _first(ends, first, rows, key0 + column)
            _packed(panel, columns, b[column * b_row:], b_k, b_row, depth, min(columns, keys - column))
            product(score, first * pitch + column, pitch, a, first * a_row, a_row, a_k, panel, 0, columns, depth,
                    rows - first, 0)

    return seen


def _side(b: Any, b_row: int, b_col: int, side: Any, columns: int, depth: int, at: int, size: int) -> tuple[Any, int]:
    """A block of columns of a right factor, and the distance of its rows."""
    width = min(columns, size - at)
    if b_col == 1 and width == columns:
        return b[at:], b_row
    _packed(side, columns, b[at * b_col:], b_row, b_col, depth, width)
    return side, columns


def _early(product: Callable[..., None], columns: int) -> Callable[..., None]:
    def early(acc: Any, acc_row: int, score: Any, pitch: int, b: Any, b_row: int, b_col: int, side: Any, size: int,
              ends: Any, key0: int, keys: int, rows: int, resume: int) -> None:
        for at in range(0, size, columns):
            source, source_k = _side(b, b_row, b_col, side, columns, keys, at, size)
            for i in range(0, rows, GROUP):
                count = min(GROUP, rows - i)
                depth = int(np.clip(ends[i:i + count] - key0, 0, keys).max())
                product(acc, i * acc_row + at, acc_row, score, i * pitch, pitch, 1, source, 0, source_k, depth, count,
                        resume)

    return early


def _late(product: Callable[..., None], columns: int) -> Callable[..., None]:
    def late(acc: Any, acc_row: int, score: Any, pitch: int, b: Any, b_row: int, b_col: int, side: Any, size: int,
             ends: Any, key0: int, keys: int, rows: int) -> None:
        for at in range(0, size, columns):
            source, source_k = _side(b, b_row, b_col, side, columns, rows, at, size)
            first = 0
            for j in range(0, keys, GROUP):
                first = _first(ends, first, rows, key0 + j)
                product(acc, j * acc_row + at, acc_row, score, first * pitch + j, 1, pitch, source, first * source_k,
                        source_k, rows - first, min(GROUP, keys - j), 1)

    return late


def count_rows(ends: Any, rows: int, start: int, step: int, limit: int) -> None:
    """`ends[i] = start + i * step`, not below 0 and not above `limit`."""
    ends[:rows] = np.clip(start + np.arange(rows) * step, 0, limit)


def place(extents: Any, strides: int, sizes: int, rank: int, position: int) -> int:
    """The offset of a row-major position over some sizes, by other strides."""
    offset = 0
    for axis in reversed(range(rank)):
        size = int(extents[sizes + axis])
        offset += position % size * int(extents[strides + axis])
        position //= size
    return offset


_PRODUCTS: dict[str, Callable[[Callable[..., None], int], Callable[..., None]]] = {
    "seen": _seen, "early": _early, "late": _late,
}  # fmt: skip
_FIXED: dict[str, Callable[..., Any]] = {"count_rows": count_rows, "place": place}
