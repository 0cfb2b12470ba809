"""Gradient of a convolution by its weights.

`dw[o, c, kh, kw] = sum over (n, p) of dy[n, o, p] * x[n, c, p * stride + k * dilation - pad]`.

Broadcasts dy where it lies and reads x as vectors along channels: a block of channels is transposed into
zero-padded rows of pixels, so that a row of taps is one contiguous run `(kw, c)` per pixel. k is the pixel,
in ascending order over images; partial sums stay in scratch, and threads share out filters and channels,
never pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, dmax
from ..kernel import KernelSource
from .conv import SLACK, ConvDims, Convolution, aligned, chunks, rows_per_chunk
from .text import extent_loads, fill, load, storage, store
from .tiles import MicroKernel, TileShape, tile_shape

# Filter tiles that one step's neighbours share an image copy for.
_FILTER_TILES = 8
_PIXELS = 1024


@dataclass(frozen=True)
class ConvWeightGrad(Convolution):
    """Generator of weight-gradient kernels; k ascends over (n, output pixel).

    Operands: x `[n, g*c, h, w]`, dy `[n, g*o, oh, ow]`, then dw `[g*o, c, kh, kw]`. Extents: `ConvDims` of
    the forward convolution. Parallel range: groups × channel blocks × filter tiles.
    """

    @property
    def register_tile(self) -> TileShape:
        """Three vectors wide where three taps of one vector of channels make a run."""
        return self.tile or tile_shape(self.dtype.compute, vectors=3 if self._run_taps == 3 else 2)

    def parallel_range(self, dims: ConvDims) -> Dim:
        """Steps of the parallel range."""
        blocks = chunks(dims.channels, self._channel_block)
        return dims.groups * blocks * chunks(dims.filters, self.register_tile.rows)

    def scratch_bytes(self, dims: ConvDims) -> Dim:
        """Scratch bytes of one thread: accumulators, offset table, widened dy, padded pixels."""
        (kh, kw), (sh, sw), (dh, dw), tile = self.taps, self.stride, self.dilation, self.register_tile
        size, rows = self.dtype.compute.itemsize, rows_per_chunk(dims.out_w, _PIXELS)
        pixels = rows * dims.out_w
        height, width = (
            (rows - 1) * sh + (kh - 1) * dh + 1,
            dmax(0, (dims.out_w - 1) * sw + (kw - 1) * dw + 1),
        )
        image = dmax(height * width * self._channel_block, pixels * tile.columns) + SLACK
        widened = _FILTER_TILES * tile.rows * pixels if self.narrow else 0
        return (
            self._accumulator_bytes + aligned(pixels * 16) + aligned(widened * size) + aligned(image * size)
        )

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        name = self.dtype.compute.name
        tile = self.register_tile
        constants = self.constants() | {
            "PIXELS": _PIXELS,
            "FILTER_TILES": _FILTER_TILES,
            "BLOCK": self._channel_block,
            "RUNS": self._runs,
            "RUN_TAPS": self._run_taps,
            "ACC_BYTES": self._accumulator_bytes,
            "ACC_ROW": self._accumulator_row,
        }
        call = MicroKernel(name, tile, indexed=True).name
        pixel_source = load(self.dtype, "x", "source + c * in_h * in_w + col")
        squares = (
            "" if self.narrow else fill(_SQUARES, transpose=f"transpose_{name}_{tile.lanes}", **constants)
        )
        source = fill(
            _WEIGHT_GRAD,
            extents=extent_loads(ConvDims._fields),
            expand=fill(
                _EXPAND, element=load(self.dtype, "x", f"source + col * {self.stride[1]}"), **constants
            ),
            copy=fill(_COPY, element=pixel_source, squares=squares, **constants),
            wide=_WIDE if self.narrow else "",
            widen=fill(_WIDEN_DY, element=load(self.dtype, "dy", "dy_at + i * pixels + p"))
            if self.narrow
            else "",
            call=(
                f"{call}(acc, run * run_row + j, {self._accumulator_row}, "
                + ("wide, 0, chunk_pixels" if self.narrow else "dy, dy_at, pixels")
                + ", image, run_at + j, table, 0, rows * out_w, count, 1)"
            ),
            put=store(self.dtype, "dw", "target + tap", f"acc[o * {self._accumulator_row} + column]"),
            dw=f"{storage(self.dtype)}_ptr",
            WIDENED=_FILTER_TILES * tile.rows if self.narrow else 0,
            **constants,
        )
        return KernelSource("kernel", source, 3, ConvDims._fields)

    @property
    def _run_taps(self) -> int:
        """Taps of a kernel row that are contiguous with their channels."""
        return self.taps[1] if self.dilation[1] == 1 else 1

    @property
    def _runs(self) -> int:
        return self.taps[0] * self.taps[1] // self._run_taps

    @property
    def _channel_block(self) -> int:
        """Channels of one copy: the fewest whole vectors of them that make runs of whole tiles."""
        tile = self.register_tile
        return tile.lanes if self._run_taps % tile.vectors == 0 else tile.columns

    @property
    def _accumulator_row(self) -> int:
        columns = self.register_tile.columns
        return self._runs * (-(-self._run_taps * self._channel_block // columns) * columns)

    @property
    def _accumulator_bytes(self) -> int:
        return _FILTER_TILES * self.register_tile.rows * self._accumulator_row * self.dtype.compute.itemsize


# Whole squares of channels × pixels by register transposes.
_SQUARES = """
whole = count_c - count_c % $LANES
squares = (last - first) // $LANES
for c in range(0, whole, $LANES):
    source_c = source + c * in_h * in_w + first
    $transpose(image, target + first * block + c, block, x, source_c, in_h * in_w, squares)
squares = squares * $LANES
"""

# Padded pixels with their channels: image[row][col][c].
_COPY = """
for row in range((rows - 1) * $SH + ($KH - 1) * $DH + 1):
    target = row * width * block
    y_in = y0 * $SH + row - pad_h
    first = imin(width, pad_w)
    last = imin(width, imax(first, pad_w + in_w))
    if y_in < 0 or y_in >= in_h:
        last = first
    source = (((n * groups + group) * channels + c0) * in_h + y_in) * in_w - pad_w
    for i in range(first * block):
        image[target + i] = 0.0
    for i in range(last * block, width * block):
        image[target + i] = 0.0
    whole = 0
    squares = 0
    $squares
    for c in range(count_c):
        for col in range(first + squares if c < whole else first, last):
            image[target + col * block + c] = $element
"""

# Few channels and taps: all taps of a pixel side by side, image[pixel][tap][c].
_EXPAND = """
for tap in range($TAPS):
    tap_h = tap // $KW * $DH - pad_h
    tap_w = tap % $KW * $DW - pad_w
    first = imin(out_w, imax(0, ($SW - 1 - tap_w) // $SW))
    last = imin(out_w, imax(first, (in_w - tap_w + $SW - 1) // $SW))
    for c in range(channels):
        for row in range(rows):
            target = row * out_w * run_size + tap * channels + c
            y_in = (y0 + row) * $SH + tap_h
            stop = last
            if y_in < 0 or y_in >= in_h:
                stop = first
            source = (((n * groups + group) * channels + c) * in_h + y_in) * in_w + tap_w
            for col in range(first):
                image[target + col * run_size] = 0.0
            for col in range(first, stop):
                image[target + col * run_size] = $element
            for col in range(stop, out_w):
                image[target + col * run_size] = 0.0
"""

_WIDE = "wide = f32_at(scratch, wide_at, 2)"

_WIDEN_DY = """
for i in range(count):
    for p in range(rows * out_w):
        wide[i * chunk_pixels + p] = $element
"""

_WEIGHT_GRAD = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    dy = $pointer(buffers, 1)
    dw = $dw(buffers, 2)
    $extents
    chunk_rows = imax(1, $PIXELS // imax(1, out_w))
    chunk_pixels = chunk_rows * out_w
    pixels = out_h * out_w
    width = imax(0, (out_w - 1) * $SW + ($KW - 1) * $DW + 1)
    block = imin($BLOCK, channels)
    expanded = channels * $TAPS <= $COLUMNS
    runs = 1 if expanded else $RUNS
    run_size = channels * $TAPS if expanded else block * $RUN_TAPS
    run_row = $ACC_ROW // $RUNS
    wide_at = $ACC_BYTES + (chunk_pixels * 16 + 63) // 64 * 64
    acc = ${compute}_at(scratch, 0, 0)
    table = i64_at(scratch, $ACC_BYTES, 1)
    $wide
    image = ${compute}_at(scratch, wide_at + ($WIDENED * chunk_pixels * $SIZE + 63) // 64 * 64, 3)
    for row in range(chunk_rows):
        for col in range(out_w):
            p = row * out_w + col
            table[2 * p] = p
            table[2 * p + 1] = p * run_size if expanded else (row * $SH * width + col * $SW) * block
    filter_tiles = (filters + $ROWS - 1) // $ROWS
    blocks = (channels + $BLOCK - 1) // $BLOCK
    step = begin
    while step < end:
        # Filter tiles of one channel block share its copy.
        strip = step // filter_tiles
        tile0 = step - strip * filter_tiles
        tile1 = imin(filter_tiles, imin(tile0 + $FILTER_TILES, tile0 + end - step))
        step += tile1 - tile0
        group = strip // blocks
        c0 = (strip - group * blocks) * $BLOCK
        count_c = imin(block, channels - c0)
        o0 = tile0 * $ROWS
        count = imin(filters, tile1 * $ROWS) - o0
        for i in range(count * $ACC_ROW):
            acc[i] = 0.0
        for n in range(batch):
            for y0 in range(0, out_h, chunk_rows):
                rows = imin(chunk_rows, out_h - y0)
                dy_at = ((n * groups + group) * filters + o0) * pixels + y0 * out_w
                $widen
                if expanded:
                    $expand
                else:
                    $copy
                for run in range(runs):
                    run_at = (run * $RUN_TAPS // $KW * $DH * width + run * $RUN_TAPS % $KW * $DW) * block
                    for j in range(0, run_size, $COLUMNS):
                        $call
        for o in range(count):
            for c in range(count_c):
                target = ((group * filters + o0 + o) * channels + c0 + c) * $TAPS
                for tap in range($TAPS):
                    column = tap // $RUN_TAPS * run_row + tap % $RUN_TAPS * block + c
                    if expanded:
                        column = tap * channels + c
                    $put
    return 0
"""
