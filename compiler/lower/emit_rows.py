"""Template `row`: reductions over the innermost axes, one kept point at a time, in as many passes as they need."""

from __future__ import annotations

from ...ir.dims import Dim, product
from .emit_map import Emitted
from .fold import BLOCK, Accumulator, BlockFold, plain_pass
from .kernel_ir import Kernel
from .lanes import LANES
from .schedule import Pass, Schedule
from .source import Writer, storage

_ALIGN = 64


def emit_rows(kernel: Kernel) -> Emitted:
    """The source of a row-wise kernel."""
    return _Rows(kernel).emit()


class _Rows:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.w = kernel, Writer()
        self.operands = {o.name: o for o in kernel.operands}
        self.schedule = Schedule(kernel, hold=True)
        self.length = product([a.extent for a in kernel.reduced])
        self.scratch: Dim = 0

    def emit(self) -> Emitted:
        kernel, w = self.kernel, self.w
        w.pointers(kernel.operands)
        self._scratch_rows()
        accumulators = {i: Accumulator(i, kernel) for s in self.schedule.stages for i in s.work.reduces}
        for a in accumulators.values():
            a.declare(w, LANES)
        once = {i for i in self.schedule.stages[0].head if not kernel.axes[i]}
        for i in self.schedule.stages[0].head:
            if i in once and kernel.kept:
                w.instruction(i, self.operands)
        with w.block("for step in range(begin, end):"):
            w.decode("step", kernel.kept)
            for stage in self.schedule.stages:
                for i in stage.head:
                    if i not in once or not kernel.kept:
                        w.instruction(i, self.operands)
                self._pass(stage.work, [accumulators[i] for i in stage.work.reduces])
        return Emitted(w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents),
                       product([a.extent for a in kernel.kept]), self.scratch)

    def _scratch_rows(self) -> None:
        """Where held values lie: one row each, behind one another."""
        for group, i in enumerate(self.schedule.held):
            self.w.line(f"held_{i.name} = {storage(i.dtype)}_at(scratch, {self.w.extent(self.scratch)}, {group})")
            row = self.length * i.dtype.itemsize
            self.scratch = self.scratch + (row + (_ALIGN - 1)) // _ALIGN * _ALIGN

    def _pass(self, work: Pass, accumulators: list[Accumulator]) -> None:
        if work.empty:
            return
        w, reduced = self.w, self.kernel.reduced

        def body(at: str) -> None:
            for value in work.restored:
                w.line(f"{value.name} = held_{value.name}[{at}]")
            for i in work.body:
                w.instruction(i, self.operands)
            for value in work.held:
                w.line(f"held_{value.name}[{at}] = {value.name}")
            for store in work.stores:
                w.instruction(store, self.operands)

        if not accumulators:
            plain_pass(w, reduced, body)
            return
        length = w.extent(self.length)
        for a in accumulators:
            a.clear(w, a.totals)
        with w.block(f"for first in range(0, {length}, {BLOCK}):"):
            w.line(f"stop = min(first + {BLOCK}, {length})")
            BlockFold(w, reduced, accumulators, body).block("first", "stop")
            for a in accumulators:
                a.merge(w, a.totals, a.block)
        for a in accumulators:
            w.line(f"{a.reduce.name} = {a.result(a.totals[-1])}")


