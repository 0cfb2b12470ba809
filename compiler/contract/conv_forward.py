"""Convolution forward.

`y[n, o, p] = sum over (c, kh, kw) of w[o, c, kh, kw] * x[n, c, p * stride + k * dilation - pad]`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim
from ..kernel import KernelSource
from .conv import SLACK, WIDEN_WEIGHTS, ConvDims, Convolution, aligned, chunks, rows_per_chunk
from .text import Epilogue, call_epilogue, extent_loads, fill, load, storage
from .tiles import MicroKernel

# Filters whose results are kept until they are written out.
_FILTER_TILES = 4


@dataclass(frozen=True)
class ConvForward(Convolution):
    """Generator of forward kernels; k ascends over (c, kh, kw).

    Operands: x `[n, g*c, h, w]`, w `[g*o, c, kh, kw]`, then y `[n, g*o, oh, ow]` or the epilogue's. Extents:
    `ConvDims`, then the epilogue's. Parallel range: images × groups × chunks of output rows.

    Attributes:
        epilogue: fused work instead of storing y: b is the image, m the filter (all groups), n the output
            pixel.
    """

    epilogue: Epilogue | None = None

    def parallel_range(self, dims: ConvDims) -> Dim:
        """Steps of the parallel range."""
        return dims.batch * dims.groups * chunks(dims.out_h, rows_per_chunk(dims.out_w))

    def scratch_bytes(self, dims: ConvDims) -> Dim:
        """Scratch bytes of one thread: offset table, padded image rows, accumulators, widened weights."""
        (kh, kw), size, tile = self.taps, self.dtype.compute.itemsize, self.register_tile
        rows = rows_per_chunk(dims.out_w)
        height, width = rows + self.reach[0], dims.out_w + self.reach[1]
        image = dims.channels * self._phases[0] * self._phases[1] * height * width + SLACK
        accumulators = _FILTER_TILES * tile.rows * (rows * width + SLACK)
        weights = dims.groups * dims.filters * dims.channels * kh * kw if self.narrow else 0
        return (
            aligned(dims.channels * kh * kw * 16)
            + aligned(image * size)
            + aligned(accumulators * size)
            + aligned(weights * size)
        )

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        constants = self.constants() | {
            "PH": self._phases[0],
            "PW": self._phases[1],
            "FILTERS": self._filter_block,
            "FIRST": int(self.epilogue is not None),
            "SECOND": int(self.epilogue is not None) + 1,
        }
        narrow = fill(WIDEN_WEIGHTS, element=load(self.dtype, "w", "i"), **constants) if self.narrow else ""
        source = fill(
            _FORWARD,
            extents=extent_loads(ConvDims._fields),
            call=self._call(),
            pad=self.pad_row("target", 1, "x", "source", self.stride[1]),
            weights=f"weights = {self.dtype.compute}_at(scratch, weights_at, 3)\n{narrow}" if self.narrow else "",
            output="" if self.epilogue else f"y = {storage(self.dtype)}_ptr(buffers, 2)",
            finish=self._finish(),
            **constants,
        )
        extra = self.epilogue or Epilogue("", 1)
        links = (extra.link(2),) if self.epilogue else ()
        return KernelSource("kernel", source, 2 + extra.n_buffers, ConvDims._fields + extra.extents, links=links)

    @property
    def _phases(self) -> tuple[int, int]:
        """Sub-images by position modulo the stride: every tap reads one of them at unit stride."""
        return tuple(min(s, (k - 1) * d + 1) for k, d, s in zip(self.taps, self.dilation, self.stride, strict=True))  # type: ignore[return-value]

    @property
    def _filter_block(self) -> int:
        return _FILTER_TILES * self.register_tile.rows

    def _call(self) -> str:
        name = MicroKernel(self.dtype.compute.name, self.register_tile, indexed=True).name
        weights = "weights" if self.narrow else "w"
        return (
            f"{name}(acc, p, acc_row, {weights}, (group * filters + o0) * depth, depth, image, p, table, 0, "
            "depth, count, 0)"
        )

    def _finish(self) -> str:
        if self.epilogue is not None:
            body = call_epilogue(
                acc="offset(acc, row * width)",
                stride="acc_row",
                b="n",
                m=("group * filters + o0", "group * filters + o0 + count"),
                n=("(y0 + row) * out_w", "(y0 + row + 1) * out_w"),
                own_extents=str(len(ConvDims._fields)),
                own_operands=2,
            )
            return fill("for row in range(rows):\n    $body", body=body)
        target = ("((image_number * filters + o0 + o) * out_h + y0) * out_w", "out_w", 1)
        copy = self.copy_rows("y", target, ("o * acc_row", "width"), ("rows", "out_w"))
        return fill("for o in range(count):\n    $copy", copy=copy)


_FORWARD = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, $FIRST)
    w = $pointer(buffers, $SECOND)
    $output
    $extents
    depth = channels * $TAPS
    chunk_rows = imax(1, $PIXELS // imax(1, out_w))
    chunks = (out_h + chunk_rows - 1) // chunk_rows
    width = out_w + $REACH_W
    plane = (chunk_rows + $REACH_H) * width
    channel = plane * $PH * $PW
    acc_row = chunk_rows * width + $SLACK
    image_at = (depth * 16 + 63) // 64 * 64
    acc_at = image_at + ((channels * channel + $SLACK) * $SIZE + 63) // 64 * 64
    weights_at = acc_at + ($FILTERS * acc_row * $SIZE + 63) // 64 * 64
    table = i64_at(scratch, 0, 0)
    image = ${compute}_at(scratch, image_at, 1)
    acc = ${compute}_at(scratch, acc_at, 2)
    $weights
    # Tap k of a pixel: its weight, and where its place's phase image begins, moved by strides.
    for k in range(depth):
        c = udiv(k, $TAPS)
        tap = k - c * $TAPS
        tap_h = udiv(tap, $KW) * $DH
        tap_w = urem(tap, $KW) * $DW
        table[2 * k] = k
        table[2 * k + 1] = (c * channel + (urem(tap_h, $SH) * $PW + urem(tap_w, $SW)) * plane
                            + udiv(tap_h, $SH) * width + udiv(tap_w, $SW))
    for step in range(begin, end):
        image_number = udiv(step, chunks)
        y0 = (step - image_number * chunks) * chunk_rows
        rows = imin(chunk_rows, out_h - y0)
        n = udiv(image_number, groups)
        group = image_number - n * groups
        for c in range(channels):
            for phase in range($PH * $PW):
                phase_h = udiv(phase, $PW)
                phase_w = urem(phase, $PW)
                first = imin(width, udiv(imax(0, pad_w - phase_w + $SW - 1), $SW))
                last = imin(width, imax(first, udiv(pad_w + in_w - phase_w + $SW - 1, $SW)))
                for row in range(rows + $REACH_H):
                    target = c * channel + phase * plane + row * width
                    y_in = (y0 + row) * $SH + phase_h - pad_h
                    stop = last
                    if y_in < 0 or y_in >= in_h:
                        stop = first
                    source = ((image_number * channels + c) * in_h + y_in) * in_w + phase_w - pad_w
                    $pad
        for o0 in range(0, filters, $FILTERS):
            count = imin($FILTERS, filters - o0)
            for p in range(0, (rows - 1) * width + out_w, $COLUMNS):
                $call
            $finish
    return 0
"""
