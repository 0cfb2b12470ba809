"""Loads and stores at computed places, with every index checked: `status` gets the first bad one a thread
meets.

A parallel step owns elements that no other step can write, and takes its updates in the order of the index:
results do not depend on the split. Indices are not wrapped. Of a bad index the result is unspecified,
whatever was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...ir.dims import Dim, product
from ...ir.dtypes import DType
from ..contract.conv import aligned, chunks
from ..contract.text import extent_loads, fill, load, storage, store
from ..kernel import STATUS_INDEX, KernelSource

# Neighbouring columns of a slice that one step owns.
_COLUMNS = 32

_SLICE_EXTENTS = ("outer", "extent", "inner", "count")


@dataclass(frozen=True)
class IndexSelect:
    """`y[o, c, i] = x[o, index[c], i]`: whole slices.

    Operands: x `[outer, extent, inner]`, index `[count]`, y `[outer, count, inner]`. Extents: `outer`,
    `extent`, `inner`, `count`. Parallel range: slices of y. No scratch.

    Attributes:
        dtype: element type of x.
        index: i64 or i32.
    """

    dtype: DType
    index: DType

    def parallel_range(self, outer: Dim, count: Dim) -> Dim:
        """Steps of the parallel range."""
        return outer * count

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        source = fill(
            _INDEX_SELECT,
            extents=extent_loads(_SLICE_EXTENTS),
            pointer=f"{storage(self.dtype)}_ptr",
            index=f"{self.index}_ptr",
            check=_check("c"),
        )
        return KernelSource("kernel", source, 3, _SLICE_EXTENTS, fallible=True)


@dataclass(frozen=True)
class IndexStore:
    """x with slices replaced (`copy`) or added to (`add`): `y[o, index[c], i] (+)= update[o, c, i]`, c
    ascending.

    Operands: x `[outer, extent, inner]`, index `[count]`, update `[outer, count, inner]`, y like x (may be
    x's memory). Extents: `outer`, `extent`, `inner`, `count`. Parallel range: blocks of columns. Sums run in
    the compute dtype and are rounded once.

    Attributes:
        kind: `copy` or `add`.
        dtype: element type of x.
        index: i64 or i32.
    """

    kind: Literal["copy", "add"]
    dtype: DType
    index: DType

    def parallel_range(self, outer: Dim, inner: Dim) -> Dim:
        """Steps of the parallel range."""
        return outer * chunks(inner, _COLUMNS)

    def scratch_bytes(self, extent: Dim) -> Dim:
        """Scratch bytes of one thread: running sums of sixteen-bit floats."""
        return aligned(extent * (_COLUMNS * 4)) if self._widened else 0

    @property
    def _widened(self) -> bool:
        return self.kind == "add" and self.dtype is not self.dtype.compute

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        at, wide_at = "target + j", f"place * {_COLUMNS} + j"
        update = load(self.dtype, "update", "source + j")
        if self.kind == "copy":
            put = f"y[{at}] = update[source + j]"
        elif self._widened:
            put = f"sums[{wide_at}] = sums[{wide_at}] + {update}"
        else:
            put = f"y[{at}] = {self.dtype}(y[{at}] + {update})"
        column = f"i * {_COLUMNS} + j"
        source = fill(
            _INDEX_STORE,
            extents=extent_loads(_SLICE_EXTENTS),
            pointer=f"{storage(self.dtype)}_ptr",
            index=f"{self.index}_ptr",
            COLUMNS=_COLUMNS,
            check=_check("c"),
            put=put,
            sums="sums = f32_at(scratch, 0)" if self._widened else "",
            start=f"sums[{column}] = {load(self.dtype, 'x', 'row + j')}"
            if self._widened
            else "y[row + j] = x[row + j]",
            finish=fill(_ROUND, put=store(self.dtype, "y", "row + j", f"sums[{column}]"))
            if self._widened
            else "",
        )
        return KernelSource("kernel", source, 4, _SLICE_EXTENTS, fallible=True)


def _check(at: str, extent: str = "extent") -> str:
    """Lines: `place` from the index, or the kernel's end."""
    return (
        f"place = i64(index[{at}])\nif place < 0 or place >= {extent}:\n"
        f"    return fail(status, {STATUS_INDEX}, 0, place, {extent})"
    )


_INDEX_SELECT = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    index = $index(buffers, 1)
    y = $pointer(buffers, 2)
    $extents
    for step in range(begin, end):
        o = step // count
        c = step - o * count
        $check
        source = (o * extent + place) * inner
        for i in range(inner):
            y[step * inner + i] = x[source + i]
    return 0
"""

_INDEX_STORE = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    index = $index(buffers, 1)
    update = $pointer(buffers, 2)
    y = $pointer(buffers, 3)
    $extents
    $sums
    blocks = (inner + $COLUMNS - 1) // $COLUMNS
    for step in range(begin, end):
        o = step // blocks
        first = (step - o * blocks) * $COLUMNS
        columns = imin($COLUMNS, inner - first)
        for i in range(extent):
            row = (o * extent + i) * inner + first
            for j in range(columns):
                $start
        for c in range(count):
            $check
            target = (o * extent + place) * inner + first
            source = (o * count + c) * inner + first
            for j in range(columns):
                $put
        $finish
    return 0
"""

_ROUND = """
for i in range(extent):
    row = (o * extent + i) * inner + first
    for j in range(columns):
        $put
"""


@dataclass(frozen=True)
class Gather:
    """`y[i, j…] = x[index[i, j…], j…]` for axis 0, and so on: single elements.

    Operands: x, index, y (shaped like the index). Extents: x's shape, then the index's. Parallel range: rows
    of the index along its last axis. No scratch.

    Attributes:
        dtype: element type of x.
        index: i64 or i32.
        rank: axes of x and of the index.
        axis: the indexed axis.
    """

    dtype: DType
    index: DType
    rank: int
    axis: int

    @property
    def extents(self) -> tuple[str, ...]:
        """Names of the extents, in order."""
        return _element_extents(self.rank)

    def parallel_range(self, index_shape: tuple[Dim, ...]) -> Dim:
        """Steps of the parallel range."""
        return product(index_shape[:-1])

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        last = self.rank - 1
        source = fill(
            _GATHER,
            extents=extent_loads(self.extents),
            pointer=f"{storage(self.dtype)}_ptr",
            index=f"{self.index}_ptr",
            coordinates=_coordinates("n", range(last)),
            width=f"n_{last}",
            stride=_product(f"d_{i}" for i in range(self.axis + 1, self.rank)),
            base=_offset("d", self.rank, skip=self.axis, last="0"),
            column="" if self.axis == last else " + col",
            check=_check("step * width + col", f"d_{self.axis}"),
        )
        return KernelSource("kernel", source, 3, self.extents, fallible=True)


@dataclass(frozen=True)
class Scatter:
    """x with the elements that `Gather` would load replaced (`copy`) or added to (`add`), in row-major order.

    Operands: x, index, update (both of the index's shape), y like x (may be x's memory). Extents: x's shape,
    then the index's. Parallel range: lanes of x along the axis, in blocks of neighbours. Sums run in the
    compute dtype and are rounded once.

    Attributes:
        kind: `copy` or `add`.
        dtype: element type of x.
        index: i64 or i32.
        rank: axes of x and of the index.
        axis: the indexed axis.
    """

    kind: Literal["copy", "add"]
    dtype: DType
    index: DType
    rank: int
    axis: int

    @property
    def extents(self) -> tuple[str, ...]:
        """Names of the extents, in order."""
        return _element_extents(self.rank)

    def parallel_range(self, shape: tuple[Dim, ...]) -> Dim:
        """Steps of the parallel range; `shape` is x's."""
        if self._along_rows:
            return product(shape[:-1])
        return product([d for i, d in enumerate(shape[:-1]) if i != self.axis]) * chunks(shape[-1], _COLUMNS)

    def scratch_bytes(self, shape: tuple[Dim, ...]) -> Dim:
        """Scratch bytes of one thread: running sums of sixteen-bit floats."""
        return aligned(shape[self.axis] * (self._columns * 4)) if self._widened else 0

    @property
    def _widened(self) -> bool:
        return self.kind == "add" and self.dtype is not self.dtype.compute

    @property
    def _along_rows(self) -> bool:
        return self.axis == self.rank - 1

    @property
    def _columns(self) -> int:
        return 1 if self._along_rows else _COLUMNS

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        last, axis = self.rank - 1, self.axis
        outer = [i for i in range(last) if i != axis]
        target, wide_at = "base + place * stride + j", f"place * {self._columns} + j"
        update = load(self.dtype, "update", "source + j")
        if self.kind == "copy":
            put = f"y[{target}] = update[source + j]"
        elif self._widened:
            put = f"sums[{wide_at}] = sums[{wide_at}] + {update}"
        else:
            put = f"y[{target}] = {self.dtype}(y[{target}] + {update})"
        column = f"i * {self._columns} + j"
        source = fill(
            _SCATTER,
            extents=extent_loads(self.extents),
            pointer=f"{storage(self.dtype)}_ptr",
            index=f"{self.index}_ptr",
            COLUMNS=self._columns,
            put=put,
            extent=f"d_{axis}",
            count=f"n_{axis}",
            lanes="1" if self._along_rows else f"d_{last}",
            index_lanes="1" if self._along_rows else f"n_{last}",
            coordinates=_coordinates("d", outer),
            stride=_product(f"d_{i}" for i in range(axis + 1, self.rank)),
            index_stride=_product(f"n_{i}" for i in range(axis + 1, self.rank)),
            base=_offset("d", self.rank, skip=axis, last="0" if self._along_rows else "first"),
            index_base=_offset("n", self.rank, skip=axis, last="0" if self._along_rows else "first"),
            inside=" and ".join(f"i_{i} < n_{i}" for i in outer) or "True",
            check=_check("source + j", f"d_{axis}"),
            sums="sums = f32_at(scratch, 0)" if self._widened else "",
            start=(
                f"sums[{column}] = {load(self.dtype, 'x', 'row + j')}"
                if self._widened
                else "y[row + j] = x[row + j]"
            ),
            finish=fill(
                _SCATTER_ROUND, extent=f"d_{axis}", put=store(self.dtype, "y", "row + j", f"sums[{column}]")
            )
            if self._widened
            else "",
        )
        return KernelSource("kernel", source, 4, self.extents, fallible=True)


def _element_extents(rank: int) -> tuple[str, ...]:
    return tuple(f"{letter}_{i}" for letter in "dn" for i in range(rank))


def _product(factors: Iterable[str]) -> str:
    return " * ".join(factors) or "1"


def _coordinates(extent: str, axes: Iterable[int]) -> str:
    """Lines: the coordinates `i_k` that `lane` means on the given axes, row-major."""
    lines = ["rest = lane"]
    for k in reversed(list(axes)):
        lines += [
            f"quotient = rest // {extent}_{k}",
            f"i_{k} = rest - quotient * {extent}_{k}",
            "rest = quotient",
        ]
    return "\n".join(lines)


def _offset(extent: str, rank: int, skip: int, last: str) -> str:
    """The row-major offset of the coordinates `i_k`, zero on axis `skip`, `last` on the last one."""
    text = "0"
    for k in range(rank):
        value = "0" if k == skip else last if k == rank - 1 else f"i_{k}"
        text = value if k == 0 else f"({text}) * {extent}_{k} + {value}"
    return text


_GATHER = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    index = $index(buffers, 1)
    y = $pointer(buffers, 2)
    $extents
    width = $width
    stride = $stride
    for step in range(begin, end):
        lane = step
        $coordinates
        base = $base
        for col in range(width):
            $check
            y[step * width + col] = x[base + place * stride$column]
    return 0
"""

_SCATTER = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    index = $index(buffers, 1)
    update = $pointer(buffers, 2)
    y = $pointer(buffers, 3)
    $extents
    $sums
    stride = $stride
    index_stride = $index_stride
    lanes = $lanes
    blocks = (lanes + $COLUMNS - 1) // $COLUMNS
    for step in range(begin, end):
        lane = step // blocks
        first = (step - lane * blocks) * $COLUMNS
        columns = imin($COLUMNS, lanes - first)
        $coordinates
        base = $base
        for i in range($extent):
            row = base + i * stride
            for j in range(columns):
                $start
        if $inside:
            columns_stored = imin(columns, $index_lanes - first)
            for i in range($count):
                source = $index_base + i * index_stride
                for j in range(columns_stored):
                    $check
                    $put
        $finish
    return 0
"""

_SCATTER_ROUND = """
for i in range($extent):
    row = base + i * stride
    for j in range(columns):
        $put
"""
