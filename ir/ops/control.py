"""Structured control flow: operators with body graphs, and custom derivatives.

The interpreter evaluates bodies itself; the autodiff pass differentiates scan, cond and custom_vjp (it needs the
reverse sweep of a whole body, which a one-line rule cannot express).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..attrs import Attr
from ..errors import AttributeValueError, DTypeError, ShapeError
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, TupleType, Type
from ._common import show, tensor

if TYPE_CHECKING:
    from ..graph import Graph


def _check_body(op: str, what: str, body: Graph, operands: Sequence[Type]) -> tuple[TensorType, ...]:
    """The body's result types, if its inputs are of the operands' types. Raises ShapeError."""
    stated = [s.type for s in body.inputs]
    if stated != list(operands):
        raise ShapeError(
            f"{op}: the {what} takes ({', '.join(map(str, stated))}), "
            f"it is given ({', '.join(map(str, operands))})"
        )
    return tuple(o.tensor_type for o in body.outputs)


def _infer_scan(attrs: Any, *xs: Type) -> Type:
    c, k = attrs.n_carry, attrs.n_xs
    if c < 0 or k < 0 or c + k > len(xs):
        raise AttributeValueError(f"scan: {c} carries and {k} sequences out of {len(xs)} operands")
    ts = [tensor("scan", x) for x in xs]
    slices = []
    for t in ts[c : c + k]:
        if not t.shape or t.shape[0] != attrs.length:
            raise ShapeError(
                f"scan: a sequence {show(t.shape)} must have the length {attrs.length} as leading extent"
            )
        slices.append(t.with_shape(t.shape[1:]))
    out = _check_body("scan", "body", attrs.body, [*ts[:c], *slices, *ts[c + k :]])
    if list(out[:c]) != ts[:c]:
        raise ShapeError(
            f"scan: carries of types ({', '.join(map(str, ts[:c]))}) become "
            f"({', '.join(map(str, out[:c]))}) after one step",
            hint="a carry keeps its shape and dtype",
        )
    return TupleType((*out[:c], *(t.with_shape((attrs.length, *t.shape)) for t in out[c:])))


def _infer_cond(attrs: Any, pred: Type, *xs: Type) -> Type:
    p = tensor("cond", pred)
    if not p.dtype.is_bool or p.shape:
        raise DTypeError(f"cond: the predicate must be bool[], got {p}")
    then = _check_body("cond", "then-branch", attrs.then, xs)
    other = _check_body("cond", "other branch", attrs.other, xs)
    if then != other or not then:
        raise ShapeError(
            f"cond: branches return ({', '.join(map(str, then))}) and ({', '.join(map(str, other))})",
            hint="both must return the same types, at least one",
        )
    return TupleType(then)


def _infer_while(attrs: Any, *xs: Type) -> Type:
    c = attrs.n_carry
    if not 0 < c <= len(xs):
        raise AttributeValueError(f"while: {c} carries out of {len(xs)} operands")
    if (test := _check_body("while", "condition", attrs.cond, xs)) != (TensorType(_bool(), ()),):
        raise DTypeError(f"while: the condition must return bool[], it returns ({', '.join(map(str, test))})")
    out = _check_body("while", "body", attrs.body, xs)
    if list(out) != list(xs[:c]):
        raise ShapeError(
            f"while: carries ({', '.join(map(str, xs[:c]))}) become ({', '.join(map(str, out))}) after one step"
        )
    return TupleType(out)


def _bool() -> Any:
    from ..dtypes import boolean

    return boolean


def _infer_custom_vjp(attrs: Any, *xs: Type) -> Type:
    out = _check_body("custom_vjp", "forward", attrs.forward, xs)
    if not out:
        raise AttributeValueError("custom_vjp: the forward graph returns nothing")
    back = _check_body("custom_vjp", "backward", attrs.backward, [*xs, *out, *out])
    if list(back) != list(xs):
        raise ShapeError(
            f"custom_vjp: backward returns ({', '.join(map(str, back))}) for operands "
            f"({', '.join(map(str, xs))})"
        )
    return TupleType(out)


register(
    OpDef(
        "scan",
        None,
        _infer_scan,
        None,
        Kind.CONTROL,
        (
            Attr("body", "graph"),
            Attr("n_carry", "int"),
            Attr("n_xs", "int"),
            Attr("length", "dim"),
            Attr("reverse", "bool", False),
        ),
        family="control",
        doc="A loop over leading slices: body(carries, slices, constants) → (carries, outputs). Results are the last "
        "carries and "
        "the stacked outputs. Differentiable: its vjp is a reversed scan over stacked residuals.",
        bad=(Sample((("f32", (2,)),), {"n_carry": 2, "n_xs": 0, "length": 3}),),
    )
)
register(
    OpDef(
        "cond",
        None,
        _infer_cond,
        None,
        Kind.CONTROL,
        (Attr("then", "graph"), Attr("other", "graph")),
        family="control",
        doc="One of two branches by a scalar predicate. Differentiable.",
        bad=(Sample((("f32", ()),), {}),),
    )
)
register(
    OpDef(
        "while",
        None,
        _infer_while,
        None,
        Kind.CONTROL,
        (Attr("cond", "graph"), Attr("body", "graph"), Attr("n_carry", "int")),
        family="control",
        doc="body(carries, constants) → carries, as long as cond(carries, constants) holds. Not differentiable in "
        "reverse; use scan.",
        bad=(Sample((("f32", ()),), {}),),
    )
)
register(
    OpDef(
        "custom_vjp",
        None,
        _infer_custom_vjp,
        None,
        Kind.CONTROL,
        (Attr("forward", "graph"), Attr("backward", "graph")),
        family="control",
        doc="forward(operands) with a user's own derivative backward(operands, results, cotangents).",
        bad=(Sample((("f32", ()),), {}),),
    )
)
