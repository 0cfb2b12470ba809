"""Numba's view of `lanes`: whole vectors in LLVM. Imported on cold paths only; importing it registers everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import lower_builtin

from ..backend.lowering import typed_by
from . import lanes
from .lanes import LANES

Combine = Callable[[Any, Any, Any, bool], Any]


def _vector_pointer(builder: Any, pointer: Any) -> Any:
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, LANES).as_pointer())


def _element(kind: Any) -> Any:
    return types.unliteral(kind)


def _type_clear(*args: Any) -> Any:
    if len(args) == 2 and isinstance(args[0], types.CPointer) and _element(args[1]) == args[0].dtype:
        return signature(types.none, *args)
    return None


@lower_builtin(lanes.clear_lanes, types.CPointer, types.Any)
def _clear(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, value = args
    value = context.data_model_manager[sig.args[0].dtype].as_data(builder, value)
    vector = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    store = builder.store(builder.shuffle_vector(one, one, mask), _vector_pointer(builder, pointer))
    store.align = 64  # local arrays lie on cache lines
    return context.get_dummy_value()


typed_by(lanes.clear_lanes, _type_clear)


def _sum(builder: Any, a: Any, b: Any, is_float: bool) -> Any:
    return builder.fadd(a, b) if is_float else builder.add(a, b)


def _prod(builder: Any, a: Any, b: Any, is_float: bool) -> Any:
    return builder.fmul(a, b) if is_float else builder.mul(a, b)


def _extremum(sign: str) -> Callable[[Any, Any], Combine]:
    def of(kind: Any, context: Any) -> Combine:
        signed = isinstance(kind, types.Integer) and kind.signed

        def combine(builder: Any, a: Any, b: Any, is_float: bool) -> Any:
            if is_float:
                nan = builder.fcmp_unordered("uno", b, b)
                wins = builder.or_(builder.fcmp_ordered(sign, b, a), nan)
            else:
                wins = (builder.icmp_signed if signed else builder.icmp_unsigned)(sign, b, a)
            return builder.select(wins, b, a)

        return combine

    return of


def _register(function: Callable[..., Any], choose: Callable[[Any, Any], Combine]) -> None:
    def resolve(*args: Any) -> Any:
        return signature(args[0].dtype, *args) if len(args) == 1 and isinstance(args[0], types.CPointer) else None

    @lower_builtin(function, types.CPointer)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.args[0].dtype
        combine = choose(kind, context)
        value = builder.load(_vector_pointer(builder, args[0]))
        value.align = 64
        width = LANES // 2
        while width:
            low, high = (ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
                         for start in (0, width))
            value = combine(builder, builder.shuffle_vector(value, value, low),
                            builder.shuffle_vector(value, value, high), isinstance(kind, types.Float))
            width //= 2
        element = builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
        return context.data_model_manager[kind].from_data(builder, element)

    typed_by(function, resolve)


_register(lanes.sum_lanes, lambda kind, context: _sum)
_register(lanes.prod_lanes, lambda kind, context: _prod)
_register(lanes.max_lanes, _extremum(">"))
_register(lanes.min_lanes, _extremum("<"))
_register(lanes.any_lanes, lambda kind, context: lambda builder, a, b, is_float: builder.or_(a, b))
_register(lanes.all_lanes, lambda kind, context: lambda builder, a, b, is_float: builder.and_(a, b))
