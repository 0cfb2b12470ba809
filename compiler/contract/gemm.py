"""Batched matrix products `C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n]` with free strides for A and B.

Floats go through the register-tiled micro-kernel: A is never packed (its elements are broadcast where they
lie), B is read in place where a full block of columns is contiguous, else transposed into a panel in scratch.
k is cut in blocks of `K_BLOCK`; partial sums return to the same accumulators, so every output is one chain of
fused multiply-adds in ascending k on every path. Integers use plain loops and wrap like their dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.dims import Dim
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .text import Epilogue, extent_loads, fill, load, paste_epilogue, storage, store
from .tiles import MicroKernel, TileShape, tile_shape

K_BLOCK = 512
# Row tiles finished before the column block's epilogue or copy runs: few where one k block suffices (the
# results stay in the first-level cache), many where the panel is packed again for every pass over the rows.
_CHUNK_ONE_BLOCK = 8
_CHUNK_BLOCKS = 64
# Columns of one integer accumulator row.
_INTEGER_BLOCK = 64


@dataclass(frozen=True)
class DotGeneral:
    """Generator of one batched matrix product.

    Operands: A, B, then C (row-major `[batch..., m, n]`) or the epilogue's. Extents: `extents`.
    Parallel range: one step is one register tile of C (floats) or one row of C (integers).

    Attributes:
        dtype: element type of A, B and C; sixteen-bit floats accumulate in float32, integers wrap.
        batch_rank: batch axes; each has its own extent and strides, so they need not be adjacent in memory.
        strided_out: C has free strides too (`c_*` extents), e.g. to write a transposed result.
        epilogue: fused work on finished tiles instead of storing C (floats only; b is the row-major batch
            number).
        tile: register tile; this CPU's by default.
    """

    dtype: DType
    batch_rank: int = 0
    strided_out: bool = False
    epilogue: Epilogue | None = None
    tile: TileShape | None = None

    def narrowed(self, n: Dim) -> DotGeneral:
        """This product for a right operand known to be `n` columns wide: tiles one vector wide if that holds it."""
        if not self.dtype.is_float or not isinstance(n, int) or n > self._tile.lanes:
            return self
        return replace(self, tile=tile_shape(self.dtype.compute, vectors=1))

    @property
    def extents(self) -> tuple[str, ...]:
        """Own extents in order: sizes, strides in elements, then per batch axis its size and strides."""
        axes = range(self.batch_rank)
        names = ["size_m", "size_n", "size_k", "a_m", "a_k", "b_k", "b_n"]
        names += [f"batch_{i}" for i in axes] + [f"a_batch_{i}" for i in axes] + [f"b_batch_{i}" for i in axes]
        if self.strided_out:
            names += ["c_m", "c_n"] + [f"c_batch_{i}" for i in axes]
        return tuple(names)

    def parallel_range(self, batch: Dim, m: Dim, n: Dim) -> Dim:
        """Steps of the parallel range; `batch` is the product of the batch extents."""
        if not self.dtype.is_float:
            return batch * m
        return batch * _tiles(m, self._tile.rows) * _tiles(n, self._tile.columns)

    def scratch_bytes(self) -> int:
        """Scratch bytes of one thread, whatever the sizes."""
        return sum(self._areas()) if self.dtype.is_float else 8 * _INTEGER_BLOCK

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        if self.epilogue is not None:
            outputs, extra = self.epilogue.n_buffers, self.epilogue.extents
        else:
            outputs, extra = 1, ()
        source = self._float_source() if self.dtype.is_float else self._integer_source()
        return KernelSource("kernel", source, 2 + outputs, self.extents + extra)

    @property
    def _tile(self) -> TileShape:
        return self.tile or tile_shape(self.dtype.compute)

    def _areas(self) -> tuple[int, int, int]:
        """Bytes of the B panel, the accumulators and (sixteen-bit floats) the widened A rows."""
        tile, size = self._tile, self.dtype.compute.itemsize
        widened = tile.rows * K_BLOCK * size if self._narrow else 0
        return K_BLOCK * tile.columns * size, _CHUNK_BLOCKS * tile.rows * tile.columns * size, widened

    @property
    def _narrow(self) -> bool:
        return self.dtype is not self.dtype.compute

    def _batch_offsets(self) -> str:
        """Lines that turn `batch` into the operands' base offsets."""
        lines = ["rest = batch", "a_base = 0", "b_base = 0", "c_base = 0" if self.strided_out else ""]
        if not self.strided_out and self.epilogue is None:
            lines.append("c_base = batch * size_m * size_n")
        for i in reversed(range(self.batch_rank)):
            lines += [
                f"index = rest % batch_{i}",
                f"rest = rest // batch_{i}",
                f"a_base += index * a_batch_{i}",
                f"b_base += index * b_batch_{i}",
            ]
            if self.strided_out:
                lines.append(f"c_base += index * c_batch_{i}")
        return "\n".join(line for line in lines if line)

    def _float_source(self) -> str:
        tile, compute = self._tile, self.dtype.compute
        panel, accumulators, _ = self._areas()
        common = {"columns": tile.columns, "k_block": K_BLOCK}
        pointer = storage(self.dtype) + "_ptr"
        return fill(
            _FLOAT,
            rows=tile.rows,
            chunk_one=_CHUNK_ONE_BLOCK,
            chunk_many=_CHUNK_BLOCKS,
            a_pointer=f"a = {pointer}(buffers, 0)",
            b_pointer=f"b = {pointer}(buffers, 1)",
            c_pointer="" if self.epilogue else f"c = {pointer}(buffers, 2)",
            panel=f"panel = {compute}_at(scratch, 0, 0)",
            acc=f"acc = {compute}_at(scratch, {panel}, 1)",
            wide=f"wide = {compute}_at(scratch, {panel + accumulators}, 2)" if self._narrow else "",
            extents=extent_loads(self.extents),
            c_strides="" if self.epilogue or self.strided_out else "c_m = size_n\nc_n = 1",
            batch_offsets=self._batch_offsets(),
            destination=fill(_DIRECT if self._can_store_direct else _INDIRECT, **common),
            choose_b=self._choose_b(),
            all_rows=self._all_rows(),
            finish=self._finish(),
            **common,
        )

    def _choose_b(self) -> str:
        """Lines that set `source`, `source_at`, `source_k`: where this k block's rows of B are."""
        tile = self._tile
        if self._narrow:
            element = load(self.dtype, "b", "b_base + (k0 + k) * b_k + (n0 + j) * b_n")
            return fill(_WIDEN_B, columns=tile.columns, k_block=K_BLOCK, element=element)
        return fill(
            _CHOOSE_B,
            columns=tile.columns,
            k_block=K_BLOCK,
            pack=f"pack_{self.dtype}_{tile.columns}x{tile.lanes}",
        )

    @property
    def _can_store_direct(self) -> bool:
        return self.epilogue is None and not self._narrow

    def _all_rows(self) -> str:
        """Lines that run the micro-kernel over the chunk's rows."""
        tile = self._tile
        call = MicroKernel(self.dtype.compute.name, tile).name
        if self._narrow:
            element = load(self.dtype, "a", "a_base + (m + i) * a_m + (k0 + k) * a_k")
            return fill(_WIDENED_ROWS, call=call, rows=tile.rows, k_block=K_BLOCK, element=element)
        return (
            f"{call}(out, out_at, out_row, a, a_base + m0 * a_m + k0 * a_k, a_m, a_k, "
            "source, source_at, source_k, depth, m1 - m0, resume)"
        )

    def _finish(self) -> str:
        if self.epilogue is not None:
            return paste_epilogue(
                self.epilogue,
                acc="acc",
                stride=str(self._tile.columns),
                b="batch",
                m=("m0", "m1"),
                n=("n0", "n1"),
            )
        value = f"acc[(m - m0) * {self._tile.columns} + j]"
        copy = fill(_COPY_OUT, put=store(self.dtype, "c", "c_base + m * c_m + (n0 + j) * c_n", value))
        return fill("if not direct:\n    $copy", copy=copy) if self._can_store_direct else copy

    def _integer_source(self) -> str:
        if self.epilogue is not None:
            raise ValueError("integer products take no epilogue")
        name = self.dtype.name
        return fill(
            _INTEGER,
            dtype=name,
            block=_INTEGER_BLOCK,
            extents=extent_loads(self.extents),
            c_strides="" if self.strided_out else "c_m = size_n\nc_n = 1",
            batch_offsets=self._batch_offsets(),
        )


def _tiles(extent: Dim, size: int) -> Dim:
    return (extent + (size - 1)) // size


_FLOAT = """
def kernel(buffers, extents, begin, end, scratch, status):
    $a_pointer
    $b_pointer
    $c_pointer
    $panel
    $acc
    $wide
    $extents
    $c_strides
    row_tiles = (size_m + $rows - 1) // $rows
    column_tiles = (size_n + $columns - 1) // $columns
    chunk = $chunk_one if size_k <= $k_block else $chunk_many
    packed = -1
    step = begin
    while step < end:
        # A strip is one column block of one batch entry; take a chunk of its row tiles.
        strip = step // row_tiles
        tile0 = step - strip * row_tiles
        tile1 = imin(row_tiles, imin(tile0 + chunk, tile0 + end - step))
        step += tile1 - tile0
        batch = strip // column_tiles
        $batch_offsets
        n0 = (strip - batch * column_tiles) * $columns
        n1 = imin(n0 + $columns, size_n)
        m0 = tile0 * $rows
        m1 = imin(tile1 * $rows, size_m)
        width = n1 - n0
        $destination
        k0 = 0
        while True:
            depth = imin(size_k - k0, $k_block)
            resume = 1 if k0 > 0 else 0
            $choose_b
            $all_rows
            k0 += $k_block
            if k0 >= size_k:
                break
        $finish
    return 0
"""

# B's block: where it lies if its rows are contiguous and a full tile wide, else packed as rows of a panel. A
# panel that holds all of k serves all chunks of its strip.
_CHOOSE_B = """
in_place = b_n == 1 and width == $columns
if not in_place and (packed != strip or size_k > $k_block):
    $pack(panel, 0, b, b_base + k0 * b_k + n0 * b_n, b_k, b_n, depth, width)
    packed = strip
source = either(in_place, b, panel)
source_at = b_base + k0 * b_k + n0 if in_place else 0
source_k = b_k if in_place else $columns
"""

_WIDEN_B = """
if packed != strip or size_k > $k_block:
    for k in range(depth):
        for j in range(width):
            panel[k * $columns + j] = $element
        for j in range(width, $columns):
            panel[k * $columns + j] = 0.0
    packed = strip
source = panel
source_at = 0
source_k = $columns
"""

# Sixteen-bit rows of A, widened for one register tile at a time.
_WIDENED_ROWS = """
for m in range(m0, m1, $rows):
    count = imin($rows, m1 - m)
    for i in range(count):
        for k in range(depth):
            wide[i * $k_block + k] = $element
    $call(out, out_at + (m - m0) * out_row, out_row, wide, 0, $k_block, 1, source, source_at, source_k,
          depth, count, resume)
"""

_DIRECT = """
direct = c_n == 1 and width == $columns
out = either(direct, c, acc)
out_at = c_base + m0 * c_m + n0 if direct else 0
out_row = c_m if direct else $columns
"""

_INDIRECT = """
out = acc
out_at = 0
out_row = $columns
"""

_COPY_OUT = """
for m in range(m0, m1):
    for j in range(width):
        $put
"""

_INTEGER = """
def kernel(buffers, extents, begin, end, scratch, status):
    a = ${dtype}_ptr(buffers, 0)
    b = ${dtype}_ptr(buffers, 1)
    c = ${dtype}_ptr(buffers, 2)
    acc = i64_at(scratch, 0)
    $extents
    $c_strides
    for step in range(begin, end):
        batch = step // size_m
        m = step - batch * size_m
        $batch_offsets
        for n0 in range(0, size_n, $block):
            width = imin($block, size_n - n0)
            for j in range(width):
                acc[j] = 0
            for k in range(size_k):
                factor = i64(a[a_base + m * a_m + k * a_k])
                for j in range(width):
                    acc[j] = i64(acc[j] + factor * i64(b[b_base + k * b_k + (n0 + j) * b_n]))
            for j in range(width):
                c[c_base + m * c_m + (n0 + j) * c_n] = $dtype(acc[j])
    return 0
"""
