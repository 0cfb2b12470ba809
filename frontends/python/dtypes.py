"""Public dtype objects (`tm.float32`) over the IR's element types, and PyTorch's promotion rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np

from ...ir import dtypes as ir
from ...ir.dtypes import DType
from ...ir.errors import DTypeError


class dtype:
    """An element type as scripts see it; compares by identity, prints as PyTorch's."""

    __slots__ = ("ir", "name")

    def __init__(self, element: DType) -> None:
        self.ir = element
        self.name = element.long_name

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.ir.itemsize

    @property
    def is_floating_point(self) -> bool:
        return self.ir.is_float

    @property
    def is_complex(self) -> bool:
        return False

    @property
    def is_signed(self) -> bool:
        return self.ir.kind in ("float", "int")

    def to_real(self) -> dtype:
        return self

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_public, (self.ir.name,))


_PUBLIC: dict[DType, dtype] = {d: dtype(d) for d in ir.ALL}


def _public(name: str) -> dtype:
    return _PUBLIC[ir.dtype(name)]


def public(element: DType) -> dtype:
    """The public object of an IR element type."""
    return _PUBLIC[element]


float64 = double = _PUBLIC[ir.f64]
float32 = float_ = _PUBLIC[ir.f32]
float16 = half = _PUBLIC[ir.f16]
bfloat16 = _PUBLIC[ir.bf16]
int8 = _PUBLIC[ir.i8]
int16 = short = _PUBLIC[ir.i16]
int32 = int_ = _PUBLIC[ir.i32]
int64 = long = _PUBLIC[ir.i64]
uint8 = _PUBLIC[ir.u8]
uint32 = _PUBLIC[ir.u32]
uint64 = _PUBLIC[ir.u64]
bool_ = _PUBLIC[ir.boolean]

_PYTHON: dict[Any, DType] = {float: ir.f64, int: ir.i64, bool: ir.boolean}
_default = ir.f32


def default() -> DType:
    """The element type of Python floats."""
    return _default


def get_default_dtype() -> dtype:
    """The dtype that floats without one become (`torch.float32` unless changed)."""
    return _PUBLIC[_default]


def set_default_dtype(d: dtype) -> None:
    """Set what `get_default_dtype` returns. Raises TypeError unless it is a floating dtype."""
    global _default
    element = resolve(d)
    if not element.is_float:
        raise DTypeError("only floating-point types are supported as the default type")
    _default = element
    _promote_number.cache_clear()


def resolve(d: Any) -> DType:
    """The element type that a script's dtype argument means: ours, a Python type or a NumPy dtype."""
    if isinstance(d, dtype):
        return d.ir
    if isinstance(d, DType):
        return d
    found = _PYTHON.get(d) if isinstance(d, type) else None
    if found is not None:
        return found
    try:
        return ir.from_numpy(d)
    except (KeyError, TypeError):
        raise DTypeError(f"{d!r} is not a dtype", hint="use tm.float32, tm.int64, tm.bool, …") from None


# --- promotion -------------------------------------------------------------------------------------------------------
_CATEGORY = {"bool": 0, "uint": 1, "int": 1, "float": 2}


def category(d: DType) -> int:
    """0 for bool, 1 for integers, 2 for floats."""
    return _CATEGORY[d.kind]


@cache
def promote_types(a: DType, b: DType) -> DType:
    """The smallest element type that PyTorch lets both operands become, regardless of ranks.

    >>> promote_types(ir.u8, ir.i8), promote_types(ir.f16, ir.bf16), promote_types(ir.i64, ir.f16)
    (i16, f32, f16)
    """
    if a is b:
        return a
    ca, cb = category(a), category(b)
    if ca != cb:
        return a if ca > cb else b
    if ca == 2:
        return a if a.bits > b.bits else b if b.bits > a.bits else ir.f32
    if a.kind == b.kind:
        return a if a.bits >= b.bits else b
    unsigned, signed = (a, b) if a.kind == "uint" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    if unsigned is not ir.u8:
        raise DTypeError(f"Promotion for uint16, uint32, uint64 types is not supported, attempted to promote "
                         f"{unsigned.long_name} and {signed.long_name}", hint="cast one of them first: x.to(tm.int64)")
    return ir.i16


@cache
def promote_ranked(a: DType, a_scalar: bool, b: DType, b_scalar: bool) -> DType:
    """Promotion of two tensors, where a 0-dim one only counts if its category is higher."""
    if a is b:
        return a
    if a_scalar != b_scalar:
        full, zero = (b, a) if a_scalar else (a, b)
        if category(zero) <= category(full):
            return full
        return zero
    return promote_types(a, b)


@cache
def _promote_number(a: DType, kind: Any) -> DType:
    if kind is bool:
        return a
    if kind is int:
        return ir.i64 if a.is_bool else a
    if kind is float:
        return a if a.is_float else _default
    if issubclass(kind, (bool, np.bool_)):
        return _promote_number(a, bool)
    if issubclass(kind, (int, np.integer)):
        return _promote_number(a, int)
    if issubclass(kind, (float, np.floating)):
        return _promote_number(a, float)
    raise DTypeError(f"unsupported operand type: {kind.__name__}")


# Promotion of a tensor with a Python number of some type, which never widens within a category.
promote_number = cast("Callable[[DType, Any], DType]", _promote_number)


def result_type(a: Any, b: Any) -> dtype:
    """The dtype an operation on two tensors or numbers would have."""
    return public(_result(a, b))


def _result(a: Any, b: Any) -> DType:
    if isinstance(a, (bool, int, float)) and isinstance(b, (bool, int, float)):
        return promote_number(number_dtype(a), type(b))
    if isinstance(a, (bool, int, float)):
        a, b = b, a
    if isinstance(b, (bool, int, float)):
        return promote_number(a.dtype.ir, type(b))
    return promote_ranked(a.dtype.ir, not a.shape, b.dtype.ir, not b.shape)


def number_dtype(value: Any) -> DType:
    """The element type a Python number becomes on its own."""
    if isinstance(value, (bool, np.bool_)):
        return ir.boolean
    return ir.i64 if isinstance(value, (int, np.integer)) else _default


class finfo:
    """Limits of a floating dtype: `eps`, `max`, `min`, `tiny`, `smallest_normal`, `resolution`, `bits`."""

    def __init__(self, type: Any = None) -> None:
        element = resolve(type) if type is not None else _default
        if not element.is_float:
            raise DTypeError(f"torch.finfo() requires a floating point input type, got {element.long_name}; "
                             f"use torch.iinfo to handle integers")
        if element is ir.bf16:
            import ml_dtypes

            info: Any = ml_dtypes.finfo(element.numpy)  # type: ignore[no-untyped-call]
        else:
            info = np.finfo(element.numpy)
        self.bits = element.bits
        self.dtype = element.long_name
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = float(info.resolution)

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
                f"smallest_normal={self.tiny:g}, tiny={self.tiny:g}, dtype={self.dtype})")


class iinfo:
    """Limits of an integer dtype: `min`, `max`, `bits`."""

    def __init__(self, type: Any) -> None:
        element = resolve(type)
        if not element.is_integer:
            raise DTypeError(f"torch.iinfo() requires an integer input type, got {element.long_name}; "
                             f"use torch.finfo to handle floating point")
        info = np.iinfo(element.numpy)
        self.bits, self.min, self.max, self.dtype = element.bits, int(info.min), int(info.max), element.long_name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
