"""Numba's view of `primitives`. Imported on cold paths only; `register(name)` makes one primitive known to
Numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import lower_builtin

from ..backend.lowering import BufferTable, Pointer, buffers_type, typed_by
from . import blocks_llvm, primitives
from .blas_llvm import emit_blas
from .blocks_llvm import emit_block
from .halo import HALO
from .halo_llvm import emit_halo
from .micro_llvm import emit
from .micro_runs import parse_runs_kernel
from .micro_runs_llvm import emit_runs
from .pack_llvm import emit_copy, emit_pack, emit_pad, emit_transpose
from .primitives import BLAS, PACK, ROWS, TRANSPOSE, primitive
from .rows import ROW_OPERATIONS
from .rows_llvm import SIGNATURES, emit_rows
from .tiles import parse_micro_kernel


def _type_either(*args: Any) -> Any:
    if len(args) != 3 or not all(isinstance(arg, types.CPointer) for arg in args[1:]) or args[1].dtype != args[2].dtype:
        return None
    return signature(Pointer(args[1].dtype), types.boolean, *args[1:])


@lower_builtin(primitives.either, types.boolean, types.CPointer, types.CPointer)
def _lower_either(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.select(*arguments)


typed_by(primitives.either, _type_either)


def _register_extremum(function: Callable[..., Any], comparison: str) -> None:
    def resolve(*args: Any) -> Any:
        return signature(types.int64, types.int64, types.int64) if len(args) == 2 else None

    @lower_builtin(function, types.int64, types.int64)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_signed(comparison, *arguments), *arguments)

    typed_by(function, resolve)


_register_extremum(primitives.imin, "<")
_register_extremum(primitives.imax, ">")


_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _I8.as_pointer()
_KERNEL = ir.FunctionType(_I32, [_BYTES.as_pointer(), _I64.as_pointer(), _I64, _I64, _BYTES, _I64.as_pointer()])


def _type_call_link(*args: Any) -> Any:
    pointers = all(isinstance(args[at], types.CPointer) for at in (3, 7, 8)) if len(args) == 9 else False
    if not pointers or args[0] != buffers_type:
        return None
    words = (args[0], types.int64, types.int64, args[3], *[types.int64] * 3)
    return types.void(*words, args[7], args[8])


@lower_builtin(primitives.call_link, BufferTable, *[types.Any] * 8)
def _lower_call_link(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    buffers, slot, first, extents, at, begin, end, values, words = arguments
    address = builder.load(builder.gep(buffers, [slot], inbounds=True))
    callee = builder.bitcast(address, _KERNEL.as_pointer())
    operands = builder.gep(buffers, [first], inbounds=True)
    own = builder.gep(extents, [at], inbounds=True)
    builder.call(callee, [operands, own, begin, end, builder.bitcast(values, _BYTES), words])
    return context.get_dummy_value()


typed_by(primitives.call_link, _type_call_link)


@lru_cache(maxsize=256)
def register(name: str) -> None:
    """Make a primitive known to Numba, if it is of a family made on demand; other names do nothing."""
    function, kernel = primitive(name), parse_micro_kernel(name)
    if function is None:
        return
    if kernel is not None:
        # Positions of the pointers, with those of the offsets that are added to them before the call.
        pointers = {0: 1, 3: 4, 6: 7, 8: 9} if kernel.indexed else {0: 1, 3: 4, 7: 8}
        _register_call(function, 13, pointers, lambda module: emit(module, kernel))
    elif runs := parse_runs_kernel(name):
        _register_call(function, 16, {0: 1, 3: 4, 7: 8, 10: 11}, lambda module: emit_runs(module, runs))
    elif match := HALO.fullmatch(name):
        dtype = match[1]
        _register_call(function, 14, {0: 1, 3: 4}, lambda module: emit_halo(module, dtype))
    elif match := TRANSPOSE.fullmatch(name):
        dtype, side = match[1], int(match[2])
        _register_call(function, 7, {0: 1, 3: 4}, lambda module: emit_transpose(module, dtype, side))
    elif match := BLAS.fullmatch(name):
        dtype, integers = match[1], match[2]
        _register_call(function, 14, {3: 4, 7: 8, 11: 12}, lambda module: emit_blas(module, dtype, integers))
    elif match := PACK.fullmatch(name):
        dtype, columns, lanes = match[1], int(match[2]), int(match[3])
        _register_call(function, 8, {0: 1, 2: 3}, lambda module: emit_pack(module, dtype, columns, lanes))
    elif match := ROW_OPERATIONS.fullmatch(name):
        operation, dtype = match[1], match[2]
        _register_code(function, SIGNATURES[operation], dtype,
                       lambda module: emit_rows(module, name, operation, dtype))
    elif operation := blocks_llvm.operation_of(name):
        letters, gives = blocks_llvm.SIGNATURES[operation]
        _register_code(function, letters, blocks_llvm.dtype_of(name), lambda module: emit_block(module, name),
                       types.int64 if gives else types.void)
    elif match := ROWS.fullmatch(name):
        kind, dtype = match[1], match[2]
        if kind == "pad":
            _register_call(function, 9, {0: 1, 3: 4}, lambda module: emit_pad(module, dtype))
        else:
            _register_call(function, 9, {0: 1, 4: 5}, lambda module: emit_copy(module, dtype))


def _register_code(function: Callable[..., Any], letters: str, dtype: str, emitted: Callable[[Any], Any],
                   result: Any = types.void) -> None:
    """Lower `function` to a call of `emitted(module)` with its arguments as they are; see `code_llvm.Code`."""
    scalar = types.float32 if dtype == "f32" else types.float64
    pointees, scalars = {"p": scalar, "e": types.int64}, {"i": types.int64, "s": scalar}

    def resolve(*args: Any) -> Any:
        if len(args) != len(letters):
            return None
        kinds = [scalars.get(letter, arg) for arg, letter in zip(args, letters, strict=True)]
        fits = all(letter in scalars or (isinstance(kind, types.CPointer) and kind.dtype == pointees[letter])
                   for kind, letter in zip(kinds, letters, strict=True))
        return signature(result, *kinds) if fits else None

    @lower_builtin(function, *[types.Any] * len(letters))
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.call(emitted(builder.module), arguments)
        return context.get_dummy_value() if result is types.void else value

    typed_by(function, resolve)


def _register_call(
    function: Callable[..., Any], arity: int, pointers: dict[int, int], emitted: Callable[[Any], Any]
) -> None:
    """Lower `function` to a call of `emitted(module)`; offsets are folded into their pointers."""

    def resolve(*args: Any) -> Any:
        if len(args) != arity or not all(isinstance(args[at], types.CPointer) for at in pointers):
            return None
        return types.void(*(arg if at in pointers else types.int64 for at, arg in enumerate(args)))

    @lower_builtin(function, *[types.Any] * arity)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        offsets = set(pointers.values())
        builder.call(
            emitted(builder.module),
            [
                builder.gep(value, [arguments[pointers[at]]]) if at in pointers else value
                for at, value in enumerate(arguments)
                if at not in offsets
            ],
        )
        return context.get_dummy_value()

    typed_by(function, resolve)
