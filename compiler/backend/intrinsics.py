"""The vocabulary of generated kernels, as plain Python.

A generated source is an ordinary module that imports these names and defines one entry function with the
kernel ABI `entry(buffers, extents, begin, end, scratch, status) -> int`. The same text runs in two ways:

- as plain Python (`plain.run_python`): `buffers` is a list of flat NumPy arrays, a pointer is an array, and
  the functions below are what runs;
- compiled (`numba_cpu.compile_source`): each name is a few LLVM instructions (`lowering.py`), a pointer is a
  pointer.

Rules that make both give the same bits: every literal that meets a float32 or a narrow integer goes through a
constructor (`f32(0.5)`, `u32(7)`), because Numba computes `float32 * 0.5` in float64 and `uint32 + uint32` in
64 bits; integer results are cut back the same way (`u32(a * b)`). Pointers are indexed with non-negative
integers and moved with `offset`, never with `+`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ..mathlib.primitives import (
    bits_f32,
    bits_f64,
    ceil,
    f32_bits,
    f64_bits,
    floor,
    rint,
    select,
    trunc,
)

# A NumPy or Python scalar; a flat array (plain Python) or a typed pointer (compiled).
Scalar = Any
Pointer = Any

POINTER_DTYPES: dict[str, type[np.generic]] = {
    "f32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "u64": np.uint64,
    "bool": np.bool_,
}

# ----------------------------------------------------------------------------------------------------
# Constructors: convert to a type.


def f32(x: Scalar) -> Scalar:
    """x as float32, rounded to nearest even."""
    return np.float32(x)


def f64(x: Scalar) -> Scalar:
    """x as float64."""
    return np.float64(x)


def boolean(x: Scalar) -> Scalar:
    """Whether x differs from zero (NaN does)."""
    return np.bool_(x != 0)


def _integer(name: str, dtype: type[np.integer[Any]]) -> Callable[[Scalar], Scalar]:
    bits = np.dtype(dtype).itemsize * 8
    mask, low, high = (1 << bits) - 1, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)

    def convert(x: Scalar) -> Scalar:
        if isinstance(x, (float, np.floating)):
            if math.isnan(x):
                return dtype(0)
            return dtype(high if x >= high else low if x <= low else int(x))
        wrapped = int(x) & mask
        return dtype(wrapped - mask - 1 if wrapped > high else wrapped)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = (
        f"x as {np.dtype(dtype).name}: integers wrap; floats lose their fraction and saturate, NaN gives 0."
    )
    return convert


i8 = _integer("i8", np.int8)
i16 = _integer("i16", np.int16)
i32 = _integer("i32", np.int32)
i64 = _integer("i64", np.int64)
u8 = _integer("u8", np.uint8)
u16 = _integer("u16", np.uint16)
u32 = _integer("u32", np.uint32)
u64 = _integer("u64", np.uint64)

CONSTRUCTORS: dict[str, Callable[[Scalar], Scalar]] = {
    "f32": f32, "f64": f64, "bool": boolean, "i8": i8, "i16": i16, "i32": i32, "i64": i64,
    "u8": u8, "u16": u16, "u32": u32, "u64": u64,
}  # fmt: skip

# ----------------------------------------------------------------------------------------------------
# Pointers.


def _operand_pointer(name: str, dtype: type[np.generic]) -> Callable[..., Pointer]:
    def pointer(buffers: Any, slot: Scalar, group: Scalar = None) -> Pointer:
        array = buffers[slot]
        return array if array.dtype == dtype else array.view(dtype)

    pointer.__name__ = pointer.__qualname__ = f"{name}_ptr"
    pointer.__doc__ = f"""Operand `slot` as a pointer to {np.dtype(dtype).name}.

    Pointers of different literal slots are taken never to overlap. With a computed slot nothing is assumed,
    unless a literal `group` is given: pointers of different groups never overlap.
    """
    return pointer


def _scratch_pointer(name: str, dtype: type[np.generic]) -> Callable[..., Pointer]:
    itemsize = np.dtype(dtype).itemsize

    def pointer(scratch: Any, byte_offset: Scalar, group: Scalar = 0) -> Pointer:
        tail = scratch[int(byte_offset) :]
        return tail[: tail.size // itemsize * itemsize].view(dtype)

    pointer.__name__ = pointer.__qualname__ = f"{name}_at"
    pointer.__doc__ = f"""The thread's scratch memory from `byte_offset` (a multiple of {itemsize}) on, as
    {np.dtype(dtype).name}.

    Areas given different literal `group`s never overlap.
    """
    return pointer


def _local_array(name: str, dtype: type[Any]) -> Callable[[int], Pointer]:
    # Uninitialised memory, so plain Python fills it with what a reader would notice.
    poison: Any = (
        1 if dtype is np.bool_ else np.nan if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    )

    def local(count: int) -> Pointer:
        return np.full(count, poison, dtype)

    local.__name__ = local.__qualname__ = f"local_{name}"
    local.__doc__ = f"""An uninitialised array of `count` (a literal) {np.dtype(dtype).name} on the stack.

    One array per place in the source: a second pass through a loop gets the same memory.
    """
    return local


f32_ptr = _operand_pointer("f32", np.float32)
f64_ptr = _operand_pointer("f64", np.float64)
i8_ptr = _operand_pointer("i8", np.int8)
i16_ptr = _operand_pointer("i16", np.int16)
i32_ptr = _operand_pointer("i32", np.int32)
i64_ptr = _operand_pointer("i64", np.int64)
u8_ptr = _operand_pointer("u8", np.uint8)
u16_ptr = _operand_pointer("u16", np.uint16)
u32_ptr = _operand_pointer("u32", np.uint32)
u64_ptr = _operand_pointer("u64", np.uint64)
bool_ptr = _operand_pointer("bool", np.bool_)

f32_at = _scratch_pointer("f32", np.float32)
f64_at = _scratch_pointer("f64", np.float64)
i8_at = _scratch_pointer("i8", np.int8)
i16_at = _scratch_pointer("i16", np.int16)
i32_at = _scratch_pointer("i32", np.int32)
i64_at = _scratch_pointer("i64", np.int64)
u8_at = _scratch_pointer("u8", np.uint8)
u16_at = _scratch_pointer("u16", np.uint16)
u32_at = _scratch_pointer("u32", np.uint32)
u64_at = _scratch_pointer("u64", np.uint64)
bool_at = _scratch_pointer("bool", np.bool_)

local_f32 = _local_array("f32", np.float32)
local_f64 = _local_array("f64", np.float64)
local_i8 = _local_array("i8", np.int8)
local_i16 = _local_array("i16", np.int16)
local_i32 = _local_array("i32", np.int32)
local_i64 = _local_array("i64", np.int64)
local_u8 = _local_array("u8", np.uint8)
local_u16 = _local_array("u16", np.uint16)
local_u32 = _local_array("u32", np.uint32)
local_u64 = _local_array("u64", np.uint64)
local_bool = _local_array("bool", np.bool_)

OPERAND_POINTERS: dict[str, Callable[..., Pointer]] = {
    "f32": f32_ptr, "f64": f64_ptr, "i8": i8_ptr, "i16": i16_ptr, "i32": i32_ptr, "i64": i64_ptr,
    "u8": u8_ptr, "u16": u16_ptr, "u32": u32_ptr, "u64": u64_ptr, "bool": bool_ptr,
}  # fmt: skip
SCRATCH_POINTERS: dict[str, Callable[..., Pointer]] = {
    "f32": f32_at, "f64": f64_at, "i8": i8_at, "i16": i16_at, "i32": i32_at, "i64": i64_at,
    "u8": u8_at, "u16": u16_at, "u32": u32_at, "u64": u64_at, "bool": bool_at,
}  # fmt: skip
LOCAL_ARRAYS: dict[str, Callable[[int], Pointer]] = {
    "f32": local_f32, "f64": local_f64, "i8": local_i8, "i16": local_i16, "i32": local_i32, "i64": local_i64,
    "u8": local_u8, "u16": local_u16, "u32": local_u32, "u64": local_u64, "bool": local_bool,
}  # fmt: skip


def offset(pointer: Pointer, elements: Scalar) -> Pointer:
    """The pointer moved on by a non-negative number of elements."""
    return pointer[int(elements) :]


# ----------------------------------------------------------------------------------------------------
# Scalar operations.


def udiv(a: Scalar, b: Scalar) -> Scalar:
    """a // b for a >= 0 and b > 0 (int64), without the checks that `//` makes."""
    return np.int64(int(a) // int(b))


def urem(a: Scalar, b: Scalar) -> Scalar:
    """a % b for a >= 0 and b > 0 (int64), without the checks that `%` makes."""
    return np.int64(int(a) % int(b))


def sqrt(x: Scalar) -> Scalar:
    """The correctly rounded square root, in x's own float type; NaN below zero."""
    return np.sqrt(x)


def fabs(x: Scalar) -> Scalar:
    """x without its sign bit, in x's own float type."""
    return np.abs(x)


def copysign(x: Scalar, sign: Scalar) -> Scalar:
    """x with the sign bit of `sign`; both of one float type."""
    return np.copysign(x, sign)


def fma(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    """a * b + c rounded once; all three of one float type."""
    dtype = type(a)
    plain = np.float64(a) * np.float64(b) + np.float64(c)
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return dtype(plain)  # infinities and NaN come out right
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return dtype(a * b + c)
    return _round_fraction(exact, dtype)


def _round_fraction(value: Fraction, dtype: type[np.floating[Any]]) -> Scalar:
    """A nonzero fraction rounded to nearest even in float32 or float64, subnormals and overflow included."""
    info = np.finfo(dtype)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    rounded = round(value / quantum) * quantum  # round() of a Fraction takes ties to even
    if abs(rounded) > Fraction(float(info.max)):
        return dtype(math.copysign(math.inf, value))
    result = dtype(float(rounded))
    return dtype(math.copysign(0.0, value)) if rounded == 0 else result


def fail(status: Pointer, code: Scalar, node: Scalar, index: Scalar, extent: Scalar) -> Scalar:
    """Record bad data in `status`; return 1, which the kernel returns in turn."""
    status[0], status[1], status[2], status[3] = code, node, index, extent
    return np.int32(1)


# ----------------------------------------------------------------------------------------------------
# Narrow floats: kept as 16 bits, computed in float32.


def f16_to_f32(bits: Scalar) -> Scalar:
    """The float32 with the value of a float16 given by its bits (uint16); exact."""
    return np.uint16(bits).view(np.float16).astype(np.float32)


def f32_to_f16(x: Scalar) -> Scalar:
    """The bits (uint16) of x rounded to float16, ties to even; NaN becomes the quiet NaN with x's sign."""
    if np.isnan(x):
        return np.uint16(0x7E00 | (int(f32_bits(x)) >> 16 & 0x8000))
    return np.float32(x).astype(np.float16).view(np.uint16)


def f64_to_f16(x: Scalar) -> Scalar:
    """The bits (uint16) of a float64 rounded once to float16."""
    if np.isnan(x):
        return np.uint16(0x7E00 | (int(f64_bits(x)) >> 48 & 0x8000))
    return np.float64(x).astype(np.float16).view(np.uint16)


def bf16_to_f32(bits: Scalar) -> Scalar:
    """The float32 with the value of a bfloat16 given by its bits (uint16); exact."""
    return np.uint32(int(bits) << 16).view(np.float32)


def f32_to_bf16(x: Scalar) -> Scalar:
    """The bits (uint16) of x rounded to bfloat16, ties to even; NaN becomes the quiet NaN with x's sign."""
    bits = int(np.float32(x).view(np.uint32))
    if np.isnan(x):
        return np.uint16(0x7FC0 | (bits >> 16 & 0x8000))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


__all__ = [
    "bf16_to_f32", "bits_f32", "bits_f64", "bool_at", "bool_ptr", "boolean", "ceil", "copysign",
    "f16_to_f32", "f32", "f32_at", "f32_bits", "f32_ptr", "f32_to_bf16", "f32_to_f16", "f64", "f64_at",
    "f64_bits", "f64_ptr", "f64_to_f16", "fabs", "fail", "floor", "fma", "i8", "i8_at", "i8_ptr", "i16",
    "i16_at", "i16_ptr", "i32", "i32_at", "i32_ptr", "i64", "i64_at", "i64_ptr", "local_bool", "local_f32",
    "local_f64", "local_i8", "local_i16", "local_i32", "local_i64", "local_u8", "local_u16", "local_u32",
    "local_u64", "offset", "rint", "select", "sqrt", "trunc", "u8", "u8_at", "u8_ptr", "u16", "u16_at",
    "u16_ptr", "u32", "u32_at", "u32_ptr", "u64", "u64_at", "u64_ptr", "udiv", "urem",
]  # fmt: skip
