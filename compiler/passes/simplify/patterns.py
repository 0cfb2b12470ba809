"""A small language for rewrite tables: `mul(x, 1)` becomes `x`.

Patterns are written as Python expressions, read by the standard library's `ast`:

- a call is an operator of the IR (without attributes);
- a number, `True` or `False` is a rank-0 constant of just these bits (`0.0` and `-0.0` differ);
- `c` and `k` stand for any rank-0 constant, every other name for any node; a name that comes twice is one
    node.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ....ir.build import Builder
from ....ir.dtypes import DType, boolean
from ....ir.node import Node

CONSTANT_NAMES = frozenset({"c", "k"})

Bindings = dict[str, Node]


@dataclass(frozen=True)
class Row:
    """One rewrite.

    Attributes:
        kinds: dtype kinds it holds for (`float int uint bool`), those of the variables and results.
        doc: why it is right; for rows that are not exact also what it changes.
        exact: the bits are the same for every value (NaN payloads aside); else the rewrite has the smaller
        error.
        when: a condition on the constant `c`.
    """

    before: str
    after: str
    kinds: str
    doc: str
    exact: bool = True
    when: Callable[[Any], bool] | None = None

    @cached_property
    def pattern(self) -> ast.expr:
        return ast.parse(self.before, mode="eval").body

    @cached_property
    def result(self) -> ast.expr:
        return ast.parse(self.after, mode="eval").body

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(self.kinds.split())

    @property
    def root(self) -> str:
        """The operator the pattern begins with."""
        assert isinstance(self.pattern, ast.Call) and isinstance(self.pattern.func, ast.Name)
        return self.pattern.func.id.rstrip("_")

    def apply(self, b: Builder, node: Node) -> Node | None:
        """The rewritten node, or None if the row does not fit."""
        dtype = node.inputs[-1].dtype  # of the last operand: a select's first is its predicate
        if dtype.kind not in self._kinds:
            return None
        bound: Bindings = {}
        if not matches(self.pattern, node, bound):
            return None
        if self.when is not None and not self.when(bound["c"].attrs.value.array):
            return None
        new = build(self.result, bound, b, dtype)
        return new if new.shape == node.shape else b.splat(new, node.shape)


def matches(pattern: ast.expr, node: Node, bound: Bindings) -> bool:
    """Whether the node has the form of the pattern; binds its names."""
    match pattern:
        case ast.Name(id=name):
            if name in CONSTANT_NAMES and not is_scalar_constant(node):
                return False
            return bound.setdefault(name, node) is node
        case ast.Call(func=ast.Name(id=op), args=args):
            return node.op.name == op.rstrip("_") and all(
                matches(p, n, bound) for p, n in zip(args, node.inputs, strict=True))
        case _:
            return is_scalar_constant(node) and _same_bits(_literal(pattern), node)


def build(expression: ast.expr, bound: Mapping[str, Node], b: Builder, dtype: DType) -> Node:
    """The nodes an expression describes; its numbers get `dtype`, `True` and `False` are bools."""
    match expression:
        case ast.Name(id=name):
            return bound[name]
        case ast.Call(func=ast.Name(id=op), args=args):
            node: Node = getattr(b, op)(*(build(a, bound, b, dtype) for a in args))
            return node
        case _:
            value = _literal(expression)
            return b.scalar(value, boolean if isinstance(value, bool) else dtype)


def is_scalar_constant(node: Node) -> bool:
    """True for a rank-0 constant."""
    return node.op.name == "constant" and not node.shape


def _literal(expression: ast.expr) -> Any:
    return ast.literal_eval(expression)


def _same_bits(value: Any, node: Node) -> bool:
    if isinstance(value, bool) is not node.dtype.is_bool or (isinstance(value,
                                                                        float) and not node.dtype.is_float):
        return False
    if value < 0 and node.dtype.kind == "uint":
        return False
    return bool(np.asarray(value, dtype=node.dtype.numpy).tobytes() == node.attrs.value.tobytes())
