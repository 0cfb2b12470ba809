"""Scalar expressions: one element of an operator as the text of a generated kernel.

Values are kept in the compute dtype of their IR dtype. After every operator on a sixteen-bit float the value is
rounded to sixteen bits, so that a fused chain has the bits of the unfused one. Integer arithmetic may run wider; every
result is cut back to its dtype.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ...ir.dtypes import DType, boolean
from ...ir.node import Node
from .errors import CannotLower

_MATH = re.compile(r"\btm_([a-z0-9]+)\(")
# Results of these on sixteen-bit floats are sixteen-bit floats already.
_CLOSED = frozenset({"neg", "abs", "sign", "floor", "ceil", "round", "trunc", "select", "clamp", "maximum", "minimum",
                     "stop_gradient"})
_COSTS = {"pow": 60, "fmod": 40, "rem": 40, "floordiv": 12, "lgamma": 60, "digamma": 60, "erfinv": 40, "atan2": 40,
          "div": 4, "sqrt": 4, "rsqrt": 8, "reciprocal": 4, "with_value": 0}
_TRANSCENDENTAL_COST = 20
EXPENSIVE = 12  # from this cost on a value is worth a buffer rather than a second computation


def literal(value: Any, dtype: DType) -> str:
    """A number of a compute dtype as source text of exactly that type."""
    if dtype.is_bool:
        return "boolean(1)" if value else "boolean(0)"
    if not dtype.is_float:
        whole = int(value)
        least = -(1 << 63)
        return f"{dtype}({whole})" if whole != least else f"{dtype}({least + 1} - 1)"
    real = float(value)
    if math.isnan(real):
        return "bits_f32(2143289344)" if dtype.bits == 32 else "bits_f64(9221120237041090560)"
    if math.isinf(real):
        bits = {32: 0x7F800000, 64: 0x7FF0000000000000}[dtype.bits]
        text = f"bits_f{dtype.bits}({bits})"
        return text if real > 0 else f"(-{text})"
    return f"{dtype}({real!r})"


def constant(node: Node) -> str:
    """The text of a rank-0 constant."""
    return literal(node.attrs.value.array[()], node.dtype.compute)


def rounded(dtype: DType, text: str) -> str:
    """A value in the compute dtype rounded to the precision of `dtype`."""
    return f"{dtype}_to_f32(f32_to_{dtype}({text}))" if dtype.name in ("f16", "bf16") else text


def apply(node: Node, args: tuple[str, ...]) -> str:
    """An elementwise operator on operand values, rounded to its dtype."""
    name = node.op.name
    if name == "cast":
        return cast(node.inputs[0].dtype, node.dtype, args[0])
    if name == "bitcast":
        return bitcast(node.inputs[0].dtype, node.dtype, args[0])
    operand, result = node.inputs[-1].dtype.compute, node.dtype
    form = _form(name, operand, node.op.scalar)
    if form is None:
        raise CannotLower(f"{name} has no scalar form for {operand}")
    text = _MATH.sub(lambda m: f"tm_{m[1]}_{operand}(", form).format(*args)
    if result.is_integer and form != "{0}":
        return f"{result}({text})"
    return text if name in _CLOSED else rounded(result, text)


def _form(name: str, operand: DType, scalar: str | None) -> str | None:
    """The expression of an operator on a compute dtype."""
    if operand.is_float:
        bits = operand.bits
        known = _FLOAT.get(name)
        if known is not None:
            return known.replace("$T", operand.name).replace("$INF", f"bits_f{bits}({_INFINITY[bits]})")
    elif operand.is_bool:
        if name in _BOOL:
            return _BOOL[name]
    elif name in _INTEGER:
        return _INTEGER[name].replace("$BITS", str(operand.bits)).replace("$T", operand.name)
    return _ANY.get(name, scalar)


_INFINITY = {32: 0x7F800000, 64: 0x7FF0000000000000}
_ANY = {"select": "select({0}, {1}, {2})", "stop_gradient": "{0}"}
_FLOAT = {
    "abs": "fabs({0})",
    "sign": "select({0} > $T(0.0), $T(1.0), select({0} < $T(0.0), $T(-1.0), select({0} == $T(0.0), $T(0.0), {0})))",
    "maximum": "select(({0} >= {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "select(({0} <= {1}) | ({0} != {0}), {0}, {1})",
    "clamp": "clamp({0}, {1}, {2})",
    "floordiv": "floor({0} / {1})", "rem": "$T(floored_remainder(f64({0}), f64({1})))",
    "fmod": "$T(truncated_remainder(f64({0}), f64({1})))",
    "pow": "tm_pow({0}, {1})",
    "isnan": "{0} != {0}", "isinf": "fabs({0}) == $INF", "isfinite": "fabs({0}) < $INF",
    "reciprocal": "$T(1.0) / {0}", "sqrt": "sqrt({0})",
    "floor": "floor({0})", "ceil": "ceil({0})", "round": "rint({0})", "trunc": "trunc({0})",
}  # fmt: skip
_INTEGER = {
    "abs": "select({0} < 0, $T(-{0}), {0})",
    "sign": "i64({0} > 0) - i64({0} < 0)",
    "maximum": "select({0} >= {1}, {0}, {1})", "minimum": "select({0} <= {1}, {0}, {1})",
    "clamp": "min(max({0}, {1}), {2})",
    "floordiv": "floor_divide({0}, {1})", "rem": "floor_modulo({0}, {1})", "fmod": "truncated_modulo({0}, {1})",
    "pow": "integer_power({0}, {1})",
    "not": "~{0}", "shl": "shift_left({0}, {1}, $BITS)", "shr": "shift_right({0}, {1}, $BITS)",
}  # fmt: skip
_BOOL = {
    "not": "select({0}, boolean(0), boolean(1))",
    "maximum": "{0} | {1}", "minimum": "{0} & {1}",
    "lt": "i64({0}) < i64({1})", "le": "i64({0}) <= i64({1})",
    "gt": "i64({0}) > i64({1})", "ge": "i64({0}) >= i64({1})",
}  # fmt: skip


def cast(source: DType, target: DType, x: str) -> str:
    """Conversion between dtypes (operator `cast` has the meaning)."""
    if source is target:
        return x
    if target is boolean:
        return f"boolean({x})"
    if target.name == "f16":
        return f"f16_to_f32(f64_to_f16(f64({x})))" if source.compute.name != "f32" else rounded(target, x)
    if target.name == "bf16":
        return rounded(target, x if source.compute.name == "f32" else f"f32({x})")
    if source.is_float and not target.is_float:
        return f"{target}(truncated(f64({x})))"
    return x if source.compute is target else f"{target}({x})"


_BITS = {("f32", "i32"): "f32_bits({0})", ("f32", "u32"): "u32(f32_bits({0}))", ("f64", "i64"): "f64_bits({0})",
         ("f64", "u64"): "u64(f64_bits({0}))", ("i32", "f32"): "bits_f32({0})", ("u32", "f32"): "bits_f32({0})",
         ("i64", "f64"): "bits_f64({0})", ("u64", "f64"): "bits_f64({0})"}  # fmt: skip


def bitcast(source: DType, target: DType, x: str) -> str:
    """The same bits as another dtype of the same width."""
    if source is target:
        return x
    if (source.name, target.name) in _BITS:
        return _BITS[source.name, target.name].format(x)
    bits = f"f32_to_{source}({x})" if source.bits == 16 and source.is_float else x
    if target.bits == 16 and target.is_float:
        return f"{target}_to_f32(u16({bits}))"
    return f"{target}({bits})"


def cost(node: Node) -> int:
    """Rough machine operations of one element of an elementwise operator."""
    known = _COSTS.get(node.op.name)
    if known is not None:
        return known
    return _TRANSCENDENTAL_COST if node.op.scalar and "tm_" in node.op.scalar else 1
