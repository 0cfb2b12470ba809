"""Template `column`: reductions that keep the innermost axis, a strip of columns at a time.

Each column folds its elements in blocks of 64 rows, one after the other; the strip only makes vectors of neighbouring
columns. Values of a column (its totals and what follows from them) live in small local arrays between passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...ir.dims import Dim, product
from .emit_map import Emitted
from .fold import ROWS, Accumulator
from .kernel_ir import Apply, Axis, Instruction, Kernel, Reduce, reads
from .schedule import Pass, Schedule, Stage
from .source import Writer, storage

STRIP = 64


def emit_columns(kernel: Kernel) -> Emitted:
    """The source of a column-wise kernel."""
    return _Columns(kernel).emit()


class _Columns:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.w = kernel, Writer()
        self.operands = {o.name: o for o in kernel.operands}
        self.schedule = Schedule(kernel, hold=False)
        self.outer: tuple[Axis, ...] = kernel.kept[:-1]
        self.column: Axis | None = kernel.kept[-1] if kernel.kept else None
        self.accumulators = {i: Accumulator(i, kernel) for i in kernel.body if isinstance(i, Reduce)}
        self.stored = self._stored()

    def emit(self) -> Emitted:
        kernel, w = self.kernel, self.w
        w.pointers(kernel.operands)
        self._arrays()
        steps: Dim = product([a.extent for a in self.outer])
        if self.column is not None:
            w.line(f"strips = ({w.extent(self.column.extent)} + {STRIP - 1}) // {STRIP}")
            steps = steps * ((self.column.extent + (STRIP - 1)) // STRIP)
        outer = {a.name for a in self.outer}
        self._common(self.schedule.stages[0], lambda axes: not axes)
        with w.block("for step in range(begin, end):"):
            if self.column is None:
                w.line("width = 1")
            else:
                w.line("row = udiv(step, strips)")
                w.line(f"left = (step - row * strips) * {STRIP}")
                w.line(f"width = min({STRIP}, {w.extent(self.column.extent)} - left)")
                w.decode("row", self.outer)
            for stage in self.schedule.stages:
                self._common(stage, lambda axes: bool(axes) and axes <= outer)
                self._column_values(stage)
                self._pass(stage.work)
        return Emitted(w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents), steps)

    def _arrays(self) -> None:
        for a in self.accumulators.values():
            a.declare(self.w, STRIP)
            for part, name in zip(a.monoid.parts, a.totals, strict=True):
                self.w.line(f"{name} = local_{storage(part)}({STRIP})")
        for i in self.stored:
            self.w.line(f"column_{i.name} = local_{storage(i.dtype)}({STRIP})")

    # -- values of a column ---------------------------------------------------------------------------------------

    def _per_column(self, i: Instruction) -> bool:
        """Whether a value belongs to a column: it moves with the column, or it follows from a reduction."""
        moves = self.column is not None and self.column.name in self.kernel.axes[i]
        return i not in self.schedule.full and (moves or self.kernel.stages[i] > 0)

    def _stored(self) -> list[Apply]:
        """Column values computed in one loop and read in another (loads are repeated instead)."""
        kernel, found = self.kernel, set()
        for i in kernel.body:
            stage = None if i in self.schedule.full or isinstance(i, Reduce) else kernel.stages[i]
            for n in reads(i):
                d = kernel.defined.get(n)
                if isinstance(d, Apply) and self._per_column(d) and kernel.stages[d] != stage:
                    found.add(d)
        return [i for i in kernel.body if i in found and isinstance(i, Apply)]

    def _common(self, stage: Stage, wanted: Callable[[frozenset[str]], bool]) -> None:
        """Instructions of a stage that belong to no column, at the level of the axes `wanted` accepts."""
        for i in stage.head:
            if not self._per_column(i) and wanted(self.kernel.axes[i]):
                self.w.instruction(i, self.operands)

    def _column_values(self, stage: Stage) -> None:
        """A loop over the strip for the values and stores of a stage that belong to columns."""
        own = [i for i in stage.head if self._per_column(i)]
        if any(i in self.stored or not hasattr(i, "name") for i in own):
            with self._columns(own):
                for i in own:
                    self.w.instruction(i, self.operands)
                    if i in self.stored and isinstance(i, Apply):
                        self.w.line(f"column_{i.name}[k] = {i.name}")

    @contextmanager
    def _columns(self, body: list[Instruction]) -> Iterator[None]:
        """The loop over the strip (`k` is the place in it), with the column values that `body` reads at hand."""
        with self.w.block("for k in range(width):"):
            if self.column is not None:
                self.w.line(f"{self.column.name} = left + k")
            self._fetch(body, set(body))
            yield

    def _fetch(self, body: list[Instruction], known: set[Instruction]) -> None:
        for n in dict.fromkeys(n for i in body for n in reads(i)):
            d = self.kernel.defined.get(n)
            if d is None or d in known or not self._per_column(d):
                continue
            known.add(d)
            if isinstance(d, Reduce):
                a = self.accumulators[d]
                self.w.line(f"{d.name} = {a.result(f'{a.totals[-1]}[k]')}")
            elif isinstance(d, Apply) and d in self.stored:
                self.w.line(f"{d.name} = column_{d.name}[k]")
            else:
                self._fetch([d], known)
                self.w.instruction(d, self.operands)

    # -- passes ---------------------------------------------------------------------------------------------------

    def _pass(self, work: Pass) -> None:
        if work.empty:
            return
        w, length = self.w, self.w.extent(product([a.extent for a in self.kernel.reduced]))
        accumulators = [self.accumulators[i] for i in work.reduces]
        if not accumulators:
            with w.block(f"for at in range({length}):"):
                self._row(work, [])
            return
        with w.block("for k in range(width):"):
            for a in accumulators:
                a.clear(w, [f"{t}[k]" for t in a.totals])
        with w.block(f"for first in range(0, {length}, {ROWS}):"):
            with w.block("for k in range(width):"):
                for a in accumulators:
                    a.clear(w, a.lane("k"))
            with w.block(f"for at in range(first, min(first + {ROWS}, {length})):"):
                self._row(work, accumulators)
            with w.block("for k in range(width):"):
                for a in accumulators:
                    a.merge(w, [f"{t}[k]" for t in a.totals], a.lane("k"))

    def _row(self, work: Pass, accumulators: list[Accumulator]) -> None:
        """One row of the strip: the points at flat position `at` of every column."""
        w, kernel = self.w, self.kernel
        w.decode("at", kernel.reduced)
        moving = self._moving(work.body)
        for i in work.body:
            if i not in moving:
                w.instruction(i, self.operands)
        inside = [i for i in work.body if i in moving]
        with self._columns([*inside, *work.stores, *work.reduces]):
            for i in [*inside, *work.stores]:
                w.instruction(i, self.operands)
            for a in accumulators:
                a.step(w, a.lane("k"), "at")

    def _moving(self, body: list[Instruction]) -> set[Instruction]:
        """The values of a row that differ between its columns."""
        found: set[Instruction] = set()
        for i in body:
            inputs = [self.kernel.defined.get(n) for n in reads(i)]
            column = self.column.name if self.column is not None else ""
            if column in self.kernel.axes[i] or any(d in found or (d is not None and self._per_column(d))
                                                    for d in inputs):
                found.add(i)
        return found
