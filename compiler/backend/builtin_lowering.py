"""`range`, `min` and `max` in a few LLVM instructions each.

Numba's own lowering of `range` counts iterations (two divisions, a check and a dozen stack slots for each
loop) and its `min` and `max` need its complete CPU target. These live in a table of our own, consulted before
Numba's registries, so that other users of Numba in the process see nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate

Lowering = Callable[[Any, Any, Any, Any], Any]


def _struct(builder: Any, kind: Any, values: list[Any]) -> Any:
    result = ir.Constant(kind, ir.Undefined)
    for at, value in enumerate(values):
        result = builder.insert_value(result, value, at)
    return result


def _range(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A range value: {start, stop, step}."""
    word = context.get_value_type(sig.return_type.dtype)
    start, stop, step = ir.Constant(word, 0), args[-1], ir.Constant(word, 1)
    if len(args) > 1:
        start, stop = args[:2]
    if len(args) > 2:
        step = args[2]
    return _struct(builder, context.get_value_type(sig.return_type), [start, stop, step])


def _get_iterator(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """An iterator: {slot of the next value, stop, step, unused}."""
    start, stop, step = (builder.extract_value(args[0], at) for at in range(3))
    with builder.goto_entry_block():
        slot = builder.alloca(start.type)
    builder.store(start, slot)
    unused = ir.Constant(slot.type, None)
    return _struct(builder, context.get_value_type(sig.return_type), [slot, stop, step, unused])


def _next(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The pair (value, whether there is one)."""
    slot, stop, step = (builder.extract_value(args[0], at) for at in range(3))
    value = builder.load(slot)
    signed = sig.args[0].yield_type.signed
    compare = builder.icmp_signed if signed else builder.icmp_unsigned
    valid = compare("<", value, stop)
    if signed:
        up = builder.icmp_signed(">", step, ir.Constant(step.type, 0))
        valid = builder.select(up, valid, builder.icmp_signed(">", value, stop))
    # Past the end the slot is not read again; the addition may wrap only there.
    builder.store(builder.add(value, step), slot)
    return _struct(builder, context.get_value_type(sig.return_type), [value, valid])


class _MinMax(AbstractTemplate):  # type: ignore[misc]
    """`min` and `max` of two or more scalars, with Python's meaning."""

    def generic(self, args: Any, kws: Any) -> Any:
        args = tuple(types.unliteral(arg) for arg in args)
        if kws or len(args) < 2 or not all(isinstance(arg, (types.Integer, types.Float)) for arg in args):
            return None
        common = self.context.unify_types(*args)
        return signature(common, *[common] * len(args))


class _Min(_MinMax):
    key = min


class _Max(_MinMax):
    key = max


def _choose(less: str) -> Lowering:
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = args[0]
        for value in args[1:]:
            if isinstance(sig.return_type, types.Float):
                better = builder.fcmp_ordered(less, value, best)
            elif sig.return_type.signed:
                better = builder.icmp_signed(less, value, best)
            else:
                better = builder.icmp_unsigned(less, value, best)
            best = builder.select(better, value, best)
        return best

    return lower


# Types of global functions that replace Numba's.
TYPES: dict[Any, Any] = {min: types.Function(_Min), max: types.Function(_Max)}
_FUNCTIONS: dict[Any, Lowering] = {min: _choose("<"), max: _choose(">"), range: _range}


def find(function: Any, sig: Any) -> Lowering | None:
    """Our lowering of a function (a type or one of Numba's pseudo-functions), if there is one."""
    if function == "getiter":
        return _get_iterator if isinstance(sig.args[0], types.RangeType) else None
    if function == "iternext":
        return _next if isinstance(sig.args[0], types.RangeIteratorType) else None
    if isinstance(function, types.Function):
        try:
            return _FUNCTIONS.get(function.typing_key)
        except TypeError:  # an unhashable key is not ours
            return None
    return None
