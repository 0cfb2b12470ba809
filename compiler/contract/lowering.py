"""Numba's view of `primitives`. Imported on cold paths only; `register(name)` makes one primitive known to Numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import lower_builtin, type_callable

from ..backend.lowering import Pointer, _typed
from .micro_llvm import compiled_micro_kernel
from .primitives import either, imax, imin, transpose


@type_callable(either)
def _type_either(context: Any) -> Callable[..., Any]:
    def resolve(condition: Any, if_true: Any, if_false: Any) -> Any:
        if not isinstance(if_true, types.CPointer) or if_true.dtype != if_false.dtype:
            return None
        return signature(Pointer(if_true.dtype), types.boolean, if_true, if_false)

    return resolve


@lower_builtin(either, types.boolean, types.CPointer, types.CPointer)
def _lower_either(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.select(*arguments)


def _register_extremum(function: Callable[..., Any], comparison: str) -> None:
    @type_callable(function)
    def typer(context: Any) -> Callable[..., Any]:
        def resolve(a: Any, b: Any) -> Any:
            return signature(types.int64, types.int64, types.int64)

        return resolve

    @lower_builtin(function, types.int64, types.int64)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_signed(comparison, *arguments), *arguments)


_register_extremum(imin, "<")
_register_extremum(imax, ">")


@lru_cache(maxsize=64)
def register(name: str) -> None:
    """Make a primitive known to Numba, if it is of a family made on demand; other names do nothing."""
    function = transpose(name)
    if function is None:
        compiled_micro_kernel(name)
        return
    _, element, side = name.split("_")

    def resolve(*args: Any) -> Any:
        n = types.int64
        return types.void(args[0], n, n, args[3], n, n, n) if len(args) == 7 else None

    _typed(function, resolve)

    @lower_builtin(function, *[types.Any] * 7)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, dst_off, dst_row, src, src_off, src_row, blocks = arguments
        called = builder.module.globals.get(name) or _emit_transpose(builder.module, name, element, int(side))
        builder.call(called, [builder.gep(dst, [dst_off]), dst_row, builder.gep(src, [src_off]), src_row, blocks])
        return context.get_dummy_value()


def _emit_transpose(module: Any, name: str, element: str, side: int) -> Any:
    """An internal function: side loads, log2(side) stages of interleaving, side stores, per square."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    scalar, align = (ir.FloatType(), 4) if element == "f32" else (ir.DoubleType(), 8)
    vector = ir.VectorType(scalar, side)
    pointer = scalar.as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, i64, pointer, i64, i64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    dst, dst_row, src, src_row, blocks = function.args
    entry, loop, done = (function.append_basic_block(label) for label in ("entry", "loop", "done"))
    top = ir.IRBuilder(entry)
    top.cbranch(top.icmp_signed(">", blocks, ir.Constant(i64, 0)), loop, done)

    body = ir.IRBuilder(loop)
    block = body.phi(i64)
    block.add_incoming(ir.Constant(i64, 0), entry)
    column = body.mul(block, ir.Constant(i64, side))
    rows = []
    for r in range(side):
        at = body.gep(src, [body.add(body.mul(ir.Constant(i64, r), src_row), column)])
        value = body.load(body.bitcast(at, vector.as_pointer()))
        value.align = align
        rows.append(value)
    halves = [[lane // 2 + side * (lane % 2) + shift for lane in range(side)] for shift in (0, side // 2)]
    masks = [ir.Constant(ir.VectorType(i32, side), half) for half in halves]
    # Interleaving row r with row r + side/2 moves one bit of the row number into the lane number; after log2(side)
    # rounds rows and lanes have changed places.
    for _ in range(side.bit_length() - 1):
        rows = [body.shuffle_vector(rows[r], rows[r + side // 2], mask) for r in range(side // 2) for mask in masks]
    for c, value in enumerate(rows):
        at = body.gep(dst, [body.mul(body.add(column, ir.Constant(i64, c)), dst_row)])
        body.store(value, body.bitcast(at, vector.as_pointer())).align = align
    after = body.add(block, ir.Constant(i64, 1))
    block.add_incoming(after, loop)
    body.cbranch(body.icmp_signed("<", after, blocks), loop, done)
    ir.IRBuilder(done).ret_void()
    return function
