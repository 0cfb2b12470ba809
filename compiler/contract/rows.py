"""Operations on rows of a block of scores: what attention does between its products.

Generated sources use them by name, like the other primitives (`f64` likewise):

- `exp_rows_f32(score, pitch, ends, key0, keys, rows, scale, top, total, shrink)`: the online softmax of one block.
  Row i of `score` becomes `exp(score * scale - best)` in its columns before `ends[i] - key0`, and zero in the others
  up to `keys` (rounded up to 16); `best` is the greatest scaled score of the row so far. `top[i]` holds it before and
  after, `total[i]` the sum of the row's exponentials so far, and `shrink[i]` becomes what earlier ones shrink by.
- `log_rows_f32(top, total, rows)`: `top[i] += log(total[i])`, `total[i] = 1 / total[i]`.
- `grad_rows_f32(score, slope, pitch, ends, key0, keys, rows, scale, factor, lse, delta)`: probabilities again, and the
  scores' cotangents from the probabilities': `score = exp(score * scale - lse[i])`,
  `slope = score * (slope - delta[i]) * factor`, both zero where `exp_rows` has zeros.
- `dot_rows_f32(total, a, a_row, b, b_row, width, rows)`: `total[i] = sum over j of a[i, j] * b[i, j]` over contiguous
  rows.
- `put_rows_f32(dst, dst_row, dst_col, src, src_row, factor, rows, width)`: `dst[i, j] = src[i, j] * factor[i]`;
- `fetch_rows_f32(at, row, col, rows, width)`, `own_rows_f32(…)`: bring contiguous rows (`col` 1, else nothing) into the
  cache before they are read, or written.

Sums of a row go to sixteen lanes (element j to lane j mod 16) and are folded as `lower.lanes` folds; `top`, `total`,
`shrink`, `lse` and `delta` are read and written in whole groups of sixteen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..mathlib.vectors import on_arrays

LANES = 16
ROW_OPERATIONS = re.compile(r"(exp|log|grad|dot|put|fetch|own)_rows_(f32|f64)")
_DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64}


def row_operation(name: str) -> Callable[..., None] | None:
    """The operation of a name as NumPy, or None for another name."""
    match = ROW_OPERATIONS.fullmatch(name)
    return None if match is None else _MAKERS[match[1]](match[2])


def _fold(lanes: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """Lanes (the last axis) folded by the fixed tree."""
    width = LANES
    while width > 1:
        width //= 2
        lanes = merge(lanes[..., :width], lanes[..., width:])
    return lanes[..., 0]


def _greater(a: Any, b: Any) -> Any:
    return np.where(b > a, b, a)


def _in_turn(start: Any, blocks: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """Blocks [rows, count, lanes] merged into lanes one after the other."""
    for at in range(blocks.shape[1]):
        start = merge(start, blocks[:, at])
    return start


def _block(pitch: int, keys: int, rows: int) -> Any:
    """Indices of a block of scores, its width rounded up to whole lanes."""
    return np.arange(rows)[:, None] * pitch + np.arange(-(-keys // LANES) * LANES)


def _seen(ends: Any, key0: int, keys: int, rows: int) -> Any:
    """Which columns of a block matter, per row."""
    many = np.clip(ends[:rows] - key0, 0, keys)
    return np.arange(-(-keys // LANES) * LANES) < many[:, None]


def _quietly(function: Callable[..., None]) -> Callable[..., None]:
    def run(*arguments: Any) -> None:
        with np.errstate(all="ignore"):
            function(*arguments)

    return run


def _exp(dtype: str) -> Callable[..., None]:
    kind, exp = _DTYPES[dtype], on_arrays("exp", dtype)

    def exp_rows(score: Any, pitch: int, ends: Any, key0: int, keys: int, rows: int, scale: Any, top: Any, total: Any,
                 shrink: Any) -> None:
        at, seen = _block(pitch, keys, rows), _seen(ends, key0, keys, rows)
        values = np.where(seen, score[at] * kind(scale), kind(-np.inf))
        blocks = values.reshape(rows, -1, LANES)
        most = _fold(_in_turn(np.full((rows, LANES), -np.inf, kind), blocks, _greater), _greater)
        best = _greater(top[:rows], most)
        pivot = np.where(best == -np.inf, kind(0), best)
        powers = np.where(seen, exp(values - pivot[:, None]), kind(0))
        share = _fold(_in_turn(np.zeros((rows, LANES), kind), powers.reshape(rows, -1, LANES), np.add), np.add)
        score[at] = powers
        shrink[:rows] = exp(top[:rows] - pivot)
        total[:rows] = total[:rows] * shrink[:rows] + share
        top[:rows] = best

    return _quietly(exp_rows)


def _log(dtype: str) -> Callable[..., None]:
    kind, log = _DTYPES[dtype], on_arrays("log", dtype)

    def log_rows(top: Any, total: Any, rows: int) -> None:
        top[:rows] = top[:rows] + log(total[:rows])
        total[:rows] = kind(1) / total[:rows]

    return _quietly(log_rows)


def _grad(dtype: str) -> Callable[..., None]:
    kind, exp = _DTYPES[dtype], on_arrays("exp", dtype)

    def grad_rows(score: Any, slope: Any, pitch: int, ends: Any, key0: int, keys: int, rows: int, scale: Any,
                  factor: Any, lse: Any, delta: Any) -> None:
        at, seen = _block(pitch, keys, rows), _seen(ends, key0, keys, rows)
        powers = np.where(seen, exp(score[at] * kind(scale) - lse[:rows, None]), kind(0))
        slopes = powers * (slope[at] - delta[:rows, None]) * kind(factor)
        score[at] = powers
        slope[at] = np.where(seen, slopes, kind(0))

    return _quietly(grad_rows)


def _dot(dtype: str) -> Callable[..., None]:
    kind = _DTYPES[dtype]

    def dot_rows(total: Any, a: Any, a_row: int, b: Any, b_row: int, width: int, rows: int) -> None:
        row, column = np.arange(rows)[:, None], np.arange(width)
        padded = np.zeros((rows, -(-width // LANES) * LANES), kind)
        padded[:, :width] = a[row * a_row + column] * b[row * b_row + column]
        blocks = padded.reshape(rows, -1, LANES)
        total[:rows] = _fold(_in_turn(np.zeros((rows, LANES), kind), blocks, np.add), np.add)

    return _quietly(dot_rows)


def _put(dtype: str) -> Callable[..., None]:
    def put_rows(dst: Any, dst_row: int, dst_col: int, src: Any, src_row: int, factor: Any, rows: int,
                 width: int) -> None:
        row, column = np.arange(rows)[:, None], np.arange(width)
        dst[row * dst_row + column * dst_col] = src[row * src_row + column] * factor[:rows, None]

    return _quietly(put_rows)


def _nothing(dtype: str) -> Callable[..., None]:
    def fetch_rows(at: Any, row: int, col: int, rows: int, width: int) -> None:
        pass  # a cache shows in time alone

    return fetch_rows


_MAKERS: dict[str, Callable[[str], Callable[..., None]]] = {"exp": _exp, "log": _log, "grad": _grad, "dot": _dot,
                                                            "put": _put,
                                                            "fetch": _nothing, "own": _nothing}
