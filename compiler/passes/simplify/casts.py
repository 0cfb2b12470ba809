"""Casts: none that does nothing, none twice where once gives the same bits."""

from __future__ import annotations

from ....ir.build import Builder
from ....ir.dtypes import DType
from ....ir.node import Node
from .local import Rules

_MANTISSA = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}
_EXPONENT = {"f16": 5, "bf16": 8, "f32": 8, "f64": 11}


def is_lossless(source: DType, target: DType) -> bool:
    """True if every value of `source` is a value of `target`."""
    if source is target or source.is_bool:
        return True
    if target.is_bool:
        return False
    if source.is_float:
        return target.is_float and (_MANTISSA[target.name] >= _MANTISSA[source.name]
                                    and _EXPONENT[target.name] >= _EXPONENT[source.name])
    digits = source.bits - (source.kind == "int")
    if target.is_float:
        return digits <= _MANTISSA[target.name] and target.name != "f16"  # f16 ends at 65504
    if source.kind == "int" and target.kind == "uint":
        return False
    return target.bits - (target.kind == "int") >= digits


def cast_form(b: Builder, n: Node) -> Node | None:
    """cast to the own dtype → nothing; cast(cast(x)) → cast(x) if the first loses nothing.

    Widening first and then converting gives what converting at once gives, except on a detour of integers
    over a float: from there they reach other integers by their value, not by their bits.
    """
    x, = n.inputs
    if x.dtype is n.dtype:
        return x
    if x.op.name != "cast":
        return None
    source = x.inputs[0]
    if not is_lossless(source.dtype, x.dtype):
        return None
    if source.dtype is n.dtype:
        return source
    if x.dtype.is_float and source.dtype.is_integer and n.dtype.is_integer:
        return None
    return b.cast(source, dtype=n.dtype)


CAST_RULES: Rules = {"cast": (cast_form,)}
