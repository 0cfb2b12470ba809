"""Windows: maximum, its tap, sum, the elements at given taps, and the transposes. What pooling is made of.

A step of the parallel range finishes one line of the result: the channels of one position where they lie innermost,
else one row along the last axis. Taps in row-major order, each over the whole line, so that the inner loop is over
neighbouring elements (`stride` apart where windows move along the line).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ...ir.dims import Dim, product
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .conv import aligned
from .text import extent_loads, fill, load, storage, store

WindowKind = Literal["max", "argmax", "sum", "take", "spread", "put"]

# Kinds that go from windows to elements, and those that read a tap for each window.
TRANSPOSED = ("spread", "put")
PLACED = ("take", "put")


@dataclass(frozen=True)
class Window:
    """Generator of one window kernel.

    Operands: x `[planes, in..., channels]` → y `[planes, out..., channels]` (taps for `argmax`); for `spread` and
    `put` dy `[planes, out..., channels]` → dx `[planes, in..., channels]`. `take` and `put` read the taps `[planes,
    out..., channels]` behind it. Extents: `planes`, then per axis its input extent, its output extent, its low padding,
    then `channels` if there are any. Parallel range: see `parallel_range`.

    Attributes:
        kind: `max` (NaN wins, padding never; a window of padding gives the dtype's least value), `argmax` (the number
            of the first such tap, 0 for nothing but padding), `sum`, `take` (the element at a tap, 0 outside),
            `spread` and `put` (the transposes of `sum` and `take`). Sums run in the compute dtype.
        dtype: element type of the values.
        window, strides, dilations: one entry per axis, part of the source.
        channels: whether an axis that no window moves over lies innermost.
    """

    kind: WindowKind
    dtype: DType
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    channels: bool = False

    @property
    def extents(self) -> tuple[str, ...]:
        """Names of the extents, in order."""
        axes = range(len(self.window))
        names = ("planes", *(f"{name}_{i}" for name in ("in", "out", "pad") for i in axes))
        return (*names, "channels") if self.channels else names

    @property
    def _places(self) -> str:
        """The type that numbers taps."""
        return "u8" if math.prod(self.window) <= 256 else "i32"

    @property
    def _transposed(self) -> bool:
        return self.kind in TRANSPOSED

    def parallel_range(self, planes: Dim, inputs: tuple[Dim, ...], outputs: tuple[Dim, ...]) -> Dim:
        """Steps of the parallel range: lines of the result."""
        positions = inputs if self._transposed else outputs
        return planes * product(positions if self.channels else positions[:-1])

    def scratch_bytes(self, inputs: tuple[Dim, ...], outputs: tuple[Dim, ...], channels: Dim = 1) -> Dim:
        """Scratch bytes of one thread: a line of values, and of taps for `argmax`."""
        line = channels if self.channels else (inputs if self._transposed else outputs)[-1]
        return aligned(line * self.dtype.compute.itemsize) + (aligned(line * 4) if self.kind == "argmax" else 0)

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        result = self._places if self.kind == "argmax" else storage(self.dtype)
        last = len(self.window) - 1
        width = "channels" if self.channels else f"{'in' if self._transposed else 'out'}_{last}"
        placed = self.kind in PLACED
        source = fill(
            _LINES,
            extents=extent_loads(self.extents),
            source=f"{storage(self.dtype)}_ptr",
            given=f"place = {self._places}_ptr(buffers, 1)" if placed else "",
            result=f"{result}_ptr",
            slot=2 if placed else 1,
            compute=self.dtype.compute,
            width=width,
            taken=f"taken = i32_at(scratch, ({width} * {self.dtype.compute.itemsize} + 63) // 64 * 64, 1)"
            if self.kind == "argmax"
            else "",
            coordinates=self._coordinates(),
            start=self._start(),
            taps=self._taps(),
            finish=self._finish(),
        )
        return KernelSource("kernel", source, 3 if placed else 2, self.extents)

    @property
    def _nested(self) -> range:
        """The axes that have one coordinate on a line."""
        return range(len(self.window) - (0 if self.channels else 1))

    def _coordinates(self) -> str:
        """Lines: the line's coordinates o_i on the nested axes, and its plane."""
        extent = "in" if self._transposed else "out"
        lines = ["plane = step"]
        for i in reversed(self._nested):
            lines += [f"rest = plane // {extent}_{i}", f"o_{i} = plane - rest * {extent}_{i}", "plane = rest"]
        return "\n".join(lines)

    def _start(self) -> str:
        if self.kind not in ("max", "argmax"):
            return f"line[col] = {self.dtype.compute}(0)"
        if self.dtype.is_float:
            compute = self.dtype.compute
            value = f"bits_{compute}({_MINUS_INFINITY[compute.name]})"
        else:
            value = f"{self.dtype}({self.dtype.min})"
        return f"line[col] = {value}" + ("\ntaken[col] = i32(-1)" if self.kind == "argmax" else "")

    def _taps(self) -> str:
        """Nested loops over the taps, nested axes checked against their extents, around the loop along the line."""
        last, transposed = len(self.window) - 1, self._transposed
        extent = "out" if transposed else "in"
        flat, size, number = self._row_major(extent, self._nested), f"{extent}_{last}", self._number()
        if self.channels:
            text = fill(_CHANNELS, flat=f"plane * {self._plane(extent)} + {flat}", number=number, body=self._body())
        else:
            text = fill(
                _ROW_TRANSPOSED if transposed else _ROW,
                last=last,
                K=self.window[last],
                S=self.strides[last],
                D=self.dilations[last],
                flat=f"(plane * {self._plane(extent, last)} + {flat}) * {size}",
                number=number,
                body=self._body(),
            )
        for i in reversed(self._nested):
            text = fill(
                _NESTED_TRANSPOSED if transposed else _NESTED,
                i=i,
                K=self.window[i],
                S=self.strides[i],
                D=self.dilations[i],
                body=text,
            )
        return text

    def _plane(self, extent: str, count: int | None = None) -> str:
        """Positions of a plane over its first `count` axes."""
        axes = range(len(self.window) if count is None else count)
        return "(" + (" * ".join(f"{extent}_{i}" for i in axes) or "1") + ")"

    def _row_major(self, extent: str, axes: range) -> str:
        """The row-major position of the nested coordinates `at_0, at_1…`."""
        text = "0"
        for i in axes:
            text = f"({text}) * {extent}_{i} + at_{i}" if i else "at_0"
        return text

    def _number(self) -> str:
        """The row-major number of the tap `k_0, k_1…`, in the type that numbers taps."""
        text = "0"
        for i, k in enumerate(self.window):
            text = f"({text}) * {k} + k_{i}" if i else "k_0"
        return f"{'i32' if self.kind == 'argmax' else self._places}({text})"

    def _body(self) -> str:
        compute, stride = self.dtype.compute, 1 if self.channels else self.strides[-1]
        moved = "col" if stride == 1 else f"col * {stride}"
        if self._transposed:
            target = "col" if self.channels else f"{moved} + shift"
            value = load(self.dtype, "x", "base + col")
            if self.kind == "put":
                value = f"select(place[base + col] == number, {value}, {compute}(0))"
            return f"line[{target}] = {compute}(line[{target}] + {value})"
        found = load(self.dtype, "x", f"base + {moved}")
        if self.kind == "sum":
            return f"line[col] = {compute}(line[col] + {found})"
        if self.kind == "take":
            return f"line[col] = select(place[step * width + col] == number, {found}, line[col])"
        better = "(found > best)"
        if self.dtype.is_float:
            better += " | ((found != found) & (best == best))"
        if self.kind == "max":
            return f"found = {found}\nbest = line[col]\nline[col] = select({better}, found, best)"
        return fill(_ARGMAX, found=found, better=better)

    def _finish(self) -> str:
        if self.kind == "argmax":
            return f"y[step * width + col] = {self._places}(select(taken[col] < i32(0), i32(0), taken[col]))"
        return store(self.dtype, "y", "step * width + col", "line[col]")


_MINUS_INFINITY = {"f32": "i32(-8388608)", "f64": "i64(-4503599627370496)"}

_LINES = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $source(buffers, 0)
    $given
    y = $result(buffers, $slot)
    $extents
    width = $width
    line = ${compute}_at(scratch, 0, 0)
    $taken
    for step in range(begin, end):
        $coordinates
        for col in range(width):
            $start
        $taps
        for col in range(width):
            $finish
    return 0
"""

_NESTED = """
for k_$i in range($K):
    at_$i = o_$i * $S + k_$i * $D - pad_$i
    if at_$i >= 0 and at_$i < in_$i:
        $body
"""

_NESTED_TRANSPOSED = """
for k_$i in range($K):
    reach_$i = o_$i + pad_$i - k_$i * $D
    at_$i = reach_$i // $S
    if reach_$i >= 0 and reach_$i % $S == 0 and at_$i < out_$i:
        $body
"""

_CHANNELS = """
number = $number
base = ($flat) * channels
for col in range(channels):
    $body
"""

# Columns whose tap falls inside the unpadded row.
_ROW = """
for k_$last in range($K):
    number = $number
    shift = k_$last * $D - pad_$last
    first = imin(width, imax(0, ($S - 1 - shift) // $S))
    stop = imin(width, imax(first, (in_$last - shift + $S - 1) // $S))
    base = $flat + shift
    for col in range(first, stop):
        $body
"""

_ROW_TRANSPOSED = """
for k_$last in range($K):
    number = $number
    shift = k_$last * $D - pad_$last
    first = imin(out_$last, imax(0, ($S - 1 - shift) // $S))
    stop = imin(out_$last, imax(first, (in_$last - shift + $S - 1) // $S))
    base = $flat
    for col in range(first, stop):
        $body
"""

_ARGMAX = """
found = $found
best = line[col]
tap = taken[col]
better = (tap < i32(0)) | $better
line[col] = select(better, found, best)
taken[col] = select(better, number, tap)
"""
