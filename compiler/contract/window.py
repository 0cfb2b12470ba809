"""Windows over the last axes: maximum, its place, sum, and the transpose of the sum. What pooling is made of.

One step of the parallel range finishes one row along the last axis: taps in row-major order, each over the
whole row, so that the inner loop is over neighbouring elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...ir.dims import Dim, product
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .conv import aligned
from .text import extent_loads, fill, load, storage, store

WindowKind = Literal["max", "argmax", "sum", "spread"]


@dataclass(frozen=True)
class Window:
    """Generator of one window kernel.

    Operands: x `[planes, in...]` → y `[planes, out...]` (int64 for `argmax`); for `spread` dy `[planes,
    out...]` → dx `[planes, in...]`. Extents: `planes`, then per axis its input extent, its output extent, its
    low padding. Parallel range: rows of the result.

    Attributes:
        kind: `max` (NaN wins, padding never; a window of padding gives the dtype's least value), `argmax`
            (flat index over the unpadded axes of the first such element, 0 for nothing but padding), `sum`,
            `spread` (the transpose of `sum`). Sums run in the compute dtype.
        dtype: element type of the input.
        window, strides, dilations: one entry per axis, part of the source.
    """

    kind: WindowKind
    dtype: DType
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def extents(self) -> tuple[str, ...]:
        """Names of the extents, in order."""
        axes = range(len(self.window))
        return ("planes", *(f"{name}_{i}" for name in ("in", "out", "pad") for i in axes))

    def parallel_range(self, planes: Dim, inputs: tuple[Dim, ...], outputs: tuple[Dim, ...]) -> Dim:
        """Steps of the parallel range."""
        return planes * product((inputs if self.kind == "spread" else outputs)[:-1])

    def scratch_bytes(self, inputs: tuple[Dim, ...], outputs: tuple[Dim, ...]) -> Dim:
        """Scratch bytes of one thread: a row of values, and of places for `argmax`."""
        row = (inputs if self.kind == "spread" else outputs)[-1]
        return aligned(row * self.dtype.compute.itemsize) + (aligned(row * 8) if self.kind == "argmax" else 0)

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        last, spread = len(self.window) - 1, self.kind == "spread"
        result = "i64" if self.kind == "argmax" else storage(self.dtype)
        source = fill(
            _ROWS,
            extents=extent_loads(self.extents),
            source=f"{storage(self.dtype)}_ptr",
            result=f"{result}_ptr",
            compute=self.dtype.compute,
            width=f"{'in' if spread else 'out'}_{last}",
            places=self._places() if self.kind == "argmax" else "",
            plane_size=" * ".join(f"{'out' if spread else 'in'}_{i}" for i in range(last + 1)),
            coordinates=self._coordinates(),
            start=self._start(),
            taps=self._taps(),
            finish=self._finish(),
        )
        return KernelSource("kernel", source, 2, self.extents)

    def _places(self) -> str:
        last = len(self.window) - 1
        return f"places = i64_at(scratch, (out_{last} * {self.dtype.compute.itemsize} + 63) // 64 * 64, 1)"

    def _coordinates(self) -> str:
        """Lines: the row's coordinates o_i on the outer axes, and its plane."""
        extent = "in" if self.kind == "spread" else "out"
        lines = ["plane = step"]
        for i in reversed(range(len(self.window) - 1)):
            lines += [f"rest = plane // {extent}_{i}", f"o_{i} = plane - rest * {extent}_{i}", "plane = rest"]
        return "\n".join(lines)

    def _start(self) -> str:
        if self.kind in ("sum", "spread"):
            return f"row[col] = {self.dtype.compute}(0)"
        least = "-inf" if self.dtype.is_float else str(self.dtype.min)
        value = (
            f"bits_{self.dtype.compute}({_MINUS_INFINITY[self.dtype.compute.name]})"
            if least == "-inf"
            else (f"{self.dtype}({least})")
        )
        return f"row[col] = {value}" + ("\nplaces[col] = -1" if self.kind == "argmax" else "")

    def _taps(self) -> str:
        """Nested loops over the taps, outer axes checked against their extents, around the row loop."""
        last = len(self.window) - 1
        text = fill(
            _SPREAD_TAP if self.kind == "spread" else _TAP,
            last=last,
            K=self.window[last],
            S=self.strides[last],
            D=self.dilations[last],
            flat=self._flat("in" if self.kind != "spread" else "out"),
            body=self._body(),
        )
        for i in reversed(range(last)):
            text = fill(
                _OUTER_SPREAD if self.kind == "spread" else _OUTER,
                i=i,
                K=self.window[i],
                S=self.strides[i],
                D=self.dilations[i],
                body=text,
            )
        return text

    def _flat(self, extent: str) -> str:
        """The row-major index of the row `at_0, at_1…` over the outer axes."""
        text = "0"
        for i in range(len(self.window) - 1):
            text = f"({text}) * {extent}_{i} + at_{i}" if i else "at_0"
        return text

    def _body(self) -> str:
        if self.kind == "spread":
            target = f"col * {self.strides[-1]} + shift"
            value = load(self.dtype, "x", "base + col")
            return f"row[{target}] = {self.dtype.compute}(row[{target}] + {value})"
        found = load(self.dtype, "x", f"base + col * {self.strides[-1]}")
        if self.kind == "sum":
            return f"row[col] = {self.dtype.compute}(row[col] + {found})"
        better = "found > best"
        if self.dtype.is_float:
            better += " or (found != found and best == best)"
        if self.kind == "max":
            return f"found = {found}\nbest = row[col]\nrow[col] = found if {better} else best"
        return fill(_ARGMAX, found=found, better=better, stride=self.strides[-1])

    def _finish(self) -> str:
        if self.kind == "argmax":
            return "y[step * width + col] = imax(places[col], 0)"
        return store(self.dtype, "y", "step * width + col", "row[col]")


_MINUS_INFINITY = {"f32": "i32(-8388608)", "f64": "i64(-4503599627370496)"}

_ROWS = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $source(buffers, 0)
    y = $result(buffers, 1)
    $extents
    width = $width
    plane_size = $plane_size
    row = ${compute}_at(scratch, 0, 0)
    $places
    for step in range(begin, end):
        $coordinates
        for col in range(width):
            $start
        $taps
        for col in range(width):
            $finish
    return 0
"""

_OUTER = """
for k_$i in range($K):
    at_$i = o_$i * $S + k_$i * $D - pad_$i
    if at_$i >= 0 and at_$i < in_$i:
        $body
"""

_OUTER_SPREAD = """
for k_$i in range($K):
    reach_$i = o_$i + pad_$i - k_$i * $D
    at_$i = reach_$i // $S
    if reach_$i >= 0 and reach_$i % $S == 0 and at_$i < out_$i:
        $body
"""

# Columns whose tap falls inside the unpadded row.
_TAP = """
for k in range($K):
    shift = k * $D - pad_$last
    first = imin(width, imax(0, ($S - 1 - shift) // $S))
    stop = imin(width, imax(first, (in_$last - shift + $S - 1) // $S))
    flat = ($flat) * in_$last + shift
    base = plane * plane_size + flat
    for col in range(first, stop):
        $body
"""

_SPREAD_TAP = """
for k in range($K):
    shift = k * $D - pad_$last
    first = imin(out_$last, imax(0, ($S - 1 - shift) // $S))
    stop = imin(out_$last, imax(first, (in_$last - shift + $S - 1) // $S))
    base = plane * plane_size + ($flat) * out_$last
    for col in range(first, stop):
        $body
"""

_ARGMAX = """
found = $found
best = row[col]
if places[col] < 0 or $better:
    row[col] = found
    places[col] = flat + col * $stride
"""
