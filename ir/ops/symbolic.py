"""Nodes that passes expand or introduce: gradient and update (expanded), with_value (residuals), fused (fusion)."""

from __future__ import annotations

from typing import Any

from ..attrs import Attr
from ..errors import AttributeValueError, ShapeError
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, TupleType, Type
from ..update_rules import UPDATE_RULES
from ._common import tensor


def _infer_gradient(attrs: Any, *xs: Type) -> Type:
    n, wrt = attrs.n_outputs, attrs.n_wrt
    if n < 1 or wrt < 1 or len(xs) != 2 * n + wrt:
        raise AttributeValueError(
            f"gradient needs {n} outputs, {n} cotangents and {wrt} variables, got {len(xs)} operands"
        )
    ts = [tensor("gradient", x) for x in xs]
    for out, cotangent in zip(ts[:n], ts[n : 2 * n], strict=True):
        if out != cotangent:
            raise ShapeError(f"gradient: the cotangent of an output {out} has type {cotangent}")
    for t in (*ts[:n], *ts[2 * n :]):
        if not t.dtype.is_float:
            raise AttributeValueError(f"gradient is defined for floats, not for {t}")
    return TupleType(tuple(ts[2 * n :]))


register(
    OpDef(
        "gradient",
        None,
        _infer_gradient,
        None,
        Kind.SYMBOLIC,
        (Attr("n_outputs", "int"), Attr("n_wrt", "int")),
        family="symbolic",
        doc="Cotangents of the variables, given those of the outputs: operands are outputs, cotangents, variables. "
        "Expanded by "
        "the pass `autodiff`.",
        bad=(
            Sample((("f32", ()), ("f32", ())), {"n_outputs": 1, "n_wrt": 1}),
            Sample((("f32", ()), ("f32", (2,)), ("f32", (3,))), {"n_outputs": 1, "n_wrt": 1}),
        ),
    )
)


def _infer_update(attrs: Any, *xs: Type) -> Type:
    if attrs.rule not in UPDATE_RULES:
        raise AttributeValueError(f"update: unknown rule {attrs.rule!r}; rules are {', '.join(UPDATE_RULES)}")
    hypers = len(UPDATE_RULES[attrs.rule].hypers)
    n, k = attrs.n, attrs.n_states
    if n < 1 or k < 0 or len(xs) != n * (2 + k) + hypers:
        raise AttributeValueError(
            f"update {attrs.rule}: {n} parameters, {n} gradients, {n}×{k} states and {hypers} "
            f"hyper-parameters expected, got {len(xs)} operands"
        )
    ts = [tensor("update", x) for x in xs]
    for p, g in zip(ts[:n], ts[n : 2 * n], strict=True):
        if p.shape != g.shape:
            raise ShapeError(f"update {attrs.rule}: the gradient of a parameter {p} has type {g}")
    return TupleType((*ts[:n], *ts[2 * n : n * (2 + k)]))


register(
    OpDef(
        "update",
        None,
        _infer_update,
        None,
        Kind.SYMBOLIC,
        (Attr("rule", "str"), Attr("n", "int"), Attr("n_states", "int"), Attr("flags", "str", "")),
        family="symbolic",
        doc="One optimizer step of a parameter group: operands are n parameters, n gradients, n of each state, "
        "hyper-parameters "
        "(ir/update_rules.py has their order); results are new parameters and states. "
        "Expanded by the pass `optimizer`.",
        bad=(
            Sample((("f32", (2,)), ("f32", (2,)), ("f64", ())), {"rule": "none", "n": 1, "n_states": 0}),
            Sample((("f32", (2,)),), {"rule": "sgd", "n": 1, "n_states": 0}),
        ),
    )
)


def _infer_with_value(attrs: Any, x: Type, v: Type) -> Type:
    if x != v:
        raise ShapeError(f"with_value: history of type {x}, value of type {v}")
    return tensor("with_value", v)


register(
    OpDef(
        "with_value",
        2,
        _infer_with_value,
        lambda a, t, x, v: v,
        Kind.MOVEMENT,
        vjp=lambda b, n, g, x, v: [g, None],
        family="symbolic",
        exact=True,
        doc="The value of the second operand with the history of the first: a result kept from an earlier run, so that "
        "the "
        "forward pass is not run again for its gradient.",
        bad=(Sample((("f32", (2,)), ("f32", (3,)))),),
    )
)


def _infer_fused(attrs: Any, *xs: Type) -> Type:
    body = attrs.body
    stated = tuple(s.type for s in body.inputs)
    if stated != xs:
        raise ShapeError(
            f"fused: operands ({', '.join(map(str, xs))}) do not fit the body's inputs "
            f"({', '.join(map(str, stated))})"
        )
    types: tuple[TensorType, ...] = tuple(o.tensor_type for o in body.outputs)
    if not types:
        raise AttributeValueError("fused: the body has no output")
    return types[0] if len(types) == 1 else TupleType(types)


register(
    OpDef(
        "fused",
        None,
        _infer_fused,
        None,
        Kind.CONTROL,
        (Attr("body", "graph"), Attr("kind", "str")),
        family="symbolic",
        doc="A group of operators that is one kernel; `kind` names its template. Made by the pass `fuse`.",
    )
)
