"""Attribute values: typed by the operator's schema, hashable, equal by type and bit pattern."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .dims import SymDim
from .dtypes import DType, from_numpy
from .errors import AttributeValueError
from .types import TensorType

if TYPE_CHECKING:
    from .graph import Graph

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "required"})()


class FloatAttr(float):
    """A float that equals only its own bit pattern, so that `-0.0`, `0.0` and every NaN key apart."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and struct.pack("d", self) == struct.pack("d", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(struct.pack("d", self))


class Constant:
    """An immutable array as an attribute; equal by dtype, shape and bytes.

    Args:
        array: copied unless it is read-only and owns its data.
    """

    __slots__ = ("_bytes", "_hash", "array", "dtype")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        array = np.array(array, order="C", copy=True)
        array.flags.writeable = False
        self.array = array
        self.dtype: DType = from_numpy(array.dtype)
        self._bytes = array.tobytes()
        self._hash = hash((self.dtype.name, array.shape, self._bytes))

    def tobytes(self) -> bytes:
        return self._bytes

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, tuple(int(d) for d in self.array.shape))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Constant)
            and self.dtype is other.dtype
            and self.array.shape == other.array.shape
            and self._bytes == other._bytes
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Constant({self.type})"


@dataclass(frozen=True, slots=True)
class Attr:
    """One entry of an operator's attribute schema.

    Attributes:
        kind: `int` (plain integer: an axis, a rank), `ints`, `dim` (extent, may be symbolic), `dims`, `pads`
            (tuple of (low, high[, interior]) of dims), `float`, `bool`, `str`, `dtype`, `type`, `const`, `graph`.
        default: value used when the text or the caller leaves the attribute out.
        choices: admissible strings of kind `str`.
    """

    name: str
    kind: str
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()

    def coerce(self, value: Any) -> Any:
        """`value` in the canonical form of this kind. Raises AttributeValueError."""
        try:
            canonical = _COERCE[self.kind](value)
        except (
            TypeError,
            ValueError,
            KeyError,
        ) as error:  # KeyError: an array of a dtype without a name here
            raise AttributeValueError(
                f"attribute {self.name} must be of kind {self.kind}, got {value!r}"
            ) from error
        if self.choices and canonical not in self.choices:
            raise AttributeValueError(
                f"attribute {self.name} must be one of {', '.join(self.choices)}, got {value!r}"
            )
        return canonical


def _int(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or int(value) != value:
        raise TypeError
    return int(value)


def _dim(value: Any) -> Any:
    return value if isinstance(value, SymDim) else _int(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError
    return bool(value)


def _instance(cls: type) -> Any:
    def check(value: Any) -> Any:
        if not isinstance(value, cls):
            raise TypeError
        return value

    return check


def _graph(value: Any) -> Graph:
    from .graph import Graph

    if not isinstance(value, Graph):
        raise TypeError
    return value


_COERCE: dict[str, Any] = {
    "int": _int,
    "ints": lambda v: tuple(_int(x) for x in v),
    "dim": _dim,
    "dims": lambda v: tuple(_dim(x) for x in v),
    "pads": lambda v: tuple(tuple(_dim(x) for x in pair) for pair in v),
    "float": lambda v: FloatAttr(v),
    "bool": _bool,
    "str": _instance(str),
    "dtype": _instance(DType),
    "type": _instance(TensorType),
    "const": lambda v: v if isinstance(v, Constant) else Constant(v),
    "graph": _graph,
}


def encode(kind: str, value: Any) -> bytes:
    """Canonical bytes of an attribute for structural digests."""
    if value is None:
        return b"~"
    if kind == "float":
        return struct.pack("<d", value)
    if kind == "const":
        data: bytes = value.tobytes()
        return str(value.type).encode() + b"=" + data
    if kind == "graph":
        digest: bytes = value.digest
        return digest
    return repr(value).encode() if kind != "type" else str(value).encode()
