"""Numba's view of the primitives: typing and LLVM code. Imported on cold paths only.

Importing this module registers the primitives; there is nothing else to call.
"""

# Numba is typed in part only.
# mypy: disable-error-code="untyped-decorator, no-untyped-call, attr-defined"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import lower_builtin, type_callable

from . import primitives


def _bit_cast(function: Callable[..., Any], source: Any, result: Any, width: int) -> None:
    """Register a reinterpretation between a float and a signed integer of `width` bits."""

    @type_callable(function)
    def typer(context: Any) -> Callable[..., Any]:
        def resolve(value: Any) -> Any:
            return result if isinstance(types.unliteral(value), source) else None

        return resolve

    @lower_builtin(function, source)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        (kind,) = signature.args
        if isinstance(kind, types.Integer):
            if kind.bitwidth > width:
                value = builder.trunc(value, ir.IntType(width))
            elif kind.bitwidth < width:
                extend = builder.sext if kind.signed else builder.zext
                value = extend(value, ir.IntType(width))
        return builder.bitcast(value, context.get_value_type(signature.return_type))


_bit_cast(primitives.f32_bits, types.Float, types.int32, 32)
_bit_cast(primitives.f64_bits, types.Float, types.int64, 64)
_bit_cast(primitives.bits_f32, types.Integer, types.float32, 32)
_bit_cast(primitives.bits_f64, types.Integer, types.float64, 64)


@type_callable(primitives.select)
def _type_select(context: Any) -> Callable[..., Any]:
    def resolve(condition: Any, if_true: Any, if_false: Any) -> Any:
        if_true, if_false = types.unliteral(if_true), types.unliteral(if_false)
        if not isinstance(types.unliteral(condition), types.Boolean):
            return None
        return if_true if if_true == if_false else None

    return resolve


@lower_builtin(primitives.select, types.Boolean, types.Any, types.Any)
def _lower_select(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    condition, if_true, if_false = arguments
    return builder.select(condition, if_true, if_false)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(builder.module.declare_intrinsic("llvm.fma", [a.type], kind), [a, b, c])


@type_callable(primitives.fma_f32)
def _type_fma(context: Any) -> Callable[..., Any]:
    def resolve(a: Any, b: Any, c: Any) -> Any:
        return types.float32 if a == b == c == types.float32 else None

    return resolve


@lower_builtin(primitives.fma_f32, types.Float, types.Float, types.Float)
def _lower_fma(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return _fused(builder, *arguments)


def _polynomial(function: Callable[..., Any], evaluate: Callable[[Any, Any, list[Any]], Any]) -> None:
    """Register a primitive that evaluates a polynomial: x and a tuple of coefficients of x's type."""

    @type_callable(function)
    def typer(context: Any) -> Callable[..., Any]:
        def resolve(x: Any, coefficients: Any) -> Any:
            same = isinstance(coefficients, types.UniTuple) and coefficients.dtype == x
            return x if same else None

        return resolve

    @lower_builtin(function, types.Float, types.UniTuple)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, coefficients = arguments
        values = [builder.extract_value(coefficients, i) for i in range(signature.args[1].count)]
        return evaluate(builder, x, values)


def _horner(builder: Any, x: Any, coefficients: list[Any]) -> Any:
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = builder.fadd(builder.fmul(result, x), coefficient)
    return result


def _two_chains(builder: Any, x: Any, coefficients: list[Any]) -> Any:
    return primitives.two_chains(builder.fmul, lambda a, b, c: _fused(builder, a, b, c), x, coefficients)


_polynomial(primitives.horner, _horner)
_polynomial(primitives.polynomial, _two_chains)


def _unary_intrinsic(function: Callable[..., Any], name: str) -> None:
    """Register an LLVM intrinsic of one float that returns its own type."""

    @type_callable(function)
    def typer(context: Any) -> Callable[..., Any]:
        def resolve(x: Any) -> Any:
            return x if isinstance(x, types.Float) else None

        return resolve

    @lower_builtin(function, types.Float)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        intrinsic = builder.module.declare_intrinsic(name, [arguments[0].type])
        return builder.call(intrinsic, arguments)


for _function, _name in (
    (primitives.sqrt_f32, "llvm.sqrt"),
    (primitives.sqrt_f64, "llvm.sqrt"),
    (primitives.floor, "llvm.floor"),
    (primitives.ceil, "llvm.ceil"),
    (primitives.trunc, "llvm.trunc"),
    (primitives.rint, "llvm.rint"),
):
    _unary_intrinsic(_function, _name)


@type_callable(primitives.copysign)
def _type_copysign(context: Any) -> Callable[..., Any]:
    def resolve(magnitude: Any, sign: Any) -> Any:
        return magnitude if magnitude == sign and isinstance(sign, types.Float) else None

    return resolve


@lower_builtin(primitives.copysign, types.Float, types.Float)
def _lower_copysign(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    kind = arguments[0].type
    function_type = ir.FunctionType(kind, [kind, kind])
    intrinsic = builder.module.declare_intrinsic("llvm.copysign", [kind], function_type)
    return builder.call(intrinsic, arguments)
