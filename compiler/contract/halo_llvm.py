"""Copies of image rows as LLVM IR. Imported on cold paths only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .micro_llvm import internal_function, scalar_type

_I64 = ir.IntType(64)
# Bytes of the vectors that a row is moved in.
_VECTOR = 32


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def emit_halo(module: Any, dtype: str) -> Any:
    """`halo(dst, dst_row, src, src_row, src_pixel, depth, top, bottom, rows, start, stop, width)`; see `halo`."""
    name = f"halo_{dtype}"
    if name in module.globals:
        return module.globals[name]
    pointer = scalar_type(dtype)[0].as_pointer()
    function = internal_function(module, name, [pointer, _I64, pointer, *[_I64] * 9])
    for attribute in ("minsize", "optsize"):
        function.attributes.add(attribute)
    dst, dst_row, src, src_row, src_pixel, depth, top, bottom, rows, start, stop, width = function.args
    for operand in (dst, src):
        operand.add_attribute("noalias")
    zeros, copy = (_emit_fill(module, dtype, copied=copied) for copied in (False, True))
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    dense = builder.icmp_signed("==", src_pixel, depth)
    with cgutils.for_range(builder, rows) as row:
        target = builder.gep(dst, [builder.mul(row.index, dst_row)])
        source = builder.gep(src, [builder.mul(row.index, src_row)])
        below, above = builder.icmp_signed(">=", row.index, top), builder.icmp_signed("<", row.index, bottom)
        inside = builder.and_(below, above)
        first, last = builder.select(inside, start, width), builder.select(inside, stop, width)
        builder.call(zeros, [target, target, builder.mul(first, depth)])
        # Pixels that lie side by side are moved at once.
        count = builder.sub(last, first)
        some = builder.icmp_signed(">", count, _const(1))
        pixels = builder.select(builder.and_(dense, some), count, _const(1))
        with cgutils.for_range_slice(builder, first, last, pixels, _I64) as (p, _):
            to, of = (
                builder.gep(base, [builder.mul(p, size)]) for base, size in ((target, depth), (source, src_pixel))
            )
            builder.call(copy, [to, of, builder.mul(pixels, depth)])
        rest = builder.gep(target, [builder.mul(last, depth)])
        builder.call(zeros, [rest, rest, builder.mul(builder.sub(width, last), depth)])
    builder.ret_void()
    return function


def _emit_fill(module: Any, dtype: str, *, copied: bool) -> Any:
    """`fill(dst, src, count)`: `dst[i] = src[i]`, or zero unless `copied`, for i < count.

    Rows are short: the last vector overlaps the one before it instead of leaving a scalar remainder.
    """
    scalar, size = scalar_type(dtype)
    vector, lanes = ir.VectorType(scalar, _VECTOR // size), _const(_VECTOR // size)
    pointer = scalar.as_pointer()
    function = internal_function(module, f"{'copy' if copied else 'zero'}_run_{dtype}", [pointer, pointer, _I64])
    for attribute in ("minsize", "optsize"):
        function.attributes.add(attribute)
    dst, src, count = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def move(at: Any, kind: Any) -> None:
        target, source = (builder.bitcast(builder.gep(p, [at]), kind.as_pointer()) for p in (dst, src))
        value = ir.Constant(kind, None)
        if copied:
            value = builder.load(source)
            value.align = size
        builder.store(value, target).align = size

    with builder.if_else(builder.icmp_signed(">=", count, lanes)) as (vectors, scalars):
        with vectors:
            last = builder.sub(count, lanes)
            with cgutils.for_range_slice(builder, _const(0), last, lanes, _I64) as (at, _):
                move(at, vector)
            move(last, vector)
        with scalars, cgutils.for_range(builder, count) as loop:
            move(loop.index, scalar)
    builder.ret_void()
    return function
