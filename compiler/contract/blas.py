"""Matrix products by the BLAS that NumPy or SciPy brings, for comparison (`TRACEMILL_GEMM=blas`).

The kernel has the operands, extents and epilogue of `gemm.DotGeneral`, but hands its share of the rows to the library
at once. The library sums in an order of its own: results may depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim
from ...runtime import blas
from .gemm import BATCH_OFFSETS, EXTENTS, DotGeneral, tiles
from .text import call_epilogue, extent_loads, fill

# Rows of one step of the parallel range.
_ROWS = 32


@dataclass(frozen=True)
class BlasDot(DotGeneral):
    """Generator of products that call the BLAS; float32 and float64.

    Parallel range: one step is a block of rows of one batch entry.
    """

    def suits(self, sizes: tuple[Dim, Dim, Dim], a: tuple[Dim, Dim], b: tuple[Dim, Dim]) -> bool:
        """Whether the library can read operands of these sizes and strides: matrices, perhaps transposed."""
        m, n, k = sizes
        return self.dtype.name in ("f32", "f64") and _is_matrix(a, (m, k)) and _is_matrix(b, (k, n))

    def shaped(self, m: Dim, n: Dim) -> DotGeneral:
        """This very product: the library knows what suits a shape."""
        return self

    def parallel_range(self, batch: Dim, m: Dim, n: Dim) -> Dim:
        """Steps of the parallel range."""
        return batch * tiles(m, _ROWS)

    def scratch_bytes(self, m: Dim = 0, n: Dim = 0) -> Dim:
        """Scratch bytes of one thread: the values of a whole batch entry, for the epilogue."""
        return m * n * self.dtype.itemsize

    def _float_source(self) -> str:
        own = f"{len(EXTENTS)} + 4 * rank"
        return fill(
            _BLAS,
            dtype=self.dtype,
            rows=_ROWS,
            extents=extent_loads(EXTENTS),
            batch_offsets=BATCH_OFFSETS,
            gemm=f"blas_{self.dtype}_{blas.find().integers}",
            finish=call_epilogue("acc", "size_n", "batch", ("m0", "m1"), ("0", "size_n"), own, 2),
        )


def _is_matrix(strides: tuple[Dim, Dim], shape: tuple[Dim, Dim]) -> bool:
    """Contiguous along one axis of two (if both are there), and no element repeated along the other."""
    (row, column), (rows, columns) = strides, shape
    if rows == 1 or columns == 1:
        return (row != 0 or rows == 1) and (column != 0 or columns == 1)
    return (column == 1 and row != 0) or (row == 1 and column != 0)


_BLAS = """
def kernel(buffers, extents, begin, end, scratch, status):
    $extents
    a = ${dtype}_ptr(buffers, 1)
    b = ${dtype}_ptr(buffers, 2)
    c = ${dtype}_ptr(buffers, 1 + 2 * writes_c)
    acc = ${dtype}_at(scratch, 0)
    blocks = (size_m + $rows - 1) // $rows
    step = begin
    while step < end:
        batch = udiv(step, blocks)
        block0 = step - batch * blocks
        block1 = imin(blocks, block0 + end - step)
        step += block1 - block0
        $batch_offsets
        m0 = block0 * $rows
        m1 = imin(block1 * $rows, size_m)
        direct = writes_c != 0
        out = either(direct, c, acc)
        out_at = c_base + m0 * c_m if direct else 0
        out_row = c_m if direct else size_n
        $gemm(m1 - m0, size_n, size_k, a, a_base + m0 * a_m, a_m, a_k, b, b_base, b_k, b_n, out, out_at, out_row)
        if not direct:
            $finish
    return 0
"""
