"""The vocabulary of the native plan runner: memory words, atomics, calls by address. All operands are int64.

Like the kernels' intrinsics, each name is a plain Python function (by ctypes: the runner can be stepped
through in a debugger, one worker at a time) and a few LLVM instructions.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer, infer_global
from numba.extending import lower_builtin

_I64, _I32, _I8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)

Function = TypeVar("Function", bound=Callable[..., Any])
Lowering = Callable[[Any, Any], Any]  # (builder, arguments) -> value or None


def _lowered(lower: Lowering) -> Callable[[Function], Function]:
    """Decorator: a function of int64 arguments is compiled to the instructions that `lower` emits."""

    def register(function: Function) -> Function:
        count = function.__code__.co_argcount
        kinds = [types.int64] * count
        result = types.void if function.__annotations__["return"] == "None" else types.int64

        class Template(ConcreteTemplate):  # type: ignore[misc]
            key = function
            cases = (signature(result, *kinds),)

        infer(Template)
        infer_global(function, types.Function(Template))

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = lower(builder, args)
            return context.get_dummy_value() if result is types.void else value

        lower_builtin(function, *kinds)(emit)
        return function

    return register


def _word(builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    """Pointer to word `index` of the block at address `base`."""
    return builder.gep(builder.inttoptr(base, _I64.as_pointer()), [index])


def _at(base: int, index: int) -> ctypes.c_int64:
    return ctypes.c_int64.from_address(base + 8 * index)


@_lowered(lambda builder, args: builder.load(_word(builder, *args), align=8))
def load(base: int, index: int) -> int:
    """Word `index` of the block at `base`."""
    return _at(base, index).value


@_lowered(lambda builder, args: builder.store(args[2], _word(builder, *args[:2]), align=8))
def store(base: int, index: int, value: int) -> None:
    """Set word `index` of the block at `base`."""
    _at(base, index).value = value


@_lowered(lambda builder, args: builder.load_atomic(_word(builder, *args), "seq_cst", 8))
def load_sync(base: int, index: int) -> int:
    """`load`, atomic and sequentially consistent."""
    return _at(base, index).value


@_lowered(lambda builder, args: builder.store_atomic(args[2], _word(builder, *args[:2]), "seq_cst", 8))
def store_sync(base: int, index: int, value: int) -> None:
    """`store`, atomic and sequentially consistent."""
    _at(base, index).value = value


@_lowered(
    lambda builder, args: builder.zext(
        builder.load(builder.inttoptr(args[0], _I8.as_pointer()), align=1), _I64
    )
)
def load_byte(address: int) -> int:
    """The byte at `address`."""
    return ctypes.c_uint8.from_address(address).value


def _emit_add(builder: Any, args: Any) -> Any:
    return builder.add(builder.atomic_rmw("add", _word(builder, *args[:2]), args[2], "seq_cst"), args[2])


@_lowered(_emit_add)
def add_fetch(base: int, index: int, value: int) -> int:
    """Add to a word atomically; the new value."""
    word = _at(base, index)
    word.value += value
    return word.value


def _emit_swap(builder: Any, args: Any) -> Any:
    pair = builder.cmpxchg(_word(builder, *args[:2]), args[2], args[3], "seq_cst", "seq_cst")
    return builder.zext(builder.extract_value(pair, 1), _I64)


@_lowered(_emit_swap)
def compare_swap(base: int, index: int, expected: int, value: int) -> int:
    """Replace a word that equals `expected`, atomically; 1 if it did."""
    word = _at(base, index)
    if word.value != expected:
        return 0
    word.value = value
    return 1


def _emit_pause(builder: Any, args: Any) -> Any:
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        hint = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, hint, "llvm.x86.sse2.pause"), [])
    elif machine in ("aarch64", "arm64"):
        hint = ir.FunctionType(ir.VoidType(), [_I32])
        function = cgutils.get_or_insert_function(builder.module, hint, "llvm.aarch64.hint")
        builder.call(function, [ir.Constant(_I32, 1)])


@_lowered(_emit_pause)
def pause() -> None:
    """Tell the core that this is a waiting loop (nothing on machines without such a hint)."""
    time.sleep(0)


def _emit_call(builder: Any, args: Any) -> Any:
    form = ir.FunctionType(_I64, [_I64] * 3)
    return builder.call(builder.inttoptr(args[0], form.as_pointer()), args[1:])


@_lowered(_emit_call)
def call_native(function: int, first: int, second: int, third: int) -> int:
    """Call a C function of up to three pointer-sized arguments by its address (it ignores surplus ones)."""
    form = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return int(form(function)(first, second, third))


def _emit_kernel_call(builder: Any, args: Any) -> Any:
    byte, word = _I8.as_pointer(), _I64.as_pointer()
    form = ir.FunctionType(_I32, [byte.as_pointer(), word, _I64, _I64, byte, word])
    function, buffers, extents, begin, end, scratch, status = args
    operands = [
        builder.inttoptr(buffers, byte.as_pointer()), builder.inttoptr(extents, word), begin, end,
        builder.inttoptr(scratch, byte), builder.inttoptr(status, word),
    ]  # fmt: skip
    return builder.sext(builder.call(builder.inttoptr(function, form.as_pointer()), operands), _I64)


@_lowered(_emit_kernel_call)
def call_kernel(
    function: int, buffers: int, extents: int, begin: int, end: int, scratch: int, status: int
) -> int:
    """Call a kernel of the C ABI by its address; its result."""
    form = ctypes.CFUNCTYPE(
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return int(form(function)(buffers, extents, begin, end, scratch, status))
