"""Convolution and its gradients by plain loops: for integers, and for more than two spatial axes.

Floats use fused multiply-adds and k ascends as in the fast kernels, so that the rule is one for all
contractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...ir.dims import Dim, product
from ...ir.dtypes import DType
from ..kernel import KernelSource
from .conv import aligned
from .text import extent_loads, fill, load, storage, store

PlainKind = Literal["forward", "input_grad", "weight_grad"]


@dataclass(frozen=True)
class PlainConvolution:
    """Generator of one plain convolution kernel.

    Operands: `forward` x, w → y; `input_grad` dy, w → dx; `weight_grad` x, dy → dw. Extents: `batch`,
    `groups`, `channels`, `filters` (per group), then for all axes the input extents, the output extents, the
    low paddings. Parallel range: rows of y or dx; elements of dw without their taps.

    Attributes:
        kind: which of the three.
        dtype: element type; sixteen-bit floats accumulate in float32, integers wrap.
        window, strides, dilations: one entry per axis.
    """

    kind: PlainKind
    dtype: DType
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def extents(self) -> tuple[str, ...]:
        """Names of the extents, in order."""
        axes = range(len(self.window))
        spatial = (f"{name}_{i}" for name in ("in", "out", "pad") for i in axes)
        return ("batch", "groups", "channels", "filters", *spatial)

    def parallel_range(
        self,
        batch: Dim,
        groups: Dim,
        channels: Dim,
        filters: Dim,
        inputs: tuple[Dim, ...],
        outputs: tuple[Dim, ...],
    ) -> Dim:
        """Steps of the parallel range."""
        if self.kind == "forward":
            return batch * groups * filters * product(outputs[:-1])
        if self.kind == "input_grad":
            return batch * groups * channels * product(inputs[:-1])
        return groups * filters * channels

    def scratch_bytes(self, inputs: tuple[Dim, ...], outputs: tuple[Dim, ...]) -> Dim:
        """Scratch bytes of one thread: a row of sums."""
        if self.kind == "weight_grad":
            return 0
        return aligned((outputs if self.kind == "forward" else inputs)[-1] * 8)

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        text = {"forward": self._forward, "input_grad": self._input_grad, "weight_grad": self._weight_grad}
        return KernelSource("kernel", text[self.kind](), 3, self.extents)

    @property
    def _axes(self) -> range:
        return range(len(self.window))

    def _constants(self) -> dict[str, object]:
        last = len(self.window) - 1
        return {
            "extents": extent_loads(self.extents),
            "pointer": f"{storage(self.dtype)}_ptr",
            "last": last,
            "sum": self.dtype.name if self.dtype.is_integer else self.dtype.compute,
            "K": self.window[last],
            "S": self.strides[last],
            "D": self.dilations[last],
            "in_size": " * ".join(f"in_{i}" for i in self._axes),
            "out_size": " * ".join(f"out_{i}" for i in self._axes),
            "taps": product(self.window),
        }

    def _multiply_add(self, total: str, a: str, b: str) -> str:
        """Expression: `total + a * b`, rounded once or wrapped."""
        if self.dtype.is_float:
            return f"fma({a}, {b}, {total})"
        return f"{self.dtype}(i64({total}) + i64({a}) * i64({b}))"

    def _nested(self, inner: str, template: str) -> str:
        """`inner` under a loop over the taps of every outer axis, `template`."""
        for i in reversed(self._axes[:-1]):
            inner = fill(template, i=i, K=self.window[i], S=self.strides[i], D=self.dilations[i], body=inner)
        return inner

    def _flat(self, extent: str, coordinate: str) -> str:
        """Row-major index over the outer axes."""
        text = "0"
        for i in self._axes[:-1]:
            text = f"({text}) * {extent}_{i} + {coordinate}_{i}" if i else f"{coordinate}_0"
        return text

    def _tap(self) -> str:
        """Row-major index of the tap `k_0, …, k`."""
        text = "0"
        for i in self._axes:
            text = f"({text}) * {self.window[i]} + {'k' if i == self._axes[-1] else f'k_{i}'}"
        return text

    def _row_coordinates(self, extent: str) -> str:
        """Lines: coordinates `o_i` of the row `step`, the rest in `plane`."""
        lines = ["plane = step"]
        for i in reversed(self._axes[:-1]):
            lines += [f"rest = plane // {extent}_{i}", f"o_{i} = plane - rest * {extent}_{i}", "plane = rest"]
        return "\n".join(lines)

    def _forward(self) -> str:
        constants = self._constants()
        value = load(self.dtype, "x", f"base + col * {self.strides[-1]}")
        add = self._multiply_add("row[col]", "factor", value)
        inner = fill(
            _FORWARD_TAP,
            flat=self._flat("in", "at"),
            weight=load(self.dtype, "w", f"weights + {self._tap()}"),
            add=add,
            **constants,
        )
        return fill(
            _FORWARD,
            coordinates=self._row_coordinates("out"),
            body=self._nested(inner, _AT),
            put=store(self.dtype, "y", "step * width + col", "row[col]"),
            **constants,
        )

    def _input_grad(self) -> str:
        constants = self._constants()
        target = f"row[col * {self.strides[-1]} + shift]"
        add = f"{target} = " + self._multiply_add(target, "factor", load(self.dtype, "dy", "base + col"))
        inner = fill(
            _INPUT_TAP,
            flat=self._flat("out", "at"),
            weight=load(self.dtype, "w", f"weights + {self._tap()}"),
            add=add,
            **constants,
        )
        return fill(
            _INPUT,
            coordinates=self._row_coordinates("in"),
            body=self._nested(inner, _REACHED),
            put=store(self.dtype, "dx", "step * width + col", "row[col]"),
            **constants,
        )

    def _weight_grad(self) -> str:
        constants = self._constants()
        add = self._multiply_add(
            "total",
            load(self.dtype, "dy", "dy_row + col"),
            load(self.dtype, "x", f"base + col * {self.strides[-1]}"),
        )
        inner = fill(_WEIGHT_ROW, flat=self._flat("in", "at"), out_flat=self._flat("out", "o"), add=add, **constants)
        for i in reversed(self._axes[:-1]):
            inner = fill(_OVER_ROWS, i=i, S=self.strides[i], D=self.dilations[i], body=inner)
        over_batch = fill(
            _OVER_BATCH,
            body=inner,
            put=store(self.dtype, "dw", f"weights + {self._tap()}", "total"),
            **constants,
        )
        for i in reversed(self._axes):
            name = "k" if i == self._axes[-1] else f"k_{i}"
            over_batch = fill("for $name in range($K):\n    $body", name=name, K=self.window[i], body=over_batch)
        return fill(_WEIGHT, body=over_batch, **constants)


_AT = """
for k_$i in range($K):
    at_$i = o_$i * $S + k_$i * $D - pad_$i
    if at_$i >= 0 and at_$i < in_$i:
        $body
"""

_REACHED = """
for k_$i in range($K):
    reach_$i = o_$i + pad_$i - k_$i * $D
    at_$i = reach_$i // $S
    if reach_$i >= 0 and reach_$i % $S == 0 and at_$i < out_$i:
        $body
"""

_OVER_ROWS = """
for o_$i in range(out_$i):
    at_$i = o_$i * $S + k_$i * $D - pad_$i
    if at_$i >= 0 and at_$i < in_$i:
        $body
"""

_FORWARD = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    w = $pointer(buffers, 1)
    y = $pointer(buffers, 2)
    $extents
    width = out_$last
    row = ${sum}_at(scratch, 0)
    for step in range(begin, end):
        $coordinates
        image = plane // filters
        o = plane - image * filters
        group = image % groups
        for col in range(width):
            row[col] = $sum(0)
        for c in range(channels):
            weights = ((group * filters + o) * channels + c) * $taps
            $body
        for col in range(width):
            $put
    return 0
"""

_FORWARD_TAP = """
for k in range($K):
    shift = k * $D - pad_$last
    first = imin(width, imax(0, ($S - 1 - shift) // $S))
    stop = imin(width, imax(first, (in_$last - shift + $S - 1) // $S))
    base = (image * channels + c) * ($in_size) + ($flat) * in_$last + shift
    factor = $weight
    for col in range(first, stop):
        row[col] = $add
"""

_INPUT = """
def kernel(buffers, extents, begin, end, scratch, status):
    dy = $pointer(buffers, 0)
    w = $pointer(buffers, 1)
    dx = $pointer(buffers, 2)
    $extents
    width = in_$last
    row = ${sum}_at(scratch, 0)
    for step in range(begin, end):
        $coordinates
        image = plane // channels
        c = plane - image * channels
        group = image % groups
        for col in range(width):
            row[col] = $sum(0)
        for o in range(filters):
            weights = ((group * filters + o) * channels + c) * $taps
            $body
        for col in range(width):
            $put
    return 0
"""

_INPUT_TAP = """
for k in range($K):
    shift = k * $D - pad_$last
    first = imin(out_$last, imax(0, ($S - 1 - shift) // $S))
    stop = imin(out_$last, imax(first, (in_$last - shift + $S - 1) // $S))
    base = (image * filters + o) * ($out_size) + ($flat) * out_$last
    factor = $weight
    for col in range(first, stop):
        $add
"""

_WEIGHT = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    dy = $pointer(buffers, 1)
    dw = $pointer(buffers, 2)
    $extents
    for step in range(begin, end):
        filter_number = step // channels
        c = step - filter_number * channels
        group = filter_number // filters
        weights = step * $taps
        $body
    return 0
"""

_OVER_BATCH = """
shift = k * $D - pad_$last
first = imin(out_$last, imax(0, ($S - 1 - shift) // $S))
stop = imin(out_$last, imax(first, (in_$last - shift + $S - 1) // $S))
total = $sum(0)
for n in range(batch):
    $body
$put
"""

_WEIGHT_ROW = """
base = ((n * groups + group) * channels + c) * ($in_size) + ($flat) * in_$last + shift
dy_row = (n * groups * filters + filter_number) * ($out_size) + ($out_flat) * out_$last
for col in range(first, stop):
    total = $add
"""
