"""Kernels along one axis where order matters: cumulative sums, sorting, the k greatest.

Every tensor is seen as `[outer, extent, inner]` with the axis in the middle; a lane is one `(outer, inner)`
pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim
from ...ir.dtypes import DType
from ..contract.conv import aligned, chunks
from ..contract.text import extent_loads, fill, load, storage, store
from ..kernel import KernelSource

# Neighbouring lanes that one step of a cumulative sum takes together.
_LANES = 32
# Up to this many elements are selected by insertion, more by sorting.
_INSERTION = 32


@dataclass(frozen=True)
class CumSum:
    """Running sums along an axis, in the compute dtype, one element after the other.

    Operands: x, y. Extents: `outer`, `extent`, `inner`. Parallel range: blocks of lanes.

    Attributes:
        dtype: element type.
        reverse: from the last element backwards.
    """

    dtype: DType
    reverse: bool = False

    def parallel_range(self, outer: Dim, inner: Dim) -> Dim:
        """Steps of the parallel range."""
        return outer * chunks(inner, _LANES)

    def scratch_bytes(self) -> int:
        """Scratch bytes of one thread."""
        return _LANES * 8

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        compute = self.dtype.compute
        source = fill(
            _CUMSUM,
            extents=extent_loads(("outer", "extent", "inner")),
            pointer=f"{storage(self.dtype)}_ptr",
            compute=compute,
            LANES=_LANES,
            at="extent - 1 - i" if self.reverse else "i",
            add=f"{compute}(total[j] + {load(self.dtype, 'x', 'row + j')})",
            put=store(self.dtype, "y", "row + j", "total[j]"),
        )
        return KernelSource("kernel", source, 2, ("outer", "extent", "inner"))


_CUMSUM = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    y = $pointer(buffers, 1)
    $extents
    total = ${compute}_at(scratch, 0)
    blocks = (inner + $LANES - 1) // $LANES
    for step in range(begin, end):
        o = step // blocks
        first = (step - o * blocks) * $LANES
        count = imin($LANES, inner - first)
        for j in range(count):
            total[j] = $compute(0)
        for i in range(extent):
            row = (o * extent + $at) * inner + first
            for j in range(count):
                total[j] = $add
                $put
    return 0
"""


@dataclass(frozen=True)
class Sort:
    """Values and int64 indices in rising or falling order, stable in both; NaN counts as greatest.

    Operands: x, values, indices. Extents: `outer`, `extent`, `inner`. Parallel range: lanes.

    Attributes:
        dtype: element type.
        descending: falling order.
    """

    dtype: DType
    descending: bool = False

    def parallel_range(self, outer: Dim, inner: Dim) -> Dim:
        """Steps of the parallel range."""
        return outer * inner

    def scratch_bytes(self, extent: Dim) -> Dim:
        """Scratch bytes of one thread: keys and indices, twice."""
        return 2 * (aligned(extent * self.dtype.compute.itemsize) + aligned(extent * 8))

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        source = fill(
            _SORT,
            names="outer, extent, inner",
            extents=extent_loads(("outer", "extent", "inner")),
            count="extent",
            sort=_sorted_lane(self.dtype, self.descending),
            **_constants(self.dtype),
        )
        return KernelSource("kernel", source, 3, ("outer", "extent", "inner"))


@dataclass(frozen=True)
class TopK:
    """The start of `Sort`: the k greatest (or least) elements, best first, of equal ones the first.

    Operands: x, values, indices. Extents: `outer`, `extent`, `inner`, `k`. Parallel range: lanes.

    Attributes:
        dtype: element type.
        largest: greatest first, else least first.
    """

    dtype: DType
    largest: bool = True

    def parallel_range(self, outer: Dim, inner: Dim) -> Dim:
        """Steps of the parallel range."""
        return outer * inner

    def scratch_bytes(self, extent: Dim) -> Dim:
        """Scratch bytes of one thread."""
        return Sort(self.dtype).scratch_bytes(extent)

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        constants = _constants(self.dtype)
        select = fill(
            _SELECT,
            INSERTION=_INSERTION,
            element=load(self.dtype, "x", "base + i * inner"),
            before=_before(self.dtype, self.largest, "value", "keys[slot - 1]"),
            sort=_sorted_lane(self.dtype, self.largest),
            **constants,
        )
        names = ("outer", "extent", "inner", "k")
        source = fill(_SORT, extents=extent_loads(names), count="k", sort=select, **constants)
        return KernelSource("kernel", source, 3, names)


def _constants(dtype: DType) -> dict[str, object]:
    return {"pointer": f"{storage(dtype)}_ptr", "compute": dtype.compute, "SIZE": dtype.compute.itemsize}


def _before(dtype: DType, descending: bool, a: str, b: str) -> str:
    """Expression: a comes strictly before b."""
    if descending:
        nan = f" or ({a} != {a} and {b} == {b})" if dtype.is_float else ""
        return f"{a} > {b}{nan}"
    nan = f" or ({b} != {b} and {a} == {a})" if dtype.is_float else ""
    return f"{a} < {b}{nan}"


def _sorted_lane(dtype: DType, descending: bool) -> str:
    return fill(
        _MERGE,
        element=load(dtype, "x", "base + i * inner"),
        before=_before(dtype, descending, "keys[source + right]", "keys[source + left]"),
    )


_SORT = """
def kernel(buffers, extents, begin, end, scratch, status):
    x = $pointer(buffers, 0)
    values = $pointer(buffers, 1)
    indices = i64_ptr(buffers, 2)
    $extents
    # Two halves each, that merge passes alternate between.
    half = (extent * $SIZE + 63) // 64 * 64 // $SIZE
    places_half = (extent * 8 + 63) // 64 * 64 // 8
    keys = ${compute}_at(scratch, 0, 0)
    places = i64_at(scratch, 2 * half * $SIZE, 1)
    for step in range(begin, end):
        o = step // inner
        lane = step - o * inner
        base = o * extent * inner + lane
        source = 0
        source_places = 0
        $sort
        for i in range($count):
            place = places[source_places + i]
            target = (o * $count + i) * inner + lane
            values[target] = x[base + place * inner]
            indices[target] = place
    return 0
"""

# Bottom-up merge sort: of equal elements the left one goes first, so it is stable.
_MERGE = """
for i in range(extent):
    keys[i] = $element
    places[i] = i
run = 1
while run < extent:
    target = half - source
    target_places = places_half - source_places
    start = 0
    while start < extent:
        left = start
        middle = imin(start + run, extent)
        right = middle
        stop = imin(middle + run, extent)
        for i in range(start, stop):
            take_right = left == middle
            if left < middle and right < stop:
                take_right = $before
            chosen = left
            if take_right:
                chosen = right
                right += 1
            else:
                left += 1
            keys[target + i] = keys[source + chosen]
            places[target_places + i] = places[source_places + chosen]
        start = stop
    source = target
    source_places = target_places
    run = 2 * run
"""

# Few: keep the best so far in order, and insert what comes before the last of them.
_SELECT = """
if k <= $INSERTION:
    count = 0
    for i in range(extent):
        value = $element
        slot = count
        while slot > 0 and ($before):
            slot -= 1
        if slot < k:
            count = imin(count + 1, k)
            for j in range(count - 1 - slot):
                keys[count - 1 - j] = keys[count - 2 - j]
                places[count - 1 - j] = places[count - 2 - j]
            keys[slot] = value
            places[slot] = i
else:
    $sort
"""
