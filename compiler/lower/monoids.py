"""What a reduction folds with: identity, step and combination, as source text.

An accumulator is one scalar, or two for argmax and argmin (the best value and its position). The texts use `{a}`, `{b}`
for accumulators' parts and `{v}` for the next element, `{at}` for its position among the reduced elements.
"""

from __future__ import annotations

from collections.abc import Callable
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
        # Narrow integers fold in i32, which wraps to the same result: LLVM needs seconds for vectors of products of
        # bytes.
        part = i32 if result.is_integer and result.bits < 32 else result

        def fold(a: str, b: str) -> str:
            return f"{a} {sign} {b}" if result.is_float else f"{part}({a} {sign} {b})"

        return _single(part, literal(start, part), fold)
    if name in ("any", "all"):
        sign = "|" if name == "any" else "&"
        return _single(boolean, literal(name == "all", boolean), lambda a, b: f"{a} {sign} {b}")
    if name in ("max", "min"):
        return _extremum(name, dtype)
    return _arg_extremum(name, dtype)


def _single(dtype: DType, identity: str, fold: Callable[[str, str], str]) -> Monoid:
    """A monoid of one part whose step and merge are the same operation."""
    return Monoid((dtype,), (identity,), (fold("{a0}", "{v}"),), (fold("{a0}", "{b0}"),))


def _extremum(name: str, dtype: DType) -> Monoid:
    """The later element wins only if it is strictly better or the first NaN."""
    start = literal(dtype.min if name == "max" else dtype.max, dtype)
    sign = ">" if name == "max" else "<"
    if dtype.is_bool:
        return _single(dtype, start, lambda a, b: f"{a} {'|' if name == 'max' else '&'} {b}")
    if dtype.is_float:
        return _single(dtype, start, lambda a, b: f"select(({b} {sign} {a}) | ({b} != {b}), {b}, {a})")
    return _single(dtype, start, lambda a, b: f"select({b} {sign} {a}, {b}, {a})")


def _arg_extremum(name: str, dtype: DType) -> Monoid:
    """The best value and the first position that holds it; NaN is better than any number."""
    is_max = name == "argmax"
    start = literal(dtype.min if is_max else dtype.max, dtype)
    sign = ">" if is_max else "<"

    def better(v: str, at: str) -> str:
        a, b = ("i64({a0})", f"i64({v})") if dtype.is_bool else ("{a0}", v)
        wins = f"({b} {sign} {a}) | (({b} == {a}) & ({at} < {{a1}}))"
        if dtype.is_float:
            wins += f" | (({b} != {b}) & (({a} == {a}) | ({at} < {{a1}})))"
        return wins

    step, merge = better("{v}", "{at}"), better("{b0}", "{b1}")
    return Monoid((dtype, i64), (start, _NO_POSITION),
                  (f"select({step}, {{v}}, {{a0}})", f"select({step}, {{at}}, {{a1}})"),
                  (f"select({merge}, {{b0}}, {{a0}})", f"select({merge}, {{b1}}, {{a1}})"))
