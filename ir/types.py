"""Types of values: a dtype with dims, or a tuple of such for operators with several results."""

from __future__ import annotations

from dataclasses import dataclass

from .dims import Dim, product
from .dtypes import DType

Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """`f32[B,784]`: element type and extents (integers or expressions in named sizes)."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.size * self.dtype.itemsize

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class TupleType:
    """The results of an operator with several; projected by `result{index}` nodes."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = TensorType | TupleType
