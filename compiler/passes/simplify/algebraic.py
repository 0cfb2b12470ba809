"""Algebraic rewrites, from one table. Only what keeps every bit, but for the rows marked `exact=False`.

What is missing is missing on purpose: `x + 0.0` (−0.0 + 0.0 is 0.0), `x * 0.0` and `x - x` (NaN, infinities),
`-(x - y)` (the sign of zero), any reassociation of floats, and everything about exp and log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....ir.build import Builder
from ....ir.graph import Graph
from ....ir.node import Node
from .local import Local, Rule, Rules
from .patterns import Row


def power_of_two(c: Any) -> bool:
    """True for ±2^n whose reciprocal is exact too; neither of them a subnormal."""
    value = np.asarray(c, dtype=np.float64)
    if not np.isfinite(value) or value == 0 or abs(np.frexp(value)[0]) != 0.5:
        return False
    narrow = np.finfo(c.dtype) if c.dtype.kind == "f" else None
    return narrow is not None and narrow.tiny <= abs(value) <= 1 / float(narrow.tiny) / 4


NUMBERS = "float int uint"
SIGNED = "float int"
INTEGERS = "int uint"
ANY = "float int uint bool"
_ROUNDINGS = ("floor", "ceil", "round", "trunc")

TABLE: tuple[Row, ...] = (
    # neutral elements
    Row("mul(x, 1)", "x", NUMBERS, "1 is neutral."),
    Row("div(x, 1)", "x", "float", "1 is neutral."),
    Row("pow(x, 1)", "x", NUMBERS, "The first power."),
    Row("add(x, -0.0)", "x", "float", "−0 is the neutral element of float addition; 0.0 is not."),
    Row("sub(x, 0.0)", "x", "float", "−0.0 − 0.0 is −0.0."),
    Row("add(x, 0)", "x", INTEGERS, "0 is neutral."),
    Row("sub(x, 0)", "x", INTEGERS, "0 is neutral."),
    Row("shl(x, 0)", "x", INTEGERS, "No shift."),
    Row("shr(x, 0)", "x", INTEGERS, "No shift."),
    Row("or_(x, 0)", "x", INTEGERS, "No bit set."),
    Row("xor(x, 0)", "x", INTEGERS, "No bit flipped."),
    Row("or_(x, False)", "x", "bool", "False is neutral."),
    Row("xor(x, False)", "x", "bool", "False is neutral."),
    Row("and_(x, True)", "x", "bool", "True is neutral."),
    # absorbing elements
    Row("mul(x, 0)", "0", INTEGERS, "Integers have no NaN."),
    Row("and_(x, 0)", "0", INTEGERS, "No bit left."),
    Row("and_(x, False)", "False", "bool", "False absorbs."),
    Row("or_(x, True)", "True", "bool", "True absorbs."),
    Row("pow(x, 0)", "1", NUMBERS, "1 also for NaN, as IEEE 754 defines pow."),
    # signs
    Row("mul(x, -1)", "neg(x)", SIGNED, "A change of sign."),
    Row("div(x, -1)", "neg(x)", "float", "A change of sign."),
    Row("neg(neg(x))", "x", SIGNED, "Two changes of sign."),
    Row("abs(neg(x))", "abs(x)", SIGNED, "The sign goes anyway."),
    Row("abs(abs(x))", "abs(x)", SIGNED, "Idempotent."),
    Row("sign(sign(x))", "sign(x)", SIGNED, "Idempotent."),
    Row("add(x, neg(y))", "sub(x, y)", SIGNED, "Subtraction is defined so."),
    Row("add(neg(x), y)", "sub(y, x)", SIGNED, "Subtraction is defined so."),
    Row("sub(x, neg(y))", "add(x, y)", SIGNED, "Two changes of sign."),
    Row("mul(neg(x), neg(y))", "mul(x, y)", SIGNED, "Two changes of sign."),
    Row("div(neg(x), neg(y))", "div(x, y)", "float", "Two changes of sign."),
    Row("mul(neg(x), c)", "mul(x, neg(c))", SIGNED, "The sign moves into the constant."),
    Row("div(neg(x), c)", "div(x, neg(c))", "float", "The sign moves into the constant."),
    Row("neg(mul(x, c))", "mul(x, neg(c))", SIGNED, "The sign moves into the constant."),
    Row("neg(div(x, c))", "div(x, neg(c))", "float", "The sign moves into the constant."),
    Row("mul(abs(x), abs(x))", "mul(x, x)", SIGNED, "A square has no sign."),
    # products and quotients
    Row("div(x, c)", "mul(x, reciprocal(c))", "float", "Both round the same real number.", when=power_of_two),
    Row("div(1, x)", "reciprocal(x)", "float", "The reciprocal is defined so."),
    Row("reciprocal(sqrt(x))", "rsqrt(x)", "float", "rsqrt is defined as 1/√x, rounded twice."),
    Row("mul(mul(x, c), k)", "mul(x, mul(c, k))", INTEGERS, "Integer arithmetic is modular."),
    Row("add(add(x, c), k)", "add(x, add(c, k))", INTEGERS, "Integer arithmetic is modular."),
    Row("pow(x, 2)", "mul(x, x)", INTEGERS, "The definition."),
    Row("pow(x, 3)", "mul(mul(x, x), x)", INTEGERS, "The definition."),
    Row("pow(x, 2)", "mul(x, x)", "float", "Correctly rounded; pow may be 2 ULP off.", exact=False),
    Row("pow(x, 3)", "mul(mul(x, x), x)", "float", "Two roundings; pow may be 2 ULP off.", exact=False),
    Row("pow(x, -1)", "reciprocal(x)", "float", "Correctly rounded; pow may be 2 ULP off.", exact=False),
    # idempotent and self-inverse operators
    *(Row(f"{f}({g}(x))", f"{g}(x)", "float", "Already an integer.") for f in _ROUNDINGS for g in _ROUNDINGS),
    Row("maximum(x, x)", "x", ANY, "Idempotent."),
    Row("minimum(x, x)", "x", ANY, "Idempotent."),
    Row("and_(x, x)", "x", "int uint bool", "Idempotent."),
    Row("or_(x, x)", "x", "int uint bool", "Idempotent."),
    Row("xor(x, x)", "0", INTEGERS, "Every bit cancels."),
    Row("sub(x, x)", "0", INTEGERS, "Integers have no NaN."),
    Row("not_(not_(x))", "x", "int uint bool", "Self-inverse."),
    # predicates and choices
    Row("not_(eq(x, y))", "ne(x, y)", "bool", "The complement also for NaN (not so for < and ≥)."),
    Row("not_(ne(x, y))", "eq(x, y)", "bool", "The complement also for NaN."),
    Row("eq(x, True)", "x", "bool", "A bool is its own predicate."),
    Row("ne(x, False)", "x", "bool", "A bool is its own predicate."),
    Row("eq(x, False)", "not_(x)", "bool", "A bool is its own predicate."),
    Row("ne(x, True)", "not_(x)", "bool", "A bool is its own predicate."),
    Row("select(True, x, y)", "x", ANY, "The branch taken."),
    Row("select(False, x, y)", "y", ANY, "The branch taken."),
    Row("select(p, x, x)", "x", ANY, "Both branches."),
    Row("select(not_(p), x, y)", "select(p, y, x)", ANY, "Branches change places."),
    Row("select(p, True, False)", "p", "bool", "A bool is its own choice."),
    Row("select(p, False, True)", "not_(p)", "bool", "A bool is its own choice."),
    Row("select(p, select(p, x, y), z)", "select(p, x, z)", ANY, "p holds inside its branch."),
    Row("select(p, x, select(p, y, z))", "select(p, x, z)", ANY, "p does not hold inside the other branch."),
)


def _rule(row: Row) -> Rule:
    def apply(b: Builder, node: Node) -> Node | None:
        return row.apply(b, node)

    return apply


def _by_root() -> Rules:
    rules: dict[str, tuple[Rule, ...]] = {}
    for row in TABLE:
        rules[row.root] = (*rules.get(row.root, ()), _rule(row))
    return rules


RULES: Rules = _by_root()


@dataclass(frozen=True)
class Algebraic:
    """Rewrite by the algebraic table until no row fits."""

    name: ClassVar[str] = "algebraic"

    def run(self, graph: Graph) -> Graph:
        return Local(RULES).run(graph)
