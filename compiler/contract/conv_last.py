"""Convolution of images whose channels come last, and its gradient by the input, as one kernel.

A filter's row of taps over such an image is one contiguous run: `(kw, c)`. Pixels are broadcast where they lie,
filters are vectors, packed `[tile][kh][kw][c][columns]` once per thread, and the micro-kernel goes from run to run
through a table of offsets. Strides cost nothing. Padded images are copied, a chunk of rows at a time; others are
read in place. Taps in rows that are padding are left out. There is no im2col.

The gradient by the input is the same with other filters: at stride 1 the flipped, transposed ones over dy padded
the other way; at stride s, pixels of one residue modulo s (a phase) share their taps and read dy at stride 1.

All geometry, the table of taps included, is computed outside and passed as extents: one text per dtype and register
tile serves every convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ...ir.dims import Dim, dmax, floordiv, mod
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .conv import aligned
from .micro_runs import RunsKernel
from .text import Epilogue, call_epilogue, extent_loads, fill, load, storage
from .tiles import TileShape, tile_shape

# Pixels of the target in one step of the parallel range, about.
CHUNK_PIXELS = 256
# Bytes of packed filters that a thread holds at once.
_PANEL_BYTES = 512 * 1024


@dataclass(frozen=True)
class Geometry:
    """A convolution or its gradient by the input. Pairs are (rows, columns); one spatial axis is a single row.

    Attributes:
        batch, groups: images, and groups of channels.
        source, target: extents of what is read (x; dy for the gradient) and of what is written (y; dx).
        depth, filters: their channels per group.
        taps, stride, dilation: of the convolution.
        low: its low padding.
        padded: some tap of some pixel may lie outside x.
        transposed: the gradient.
    """

    batch: Dim
    groups: int
    source: tuple[Dim, Dim]
    target: tuple[Dim, Dim]
    depth: Dim
    filters: Dim
    taps: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    low: tuple[Dim, Dim]
    padded: bool
    transposed: bool = False

    def axis(self, i: int) -> Axis:
        """One of the two spatial axes."""
        taps, stride, dilation, low = self.taps[i], self.stride[i], self.dilation[i], self.low[i]
        if self.transposed:
            return Axis(stride, 1, (taps - 1) * dilation // stride, low, -((taps - 1) * dilation // stride))
        return Axis(1, stride, (taps - 1) * dilation, 0, -low)

    def offsets(self, i: int, phase: int) -> list[tuple[int, int]]:
        """The taps of a phase along an axis as (offset in the source, tap), in ascending order of the offsets."""
        step = self.stride[i] if self.transposed else 1
        places = [(tap * self.dilation[i], tap) for tap in range(self.taps[i])]
        found = [(at // step, tap) for at, tap in places if at % step == phase]
        return [(self.axis(i).reach - at, tap) for at, tap in reversed(found)] if self.transposed else found


class Axis(NamedTuple):
    """Where the pixels of one axis read: `u` of the target is of phase `(u + shift) % phases` and reads
    `(u + shift) // phases * step + origin + offset` of the source for every tap of its phase, offset in [0, reach].
    """

    phases: int
    step: int
    reach: int
    shift: Dim
    origin: Dim

    def first(self, u: Dim) -> Dim:
        """The first place of the source that `u` reads."""
        return floordiv(u + self.shift, self.phases) * self.step + self.origin

    def span(self, count: Dim) -> Dim:
        """At most how many places of the source `count` neighbours read."""
        return floordiv(dmax(1, count) + self.phases - 2, self.phases) * self.step + self.reach + 1


_EXTENTS = (
    "own_extents", "batch", "groups", "depth", "columns", "source_h", "source_w", "target_h", "target_w", "writes",
    "taps", "w_k", "w_n", "chunk_rows", "chunks", "block_columns", "blocks", "panel_at", "acc_at", "in_place", "pixel",
    "row_pitch", "phases_h", "phases_w", "step_h", "step_w", "shift_h", "origin_h", "span_h", "first_w", "start",
    "stop", "width", "flat", "order_at",
)  # fmt: skip
# Behind them: per phase its row, first column, number of columns, first column in the source; rows of taps, the first
# one's offset, their distance, runs in each, a run's length, place in the table. Then the taps in the order of k; then
# the table, two offsets for every run.
_PHASE_WORDS = 10


@dataclass(frozen=True)
class ConvLast:
    """Generator of the kernel.

    Operands: source `[n, h, w, g*depth]`, weights `[g*o, c, kh, kw]`, then the epilogue's. Extents: `extents`, then
    the epilogue's. The epilogue's b is the image, m the pixel of the target in it, n the channel over all groups. k
    ascends over (row of the source, column of the source, channel). Parallel range: groups × blocks of filters ×
    images × chunks of the target's rows.

    Attributes:
        dtype: element type of all operands; sixteen-bit floats accumulate in float32.
        tile: register tile, rows are pixels.
    """

    dtype: DType
    tile: TileShape

    @classmethod
    def of(cls, dtype: DType, filters: Dim, isa: str | None = None) -> ConvLast:
        """The kernel with the register tile for so many filters per group."""
        return cls(dtype, pixel_tile(dtype.compute, filters, isa))

    @property
    def _narrow(self) -> bool:
        return self.dtype is not self.dtype.compute

    def _blocks(self, g: Geometry) -> tuple[Dim, Dim]:
        """Columns of one block of filters, and how many blocks there are."""
        tile_bytes = g.taps[0] * g.taps[1] * g.depth * self.tile.columns * self.dtype.compute.itemsize
        tiles, most = ceil_div(g.filters, self.tile.columns), dmax(1, floordiv(_PANEL_BYTES, dmax(1, tile_bytes)))
        block = dmax(1, smaller(tiles, most))
        return block * self.tile.columns, ceil_div(tiles, block)

    def _areas(self, g: Geometry) -> tuple[Dim, Dim, Dim]:
        """Bytes of image rows, packed filters and accumulators."""
        size, columns, rows = self.dtype.compute.itemsize, self._blocks(g)[0], chunk_rows(g)
        return (
            aligned(g.axis(0).span(rows) * g.axis(1).span(g.target[1]) * g.depth * size),
            aligned(g.taps[0] * g.taps[1] * g.depth * columns * size),
            aligned(rows * g.target[1] * columns * size),
        )

    def parallel_range(self, g: Geometry) -> Dim:
        """Steps of the parallel range."""
        return g.groups * self._blocks(g)[1] * g.batch * ceil_div(g.target[0], chunk_rows(g))

    def scratch_bytes(self, g: Geometry) -> Dim:
        """Scratch bytes of one thread."""
        image, panel, accumulators = self._areas(g)
        return image + panel + accumulators

    def extents(self, g: Geometry, writes: bool) -> tuple[Dim, ...]:
        """The kernel's own extents.

        Args:
            writes: full tiles go to the epilogue's one output (row-major, of the dtype) without its help.
        """
        h, w = g.axis(0), g.axis(1)
        rows, taps, first_w = chunk_rows(g), g.taps[0] * g.taps[1], w.first(0)
        width = w.first(g.target[1] - 1) + w.reach + 1 - first_w
        in_place = not g.padded and not self._narrow
        pixel = g.groups * g.depth if in_place else g.depth
        pitch = (g.source[1] if in_place else width) * pixel
        start = smaller(width, dmax(0, -first_w))
        phases, order, table = self._tables(g, pixel, pitch, first_w)
        order_at = len(_EXTENTS) + len(phases)
        # Rows that lie behind one another run as one line; not so next to padding, where they have taps of their own.
        flat = not g.padded and h.phases * w.phases == 1 and w.step * pixel * g.target[1] == h.step * pitch
        block, blocks = self._blocks(g)
        image, panel, _ = self._areas(g)
        w_k, w_n = (g.filters * taps, taps) if g.transposed else (taps, g.depth * taps)
        values = (
            order_at + len(order) + len(table), g.batch, g.groups, g.depth, g.filters, *g.source, *g.target,
            int(writes), taps, w_k, w_n, rows, ceil_div(g.target[0], rows), block, blocks, image, image + panel,
            int(in_place), pixel, pitch, h.phases, w.phases, h.step, w.step, h.shift, h.origin, h.reach + 1, first_w,
            start, smaller(width, dmax(start, g.source[1] - first_w)), width, int(flat), order_at,
        )  # fmt: skip
        assert len(values) == len(_EXTENTS)
        return (*values, *phases, *order, *table)

    def _tables(self, g: Geometry, pixel: Dim, pitch: Dim, first_w: Dim) -> tuple[list[Dim], list[int], list[Dim]]:
        """Words of the phases, order of the taps, offsets of the runs in the image and in the filters."""
        h, w = g.axis(0), g.axis(1)
        phases: list[Dim] = []
        order: list[int] = []
        table: list[Dim] = []
        for phase_h in range(h.phases):
            for phase_w in range(w.phases):
                rows, columns = g.offsets(0, phase_h), g.offsets(1, phase_w)
                # Taps whose channels lie one behind the other are one run.
                merged = pixel == g.depth and all(b[0] - a[0] == 1 for a, b in pairwise(columns))
                at = len(table)
                for offset_h, tap_h in rows:
                    for i, (offset_w, tap_w) in enumerate(columns):
                        if i == 0 or not merged:
                            table += [offset_h * pitch + offset_w * pixel, len(order) * g.depth * self.tile.columns]
                        order.append(tap_h * g.taps[1] + tap_w)
                v = mod(phase_w - w.shift, w.phases)
                per_row = min(1, len(columns)) if merged else len(columns)
                phases += [phase_h, v, ceil_div(g.target[1] - v, w.phases), w.first(v) - first_w,
                           len(rows), rows[0][0] if rows else 0, rows[1][0] - rows[0][0] if len(rows) > 1 else 1,
                           per_row, g.depth * (len(columns) if merged else 1), at]  # fmt: skip
        tables_at = len(_EXTENTS) + len(phases) + len(order)
        for i in range(_PHASE_WORDS - 1, len(phases), _PHASE_WORDS):
            phases[i] = phases[i] + tables_at
        return phases, order, table

    def kernel(self, epilogue: Epilogue) -> KernelSource:
        """The kernel's source, linked to its epilogue."""
        tile, dtype, compute = self.tile, self.dtype, self.dtype.compute
        pointer = f"{storage(dtype)}_ptr"
        constants = {"COLUMNS": tile.columns, "PHASE": _PHASE_WORDS, "compute": compute, "pointer": pointer}
        source = fill(
            _KERNEL,
            extents=extent_loads(_EXTENTS),
            pack=fill(_WIDEN if self._narrow else _PACK, element=load(dtype, "w", "w_at + k * w_k + i * w_n"),
                      pack=f"pack_{compute}_{tile.columns}x{tile.lanes}", **constants),
            image=WIDEN_ROWS if self._narrow else COPY_ROWS,
            element=load(dtype, "x", "source_at + col * groups * depth + c"),
            place="image" if self._narrow else "either(in_place != 0, x, image)",
            direct="False" if self._narrow else f"writes != 0 and urem(columns, {tile.columns}) == 0",
            out="acc" if self._narrow else "either(direct, result, acc)",
            result="" if self._narrow else f"result = {pointer}(buffers, 1 + 2 * writes)",
            micro=RunsKernel(compute.name, tile).name,
            finish=call_epilogue("acc", "block_columns", "n", ("y0 * target_w", "y1 * target_w"),
                                 ("n0", "n0 + width_j"), "own_extents", 2),
            **constants,
        )  # fmt: skip
        extents = _EXTENTS + epilogue.extents
        return KernelSource("kernel", source, 2 + epilogue.n_buffers, extents, links=(epilogue.link(2),))


def pixel_tile(dtype: DType, filters: Dim, isa: str | None = None) -> TileShape:
    """A register tile of pixels × filters: one vector wide where that holds all of them, else two."""
    two = tile_shape(dtype, isa)
    if isinstance(filters, int) and filters <= two.lanes:
        return TileShape(2 * two.rows, 1, two.lanes, two.rows * 2 // 3)
    return TileShape(two.rows * 2 // 3, 2, two.lanes, two.tail_rows)


def ceil_div(n: Dim, size: Dim) -> Dim:
    return floordiv(n + size - 1, size)


def smaller(a: Dim, b: Dim) -> Dim:
    return a + b - dmax(a, b)


def chunk_rows(g: Geometry) -> Dim:
    return dmax(1, floordiv(CHUNK_PIXELS, dmax(1, g.target[1])))


_PACK = """
$pack(panel, panel_at, w, w_at, w_k, w_n, depth, imin($COLUMNS, columns - j))
"""

_WIDEN = """
for k in range(depth):
    for i in range($COLUMNS):
        panel[panel_at + k * $COLUMNS + i] = 0.0
    for i in range(imin($COLUMNS, columns - j)):
        panel[panel_at + k * $COLUMNS + i] = $element
"""

# Rows of an image with their padding, in the storage dtype or widened.
COPY_ROWS = """
halo_$compute(image, 0, row_pitch, x, source_at, source_w * groups * depth, groups * depth, depth,
              -row0, source_h - row0, height, start, stop, width)
"""

WIDEN_ROWS = """
for row in range(height):
    for col in range(width):
        for c in range(depth):
            inside = row0 + row >= 0 and row0 + row < source_h and col >= start and col < stop
            image[row * row_pitch + col * depth + c] = $element if inside else 0.0
    source_at += source_w * groups * depth
"""

_KERNEL = """
def kernel(buffers, extents, begin, end, scratch, status):
    $extents
    x = $pointer(buffers, 1)
    w = $pointer(buffers, 2)
    $result
    image = ${compute}_at(scratch, 0, 0)
    panel = ${compute}_at(scratch, panel_at, 1)
    acc = ${compute}_at(scratch, acc_at, 2)
    place = $place
    direct = $direct
    out = $out
    packed = -1
    for step in range(begin, end):
        strip = udiv(step, batch * chunks)
        step -= strip * batch * chunks
        n = udiv(step, chunks)
        y0 = (step - n * chunks) * chunk_rows
        y1 = imin(y0 + chunk_rows, target_h)
        group = udiv(strip, blocks)
        j0 = (strip - group * blocks) * block_columns
        width_j = imin(block_columns, columns - j0)
        n0 = group * columns + j0
        if packed != strip:
            packed = strip
            panel_at = 0
            for j in range(j0, j0 + width_j, $COLUMNS):
                for t in range(taps):
                    w_at = group * columns * depth * taps + j * w_n + extents[order_at + t]
                    $pack
                    panel_at += depth * $COLUMNS
        row0 = udiv(y0 + shift_h, phases_h) * step_h + origin_h
        source_at = (((n * source_h + row0) * source_w + first_w) * groups + group) * depth
        place_at = source_at
        if in_place == 0:
            place_at = 0
            height = udiv(y1 - 1 + shift_h, phases_h) * step_h + origin_h + span_h - row0
            $image
        out_row = groups * columns if direct else block_columns
        out_at = (n * target_h + y0) * target_w * out_row + n0 if direct else 0
        line = y1 - y0 if flat != 0 else 1
        for j in range(0, width_j, $COLUMNS):
            for at in range($FIRST_PHASE, order_at, $PHASE):
                u = y0 + urem(extents[at] + phases_h - urem(y0 + shift_h, phases_h), phases_h)
                apart = extents[at + 6]
                for y in range(u, y1, phases_h * line):
                    # Rows of taps above and below the image add nothing.
                    row = udiv(y + shift_h, phases_h) * step_h + origin_h
                    top = row + extents[at + 5]
                    first = udiv(imax(0, -top) + apart - 1, apart)
                    last = imin(extents[at + 4], udiv(imax(0, source_h - top + apart - 1), apart))
                    $micro(
                        out, out_at + ((y - y0) * target_w + extents[at + 1]) * out_row + j, phases_w * out_row,
                        place, place_at + (row - row0) * row_pitch + extents[at + 3] * pixel, step_w * pixel, 1,
                        panel, j * taps * depth, $COLUMNS, extents, extents[at + 9] + 2 * first * extents[at + 7],
                        (last - first) * extents[at + 7], extents[at + 8], extents[at + 2] * line, 0)
        if not direct:
            $finish
    return 0
""".replace("$FIRST_PHASE", str(len(_EXTENTS)))
