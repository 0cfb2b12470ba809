"""Register tiles: how many rows and vectors of C one micro-kernel call keeps in registers, by instruction set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ...ir.dtypes import DType

if TYPE_CHECKING:
    from ..backend.llvm import Target


@dataclass(frozen=True, slots=True)
class TileShape:
    """A micro-kernel's register tile.

    Results do not depend on it: each output is one chain of fused multiply-adds in ascending k whatever the
    tile.

    Attributes:
        rows: rows of C (broadcast operand) in a full tile.
        vectors: vectors of C columns in a full tile.
        lanes: elements of one vector.
        tail_rows: rows of the tile that finishes what `rows` does not divide; it clamps to the rows that are
            left.
    """

    rows: int
    vectors: int
    lanes: int
    tail_rows: int

    @property
    def columns(self) -> int:
        """Columns of a full tile."""
        return self.vectors * self.lanes


# Accumulators plus B vectors plus one splat fit the vector registers (32, or 16 before AVX-512 on x86).
# Per instruction set: rows of tiles two and three vectors wide, bytes of a vector, rows of the tail tile.
_SHAPES = {"avx512": (12, 8, 64, 4), "avx2": (6, 4, 32, 2), "neon": (8, 6, 16, 4), "generic": (4, 3, 16, 2)}


def target_isa() -> str:
    """The widest instruction set we have tiles for on the CPU that code is generated for (`TRACEMILL_CPU`, or this
    one): `avx512`, `avx2`, `neon` or `generic`.

    Raises:
        TracemillError: LLVM does not know the CPU.
    """
    from ..backend.llvm import target

    return _isa(target())


# A multiply-add of 64 bytes: LLVM cuts it to the registers that the CPU has.
_PROBE = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define void @probe(ptr %p) {
  %x = load <16 x float>, ptr %p
  %y = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  store <16 x float> %y, ptr %p
  ret void
}
"""


@lru_cache(maxsize=8)
def _isa(where: Target) -> str:
    """LLVM names no features of a CPU that is not the host: there we look at the code it makes."""
    known = where.features.split(",")
    for name, needed in (("avx512", ("+avx512f",)), ("avx2", ("+avx2", "+fma"))):
        if all(feature in known for feature in needed):
            return name
    from ..backend.llvm import assemble

    assembly = assemble(_PROBE, where)
    for register, operation, name in (("zmm", "vfmadd", "avx512"), ("ymm", "vfmadd", "avx2"), ("v0", "fmla", "neon")):
        if register in assembly and operation in assembly:
            return name
    return "generic"


def tile_shape(dtype: DType, isa: str | None = None, *, vectors: int = 2) -> TileShape:
    """The tile for a compute dtype (f32 or f64), one to three vectors wide, on `isa`: by default that of the CPU that
    code is generated for."""
    rows_of_two, rows_of_three, vector_bytes, tail_rows = _SHAPES[isa or target_isa()]
    rows = rows_of_three if vectors == 3 else rows_of_two
    return TileShape(rows, vectors, vector_bytes // dtype.itemsize, tail_rows)


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """One variant of the micro-kernel; `name` is what generated sources call.

    Attributes:
        dtype: `f32` or `f64`.
        tile: the register tile.
        indexed: operand offsets of step k come from a table instead of constant strides.
    """

    dtype: str
    tile: TileShape
    indexed: bool = False

    @property
    def name(self) -> str:
        """E.g. `rows_f32_12x2x16_4`, `rows_f64_12x2x8_4_indexed`."""
        t = self.tile
        suffix = "_indexed" if self.indexed else ""
        return f"rows_{self.dtype}_{t.rows}x{t.vectors}x{t.lanes}_{t.tail_rows}{suffix}"


_NAME = re.compile(r"rows_(f32|f64)_(\d+)x(\d+)x(\d+)_(\d+)(_indexed)?")


def parse_micro_kernel(name: str) -> MicroKernel | None:
    """The variant that a name in a generated source means, or None for any other name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    dtype, rows, vectors, lanes, tail_rows, indexed = match.groups()
    return MicroKernel(dtype, TileShape(int(rows), int(vectors), int(lanes), int(tail_rows)), bool(indexed))
