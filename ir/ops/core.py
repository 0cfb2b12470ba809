"""Inputs, constants, projections of several results, and symbolic extents as values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attrs import Attr
from ..dtypes import i64
from ..errors import AttributeValueError, DTypeError
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, TupleType, Type


def _infer_input(attrs: Any) -> Type:
    if attrs.index < 0:
        raise AttributeValueError(f"input index {attrs.index} is negative")
    return attrs.type  # type: ignore[no-any-return]


def _infer_result(attrs: Any, t: Type) -> Type:
    if not isinstance(t, TupleType):
        raise DTypeError(f"result projects an operator with several results, got one of type {t}")
    index: int = attrs.index
    if not 0 <= index < len(t.items):
        raise AttributeValueError(f"result {index} of an operator with {len(t.items)}")
    return t.items[index]


register(
    OpDef(
        "input",
        0,
        _infer_input,
        None,
        Kind.INPUT,
        (Attr("index", "int"), Attr("type", "type")),
        family="core",
        doc="Input number `index` of the graph. Written as its name in text.",
    )
)

register(
    OpDef(
        "constant",
        0,
        lambda a: a.value.type,
        lambda a, t: a.value.array,
        Kind.INPUT,
        (Attr("value", "const"),),
        doc="An array known at compile time. Scalars print in place: `f32(0.5)`.",
        family="core",
        exact=True,
        samples=(
            Sample((), {"value": np.arange(6, dtype=np.float32).reshape(2, 3)}),
            Sample((), {"value": np.array(True)}),
            Sample((), {"value": np.zeros((0, 2), np.int64)}),
        ),
        bad=(Sample((), {"value": 1j}), Sample((), {})),
    )
)

register(
    OpDef(
        "result",
        1,
        _infer_result,
        lambda a, t, parts: parts[a.index],
        Kind.MOVEMENT,
        (Attr("index", "int"),),
        doc="Result number `index` of an operator with several. Text names it on the operator's left-hand side.",
        family="core",
        exact=True,
        bad=(Sample((("f32", (2,)),), {"index": 0}),),
    )
)

register(
    OpDef(
        "extent",
        0,
        lambda a: TensorType(i64, ()),
        lambda a, t: np.asarray(a.value, np.int64),
        Kind.ELEMENTWISE,
        (Attr("value", "dim"),),
        exact=True,
        family="core",
        doc="An expression in named sizes as a number: what a mean divides by, so that no batch size is a literal.",
        samples=(Sample((), {"value": 7}),),
        bad=(Sample((), {"value": 1.5}),),
    )
)
