"""The library's functions as LLVM vector instructions. Imported on cold paths only."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir

from .library import FUNCTIONS
from .primitives import horner, two_chains
from .vectors import retargeted


class Vector:
    """An LLVM vector value (or scalar) under construction; arithmetic on it writes instructions.

    Numbers that meet it become constants of its type.
    """

    # NumPy's scalars leave mixed arithmetic to this class.
    __array_ufunc__ = None

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @property
    def is_float(self) -> bool:
        """Whether the elements are floats."""
        return not isinstance(self._element, ir.IntType)

    @property
    def _element(self) -> Any:
        kind = self.value.type
        return kind.element if isinstance(kind, ir.VectorType) else kind

    def like(self, number: Any) -> Any:
        """A number as a constant of this type."""
        plain = float(number) if self.is_float else int(number)
        kind = self.value.type
        return ir.Constant(kind, [plain] * kind.count if isinstance(kind, ir.VectorType) else plain)

    def _other(self, other: Any) -> Any:
        return other.value if isinstance(other, Vector) else self.like(other)

    def _binary(self, floats: str, integers: str, left: Any, right: Any) -> Vector:
        return Vector(self.builder, getattr(self.builder, floats if self.is_float else integers)(left, right))

    def __add__(self, other: Any) -> Vector:
        return self._binary("fadd", "add", self.value, self._other(other))

    def __radd__(self, other: Any) -> Vector:
        return self._binary("fadd", "add", self._other(other), self.value)

    def __sub__(self, other: Any) -> Vector:
        return self._binary("fsub", "sub", self.value, self._other(other))

    def __rsub__(self, other: Any) -> Vector:
        return self._binary("fsub", "sub", self._other(other), self.value)

    def __mul__(self, other: Any) -> Vector:
        return self._binary("fmul", "mul", self.value, self._other(other))

    def __rmul__(self, other: Any) -> Vector:
        return self._binary("fmul", "mul", self._other(other), self.value)

    def __truediv__(self, other: Any) -> Vector:
        return self._binary("fdiv", "", self.value, self._other(other))

    def __rtruediv__(self, other: Any) -> Vector:
        return self._binary("fdiv", "", self._other(other), self.value)

    def __neg__(self) -> Vector:
        return Vector(self.builder, self.builder.fneg(self.value) if self.is_float else self.builder.neg(self.value))

    def __rshift__(self, other: Any) -> Vector:
        return self._binary("", "ashr", self.value, self._other(other))

    def __lshift__(self, other: Any) -> Vector:
        return self._binary("", "shl", self.value, self._other(other))

    def __and__(self, other: Any) -> Vector:
        return self._binary("", "and_", self.value, self._other(other))

    def __or__(self, other: Any) -> Vector:
        return self._binary("", "or_", self.value, self._other(other))

    def __xor__(self, other: Any) -> Vector:
        return self._binary("", "xor", self.value, self._other(other))

    def _compare(self, sign: str, other: Any) -> Vector:
        right = self._other(other)
        if not self.is_float:
            return Vector(self.builder, self.builder.icmp_signed(sign, self.value, right))
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return Vector(self.builder, compare(sign, self.value, right))

    def __lt__(self, other: Any) -> Vector:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Vector:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Vector:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Vector:
        return self._compare(">=", other)

    def __eq__(self, other: Any) -> Vector:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: Any) -> Vector:  # type: ignore[override]
        return self._compare("!=", other)

    __hash__ = None  # type: ignore[assignment]

    def bitcast(self, element: Any) -> Vector:
        """The same bits as elements of another type of the same width; integers are cut to it first."""
        return Vector(self.builder, self.builder.bitcast(self.value, _shaped(self.value.type, element)))


def _select(condition: Vector, if_true: Any, if_false: Any) -> Vector:
    known = next((x for x in (if_true, if_false) if isinstance(x, Vector)), None)
    if known is None:  # two numbers: NumPy's float32 or Python's float
        element = ir.FloatType() if isinstance(if_true, np.float32) else ir.DoubleType()
        known = Vector(condition.builder, ir.Constant(_shaped(condition.value.type, element), ir.Undefined))
    left, right = (x.value if isinstance(x, Vector) else known.like(x) for x in (if_true, if_false))
    return Vector(condition.builder, condition.builder.select(condition.value, left, right))


def _shaped(kind: Any, element: Any) -> Any:
    """The type of another element type with as many lanes."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _convert(element: Any, number: Any) -> Callable[[Any], Any]:
    """NumPy's scalar type as a conversion: of integers to floats, otherwise none is needed."""
    def convert(x: Any) -> Any:
        if not isinstance(x, Vector):
            return number(x)
        if x.is_float or isinstance(element, ir.IntType):
            return x
        return Vector(x.builder, x.builder.sitofp(x.value, _shaped(x.value.type, element)))

    return convert


def _fma(a: Any, b: Any, c: Any) -> Vector:
    """a · b + c, rounded once; at least one of the three is no plain number."""
    known = next(x for x in (a, b, c) if isinstance(x, Vector))
    kind, builder = known.value.type, known.builder
    # llvmlite's declare_intrinsic cannot name vector types: declare by name.
    name = f"llvm.fma.v{kind.count}f32" if isinstance(kind, ir.VectorType) else "llvm.fma.f32"
    function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return Vector(builder, builder.call(function, [x.value if isinstance(x, Vector) else known.like(x)
                                                   for x in (a, b, c)]))


def _cast(element: Any) -> Callable[[Any], Any]:
    def cast(x: Any) -> Any:
        if isinstance(x, Vector):
            return x.bitcast(element)
        # A number known by now: its bits as NumPy gives them.
        width = 32 if element in (ir.IntType(32), ir.FloatType()) else 64
        wide, narrow = (np.uint32, np.float32) if width == 32 else (np.uint64, np.float64)
        if isinstance(element, ir.IntType):
            return int(np.asarray(x, narrow).view(np.int32 if width == 32 else np.int64))
        return np.asarray(int(x) & ((1 << width) - 1), wide).view(narrow)[()]

    return cast


def _missing(name: str) -> Callable[..., Any]:
    def raise_(*operands: Any) -> Any:
        raise NotImplementedError(f"{name} on vectors")

    return raise_


_ON_VECTORS: dict[str, Any] = {
    "np": SimpleNamespace(float32=_convert(ir.FloatType(), np.float32), float64=_convert(ir.DoubleType(), np.float64),
                          int32=_convert(ir.IntType(32), np.int32), int64=_convert(ir.IntType(64), np.int64)),
    "select": _select, "horner": horner, "fma_f32": _fma,
    "polynomial": partial(two_chains, operator.mul, _fma),
    "f32_bits": _cast(ir.IntType(32)), "bits_f32": _cast(ir.FloatType()),
    "f64_bits": _cast(ir.IntType(64)), "bits_f64": _cast(ir.DoubleType()),
    **{name: _missing(name) for name in ("floor", "ceil", "trunc", "rint", "copysign", "sqrt_f32", "sqrt_f64")},
}  # fmt: skip


def vector_call(operator: str, dtype: str, *operands: Vector) -> Vector:
    """A function of the library, written where the operands' builder stands.

    Raises NotImplementedError for a function that rounds to integers or takes roots by instruction.
    """
    return retargeted(FUNCTIONS[operator, dtype].python, _ON_VECTORS)(*operands)  # type: ignore[no-any-return]
