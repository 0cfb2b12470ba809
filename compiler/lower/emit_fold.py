"""Template `fold`: partial results of chunks of rows added in order, and what follows from them.

Over the columns of a grid, a strip at a time, or over nothing: the partial results of a total are those of all chunks
and of all blocks of columns, one after the other.
"""

from __future__ import annotations

from ...ir.dims import Dim, product
from .emit_map import Emitted
from .fold import Accumulator
from .kernel_ir import Kernel, Operand, Reduce
from .source import Writer, storage

STRIP = 256


def emit_fold(kernel: Kernel, accumulators: tuple[Accumulator, ...]) -> Emitted:
    """The source of a fold; `kernel.kept` are the grid's columns."""
    w = Writer()
    w.pointers(kernel.operands)
    steps = _columns(w, kernel, accumulators) if kernel.kept else _single(w, kernel, accumulators)
    return Emitted(w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents), steps)


def _columns(w: Writer, kernel: Kernel, accumulators: tuple[Accumulator, ...]) -> Dim:
    columns = product([a.extent for a in kernel.kept])
    extent = w.extent(columns)
    for a in accumulators:
        for part, name in zip(a.monoid.parts, a.totals, strict=True):
            w.line(f"{name} = local_{storage(part)}({STRIP})")
    with w.block("for step in range(begin, end):"):
        w.line(f"left = step * {STRIP}")
        w.line(f"width = min({STRIP}, {extent} - left)")
        if accumulators:
            with w.block("for k in range(width):"):
                for a in accumulators:
                    a.clear(w, [f"{t}[k]" for t in a.totals])
            with w.block(f"for chunk in range({w.extent(_chunks(kernel, accumulators))}):"):
                w.line(f"line = chunk * {extent} + left")
                with w.block("for k in range(width):"):
                    for a in accumulators:
                        a.merge(w, [f"{t}[k]" for t in a.totals], [f"{p}[line + k]" for p in a.partials])
        with w.block("for k in range(width):"):
            w.decode("left + k", kernel.kept)
            for a in accumulators:
                w.line(f"{a.reduce.name} = {a.result(f'{a.totals[-1]}[k]')}")
            _rest(w, kernel)
    return (columns + (STRIP - 1)) // STRIP


def _single(w: Writer, kernel: Kernel, accumulators: tuple[Accumulator, ...]) -> Dim:
    with w.block("for step in range(begin, end):"):
        for a in accumulators:
            a.clear(w, a.totals)
        if accumulators:
            chunks, across = _partial(kernel, accumulators).extents
            with w.block(f"for block in range({w.extent(chunks * across)}):"):
                for a in accumulators:
                    a.merge(w, a.totals, [f"{p}[block]" for p in a.partials])
        for a in accumulators:
            w.line(f"{a.reduce.name} = {a.result(a.totals[-1])}")
        _rest(w, kernel)
    return 1


def _rest(w: Writer, kernel: Kernel) -> None:
    w.instructions([i for i in kernel.body if not isinstance(i, Reduce)], kernel)


def _partial(kernel: Kernel, accumulators: tuple[Accumulator, ...]) -> Operand:
    return kernel.operand(accumulators[0].partials[0])


def _chunks(kernel: Kernel, accumulators: tuple[Accumulator, ...]) -> Dim:
    return _partial(kernel, accumulators).extents[0]
