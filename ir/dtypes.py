"""Element types. Sixteen-bit floats are stored narrow and computed in float32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class DType:
    """One element type.

    Attributes:
        name: the name in IR text (`f32`).
        kind: `float`, `int`, `uint` or `bool`.
        bits: storage width.
        long_name: NumPy's and PyTorch's name (`float32`).
    """

    name: str
    kind: str
    bits: int
    long_name: str

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return max(self.bits // 8, 1)

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of the storage (bfloat16 by ml_dtypes)."""
        if self.name == "bf16":
            import ml_dtypes

            narrow: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return narrow
        return np.dtype(self.long_name)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned integer, without bool."""
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    @property
    def compute(self) -> DType:
        """The dtype arithmetic is done in: float32 for the sixteen-bit floats, else the dtype itself."""
        return f32 if self.name in ("f16", "bf16") else self

    @property
    def min(self) -> float | int | bool:
        """Least value (−inf for floats): the identity of max."""
        if self.is_float:
            return float("-inf")
        return False if self.is_bool else int(np.iinfo(self.numpy).min)

    @property
    def max(self) -> float | int | bool:
        """Greatest value (inf for floats): the identity of min."""
        if self.is_float:
            return float("inf")
        return True if self.is_bool else int(np.iinfo(self.numpy).max)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (dtype, (self.name,))


f64 = DType("f64", "float", 64, "float64")
f32 = DType("f32", "float", 32, "float32")
f16 = DType("f16", "float", 16, "float16")
bf16 = DType("bf16", "float", 16, "bfloat16")
i8 = DType("i8", "int", 8, "int8")
i16 = DType("i16", "int", 16, "int16")
i32 = DType("i32", "int", 32, "int32")
i64 = DType("i64", "int", 64, "int64")
u8 = DType("u8", "uint", 8, "uint8")
u32 = DType("u32", "uint", 32, "uint32")
u64 = DType("u64", "uint", 64, "uint64")
boolean = DType("bool", "bool", 8, "bool")

ALL: tuple[DType, ...] = (f64, f32, f16, bf16, i8, i16, i32, i64, u8, u32, u64, boolean)
FLOATS: tuple[DType, ...] = (f64, f32, f16, bf16)
INTEGERS: tuple[DType, ...] = (i8, i16, i32, i64, u8, u32, u64)
_BY_NAME = {d.name: d for d in ALL} | {d.long_name: d for d in ALL}


def dtype(name: str) -> DType:
    """The dtype of a name in either spelling (`f32`, `float32`); KeyError if there is none."""
    return _BY_NAME[name]


def from_numpy(dt: np.dtype[Any] | type) -> DType:
    """The dtype that stores a NumPy dtype; KeyError if tracemill has none (complex, strings, objects)."""
    return _BY_NAME[np.dtype(dt).name]
