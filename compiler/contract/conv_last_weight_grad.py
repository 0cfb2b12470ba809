"""Gradient of a convolution by its weights, channels last, in two kernels.

The first multiplies: x is broadcast where it lies, one channel a row, the filters of dy are vectors, k is the pixel.
Per tap, only the pixels whose place lies inside x are visited, so that padding costs nothing and nothing is copied.
Where a row of taps has few channels in all, the rows are `(kw, c)` over a zero-padded copy of x instead. The sums of
fixed blocks of images, `[block][group][kh][kw][c][filter]`, are added by the second kernel, which hands rows
`[c][kh][kw]` of the result to its epilogue. Blocks depend on sizes alone, never on threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, dmax, floordiv
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .conv import aligned
from .conv_last import COPY_ROWS, WIDEN_ROWS, Geometry, ceil_div, chunk_rows, smaller
from .micro_runs import RunsKernel
from .text import Epilogue, call_epilogue, extent_loads, fill, load, storage
from .tiles import TileShape, tile_shape

# Blocks of images at most, and elements of all their sums, about: part of what fixes a result's bits.
_BLOCKS = 8
_SUM_ELEMENTS = 64 * 1024
# Fewer channels than these take a whole row of taps as rows.
_FEW = 8
# Filters and channels of one step of the second kernel.
_FOLD = 16

_EXTENTS = (
    "batch", "groups", "depth", "filters", "source_h", "source_w", "target_h", "target_w", "images", "chunk_rows",
    "column_blocks", "pieces", "count", "sums_row", "step_h", "step_w", "pixel", "row_pitch", "low_h", "first_w",
    "span_h", "start", "stop", "width", "wide_at", "image_at",
)  # fmt: skip
# Behind them, per piece (a tap, or a row of taps): its first and last row and column of dy, and the place in x that
# it is away from a pixel times the stride.
_PIECE_WORDS = 6


@dataclass(frozen=True)
class WeightGradSums:
    """Generator of the first kernel.

    Operands: x `[n, h, w, g*c]`, dy `[n, oh, ow, g*o]`, then the sums (`sums_size` elements of the compute dtype).
    Extents: `extents`. Parallel range: blocks of images × groups × blocks of filters × pieces.

    Attributes:
        dtype: element type of x and dy; sixteen-bit floats accumulate in float32.
        tile: register tile, rows are channels.
        halo: read x from a zero-padded copy of a chunk of rows.
    """

    dtype: DType
    tile: TileShape
    halo: bool

    @classmethod
    def of(cls, dtype: DType, g: Geometry) -> WeightGradSums:
        """The kernel for a convolution."""
        narrow = dtype is not dtype.compute
        rows = g.depth * g.taps[1] if _few(g) else g.depth
        return cls(dtype, _channel_tile(dtype.compute, rows, g.filters), narrow or (_few(g) and g.padded))

    @property
    def _narrow(self) -> bool:
        return self.dtype is not self.dtype.compute

    def blocks(self, g: Geometry) -> tuple[Dim, Dim]:
        """Images of a block, and how many blocks there are."""
        weights = g.groups * g.taps[0] * g.taps[1] * g.depth * g.filters
        fit = _SUM_ELEMENTS // max(1, weights) if isinstance(weights, int) else 1
        most = 1 << min(_BLOCKS, max(1, fit)).bit_length() - 1  # even shares for even batches
        images = dmax(1, ceil_div(g.batch, most))
        return images, dmax(1, ceil_div(g.batch, images))

    def sums_size(self, g: Geometry) -> Dim:
        """Elements of the sums."""
        return self.blocks(g)[1] * self._sums_of_block(g)

    def _sums_of_block(self, g: Geometry) -> Dim:
        return g.groups * g.taps[0] * g.taps[1] * g.depth * self.columns(g)

    def columns(self, g: Geometry) -> Dim:
        return ceil_div(g.filters, self.tile.columns) * self.tile.columns

    def parallel_range(self, g: Geometry) -> Dim:
        """Steps of the parallel range."""
        pieces = g.taps[0] if _few(g) else g.taps[0] * g.taps[1]
        return self.blocks(g)[1] * g.groups * ceil_div(g.filters, self.tile.columns) * pieces

    def _areas(self, g: Geometry) -> tuple[Dim, Dim, Dim]:
        """Bytes of the table of rows, of dy's filters side by side, of the padded image."""
        size, rows = self.dtype.compute.itemsize, chunk_rows(g)
        wide = rows * g.target[1] * self.tile.columns
        image = g.axis(0).span(rows) * g.axis(1).span(g.target[1]) * g.depth if self.halo else 0
        return aligned(rows * 16), aligned(wide * size), aligned(image * size)

    def scratch_bytes(self, g: Geometry) -> Dim:
        """Scratch bytes of one thread."""
        table, wide, image = self._areas(g)
        return table + wide + image

    def extents(self, g: Geometry) -> tuple[Dim, ...]:
        """The kernel's extents."""
        h, w, few = g.axis(0), g.axis(1), _few(g)
        first_w = w.first(0)
        width = w.first(g.target[1] - 1) + w.reach + 1 - first_w
        pixel = g.depth if self.halo else g.groups * g.depth
        pitch = (width if self.halo else g.source[1]) * pixel
        start = smaller(width, dmax(0, -first_w))
        pieces = self._pieces(g, few)
        table, wide, _ = self._areas(g)
        values = (
            g.batch, g.groups, g.depth, g.filters, *g.source, *g.target, self.blocks(g)[0], chunk_rows(g),
            ceil_div(g.filters, self.tile.columns), len(pieces), g.depth * (g.taps[1] if few else 1),
            self.columns(g), h.step, w.step, pixel, pitch, g.low[0], first_w, h.reach + 1, start,
            smaller(width, dmax(start, g.source[1] - first_w)), width, table, table + wide,
        )  # fmt: skip
        assert len(values) == len(_EXTENTS)
        return (*values, *(word for piece in pieces for word in piece))

    def _pieces(self, g: Geometry, few: bool) -> list[tuple[Dim, ...]]:
        """Per piece: rows and columns of dy that it meets, and its place in x relative to them."""
        every: list[tuple[Dim, ...]] = [(0, n) for n in g.target]

        def inside(axis: int, tap: int) -> tuple[Dim, Dim]:
            place, stride = tap * g.dilation[axis] - g.low[axis], g.stride[axis]
            first = dmax(0, ceil_div(-place, stride))
            return first, dmax(first, smaller(g.target[axis], ceil_div(g.source[axis] - place, stride)))

        rows = [(tap * g.dilation[0] - g.low[0], inside(0, tap)) for tap in range(g.taps[0])]
        if few:
            return [(*every[0], *every[1], place, -g.low[1]) for place, _ in rows]
        columns = [(tap * g.dilation[1] - g.low[1], inside(1, tap)) for tap in range(g.taps[1])]
        return [(*y, *x, place_h, place_w) for place_h, y in rows for place_w, x in columns]

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        tile, compute = self.tile, self.dtype.compute
        place = "image" if self.halo else "x"
        source = fill(
            _SUMS,
            extents=extent_loads(_EXTENTS),
            image=fill(WIDEN_ROWS if self._narrow else COPY_ROWS, compute=compute,
                       element=load(self.dtype, "x", "source_at + col * groups * depth + c")) if self.halo else "",
            base="-row0 * row_pitch - first_w * pixel" if self.halo else
                 "n * source_h * row_pitch + group * depth",
            wide="True" if self._narrow else f"width_j < {tile.columns}",
            copy=fill(_WIDEN_DY if self._narrow else _COPY_DY, compute=compute, COLUMNS=tile.columns,
                      element=load(self.dtype, "dy", "dy_at + p * dy_pixel + j")),
            filters="beside" if self._narrow else "either(wide, beside, dy)",
            place=place,
            micro=RunsKernel(compute.name, tile).name,
            COLUMNS=tile.columns,
            FIRST=len(_EXTENTS),
            PIECE=_PIECE_WORDS,
            compute=compute,
            pointer=f"{storage(self.dtype)}_ptr",
        )  # fmt: skip
        return KernelSource("kernel", source, 3, _EXTENTS)


def _few(g: Geometry) -> bool:
    """Whether the rows are those of a whole row of taps, which must then lie side by side."""
    return g.groups == 1 and g.dilation[1] == 1 and isinstance(g.depth, int) and g.depth < _FEW


def _channel_tile(dtype: DType, rows: Dim, filters: Dim) -> TileShape:
    """A register tile of channels × filters: as high as divides the rows, where that is known."""
    two = tile_shape(dtype)
    one = isinstance(filters, int) and filters <= two.lanes
    most = 2 * two.rows if one else two.rows
    usual = two.rows * 2 // 3 * (2 if one else 1)
    if isinstance(rows, int) and rows % usual:
        usual = next((n for n in range(most, usual // 2, -1) if rows % n == 0), rows if rows <= usual else usual)
    return TileShape(usual, 1 if one else 2, two.lanes, max(1, usual // 2))


# Sums of one piece for one block of filters. Neighbouring pieces share the copies.
_SUMS = """
def kernel(buffers, extents, begin, end, scratch, status):
    $extents
    x = $pointer(buffers, 0)
    dy = $pointer(buffers, 1)
    sums = ${compute}_ptr(buffers, 2)
    table = i64_at(scratch, 0, 0)
    beside = ${compute}_at(scratch, wide_at, 1)
    image = ${compute}_at(scratch, image_at, 2)
    dy_pixel = groups * filters
    step = begin
    while step < end:
        strip = udiv(step, pieces)
        piece0 = step - strip * pieces
        piece1 = imin(pieces, piece0 + end - step)
        step += piece1 - piece0
        block = udiv(strip, groups * column_blocks)
        strip -= block * groups * column_blocks
        group = udiv(strip, column_blocks)
        j0 = (strip - group * column_blocks) * $COLUMNS
        width_j = imin($COLUMNS, filters - j0)
        sums_at = ((block * groups + group) * pieces * count) * sums_row + j0
        wide = $wide
        place_b = $filters
        pitch_b = $COLUMNS if wide else dy_pixel
        for r in range(chunk_rows):
            table[2 * r] = r * step_h * row_pitch
            table[2 * r + 1] = r * target_w * pitch_b
        resume = 0
        for n in range(block * images, imin(batch, block * images + images)):
            for y0 in range(0, target_h, chunk_rows):
                y1 = imin(y0 + chunk_rows, target_h)
                row0 = y0 * step_h - low_h
                source_at = (((n * source_h + row0) * source_w + first_w) * groups + group) * depth
                height = (y1 - 1 - y0) * step_h + span_h
                $image
                dy_at = (n * target_h + y0) * target_w * dy_pixel + group * filters + j0
                if wide:
                    $copy
                    dy_at = 0
                for piece in range(piece0, piece1):
                    at = $FIRST + piece * $PIECE
                    first = imax(y0, extents[at])
                    last = imax(first, imin(y1, extents[at + 1]))
                    left = extents[at + 2]
                    a_at = ($base + (first * step_h + extents[at + 4]) * row_pitch
                            + (left * step_w + extents[at + 5]) * pixel)
                    b_at = dy_at + ((first - y0) * target_w + left) * pitch_b
                    $micro(
                        sums, sums_at + piece * count * sums_row, sums_row, $place, a_at, 1, step_w * pixel,
                        place_b, b_at, pitch_b, table, 0, last - first, extents[at + 3] - left, count, resume)
                resume = 1
        if resume == 0:
            for i in range(piece0 * count, piece1 * count):
                for j in range($COLUMNS):
                    sums[sums_at + i * sums_row + j] = 0.0
    return 0
"""

_COPY_DY = """
halo_$compute(beside, 0, $COLUMNS, dy, dy_at, dy_pixel, 1, 1, 0, (y1 - y0) * target_w, (y1 - y0) * target_w,
              0, width_j, $COLUMNS)
"""

_WIDEN_DY = """
for p in range((y1 - y0) * target_w):
    for j in range(width_j):
        beside[p * $COLUMNS + j] = $element
    for j in range(width_j, $COLUMNS):
        beside[p * $COLUMNS + j] = 0.0
"""


@dataclass(frozen=True)
class WeightGradFold:
    """Generator of the second kernel.

    Operands: the sums, then the epilogue's. Extents: `extents`, then the epilogue's. The epilogue's b is 0, m the
    filter over all groups, n the element `[c][kh][kw]` of it. Parallel range: squares of filters × channels.
    """

    compute: DType

    def parallel_range(self, g: Geometry) -> Dim:
        """Steps of the parallel range."""
        return g.groups * ceil_div(g.filters, _FOLD) * ceil_div(g.depth, _FOLD)

    def scratch_bytes(self, g: Geometry) -> Dim:
        """Scratch bytes of one thread."""
        return (_FOLD * g.taps[0] * g.taps[1] + 1) * _FOLD * self.compute.itemsize

    def extents(self, sums: WeightGradSums, g: Geometry) -> tuple[Dim, ...]:
        """The kernel's own extents."""
        size = sums.sums_size(g)
        blocks = sums.blocks(g)[1]
        return g.depth, g.filters, g.taps[0] * g.taps[1], floordiv(size, blocks), size, sums.columns(g)

    def kernel(self, epilogue: Epilogue) -> KernelSource:
        """The kernel's source, linked to its epilogue."""
        finish = call_epilogue("acc", "pitch", "0", ("group * filters + o0", "group * filters + o0 + count"),
                               ("c0 * taps", "c1 * taps"), str(len(_FOLD_EXTENTS)), 1)  # fmt: skip
        source = fill(_FOLD_KERNEL, extents=extent_loads(_FOLD_EXTENTS), compute=self.compute, FOLD=_FOLD,
                      SIZE=self.compute.itemsize, finish=finish)  # fmt: skip
        extents = _FOLD_EXTENTS + epilogue.extents
        return KernelSource("kernel", source, 1 + epilogue.n_buffers, extents, links=(epilogue.link(1),))


_FOLD_EXTENTS = ("depth", "filters", "taps", "block_size", "size", "sums_row")

_FOLD_KERNEL = """
def kernel(buffers, extents, begin, end, scratch, status):
    $extents
    sums = ${compute}_ptr(buffers, 1)
    pitch = $FOLD * taps
    row = ${compute}_at(scratch, 0, 0)
    acc = ${compute}_at(scratch, $FOLD * $SIZE, 1)
    strips = (filters + $FOLD - 1) // $FOLD
    squares = (depth + $FOLD - 1) // $FOLD
    for step in range(begin, end):
        strip = udiv(step, squares)
        c0 = (step - strip * squares) * $FOLD
        c1 = imin(c0 + $FOLD, depth)
        group = udiv(strip, strips)
        o0 = (strip - group * strips) * $FOLD
        count = imin($FOLD, filters - o0)
        for t in range(taps):
            for c in range(c0, c1):
                first = ((group * taps + t) * depth + c) * sums_row + o0
                for o in range(count):
                    row[o] = sums[first + o]
                for block_at in range(first + block_size, size, block_size):
                    for o in range(count):
                        row[o] = row[o] + sums[block_at + o]
                at = (c - c0) * taps + t
                for o in range(count):
                    acc[o * pitch + at] = row[o]
        $finish
    return 0
"""
