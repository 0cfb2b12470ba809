"""What the two attention kernels share: their structure, operands, masks and the staging of blocks.

`softmax(q·kᵀ·scale + mask)·v` for one (batch, head) at a time, without the matrix of probabilities in memory. Scores
are made for a block of query rows and a block of keys, turned into probabilities where they lie (in the first-level
cache), and multiplied on at once; where there are several blocks of keys the softmax is the online one (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022). The block products
are the micro-kernel of all contractions. What a causal mask hides is neither computed nor multiplied.

Results do not depend on threads, register tiles or instruction set: blocks have fixed sizes, every product is one chain
of fused multiply-adds in ascending order, sums of a row go to sixteen lanes and are folded by a fixed tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...ir.dims import Dim, product
from ...ir.dtypes import DType
from .text import extent_loads, fill, load, storage
from .tiles import MicroKernel, TileShape, tile_shape

# Query rows and keys of one block. Whatever the sizes, a block of scores is at most this.
ROWS = 64
KEYS = 256
# Elements between the ends of two rows of scores: keeps rows that are 2^n long off the same lines of the cache.
_STAGGER = 16
_LINE = 64
# Elements of a block of scores, its rows apart.
BLOCK = ROWS * (KEYS + 2 * _STAGGER)

MaskKind = Literal["none", "bool", "float"]


@dataclass(frozen=True)
class Attention:
    """An attention's structure: part of the source text. Base of the two generators.

    Attributes:
        dtype: element type of queries, keys, values and results; sixteen-bit floats are computed in float32.
        batch_rank: axes in front of [rows, features].
        causal: row i takes part in columns up to i + `diagonal` (an extent).
        mask: a boolean mask, a mask to add, or none.
        mask_dtype: element type of a mask to add.
        visible: what a boolean mask says of pairs that take part.
        skips: scores that the boolean mask hides are -inf: never anything but 0 as probabilities.
        tile: register tile; this CPU's by default.
    """

    dtype: DType
    batch_rank: int
    causal: bool = False
    mask: MaskKind = "none"
    mask_dtype: DType | None = None
    visible: bool = True
    skips: bool = False
    tile: TileShape | None = None

    @property
    def register_tile(self) -> TileShape:
        """The tile in use."""
        return self.tile or tile_shape(self.dtype.compute)

    @property
    def narrow(self) -> bool:
        """Stored in sixteen bits, computed in float32."""
        return self.dtype is not self.dtype.compute

    # -- arguments ------------------------------------------------------------------------------------------------

    def sizes(self) -> tuple[str, ...]:
        """Names of the first extents."""
        named = "size_t", "size_s", "size_d", "size_e", "diagonal", "scale_bits", "hidden_bits"
        return (*named, *(f"batch_{i}" for i in range(self.batch_rank)))

    def all_extents(self, operands: Iterable[str], areas: Iterable[str]) -> tuple[str, ...]:
        """All extents: sizes; strides of every operand (its two innermost axes, then the batch axes); areas."""
        names = list(self.sizes())
        for x in operands:
            names += [f"{x}_row", f"{x}_col", *(f"{x}_batch_{i}" for i in range(self.batch_rank))]
        return (*names, *areas)

    def loads(self, names: tuple[str, ...]) -> str:
        """Lines that read the extents the text names."""
        lines = extent_loads(names).split("\n")
        return "\n".join(line for name, line in zip(names, lines, strict=True) if "batch_" not in name)

    def places(self, operands: Iterable[str]) -> str:
        """Lines that turn `head` into base offsets `<operand>_at`."""
        first, rank = len(self.sizes()) - self.batch_rank, self.batch_rank
        if not rank:
            return "\n".join(f"{x}_at = 0" for x in operands)
        return "\n".join(f"{x}_at = place(extents, {first + rank + k * (rank + 2) + 2}, {first}, {rank}, head)"
                         for k, x in enumerate(operands))

    def ahead(self, operands: Iterable[str], head: str, sizes: dict[str, tuple[str, str]], how: str = "fetch") -> str:
        """Lines that bring the first rows of operands of another head into the cache: they lie far apart, where no
        hardware looks ahead. `sizes` are rows and columns of each."""
        if self.narrow or not self.batch_rank:
            return ""
        known, first, rank = list(operands), len(self.sizes()) - self.batch_rank, self.batch_rank
        lines = []
        for x, (rows, columns) in sizes.items():
            at = f"place(extents, {first + rank + known.index(x) * (rank + 2) + 2}, {first}, {rank}, {head})"
            count = f"imin({ROWS}, {rows})"
            lines.append(f"{how}_rows_{self.dtype}(offset({x}, {at}), {x}_row, {x}_col, {count}, {columns})")
        return "\n".join(lines)

    def pointer(self, name: str, slot: int, dtype: DType | None = None) -> str:
        """Line that binds an operand."""
        return f"{name} = {storage(dtype or self.dtype)}_ptr(buffers, {slot})"

    def mask_pointer(self, slot: int) -> str:
        """Line that binds the mask, if there is one."""
        if self.mask == "none":
            return ""
        return f"mask = {storage(self.mask_dtype) if self.mask_dtype else 'bool'}_ptr(buffers, {slot})"

    # -- scratch --------------------------------------------------------------------------------------------------

    def offsets(self, sizes: Iterable[Dim], first: Dim = 0) -> list[Dim]:
        """Byte offsets of areas of so many elements from `first` on, and where the last ends."""
        found: list[Dim] = [first]
        for size in sizes:
            nbytes = size * self.dtype.compute.itemsize
            found.append(found[-1] + (nbytes + (_LINE - 1)) // _LINE * _LINE)
        return found

    def areas(self, names: Iterable[str], offsets: Iterable[Dim | str], first: int) -> str:
        """Lines that bind areas; no two of different numbers overlap."""
        kinds = {"ends": "i64"}
        return "\n".join(f"{name} = {kinds.get(name, self.dtype.compute.name)}_at(scratch, {at}, {first + k})"
                         for k, (name, at) in enumerate(zip(names, offsets, strict=True)))

    def padded(self, size: Dim) -> Dim:
        """A feature size rounded up to whole register tiles."""
        columns = self.register_tile.columns
        return (size + (columns - 1)) // columns * columns

    # -- blocks ---------------------------------------------------------------------------------------------------

    def staged(self, name: str, count: str, size: str, at: str) -> dict[str, str]:
        """`count` rows of an operand as numbers: template values `<name>_in`, `<name>_r`, `<name>_c` (pointer and
        strides) and `stage_<name>`, lines that come before. Sixteen-bit floats are widened into an area, anything else
        is read where it lies."""
        if not self.narrow:
            return {f"{name}_in": f"offset({name}, {at})", f"{name}_r": f"{name}_row", f"{name}_c": f"{name}_col",
                    f"stage_{name}": ""}
        element = load(self.dtype, name, f"{at} + row * {name}_row + col * {name}_col")
        stage = fill(_STAGE, name=name, count=count, size=size, element=element)
        return {f"{name}_in": f"wide_{name}", f"{name}_r": size, f"{name}_c": "1", f"stage_{name}": stage}

    def ends(self) -> str:
        """Lines that set `ends[i]` for the rows from `row0` on: how many of the first keys matter to each."""
        start, step = ("row0 + diagonal + 1", 1) if self.causal else ("size_s", 0)
        count = f"count_rows(ends, rows, {start}, {step}, size_s)"
        if not self.skips:
            return count
        return fill(_TRIM, count=count, last=self._hidden("mask[line + (end - 1) * mask_col]"),
                    any=self._hidden("mask[line + col * mask_col]"))

    def scaled(self) -> str:
        """Lines that scale and mask a block of scores where that is not left to the row operations, and set `scale`,
        by which those still have to."""
        if self.mask == "none":
            return "scale = factor"
        if self.mask == "bool":
            value = f"select({self._hidden('mask[spot]')}, hidden, score[at + col] * factor)"
        else:
            assert self.mask_dtype is not None
            value = f"score[at + col] * factor + {self._widened(load(self.mask_dtype, 'mask', 'spot'))}"
        one = f"{self.dtype.compute}(1.0)"
        if self.skips:
            return fill(_MASKED_IF, masked=fill(_MASKED, value=value), one=one)
        return fill(_MASKED, value=value) + f"\nscale = {one}"

    def unseen(self) -> str:
        """Lines that give masked scores no cotangent, where their probabilities need not be zero."""
        if self.mask != "bool" or self.skips:
            return ""
        return fill(_UNSEEN, compute=self.dtype.compute, hidden=self._hidden("mask[line + col * mask_col]"))

    def _hidden(self, element: str) -> str:
        """The condition that a boolean mask's element hides its pair."""
        return f"({element} == {not self.visible})"

    def _widened(self, text: str) -> str:
        return f"f64({text})" if self.dtype.name == "f64" and self.mask_dtype is not self.dtype else text

    def constants(self) -> dict[str, object]:
        """Template values that both kernels use."""
        tile, compute = self.register_tile, self.dtype.compute.name
        low = "(-bits_f32(2139095040))" if compute == "f32" else "(-bits_f64(9218868437227405312))"
        return {
            "ROWS": ROWS, "KEYS": KEYS, "COLUMNS": tile.columns, "STAGGER": _STAGGER, "compute": compute, "low": low,
            "product": MicroKernel(compute, tile).name.removeprefix("rows_"),
        }  # fmt: skip


def heads(batch: Iterable[Dim]) -> Dim:
    """The number of independent attentions."""
    return product(list(batch))


_STAGE = """
for row in range($count):
    for col in range($size):
        wide_$name[row * $size + col] = $element
"""

# Heads often share a mask: what was found for one holds for the next. Without holes the ends say all.
_TRIM = """
if mask_at != mask_seen or row0 != row_seen:
    $count
    holes = 0
    for i in range(rows):
        end = ends[i]
        line = mask_at + (row0 + i) * mask_row
        while end > 0 and $last:
            end -= 1
        for col in range(end):
            holes += $any
        ends[i] = end
    mask_seen = mask_at
    row_seen = row0
"""

_MASKED = """
for i in range(rows):
    at = i * pitch
    line = mask_at + (row0 + i) * mask_row + key0 * mask_col
    for col in range(imin(keys, ends[i] - key0)):
        spot = line + col * mask_col
        score[at + col] = $value
"""

_MASKED_IF = """
scale = factor
if holes > 0:
    scale = $one
    $masked
"""

_UNSEEN = """
for i in range(rows):
    line = mask_at + (row0 + i) * mask_row + key0 * mask_col
    for col in range(imin(keys, ends[i] - key0)):
        slope[i * pitch + col] = select($hidden, ${compute}(0.0), slope[i * pitch + col])
"""
