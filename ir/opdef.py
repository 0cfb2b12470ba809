"""The operator table: one record per operator, from which everything else is derived.

Parser, printer, verifier, interpreter, autodiff, kernel lowering, operator tests and docs/operators.md read these
records; adding an operator is one `register(OpDef(...))` in `ir/ops/`.
"""

from __future__ import annotations

import enum
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .attrs import REQUIRED, Attr
from .errors import AttributeValueError
from .types import Type

if TYPE_CHECKING:
    from .build import Builder
    from .node import Node


class Kind(enum.Enum):
    """What the fusion pass needs to know of an operator."""

    INPUT = "input"  # graph inputs and constants
    ELEMENTWISE = "elementwise"  # out[i] = f(in[i], …), rank-0 operands splat
    BROADCAST = "broadcast"  # repeats elements; free as a load
    MOVEMENT = "movement"  # a bijection or selection of indices; free as a load
    REDUCTION = "reduction"
    CONTRACTION = "contraction"
    GATHER = "gather"  # data-dependent loads
    SCATTER = "scatter"  # data-dependent stores
    OPAQUE = "opaque"  # a kernel of its own (sort, cumulative sum, windows)
    CONTROL = "control"  # body graphs
    SYMBOLIC = "symbolic"  # gradient, update: expanded by passes, never lowered


# infer(attrs, *input types) -> type; raises ShapeError/DTypeError/AttributeValueError
Infer = Callable[..., Type]
# reference(attrs, out type with integer dims, *arrays) -> array or tuple of arrays
Reference = Callable[..., Any]
# vjp(builder, node, cotangent(s), *inputs) -> one Node or None per input
Vjp = Callable[..., "Sequence[Node | None]"]


@dataclass(frozen=True)
class Sample:
    """A test point: input specifications, attributes, and the interval the values are drawn from.

    Attributes:
        inputs: one `(dtype name or "*", shape)` per input; `*` stands for each dtype the operator admits.
        attrs: attributes by name.
        low, high: range of the random values (all inputs).
        grad: whether gradients are checked on it (off where the function has a kink in the range).
        ranges: per-input (low, high), overriding low/high (indices, positive bases, …).
    """

    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0
    grad: bool = True
    ranges: tuple[tuple[float, float] | None, ...] = ()


@dataclass(frozen=True, eq=False)
class OpDef:
    """One operator. Equal by identity.

    Attributes:
        arity: number of inputs, or None for any.
        scalar: Python expression of one element for generated kernels, `{0}`, `{1}` the operands; `tm_exp(...)`
            names a function of the math library in the operand's compute dtype. None if lowering is by kind.
        dtypes: names of the dtypes `*` stands for in samples.
        samples: inputs for the operator tests; `bad`: inputs that must be refused.
        exact: correctly rounded in every implementation, so the interpreter may stand in for a kernel.
        effects: may stop a run by Status (an index out of range).
    """

    name: str
    arity: int | None
    infer: Infer
    reference: Reference | None
    kind: Kind
    attrs: tuple[Attr, ...] = ()
    vjp: Vjp | None = None
    scalar: str | None = None
    doc: str = ""
    dtypes: tuple[str, ...] = ("f32", "f64")
    samples: tuple[Sample, ...] = ()
    bad: tuple[Sample, ...] = ()
    exact: bool = False
    fallible: bool = False
    family: str = ""
    make_attrs: Any = None  # namedtuple class of the schema, filled in by register()

    def bind(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Attributes by name → canonical tuple in schema order. Raises AttributeValueError."""
        if not self.attrs:
            if values:
                raise AttributeValueError(f"{self.name} has no attribute {next(iter(values))}")
            return self.make_attrs()  # type: ignore[no-any-return]
        known = {a.name for a in self.attrs}
        for name in values:
            if name not in known:
                raise AttributeValueError(
                    f"{self.name} has no attribute {name}; it has {', '.join(a.name for a in self.attrs)}"
                )
        bound = []
        for a in self.attrs:
            value = values.get(a.name, a.default)
            if value is REQUIRED:
                raise AttributeValueError(f"{self.name} needs the attribute {a.name} ({a.kind})")
            bound.append(value if value is None and a.default is None else a.coerce(value))
        return self.make_attrs(*bound)  # type: ignore[no-any-return]


_TABLE: dict[str, OpDef] = {}


def register(op: OpDef) -> OpDef:
    """Add an operator to the table. Raises ValueError for a name that is taken."""
    if op.name in _TABLE:
        raise ValueError(f"operator {op.name} is registered twice")
    fields = [a.name for a in op.attrs]
    object.__setattr__(op, "make_attrs", namedtuple(f"{op.name}_attrs", fields, rename=False))
    _TABLE[op.name] = op
    return op


def table() -> Mapping[str, OpDef]:
    """All operators by name, in registration order."""
    from . import ops  # noqa: F401  (fills the table)

    return _TABLE


def lookup(name: str) -> OpDef:
    """The operator called `name`. Raises KeyError."""
    return table()[name]


__all__ = ["Attr", "Builder", "Kind", "OpDef", "Sample", "lookup", "register", "table"]
