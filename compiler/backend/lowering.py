"""Numba's view of `intrinsics`: types and LLVM code. Imported on cold paths only; importing it registers
everything.

Pointers carry an alias group in their type. Each access is noted on the LLVM module it is emitted into
(`accesses(module)`), and `frontend` turns the notes into `alias.scope` and `noalias` metadata once all groups
of a
kernel are known: LLVM then vectorises without run-time overlap checks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_constant
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer, infer_global
from numba.extending import lower_builtin

from ..mathlib import lowering as _mathlib  # noqa: F401  (registers select, the bit casts and the rounding functions)
from . import intrinsics

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _I8.as_pointer()

NUMBA_TYPES: dict[str, Any] = {
    "f32": types.float32, "f64": types.float64, "i8": types.int8, "i16": types.int16, "i32": types.int32,
    "i64": types.int64, "u8": types.uint8, "u16": types.uint16, "u32": types.uint32, "u64": types.uint64,
    "bool": types.boolean,
}  # fmt: skip


class Pointer(types.CPointer):  # type: ignore[misc]
    """A pointer to `dtype` whose memory no pointer of another group reaches (None: nothing is known)."""

    def __init__(self, dtype: Any, group: str | None = None) -> None:
        super().__init__(dtype)
        self.group = group
        self.name = f"{dtype}*{'' if group is None else '@' + group}"

    @property
    def key(self) -> Any:
        return self.dtype, self.group


class Table(Pointer):
    """A global NumPy array that a source (or a function it calls) indexes: constants in the object."""

    def __init__(self, dtype: Any, count: int) -> None:
        super().__init__(dtype, None)
        self.count = count
        self.name = f"{dtype}[{count}] table"

    @property
    def key(self) -> Any:
        return self.dtype, self.count


class BufferTable(types.Opaque):  # type: ignore[misc]
    """The `buffers` argument: `void**`."""


class Scratch(types.Opaque):  # type: ignore[misc]
    """The `scratch` argument: `void*`."""


buffers_type = BufferTable("buffers")
scratch_type = Scratch("scratch")
extents_type = Pointer(types.int64, "extents")
status_type = Pointer(types.int64, "status")

ENTRY_TYPES = (buffers_type, extents_type, types.int64, types.int64, scratch_type, status_type)


@register_default(Pointer)
@register_default(Table)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Pointer) -> None:
        super().__init__(manager, fe_type, manager.lookup(fe_type.dtype).get_data_type().as_pointer())


@register_default(BufferTable)
class _BufferTableModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: BufferTable) -> None:
        super().__init__(manager, fe_type, _BYTES.as_pointer())


@register_default(Scratch)
class _ScratchModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Scratch) -> None:
        super().__init__(manager, fe_type, _BYTES)


@lower_constant(Table)
def _constant_table(context: Any, builder: Any, kind: Table, array: Any) -> Any:
    element = context.get_data_type(kind.dtype)
    words = [ir.Constant(element, value) for value in array.tolist()]
    name = builder.module.get_unique_name("table")
    table = cgutils.global_constant(builder, name, ir.Constant(ir.ArrayType(element, len(words)), words))
    table.align = 64
    return builder.bitcast(table, element.as_pointer())


def accesses(module: Any) -> dict[str, list[Any]]:
    """The loads and stores emitted into an LLVM module so far, by alias group."""
    notes: dict[str, list[Any]] = module.__dict__.setdefault("tracemill_accesses", {})
    return notes


def _note(builder: Any, group: str | None, instruction: Any) -> None:
    if group is not None:
        accesses(builder.module).setdefault(group, []).append(instruction)


# ----------------------------------------------------------------------------------------------------
# Loads and stores.


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, index = args
    kind = sig.args[0]
    value = builder.load(builder.gep(pointer, [index], inbounds=True))
    _note(builder, kind.group, value)
    if kind.group == "extents" or isinstance(kind, Table):  # written by nobody while a kernel runs
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
    if isinstance(kind.dtype, types.Boolean):
        return builder.icmp_unsigned("!=", value, value.type(0))
    return value


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, index, value = args
    kind = sig.args[0]
    value = context.data_model_manager[kind.dtype].as_data(builder, value)
    _note(builder, kind.group, builder.store(value, builder.gep(pointer, [index], inbounds=True)))
    return context.get_dummy_value()


# ----------------------------------------------------------------------------------------------------
# Registration helpers.


def typed_by(function: Callable[..., Any], resolve: Callable[..., Any]) -> None:
    """Make `resolve(*argument types) -> signature | None` the typing of a function; literals are kept."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Any:
            return None if kws else resolve(*args)

    infer(Template)
    infer_global(function, types.Function(Template))


def _literal(kind: Any) -> int | None:
    return int(kind.literal_value) if isinstance(kind, types.IntegerLiteral) else None


def _is(kind: Any, *classes: Any) -> bool:
    return isinstance(types.unliteral(kind), classes)


def _fixed(function: Callable[..., Any], result: Any, *arguments: Any) -> Callable[..., Any]:
    """Decorator: the lowering of a function with one signature; arguments are cast to it."""
    sig = signature(result, *arguments)

    def fits(arg: Any, want: Any) -> bool:
        return arg == want or (_is(arg, types.Number, types.Boolean) and _is(want, types.Number))

    def resolve(*args: Any) -> Any:
        return sig if len(args) == len(arguments) and all(map(fits, args, arguments)) else None

    def register(lower: Callable[..., Any]) -> Callable[..., Any]:
        typed_by(function, resolve)
        lower_builtin(function, *arguments)(lower)
        return lower

    return register


# ----------------------------------------------------------------------------------------------------
# Pointers to operands, scratch and locals.


def _register_operand_pointer(function: Callable[..., Any], dtype: Any) -> None:
    def resolve(*args: Any) -> Any:
        if len(args) not in (2, 3) or args[0] != buffers_type or not _is(args[1], types.Integer):
            return None
        group = _literal(args[1]) if len(args) == 2 else _literal(args[2])
        if len(args) == 3 and group is None:
            return None
        prefix = "operand" if len(args) == 2 else "group"
        # The slot stays literal, so that the lowering knows it.
        return signature(Pointer(dtype, None if group is None else f"{prefix}{group}"), *args)

    @lower_builtin(function, BufferTable, types.Integer)
    @lower_builtin(function, BufferTable, types.Integer, types.Integer)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        slot = _literal(sig.args[1])
        if slot is None:
            index = context.cast(builder, args[1], sig.args[1], types.int64)
        else:
            in_place = dict(context.active_code_library.options.in_place)
            index = ir.Constant(_I64, in_place.get(slot, slot))
        value = builder.load(builder.gep(args[0], [index], inbounds=True))
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        _note(builder, "buffers", value)
        return builder.bitcast(value, context.get_value_type(sig.return_type))

    typed_by(function, resolve)


def _register_scratch_pointer(function: Callable[..., Any], dtype: Any) -> None:
    def resolve(*args: Any) -> Any:
        if len(args) not in (2, 3) or args[0] != scratch_type or not _is(args[1], types.Integer):
            return None
        group = _literal(args[2]) if len(args) == 3 else 0
        return None if group is None else signature(Pointer(dtype, f"scratch{group}"), *args)

    @lower_builtin(function, Scratch, types.Integer)
    @lower_builtin(function, Scratch, types.Integer, types.Integer)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        where = context.cast(builder, args[1], sig.args[1], types.int64)
        return builder.bitcast(
            builder.gep(args[0], [where], inbounds=True), context.get_value_type(sig.return_type)
        )

    typed_by(function, resolve)


def _register_local_array(function: Callable[..., Any], dtype: Any) -> None:
    def resolve(*args: Any) -> Any:
        count = _literal(args[0]) if len(args) == 1 else None
        return None if count is None else signature(Pointer(dtype), *args)

    @lower_builtin(function, types.IntegerLiteral)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = _literal(sig.args[0]) or 1
        element = context.get_data_type(dtype)
        with builder.goto_entry_block():
            array = builder.alloca(ir.ArrayType(element, count))
        array.align = 64
        return builder.bitcast(array, element.as_pointer())

    typed_by(function, resolve)


for _name, _dtype in NUMBA_TYPES.items():
    _register_operand_pointer(intrinsics.OPERAND_POINTERS[_name], _dtype)
    _register_scratch_pointer(intrinsics.SCRATCH_POINTERS[_name], _dtype)
    _register_local_array(intrinsics.LOCAL_ARRAYS[_name], _dtype)


def _resolve_offset(*args: Any) -> Any:
    if len(args) == 2 and isinstance(args[0], types.CPointer) and _is(args[1], types.Integer):
        return signature(args[0], args[0], types.int64)
    return None


@lower_builtin(intrinsics.offset, types.CPointer, types.int64)
def _lower_offset(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.gep(args[0], [args[1]], inbounds=True)


typed_by(intrinsics.offset, _resolve_offset)

# ----------------------------------------------------------------------------------------------------
# Constructors.


def _saturate(builder: Any, value: Any, target: Any) -> Any:
    """Float → integer by LLVM's saturating conversion: NaN gives 0."""
    width = target.bitwidth
    suffix = "f32" if isinstance(value.type, ir.FloatType) else "f64"
    name = f"llvm.fpto{'s' if target.signed else 'u'}i.sat.i{width}.{suffix}"
    kind = ir.FunctionType(ir.IntType(width), [value.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [value])


def _register_constructor(function: Callable[..., Any], target: Any) -> None:
    def resolve(*args: Any) -> Any:
        if len(args) != 1 or not _is(args[0], types.Integer, types.Float, types.Boolean):
            return None
        return signature(target, types.unliteral(args[0]))

    @lower_builtin(function, types.Boolean)
    @lower_builtin(function, types.Integer)
    @lower_builtin(function, types.Float)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = sig.args[0]
        if isinstance(source, types.Float):
            if isinstance(target, types.Integer):
                return _saturate(builder, args[0], target)
            if isinstance(target, types.Boolean):
                return builder.fcmp_unordered("!=", args[0], ir.Constant(args[0].type, 0.0))
        return context.cast(builder, args[0], source, target)

    typed_by(function, resolve)


for _name, _dtype in NUMBA_TYPES.items():
    _register_constructor(intrinsics.CONSTRUCTORS[_name], _dtype)

# ----------------------------------------------------------------------------------------------------
# Scalar operations.


@_fixed(intrinsics.udiv, types.int64, types.int64, types.int64)
def _udiv(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.udiv(*args)


@_fixed(intrinsics.urem, types.int64, types.int64, types.int64)
def _urem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.urem(*args)


@_fixed(intrinsics.fail, types.int32, status_type, *[types.int64] * 4)
def _fail(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    status, *words = args
    for at, word in enumerate(words):
        _note(
            builder,
            "status",
            builder.store(word, builder.gep(status, [ir.Constant(_I64, at)], inbounds=True)),
        )
    return ir.Constant(_I32, 1)


def _register_float_intrinsic(function: Callable[..., Any], name: str, arity: int) -> None:
    def resolve(*args: Any) -> Any:
        same = (
            len(args) == arity and _is(args[0], types.Float) and len({types.unliteral(a) for a in args}) == 1
        )
        return signature(args[0], *args) if same else None

    @lower_builtin(function, *[types.Float] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        suffix = "f32" if isinstance(args[0].type, ir.FloatType) else "f64"
        kind = ir.FunctionType(args[0].type, [arg.type for arg in args])
        called = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}")
        return builder.call(called, args)

    typed_by(function, resolve)


_register_float_intrinsic(intrinsics.sqrt, "sqrt", 1)
_register_float_intrinsic(intrinsics.fabs, "fabs", 1)
_register_float_intrinsic(intrinsics.copysign, "copysign", 2)
_register_float_intrinsic(intrinsics.fma, "fma", 3)

# ----------------------------------------------------------------------------------------------------
# Narrow floats. Branch-free and in 32-bit lanes, so that LLVM vectorises them.


def _word(value: int, kind: Any = _I32) -> Any:
    return ir.Constant(kind, value)


@_fixed(intrinsics.bf16_to_f32, types.float32, types.uint16)
def _bf16_to_f32(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _word(16)), ir.FloatType())


@_fixed(intrinsics.f32_to_bf16, types.uint16, types.float32)
def _f32_to_bf16(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    bits = builder.bitcast(args[0], _I32)
    high = builder.lshr(bits, _word(16))
    bias = builder.add(builder.and_(high, _word(1)), _word(0x7FFF))
    rounded = builder.lshr(builder.add(bits, bias), _word(16))
    quiet = builder.or_(builder.and_(high, _word(0x8000)), _word(0x7FC0))
    is_nan = builder.icmp_unsigned(">", builder.and_(bits, _word(0x7FFFFFFF)), _word(0x7F800000))
    return builder.trunc(builder.select(is_nan, quiet, rounded), ir.IntType(16))


@_fixed(intrinsics.f16_to_f32, types.float32, types.uint16)
def _f16_to_f32(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Normal: rebias the exponent. Subnormal: the significand under an exponent of 2**-14, minus 2**-14."""
    half = builder.zext(args[0], _I32)
    sign = builder.shl(builder.and_(half, _word(0x8000)), _word(16))
    magnitude = builder.shl(builder.and_(half, _word(0x7FFF)), _word(13))
    exponent = builder.and_(magnitude, _word(0x0F800000))
    rebiased = builder.add(magnitude, _word((127 - 15) << 23))
    special = builder.add(rebiased, _word((128 - 16) << 23))  # infinity and NaN keep a full exponent
    shifted = builder.bitcast(builder.add(rebiased, _word(1 << 23)), ir.FloatType())
    smallest = builder.bitcast(_word(113 << 23), ir.FloatType())
    subnormal = builder.bitcast(builder.fsub(shifted, smallest), _I32)
    result = builder.select(builder.icmp_unsigned("==", exponent, _word(0x0F800000)), special, rebiased)
    result = builder.select(builder.icmp_unsigned("==", exponent, _word(0)), subnormal, result)
    return builder.bitcast(builder.or_(result, sign), ir.FloatType())


def _half_bits(builder: Any, bits: Any) -> Any:
    """float32 bits → float16 bits.

    Normal results: integer rounding of the 13 dropped bits. Subnormal results: adding 0.5 puts the last place
    of float16 subnormals (2**-24) at that of the sum, so the addition itself rounds to nearest even.
    """
    sign = builder.and_(builder.lshr(bits, _word(16)), _word(0x8000))
    magnitude = builder.and_(bits, _word(0x7FFFFFFF))
    half = builder.bitcast(_word(126 << 23), ir.FloatType())
    summed = builder.bitcast(builder.fadd(builder.bitcast(magnitude, ir.FloatType()), half), _I32)
    subnormal = builder.sub(summed, _word(126 << 23))
    odd = builder.and_(builder.lshr(magnitude, _word(13)), _word(1))
    rebiased = builder.sub(magnitude, _word((127 - 15) << 23))
    normal = builder.lshr(builder.add(builder.add(rebiased, _word(0xFFF)), odd), _word(13))
    result = builder.select(builder.icmp_unsigned("<", magnitude, _word(113 << 23)), subnormal, normal)
    overflow = builder.icmp_unsigned(
        ">=", magnitude, _word(0x47800000)
    )  # 65536 and above; 65520 rounds up by itself
    result = builder.select(overflow, _word(0x7C00), result)
    is_nan = builder.icmp_unsigned(">", magnitude, _word(0x7F800000))
    result = builder.select(is_nan, _word(0x7E00), result)
    return builder.trunc(builder.or_(result, sign), ir.IntType(16))


@_fixed(intrinsics.f32_to_f16, types.uint16, types.float32)
def _f32_to_f16(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _half_bits(builder, builder.bitcast(args[0], _I32))


@_fixed(intrinsics.f64_to_f16, types.uint16, types.float64)
def _f64_to_f16(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """By way of float32 rounded to odd, which keeps enough for the second rounding to be the only one."""
    narrow = builder.fptrunc(args[0], ir.FloatType())
    back = builder.fpext(narrow, ir.DoubleType())
    magnitude = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()])
    fabs = cgutils.get_or_insert_function(builder.module, magnitude, "llvm.fabs.f64")
    too_far = builder.fcmp_ordered(">", builder.call(fabs, [back]), builder.call(fabs, [args[0]]))
    bits = builder.bitcast(narrow, _I32)
    toward_zero = builder.sub(bits, builder.zext(too_far, _I32))
    inexact = builder.fcmp_ordered("!=", back, args[0])
    return _half_bits(builder, builder.or_(toward_zero, builder.zext(inexact, _I32)))
