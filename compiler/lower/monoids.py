"""What a reduction folds with: identity, step and combination, as source text.

An accumulator is one scalar, or two for argmax and argmin (the best value and its position). The texts use `{a}`, `{b}`
for accumulators' parts and `{v}` for the next element, `{at}` for its position among the reduced elements.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dtypes import DType, boolean, i32, i64
from .scalars import literal


@dataclass(frozen=True, slots=True)
class Monoid:
    """One reduction over elements of one dtype.

    Attributes:
        parts: dtypes of the accumulator's scalars; the last is the result, at its width or wider.
        identity: initial value of each part.
        step: statements' right sides: the parts after folding in an element; `{a0}`, `{a1}` are the parts before.
        merge: the parts of two accumulators `{a0}…` (earlier elements) and `{b0}…` (later ones) folded.
    """

    parts: tuple[DType, ...]
    identity: tuple[str, ...]
    step: tuple[str, ...]
    merge: tuple[str, ...]


_NO_POSITION = "i64(9223372036854775807)"


def monoid(name: str, dtype: DType, result: DType) -> Monoid:
    """The monoid of a reduction operator.

    Args:
        dtype: compute dtype of the elements.
        result: compute dtype of the result (sums of narrow integers may widen).
    """
    if name in ("sum", "prod"):
        sign, start = ("+", 0) if name == "sum" else ("*", 1)
        # Narrow integers fold in i32, which wraps to the same result: LLVM needs seconds for vectors of products of bytes.
        part = i32 if result.is_integer and result.bits < 32 else result
        wrap = "{x}" if result.is_float else f"{part}({{x}})"
        return Monoid((part,), (literal(start, part),), (wrap.format(x="{a0} %s {v}" % sign),),
                      (wrap.format(x="{a0} %s {b0}" % sign),))
    if name in ("any", "all"):
        sign, start = ("|", False) if name == "any" else ("&", True)
        return Monoid((boolean,), (literal(start, boolean),), ("{a0} %s {v}" % sign,), ("{a0} %s {b0}" % sign,))
    if name in ("max", "min"):
        return _extremum(name, dtype)
    return _arg_extremum(name, dtype)


def _extremum(name: str, dtype: DType) -> Monoid:
    """The later element wins only if it is strictly better or the first NaN."""
    start = literal(dtype.min if name == "max" else dtype.max, dtype)
    if dtype.is_bool:
        sign = "|" if name == "max" else "&"
        return Monoid((dtype,), (start,), ("{a0} %s {v}" % sign,), ("{a0} %s {b0}" % sign,))
    sign = ">" if name == "max" else "<"
    keep = "select((%s {sign} {a0}) | (%s != %s), %s, {a0})" if dtype.is_float else "select(%s {sign} {a0}, %s, {a0})"
    keep = keep.replace("{sign}", sign)

    def better(v: str) -> str:
        return keep % ((v, v, v, v) if dtype.is_float else (v, v))

    return Monoid((dtype,), (start,), (better("{v}"),), (better("{b0}"),))


def _arg_extremum(name: str, dtype: DType) -> Monoid:
    """The best value and the first position that holds it; NaN is better than any number."""
    is_max = name == "argmax"
    start = literal(dtype.min if is_max else dtype.max, dtype)
    sign = ">" if is_max else "<"
    value = "i64(%s)" if dtype.is_bool else "%s"

    def better(v: str, at: str) -> str:
        a, b = value % "{a0}", value % v
        wins = f"({b} {sign} {a}) | (({b} == {a}) & ({at} < {{a1}}))"
        if dtype.is_float:
            wins += f" | (({b} != {b}) & (({a} == {a}) | ({at} < {{a1}})))"
        return wins

    step, merge = better("{v}", "{at}"), better("{b0}", "{b1}")
    return Monoid((dtype, i64), (start, _NO_POSITION),
                  (f"select({step}, {{v}}, {{a0}})", f"select({step}, {{at}}, {{a1}})"),
                  (f"select({merge}, {{b0}}, {{a0}})", f"select({merge}, {{b1}}, {{a1}})"))
