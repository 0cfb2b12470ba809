"""Folding in the canonical order: blocks of 4096 elements, 16 lanes in a block, a fixed tree over the lanes."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.dims import product
from ...ir.dtypes import DType, boolean, i64
from .kernel_ir import Apply, Axis, Bound, Index, Kernel, Load, Reduce
from .lanes import LANES
from .monoids import Monoid, monoid
from .source import Writer, storage

# Elements of a block of an innermost axis.
BLOCK = 4096
# Rows of a chunk, where rows are folded.
ROWS = 64


class Accumulator:
    """One reduction's variables: a local array of lanes and a running total for each part of its monoid."""

    def __init__(self, reduce: Reduce, kernel: Kernel) -> None:
        self.reduce = reduce
        self.monoid: Monoid = monoid(reduce.monoid, _dtype(reduce.arg, kernel), reduce.dtype)
        count = len(self.monoid.parts)
        self.lanes = [f"lanes{p}_{reduce.name}" for p in range(count)]
        self.block = [f"block{p}_{reduce.name}" for p in range(count)]
        self.totals = [f"total{p}_{reduce.name}" for p in range(count)]
        # Buffers between the launches of a grid.
        self.partials = [f"p{p}_{reduce.name}" for p in range(count)]

    def declare(self, w: Writer, size: int) -> None:
        """The arrays of lanes (or columns)."""
        for part, name in zip(self.monoid.parts, self.lanes, strict=True):
            w.line(f"{name} = local_{storage(part)}({size})")

    def clear(self, w: Writer, targets: list[str]) -> None:
        """Set variables to the identity."""
        for start, name in zip(self.monoid.identity, targets, strict=True):
            w.line(f"{name} = {start}")

    def step(self, w: Writer, targets: list[str], at: str) -> None:
        """Fold the current element into `targets`."""
        self._assign(w, targets, self.monoid.step, {**_parts("a", targets), "v": self.reduce.arg, "at": at})

    def merge(self, w: Writer, targets: list[str], others: list[str]) -> None:
        """Fold accumulators of later elements into `targets`."""
        self._assign(w, targets, self.monoid.merge, {**_parts("a", targets), **_parts("b", others)})

    def _assign(self, w: Writer, targets: list[str], forms: tuple[str, ...], names: dict[str, str]) -> None:
        values = [form.format(**names) for form in forms]
        if len(values) == 1:
            w.line(f"{targets[0]} = {values[0]}")
            return
        # All parts are computed from the old ones before any is overwritten.
        news = [f"new{p}_{self.reduce.name}" for p in range(len(values))]
        for new, value in zip(news, values, strict=True):
            w.line(f"{new} = {value}")
        for target, new in zip(targets, news, strict=True):
            w.line(f"{target} = {new}")

    def result(self, total: str) -> str:
        """The reduction's value from the last part of its total."""
        dtype = self.reduce.dtype
        return total if dtype is self.monoid.parts[-1] else f"{dtype}({total})"

    def clear_lanes(self, w: Writer) -> None:
        """Set all lanes to the identity."""
        for start, name in zip(self.monoid.identity, self.lanes, strict=True):
            w.line(f"clear_lanes({name}, {start})")

    def fold_lanes(self, w: Writer, corner: str = "") -> None:
        """Fold the lanes (from `corner` on) by the fixed tree; the result is in `block`."""
        if len(self.lanes) == 1 and not corner:
            w.line(f"{self.block[0]} = {self.reduce.monoid}_lanes({self.lanes[0]})")
            return
        at = f"{corner} + " if corner else ""
        width = LANES // 2
        while width:
            with w.block(f"for lane in range({width}):"):
                self.merge(w, self.lane(f"{at}lane"), self.lane(f"{at}lane + {width}"))
            width //= 2
        for name, lanes in zip(self.block, self.lanes, strict=True):
            w.line(f"{name} = {lanes}[{corner or 0}]")

    def lane(self, at: str) -> list[str]:
        """The lanes at an index."""
        return [f"{name}[{at}]" for name in self.lanes]


def _parts(letter: str, names: list[str]) -> dict[str, str]:
    return {f"{letter}{p}": name for p, name in enumerate(names)}


def _dtype(name: str, kernel: Kernel) -> DType:
    match kernel.defined[name]:
        case Load(dtype=dtype) | Apply(dtype=dtype) | Reduce(dtype=dtype):
            return dtype.compute
        case Index():
            return i64
        case Bound():
            return boolean
    raise KeyError(name)


class LanePass:
    """Writes a pass over elements `[first, stop)` of the flattened columns, element j beside lane j mod 16.

    The loop over the lanes has a constant length, so LLVM makes vectors of it; the last, partial one runs under a
    condition and becomes a vector too, so that short rows are as fast as long ones.

    Args:
        axes: the columns, outermost first.
        body: writes what happens at one point, given the texts of its flat position and of its lane.
        ahead: writes what happens before each sixteen lanes, given the position of the first.
    """

    def __init__(self, w: Writer, axes: tuple[Axis, ...], body: Callable[[str, str], None],
                 ahead: Callable[[str], None] = lambda at: None) -> None:
        self.w, self.axes, self._body, self._ahead = w, axes, body, ahead

    def run(self, first: str, stop: str) -> None:
        """The loops; `first` is a multiple of 16."""
        if len(self.axes) == 1:
            self._single(first, stop)
        else:
            self._runs(first, stop)

    def _single(self, first: str, stop: str) -> None:
        w, name = self.w, self.axes[0].name
        w.line(f"tail = {stop} - {stop} % {LANES}")
        with w.block(f"for base in range({first}, tail, {LANES}):"):
            self._ahead("base")
            with w.block(f"for lane in range({LANES}):"):
                w.line(f"{name} = base + lane")
                self._body(name, "lane")
        with w.block(f"if tail < {stop}:"), w.block(f"for lane in range({LANES}):"):
            w.line(f"{name} = tail + lane")
            with w.block(f"if {name} < {stop}:"):
                self._body(name, "lane")

    def _runs(self, first: str, stop: str) -> None:
        """Several axes: contiguous runs of the innermost one, cut so that lanes stay aligned."""
        w, inner = self.w, self.axes[-1]
        extent = w.extent(inner.extent)
        w.line(f"at = {first}")
        with w.block(f"while at < {stop}:"):
            w.line(f"line = udiv(at, {extent})")
            w.line(f"run = min((line + 1) * {extent}, {stop})")
            w.line(f"shift = line * {extent}")
            w.decode("line", self.axes[:-1])
            with w.block("while at < run:"):
                with w.block(f"if at % {LANES} == 0 and run - at >= {LANES}:"):
                    w.line(f"tail = run - (run - at) % {LANES}")
                    with w.block(f"for base in range(at, tail, {LANES}):"), w.block(f"for lane in range({LANES}):"):
                        w.line("spot = base + lane")
                        w.line(f"{inner.name} = spot - shift")
                        self._body("spot", "lane")
                    w.line("at = tail")
                with w.block("else:"):
                    w.line("spot = at")
                    w.line(f"{inner.name} = spot - shift")
                    w.line(f"slot = at % {LANES}")
                    self._body("spot", "slot")
                    w.line("at += 1")


def plain_pass(w: Writer, axes: tuple[Axis, ...], body: Callable[[str, str], None]) -> None:
    """Every point of the columns once, where no lanes are wanted."""
    inner = axes[-1]
    extent = w.extent(inner.extent)
    if len(axes) == 1:
        with w.block(f"for {inner.name} in range({extent}):"):
            body(inner.name, "")
        return
    with w.block(f"for line in range({w.extent(product([a.extent for a in axes[:-1]]))}):"):
        w.decode("line", axes[:-1])
        w.line(f"shift = line * {extent}")
        with w.block(f"for {inner.name} in range({extent}):"):
            w.line(f"spot = shift + {inner.name}")
            body("spot", "")
