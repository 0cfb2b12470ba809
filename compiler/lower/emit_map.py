"""Template `map`: every point of the space by itself, the innermost axis in vectorisable blocks."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, product, sym
from ..contract.tiles import tile_shape
from ..kernel import KernelSource
from .index_maps import coefficients
from .kernel_ir import Axis, Bound, Instruction, Kernel, Load, Operand, Store, reads
from .source import Writer

# Elements of the innermost axis that one step of the parallel range covers: enough to pay for the loop around it, few
# enough that a small tensor still splits between threads.
BLOCK = 1024
# Tile of a transposition: elements along the results' lines, and across (along the operand's lines).
TILE = 16
TILE_ACROSS = 64


@dataclass(frozen=True)
class Emitted:
    """A template's result.

    Attributes:
        operands: buffers in slot order.
        extents: the kernel's extent arguments, in size names.
        range: steps of the parallel range.
        scratch: bytes of scratch a thread needs.
        grain: least number of steps worth a thread.
        split: an axis of which equal shares of the range are equal shares, or None.
    """

    source: KernelSource
    operands: tuple[Operand, ...]
    extents: tuple[Dim, ...]
    range: Dim
    scratch: Dim = 0
    grain: int = 1
    split: Axis | None = None


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
    w.pointers(kernel.operands)
    across = _across(kernel)
    grain, split = 1, kernel.kept[0] if kernel.kept and across is None else None
    if not kernel.kept:
        steps = _point(w, kernel)
    elif across is not None:
        steps = _tiles(w, kernel, across)
    elif len(kernel.kept) == 1:
        steps, grain = _line(w, kernel), BLOCK
    else:
        steps = _rows(w, kernel)
    return Emitted(w.kernel(kernel, kernel.operands), kernel.operands, tuple(w.extents), steps, 0, grain, split)


def _across(kernel: Kernel) -> Axis | None:
    """The axis along which an input is contiguous that the innermost axis strides through: a transposition."""
    for i in kernel.body:
        if isinstance(i, Load) and len(kernel.kept) > 1:
            strides = coefficients(i.address)
            if strides.get((kernel.kept[-1].name,), 0) not in (0, 1):
                for axis in kernel.kept[:-1]:
                    if strides.get((axis.name,)) == 1:
                        return axis
    return None


def _point(w: Writer, kernel: Kernel) -> Dim:
    with w.block("for step in range(begin, end):"):
        w.instructions(kernel.body, kernel)
    return 1


def _line(w: Writer, kernel: Kernel) -> Dim:
    """One axis; a step is an element, so that it can be cut anywhere."""
    (axis,) = kernel.kept
    once, _, per_point = split_levels(kernel, set())
    w.instructions(once, kernel)
    _inner(w, kernel, per_point, "begin", "end")
    return axis.extent


def _rows(w: Writer, kernel: Kernel) -> Dim:
    """Several axes: blocks of the innermost one, row after row."""
    outer, inner = kernel.kept[:-1], kernel.kept[-1]
    once, per_row, per_point = split_levels(kernel, {a.name for a in outer})
    w.instructions(once, kernel)
    extent = w.extent(inner.extent)
    w.line(f"blocks = ({extent} + {BLOCK - 1}) // {BLOCK}")
    with w.block("for step in range(begin, end):"):
        w.line("row = udiv(step, blocks)")
        w.line(f"start = (step - row * blocks) * {BLOCK}")
        w.decode("row", outer)
        w.instructions(per_row, kernel)
        _inner(w, kernel, per_point, "start", f"min(start + {BLOCK}, {extent})")
    return product([a.extent for a in outer]) * _blocks(inner.extent, BLOCK)


def _inner(w: Writer, kernel: Kernel, body: list[Instruction], first: str, stop: str) -> None:
    """The loop over the innermost axis, cut where conditions on it change, so that each holds for a whole piece."""
    axis = kernel.kept[-1].name
    bounds = [i for i in body if isinstance(i, Bound) and coefficients(i.at).get((axis,)) == 1
              and all(axis not in kernel.axes[d] for n in reads(i) if (d := kernel.defined.get(n)) is not None)]
    if not bounds:
        with w.block(f"for {axis} in range({first}, {stop}):"):
            w.instructions(body, kernel)
        return
    w.line(f"piece = {first}")
    w.line(f"limit = {stop}")
    with w.block("while piece < limit:"):
        w.line("cut = limit")
        for edge in dict.fromkeys(e - i.at + sym(axis) for i in bounds for e in (i.low, i.high) if e is not None):
            w.line(f"edge = {w.expression(edge)}")
            w.line("cut = select((edge > piece) & (edge < cut), edge, cut)")
        w.line(f"{axis} = piece")
        w.instructions(bounds, kernel)
        with w.block(f"for {axis} in range(piece, cut):"):
            w.instructions([i for i in body if i not in bounds], kernel)
        w.line("piece = cut")


def _tiles(w: Writer, kernel: Kernel, across: Axis) -> Dim:
    """Tiles of the innermost axis and the one across, so that lines of cache are used up while they are there."""
    inner = kernel.kept[-1]
    outer = tuple(a for a in kernel.kept[:-1] if a is not across)
    once, per_tile, rest = split_levels(kernel, {a.name for a in outer})
    per_row = [i for i in rest if inner.name not in kernel.axes[i]]
    w.instructions(once, kernel)
    wide, high = w.extent(inner.extent), w.extent(across.extent)
    square = _square(kernel, across)
    w.line(f"columns = ({wide} + {TILE - 1}) // {TILE}")
    w.line(f"rows = ({high} + {TILE_ACROSS - 1}) // {TILE_ACROSS}")
    with w.block("for step in range(begin, end):"):
        w.line("strip = udiv(step, columns)")
        w.line("plane = udiv(strip, rows)")
        w.line(f"left = (step - strip * columns) * {TILE}")
        w.line(f"top = (strip - plane * rows) * {TILE_ACROSS}")
        w.decode("plane", outer)
        w.instructions(per_tile, kernel)
        w.line(f"bottom = min(top + {TILE_ACROSS}, {high})")
        if square:
            _squares(w, kernel, across, square)
        with w.block(f"for {across.name} in range(top, bottom):"):
            w.instructions(per_row, kernel)
            with w.block(f"for {inner.name} in range(left, min(left + {TILE}, {wide})):"):
                w.instructions([i for i in rest if i not in per_row], kernel)
    return (product([a.extent for a in outer]) * _blocks(across.extent, TILE_ACROSS) * _blocks(inner.extent, TILE))


def _square(kernel: Kernel, across: Axis) -> int:
    """Side of the squares that a plain transposition is done in by registers; 0 for any other kernel."""
    match kernel.body:
        case (Load(_, _, source, dtype, ""), Store(_, target, _)) if dtype.name in ("f32", "f64"):
            along, inner = coefficients(source), coefficients(target)
            if along.get((across.name,)) == inner.get((kernel.kept[-1].name,)) == 1:
                return tile_shape(dtype).lanes
    return 0


def _squares(w: Writer, kernel: Kernel, across: Axis, side: int) -> None:
    """Whole squares of a tile; `top` moves behind them."""
    load, store = kernel.body
    assert isinstance(load, Load) and isinstance(store, Store)
    inner = kernel.kept[-1].name
    pitch = {i.operand: w.expression(coefficients(i.address).get((a,), 0))
             for i, a in ((load, inner), (store, across.name))}
    with w.block(f"if left + {TILE} <= {w.extent(kernel.kept[-1].extent)}:"):
        w.line(f"squares = (bottom - top) // {side}")
        w.line(f"{across.name} = top")
        for k in range(0, TILE, side):
            w.line(f"{inner} = left + {k}")
            w.line(f"transpose_{load.dtype}_{side}({store.operand}, {w.expression(store.address)}, "
                   f"{pitch[store.operand]}, {load.operand}, {w.expression(load.address)}, {pitch[load.operand]}, "
                   f"squares)")
        w.line(f"top = top + squares * {side}")


def _blocks(extent: Dim, size: int) -> Dim:
    return (extent + (size - 1)) // size
