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
from .text import extent_loads, fill, load
from .tiles import MicroKernel, TileShape, tile_shape

# Filter tiles that one step's neighbours share an image copy for.
_FILTER_TILES = 8
# Output pixels of one copy; of one that lays all taps of a pixel side by side (it should stay in the first cache).
_PIXELS = 1024
_PIXELS_OF_FEW = 256


@dataclass(frozen=True)
class ConvWeightGrad(Convolution):
    """Generator of weight-gradient kernels; k ascends over (n, output pixel).

    Operands: x `[n, g*c, h, w]`, dy `[n, g*o, oh, ow]`, then dw `[g*o, c, kh, kw]`. Extents: `ConvDims` of
    the forward convolution. Parallel range: groups × channel blocks × filter tiles.

    Attributes:
        few: lay all taps of a pixel side by side. Only for as few channels as `holds_all_taps` says.
    """

    few: bool = False

    def holds_all_taps(self, channels: Dim) -> bool:
        """Whether all taps of all channels (per group) fit one register tile, so that `few` may be set."""
        taps = self.taps[0] * self.taps[1]
        return isinstance(channels, int) and channels * taps <= self.register_tile.columns

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
        size, rows = self.dtype.compute.itemsize, rows_per_chunk(dims.out_w, self._pixels)
        pixels = rows * dims.out_w
        height, width = (
            (rows - 1) * sh + (kh - 1) * dh + 1,
            dmax(0, (dims.out_w - 1) * sw + (kw - 1) * dw + 1),
        )
        image = (pixels * tile.columns if self.few else height * width * self._channel_block) + SLACK
        widened = _FILTER_TILES * tile.rows * pixels if self.narrow else 0
        return self._accumulator_bytes + aligned(pixels * 16) + aligned(widened * size) + aligned(image * size)

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        constants = self.constants() | {
            "PIXELS": self._pixels,
            "FILTER_TILES": _FILTER_TILES,
            "BLOCK": self._channel_block,
            "RUNS": self._runs,
            "ACC_BYTES": self._accumulator_bytes,
            "ACC_ROW": self._accumulator_row,
            "WIDENED": _FILTER_TILES * self.register_tile.rows if self.narrow else 0,
        }
        name = MicroKernel(self.dtype.compute.name, self.register_tile, indexed=True).name
        dy = "wide, 0, chunk_pixels" if self.narrow else "dy, dy_at, pixels"
        wide = load(self.dtype, "dy", "dy_at + i * pixels + p")
        source = fill(
            _WEIGHT_GRAD,
            extents=extent_loads(ConvDims._fields),
            wide="wide = f32_at(scratch, wide_at, 2)" if self.narrow else "",
            widen=fill(_WIDEN_DY, element=wide) if self.narrow else "",
            call=f"{name}(acc, run * {self._run_row} + j, {self._accumulator_row}, {dy}, "
            "image, run_at + j, table, 0, rows * out_w, count, 1)",
            copy=self._copy(constants),
            put=self.copy_rows(
                "dw",
                ("target", f"channels * {constants['TAPS']}", self.taps[0] * self.taps[1]),
                ("column", str(self._accumulator_row)),
                ("count", "count_c"),
            ),
            **self._layout(),
            **constants,
        )
        return KernelSource("kernel", source, 3, ConvDims._fields)

    def _copy(self, constants: dict[str, object]) -> str:
        """Lines that lay out a chunk of the image."""
        if self.few:
            at = "row * out_w * run_size + tap * channels + c"
            return fill(_EXPAND, pad=self.pad_row(at, "run_size", "x", "source", self.stride[1]), **constants)
        if self.narrow:
            element = load(self.dtype, "x", "source + c * area + col")
            channels = fill(_WIDEN_CHANNELS, element=element)
        else:
            transpose = f"transpose_{self.dtype}_{self.register_tile.lanes}"
            channels = fill(_CHANNELS, transpose=transpose, **constants)
        return fill(_COPY, channels=channels, **constants)

    def _layout(self) -> dict[str, str]:
        """Expressions for where pixels, runs and taps lie in the image and in the accumulators."""
        (_, kw), (sh, sw), (dh, dw) = self.taps, self.stride, self.dilation
        if self.few:
            return {
                "width": "out_w",
                "run_size": f"channels * {self.taps[0] * kw}",
                "pixel_at": "p * run_size",
                "run_at": "0",
                "column": "tap * channels",
            }
        run_taps, last = self._run_taps, (kw - 1) * dw + 1
        first_tap = f"run * {run_taps}"
        return {
            "width": f"imax(0, (out_w - 1) * {sw} + {last})",
            "run_size": f"block * {run_taps}",
            "pixel_at": f"(row * {sh} * width + (p - row * out_w) * {sw}) * block",
            "run_at": f"(udiv({first_tap}, {kw}) * {dh} * width + urem({first_tap}, {kw}) * {dw}) * block",
            "column": f"udiv(tap, {run_taps}) * {self._run_row} + urem(tap, {run_taps}) * block",
        }

    @property
    def _pixels(self) -> int:
        return _PIXELS_OF_FEW if self.few else _PIXELS

    @property
    def _run_taps(self) -> int:
        """Taps of a kernel row that are contiguous with their channels."""
        return self.taps[1] if self.dilation[1] == 1 else 1

    @property
    def _runs(self) -> int:
        return 1 if self.few else self.taps[0] * self.taps[1] // self._run_taps

    @property
    def _channel_block(self) -> int:
        """Channels of one copy: the fewest whole vectors of them that make runs of whole tiles."""
        tile = self.register_tile
        return tile.lanes if self._run_taps % tile.vectors == 0 else tile.columns

    @property
    def _run_row(self) -> int:
        columns = self.register_tile.columns
        return columns if self.few else -(-self._run_taps * self._channel_block // columns) * columns

    @property
    def _accumulator_row(self) -> int:
        return self._runs * self._run_row

    @property
    def _accumulator_bytes(self) -> int:
        return _FILTER_TILES * self.register_tile.rows * self._accumulator_row * self.dtype.compute.itemsize


# Padded pixels with their channels, image[row][col][c]; squares of channels × pixels by register transposes.
_COPY = """
for row in range((rows - 1) * $SH + ($KH - 1) * $DH + 1):
    target = row * width * block
    y_in = y0 * $SH + row - pad_h
    first = imin(width, pad_w)
    last = imin(width, imax(first, pad_w + in_w))
    if y_in < 0 or y_in >= in_h:
        last = first
    if first > 0 or last < width:
        for i in range(width * block):
            image[target + i] = 0.0
    source = ((image_number * channels + c0) * in_h + y_in) * in_w - pad_w
    $channels
"""

_CHANNELS = """
squares = udiv(last - first, $LANES)
whole = udiv(count_c, $LANES) * $LANES
for c in range(0, whole, $LANES):
    source_c = source + c * area + first
    $transpose(image, target + first * block + c, block, x, source_c, area, squares)
rest = first + squares * $LANES
copy_$compute(image, target + rest * block, 1, block, x, source + rest, area, whole, last - rest)
copy_$compute(image, target + first * block + whole, 1, block, x, source + whole * area + first, area,
              count_c - whole, last - first)
"""

_WIDEN_CHANNELS = """
for c in range(count_c):
    for col in range(first, last):
        image[target + col * block + c] = $element
"""

# All taps of a pixel side by side, image[pixel][tap][c].
_EXPAND = """
for i in range(channels * $TAPS):
    tap = udiv(i, channels)
    c = i - tap * channels
    tap_h = udiv(tap, $KW) * $DH - pad_h
    tap_w = urem(tap, $KW) * $DW - pad_w
    first = imin(width, udiv(imax(0, $SW - 1 - tap_w), $SW))
    last = imin(width, imax(first, udiv(imax(0, in_w - tap_w + $SW - 1), $SW)))
    for row in range(rows):
        y_in = (y0 + row) * $SH + tap_h
        stop = last
        if y_in < 0 or y_in >= in_h:
            stop = first
        source = ((image_number * channels + c) * in_h + y_in) * in_w + tap_w
        $pad
"""

_WIDEN_DY = """
for i in range(count):
    for p in range(rows * out_w):
        wide[i * chunk_pixels + p] = $element
"""

_WEIGHT_GRAD = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    dy = $pointer(buffers, 1)
    dw = $pointer(buffers, 2)
    $extents
    chunk_rows = imax(1, $PIXELS // imax(1, out_w))
    chunk_pixels = chunk_rows * out_w
    pixels = out_h * out_w
    area = in_h * in_w
    block = imin($BLOCK, channels)
    width = $width
    run_size = $run_size
    wide_at = $ACC_BYTES + (chunk_pixels * 16 + 63) // 64 * 64
    acc = ${compute}_at(scratch, 0, 0)
    table = i64_at(scratch, $ACC_BYTES, 1)
    $wide
    image = ${compute}_at(scratch, wide_at + ($WIDENED * chunk_pixels * $SIZE + 63) // 64 * 64, 3)
    for p in range(chunk_pixels):
        row = udiv(p, out_w)
        table[2 * p] = p
        table[2 * p + 1] = $pixel_at
    filter_tiles = (filters + $ROWS - 1) // $ROWS
    blocks = (channels + $BLOCK - 1) // $BLOCK
    step = begin
    while step < end:
        # Filter tiles of one channel block share its copy.
        strip = udiv(step, filter_tiles)
        tile0 = step - strip * filter_tiles
        tile1 = imin(filter_tiles, imin(tile0 + $FILTER_TILES, tile0 + end - step))
        step += tile1 - tile0
        group = udiv(strip, blocks)
        c0 = (strip - group * blocks) * $BLOCK
        count_c = imin(block, channels - c0)
        o0 = tile0 * $ROWS
        count = imin(filters, tile1 * $ROWS) - o0
        for i in range(count * $ACC_ROW):
            acc[i] = 0.0
        for n in range(batch):
            image_number = n * groups + group
            for y0 in range(0, out_h, chunk_rows):
                rows = imin(chunk_rows, out_h - y0)
                dy_at = (image_number * filters + o0) * pixels + y0 * out_w
                $widen
                $copy
                for run in range($RUNS):
                    run_at = $run_at
                    for j in range(0, run_size, $COLUMNS):
                        $call
        for tap in range($TAPS):
            target = ((group * filters + o0) * channels + c0) * $TAPS + tap
            column = $column
            $put
    return 0
"""
