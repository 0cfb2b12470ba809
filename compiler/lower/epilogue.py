"""Epilogues: what follows a contraction, as statements over one finished tile of its result."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim
from ...ir.dtypes import DType
from ..contract.text import EPILOGUE_SIGNATURE, Epilogue, tile_loads
from .errors import CannotLower
from .kernel_ir import Axis, Check, Instruction, Kernel, Operand, reads
from .source import Writer, module


@dataclass(frozen=True)
class Tile:
    """How the kernel's axes are those of a tile: b, m and n count the batch, row and column axes row-major. `result`
    names the contraction's value at a point."""

    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    result: str


def write_epilogue(kernel: Kernel, body: tuple[Instruction, ...], operands: tuple[Operand, ...],
                   tile: Tile, compute: DType) -> tuple[Epilogue, tuple[Dim, ...]]:
    """The epilogue's kernel and its extents.

    Args:
        body: the instructions after the contraction.
        operands: their buffers, which follow the contraction's two.
        compute: the dtype of the contraction's value.

    Raises:
        CannotLower: an instruction may stop the run; a tile cannot.
    """
    if any(isinstance(i, Check) for i in body):
        raise CannotLower("a contraction's epilogue cannot check indices")
    w = Writer(prefix="s")
    by_name = {o.name: o for o in operands}
    for line in tile_loads(compute):
        w.line(line)
    w.pointers(operands)
    batch = {a.name for a in tile.batch}
    by_row = batch | {a.name for a in tile.rows}
    after = _following(kernel, body, tile.result)

    def level(i: Instruction) -> int:
        axes = kernel.axes[i]
        return 2 if i in after or not axes <= by_row else 1 if not axes <= batch else 0

    w.decode("b", tile.batch)
    for i in body:
        if level(i) == 0:
            w.instruction(i, by_name)
    row = tile.rows[0].name if len(tile.rows) == 1 else "row"
    at = tile.columns[0].name if len(tile.columns) == 1 else "at"
    if len(tile.rows) > 1:
        w.decode("m0", tile.rows)
    with w.block(f"for {row} in range(m0, m1):"):
        for i in body:
            if level(i) == 1:
                w.instruction(i, by_name)
        with w.block(f"for {at} in range(n0, n1):"):
            if len(tile.columns) > 1:
                w.decode(at, tile.columns)
            w.line(f"{tile.result} = acc[({row} - m0) * acc_stride + {at} - n0]")
            for i in body:
                if level(i) == 2:
                    w.instruction(i, by_name)
        if len(tile.rows) > 1:
            _step(w, tile.rows)
    loads = [f"    s{k} = extents[{k}]" for k in range(len(w.extents))]
    text = module("\n".join([EPILOGUE_SIGNATURE, *loads, *w.lines, "    return 0"]), kernel.comments)
    return Epilogue(text, len(operands), tuple(str(d) for d in w.extents)), tuple(w.extents)


def _step(w: Writer, axes: tuple[Axis, ...]) -> None:
    """Move the axes' variables on to the next row-major position."""
    inner = axes[-1]
    w.line(f"{inner.name} += 1")
    if len(axes) > 1:
        with w.block(f"if {inner.name} == {w.extent(inner.extent)}:"):
            w.line(f"{inner.name} = 0")
            _step(w, axes[:-1])


def _following(kernel: Kernel, body: tuple[Instruction, ...], result: str) -> set[Instruction]:
    """The instructions that depend on the contraction's value, whatever axes they name."""
    names, found = {result}, set()
    for i in body:
        if names & set(reads(i)):
            found.add(i)
            names |= {getattr(i, "name", result)}
    return found
