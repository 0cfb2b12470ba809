"""Template `map`: every point of the space by itself, the innermost axis in vectorisable blocks."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, product
from ..kernel import KernelSource
from .kernel_ir import Instruction, Kernel, Operand
from .source import Writer

# Elements of the innermost axis that one step of the parallel range covers: enough to pay for the loop around it, few
# enough that a small tensor still splits between threads.
BLOCK = 1024


@dataclass(frozen=True)
class Emitted:
    """A template's result.

    Attributes:
        operands: buffers in slot order.
        extents: the kernel's extent arguments, in size names.
        range: steps of the parallel range.
        scratch: bytes of scratch a thread needs.
    """

    source: KernelSource
    operands: tuple[Operand, ...]
    extents: tuple[Dim, ...]
    range: Dim
    scratch: Dim = 0


def split_levels(kernel: Kernel, outer: set[str]) -> tuple[list[Instruction], list[Instruction], list[Instruction]]:
    """Instructions that depend on no axis, on outer axes only, and the rest."""
    levels: tuple[list[Instruction], list[Instruction], list[Instruction]] = ([], [], [])
    for i in kernel.body:
        axes = kernel.axes[i]
        levels[0 if not axes else 1 if axes <= outer else 2].append(i)
    return levels


def emit_map(kernel: Kernel) -> Emitted:
    """The source of a kernel without reductions."""
    w = Writer()
    operands = {o.name: o for o in kernel.operands}
    outer, inner = kernel.kept[:-1], kernel.kept[-1:]
    once, per_step, per_point = split_levels(kernel, {a.name for a in outer})
    w.pointers(kernel.operands)
    for i in once if inner else ():
        w.instruction(i, operands)
    if not inner:
        with w.block("for step in range(begin, end):"):
            for i in once:
                w.instruction(i, operands)
        steps: Dim = 1
    elif not outer:
        name, extent = inner[0].name, w.extent(inner[0].extent)
        with w.block(f"for {name} in range(begin * {BLOCK}, min(end * {BLOCK}, {extent})):"):
            for i in per_point:
                w.instruction(i, operands)
        steps = _blocks(inner[0].extent)
    else:
        name, extent = inner[0].name, w.extent(inner[0].extent)
        w.line(f"blocks = ({extent} + {BLOCK - 1}) // {BLOCK}")
        with w.block("for step in range(begin, end):"):
            w.line("row = udiv(step, blocks)")
            w.line(f"start = (step - row * blocks) * {BLOCK}")
            w.decode("row", outer)
            for i in per_step:
                w.instruction(i, operands)
            with w.block(f"for {name} in range(start, min(start + {BLOCK}, {extent})):"):
                for i in per_point:
                    w.instruction(i, operands)
        steps = product([a.extent for a in outer]) * _blocks(inner[0].extent)
    return Emitted(w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents), steps)


def _blocks(extent: Dim) -> Dim:
    return (extent + (BLOCK - 1)) // BLOCK
