"""Batched matrix products `C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n]` with free strides for A and B.

Floats go through the register-tiled micro-kernel: A is never packed (its elements are broadcast where they
lie), B is read in place where a full block of columns is contiguous, else transposed into a panel in scratch.
k is cut in blocks; partial sums return to the same accumulators, so every output is one chain of
fused multiply-adds in ascending k on every path. What becomes of finished tiles is the business of a linked
epilogue, so that one kernel serves every product of a dtype. Integers use plain loops and wrap like their
dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...ir.dims import Dim
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .text import Epilogue, call_epilogue, extent_loads, fill, load, storage
from .tiles import MicroKernel, TileShape, tile_shape

# Bytes of a panel of B (of one that is read once: it should not leave the first-level cache), and the most
# steps of k in one.
_PANEL_BYTES, _PANEL_BYTES_OF_ONE_ROW, _MOST_STEPS = 1 << 16, 1 << 15, 512
# B is packed although it could be read in place where its rows lie a multiple of so many bytes apart (they
# would share few sets of the caches) and so many rows of A will read it: 395 against 460 GFLOP/s for 1024³.
_CROWDED_BYTES, _CROWDED_ROWS = 2048, 192
# Vectors in the tile of a product with one row: as many accumulators as hide the latency of their additions.
_VECTORS_OF_ONE_ROW = 8
# Row tiles finished before the column block's epilogue runs: few where one k block suffices (the results stay
# in the first-level cache), many where the panel is packed again for every pass over the rows.
_CHUNK_ONE_BLOCK = 8
_CHUNK_BLOCKS = 64
# Columns of one integer accumulator row.
_INTEGER_BLOCK = 64
# The extents that every product has; four for each batch axis follow.
EXTENTS = ("size_m", "size_n", "size_k", "a_m", "a_k", "b_k", "b_n", "c_m", "c_n", "writes_c", "by_rows", "rank")


@dataclass(frozen=True, slots=True)
class Strides:
    """How a result lies in memory, in elements: one stride per row, per column and per batch axis."""

    m: Dim
    n: Dim
    batch: tuple[Dim, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchAxis:
    """One batch axis: its size, and how far its neighbours lie apart in each operand."""

    size: Dim
    a: Dim
    b: Dim


@dataclass(frozen=True)
class DotGeneral:
    """Generator of batched matrix products; the text depends on dtype and tile alone.

    Operands: A, B, then the epilogue's (floats) or C (integers). Extents: those of `extents`. Parallel range:
    one step is one register tile of C (floats; or one row, see `extents`) or one row of C (integers).

    Attributes:
        dtype: element type of A and B; sixteen-bit floats accumulate in float32, integers wrap.
        tile: register tile; this CPU's by default.
    """

    dtype: DType
    tile: TileShape | None = None

    def shaped(self, m: Dim, n: Dim) -> DotGeneral:
        """This product for operands known to be so long: narrow tiles for few columns, long ones for a single row."""
        if not self.dtype.is_float:
            return self
        lanes = self._tile.lanes
        if isinstance(n, int) and n <= lanes:
            return replace(self, tile=tile_shape(self.dtype.compute, vectors=1))
        if m == 1:
            return replace(self, tile=TileShape(1, _VECTORS_OF_ONE_ROW, lanes, 1))
        return self

    def extents(
        self, sizes: tuple[Dim, Dim, Dim], a: tuple[Dim, Dim], b: tuple[Dim, Dim], batch: Sequence[BatchAxis] = (),
        c: Strides | None = None, by_rows: bool = False,
    ) -> tuple[Dim, ...]:  # fmt: skip
        """The kernel's own extents.

        Args:
            sizes: m, n, k.
            a: strides of A in elements along m and k.
            b: strides of B along k and n.
            batch: axes from the outermost in; they need not be adjacent in memory.
            c: where full tiles are written without the epilogue's help: the epilogue's one output, contiguous
                along n, of the dtype. Integers need it, with any strides.
            by_rows: one step of the parallel range is one row of C, all columns wide. Not with batch axes.
        """
        out = c or Strides(0, 0)
        axes: list[Dim] = []
        for i, axis in enumerate(batch):
            axes += [axis.size, axis.a, axis.b, out.batch[i] if c else 0]
        return (*sizes, *a, *b, out.m, out.n, int(c is not None), int(by_rows), len(batch), *axes)

    def can_write(self, c: Strides) -> bool:
        """Whether full tiles of a plain product may go straight to a result that lies like this."""
        return self.dtype is self.dtype.compute and c.n == 1

    def parallel_range(self, batch: Dim, m: Dim, n: Dim) -> Dim:
        """Steps of the parallel range; `batch` is the product of the batch extents."""
        if not self.dtype.is_float:
            return batch * m
        return batch * tiles(m, self._tile.rows) * tiles(n, self._tile.columns)

    def scratch_bytes(self, m: Dim = 0, n: Dim = 0) -> Dim:
        """Scratch bytes of one thread for a result of m × n (the same for every size here)."""
        return sum(self._areas()) if self.dtype.is_float else 8 * _INTEGER_BLOCK

    def kernel(self, epilogue: Epilogue | None = None) -> KernelSource:
        """The kernel's source, linked to its epilogue.

        Args:
            epilogue: what to do with finished tiles (b is the row-major batch number). Floats need one.

        Raises:
            ValueError: an integer product with an epilogue, or a float one without.
        """
        if (epilogue is not None) != self.dtype.is_float:
            raise ValueError(f"a product of {self.dtype} takes {'no' if epilogue else 'an'} epilogue")
        if epilogue is None:
            return KernelSource("kernel", self._integer_source(), 3, EXTENTS)
        return KernelSource(
            "kernel", self._float_source(), 2 + epilogue.n_buffers, (*EXTENTS, *epilogue.extents),
            vectorised=not self._narrow, links=(epilogue.link(2),),
        )  # fmt: skip

    @property
    def _tile(self) -> TileShape:
        return self.tile or tile_shape(self.dtype.compute)

    @property
    def _k_block(self) -> int:
        panel = _PANEL_BYTES if self._tile.rows > 1 else _PANEL_BYTES_OF_ONE_ROW
        return min(_MOST_STEPS, panel // (self._tile.columns * self.dtype.compute.itemsize))

    def _areas(self) -> tuple[int, int, int]:
        """Bytes of the B panel, the accumulators and (sixteen-bit floats) the widened A rows."""
        tile, size = self._tile, self.dtype.compute.itemsize
        widened = tile.rows * self._k_block * size if self._narrow else 0
        return self._k_block * tile.columns * size, _CHUNK_BLOCKS * tile.rows * tile.columns * size, widened

    @property
    def _narrow(self) -> bool:
        return self.dtype is not self.dtype.compute

    def _float_source(self) -> str:
        tile, compute = self._tile, self.dtype.compute
        panel, accumulators, _ = self._areas()
        pointer = storage(self.dtype) + "_ptr"
        own = f"{len(EXTENTS)} + 4 * rank"
        return fill(
            _FLOAT,
            rows=tile.rows,
            columns=tile.columns,
            k_block=self._k_block,
            chunk_one=_CHUNK_ONE_BLOCK,
            chunk_many=_CHUNK_BLOCKS,
            a_pointer=f"a = {pointer}(buffers, 1)",
            b_pointer=f"b = {pointer}(buffers, 2)",
            c_pointer="" if self._narrow else f"c = {pointer}(buffers, 1 + 2 * writes_c)",
            panel=f"panel = {compute}_at(scratch, 0, 0)",
            acc=f"acc = {compute}_at(scratch, {panel}, 1)",
            wide=f"wide = {compute}_at(scratch, {panel + accumulators}, 2)" if self._narrow else "",
            extents=extent_loads(EXTENTS),
            batch_offsets=BATCH_OFFSETS,
            destination=fill(_INDIRECT if self._narrow else _DIRECT, columns=tile.columns),
            choose_b=self._choose_b(),
            all_rows=self._all_rows(),
            finish=call_epilogue("acc", str(tile.columns), "batch", ("m0", "m1"), ("n0", "n1"), own, 2),
        )

    def _choose_b(self) -> str:
        """Lines that set `source`, `source_at`, `source_k`: where this k block's rows of B are."""
        tile = self._tile
        if self._narrow:
            element = load(self.dtype, "b", "b_base + (k0 + k) * b_k + (n0 + j) * b_n")
            return fill(_WIDEN_B, columns=tile.columns, k_block=self._k_block, element=element)
        return fill(
            _CHOOSE_B,
            columns=tile.columns,
            k_block=self._k_block,
            size=self.dtype.itemsize,
            crowded_bytes=_CROWDED_BYTES,
            crowded_rows=_CROWDED_ROWS,
            pack=f"pack_{self.dtype}_{tile.columns}x{tile.lanes}",
        )

    def _all_rows(self) -> str:
        """Lines that run the micro-kernel over the chunk's rows."""
        tile = self._tile
        call = MicroKernel(self.dtype.compute.name, tile).name
        if self._narrow:
            element = load(self.dtype, "a", "a_base + (m + i) * a_m + (k0 + k) * a_k")
            return fill(_WIDENED_ROWS, call=call, rows=tile.rows, k_block=self._k_block, element=element)
        return (
            f"{call}(out, out_at, out_row, a, a_base + m0 * a_m + k0 * a_k, a_m, a_k, "
            "source, source_at, source_k, depth, m1 - m0, resume)"
        )

    def _integer_source(self) -> str:
        return fill(
            _INTEGER,
            dtype=self.dtype.name,
            block=_INTEGER_BLOCK,
            extents=extent_loads(EXTENTS),
            batch_offsets=BATCH_OFFSETS,
        )


def tiles(extent: Dim, size: int) -> Dim:
    """How many pieces of a size an extent is cut into, the last one perhaps shorter."""
    return (extent + (size - 1)) // size


_FLOAT = """
def kernel(buffers, extents, begin, end, scratch, status):
    $extents
    $a_pointer
    $b_pointer
    $c_pointer
    $panel
    $acc
    $wide
    # By rows a share is some rows of all strips, else some tiles, strip after strip.
    row0 = begin if by_rows != 0 else 0
    row1 = end if by_rows != 0 else size_m
    row_tiles = (row1 - row0 + $rows - 1) // $rows
    column_tiles = (size_n + $columns - 1) // $columns
    chunk = $chunk_one if size_k <= $k_block else $chunk_many
    packed = -1
    step = 0 if by_rows != 0 else begin
    stop = row_tiles * column_tiles if by_rows != 0 else end
    while step < stop:
        # A strip is one column block of one batch entry; take a chunk of its row tiles.
        strip = udiv(step, row_tiles)
        tile0 = step - strip * row_tiles
        tile1 = imin(row_tiles, imin(tile0 + chunk, tile0 + stop - step))
        step += tile1 - tile0
        batch = udiv(strip, column_tiles)
        $batch_offsets
        n0 = (strip - batch * column_tiles) * $columns
        n1 = imin(n0 + $columns, size_n)
        m0 = row0 + tile0 * $rows
        m1 = imin(row0 + tile1 * $rows, row1)
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
        if not direct:
            $finish
    return 0
"""

# From the row-major number of a batch entry to where its operands begin.
BATCH_OFFSETS = f"""
rest = batch
a_base = 0
b_base = 0
c_base = 0
axis = {len(EXTENTS)} + 4 * rank
while axis > {len(EXTENTS)}:
    axis -= 4
    size = extents[axis]
    index = urem(rest, size)
    rest = udiv(rest, size)
    a_base += index * extents[axis + 1]
    b_base += index * extents[axis + 2]
    c_base += index * extents[axis + 3]
"""

# B's block: where it lies if its rows are contiguous, a full tile wide and not crowded, else packed as rows of a
# panel. A panel that holds all of k serves all chunks of its strip.
_CHOOSE_B = """
crowded = size_m >= $crowded_rows and urem(b_k * $size, $crowded_bytes) == 0
in_place = b_n == 1 and width == $columns and not crowded
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
direct = writes_c != 0 and width == $columns
out = either(direct, c, acc)
out_at = c_base + m0 * c_m + n0 if direct else 0
out_row = c_m if direct else $columns
"""

_INDIRECT = """
direct = False
out = acc
out_at = 0
out_row = $columns
"""

_INTEGER = """
def kernel(buffers, extents, begin, end, scratch, status):
    a = ${dtype}_ptr(buffers, 0)
    b = ${dtype}_ptr(buffers, 1)
    c = ${dtype}_ptr(buffers, 2)
    acc = i64_at(scratch, 0)
    $extents
    for step in range(begin, end):
        batch = udiv(step, size_m)
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
