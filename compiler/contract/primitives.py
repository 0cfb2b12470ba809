"""Operations of contraction kernels beyond `backend.intrinsics`: micro-kernels, block transposes, packing,
choices.

Generated sources use them by name. Like the intrinsics, each is plain NumPy here and has a Numba lowering
(`lowering.py`) with the same bits. Families are made on demand from their names:

- `call_link(buffers, slot, first, extents, at, begin, end, values, words)`: call the linked kernel whose
  address is `buffers[slot]`, with the operands from entry `first` and the extents from `at` on, the memory at
  `values` as its scratch and `words` (int64) as its status;
- `blas_f32_i64(m, n, k, a, a_off, a_m, a_k, b, b_off, b_k, b_n, c, c_off, c_row)`: C = A · B by the library
  of `runtime.blas`, whose integers have 32 or 64 bits;
- `rows_f32_12x2x16_4…`, `runs_f32_12x2x16_4…`: micro-kernels, see `micro` and `micro_runs`;
- `halo_f32`: image rows with zeros around them, see `halo`;
- `exp_rows_f32…`, `seen_f32_12x2x16_4…`: what attention does to rows and blocks of scores, see `rows`, `blocks`;
- `transpose_f32_16(dst, dst_off, dst_row, src, src_off, src_row, blocks)`: `blocks` squares of 16 × 16
  elements, `dst[dst_off + c * dst_row + r] = src[src_off + r * src_row + c]` for r < 16, c < 16 * blocks;
- `pack_f32_32x16(panel, panel_off, b, b_off, b_k, b_n, depth, width)`: rows of a panel of 32 columns,
  `panel[panel_off + 32 * k + j] = b[b_off + b_k * k + b_n * j]` for k < depth, j < width, zero for the other
  j;
- `pad_f32(dst, dst_off, dst_step, src, src_off, src_step, first, stop, width)`: a zero-padded row,
  `dst[dst_off + i * dst_step] = src[src_off + i * src_step]` for first <= i < stop, zero for the other
  i < width;
- `copy_f32(dst, dst_off, dst_row, dst_step, src, src_off, src_row, rows, width)`: rows of another pitch,
  `dst[dst_off + r * dst_row + i * dst_step] = src[src_off + r * src_row + i]` for r < rows, i < width.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .blocks import block_operation
from .halo import halo
from .micro import micro_kernel
from .micro_runs import runs_kernel
from .rows import row_operation

TRANSPOSE = re.compile(r"transpose_(f32|f64)_(\d+)")
BLAS = re.compile(r"blas_(f32|f64)_(i32|i64)")
PACK = re.compile(r"pack_(f32|f64)_(\d+)x(\d+)")
ROWS = re.compile(r"(pad|copy)_(f32|f64)")


def either(condition: Any, if_true: Any, if_false: Any) -> Any:
    """One of two pointers to the same element type; nothing is assumed about what it overlaps."""
    return if_true if condition else if_false


def imin(a: Any, b: Any) -> Any:
    """The smaller of two int64."""
    return min(a, b)


def imax(a: Any, b: Any) -> Any:
    """The greater of two int64."""
    return max(a, b)


def call_link(
    buffers: Any, slot: int, first: int, extents: Any, at: int, begin: int, end: int, values: Any, words: Any
) -> None:
    """Call a linked kernel; see the module's text."""
    buffers[slot](buffers[first:], extents[int(at) :], int(begin), int(end), values.view(np.uint8), words)


def _transpose(side: int) -> Callable[..., None]:
    def transpose(dst: Any, dst_off: int, dst_row: int, src: Any, src_off: int, src_row: int, blocks: int) -> None:
        r, c = np.arange(side)[:, None], np.arange(side * blocks)
        dst[dst_off + c * dst_row + r] = src[src_off + r * src_row + c]

    return transpose


def _pack(columns: int) -> Callable[..., None]:
    def pack(panel: Any, panel_off: int, b: Any, b_off: int, b_k: int, b_n: int, depth: int, width: int) -> None:
        k, j = np.arange(depth)[:, None], np.arange(width)
        rows = panel[panel_off : panel_off + depth * columns].reshape(depth, columns)
        rows[:, :width] = b[b_off + b_k * k + b_n * j]
        rows[:, width:] = 0

    return pack


def _pad() -> Callable[..., None]:
    def pad(
        dst: Any,
        dst_off: int,
        dst_step: int,
        src: Any,
        src_off: int,
        src_step: int,
        first: int,
        stop: int,
        width: int,
    ) -> None:
        i = np.arange(width)
        dst[dst_off + i * dst_step] = 0
        i = i[first:stop]
        dst[dst_off + i * dst_step] = src[src_off + i * src_step]

    return pad


def _copy() -> Callable[..., None]:
    def copy(
        dst: Any,
        dst_off: int,
        dst_row: int,
        dst_step: int,
        src: Any,
        src_off: int,
        src_row: int,
        rows: int,
        width: int,
    ) -> None:
        r, i = np.arange(rows)[:, None], np.arange(width)
        dst[dst_off + r * dst_row + i * dst_step] = src[src_off + r * src_row + i]

    return copy


_FIXED: dict[str, Callable[..., Any]] = {f.__name__: f for f in (either, imin, imax, call_link)}


def _blas() -> Callable[..., None]:
    def gemm(
        m: int, n: int, k: int, a: Any, a_off: int, a_m: int, a_k: int, b: Any, b_off: int, b_k: int, b_n: int,
        c: Any, c_off: int, c_row: int,
    ) -> None:  # fmt: skip
        i, j, steps = np.arange(m)[:, None], np.arange(n), np.arange(k)
        left, right = a[a_off + i * a_m + steps * a_k], b[b_off + steps[:, None] * b_k + j * b_n]
        c[c_off + i * c_row + j] = left @ right

    return gemm


@lru_cache(maxsize=256)
def primitive(name: str) -> Callable[..., Any] | None:
    """The primitive of a name (always the same object), or None.

    Its attribute `register_numba` is a function that makes it known to Numba.
    """
    function: Any = _FIXED.get(name) or micro_kernel(name) or runs_kernel(name) or halo(name)
    function = function or row_operation(name) or block_operation(name)
    if match := TRANSPOSE.fullmatch(name):
        function = _transpose(int(match[2]))
    elif match := PACK.fullmatch(name):
        function = _pack(int(match[2]))
    elif BLAS.fullmatch(name):
        function = _blas()
    elif match := ROWS.fullmatch(name):
        function = _pad() if match[1] == "pad" else _copy()
    if function is not None:
        function.register_numba = lambda: _register(name)
    return function  # type: ignore[no-any-return]


def _register(name: str) -> None:
    from . import lowering

    lowering.register(name)
