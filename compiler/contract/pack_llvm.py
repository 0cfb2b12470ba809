"""Block transposes and panel packing as LLVM IR. Imported on cold paths only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .micro_llvm import internal_function, scalar_type

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def emit_transpose(module: Any, dtype: str, side: int) -> Any:
    """`transpose(dst, dst_row, src, src_row, blocks)`; see `primitives`."""
    name = f"transpose_{dtype}_{side}"
    if name in module.globals:
        return module.globals[name]
    pointer = scalar_type(dtype)[0].as_pointer()
    function = internal_function(module, name, [pointer, _I64, pointer, _I64, _I64])
    dst, dst_row, src, src_row, blocks = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with cgutils.for_range(builder, blocks) as loop:
        column = builder.mul(loop.index, _const(side))
        _square(
            builder,
            dtype,
            side,
            builder.gep(dst, [builder.mul(column, dst_row)]),
            dst_row,
            builder.gep(src, [column]),
            src_row,
        )
    builder.ret_void()
    return function


def _square(builder: Any, dtype: str, side: int, dst: Any, dst_row: Any, src: Any, src_row: Any) -> None:
    """One side × side transpose in registers: loads, log2(side) rounds of exchanges, stores.

    The first rounds exchange within the 16 bytes of a vector's lanes (unpack instructions), the others exchange
    lanes (one shuffle each): no round needs a table of indices.
    """
    scalar, align = scalar_type(dtype)
    vector = ir.VectorType(scalar, side)

    def at(base: Any, row: Any, i: int) -> Any:
        return builder.bitcast(builder.gep(base, [builder.mul(row, _const(i))]), vector.as_pointer())

    rows = []
    for i in range(side):
        rows.append(builder.load(at(src, src_row, i)))
        rows[-1].align = align
    lane = min(side, 16 // align)
    unit = 1
    while unit < lane:
        exchanged = []
        for base in range(0, side, 2 * unit):
            for i in range(base, base + unit):
                exchanged += _exchange(builder, rows[i], rows[i + unit], _unpacked(side, lane, unit))
        rows, unit = exchanged, 2 * unit
    groups = [rows[i : i + lane] for i in range(0, side, lane)]
    columns = [value for group in _lanes_apart(builder, groups, _every_other(side, lane)) for value in group]
    for i, value in enumerate(columns):
        builder.store(value, at(dst, dst_row, i)).align = align


Masks = tuple[list[int], list[int]]


def _unpacked(side: int, lane: int, unit: int) -> Masks:
    """Shuffles that interleave the units of the lower, and of the upper, half of each lane of two vectors."""
    masks: list[list[int]] = []
    for half in (0, lane // 2):
        starts = [base + half + u for base in range(0, side, lane) for u in range(0, lane // 2, unit)]
        masks.append([start + of + j for start in starts for of in (0, side) for j in range(unit)])
    return masks[0], masks[1]


def _every_other(side: int, lane: int) -> Masks:
    """Shuffles that take the even, and the odd, lanes of two vectors."""
    even = [start + j for start in range(0, 2 * side, 2 * lane) for j in range(lane)]
    return even, [i + lane for i in even]


def _exchange(builder: Any, a: Any, b: Any, masks: Masks) -> list[Any]:
    kind = ir.VectorType(_I32, a.type.count)
    return [builder.shuffle_vector(a, b, ir.Constant(kind, mask)) for mask in masks]


def _lanes_apart(builder: Any, groups: list[list[Any]], masks: Masks) -> list[list[Any]]:
    """Groups by rows to groups by lanes: result i holds lane i of every group, in the groups' order."""
    if len(groups) == 1:
        return groups
    even, odd = [], []
    for first, second in zip(groups[::2], groups[1::2], strict=True):
        pairs = [_exchange(builder, a, b, masks) for a, b in zip(first, second, strict=True)]
        even.append([pair[0] for pair in pairs])
        odd.append([pair[1] for pair in pairs])
    halves = _lanes_apart(builder, even, masks), _lanes_apart(builder, odd, masks)
    return [group for pair in zip(*halves, strict=True) for group in pair]


def emit_pack(module: Any, dtype: str, columns: int, lanes: int) -> Any:
    """`pack(panel, b, b_k, b_n, depth, width)`; see `primitives`."""
    name = f"pack_{dtype}_{columns}x{lanes}"
    if name in module.globals:
        return module.globals[name]
    scalar, _ = scalar_type(dtype)
    pointer = scalar.as_pointer()
    function = _row_function(module, name, [pointer, pointer, _I64, _I64, _I64, _I64], (0, 1))
    panel, b, b_k, b_n, depth, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    # Columns that are contiguous in k: whole squares by register transposes.
    contiguous = builder.icmp_signed("==", b_k, _const(1))
    squares = builder.select(contiguous, builder.sdiv(depth, _const(lanes)), _const(0))
    covered = builder.mul(squares, _const(lanes))
    blocks = builder.sdiv(width, _const(lanes))
    with cgutils.for_range(builder, builder.select(contiguous, blocks, _const(0))) as loop:
        j = builder.mul(loop.index, _const(lanes))
        builder.call(
            emit_transpose(module, dtype, lanes),
            [builder.gep(panel, [j]), _const(columns), builder.gep(b, [builder.mul(j, b_n)]), b_n, squares],
        )

    def copy(first: Any, stop: Any, from_column: Any) -> None:
        """Element by element: rows [first, stop), columns [from_column, width); zeros up to the panel's
        width."""
        with cgutils.for_range(builder, stop, start=first) as k:
            row = builder.gep(panel, [builder.mul(k.index, _const(columns))])
            source = builder.gep(b, [builder.mul(k.index, b_k)])
            with cgutils.for_range(builder, width, start=from_column) as j:
                value = builder.load(builder.gep(source, [builder.mul(j.index, b_n)]))
                builder.store(value, builder.gep(row, [j.index]))
            with cgutils.for_range(builder, _const(columns), start=width) as j:
                builder.store(ir.Constant(scalar, 0.0), builder.gep(row, [j.index]))

    copy(_const(0), covered, builder.mul(blocks, _const(lanes)))
    copy(covered, depth, _const(0))
    builder.ret_void()
    return function


def _copy_row(builder: Any, dtype: str, dst: Any, dst_step: Any, src: Any, src_step: Any, count: Any) -> None:
    """`dst[i * dst_step] = src[i * src_step]` for i < count, in vectors where both steps are 1.

    Rows are short: the last vector overlaps the one before it instead of leaving a scalar remainder.
    """
    scalar, align = scalar_type(dtype)
    vector, lanes = ir.VectorType(scalar, 32 // align), _const(32 // align)
    unit = builder.and_(builder.icmp_signed("==", dst_step, _const(1)), builder.icmp_signed("==", src_step, _const(1)))
    wide = builder.and_(unit, builder.icmp_signed(">=", count, lanes))

    def move(at: Any) -> None:
        source = builder.bitcast(builder.gep(src, [at]), vector.as_pointer())
        target = builder.bitcast(builder.gep(dst, [at]), vector.as_pointer())
        value = builder.load(source)
        value.align = align
        builder.store(value, target).align = align

    with builder.if_else(wide) as (vectors, scalars):
        with vectors:
            with cgutils.for_range(builder, builder.sdiv(count, lanes)) as i:
                move(builder.mul(i.index, lanes))
            move(builder.sub(count, lanes))
        with scalars, cgutils.for_range(builder, count) as i:
            value = builder.load(builder.gep(src, [builder.mul(i.index, src_step)]))
            builder.store(value, builder.gep(dst, [builder.mul(i.index, dst_step)]))


def _row_function(module: Any, name: str, arguments: list[Any], operands: tuple[int, int]) -> Any:
    """An internal function over two operands that do not overlap, compiled for size: its scalar loops are short."""
    function = internal_function(module, name, arguments)
    function.attributes.add("minsize")
    function.attributes.add("optsize")
    for at in operands:
        function.args[at].add_attribute("noalias")
    return function


def emit_pad(module: Any, dtype: str) -> Any:
    """`pad(dst, dst_step, src, src_step, first, stop, width)`; see `primitives`."""
    name = f"pad_{dtype}"
    if name in module.globals:
        return module.globals[name]
    scalar, _ = scalar_type(dtype)
    pointer = scalar.as_pointer()
    function = _row_function(module, name, [pointer, _I64, pointer, _I64, _I64, _I64, _I64], (0, 2))
    dst, dst_step, src, src_step, first, stop, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def zeros(start: Any, end: Any) -> None:
        with cgutils.for_range(builder, end, start=start) as i:
            builder.store(ir.Constant(scalar, 0.0), builder.gep(dst, [builder.mul(i.index, dst_step)]))

    zeros(_const(0), first)
    target = builder.gep(dst, [builder.mul(first, dst_step)])
    source = builder.gep(src, [builder.mul(first, src_step)])
    _copy_row(builder, dtype, target, dst_step, source, src_step, builder.sub(stop, first))
    zeros(stop, width)
    builder.ret_void()
    return function


def emit_copy(module: Any, dtype: str) -> Any:
    """`copy(dst, dst_row, dst_step, src, src_row, rows, width)`; see `primitives`."""
    name = f"copy_{dtype}"
    if name in module.globals:
        return module.globals[name]
    pointer = scalar_type(dtype)[0].as_pointer()
    function = _row_function(module, name, [pointer, _I64, _I64, pointer, _I64, _I64, _I64], (0, 3))
    dst, dst_row, dst_step, src, src_row, rows, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with cgutils.for_range(builder, rows) as r:
        target = builder.gep(dst, [builder.mul(r.index, dst_row)])
        source = builder.gep(src, [builder.mul(r.index, src_row)])
        _copy_row(builder, dtype, target, dst_step, source, _const(1), width)
    builder.ret_void()
    return function
