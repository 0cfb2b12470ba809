"""Template `total`: everything reduced. One kernel folds blocks into partial results, a second one adds those in order.

The blocks are the canonical ones, so the result is that of a single pass; they are what threads share.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.dims import Dim, product
from .emit_map import Emitted
from .errors import CannotLower
from .fold import BLOCK, Accumulator, BlockFold
from .kernel_ir import Check, Instruction, Kernel, Load, Operand, Reduce, Store
from .lanes import LANES
from .schedule import Schedule
from .source import Writer


def emit_total(kernel: Kernel) -> tuple[Emitted, Emitted, tuple[Operand, ...]]:
    """Both kernels and the partial results between them (buffers with one element a block)."""
    schedule = Schedule(kernel, hold=False)
    reduces = [i for i in kernel.body if isinstance(i, Reduce)]
    if any(kernel.stages[i] != 1 for i in reduces) or any(kernel.stages[i] and i in schedule.full for i in kernel.body):
        raise CannotLower("a value per element follows from a total in one kernel")
    accumulators = [Accumulator(i, kernel) for i in reduces]
    length = product([a.extent for a in kernel.reduced])
    blocks = (length + (BLOCK - 1)) // BLOCK
    partials = {name: Operand(name, part, (blocks,)) for a in accumulators
                for name, part in zip(_names(a), a.monoid.parts, strict=True)}
    first = _partial(kernel, schedule, accumulators, partials, length, blocks)
    second = _combine(kernel, accumulators, partials, blocks)
    return first, second, tuple(partials.values())


def _names(a: Accumulator) -> list[str]:
    return [f"partial{p}_{a.reduce.name}" for p in range(len(a.monoid.parts))]


def _partial(kernel: Kernel, schedule: Schedule, accumulators: list[Accumulator], partials: dict[str, Operand],
             length: Dim, blocks: Dim) -> Emitted:
    w = Writer()
    work, head = schedule.stages[0].work, schedule.stages[0].head
    mine = [i for i in head if not isinstance(i, Store)] + work.body + [*work.stores]
    operands = _used(kernel, mine) + tuple(replace(p, output=True) for p in partials.values())
    by_name = {o.name: o for o in operands}
    w.pointers(operands)
    for a in accumulators:
        a.declare(w, LANES)
    for i in head:
        if not isinstance(i, Store):
            w.instruction(i, by_name)

    def body(at: str) -> None:
        for i in [*work.body, *work.stores]:
            w.instruction(i, by_name)

    with w.block("for step in range(begin, end):"):
        w.line(f"first = step * {BLOCK}")
        w.line(f"stop = min(first + {BLOCK}, {w.extent(length)})")
        BlockFold(w, kernel.reduced, accumulators, body).block("first", "stop")
        for a in accumulators:
            for name, lane in zip(_names(a), a.block, strict=True):
                w.line(f"{name}[step] = {lane}")
    return Emitted(w.kernel(kernel, operands), operands, tuple(w.extents), blocks)


def _combine(kernel: Kernel, accumulators: list[Accumulator], partials: dict[str, Operand], blocks: Dim) -> Emitted:
    w = Writer()
    reduced = {a.name for a in kernel.reduced}
    mine: list[Instruction] = [
        i for i in kernel.body if not kernel.axes[i] & reduced and not isinstance(i, (Reduce, Check))]
    operands = tuple(partials.values()) + _used(kernel, mine)
    by_name = {o.name: o for o in operands}
    w.pointers(operands)
    with w.block("for step in range(begin, end):"):
        for a in accumulators:
            a.clear(w, a.totals)
        with w.block(f"for block in range({w.extent(blocks)}):"):
            for a in accumulators:
                a.merge(w, a.totals, [f"{name}[block]" for name in _names(a)])
        for a in accumulators:
            w.line(f"{a.reduce.name} = {a.result(a.totals[-1])}")
        for i in mine:
            w.instruction(i, by_name)
    return Emitted(w.kernel(kernel, operands), operands, tuple(w.extents), 1)


def _used(kernel: Kernel, body: list[Instruction]) -> tuple[Operand, ...]:
    """The operands that instructions touch, in order."""
    touched = {i.operand for i in body if isinstance(i, (Load, Store))}
    return tuple(o for o in kernel.operands if o.name in touched)

