"""Gradient of a convolution by its input, which is the transposed convolution.

`dx[n, c, u] = sum over (o, kh, kw) of w[o, c, kh, kw] * dy[n, o, (u + pad - k * dilation) / stride]` where
the division is exact and the pixel exists. Gather form: input pixels are split by their place modulo the
stride; pixels of one residue share their taps and read dy at unit stride.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, floordiv
from ..kernel import KernelSource
from .conv import SLACK, WIDEN_WEIGHTS, ConvDims, Convolution, aligned, chunks, rows_per_chunk
from .text import Epilogue, call_epilogue, extent_loads, fill, load, storage
from .tiles import MicroKernel

# Channels whose results are kept until they are written out.
_CHANNEL_TILES = 4


@dataclass(frozen=True)
class ConvInputGrad(Convolution):
    """Generator of input-gradient kernels; k ascends over (o, kh, kw).

    Operands: dy `[n, g*o, oh, ow]`, w `[g*o, c, kh, kw]`, then dx `[n, g*c, h, w]` or the epilogue's.
    Extents: `ConvDims` of the forward convolution, then the epilogue's. Parallel range: images × groups ×
    chunks of dx rows.

    Attributes:
        epilogue: fused work instead of storing dx: b is the image, m the channel (all groups), n the dx
            pixel. Only for strides of 1, where the pixels of a row are finished together.
    """

    epilogue: Epilogue | None = None

    def parallel_range(self, dims: ConvDims) -> Dim:
        """Steps of the parallel range."""
        places = self._places(dims)
        return dims.batch * dims.groups * chunks(places[0], rows_per_chunk(places[1]))

    def scratch_bytes(self, dims: ConvDims) -> Dim:
        """Scratch bytes of one thread: offset tables, padded dy rows, accumulators, widened weights."""
        (kh, kw), size, tile = self.taps, self.dtype.compute.itemsize, self.register_tile
        columns = self._places(dims)[1]
        rows = rows_per_chunk(columns)
        height, width = rows + self.reach[0], columns + self.reach[1]
        accumulators = _CHANNEL_TILES * tile.rows * (rows * width + SLACK)
        weights = dims.groups * dims.filters * dims.channels * kh * kw if self.narrow else 0
        return (
            aligned((self._residues + 1) * 8)
            + aligned(dims.filters * kh * kw * 16)
            + aligned((dims.filters * height * width + SLACK) * size)
            + aligned(accumulators * size)
            + aligned(weights * size)
        )

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        constants = self.constants() | {
            "CHANNELS": _CHANNEL_TILES * self.register_tile.rows,
            "RESIDUES": self._residues,
            "FIRST": int(self.epilogue is not None),
            "SECOND": int(self.epilogue is not None) + 1,
        }
        narrow = fill(WIDEN_WEIGHTS, element=load(self.dtype, "w", "i"), **constants) if self.narrow else ""
        source = fill(
            _INPUT_GRAD,
            extents=extent_loads(ConvDims._fields),
            call=self._call(),
            pad=self.pad_row("target", 1, "dy", "source", 1),
            weights=f"weights = {self.dtype.compute}_at(scratch, weights_at, 4)\n{narrow}" if self.narrow else "",
            output="" if self.epilogue else f"dx = {storage(self.dtype)}_ptr(buffers, 2)",
            finish=self._finish(),
            **constants,
        )
        extra = self.epilogue or Epilogue("", 1)
        links = (extra.link(2),) if self.epilogue else ()
        return KernelSource("kernel", source, 2 + extra.n_buffers, ConvDims._fields + extra.extents, links=links)

    def _places(self, dims: ConvDims) -> tuple[Dim, Dim]:
        """Rows and columns of dx counted in whole strides."""
        (sh, sw) = self.stride
        return (
            floordiv(dims.pad_h + dims.in_h - 1, sh) - floordiv(dims.pad_h, sh) + 1,
            floordiv(dims.pad_w + dims.in_w - 1, sw) - floordiv(dims.pad_w, sw) + 1,
        )

    @property
    def _residues(self) -> int:
        return self.stride[0] * self.stride[1]

    def _call(self) -> str:
        name = MicroKernel(self.dtype.compute.name, self.register_tile, indexed=True).name
        weights = "weights" if self.narrow else "w"
        taps = self.taps[0] * self.taps[1]
        return (
            f"{name}(acc, p, acc_row, {weights}, (group * filters * channels + c0) * {taps}, {taps}, "
            "image, p, table, 2 * starts[residue], depth, count, 0)"
        )

    def _finish(self) -> str:
        if self.epilogue is None:
            target = (f"target + first * {self.stride[1]}", "in_h * in_w", self.stride[1])
            copy = self.copy_rows("dx", target, ("place * width + first", "acc_row"), ("count", "last - first"))
            return fill(_STORE, copy=copy, **self.constants())
        if self._residues != 1:
            raise ValueError("an input gradient takes an epilogue only at stride 1")
        body = call_epilogue(
            acc="offset(acc, row * width)",
            stride="acc_row",
            b="n",
            m=("group * channels + c0", "group * channels + c0 + count"),
            n=("(q0 + row) * in_w", "(q0 + row + 1) * in_w"),
            own_extents=str(len(ConvDims._fields)),
            own_operands=2,
        )
        return fill("for row in range(rows):\n    $body", body=body)


_STORE = """
first = imax(0, udiv(pad_w + $SW - 1 - residue_w, $SW) - low_w)
last = imin(columns, udiv(pad_w + in_w + $SW - 1 - residue_w, $SW) - low_w)
for place in range(rows):
    y = (low_h + q0 + place) * $SH + residue_h - pad_h
    if y >= 0 and y < in_h:
        target = ((image_number * channels + c0) * in_h + y) * in_w + low_w * $SW + residue_w - pad_w
        $copy
"""

_INPUT_GRAD = """
def kernel(buffers, extents, begin, end, scratch, status):
    dy = $pointer(buffers, $FIRST)
    w = $pointer(buffers, $SECOND)
    $output
    $extents
    low_h = pad_h // $SH
    low_w = pad_w // $SW
    places = (pad_h + in_h - 1) // $SH - low_h + 1
    columns = (pad_w + in_w - 1) // $SW - low_w + 1
    chunk_rows = imax(1, $PIXELS // imax(1, columns))
    chunks = (places + chunk_rows - 1) // chunk_rows
    width = columns + $REACH_W
    plane = (chunk_rows + $REACH_H) * width
    acc_row = chunk_rows * width + $SLACK
    table_at = ($RESIDUES * 8 + 71) // 64 * 64
    image_at = table_at + (filters * $TAPS * 16 + 63) // 64 * 64
    acc_at = image_at + ((filters * plane + $SLACK) * $SIZE + 63) // 64 * 64
    weights_at = acc_at + ($CHANNELS * acc_row * $SIZE + 63) // 64 * 64
    starts = i64_at(scratch, 0, 0)
    table = i64_at(scratch, table_at, 1)
    image = ${compute}_at(scratch, image_at, 2)
    acc = ${compute}_at(scratch, acc_at, 3)
    $weights
    # Per residue, the taps that reach it: their weights, and how far back their pixel of dy lies.
    k = 0
    for residue in range($RESIDUES):
        starts[residue] = k
        for i in range(filters * $TAPS):
            o = udiv(i, $TAPS)
            tap = i - o * $TAPS
            tap_h = udiv(tap, $KW) * $DH
            tap_w = urem(tap, $KW) * $DW
            if urem(tap_h, $SH) * $SW + urem(tap_w, $SW) == residue:
                table[2 * k] = o * channels * $TAPS + tap
                table[2 * k + 1] = (o * plane + ($REACH_H - udiv(tap_h, $SH)) * width
                                    + $REACH_W - udiv(tap_w, $SW))
                k += 1
    starts[$RESIDUES] = k
    for step in range(begin, end):
        image_number = udiv(step, chunks)
        q0 = (step - image_number * chunks) * chunk_rows
        rows = imin(chunk_rows, places - q0)
        n = udiv(image_number, groups)
        group = image_number - n * groups
        first = imin(width, imax(0, $REACH_W - low_w))
        last = imin(width, imax(first, out_w + $REACH_W - low_w))
        for o in range(filters):
            for row in range(rows + $REACH_H):
                target = o * plane + row * width
                y_in = low_h + q0 + row - $REACH_H
                stop = last
                if y_in < 0 or y_in >= out_h:
                    stop = first
                source = ((image_number * filters + o) * out_h + y_in) * out_w + low_w - $REACH_W
                $pad
        for residue in range($RESIDUES):
            residue_h = udiv(residue, $SW)
            residue_w = urem(residue, $SW)
            depth = starts[residue + 1] - starts[residue]
            for c0 in range(0, channels, $CHANNELS):
                count = imin($CHANNELS, channels - c0)
                for p in range(0, (rows - 1) * width + columns, $COLUMNS):
                    $call
                $finish
    return 0
"""
