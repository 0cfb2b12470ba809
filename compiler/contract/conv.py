"""What the three convolution kernels share: geometry, operand dims, the halo copy, scratch layout.

All work on NCHW (or NCW) without im2col. An image's channels are copied, zero-padded, into scratch so that
the element that tap k of output pixel p reads lies at `offset[k] + p` for every p of a run of rows: the taps
of a convolution are then the rows of a matrix that is never written down, and the micro-kernel reads them
through a table of offsets. Runs of pixels cross the ends of rows; what is computed there is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ...ir.dims import Dim, dmax, floordiv
from ...ir.dtypes import DType
from .text import fill, load, storage, store
from .tiles import TileShape, tile_shape

# Output pixels of one step of the parallel range, about.
CHUNK_PIXELS = 256
# Elements that a full-width vector read may pass the end of an area by.
SLACK = 64


class ConvDims(NamedTuple):
    """The run-time extents of every convolution kernel, in their order.

    `channels` and `filters` count per group. A 1-D convolution has `in_h == out_h == 1` and `pad_h == 0`.
    `pad_h`, `pad_w` are the low paddings (non-negative); the high ones follow from the output size.
    """

    batch: Dim
    groups: Dim
    channels: Dim
    filters: Dim
    in_h: Dim
    in_w: Dim
    out_h: Dim
    out_w: Dim
    pad_h: Dim
    pad_w: Dim


def _pair(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


@dataclass(frozen=True)
class Convolution:
    """A convolution's structure: part of the source text. Base of the three generators.

    Attributes:
        dtype: element type of all operands; sixteen-bit floats accumulate in float32.
        window: kernel size, one or two axes.
        strides, dilations: one per axis of `window`; 1 where left out.
        tile: register tile; this CPU's by default.
    """

    dtype: DType
    window: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    tile: TileShape | None = None

    @property
    def taps(self) -> tuple[int, int]:
        """Window size in two axes."""
        return _pair(self.window, 1)

    @property
    def stride(self) -> tuple[int, int]:
        """Strides in two axes."""
        return _pair(self.strides or (1,) * len(self.window), 1)

    @property
    def dilation(self) -> tuple[int, int]:
        """Dilations in two axes."""
        return _pair(self.dilations or (1,) * len(self.window), 1)

    @property
    def reach(self) -> tuple[int, int]:
        """How many strides the last tap lies behind the first, per axis."""
        return tuple((k - 1) * d // s for k, d, s in zip(self.taps, self.dilation, self.stride, strict=True))  # type: ignore[return-value]

    @property
    def narrow(self) -> bool:
        """Stored in sixteen bits, computed in float32."""
        return self.dtype is not self.dtype.compute

    @property
    def register_tile(self) -> TileShape:
        """The tile in use."""
        return self.tile or tile_shape(self.dtype.compute)

    def pad_row(self, target: str, target_step: int | str, operand: str, source: str, source_step: int) -> str:
        """Lines: a zero-padded row of the image, `width` long, `[first, stop)` of it from an operand."""
        if not self.narrow:
            return (
                f"pad_{self.dtype}(image, {target}, {target_step}, "
                f"{operand}, {source}, {source_step}, first, stop, width)"
            )
        at = f"{target} + col * {target_step}"
        return fill(_PAD_ROW, at=at, element=load(self.dtype, operand, f"{source} + col * {source_step}"))

    def copy_rows(
        self, operand: str, target: tuple[str, str, int], source: tuple[str, str], size: tuple[str, str]
    ) -> str:
        """Lines: rows of accumulators to rows of an operand.

        Args:
            operand: the name of its pointer.
            target: offset, distance of rows, distance of columns.
            source: offset in `acc`, distance of rows.
            size: rows, columns.
        """
        (at, row, step), (source_at, source_row), (rows, width) = target, source, size
        if not self.narrow:
            to, of = f"{operand}, {at}, {row}, {step}", f"acc, {source_at}, {source_row}"
            return f"copy_{self.dtype}({to}, {of}, {rows}, {width})"
        value = f"acc[{source_at} + row * {source_row} + col]"
        put = store(self.dtype, operand, f"{at} + row * {row} + col * {step}", value)
        return fill(_COPY_ROWS, rows=rows, width=width, put=put)

    def constants(self) -> dict[str, object]:
        """Template values that all three kernels use."""
        (kh, kw), (sh, sw), (dh, dw), tile = self.taps, self.stride, self.dilation, self.register_tile
        return {
            "KH": kh,
            "KW": kw,
            "SH": sh,
            "SW": sw,
            "DH": dh,
            "DW": dw,
            "TAPS": kh * kw,
            "REACH_H": self.reach[0],
            "REACH_W": self.reach[1],
            "PIXELS": CHUNK_PIXELS,
            "SLACK": SLACK,
            "LANES": tile.lanes,
            "COLUMNS": tile.columns,
            "ROWS": tile.rows,
            "SIZE": self.dtype.compute.itemsize,
            "compute": self.dtype.compute,
            "pointer": f"{storage(self.dtype)}_ptr",
        }


def aligned(size: Dim) -> Dim:
    """Bytes rounded up to a cache line."""
    return floordiv(size + 63, 64) * 64


def rows_per_chunk(width: Dim, pixels: int = CHUNK_PIXELS) -> Dim:
    """Output rows of one chunk of about `pixels` pixels, at least one."""
    return dmax(1, floordiv(pixels, dmax(1, width)))


def chunks(rows: Dim, per_chunk: Dim) -> Dim:
    """How many chunks the rows make."""
    return floordiv(rows + per_chunk - 1, per_chunk)


_PAD_ROW = """
for col in range(first):
    image[$at] = 0.0
for col in range(first, stop):
    image[$at] = $element
for col in range(stop, width):
    image[$at] = 0.0
"""

_COPY_ROWS = """
for row in range($rows):
    for col in range($width):
        $put
"""

# The weights of all groups, widened once per launch and thread.
WIDEN_WEIGHTS = """
for i in range(groups * filters * channels * $TAPS):
    weights[i] = $element
"""
