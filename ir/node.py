"""Hash-consed nodes: the same structure at the same place is the same object."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .attrs import encode
from .errors import InternalError, Location, ShapeError, TracemillError
from .opdef import OpDef, lookup
from .types import TensorType, TupleType, Type


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node comes from: the user's line and the module path (`layers.0.linear`)."""

    location: Location | None = None
    scope: str = ""


NOWHERE = Place()


class Node:
    """One operator application. Immutable; build with `Node.make` or a `Builder`.

    Attributes:
        op: its record of the operator table.
        inputs: nodes it reads (every edge leads to a node; `result` nodes project several results).
        attrs: named tuple in the order of the operator's schema (`node.attrs.axis`).
        type: TensorType, or TupleType for several results.
        place: source line and module scope; not part of structural equality.
    """

    __slots__ = ("__weakref__", "_digest", "attrs", "inputs", "op", "place", "type")

    op: OpDef
    inputs: tuple[Node, ...]
    attrs: Any
    type: Type
    place: Place
    _digest: bytes | None

    _interned: ClassVar[weakref.WeakValueDictionary[Any, Node]] = weakref.WeakValueDictionary()

    @classmethod
    def make(
        cls,
        op: OpDef | str,
        inputs: Iterable[Node],
        attrs: Mapping[str, Any] | tuple[Any, ...] = (),
        place: Place = NOWHERE,
    ) -> Node:
        """The node of this structure and place, its type inferred.

        Args:
            attrs: by name, or a tuple already in canonical schema order.

        Raises:
            ShapeError, DTypeError, AttributeValueError: with the place and the operator, if types do not fit.
        """
        if isinstance(op, str):
            op = lookup(op)
        inputs = tuple(inputs)
        if isinstance(attrs, Mapping) or not attrs:
            attrs = op.bind(attrs if isinstance(attrs, Mapping) else {})
        elif type(attrs) is not op.make_attrs:
            attrs = op.make_attrs(*attrs)
        key = (op, inputs, attrs, place)
        found = cls._interned.get(key)
        if found is not None:
            return found
        if op.arity is not None and len(inputs) != op.arity:
            raise ShapeError(f"{op.name} takes {op.arity} inputs, got {len(inputs)}", location=place.location)
        try:
            inferred = op.infer(attrs, *(i.type for i in inputs))
        except TracemillError as error:
            if error.location is None:
                error.location = place.location
            raise
        node = cls.__new__(cls)
        node.op, node.inputs, node.attrs, node.type, node.place, node._digest = (
            op,
            inputs,
            attrs,
            inferred,
            place,
            None,
        )
        cls._interned[key] = node
        return node

    @property
    def tensor_type(self) -> TensorType:
        """The type of a single-result node."""
        if not isinstance(self.type, TensorType):
            raise InternalError(f"{self.op.name} has several results; project one with `result`")
        return self.type

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tensor_type.shape

    @property
    def dtype(self) -> Any:
        return self.tensor_type.dtype

    @property
    def result_types(self) -> tuple[TensorType, ...]:
        """The types of all results."""
        return self.type.items if isinstance(self.type, TupleType) else (self.type,)

    def with_inputs(self, inputs: Iterable[Node]) -> Node:
        """The same operator, attributes and place on other inputs; self if they are the same."""
        inputs = tuple(inputs)
        return self if inputs == self.inputs else Node.make(self.op, inputs, self.attrs, self.place)

    @property
    def digest(self) -> bytes:
        """16 bytes equal exactly for equal structure (places ignored)."""
        if self._digest is None:
            for node in postorder([self], skip=lambda n: n._digest is not None):
                h = hashlib.blake2b(node.op.name.encode(), digest_size=16)
                for schema, value in zip(node.op.attrs, node.attrs, strict=True):
                    data = encode(schema.kind, value)
                    h.update(b"|%d:" % len(data) + data)
                for i in node.inputs:
                    h.update(i._digest or b"")
                node._digest = h.digest()
        assert self._digest is not None
        return self._digest

    def __repr__(self) -> str:
        return f"<{self.op.name}: {self.type}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Node.make, (self.op.name, self.inputs, tuple(self.attrs), self.place))


def postorder(roots: Iterable[Node], skip: Any = None) -> list[Node]:
    """Nodes reachable from `roots`, inputs before users, in a fixed order; without those `skip(node)` holds for.

    Iterative: graphs may be deeper than Python's stack.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, i = stack.pop()
            if i == 0:
                if node in seen or (skip is not None and skip(node)):
                    continue
                seen.add(node)
            if i < len(node.inputs):
                stack.append((node, i + 1))
                child = node.inputs[i]
                if child not in seen:
                    stack.append((child, 0))
            else:
                order.append(node)
    return order
