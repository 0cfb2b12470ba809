"""Template `row`: one kept point (row) at a time, in as many passes over its columns as its reductions need.

A pass of a grid (`grid`) also folds rows: chunk by chunk of them into partial results, column by column in order, or
all columns in lanes (block by block of columns).
"""

from __future__ import annotations

from ...ir.dims import Dim, product
from .emit_map import Emitted
from .emit_strips import by_strips, emit_strips
from .fold import BLOCK, ROWS, Accumulator, LanePass, plain_pass
from .index_maps import axis, coefficients
from .kernel_ir import Apply, Instruction, Kernel, Load
from .lanes import LANES
from .schedule import Pass, Schedule
from .source import Writer, storage

_ALIGN = 64
# How many rows before it is used a row is fetched: hardware does not look from the end of a row that is still worked on
# to the next. Measured on a layer norm of [4096, 1024]: twice as fast.
ROWS_AHEAD = 2


def emit_rows(kernel: Kernel, sinks: tuple[Accumulator, ...] = ()) -> Emitted:
    """The source of a row-wise kernel.

    Args:
        sinks: the reductions that fold rows or everything.
    """
    return emit_strips(kernel, sinks) if by_strips(kernel) else _Rows(kernel, sinks).emit()


class _Rows:
    def __init__(self, kernel: Kernel, sinks: tuple[Accumulator, ...]) -> None:
        self.kernel, self.w = kernel, Writer()
        self.operands = {o.name: o for o in kernel.operands}
        self.schedule = Schedule(kernel, hold=True)
        self.length = product([a.extent for a in kernel.reduced])
        self.rows = product([a.extent for a in kernel.kept])
        self.scratch: Dim = 0
        self._regions = 0
        self.sinks = {a.reduce: a for a in sinks}
        self.columnwise = [a for a in sinks if a.reduce.fold == "kept"]
        self.totals = [a for a in sinks if a.reduce.fold == "all"]
        self.accumulators = {i: Accumulator(i, kernel) for s in self.schedule.stages for i in s.work.reduces}
        passes = [s.work for s in self.schedule.stages if s.work.reduces]
        self.longest = max(passes, key=lambda p: sum(i.cost for i in p.body if isinstance(i, Apply)), default=None)

    def emit(self) -> Emitted:
        kernel, w = self.kernel, self.w
        w.pointers(kernel.operands)
        for i in self.schedule.held:
            self._region(f"held_{i.name}", storage(i.dtype), self.length * i.dtype.itemsize)
        for a in self.accumulators.values():
            a.declare(w, LANES)
        self._declare_totals()
        head = self.schedule.stages[0].head
        w.instructions([i for i in head if self._once(i)], kernel)
        with w.block("for step in range(begin, end):"):
            if self.sinks:
                steps = self._chunk()
            else:
                w.decode("step", kernel.kept)
                self._row()
                steps = self.rows
        split = kernel.kept[0] if kernel.kept and not self.sinks else None
        return Emitted(
            w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents), steps, self.scratch, split=split)

    def _region(self, name: str, kind: str, nbytes: Dim) -> None:
        """A piece of the thread's scratch memory."""
        self.w.line(f"{name} = {kind}_at(scratch, {self.w.extent(self.scratch)}, {self._regions})")
        self._regions += 1
        self.scratch = self.scratch + (nbytes + (_ALIGN - 1)) // _ALIGN * _ALIGN

    def _once(self, i: Instruction) -> bool:
        """Whether an instruction is the same for all rows."""
        return not self.kernel.axes[i] and bool(self.kernel.kept)

    # -- chunks of rows -------------------------------------------------------------------------------------------

    def _declare_totals(self) -> None:
        """Sixteen lanes for each block of columns."""
        for a in self.totals:
            blocks = (self.length + (BLOCK - 1)) // BLOCK
            for part, name in zip(a.monoid.parts, a.lanes, strict=True):
                self._region(name, storage(part), blocks * (LANES * part.itemsize))

    def _chunk(self) -> Dim:
        """One step: the rows of a chunk."""
        w, length = self.w, self.w.extent(self.length)
        w.line(f"blocks = ({length} + {BLOCK - 1}) // {BLOCK}")
        w.line(f"across = step * {length}")
        if self.columnwise:
            with w.block(f"for k in range(across, across + {length}):"):
                for a in self.columnwise:
                    a.clear(w, [f"{name}[k]" for name in a.partials])
        if self.totals:
            with w.block(f"for k in range(blocks * {LANES}):"):
                for a in self.totals:
                    a.clear(w, a.lane("k"))
        with w.block(f"for row in range(step * {ROWS}, min(step * {ROWS} + {ROWS}, {w.extent(self.rows)})):"):
            w.decode("row", self.kernel.kept)
            self._row()
        if self.totals:
            with w.block("for block in range(blocks):"):
                for a in self.totals:
                    a.fold_lanes(w, f"block * {LANES}")
                    for name, lane in zip(a.partials, a.block, strict=True):
                        w.line(f"{name}[step * blocks + block] = {lane}")
        return (self.rows + (ROWS - 1)) // ROWS

    def _fetch(self, base: str) -> None:
        """Bring near what lies some rows below position `base`, of every operand that is read row after row."""
        if len(self.kernel.kept) != 1 or len(self.kernel.reduced) != 1:
            return
        row, column = self.kernel.kept[0].name, self.kernel.reduced[0].name
        done: set[str] = set()
        for i in self.kernel.body:
            if not isinstance(i, Load) or self.kernel.axes[i] != {row, column} or i.guard or i.operand in done:
                continue
            strides = coefficients(i.address)
            if strides.get((column,)) == 1 and strides.get((row,), 1) != 1:
                done.add(i.operand)
                place = i.address + strides[(row,)] * ROWS_AHEAD - axis(column) + axis(base)
                self.w.line(f"prefetch({i.operand}, {self.w.expression(place)})")

    # -- a row ----------------------------------------------------------------------------------------------------

    def _row(self) -> None:
        """All stages of the row whose axes are set."""
        for stage in self.schedule.stages:
            self.w.instructions([i for i in stage.head if not self._once(i)], self.kernel)
            self._pass(stage.work)

    def _pass(self, work: Pass) -> None:
        if work.empty:
            return
        w, accumulators = self.w, [self.accumulators[i] for i in work.reduces]
        totals = [self.sinks[i] for i in work.sinks if i.fold == "all"]
        length = w.extent(self.length)

        def body(at: str, lane: str) -> None:
            self._point(work, at)
            for a in accumulators:
                a.step(w, a.lane(lane), at)
            for a in totals:
                a.step(w, a.lane(f"corner + {lane}"), f"row * {length} + {at}")

        def ahead(base: str) -> None:
            if work is self.longest:
                self._fetch(base)

        lanes = LanePass(w, self.kernel.reduced, body, ahead)
        if not accumulators and not totals:
            plain_pass(w, self.kernel.reduced, body)
            return
        for a in accumulators:
            a.clear(w, a.totals)
        with w.block(f"for first in range(0, {length}, {BLOCK}):"):
            w.line(f"stop = min(first + {BLOCK}, {length})")
            if totals:
                w.line(f"corner = first // {BLOCK} * {LANES}")
            for a in accumulators:
                a.clear_lanes(w)
            lanes.run("first", "stop")
            for a in accumulators:
                a.fold_lanes(w)
                a.merge(w, a.totals, a.block)
        for a in accumulators:
            w.line(f"{a.reduce.name} = {a.result(a.totals[-1])}")

    def _point(self, work: Pass, at: str) -> None:
        """Values and stores of one point, and what it adds to the partial results of its column."""
        w = self.w
        for value in work.restored:
            w.line(f"{value.name} = held_{value.name}[{at}]")
        w.instructions(work.body, self.kernel)
        for value in work.held:
            w.line(f"held_{value.name}[{at}] = {value.name}")
        w.instructions(work.stores, self.kernel)
        for i in work.sinks:
            if i.fold == "kept":
                a = self.sinks[i]
                a.step(w, [f"{name}[across + {at}]" for name in a.partials], "row")


