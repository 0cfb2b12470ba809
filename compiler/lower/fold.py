"""Folding in the canonical order: blocks of 4096 elements, 16 lanes in a block, a fixed tree over the lanes."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.dims import product
from ...ir.dtypes import DType, boolean, i64
from .kernel_ir import Apply, Axis, Bound, Index, Kernel, Load, Reduce
from .lanes import LANES
from .monoids import Monoid, monoid
from .source import Writer, storage

BLOCK = 4096


class Accumulator:
    """One reduction's variables: a local array of lanes and a running total for each part of its monoid."""

    def __init__(self, reduce: Reduce, kernel: Kernel) -> None:
        self.reduce = reduce
        self.monoid: Monoid = monoid(reduce.monoid, _dtype(reduce.arg, kernel), reduce.dtype)
        count = len(self.monoid.parts)
        self.lanes = [f"lanes{p}_{reduce.name}" for p in range(count)]
        self.block = [f"block{p}_{reduce.name}" for p in range(count)]
        self.totals = [f"total{p}_{reduce.name}" for p in range(count)]

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

    def fold_lanes(self, w: Writer) -> None:
        """Fold the lanes by the fixed tree; the result is in `block`."""
        if len(self.lanes) == 1:
            w.line(f"{self.block[0]} = {self.reduce.monoid}_lanes({self.lanes[0]})")
            return
        width = LANES // 2
        while width:
            with w.block(f"for lane in range({width}):"):
                self.merge(w, self.lane("lane"), self.lane(f"lane + {width}"))
            width //= 2
        for name, lanes in zip(self.block, self.lanes, strict=True):
            w.line(f"{name} = {lanes}[0]")

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


class BlockFold:
    """Writes one block's pass: the elements `[first, stop)` of the flattened reduced axes into lanes, then the tree.

    Args:
        axes: the reduced axes, outermost first.
        body: writes the values and stores of one point, given the text of its flat position.
    """

    def __init__(self, w: Writer, axes: tuple[Axis, ...], accumulators: list[Accumulator],
                 body: Callable[[str], None]) -> None:
        self.w, self.axes, self.accumulators, self._body = w, axes, accumulators, body

    def block(self, first: str, stop: str) -> None:
        """The lanes of one block, and their fold in the accumulators' `block`."""
        w = self.w
        for a in self.accumulators:
            a.clear_lanes(w)
        if len(self.axes) == 1:
            self._single(first, stop)
        else:
            self._runs(first, stop)
        for a in self.accumulators:
            a.fold_lanes(w)

    def _point(self, at: str, lane: str) -> None:
        self._body(at)
        for a in self.accumulators:
            a.step(self.w, a.lane(lane), at)

    def _single(self, first: str, stop: str) -> None:
        w, name = self.w, self.axes[0].name
        w.line(f"tail = {stop} - ({stop} - {first}) % {LANES}")
        with w.block(f"for base in range({first}, tail, {LANES}):"), w.block(f"for lane in range({LANES}):"):
            w.line(f"{name} = base + lane")
            self._point(name, "lane")
        with w.block(f"for lane in range({stop} - tail):"):
            w.line(f"{name} = tail + lane")
            self._point(name, "lane")

    def _runs(self, first: str, stop: str) -> None:
        """Several reduced axes: contiguous runs of the innermost one, cut so that lanes stay aligned."""
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
                        self._point("spot", "lane")
                    w.line("at = tail")
                with w.block("else:"):
                    w.line("spot = at")
                    w.line(f"{inner.name} = spot - shift")
                    w.line(f"slot = at % {LANES}")
                    self._point("spot", "slot")
                    w.line("at += 1")


def plain_pass(w: Writer, axes: tuple[Axis, ...], body: Callable[[str], None]) -> None:
    """Every point of the reduced axes once, for stores only."""
    inner = axes[-1]
    extent = w.extent(inner.extent)
    if len(axes) == 1:
        with w.block(f"for {inner.name} in range({extent}):"):
            body(inner.name)
        return
    with w.block(f"for line in range({w.extent(product([a.extent for a in axes[:-1]]))}):"):
        w.decode("line", axes[:-1])
        w.line(f"shift = line * {extent}")
        with w.block(f"for {inner.name} in range({extent}):"):
            w.line(f"spot = shift + {inner.name}")
            body("spot")
