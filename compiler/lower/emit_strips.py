"""A pass of a grid in which nothing belongs to a row as a whole: chunks of rows by strips of columns.

Template `row` without a row's own reductions (bias gradients, batch norm, totals). Both ways of walking a strip give
the same bits: every column folds its rows in order.

- Wide strips go row by row; the partial results of the chunk lie in memory, as long as a row.
- Narrow ones would meet the same few partial results with every row, and wait for memory each time. They go down the
  rows by sixteen columns, whose partial results stay in a vector register.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...ir.dims import Dim, product
from .emit_map import Emitted
from .fold import BLOCK, ROWS, Accumulator, LanePass
from .kernel_ir import Apply, Instruction, Kernel, Load, Reduce, Store
from .lanes import LANES
from .scalars import literal
from .schedule import Schedule
from .source import Writer

# Strips of at most so many columns are narrow. Measured on one core: sums of [32768, 16] take 0.03 ms instead of 0.11,
# of [8192, 64] 0.035 instead of 0.05; of [768, 512] they would take 0.08 instead of 0.03.
NARROW = 64


def by_strips(kernel: Kernel) -> bool:
    """Whether a pass can be cut into strips."""
    columns = {a.name for a in kernel.reduced}
    return len(kernel.reduced) == 1 and not any(
        i.fold == "reduced" if isinstance(i, Reduce) else isinstance(i, Store) and not kernel.axes[i] & columns
        for i in kernel.body)


def emit_strips(kernel: Kernel, sinks: tuple[Accumulator, ...]) -> Emitted:
    """The source of a pass that can be cut into strips."""
    return _Strips(kernel, sinks).emit()


class _Strips:
    def __init__(self, kernel: Kernel, sinks: tuple[Accumulator, ...]) -> None:
        self.kernel, self.w, self.sinks = kernel, Writer(), sinks
        (self.stage,) = Schedule(kernel, hold=False).stages
        self.columnwise = [a for a in sinks if a.reduce.fold == "kept"]
        self.totals = [a for a in sinks if a.reduce.fold == "all"]
        self.column = kernel.reduced[0].name

    def emit(self) -> Emitted:
        kernel, w = self.kernel, self.w
        rows, columns = product([a.extent for a in kernel.kept]), kernel.reduced[0].extent
        blocks = (columns + (BLOCK - 1)) // BLOCK
        w.pointers(kernel.operands)
        for a in self.sinks:
            a.declare(w, LANES)
        w.instructions([i for i in self.stage.head if not kernel.axes[i]], kernel)
        length = w.extent(columns)
        w.line(f"blocks = ({length} + {BLOCK - 1}) // {BLOCK}")
        with w.block("for step in range(begin, end):"):
            w.line("chunk = udiv(step, blocks)" if kernel.kept else "chunk = 0")
            w.line(f"left = (step - chunk * blocks) * {BLOCK}")
            w.line(f"right = min(left + {BLOCK}, {length})")
            w.line(f"first = chunk * {ROWS}")
            w.line(f"last = min(first + {ROWS}, {w.extent(rows)})")
            if self.columnwise:
                w.line(f"across = chunk * {length}")
            if kernel.kept and not self.totals:
                with w.block(f"if right - left <= {NARROW}:"):
                    self._narrow()
                with w.block("else:"):
                    self._wide()
            else:
                self._wide()
        steps: Dim = (rows + (ROWS - 1)) // ROWS * blocks
        return Emitted(w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents), steps)

    @contextmanager
    def _rows(self) -> Iterator[None]:
        """The loop over the chunk's rows, with what belongs to a row."""
        w, kernel = self.w, self.kernel
        with w.block("for row in range(first, last):"):
            w.decode("row", kernel.kept)
            w.instructions([i for i in self.stage.head if kernel.axes[i]], kernel)
            yield

    def _point(self) -> None:
        self.w.instructions([*self.stage.work.body, *self.stage.work.stores], self.kernel)

    def _wide(self) -> None:
        w = self.w
        if self.columnwise:
            with w.block("for k in range(across + left, across + right):"):
                for a in self.columnwise:
                    a.clear(w, [f"{name}[k]" for name in a.partials])
        for a in self.totals:
            a.clear_lanes(w)

        def body(at: str, lane: str) -> None:
            self._point()
            for a in self.columnwise:
                a.step(w, [f"{name}[across + {at}]" for name in a.partials], "row")
            for a in self.totals:
                a.step(w, a.lane(lane), f"row * {w.extent(self.kernel.reduced[0].extent)} + {at}")

        with self._rows():
            if self.totals:
                LanePass(w, self.kernel.reduced, body).run("left", "right")
            else:
                with w.block(f"for {self.column} in range(left, right):"):
                    body(self.column, "")
        for a in self.totals:
            a.fold_lanes(w)
            for name, lane in zip(a.partials, a.block, strict=True):
                w.line(f"{name}[step] = {lane}")

    def _narrow(self) -> None:
        w = self.w
        with w.block(f"for base in range(left, right, {LANES}):"):
            for a in self.columnwise:
                a.clear_lanes(w)
            with self._rows(), w.block(f"for lane in range({LANES}):"):
                w.line(f"{self.column} = base + lane")
                # Lanes beyond the last column fold what nobody reads, so that no lane's step is conditional.
                for value in dict.fromkeys(self._folded(a) for a in self.columnwise):
                    if isinstance(value, (Load, Apply)):
                        w.line(f"{value.name} = {literal(0, value.dtype.compute)}")
                with w.block(f"if {self.column} < right:"):
                    self._point()
                for a in self.columnwise:
                    a.step(w, a.lane("lane"), "row")
            if self.columnwise:
                with w.block(f"for lane in range({LANES}):"), w.block("if base + lane < right:"):
                    for a in self.columnwise:
                        for name, lanes in zip(a.partials, a.lanes, strict=True):
                            w.line(f"{name}[across + base + lane] = {lanes}[lane]")

    def _folded(self, a: Accumulator) -> Instruction | None:
        """What a reduction folds, if it is computed at every point."""
        value = self.kernel.defined[a.reduce.arg]
        return value if value in self.stage.work.body else None
