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
    """One side × side transpose in registers: loads, log2(side) rounds of interleaving, stores."""
    scalar, align = scalar_type(dtype)
    vector = ir.VectorType(scalar, side)

    def at(base: Any, row: Any, i: int) -> Any:
        return builder.bitcast(builder.gep(base, [builder.mul(row, _const(i))]), vector.as_pointer())

    rows = []
    for i in range(side):
        rows.append(builder.load(at(src, src_row, i)))
        rows[-1].align = align
    low, high = ([lane // 2 + side * (lane % 2) + shift for lane in range(side)] for shift in (0, side // 2))
    masks = [ir.Constant(ir.VectorType(_I32, side), lanes) for lanes in (low, high)]
    # Interleaving row i with row i + side/2 moves one bit of the row number into the lane number; after
    # log2(side) rounds rows and lanes have changed places.
    for _ in range(side.bit_length() - 1):
        rows = [
            builder.shuffle_vector(rows[i], rows[i + side // 2], mask)
            for i in range(side // 2)
            for mask in masks
        ]
    for i, value in enumerate(rows):
        builder.store(value, at(dst, dst_row, i)).align = align


def emit_pack(module: Any, dtype: str, columns: int, lanes: int) -> Any:
    """`pack(panel, b, b_k, b_n, depth, width)`; see `primitives`."""
    name = f"pack_{dtype}_{columns}x{lanes}"
    if name in module.globals:
        return module.globals[name]
    scalar, _ = scalar_type(dtype)
    pointer = scalar.as_pointer()
    function = internal_function(module, name, [pointer, pointer, _I64, _I64, _I64, _I64])
    function.attributes.add("minsize")  # its scalar loops are for edges: neither unroll nor vectorise them
    function.attributes.add("optsize")
    for arg in function.args[:2]:
        arg.add_attribute("noalias")
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


def emit_pad(module: Any, dtype: str) -> Any:
    """`pad(dst, dst_step, src, src_step, first, stop, width)`; see `primitives`."""
    name = f"pad_{dtype}"
    if name in module.globals:
        return module.globals[name]
    scalar, _ = scalar_type(dtype)
    pointer = scalar.as_pointer()
    function = internal_function(module, name, [pointer, _I64, pointer, _I64, _I64, _I64, _I64])
    for arg in (function.args[0], function.args[2]):
        arg.add_attribute("noalias")
    dst, dst_step, src, src_step, first, stop, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def zeros(start: Any, end: Any) -> None:
        with cgutils.for_range(builder, end, start=start) as i:
            builder.store(ir.Constant(scalar, 0.0), builder.gep(dst, [builder.mul(i.index, dst_step)]))

    zeros(_const(0), first)
    with cgutils.for_range(builder, stop, start=first) as i:
        value = builder.load(builder.gep(src, [builder.mul(i.index, src_step)]))
        builder.store(value, builder.gep(dst, [builder.mul(i.index, dst_step)]))
    zeros(stop, width)
    builder.ret_void()
    return function


def emit_copy(module: Any, dtype: str) -> Any:
    """`copy(dst, dst_row, dst_step, src, src_row, rows, width)`; see `primitives`."""
    name = f"copy_{dtype}"
    if name in module.globals:
        return module.globals[name]
    pointer = scalar_type(dtype)[0].as_pointer()
    function = internal_function(module, name, [pointer, _I64, _I64, pointer, _I64, _I64, _I64])
    for arg in (function.args[0], function.args[3]):
        arg.add_attribute("noalias")
    dst, dst_row, dst_step, src, src_row, rows, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with cgutils.for_range(builder, rows) as r:
        target = builder.gep(dst, [builder.mul(r.index, dst_row)])
        source = builder.gep(src, [builder.mul(r.index, src_row)])
        with cgutils.for_range(builder, width) as i:
            value = builder.load(builder.gep(source, [i.index]))
            builder.store(value, builder.gep(target, [builder.mul(i.index, dst_step)]))
    builder.ret_void()
    return function
